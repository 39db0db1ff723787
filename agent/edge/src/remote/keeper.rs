//! The task that keeps the configuration of a running agent: it confirms it or takes it back, and notices that another one
//! is in force.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sharp_eyes_protocol::report::ConfigurationHealth;
use tokio_util::sync::CancellationToken;

use super::Remote;
use super::confirm::{Confirm, Verdict};
use super::judge::in_one_line;
use super::state::State;
use crate::beat;
use crate::board::Board;
use crate::config::{Config, ConfigError};

/// How often it looks.
const REST: Duration = Duration::from_secs(1);

/// Another configuration is in force than the one that the agent runs: it has to start anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reconfigured;

impl Remote {
    /// Runs until `shutdown`, or until another configuration is in force and the box's own file, which the agent starts
    /// with, can be read.
    pub async fn keep(
        self: Arc<Self>,
        own_file: PathBuf,
        board: Arc<Board>,
        shutdown: CancellationToken,
    ) -> Option<Reconfigured> {
        let mut confirm = Confirm::new(self.limit);
        let mut looked = Instant::now();
        let mut hindrance = None;
        loop {
            let state = match State::read(&self.folder) {
                Ok(state) => state,
                Err(error) => {
                    tracing::error!("cannot read which configuration is in force: {error}");
                    State { active: self.found.clone(), ..State::default() }
                }
            };
            let is_in_force = state.active == self.found;
            if is_in_force {
                board.tell_configuration(Self::health(&state));
            } else {
                let name = |state: &State| state.active.as_ref().map(|active| active.offer.to_string());
                let name = name(&state).unwrap_or_else(|| "of the box's own file".to_owned());
                let Some(why) = why_not_to_start(&own_file) else {
                    tracing::info!("starting anew with the configuration {name}");
                    return Some(Reconfigured);
                };
                let running = State { active: self.found.clone(), trial: None, ..State::default() };
                let last_refusal = Some(format!("the box's own file: {why}"));
                board.tell_configuration(ConfigurationHealth { last_refusal, ..Self::health(&running) });
                if hindrance.as_ref() != Some(&why) {
                    tracing::error!(
                        "the configuration {name} waits for the box's own file to be mended: {why}"
                    );
                    hindrance = Some(why);
                }
            }
            tokio::select! {
                () = beat::rest(REST) => {}
                () = shutdown.cancelled() => return None,
            }
            let passed = looked.elapsed();
            looked = Instant::now();
            if is_in_force && state.trial.is_some() {
                self.decide(confirm.look(self.is_connected(), passed));
            }
        }
    }

    fn decide(&self, verdict: Verdict) {
        let changed = match verdict {
            Verdict::Open => return,
            Verdict::Kept => {
                tracing::info!("the configuration is kept: it has a broker");
                State::change(&self.folder, State::keep)
            }
            Verdict::Reverted => {
                let reason = format!("no broker for {} s", self.limit.as_secs());
                tracing::warn!("the configuration is taken back: {reason}");
                State::change(&self.folder, |state| state.revert(&reason))
            }
        };
        if let Err(error) = changed {
            tracing::error!("cannot write down what becomes of the configuration: {error}");
        }
    }
}

/// An agent that starts with a file like this ends at once, and systemd leaves it at that.
fn why_not_to_start(own_file: &Path) -> Option<String> {
    Some(match Config::load(own_file).err()? {
        ConfigError::Invalid { problems, .. } => {
            in_one_line(problems.iter().map(ToString::to_string).collect())
        }
        error @ ConfigError::Unreadable { .. } => error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::offer::testing::offer;
    use super::super::state::Accepted;
    use super::*;

    const OWN: &str = include_str!("../../../../config/agent.toml");

    #[tokio::test]
    async fn another_configuration_waits_until_the_own_file_can_be_read() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("agent.toml");
        let mut own = Config::parse(OWN).unwrap();
        own.state.folder = place.path().to_owned();
        let remote = Arc::new(Remote::start(&own).unwrap());
        let accepted = Accepted { offer: offer(1, "*/*/*/*"), unmasked: Vec::new() };
        State::change(&remote.folder, |state| state.take(Some(accepted.clone()))).unwrap();

        fs::write(&file, OWN.replace("[state]", "[stat]")).unwrap(); // an editor at work
        let board = Arc::new(Board::new([]));
        let keeper = tokio::spawn(remote.clone().keep(file.clone(), board.clone(), CancellationToken::new()));
        tokio::time::sleep(2 * REST).await;
        assert!(!keeper.is_finished());
        let told = board.configuration().unwrap();
        assert!(told.active.is_none() && !told.on_trial, "{told:?}");
        let why = told.last_refusal.unwrap();
        assert!(why.starts_with("the box's own file: ") && why.contains("stat"), "{why}");
        assert!(State::read(&remote.folder).unwrap().trial.is_some(), "it was kept without being tried");

        fs::write(&file, OWN).unwrap();
        assert_eq!(keeper.await.unwrap(), Some(Reconfigured));
    }
}
