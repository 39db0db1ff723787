//! From a repository to the file that says what is in force, with all that can be judged without trying it.

use std::fs;
use std::io;
use std::path::PathBuf;

use super::Remote;
use super::choice::{Choice, choose};
use super::judge::{judge, unmasked};
use super::offer::Offer;
use super::state::{Accepted, State, text_file};
use crate::config::Config;
use crate::durable;
use crate::models::tuf::{Fetch, Repository, TufError};

/// Largest configuration: 64 cameras with all that can be said of them take a third of it.
pub const CONFIGURATION_MAX_BYTES: u64 = 256 << 10;

/// Why what would be tried waits.
const NO_BROKER: &str = "there is no broker now, so that it could not prove itself";

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// Nothing in the repository is new for this box.
    Nothing,
    /// It is in force from the next start on, on trial; the box's own file alone where there is none.
    Taken(Option<Offer>),
    /// It cannot be used, and is not tried again.
    Refused(Offer, String),
    /// It waits: another one is on trial, or it could not prove itself while there is no broker.
    Waiting(&'static str),
}

/// Nothing came of it; the next check tries again.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum TakeError {
    #[error(transparent)]
    Repository(#[from] TufError),
    #[error("the folder of configurations {}: {source}", folder.display())]
    Folder { folder: PathBuf, source: io::Error },
}

impl Remote {
    /// Takes what a repository has for this box.
    pub async fn consider(&self, repository: &Repository) -> Result<Taken, TakeError> {
        let at = |source| TakeError::Folder { folder: self.folder.clone(), source };
        let mut state = State::read(&self.folder).map_err(at)?;
        // There is a broker, and the box's own file leads to the same: that it had none before says nothing any more.
        if self.is_connected() && self.leads_nowhere_else(&self.own) {
            state.forgive_own();
        }
        let choice = choose(&repository.configurations, &self.own.site, &state);
        if choice != Choice::Stay && state.trial.is_some() {
            return Ok(Taken::Waiting("the configuration before is still on trial"));
        }
        let offer = match choice {
            Choice::Stay => return Ok(Taken::Nothing),
            Choice::Take(offer) => offer,
            Choice::Own if !self.could_prove_itself(&self.own) => return Ok(Taken::Waiting(NO_BROKER)),
            Choice::Own => {
                tracing::info!("no configuration of the repository is for this box any more");
                State::change(&self.folder, |state| state.take(None)).map_err(at)?;
                return Ok(Taken::Taken(None));
            }
        };
        let (text, judged) = match self.fetch(repository, &offer).await? {
            Ok(text) => {
                let judged = judge(&self.own, &text);
                (text, judged)
            }
            Err(reason) => (String::new(), Err(reason)),
        };
        let config = match judged {
            Ok(config) => config,
            Err(reason) => {
                tracing::warn!(configuration = %offer, "a configuration is refused: {reason}");
                State::change(&self.folder, |state| state.refuse(Some(&offer), &reason)).map_err(at)?;
                return Ok(Taken::Refused(offer, reason));
            }
        };
        if !self.could_prove_itself(&config) {
            return Ok(Taken::Waiting(NO_BROKER));
        }
        let unmasked = unmasked(&[&self.own, &self.in_force], &config);
        if !unmasked.is_empty() {
            let cameras = unmasked.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            tracing::warn!(configuration = %offer, "privacy masks are removed or changed: {cameras}");
        }
        durable::make(&self.folder).map_err(at)?;
        durable::replace(&text_file(&self.folder, &offer), text.as_bytes()).map_err(at)?;
        let accepted = Accepted { offer: offer.clone(), unmasked };
        let state = State::change(&self.folder, |state| state.take(Some(accepted.clone()))).map_err(at)?;
        self.tidy(&state).map_err(at)?;
        Ok(Taken::Taken(Some(offer)))
    }

    /// Without a broker it would be taken back whatever it says, unless it is what leads to one.
    fn could_prove_itself(&self, config: &Config) -> bool {
        self.is_connected() || !self.leads_nowhere_else(config)
    }

    /// Whether it leads to the same brokers as what is in force.
    fn leads_nowhere_else(&self, config: &Config) -> bool {
        config.brokers == self.in_force.brokers
    }

    /// The text of a configuration, or why it has none.
    async fn fetch(
        &self,
        repository: &Repository,
        offer: &Offer,
    ) -> Result<Result<String, String>, TakeError> {
        let at = |source| TakeError::Folder { folder: self.folder.clone(), source };
        if offer.length > CONFIGURATION_MAX_BYTES {
            return Ok(Err(format!("{} bytes; {CONFIGURATION_MAX_BYTES} are the limit", offer.length)));
        }
        durable::make(&self.folder).map_err(at)?;
        let file = self.folder.join("incoming");
        repository.fetch_configuration(offer, &file, Fetch { rate: None, progress: &mut |_| {} }).await?;
        let bytes = fs::read(&file).map_err(at)?;
        fs::remove_file(&file).map_err(at)?;
        Ok(String::from_utf8(bytes).map_err(|_| "it is no text in UTF-8".to_owned()))
    }

    /// Removes the texts that nothing points to any more.
    fn tidy(&self, state: &State) -> io::Result<()> {
        let needed = state.files(&self.folder);
        for entry in fs::read_dir(&self.folder)? {
            let file = entry?.path();
            if file.extension().is_some_and(|extension| extension == "toml") && !needed.contains(&file) {
                fs::remove_file(file)?;
            }
        }
        Ok(())
    }
}
