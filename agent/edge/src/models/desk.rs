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
use crate::sessions::Sessions;

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
    pub fn check(&self, loaded: &ModelInfo) -> Result<(), String> {
        match &self.installed {
            Some(installed) if installed.sha256 != loaded.sha256 => Err(format!(
                "{} was changed since it was installed: expected SHA-256 {}, found {}",
                self.path.display(),
                installed.sha256,
                loaded.sha256
            )),
            _ => Ok(()),
        }
    }
}

impl Desk {
    /// For the model of the configuration, and for those that are installed in the folder `models`, if any are.
    pub fn new(configured: PathBuf, models: Option<PathBuf>, said: watch::Sender<Models>) -> Self {
        Self { models, configured, said, window: Window::default(), inner: Mutex::default() }
    }

    /// The agent starts, which counts while a model is on trial.
    pub fn start(&self) -> io::Result<()> {
        self.change(State::start).map(drop)
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
        let active = state.unwrap_or_else(|error| {
            tracing::error!("cannot read which model was installed: {error}");
            None
        });
        self.choose(active.and_then(|state| state.active))
    }

    fn choose(&self, active: Option<Installed>) -> Chosen {
        match (&self.models, active) {
            (Some(models), Some(installed)) => {
                Chosen { path: installed.slot.folder(models), installed: Some(installed) }
            }
            _ => Chosen { path: self.configured.clone(), installed: None },
        }
    }

    /// A chosen model cannot be used. True where another one is to be tried.
    pub fn unusable(&self, chosen: &Chosen, reason: &str) -> bool {
        let Some(bad) = &chosen.installed else {
            self.said.send_modify(|models| {
                models.active = None;
                models.last_refusal = Some(reason.to_owned());
            });
            return false;
        };
        tracing::error!(model = %bad.release.model, "the installed model cannot be used: {reason}");
        let changed = self.change(|state| {
            if state.active.as_ref() == Some(bad) {
                state.lose_active(reason);
            }
        });
        match changed {
            Ok(state) => self.choose(state.active) != *chosen,
            Err(error) => {
                tracing::error!("cannot note that a model cannot be used: {error}");
                false
            }
        }
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

    /// What is on disk is what is said.
    pub fn tell_state(&self, state: &State) {
        self.said.send_if_modified(|models| {
            let before = models.clone();
            models.update.clone_from(&state.update);
            models.repository.clone_from(&state.repository);
            // While no model looks at all, why that is so is the news.
            if models.active.is_some() {
                models.last_refusal = state.last_refusal();
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
