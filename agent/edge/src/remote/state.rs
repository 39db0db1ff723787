//! Which configuration is in force, and which are not tried again: one small file that is written, synced and renamed, so
//! that a power cut leaves the one before or this one. Everything but reading and writing the file is a plain value.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sharp_eyes_protocol::topic::Name;

use super::offer::Offer;
use crate::durable;

/// Starts of the agent that a configuration may see before it has proved itself. One more means that it does not let the
/// agent live, or not for long enough to find its broker.
const STARTS_MAX: u32 = 2;

/// Configurations that are remembered as not to be tried again.
const REFUSED_MAX: usize = 16;

/// What is known of configurations from outside.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// In force; the box's own file alone where there is none.
    pub active: Option<Accepted>,
    /// It has not proved itself yet.
    pub trial: Option<Trial>,
    /// What was refused or reverted, the oldest first.
    pub refused: Vec<Refused>,
}

/// A configuration that passed all that can be judged without trying it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// Which.
    pub offer: Offer,
    /// Cameras that show more than they did before it, because their masks were removed or changed.
    pub unmasked: Vec<Name>,
}

/// A configuration that has not proved itself yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// What was in force before, and is again if this one fails; the box's own file alone where there was none.
    pub before: Option<Accepted>,
    /// Starts of the agent since that did not end as asked.
    pub starts: u32,
}

/// What is not tried again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Which; the box's own file where there is none.
    pub offer: Option<Offer>,
    /// Why.
    pub reason: String,
    /// The agent ended with it, again and again.
    #[serde(default)]
    pub ended: bool,
}

impl State {
    /// Reads the file of a folder; what is no state counts as none.
    pub fn read(folder: &Path) -> io::Result<Self> {
        durable::read(&file(folder))
    }

    /// Reads, changes and writes it, if it is another one then.
    pub fn change(folder: &Path, change: impl Fn(&mut Self)) -> io::Result<Self> {
        durable::change(&file(folder), change)
    }

    /// Another configuration, or the box's own file, is in force from the next start on.
    pub fn take(&mut self, accepted: Option<Accepted>) {
        let before = std::mem::replace(&mut self.active, accepted);
        // While one is tried, what counts as before is what last proved itself.
        let before = self.trial.take().map_or(before, |trial| trial.before);
        self.trial = Some(Trial { before, starts: 0 });
    }

    /// The agent starts. One that started often and never proved its configuration falls back.
    pub fn start(&mut self) {
        let Some(trial) = &mut self.trial else { return };
        trial.starts += 1;
        if trial.starts > STARTS_MAX {
            self.revert(&format!(
                "the agent ended {STARTS_MAX} times before the configuration had proved itself"
            ));
            if let Some(refused) = self.refused.last_mut() {
                refused.ended = true;
            }
        }
    }

    /// The agent ends as asked, which says nothing against the configuration.
    pub fn stop(&mut self) {
        if let Some(trial) = &mut self.trial {
            trial.starts = trial.starts.saturating_sub(1);
        }
    }

    /// It has proved itself.
    pub fn keep(&mut self) {
        if self.trial.take().is_some() {
            // What spoke against the box's own file may have gone meanwhile.
            self.refused.retain(|refused| refused.offer.is_some());
        }
    }

    /// The box's own file may be tried again, where the agent did not end with it.
    pub fn forgive_own(&mut self) {
        self.refused.retain(|refused| refused.offer.is_some() || refused.ended);
    }

    /// It failed on trial: the one before is in force again, and this one is not tried again.
    pub fn revert(&mut self, reason: &str) {
        let Some(trial) = self.trial.take() else { return };
        let failed = std::mem::replace(&mut self.active, trial.before);
        self.refuse(failed.as_ref().map(|failed| &failed.offer), reason);
    }

    /// What is in force cannot be read or used any more.
    pub fn lose(&mut self, reason: &str) {
        if self.trial.is_some() {
            return self.revert(reason);
        }
        if let Some(lost) = self.active.take() {
            self.refuse(Some(&lost.offer), reason);
        }
    }

    /// The text of what is in force is damaged, which is not its fault: it may be taken anew.
    pub fn forget(&mut self) {
        self.active = self.trial.take().and_then(|trial| trial.before);
    }

