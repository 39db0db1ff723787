//! Cameras, broker, console and agent, started in that order and in a folder of their own.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use jiff::Zoned;
use sharp_eyes_protocol::report::Health;
use sharp_eyes_tests::agent::Agent;
use sharp_eyes_tests::broker::{Broker, BrokerOptions};
use sharp_eyes_tests::camera::Camera;
use sharp_eyes_tests::console::Console;
use sharp_eyes_tests::places;
use sharp_eyes_tests::process::last_lines;
use sharp_eyes_tests::usage::Usage;
use sharp_eyes_tests::village::{Village, VillageCamera, WHOLE_PICTURE};

use crate::options::{Input, Options};
use crate::view::View;

/// Everything that runs.
pub(crate) struct Stage {
    /// Where the pictures go, below the folder that the demo was started in where that is possible.
    pub(crate) folder: PathBuf,
    pub(crate) console: Console,
    /// When the agent was started.
    pub(crate) began: jiff::Timestamp,
    agent: Option<Agent>,
    broker: Broker,
    _camera: Option<Camera>,
    _secret: Option<Secret>,
}

/// What the agent says of itself and costs at one moment.
pub(crate) struct Measurement {
    pub(crate) at: Duration,
    pub(crate) health: Health,
    pub(crate) usage: Usage,
}

impl Stage {
    /// Says what it does while it does it.
    pub(crate) fn set_up(options: &Options, view: &View) -> Result<Self> {
        let folder = places::cache().join("demo").join(Zoned::now().strftime("%Y%m%d-%H%M%S").to_string());
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;

        let mut secret = None;
        let (camera, cameras) = match &options.input {
            Input::Footage(file) => {
                let file = file.display();
                // The second one is half the clip ahead, so that they do not show the same at once.
                let mounts = [format!("square={file}"), format!("gate={file}@40")];
                let camera = view.step("playing the footage as two RTSP cameras (encoded once)", || {
                    Camera::start(&folder, &["--mount", &mounts[0], "--mount", &mounts[1]])
                })?;
                let cameras = footage_rules(&camera);
                (Some(camera), cameras)
            }
            Input::Clip(file) => {
                let mount = format!("own={}", file.display());
                let camera = view.step(
                    "playing your clip as an RTSP camera (its first 2 minutes, encoded once)",
                    || Camera::start(&folder, &["--mount", &mount]),
                )?;
                let cameras = vec![anywhere("own", camera.url("own"))];
                (Some(camera), cameras)
            }
            Input::Camera { url, login } => {
                let mut camera = anywhere("own", url.clone());
                if let Some((user, password)) = login {
                    let file = &secret.insert(Secret::write(&folder, password)?).0;
                    camera = camera.line(&format!("user = {}", serde_json::to_string(user)?));
                    camera = camera.line(&format!("password_file = {}", serde_json::to_string(file)?));
                }
                (None, vec![camera])
            }
        };
        let broker = view.step("starting a broker, as the township has one", || {
            Broker::start(&folder, &BrokerOptions::default())
        })?;
        let console =
            view.step("watching the broker, as the township does", || Console::connect(broker.port(), None))?;
        let mut village = Village::new(&folder, broker.port())?;
        village.model.clone_from(&options.model);
        village.cameras = cameras;
        let began = jiff::Timestamp::now();
        let agent = view.step("starting the agent, as the village has one", || Agent::start(&village))?;
        let folder = std::env::current_dir()
            .ok()
            .and_then(|here| folder.strip_prefix(here).map(Path::to_owned).ok())
            .unwrap_or(folder);
        Ok(Self { folder, console, began, agent: Some(agent), broker, _camera: camera, _secret: secret })
    }

    /// An error with its last words when the agent or the broker is gone.
    pub(crate) fn still_plays(&mut self) -> Result<()> {
        if let Some(agent) = &mut self.agent
            && let Some(status) = agent.process().ended()
        {
            bail!(
                "the agent ended by itself ({status}). Its last words:\n{}",
                agent.process().last_words(10)
            );
        }
        let broker = self.broker.process()?;
        if let Some(status) = broker.ended() {
            bail!("the broker ended by itself ({status}). Its last words:\n{}", broker.last_words(10));
        }
        Ok(())
    }

    /// `None` while the agent does not answer.
    pub(crate) fn measure(&mut self, at: Duration) -> Option<Measurement> {
        let agent = self.agent.as_mut()?;
        Some(Measurement { at, health: agent.health().ok()?, usage: Usage::of(agent.process().pid()).ok()? })
    }

    /// Ends the agent, which delivers what it still has.
    pub(crate) fn close(&mut self) -> Result<()> {
        let Some(agent) = self.agent.take() else { return Ok(()) };
        let began = Instant::now();
        let code = agent.stop()?;
        if code != 0 {
            let log = fs::read_to_string(Agent::log_file(&self.folder)).unwrap_or_default();
            let seconds = began.elapsed().as_secs();
            bail!(
                "asked to end, the agent did after {seconds} s with code {code}. Its last words:\n{}",
                last_lines(&log, 10)
            );
        }
        Ok(())
    }
}

/// What is forbidden on the footage: a street corner with a lawn in front of it.
fn footage_rules(camera: &Camera) -> Vec<VillageCamera> {
    let street = [
        (0.0, 0.34),
        (0.40, 0.37),
        (0.80, 0.22),
        (0.93, 0.34),
        (1.0, 0.52),
        (1.0, 0.84),
        (0.45, 0.58),
        (0.0, 0.44),
    ];
    let lawn = [(0.0, 0.46), (0.25, 0.50), (0.50, 0.63), (0.95, 0.88), (0.95, 1.0), (0.0, 1.0)];
    vec![
        VillageCamera::new("square", camera.url("square")).rule("street", &street, "2s", "15s", "major"),
        // A tripod stands on the lawn that the built-in model takes for a person at about 0.4: what an installer does
        // about it is to raise the bar of this one rule.
        VillageCamera::new("gate", camera.url("gate"))
            .rule("lawn", &lawn, "3s", "15s", "critical")
            .min_score(0.5),
    ]
}

/// Nothing is known of the picture: everything in it is watched.
fn anywhere(name: &str, url: String) -> VillageCamera {
    VillageCamera::new(name, url).rule("anywhere", WHOLE_PICTURE, "2s", "15s", "major")
}

/// A file that nobody else may read, and that is gone when the demo is over.
struct Secret(PathBuf);

impl Secret {
    fn write(folder: &Path, secret: &str) -> Result<Self> {
        let path = folder.join("camera.password");
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&path)?;
        file.write_all(secret.as_bytes())?;
        Ok(Self(path))
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0); // somebody was faster
    }
}
