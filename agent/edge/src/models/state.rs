//! Which model looks at frames, which one did before, and which are not tried again: one small file that is written,
//! synced and renamed, so that a power cut leaves the one before or this one.
//!
//! Two slots hold models; the file points to one of them, or to none: then the model of the configuration looks. What it
//! points to, and what it would fall back to, is never written over. Everything but reading and writing the file is a
//! plain value.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sharp_eyes_protocol::alert::ModelName;
use sharp_eyes_protocol::report::{ModelStage, ModelUpdate};

use super::release::Release;
use crate::durable::{self, Lock};

/// Starts of the agent that a model may see while it is on trial. A third one means that it ended the agent twice.
const STARTS_MAX: u32 = 2;

/// Releases that are remembered as not to be tried again. The oldest is forgotten, and is older than what is active.
const REFUSED_MAX: usize = 64;

/// What is known of the models on this box.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// What looks at frames; the model of the configuration where there is none.
    pub active: Option<Installed>,
    /// What did before, and does again if the active one fails; the model of the configuration where there is none.
    pub previous: Option<Installed>,
    /// The active one has not proved itself yet.
    pub trial: Option<Trial>,
    /// What was refused or rolled back, the oldest first.
    pub refused: Vec<Refused>,
    /// How far the last update came.
    pub update: Option<ModelUpdate>,
    /// Why the repository could not be asked the last time.
    pub repository: Option<String>,
}

/// A model in a slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Installed {
    /// Where.
    pub slot: Slot,
    /// What it is.
    pub release: Release,
    /// SHA-256 of its `model.onnx`, in hexadecimal digits: flash cards change bits.
    pub sha256: String,
}

/// One of two places for a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)] // two letters
pub enum Slot {
    A,
    B,
}

/// A model that has not proved itself yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// Starts of the agent since it became active that did not end as asked.
    pub starts: u32,
}

/// A release that is not tried again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Which.
    pub release: Release,
    /// Why.
    pub reason: String,
}

impl Slot {
    /// Its folder below the models' folder.
    pub fn folder(self, models: &Path) -> PathBuf {
        models.join(match self {
            Self::A => "slot-a",
            Self::B => "slot-b",
        })
    }
}

impl State {
    /// Reads the file of the models' folder; what is no state counts as none, and the configuration's model looks.
    pub fn read(models: &Path) -> io::Result<Self> {
        durable::read(&file(models))
    }

    /// Writes it so that a power cut leaves the one before or this one. Only under the [`Lock`].
    pub fn write(&self, lock: &Lock, models: &Path) -> io::Result<()> {
        durable::write(self, lock, &file(models))
    }

    /// Reads, changes and writes it, if it is another one then. Where nothing was ever installed, nothing is.
    pub fn change(models: &Path, change: impl Fn(&mut Self)) -> io::Result<Self> {
        durable::change(&file(models), change)
    }

    /// The slot for the next model: not the active one's. What it holds is pointed to no more, once this is written.
    pub fn free_slot(&mut self) -> Slot {
        let free = match &self.active {
            Some(Installed { slot: Slot::A, .. }) => Slot::B,
            _ => Slot::A,
        };
        self.previous.take_if(|previous| previous.slot == free);
        free
    }

    /// A model that passed its trial is the active one from now on, on trial until it is kept. Whatever speaks against it
    /// all the same is told.
    pub fn activate(&mut self, installed: Installed, doubt: Option<&str>) {
        self.tell(&installed.release, ModelStage::Active, doubt);
        self.previous = self.active.replace(installed);
        self.trial = Some(Trial::default());
    }

    /// The agent starts. One that started often and never proved the active model falls back.
    pub fn start(&mut self) {
        let Some(trial) = &mut self.trial else { return };
        trial.starts += 1;
        if trial.starts > STARTS_MAX {
            let reason = format!("the agent ended {STARTS_MAX} times while the model was on trial");
            self.roll_back(&reason);
        }
    }

    /// The agent ends as asked, which says nothing against the active model.
    pub fn stop(&mut self) {
        if let Some(trial) = &mut self.trial {
            trial.starts = 0;
        }
    }

    /// The active model looks at frames.
    pub fn watch(&mut self) {
        if let Some(active) = self.active.clone() {
            self.tell(&active.release, ModelStage::Watched, None);
        }
    }

    /// The active model has proved itself.
    pub fn keep(&mut self) {
        if self.trial.take().is_some()
            && let Some(active) = self.active.clone()
        {
            self.tell(&active.release, ModelStage::Kept, None);
        }
    }

    /// The active model failed: the one before looks again, and this one is not tried again.
    pub fn roll_back(&mut self, reason: &str) {
        let Some(failed) = self.active.take() else { return };
        self.active = self.previous.take();
        self.trial = None;
        self.tell(&failed.release, ModelStage::RolledBack, Some(reason));
        self.remember(failed.release, reason);
    }

