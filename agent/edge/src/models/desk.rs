//! Hands a model's sessions to the analysis between two frames, and says which one looks.
//!
//! The analysis asks for the model to load when it starts, and for another one before each frame; whoever has one puts it
//! here. Nothing waits: a switch costs no frame.

use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use sharp_eyes_protocol::report::{ActiveModel, ModelUpdate, Models};
use sharp_eyes_vision::{Interrupt, ModelInfo};
use tokio::sync::watch;

use super::shadow::Window;
use super::state::{Installed, State};
use crate::sessions::{LoadError, Sessions};

/// What analysis and updater know of each other.
pub struct Desk {
    /// Where models are installed, if they are.
    models: Option<PathBuf>,
    /// The model of the configuration.
    configured: PathBuf,
    said: watch::Sender<Models>,
    /// Where a model looks beside the active one.
    pub window: Window,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// Loaded, and not taken yet. One: a newer one replaces it.
    next: Option<(Sessions, Option<Installed>)>,
    looking: Option<Looking>,
    /// What looked before, so that a model on trial that fails costs no time to load the one before. One.
    spare: Option<(Sessions, Option<Installed>)>,
    /// Which installed models this box could not load just now, through no fault of theirs, and why: others look meanwhile.
    /// As many as there are slots.
    put_off: Vec<(Installed, String)>,
    /// Why the start of the agent could not be counted, where it could not.
    uncounted: Option<String>,
}

struct Looking {
    installed: Option<Installed>,
    interrupts: Vec<Interrupt>,
    before: Option<Option<Installed>>,
}

/// The model that is to look.
#[derive(Clone, Debug, PartialEq)]
pub struct Chosen {
    /// Where it is.
    pub path: PathBuf,
    /// What it is, where it was installed; else it is the configuration's.
    pub installed: Option<Installed>,
}

impl Chosen {
    /// Whether what was loaded is what was installed: flash cards change bits.
    pub fn check(&self, loaded: &ModelInfo) -> Result<(), LoadError> {
        match &self.installed {
            Some(installed) if installed.sha256 != loaded.sha256 => Err(LoadError::Changed(format!(
                "{} was changed since it was installed: expected SHA-256 {}, found {}",
                self.path.display(),
                installed.sha256,
                loaded.sha256
            ))),
            _ => Ok(()),
        }
    }
}

impl Desk {
    /// For the model of the configuration, and for those that are installed in the folder `models`, if any are.
    pub fn new(configured: PathBuf, models: Option<PathBuf>, said: watch::Sender<Models>) -> Self {
        Self { models, configured, said, window: Window::default(), inner: Mutex::default() }
    }

    /// The agent starts, which counts while a model is on trial. False where that cannot be written down: the model before
    /// looks until it can, because a trial that nobody counts would never end.
    pub fn start(&self) -> bool {
        let error = self.change(State::start).err().map(|error| error.to_string());
        if let Some(error) = &error {
            tracing::error!("cannot count that the agent starts, so no model on trial looks: {error}");
        }
        let mut inner = self.inner();
        inner.uncounted = error;
        inner.uncounted.is_none()
    }

    /// Whether [`Desk::start`] could be written down.
    pub fn is_counted(&self) -> bool {
        self.inner().uncounted.is_none()
    }

    /// The agent ends as asked.
    pub fn stop(&self) {
        if let Err(error) = self.change(State::stop) {
            tracing::warn!("cannot note that the agent ends as asked: {error}");
        }
    }

    /// The model that is to look now.
    pub fn chosen(&self) -> Chosen {
        let state = self.models.as_deref().map(State::read).transpose();
        let state = state.unwrap_or_else(|error| {
            tracing::error!("cannot read which model was installed: {error}");
            None
        });
        self.choose(state.unwrap_or_default())
    }

    /// The active one; the one before where that one is put off, or its trial cannot be counted.
    fn choose(&self, state: State) -> Chosen {
        let inner = self.inner();
        let is_ready = |installed: &Installed| inner.put_off.iter().all(|(put_off, _)| put_off != installed);
        let active = state.active.filter(|_| state.trial.is_none() || inner.uncounted.is_none());
        match (&self.models, active.into_iter().chain(state.previous).find(is_ready)) {
            (Some(models), Some(installed)) => {
                Chosen { path: installed.slot.folder(models), installed: Some(installed) }
            }
            _ => Chosen { path: self.configured.clone(), installed: None },
        }
    }

    /// A chosen model cannot be used. True where another one is to be tried. One that is not at fault stays what it is, and is
    /// put off.
    pub fn unusable(&self, chosen: &Chosen, error: &LoadError) -> bool {
        let reason = error.to_string();
        let Some(bad) = &chosen.installed else {
            self.inner().put_off.clear(); // nothing else is left
            self.said.send_modify(|models| {
                models.active = None;
                models.last_refusal = Some(reason);
            });
            return false;
        };
        tracing::error!(model = %bad.release.model, "the installed model cannot be used: {reason}");
        if !error.is_of_the_model() {
            self.put_off(bad, reason);
            return true;
        }
        let changed = self.change(|state| {
            if state.active.as_ref() == Some(bad) {
                state.lose_active(&reason);
            } else if state.previous.as_ref() == Some(bad) {
                state.forget_previous();
            }
        });
        match changed {
            Ok(state) => self.choose(state) != *chosen,
            Err(error) => {
                tracing::error!("cannot note that a model cannot be used: {error}");
                self.put_off(bad, reason);
                true
            }
        }
    }

