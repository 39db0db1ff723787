//! Models that come from outside: fetched, verified, tried, switched to, watched, and taken back.
//!
//! # Layout
//!
//! In the order in which a model passes:
//!
//! - [`bundle`]: the one file that it travels in;
//! - [`tuf`]: the repository that vouches for it, from both sides; the only folder that names the TUF client;
//! - [`polling`]: when a box asks its repository; plain values;
//! - [`release`]: what a repository offers, and [`choice`] which of it this box takes; plain values;
//! - [`patch`]: a bundle as what is new in it;
//! - [`install`]: from a repository into a slot, with all checks in between;
//! - [`trial`]: contract, golden pictures and budget, in a process of its own;
//! - [`shadow`]: a look beside the active model, in a process of its own, too; [`compare`] judges it as a plain value;
//! - [`state`]: which slot is the active one, and what is not tried again: one file, replaced in one step;
//! - [`desk`]: hands the detector to the analysis between two frames, and says which one looks;
//! - [`watch`]: whether the active model keeps what its trial promised; plain values;
//! - [`updater`]: the task that joins them.
//!
//! # Invariants
//!
//! - A model never looks at frames unless its signature, its contract and its trial on this box all passed.
//! - What the active model needs is never written over; the one before comes back by itself when the new one fails.
//! - Whenever the power goes, the next start finds either the old or the new model.

pub mod bundle;
pub mod choice;
pub mod compare;
pub mod desk;
pub mod install;
pub mod patch;
pub mod polling;
pub mod release;
pub mod shadow;
pub mod state;
pub mod trial;
pub mod tuf;
pub mod updater;
pub mod watch;

use std::path::PathBuf;
use std::time::Duration;

use jiff::tz::TimeZone;

use crate::config::{Config, DetectorConfig, ModelsConfig, View};

/// The share of the time between two frames that an inference may take, where the configuration says no more.
const BUDGET_SHARE: f64 = 0.8;

/// Everything that installing a model needs.
#[derive(Clone, Debug)]
pub struct ModelsOptions {
    /// Slots, state, and what is trusted.
    pub folder: PathBuf,
    /// Section `[models]`.
    pub config: ModelsConfig,
    /// The model that looks where none was installed, and what runs it.
    pub detector: DetectorConfig,
    /// The longest inference.
    pub budget: Duration,
    /// What frames are judged by, one a camera.
    pub views: Vec<View>,
    /// The zone that schedules are judged in.
    pub time_zone: TimeZone,
    /// This box among a hundred.
    pub place: u8,
    /// The agent's binary, which tries models in a process of its own.
    pub agent: PathBuf,
}

impl ModelsOptions {
    /// As a configuration says; `None` without a section `[models]`.
    pub fn new(config: &Config) -> Option<Self> {
        let models = config.models.clone()?;
        let frames: f64 = config.cameras.iter().map(|camera| f64::from(camera.stream.analysed_fps)).sum();
        let share = BUDGET_SHARE * config.detector.sessions as f64;
        let budget = models.budget.unwrap_or_else(|| Duration::from_secs_f64(share / frames.max(0.1)));
        Some(Self {
            folder: config.state.folder.join("models"),
            config: models,
            detector: config.detector.clone(),
            budget,
            views: config.cameras.iter().map(View::of).collect(),
            time_zone: config.time_zone.clone(),
            place: release::place_of(&config.site),
            agent: std::env::current_exe().unwrap_or_else(|_| PathBuf::from("sharp-eyes-agent")),
        })
    }
}
