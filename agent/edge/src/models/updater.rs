//! The task that keeps the models of a running agent: checks the repository, switches, watches, and rolls back.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::ModelsOptions;
use super::desk::{Chosen, Desk};
use super::install::{Check, Outcome};
use super::polling::Polling;
use super::state::{Installed, State};
use super::watch::{Reading, Verdict, Watch};
use crate::beat;
use crate::board::Board;
use crate::clock::Clock;
use crate::remote::Remote;
use crate::remote::take::Taken;
use crate::sessions::{self, LoadError, Sessions};

/// How often it looks whether a command beside the agent changed something.
const REST: Duration = Duration::from_secs(1);

/// How often it looks at what a model on trial does.
const WATCHFUL_REST: Duration = Duration::from_millis(200);

/// A look that takes so long, and so many times the budget, while a model is on trial hangs. The model before looks again
/// at once, where the inference can be interrupted.
const HANGS_AFTER: (Duration, u32) = (Duration::from_millis(1200), 5);

/// An analysis that is silent for so long all the same cannot be interrupted. Only the end of the process helps then.
const HOPELESS_AFTER: Duration = Duration::from_secs(30);

/// The model on trial hangs the analysis. It has been rolled back on disk; the agent has to be started anew.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the model {0} hangs the analysis and was rolled back: the agent has to be started anew")]
pub struct Hangs(String);

/// What it needs.
#[derive(Debug)]
pub struct Updater {
    /// Everything that installing needs.
    pub options: ModelsOptions,
    /// Where detectors are handed over.
    pub desk: Arc<Desk>,
    /// What the model does.
    pub board: Arc<Board>,
    /// Judges expiry.
    pub clock: Arc<Clock>,
    /// Somebody asks for a check.
    pub hasten: Arc<Notify>,
    /// Takes configurations, where the box does.
    pub remote: Option<Arc<Remote>>,
}

/// A model on trial that looks at frames.
struct OnTrial {
    installed: Installed,
    watch: Watch,
}

