//! A clip through the same code as a live camera, faster than real time: how an installer tunes one camera.
//!
//! # Layout
//!
//! - [`stage`]: what happens to each frame of the clip;
//! - [`report`]: the incidents as a table and as JSON;
//! - [`picture`]: what is drawn on a redacted frame, [`canvas`] with what;
//! - [`film`]: those pictures as an MP4 file;
//! - [`progress`]: how far it has got, on a terminal or in a log.
//!
//! Time is the clip's: nothing here depends on how fast the machine is.

mod canvas;
mod film;
mod picture;
mod progress;
mod report;
mod stage;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use jiff::Timestamp;
use jiff::civil::DateTime;
use sharp_eyes_vision::Schedule;

use crate::analysis::Lookout;
use crate::board::CameraCard;
use crate::camera::{self, ClipError, FilmError, FrameSink, InitError};
use crate::config::{CameraConfig, Config, View};
use crate::sessions::{LoadError, load};
use film::Filming;
pub use progress::Progress;
pub use report::{Replayed, Told};
use stage::Stage;

/// What `replay` is given beside the configuration.
#[derive(Clone, Debug, clap::Args)]
pub struct ReplayOptions {
    /// The clip: any file that GStreamer plays.
    pub clip: PathBuf,
    /// The camera of the configuration that the clip is taken for; may be left out where there is only one.
    #[arg(long)]
    pub camera: Option<String>,
    /// Write the incidents to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write what the agent saw to this file: an MP4 with zones, tracks and the state of gate and rules, redacted as
    /// evidence is.
    #[arg(long, value_name = "FILE.mp4")]
    pub video: Option<PathBuf>,
    /// When the clip begins, at the site, such as 2026-11-23T22:30. Without it every schedule is on.
    #[arg(long, value_name = "TIME")]
    pub start: Option<DateTime>,
}

/// A clip cannot be replayed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum ReplayError {
    #[error("the configuration has no camera {asked:?}; its cameras: {known}")]
    NoSuchCamera { asked: String, known: String },
    #[error("the configuration has several cameras; say which one by --camera: {known}")]
    WhichCamera { known: String },
    #[error("no time {start} exists at the site: {source}")]
    Start { start: DateTime, source: jiff::Error },
    #[error(transparent)]
    GStreamer(#[from] InitError),
    #[error("cannot use the model: {0}")]
    Model(#[from] LoadError),
    #[error(transparent)]
    Clip(#[from] ClipError),
    #[error(transparent)]
    Film(#[from] FilmError),
    #[error("cannot analyse a frame at {at}: {reason}")]
    Frame { at: String, reason: String },
    #[error("cannot write {}: {source}", file.display())]
    Write { file: PathBuf, source: std::io::Error },
}

/// Replays a clip, prints its incidents and writes what was asked for. True if all of the clip could be played.
pub fn replay(options: &ReplayOptions, config: &Config) -> Result<bool, ReplayError> {
    let camera = choose(&config.cameras, options.camera.as_deref())?;
    let mut progress = Progress::new(&options.clip);
    let replayed = play(options, config, camera, &mut progress)?;
    progress.done();
    print!("{}", replayed.table());
    if options.start.is_none() && camera.rules.iter().any(|rule| rule.schedule != Schedule::always()) {
        println!("every schedule was on: --start says when the clip begins");
    }
    if let Some(file) = &options.json {
        let write = || std::fs::write(file, replayed.to_json());
        write().map_err(|source| ReplayError::Write { file: file.clone(), source })?;
    }
    if let Some(damage) = &replayed.damage {
        eprintln!("{damage}");
    }
    Ok(replayed.damage.is_none())
}

/// The camera of that name, or the only one.
fn choose<'c>(cameras: &'c [CameraConfig], asked: Option<&str>) -> Result<&'c CameraConfig, ReplayError> {
    let known = || {
        let names: Vec<_> = cameras.iter().map(|camera| camera.stream.name.as_str()).collect();
        names.join(", ")
    };
    match (asked, cameras) {
        (Some(asked), _) => {
            let camera = cameras.iter().find(|camera| camera.stream.name.as_str() == asked);
            camera.ok_or_else(|| ReplayError::NoSuchCamera { asked: asked.to_owned(), known: known() })
        }
        (None, [camera]) => Ok(camera),
        (None, _) => Err(ReplayError::WhichCamera { known: known() }),
    }
}

/// Replays a clip without saying anything of it. A clip that is damaged from somewhere on is played until there.
pub fn play(
    options: &ReplayOptions,
    config: &Config,
    camera: &CameraConfig,
    progress: &mut Progress,
) -> Result<Replayed, ReplayError> {
    camera::init()?;
    let detector = load(&config.detector, &config.detector.model)?;
    let started = Instant::now();
    // Any fixed moment: all others are this one and a time of the clip.
    let beginning = started;
    let card = Arc::new(CameraCard::of_clip(camera.stream.name.clone(), camera.gate, beginning));
    let mut view = View::of(camera);
    let wall = match options.start {
        Some(start) => {
            let zoned = start.to_zoned(config.time_zone.clone());
            zoned.map_err(|source| ReplayError::Start { start, source })?.timestamp()
        }
        None => {
            view.rules.iter_mut().for_each(|rule| rule.schedule = Schedule::always());
            Timestamp::UNIX_EPOCH
        }
    };
    let film = options.video.as_deref().map(|file| Filming::new(file, &view));
    let thresholds = detector.model().thresholds.clone();
    let lookout = Lookout::new(view, thresholds, config.time_zone.clone(), card.clone());
    let stage = Arc::new(Mutex::new(Stage::new(detector, lookout, film, beginning, wall)));
    let frames: FrameSink = {
        let stage = stage.clone();
        Arc::new(move |frame| on(&stage).frame(&frame))
    };
    let played = camera::replay(&options.clip, &camera.stream, &frames, &card, beginning, |played| {
        progress.show(played);
        let health = card.gate().health(beginning + played.at);
        match on(&stage).pass(played.at, health.state) {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        }
    });
    on(&stage).end(&options.clip, &card, played, started.elapsed())
}

/// Nobody else is on the stage: clip, gate, decoder and detector go in step.
fn on(stage: &Mutex<Stage>) -> MutexGuard<'_, Stage> {
    stage.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The name of a file without its folders.
fn name_of(file: &Path) -> String {
    file.file_name().unwrap_or(file.as_os_str()).to_string_lossy().into_owned()
}
