//! Where the passphrases of a maintainer's keys come from.

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

use super::MaintenanceError;
use crate::secret::Secret;

/// Holds a passphrase for whoever signs without a terminal and without a file.
const VARIABLE: &str = "SHARP_EYES_PASSPHRASE";

/// What opens keys that are locked, and locks new ones.
#[derive(Clone, Debug, clap::Args)]
pub struct PassphraseOptions {
    /// A file with a passphrase for keys that are locked; may be named several times. Keys that are made are locked with the
    /// first. The environment's SHARP_EYES_PASSPHRASE counts as one more, and a terminal is asked for what is missing.
    #[arg(long, value_name = "FILE")]
    passphrase_file: Vec<PathBuf>,
    /// Ask for a passphrase that locks the keys that are made.
    #[arg(long)]
    lock: bool,
}

impl PassphraseOptions {
    /// All that are known.
    pub(super) fn read(&self) -> Result<Vec<Secret>, MaintenanceError> {
        let mut known = Vec::new();
        for file in &self.passphrase_file {
            known.push(Secret::read(file).map_err(|error| MaintenanceError::Other(error.to_string()))?);
        }
        known.extend(std::env::var(VARIABLE).ok().filter(|text| !text.is_empty()).map(Secret::new));
        Ok(known)
    }

    /// What locks keys that are made, if anything does.
    pub(super) fn of_new_keys(&self) -> Result<Option<Secret>, MaintenanceError> {
        let known = self.read()?.into_iter().next();
        if known.is_some() || !self.lock {
            return Ok(known);
        }
        let [first, second] = ["passphrase of the new keys: ", "the same again: "].map(prompt_for);
        match (first, second) {
            (Some(first), Some(second)) if first == second => Ok(Some(first)),
            (Some(_), Some(_)) => Err(MaintenanceError::Other("the two passphrases differ".into())),
            _ => Err(MaintenanceError::Other(format!(
                "--lock asks at a terminal, and gets none here: use --passphrase-file FILE or {VARIABLE}"
            ))),
        }
    }
}

/// Asks for the passphrase of a key; nobody where there is no terminal.
pub(super) fn ask(file: &Path) -> Option<Secret> {
    prompt_for(&format!("passphrase of {}: ", file.display()))
}

fn prompt_for(prompt: &str) -> Option<Secret> {
    if !io::stdin().is_terminal() {
        return None;
    }
    let text = rpassword::prompt_password(prompt).ok()?;
    (!text.is_empty()).then(|| Secret::new(text))
}
