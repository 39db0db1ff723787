//! Alerts on clips: what must be raised when, and what must not.
//!
//! `tests/expectations/*.toml` say it of one clip each, written by somebody who looked at it; the clips themselves are not
//! part of the repository. A clip is replayed as `sharp-eyes-agent replay` does it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use serde::{Deserialize, Serialize};
use sharp_eyes_agent::config::Config;
use sharp_eyes_agent::replay::{Progress, ReplayOptions, Told, play};
use sharp_eyes_protocol::class::ObjectClass;
use sharp_eyes_tests::places;
use sharp_eyes_tests::village::Village;

use crate::setting;

/// One clip, and what must be raised in it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expectation {
    /// The file's name in `videos/` of the data, or of the demo's footage.
    clip: String,
    /// What is seen in it.
    #[allow(dead_code)] // for people
    seen: String,
    /// Zones, lines and rules as the configuration has them below `[[camera]]`.
    camera: String,
    /// Alerts that must be raised. Every other one is false.
    #[serde(default)]
    alert: Vec<Expected>,
}

/// One alert.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Expected {
    /// The rule that is broken.
    pub(crate) rule: String,
    /// In seconds of the clip: not before, not after.
    pub(crate) from: f64,
    pub(crate) to: f64,
    /// It may be raised, and need not.
    #[serde(default)]
    pub(crate) optional: bool,
    /// Where the foot of whom it is about has to be: left, top, right and bottom in 0..1 of the picture; anywhere without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) place: Option<[f32; 4]>,
}

impl Expected {
    fn fits(&self, told: &Told) -> bool {
        let at = told.at.as_secs_f64();
        let [left, top, width, height] = told.bounds;
        let (x, y) = (left + width / 2.0, top + height);
        let there =
            |[left, top, right, bottom]: [f32; 4]| (left..=right).contains(&x) && (top..=bottom).contains(&y);
        self.rule == told.rule.as_str() && (self.from..=self.to).contains(&at) && self.place.is_none_or(there)
    }
}

/// What one model's alerts were in all clips.
#[derive(Debug, Serialize)]
pub(crate) struct Judged {
    pub(crate) model: String,
    pub(crate) clips: Vec<Clip>,
}

/// What became of one clip.
#[derive(Debug, Serialize)]
pub(crate) struct Clip {
    pub(crate) clip: String,
    /// `None` where the clip is not here.
    pub(crate) outcome: Option<Outcome>,
}

/// Expected and raised alerts, matched.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Outcome {
    pub(crate) duration_s: f64,
    /// Raised as expected.
    pub(crate) right: Vec<Raised>,
    /// Expected, and not raised.
    pub(crate) missed: Vec<Expected>,
    /// Raised, and not expected.
    pub(crate) wrong: Vec<Raised>,
}

/// One alert that was raised.
#[derive(Debug, Serialize)]
pub(crate) struct Raised {
    pub(crate) rule: String,
    pub(crate) at_s: f64,
    pub(crate) class: ObjectClass,
    pub(crate) score: f32,
    /// Left, top, width and height in 0..1 of the picture.
    #[serde(rename = "box")]
    pub(crate) bounds: [f32; 4],
}

impl Raised {
    fn of(told: &Told) -> Self {
        Self {
            rule: told.rule.as_str().to_owned(),
            at_s: told.at.as_secs_f64(),
            class: told.class,
            score: told.confidence,
            bounds: told.bounds,
        }
    }
}

/// Replays each clip that is here with each model.
pub(crate) fn measure(models: &[PathBuf], folder: &Path) -> Result<Vec<Judged>> {
    let judge = |model: &PathBuf| {
        let name = crate::load(model)?.model().name.to_string();
        let clips = clips(model, &name, folder)?;
        Ok(Judged { model: name, clips })
    };
    models.iter().map(judge).collect()
}

fn clips(model: &Path, name: &str, folder: &Path) -> Result<Vec<Clip>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    let mut files: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    files.iter().map(|file| clip(model, name, file).with_context(|| file.display().to_string())).collect()
}

fn clip(model: &Path, name: &str, file: &Path) -> Result<Clip> {
    let expectation: Expectation = toml::from_str(&std::fs::read_to_string(file)?)?;
    let Expectation { clip, camera, alert, .. } = expectation;
    let own = places::footage().ok().filter(|footage| footage.ends_with(&clip));
    let shared = crate::data().map(|data| data.join("videos").join(&clip)).filter(|file| file.is_file());
    let Some(path) = own.or(shared) else { return Ok(Clip { clip, outcome: None }) };
    eprintln!("{name}: replaying {clip}");
    let scratch = tempfile::tempdir()?;
    let head = Village::new(scratch.path(), 1883)?.toml();
    let text = format!("{head}\n[[camera]]\nname = \"clip\"\nurl = \"rtsp://127.0.0.1/clip\"\n{camera}");
    let mut config = Config::parse(&text).map_err(|problems| {
        let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
        anyhow!("its camera: {}", problems.join("; "))
    })?;
    config.detector.model = model.to_owned();
    let video = setting("EVAL_OUT")
        .map(|out| PathBuf::from(out).join(format!("{name}-{clip}")).with_extension("mp4"));
    if let Some(folder) = video.as_deref().and_then(Path::parent) {
        std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    let options = ReplayOptions { clip: path, camera: None, json: None, video, start: None };
    let replayed = play(&options, &config, &config.cameras[0], &mut Progress::quiet())?;
    let mut outcome = compare(&alert, &replayed.incidents);
    outcome.duration_s = replayed.duration.as_secs_f64();
    Ok(Clip { clip, outcome: Some(outcome) })
}

/// Gives each alert, in the order of time, the expectation of its rule that ends first.
fn compare(expected: &[Expected], raised: &[Told]) -> Outcome {
    let mut open: Vec<&Expected> = expected.iter().collect();
    open.sort_by(|a, b| {
        (a.optional, a.to).partial_cmp(&(b.optional, b.to)).unwrap_or(std::cmp::Ordering::Equal)
    });
    let mut outcome = Outcome::default();
    for told in raised {
        let raised = Raised::of(told);
        match open.iter().position(|expected| expected.fits(told)) {
            Some(index) if open.remove(index).optional => {}
            Some(_) => outcome.right.push(raised),
            None => outcome.wrong.push(raised),
        }
    }
    outcome.missed = open.into_iter().filter(|expected| !expected.optional).cloned().collect();
    outcome
}