    /// The active model cannot be loaded. One on trial failed; one that was kept lies on a damaged disk, and may be
    /// installed anew.
    pub fn lose_active(&mut self, reason: &str) {
        if self.trial.is_some() {
            return self.roll_back(reason);
        }
        if let Some(lost) = self.active.take() {
            self.tell(&lost.release, ModelStage::RolledBack, Some(reason));
            self.active = self.previous.take();
        }
    }

    /// The model to fall back to cannot be used or must not be.
    pub fn forget_previous(&mut self) {
        self.previous = None;
    }

    /// A release failed before it was active, and is not tried again.
    pub fn refuse(&mut self, release: &Release, reason: &str) {
        self.tell(release, ModelStage::Refused, Some(reason));
        self.remember(release.clone(), reason);
    }

    /// How far a release came.
    pub fn tell(&mut self, release: &Release, stage: ModelStage, reason: Option<&str>) {
        self.update = Some(ModelUpdate {
            model: release.model.clone(),
            stage,
            reason: reason.map(str::to_owned),
            bytes: None,
            of: release.length,
        });
    }

    /// Whether a release failed here already, by the same attempt.
    pub fn has_refused(&self, release: &Release) -> bool {
        self.refused.iter().any(|refused| refused.release.is_same_attempt(release))
    }

    /// Why the last one was refused or rolled back.
    pub fn last_refusal(&self) -> Option<String> {
        self.refused.last().map(|refused| format!("{}: {}", refused.release.model, refused.reason))
    }

    /// The name of the model that is active, if it is one of the slots'.
    pub fn active_model(&self) -> Option<&ModelName> {
        self.active.as_ref().map(|installed| &installed.release.model)
    }

    fn remember(&mut self, release: Release, reason: &str) {
        self.refused.retain(|refused| !refused.release.is_same_attempt(&release));
        self.refused.push(Refused { release, reason: reason.to_owned() });
        let surplus = self.refused.len().saturating_sub(REFUSED_MAX);
        self.refused.drain(..surplus);
    }
}

fn file(models: &Path) -> PathBuf {
    models.join("state.json")
}

#[cfg(test)]
mod tests {
    use super::super::release::testing::release;
    use super::*;

    fn install(state: &mut State, version: u64) -> Slot {
        let slot = state.free_slot();
        state.activate(Installed { slot, release: release(version), sha256: "00".into() }, None);
        slot
    }

    fn versions(state: &State) -> (u64, u64) {
        let number = |installed: &Option<Installed>| installed.as_ref().map_or(0, |i| i.release.number);
        (number(&state.active), number(&state.previous))
    }

    #[test]
    fn two_slots_take_turns_and_the_active_one_is_never_written_over() {
        let mut state = State::default();
        assert_eq!(install(&mut state, 1), Slot::A);
        state.keep();
        assert_eq!((install(&mut state, 2), versions(&state)), (Slot::B, (2, 1)));
        state.keep();
        assert_eq!((state.free_slot(), versions(&state)), (Slot::A, (2, 0)));
        assert_eq!((install(&mut state, 3), versions(&state)), (Slot::A, (3, 2)));
    }

    #[test]
    fn what_was_rolled_back_is_not_tried_again_unless_the_maintainer_says_so() {
        let mut state = State::default();
        install(&mut state, 1);
        state.keep();
        install(&mut state, 2);
        state.roll_back("it raised 99 alerts");
        assert_eq!((versions(&state), state.trial), ((1, 0), None));
        assert!(state.has_refused(&release(2)) && !state.has_refused(&release(1)));
        assert!(!state.has_refused(&Release { attempt: 2, ..release(2) }));
        assert_eq!(state.last_refusal().unwrap(), "detector@2: it raised 99 alerts");
        assert_eq!(state.update.as_ref().unwrap().stage, ModelStage::RolledBack);
        state.roll_back("and this one, too");
        assert_eq!(versions(&state), (0, 0), "the model of the configuration is always there");
        state.roll_back("nothing is left to roll back");
        assert_eq!(state.refused.len(), 2);
    }

    #[test]
    fn a_model_that_ends_the_agent_twice_is_rolled_back_at_the_next_start() {
        let mut state = State::default();
        install(&mut state, 1);
        state.start();
        state.stop(); // as asked
        for versions_after in [(1, 0), (1, 0), (0, 0)] {
            state.start();
            assert_eq!(versions(&state), versions_after);
        }
        install(&mut state, 2);
        state.keep();
        for _ in 0..9 {
            state.start(); // power cuts later say nothing against it
        }
        assert_eq!(versions(&state), (2, 0));
    }

    #[test]
    fn the_file_is_read_back_and_a_damaged_one_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let models = folder.path().join("state/models");
        let lock = Lock::take(&models).unwrap().unwrap();
        assert_eq!(State::read(&models).unwrap(), State::default());
        let mut state = State::default();
        install(&mut state, 1);
        state.write(&lock, &models).unwrap();
        assert_eq!(State::read(&models).unwrap(), state);
        assert!(Lock::take(&models).unwrap().is_none(), "one at a time");
        for damaged in [&b""[..], b"{", b"\0\0\0\0"] {
            std::fs::write(models.join("state.json"), damaged).unwrap();
            assert_eq!(State::read(&models).unwrap(), State::default());
        }
    }
}
