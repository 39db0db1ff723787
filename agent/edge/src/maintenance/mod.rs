//! Commands around models: packed and published by a maintainer, installed from a stick by whoever stands before the box.

mod model;
mod passphrases;
mod repo;

pub use model::{ImportOptions, LookOptions, PackOptions, TryOptions, import, look, pack, status, try_model};
pub use repo::RepoCommand;

use std::path::Path;

use crate::models::bundle::BundleError;
use crate::models::install::InstallError;
use crate::models::trial::{Failed, TrialError};
use crate::models::tuf::TufError;

/// A command could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum MaintenanceError {
    #[error(transparent)]
    Bundle(#[from] BundleError),
    #[error("the model fails at the stage {:?}: {}", .0.stage, .0.reason)]
    Trial(Failed),
    #[error(transparent)]
    Repository(#[from] TufError),
    #[error(transparent)]
    Install(#[from] InstallError),
    #[error("{file}: {source}")]
    File { file: String, source: std::io::Error },
    #[error("{0}")]
    Other(String),
}

impl From<TrialError> for MaintenanceError {
    fn from(error: TrialError) -> Self {
        match error {
            TrialError::Failed(failed) => Self::Trial(failed),
            untried => Self::Other(format!("the model: {untried}")),
        }
    }
}

fn at(file: &Path) -> impl Fn(std::io::Error) -> MaintenanceError + use<> {
    let file = file.display().to_string();
    move |source| MaintenanceError::File { file: file.clone(), source }
}

/// Waits for something on this thread.
fn wait<T>(task: impl Future<Output = T>) -> Result<T, MaintenanceError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| MaintenanceError::Other(format!("cannot start: {error}")))?;
    Ok(runtime.block_on(task))
}