    /// It failed before it was in force.
    pub fn refuse(&mut self, offer: Option<&Offer>, reason: &str) {
        self.refused.retain(|refused| refused.offer.as_ref() != offer);
        self.refused.push(Refused { offer: offer.cloned(), reason: reason.to_owned(), ended: false });
        let surplus = self.refused.len().saturating_sub(REFUSED_MAX);
        self.refused.drain(..surplus);
    }

    /// Whether it failed here already; without an offer, the box's own file.
    pub fn has_refused(&self, offer: Option<&Offer>) -> bool {
        self.refused.iter().any(|refused| refused.offer.as_ref() == offer)
    }

    /// Why the last one was refused or reverted.
    pub fn last_refusal(&self) -> Option<String> {
        self.refused.last().map(|refused| match &refused.offer {
            Some(offer) => format!("{offer}: {}", refused.reason),
            None => format!("the box's own file: {}", refused.reason),
        })
    }

    /// What must not be removed: the files of what is in force, and of what would be.
    pub fn files(&self, folder: &Path) -> Vec<PathBuf> {
        let before = self.trial.as_ref().and_then(|trial| trial.before.as_ref());
        self.active.iter().chain(before).map(|accepted| text_file(folder, &accepted.offer)).collect()
    }
}

/// Where the text of a configuration lies.
pub(super) fn text_file(folder: &Path, offer: &Offer) -> PathBuf {
    folder.join(format!("{}.toml", offer.sha256))
}

fn file(folder: &Path) -> PathBuf {
    folder.join("state.json")
}

#[cfg(test)]
mod tests {
    use super::super::offer::testing::offer;
    use super::*;

    fn accepted(number: u64) -> Option<Accepted> {
        Some(Accepted { offer: offer(number, "*/*/*/*"), unmasked: Vec::new() })
    }

    fn number(state: &State) -> u64 {
        state.active.as_ref().map_or(0, |active| active.offer.number)
    }

    #[test]
    fn what_fails_on_trial_gives_way_to_what_last_proved_itself_and_is_not_tried_again() {
        let mut state = State::default();
        state.take(accepted(1));
        state.keep();
        state.take(accepted(2));
        state.take(accepted(3)); // before the second could prove itself
        state.revert("no broker for 300 s");
        assert_eq!((number(&state), state.trial.clone()), (1, None));
        assert!(
            state.has_refused(Some(&offer(3, "*/*/*/*"))) && !state.has_refused(Some(&offer(1, "*/*/*/*")))
        );
        assert_eq!(state.last_refusal().unwrap(), "yard 3: no broker for 300 s");
        state.revert("what is kept stays");
        assert_eq!(number(&state), 1);
    }

    #[test]
    fn one_that_ends_the_agent_twice_is_reverted_at_the_next_start() {
        let mut state = State::default();
        state.take(accepted(1));
        state.start();
        state.stop(); // as asked
        for after in [1, 1, 0] {
            state.start();
            assert_eq!(number(&state), after);
        }
        state.take(accepted(2));
        state.start();
        state.keep();
        for _ in 0..9 {
            state.start(); // power cuts later say nothing against it
        }
        assert_eq!(number(&state), 2);
    }

    #[test]
    fn the_way_back_to_the_own_file_is_a_trial_too() {
        let mut state = State::default();
        state.take(accepted(1));
        state.keep();
        state.take(None);
        assert_eq!(number(&state), 0);
        state.revert("no broker for 300 s");
        assert!(number(&state) == 1 && state.has_refused(None));
        state.take(accepted(2));
        state.keep();
        assert!(!state.has_refused(None), "it may be better by now");
    }

    #[test]
    fn what_cannot_be_used_any_more_is_lost_and_named() {
        let mut state = State::default();
        state.take(accepted(1));
        state.keep();
        state.lose("line 3: unknown key");
        assert_eq!(
            (number(&state), state.last_refusal().unwrap().as_str()),
            (0, "yard 1: line 3: unknown key")
        );
    }

    #[test]
    fn the_file_is_read_back_and_a_damaged_one_is_none() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("state/configuration");
        let written = State::change(&folder, |state| state.take(accepted(1))).unwrap();
        assert_eq!(State::read(&folder).unwrap(), written);
        std::fs::write(file(&folder), "{").unwrap();
        assert_eq!(State::read(&folder).unwrap(), State::default());
    }
}
