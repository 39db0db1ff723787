//! The task that keeps the configuration of a running agent: it confirms it or takes it back, and notices that another one
//! is in force.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::Remote;
use super::confirm::{Confirm, Verdict};
use super::state::State;
use crate::beat;
use crate::board::Board;

/// How often it looks.
const REST: Duration = Duration::from_secs(1);

/// Another configuration is in force than the one that the agent runs: it has to start anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reconfigured;

impl Remote {
    /// Runs until `shutdown`, or until another configuration is in force.
    pub async fn keep(
        self: Arc<Self>,
        board: Arc<Board>,
        shutdown: CancellationToken,
    ) -> Option<Reconfigured> {
        let mut confirm = Confirm::new(self.limit);
        let mut looked = Instant::now();
        loop {
            let state = match State::read(&self.folder) {
                Ok(state) => state,
                Err(error) => {
                    tracing::error!("cannot read which configuration is in force: {error}");
                    State { active: self.found.clone(), ..State::default() }
                }
            };
            board.tell_configuration(Self::health(&state));
            if state.active != self.found {
                let name = |state: &State| state.active.as_ref().map(|active| active.offer.to_string());
                let name = name(&state).unwrap_or_else(|| "of the box's own file".to_owned());
                tracing::info!("starting anew with the configuration {name}");
                return Some(Reconfigured);
            }
            tokio::select! {
                () = beat::rest(REST) => {}
                () = shutdown.cancelled() => return None,
            }
            let passed = looked.elapsed();
            looked = Instant::now();
            if state.trial.is_some() {
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