impl Updater {
    /// Runs until `shutdown`, or until the model on trial hangs the analysis.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), Hangs> {
        let mut polling = Polling::start(self.options.config.interval, Instant::now(), fastrand::f64());
        let mut on_trial: Option<OnTrial> = None;
        // The model that hung, until the analysis says something again.
        let mut hung: Option<String> = None;
        let mut rest = REST;
        // What the models before did, so that the next one has something to be compared with.
        let mut before = Reading::default();
        let mut backoff = sessions::reloads();
        let mut reload = Instant::now();
        loop {
            tokio::select! {
                () = beat::rest(rest) => {}
                () = self.hasten.notified() => polling.hasten(Instant::now(), fastrand::f64()),
                () = shutdown.cancelled() => return Ok(()),
            }
            let state = match State::read(&self.options.folder) {
                Ok(state) => state,
                Err(error) => {
                    tracing::error!("cannot read which model was installed: {error}");
                    continue;
                }
            };
            self.desk.tell_state(&state);
            rest = if state.trial.is_some() { WATCHFUL_REST } else { REST };
            if let Some(model) = &hung {
                let silence = self.board.detector.silence();
                if silence > HOPELESS_AFTER {
                    return Err(Hangs(model.clone()));
                }
                if silence < WATCHFUL_REST {
                    hung = None;
                }
            }
            if self.desk.is_outdated(&state) && Instant::now() >= reload {
                before = self.reading();
                on_trial = None;
                let is_done = match self.desk.is_counted() {
                    true => self.switch(state.active.clone()).await,
                    false => self.desk.start(),
                };
                match is_done {
                    true => backoff.reset(),
                    false => reload = Instant::now() + backoff.next(fastrand::f64()),
                }
                continue;
            }
            if let (Some(active), Some(_)) = (&state.active, &state.trial) {
                if self.hangs(active) {
                    hung = Some(active.release.model.to_string());
                    continue;
                }
                self.watch(active, &mut on_trial, before);
            } else {
                on_trial = None;
                drop(self.desk.take_spare(None)); // what is kept needs nothing to fall back to at once
            }
            // Also while one is watched: it may be revoked.
            if let Some(repository) = &self.options.config.repository
                && polling.is_due(Instant::now())
                && hung.is_none()
            {
                let active = state.active.as_ref().filter(|_| state.trial.is_some());
                tokio::select! {
                    () = self.check(repository) => {}
                    // The repository waits, and with it nobody holds the lock of what is to be decided.
                    (active, verdict) = self.turns(active, on_trial.as_ref()) => {
                        self.conclude(active, verdict);
                        continue;
                    }
                }
                polling.checked(Instant::now(), fastrand::f64());
            }
        }
    }

    async fn check(&self, repository: &str) {
        let tell = |update| self.desk.tell(update);
        let rate = Some(self.options.config.rate).filter(|_| repository.starts_with("http"));
        let check = Check {
            options: &self.options,
            repository,
            rate,
            clock: &self.clock,
            tell: &tell,
            remote: self.remote.as_deref(),
            configured: &|taken| {
                if let Taken::Waiting(why) = taken {
                    tracing::info!("a new configuration waits: {why}");
                }
            },
            window: Some(&self.desk),
        };
        match check.run().await {
            Ok(Outcome::Nothing | Outcome::Busy | Outcome::Watching(_) | Outcome::Stopped) => {}
            Ok(Outcome::Activated(model)) => tracing::info!(%model, "a model passed its trial"),
            Ok(Outcome::Refused(model, reason)) => tracing::warn!(%model, "a model is refused: {reason}"),
            Ok(Outcome::RolledBack(reason)) => tracing::warn!("the model is taken back: {reason}"),
            Err(error) => tracing::warn!("cannot update the model: {error}"),
        }
    }

    /// Loads the model that shall look, while the other one looks, and hands it over. False where it is to be tried again.
    async fn switch(&self, active: Option<Installed>) -> bool {
        if let Some(sessions) = self.desk.take_spare(active.as_ref()) {
            self.desk.offer(sessions, active);
            return true;
        }
        let chosen = match active {
            Some(installed) => {
                Chosen { path: installed.slot.folder(&self.options.folder), installed: Some(installed) }
            }
            None => Chosen { path: self.options.detector.model.clone(), installed: None },
        };
        let (detector, path) = (self.options.detector.clone(), chosen.path.clone());
        let loaded = tokio::task::spawn_blocking(move || Sessions::load(&detector, &path));
        let loaded = loaded.await.unwrap_or_else(|error| Err(LoadError::Changed(error.to_string())));
        match loaded.and_then(|sessions| chosen.check(sessions.model()).map(|()| sessions)) {
            Ok(sessions) => {
                self.desk.offer(sessions, chosen.installed);
                true
            }
            Err(error) => {
                self.desk.unusable(&chosen, &error);
                false
            }
        }
    }

    /// The longest that an inference may take.
    fn limit(&self) -> Duration {
        let (least, budgets) = HANGS_AFTER;
        least.max(self.options.budget.saturating_mul(budgets))
    }

    fn is_hanging(&self, active: &Installed) -> bool {
        self.desk.is_looking(active) && self.board.detector.looking_for() > self.limit()
    }

    /// Waits until something is to be done about the model on trial; for ever where none is. What hangs, and what nobody
    /// watches yet, has no verdict.
    async fn turns<'a>(
        &self,
        active: Option<&'a Installed>,
        on_trial: Option<&OnTrial>,
    ) -> (&'a Installed, Verdict) {
        loop {
            tokio::time::sleep(WATCHFUL_REST).await;
            let Some(active) = active.filter(|active| self.desk.is_looking(active)) else { continue };
            let Some(on_trial) = on_trial.filter(|on_trial| on_trial.installed == *active) else {
                return (active, Verdict::Watched);
            };
            let verdict = on_trial.watch.look(&self.reading());
            if verdict != Verdict::Watched || self.is_hanging(active) {
                return (active, verdict);
            }
        }
    }

    /// Whether the model on trial hangs. Then it is interrupted, and rolled back.
    fn hangs(&self, active: &Installed) -> bool {
        if !self.is_hanging(active) {
            return false;
        }
        let limit = self.limit();
        self.desk.interrupt(active);
        let reason = format!("it hangs: no frame was finished in {:.1} s", limit.as_secs_f64());
        tracing::warn!(model = %active.release.model, "the model is rolled back: {reason}");
        self.decide(|state| state.roll_back(&reason));
        true
    }

    fn watch(&self, active: &Installed, on_trial: &mut Option<OnTrial>, before: Reading) {
        if !self.desk.is_looking(active) {
            return; // it is on its way
        }
        let now = self.reading();
        let OnTrial { watch, .. } = match on_trial {
            Some(on_trial) if on_trial.installed == *active => on_trial,
            _ => {
                let watch = Watch::new(now, before, self.options.budget, self.options.config.watch);
                self.decide(|state| state.watch());
                on_trial.insert(OnTrial { installed: active.clone(), watch })
            }
        };
        let verdict = watch.look(&now);
        self.conclude(active, verdict);
    }

    fn conclude(&self, active: &Installed, verdict: Verdict) {
        match verdict {
            Verdict::Watched => {}
            Verdict::Kept => {
                tracing::info!(model = %active.release.model, "the model is kept");
                self.decide(State::keep);
            }
            Verdict::RolledBack(reason) => {
                tracing::warn!(model = %active.release.model, "the model is rolled back: {reason}");
                self.decide(|state| state.roll_back(&reason));
            }
        }
    }

    fn decide(&self, change: impl Fn(&mut State)) {
        match self.desk.change(change) {
            Ok(state) => self.desk.tell_state(&state),
            Err(error) => tracing::error!("cannot write down what becomes of the model: {error}"),
        }
    }

    fn reading(&self) -> Reading {
        let health = self.board.detector.health();
        Reading {
            at: self.clock.uptime(),
            inferences: health.inferences,
            busy: Duration::from_secs_f64(health.inference_ms / 1000.0 * health.inferences as f64),
            failures: health.failures,
            in_a_row: self
                .board
                .cameras
                .iter()
                .map(|card| card.overlooked.load(Ordering::Relaxed))
                .max()
                .unwrap_or(0),
            alerts: self.board.cameras.iter().map(|card| card.alerts.get()).sum(),
        }
    }
}