    fn put_off(&self, installed: &Installed, reason: String) {
        let mut inner = self.inner();
        inner.put_off.retain(|(put_off, _)| put_off.slot != installed.slot);
        inner.put_off.push((installed.clone(), reason));
    }

    /// A model that shall look from the next frame on.
    pub fn offer(&self, sessions: Sessions, installed: Option<Installed>) {
        self.inner().next = Some((sessions, installed));
    }

    /// The model that shall look from this frame on, if it is another one.
    pub fn take(&self) -> Option<(Sessions, Option<Installed>)> {
        self.inner().next.take()
    }

    /// This one looks.
    pub fn looks(&self, sessions: &Sessions, installed: Option<Installed>) {
        let mut inner = self.inner();
        let before = inner.looking.take().map(|looking| looking.installed);
        inner.put_off.retain(|(put_off, _)| installed.as_ref() != Some(put_off));
        inner.looking = Some(Looking { installed, interrupts: sessions.interrupts(), before });
        drop(inner);
        let model = sessions.model();
        let active = ActiveModel { model: model.name.clone(), sha256: model.sha256.clone() };
        self.said.send_modify(|models| {
            models.active = Some(active);
            if self.models.is_none() {
                models.last_refusal = None;
            }
        });
    }

    /// What looked before looks no more.
    pub fn spare(&self, sessions: Sessions) {
        let mut inner = self.inner();
        let of = inner.looking.as_ref().and_then(|looking| looking.before.clone());
        inner.spare = of.map(|of| (sessions, of));
    }

    /// What looked before, if it is this one. No other is kept from now on.
    pub fn take_spare(&self, installed: Option<&Installed>) -> Option<Sessions> {
        let (sessions, of) = self.inner().spare.take()?;
        (of.as_ref() == installed).then_some(sessions)
    }

    /// Ends the inferences that run, if this one looks.
    pub fn interrupt(&self, installed: &Installed) {
        let looking = self.inner();
        let looking = looking.looking.as_ref().filter(|l| l.installed.as_ref() == Some(installed));
        for interrupt in looking.into_iter().flat_map(|looking| &looking.interrupts) {
            if let Err(error) = interrupt.interrupt() {
                tracing::error!("cannot interrupt an inference: {error}");
            }
        }
    }

    /// Whether something looks that is not what shall, and nothing is on its way.
    pub fn is_outdated(&self, state: &State) -> bool {
        let inner = self.inner();
        inner.next.is_none()
            && inner.looking.as_ref().is_some_and(|looking| looking.installed != state.active)
    }

    /// Whether it is this model that looks.
    pub fn is_looking(&self, installed: &Installed) -> bool {
        self.inner().looking.as_ref().is_some_and(|looking| looking.installed.as_ref() == Some(installed))
    }

    /// How far an update came, which is not on disk yet.
    pub fn tell(&self, update: ModelUpdate) {
        self.said.send_modify(|models| models.update = Some(update));
    }

    /// What is on disk is what is said, and why the active model does not look where that is so.
    pub fn tell_state(&self, state: &State) {
        let inner = self.inner();
        let put_off = inner.put_off.iter().find(|(put_off, _)| state.active.as_ref() == Some(put_off));
        let uncounted = inner.uncounted.as_ref().filter(|_| state.trial.is_some());
        let uncounted = uncounted.map(|error| format!("its trial cannot be written down: {error}"));
        let reason = uncounted.or_else(|| put_off.map(|(_, reason)| reason.clone()));
        let why_not = state.active_model().zip(reason).map(|(model, reason)| format!("{model}: {reason}"));
        drop(inner);
        self.said.send_if_modified(|models| {
            let before = models.clone();
            models.update.clone_from(&state.update);
            models.repository.clone_from(&state.repository);
            // While no model looks at all, why that is so is the news.
            if models.active.is_some() {
                models.last_refusal = why_not.clone().or_else(|| state.last_refusal());
            }
            *models != before
        });
    }

