//! A configuration that comes from outside: cameras, zones, rules, brokers, from the repository of models, over the box's own
//! file.
//!
//! # Layout
//!
//! In the order in which a configuration passes:
//!
//! - [`offer`]: what a repository offers to which boxes, and [`choice`] which of it this box takes; plain values;
//! - [`judge`]: what it may change, and what becomes visible by it; plain values;
//! - [`take`]: from the repository to the file that says what is in force;
//! - [`state`]: that file, replaced in one step;
//! - [`confirm`]: whether it keeps the way to a broker; plain values;
//! - [`keeper`]: the task that joins them in a running agent.
//!
//! # Invariants
//!
//! - It never changes whom the box trusts, where its state lies, what it runs, and where a secret goes.
//! - Whenever the power goes, the next start finds either the old or the new configuration, and the box's own file is
//!   never written.
//! - One that loses every broker is taken back by itself, also when the agent ends again and again meanwhile.

pub mod choice;
pub mod confirm;
pub mod judge;
pub mod keeper;
pub mod offer;
pub mod state;
pub mod take;

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use sha2::{Digest, Sha256};
use sharp_eyes_protocol::report::{ActiveConfiguration, ConfigurationHealth};
use tokio::sync::watch;

use crate::config::Config;
use crate::uplink::UplinkStats;
use state::{Accepted, State, text_file};

/// A box that takes configurations from outside.
#[derive(Debug)]
pub struct Remote {
    /// Texts, and the state.
    folder: PathBuf,
    /// The box's own file.
    own: Config,
    /// The same with what came from outside.
    pub in_force: Config,
    /// What the state said of it at the start; what could not be used, and could not be written down either, too.
    found: Option<Accepted>,
    /// Without a broker for so long, a new one is taken back.
    limit: Duration,
    /// Whether there is a broker. Without any, as in a command beside the agent, nobody knows, and it counts as there.
    pub uplinks: Vec<watch::Receiver<UplinkStats>>,
}

impl Remote {
    /// The agent starts. `None` where the box's own file wants nothing from outside.
    pub fn start(own: &Config) -> Option<Self> {
        Self::new(own, State::start)
    }

    /// What is in force, for a command beside the agent.
    pub fn look(own: &Config) -> Option<Self> {
        Self::new(own, |_| {})
    }

    fn new(own: &Config, begin: fn(&mut State)) -> Option<Self> {
        let limit = own.remote.as_ref()?.confirm;
        let folder = own.state.folder.join("configuration");
        let mut remote =
            Self { folder, own: own.clone(), in_force: own.clone(), found: None, limit, uplinks: Vec::new() };
        let state = remote.changed(State::default(), begin);
        remote.load(state);
        remote.found = State::read(&remote.folder).unwrap_or_default().active;
        Some(remote)
    }

    /// Changes the state on disk, or, where that cannot be, here alone.
    fn changed(&self, mut state: State, change: impl Fn(&mut State)) -> State {
        State::change(&self.folder, &change).unwrap_or_else(|error| {
            tracing::error!("the folder of configurations {}: {error}", self.folder.display());
            change(&mut state);
            state
        })
    }

    /// Reads what is in force. What cannot be used any more gives way to the one before, in the end to the box's own file.
    fn load(&mut self, mut state: State) {
        while let Some(active) = state.active.clone() {
            match self.text(&active).map(|text| judge::judge(&self.own, &text)) {
                Ok(Ok(config)) => {
                    tracing::info!(configuration = %active.offer, "a configuration from outside is in force");
                    self.in_force = config;
                    return;
                }
                Ok(Err(reason)) => state = self.changed(state, |state| state.lose(&reason)),
                Err(error) => {
                    tracing::error!(configuration = %active.offer, "damaged on this box, to be fetched anew: {error}");
                    state = self.changed(state, State::forget);
                }
            }
        }
    }

    fn text(&self, active: &Accepted) -> io::Result<String> {
        let text = fs::read_to_string(text_file(&self.folder, &active.offer))?;
        if hex::encode(Sha256::digest(&text)) != active.offer.sha256 {
            return Err(io::Error::other("its SHA-256 is another one"));
        }
        Ok(text)
    }

    /// The agent ends as asked.
    pub fn stop(&self) {
        drop(self.changed(State::default(), State::stop));
    }

    fn is_connected(&self) -> bool {
        self.uplinks.is_empty() || self.uplinks.iter().any(|uplink| uplink.borrow().health.connected)
    }

    fn health(state: &State) -> ConfigurationHealth {
        let active = state.active.as_ref();
        ConfigurationHealth {
            active: active.map(|active| ActiveConfiguration {
                name: active.offer.name.clone(),
                number: active.offer.number,
            }),
            on_trial: state.trial.is_some(),
            last_refusal: state.last_refusal(),
            unmasked: active.map(|active| active.unmasked.clone()).unwrap_or_default(),
        }
    }
}
