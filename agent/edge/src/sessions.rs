//! The model in as many sessions of ONNX Runtime as frames are looked at at the same time.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::thread;
use std::time::Duration;

use sharp_eyes_vision::{Detector, Glance, Interrupt, ModelError, ModelInfo, OnnxError, Runtime};

use crate::backoff::Backoff;
use crate::config::DetectorConfig;

/// Waits before a model that could not be loaded is tried again: somebody may have mended what it lacks.
pub(crate) fn reloads() -> Backoff {
    let (min, max) = (Duration::from_secs(5), Duration::from_secs(60));
    Backoff::new(min, max, 0.0).expect("constant limits are in order")
}

/// One or more sessions of one model.
pub struct Sessions(Vec<Detector>);

impl Sessions {
    /// As many as the configuration says.
    pub(crate) fn load(config: &DetectorConfig, model: &Path) -> Result<Self, LoadError> {
        let mut sessions = Self(vec![load(config, model)?]);
        while sessions.count() < config.sessions {
            let another = load(config, model)?;
            if another.model().sha256 != sessions.model().sha256 {
                return Err(LoadError::Changed(format!("{} changed while it was loaded", model.display())));
            }
            sessions.0.push(another);
        }
        Ok(sessions)
    }

    /// How many looks there can be at the same time. At least one.
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// The model.
    pub(crate) fn model(&self) -> &ModelInfo {
        self.0[0].model()
    }

    /// One of them, for a single look.
    pub(crate) fn one(&mut self) -> &mut Detector {
        &mut self.0[0]
    }

    /// Whether one inference would look at all of these ([`Detector::fit_together`]).
    pub(crate) fn fit_together(&self, glances: &[Glance<'_>]) -> bool {
        self.0[0].fit_together(glances)
    }

    /// What ends the inferences that run. The sessions are of no use any more then.
    pub(crate) fn interrupts(&self) -> Vec<Interrupt> {
        self.0.iter().map(Detector::interrupt).collect()
    }

    /// Does jobs at the same time, each with a session and a thread of its own: the first on this thread. What became of each,
    /// in their order; an error where it panicked. Not more jobs than sessions.
    pub(crate) fn each<J: Send, T: Send>(
        &mut self,
        jobs: Vec<J>,
        work: impl Fn(&mut Detector, J) -> T + Sync,
    ) -> Vec<thread::Result<T>> {
        side_by_side(&mut self.0, jobs, work)
    }
}

fn side_by_side<S: Send, J: Send, T: Send>(
    sessions: &mut [S],
    jobs: Vec<J>,
    work: impl Fn(&mut S, J) -> T + Sync,
) -> Vec<thread::Result<T>> {
    assert!(jobs.len() <= sessions.len(), "{} jobs for {} sessions", jobs.len(), sessions.len());
    let work = |session: &mut S, job| catch_unwind(AssertUnwindSafe(|| work(session, job)));
    thread::scope(|scope| {
        let mut pairs = sessions.iter_mut().zip(jobs);
        let here = pairs.next();
        let spawn = |(session, job)| {
            let named = thread::Builder::new().name("analysis".into());
            named.spawn_scoped(scope, || work(session, job))
        };
        let beside: Vec<_> = pairs.map(spawn).collect();
        let here = here.map(|(session, job)| work(session, job));
        let beside = beside.into_iter().map(|thread| match thread {
            Ok(thread) => thread.join().flatten(),
            Err(error) => Err(Box::new(error) as Box<dyn Any + Send>), // the system has no more threads
        });
        here.into_iter().chain(beside).collect()
    })
}

/// Loads the runtime and a model, in one session.
pub(crate) fn load(config: &DetectorConfig, model: &Path) -> Result<Detector, LoadError> {
    let runtime = Runtime::load(&config.runtime)?;
    // The threads of a session stay where the one that opens it is.
    let detector = config.cores.within(|| Detector::load(&runtime, model, &config.options))?;
    let (model, provider) = (detector.model(), detector.provider());
    tracing::info!(
        model = %model.name,
        sha256 = %model.sha256,
        classes = ?model.classes,
        onnx_runtime = runtime.version(),
        %provider,
        offered = ?runtime.providers(),
        "model loaded"
    );
    Ok(detector)
}

/// The model cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum LoadError {
    #[error(transparent)]
    Runtime(#[from] OnnxError),
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error("{0}")]
    Changed(String),
}

impl LoadError {
    /// Whether the model is at fault, and will be the next time. Else it is this box at this moment: its runtime is missing
    /// or being replaced, or a file cannot be read.
    pub fn is_of_the_model(&self) -> bool {
        match self {
            Self::Runtime(_) => false,
            Self::Model(error) => is_of_the_model(error),
            Self::Changed(_) => true,
        }
    }
}

/// The same where the runtime is there.
pub(crate) fn is_of_the_model(error: &ModelError) -> bool {
    match error {
        // Gone for good, unlike what cannot be read.
        ModelError::Read { source, .. } => {
            matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
        }
        ModelError::Onnx { source: OnnxError::NoProvider { .. }, .. } => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn jobs_are_done_at_the_same_time_and_one_that_panics_takes_no_other_with_it() {
        let (mut sessions, together) = (['a', 'b', 'c'], Barrier::new(3));
        let this = thread::current().id();
        let done = side_by_side(&mut sessions, vec![1, 2, 3], |session, job| {
            together.wait(); // for ever, were they done one after the other
            assert_ne!(job, 2);
            (*session, job, thread::current().id() == this)
        });
        let done: Vec<_> = done.into_iter().map(Result::ok).collect();
        assert_eq!(done, [Some(('a', 1, true)), None, Some(('c', 3, false))]);
        assert_eq!(side_by_side(&mut sessions, vec![9], |session, job| (*session, job)).len(), 1);
    }
}