    /// Changes the state on disk.
    pub fn change(&self, change: impl Fn(&mut State)) -> io::Result<State> {
        let Some(models) = self.models.as_deref() else { return Ok(State::default()) };
        State::change(models, change)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Desk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Desk").field("models", &self.models).field("configured", &self.configured).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use sharp_eyes_vision::{ModelError, OnnxError};

    use super::super::release::testing::release;
    use super::*;
    use crate::durable::Lock;

    /// Two models in their slots, of which the second is on trial.
    fn desk(models: &Path) -> (Desk, watch::Receiver<Models>) {
        let mut state = State::default();
        for number in [1, 2] {
            state.keep();
            let slot = state.free_slot();
            state.activate(Installed { slot, release: release(number), sha256: "00".into() }, None);
        }
        state.write(&Lock::take(models).unwrap().unwrap(), models).unwrap();
        let (said, heard) = watch::channel(Models::default());
        let active = ActiveModel { model: release(0).model, sha256: "00".into() };
        said.send_modify(|models| models.active = Some(active));
        (Desk::new("/builtin".into(), Some(models.to_owned()), said), heard)
    }

    /// Which installed model is chosen; 0 is the configuration's.
    fn number(desk: &Desk) -> u64 {
        desk.chosen().installed.map_or(0, |installed| installed.release.number)
    }

    fn unread(error: io::Error) -> LoadError {
        LoadError::Model(ModelError::Read { file: "model.onnx".into(), source: error })
    }

    #[test]
    fn a_model_that_cannot_be_loaded_just_now_is_put_off_and_one_that_is_bad_is_lost() {
        let missing =
            || OnnxError::Missing { library: "onnx.so".into(), source: io::ErrorKind::NotFound.into() };
        for (error, is_bad) in [
            (LoadError::Runtime(missing()), false),
            (
                LoadError::Runtime(OnnxError::Unusable { library: "onnx.so".into(), reason: "short".into() }),
                false,
            ),
            (unread(io::Error::from_raw_os_error(5)), false), // EIO
            (unread(io::ErrorKind::OutOfMemory.into()), false),
            (unread(io::ErrorKind::PermissionDenied.into()), false),
            (unread(io::ErrorKind::NotFound.into()), true),
            (LoadError::Changed("was changed since it was installed".into()), true),
            (
                LoadError::Model(ModelError::Onnx {
                    file: "model.onnx".into(),
                    source: OnnxError::Model("no graph".into()),
                }),
                true,
            ),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let (desk, heard) = desk(folder.path());
            let before = State::read(folder.path()).unwrap();
            assert!(desk.unusable(&desk.chosen(), &error), "{error}");
            let after = State::read(folder.path()).unwrap();
            assert_eq!((number(&desk), after != before), (1, is_bad), "{error}");
            desk.tell_state(&after);
            let said = heard.borrow().last_refusal.clone().unwrap_or_default();
            assert_eq!(said, format!("detector@2: {error}"));
        }
    }

    #[test]
    fn where_nothing_can_be_loaded_the_active_model_is_tried_again_and_stays_what_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let (desk, heard) = desk(folder.path());
        let before = State::read(folder.path()).unwrap();
        let error = unread(io::ErrorKind::PermissionDenied.into());
        for another in [1, 0] {
            assert!(desk.unusable(&desk.chosen(), &error));
            assert_eq!(number(&desk), another);
        }
        assert!(!desk.unusable(&desk.chosen(), &error), "there is something to wait for");
        assert_eq!((number(&desk), State::read(folder.path()).unwrap()), (2, before));
        assert_eq!(heard.borrow().active, None);
        assert_eq!(heard.borrow().last_refusal.clone(), Some(error.to_string()));
    }

    #[test]
    fn a_bad_model_gives_way_where_it_is_the_one_before_and_where_nothing_can_be_written() {
        let bad = LoadError::Changed("was changed since it was installed".into());
        let folder = tempfile::tempdir().unwrap();
        let (before, _heard) = desk(folder.path());
        assert!(before.unusable(&before.chosen(), &unread(io::ErrorKind::OutOfMemory.into())));
        assert!(before.unusable(&before.chosen(), &bad));
        assert_eq!((number(&before), State::read(folder.path()).unwrap().previous), (0, None));
        let folder = tempfile::tempdir().unwrap();
        let (unwritten, _heard) = desk(folder.path());
        std::fs::create_dir(folder.path().join("state.new")).unwrap();
        assert!(unwritten.unusable(&unwritten.chosen(), &bad));
        assert_eq!(number(&unwritten), 1);
    }

    #[test]
    fn a_model_whose_trial_cannot_be_counted_looks_when_it_can() {
        let folder = tempfile::tempdir().unwrap();
        let (desk, heard) = desk(folder.path());
        let way = folder.path().join("state.new"); // a folder in the way stops root, too
        std::fs::create_dir(&way).unwrap();
        assert!(!desk.start() && !desk.is_counted());
        assert_eq!(number(&desk), 1);
        desk.tell_state(&State::read(folder.path()).unwrap());
        let said = heard.borrow().last_refusal.clone().unwrap_or_default();
        assert!(said.starts_with("detector@2: its trial cannot be written down"), "{said}");
        std::fs::remove_dir(&way).unwrap();
        assert!(desk.start() && desk.is_counted());
        let state = State::read(folder.path()).unwrap();
        assert_eq!((number(&desk), state.trial.map(|trial| trial.starts)), (2, Some(1)));
        desk.tell_state(&state);
        assert_eq!(heard.borrow().last_refusal, None);
    }
}
