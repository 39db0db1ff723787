//! What the environment asks for.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use sharp_eyes_tests::places;

/// How long it lasts, unless somebody says otherwise.
const LENGTH_S: u64 = 120;

/// What to show, and for how long.
pub(crate) struct Options {
    pub(crate) input: Input,
    /// `None`: until Ctrl-C.
    pub(crate) length: Option<Duration>,
    /// Where to write the summary as JSON.
    pub(crate) summary: Option<PathBuf>,
    /// The bundle of the model.
    pub(crate) model: PathBuf,
}

/// Whose pictures.
pub(crate) enum Input {
    /// The footage that setup brings: two cameras with rules of their own.
    Footage(PathBuf),
    /// A file, played as one camera.
    Clip(PathBuf),
    /// A real camera.
    Camera { url: String, login: Option<(String, String)> },
}

impl Options {
    pub(crate) fn from_environment() -> Result<Self> {
        // `make demo CLIP=` means the same as not saying it.
        let get = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let seconds = match get("DEMO_SECONDS") {
            Some(text) => text.parse().with_context(|| format!("DEMO_SECONDS={text}: expected a number"))?,
            None => LENGTH_S,
        };
        let input = match (get("CAMERA"), get("CLIP")) {
            (Some(_), Some(_)) => bail!("CAMERA and CLIP are one too many: choose one"),
            (Some(url), None) => camera(url, get("CAMERA_USER"), get("CAMERA_PASSWORD"))?,
            (None, Some(file)) => {
                let file = PathBuf::from(file);
                ensure!(file.is_file(), "CLIP={} is not there", file.display());
                Input::Clip(file)
            }
            (None, None) => Input::Footage(places::footage()?),
        };
        let model = match get("DEMO_MODEL") {
            Some(folder) => PathBuf::from(folder),
            None => places::builtin_model()?,
        };
        Ok(Self {
            input,
            length: (seconds > 0).then_some(Duration::from_secs(seconds)),
            summary: get("DEMO_SUMMARY").map(PathBuf::from),
            model,
        })
    }
}

/// Says nothing of the address in errors: people put passwords there.
fn camera(url: String, user: Option<String>, password: Option<String>) -> Result<Input> {
    let rest = url.strip_prefix("rtsp://").context("CAMERA has to begin with rtsp://")?;
    let authority = rest.split('/').next().unwrap_or_default();
    ensure!(
        !authority.contains('@'),
        "CAMERA holds a password: give CAMERA_USER and CAMERA_PASSWORD instead"
    );
    let login = match (user, password) {
        (Some(user), Some(password)) => Some((user, password)),
        (None, None) => None,
        _ => bail!("CAMERA_USER and CAMERA_PASSWORD go together"),
    };
    Ok(Input::Camera { url, login })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_in_an_address_is_refused_without_repeating_it() {
        let Err(error) = camera("rtsp://me:secret@host/1".into(), None, None) else { panic!("accepted") };
        assert!(!format!("{error:#}").contains("secret"));
        assert!(camera("rtsp://host/user@1".into(), None, None).is_ok());
    }
}
