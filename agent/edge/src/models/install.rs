//! From a repository into a slot, with all checks in between.
//!
//! The agent does it when a check is due, and `model import` does it beside the agent, from a stick: whoever holds the
//! lock. Nothing that the active model needs is touched before the new one has passed its trial, and every stage is
//! written down.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};
use sharp_eyes_protocol::alert::ModelName;
use sharp_eyes_protocol::report::{ModelStage, ModelUpdate};

use super::ModelsOptions;
use super::bundle::{self, BUNDLE_MAX_BYTES};
use super::choice::{Choice, choose, withdrawn};
use super::desk::Desk;
use super::patch::{self, PATCHED_MAX_BYTES};
use super::release::Release;
use super::shadow::{Judgement, Shadow};
use super::state::{Installed, State};
use super::trial::{self, Failed, Passed, TrialError, TrialOptions};
use super::tuf::{Fetch, Repository, Trust, TufError, Web};
use crate::clock::Clock;
use crate::durable::{Lock, sync};
use crate::remote::Remote;
use crate::remote::take::Taken;
use crate::uplink::web_tls;

/// What the names of bundles begin with that are on their way.
const INCOMING: &str = "incoming-";

/// What is said of a model that had nothing to be compared with.
const UNSEEN: &str = "it was compared with nothing: all cameras slept, or gave no pictures that the active model could look at";

/// Hears how far an update came.
pub type Tell<'a> = &'a (dyn Fn(ModelUpdate) + Send + Sync);

/// What came of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The repository has nothing for this box.
    Nothing,
    /// This model is active from now on.
    Activated(ModelName),
    /// This model was tried in vain, and is not tried again.
    Refused(ModelName, String),
    /// The active model was revoked, and the one before is active.
    RolledBack(String),
    /// A model is being watched; another one waits until it is kept or rolled back.
    Watching(String),
    /// Somebody else is installing a model.
    Busy,
    /// The agent ended before anything could be said of it.
    Stopped,
}

/// Nothing came of it; the next check tries again.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum InstallError {
    #[error(transparent)]
    Repository(#[from] TufError),
    #[error("the authorities that servers of https:// are judged by: {0}")]
    Tls(String),
    #[error("the models' folder {}: {source}", folder.display())]
    Folder { folder: PathBuf, source: io::Error },
    #[error("{needed} bytes are needed in {}, and {free} are free", folder.display())]
    Space { folder: PathBuf, needed: u64, free: u64 },
    #[error("{0} has {1} bytes; {BUNDLE_MAX_BYTES} are the limit")]
    TooLarge(ModelName, u64),
    #[error("{0} could not be tried to the end: {1}")]
    Untried(ModelName, String),
    #[error("the installation failed: {0}")]
    Task(String),
}

/// One check of a repository, and all that follows from it.
pub struct Check<'a> {
    /// Everything that installing needs.
    pub options: &'a ModelsOptions,
    /// `https://`, `http://`, `file://` or an absolute path.
    pub repository: &'a str,
    /// Bytes a second; without it as fast as they come.
    pub rate: Option<u64>,
    /// Judges expiry.
    pub clock: &'a Arc<Clock>,
    /// Hears how far it came.
    pub tell: Tell<'a>,
    /// Takes configurations, where the box does.
    pub remote: Option<&'a Remote>,
    /// Hears what becomes of them.
    pub configured: &'a (dyn Fn(&Taken) + Send + Sync),
    /// Where it sees frames beside the active model; without it, it is not shown any before it looks.
    pub window: Option<&'a Arc<Desk>>,
}

impl Check<'_> {
    /// Asks the repository, and installs what it has for this box.
    pub async fn run(&self) -> Result<Outcome, InstallError> {
        let folder = &self.options.folder;
        let Some(lock) = Lock::take(folder).map_err(self.at())? else { return Ok(Outcome::Busy) };
        let mut state = State::read(folder).map_err(self.at())?;
        let outcome = self.ask(&mut state, &lock).await;
        state.repository = outcome.as_ref().err().map(ToString::to_string);
        if state != State::read(folder).map_err(self.at())? {
            state.write(&lock, folder).map_err(self.at())?;
        }
        outcome
    }

    async fn ask(&self, state: &mut State, lock: &Lock) -> Result<Outcome, InstallError> {
        let Self { options, clock, .. } = self;
        let web = match self.repository.starts_with("https://") {
            true => Web::with_tls(web_tls(&options.config.ca, clock).map_err(InstallError::Tls)?),
            false => Web::default(),
        };
        let trust = Trust {
            root: options.config.root.clone(),
            folder: options.folder.join("trust"),
            now: clock.certificate_time(),
            clock: clock.describe(),
        };
        let repository = Repository::open(self.repository, &web, &trust).await?;
        for why in &repository.ignored {
            tracing::warn!(repository = self.repository, "{why}");
        }
        if let Some(remote) = self.remote {
            match remote.consider(&repository).await {
                Ok(taken) => (self.configured)(&taken),
                Err(error) => tracing::warn!("cannot take a configuration: {error}"),
            }
        }
        let (releases, unreadable) = (&repository.releases, &repository.unreadable);
        let is_withdrawn = |release: &Release| withdrawn(releases, unreadable, release).is_some();
        if state.previous.as_ref().is_some_and(|previous| is_withdrawn(&previous.release)) {
            state.forget_previous();
        }
        match choose(releases, unreadable, options.config.channel, options.place, state) {
            Choice::Stay => {
                tidy(&options.folder, None).map_err(self.at())?;
                Ok(Outcome::Nothing)
            }
            Choice::RollBack { reason } => {
                state.roll_back(&reason);
                Ok(Outcome::RolledBack(reason))
            }
            Choice::Install(_) if state.trial.is_some() => {
                Ok(Outcome::Watching(state.active_model().map(ToString::to_string).unwrap_or_default()))
            }
            Choice::Install(release) => self.install(&repository, release, state, lock).await,
        }
    }

    async fn install(
        &self,
        repository: &Repository,
        release: Release,
        state: &mut State,
        lock: &Lock,
    ) -> Result<Outcome, InstallError> {
        let folder = self.options.folder.clone();
        self.stage(state, lock, &release, ModelStage::Offered)?;
        if release.length > BUNDLE_MAX_BYTES {
            return Err(InstallError::TooLarge(release.model, release.length));
        }
        let (bundle, candidate) = (incoming(&folder, &release), folder.join("candidate"));
        clear(&candidate).map_err(self.at())?;
        tidy(&folder, Some(&bundle)).map_err(self.at())?;
        space(&folder, release.length)?;
        self.stage(state, lock, &release, ModelStage::Downloading)?;
        let mut told = 0;
        let mut progress = |bytes: u64| {
            // It begins anew where a patch was of no use.
            if bytes.abs_diff(told) >= release.length / 20 {
                told = bytes;
                (self.tell)(ModelUpdate { bytes: Some(bytes), ..update(&release, ModelStage::Downloading) });
            }
        };
        if !self.fetch_patch(repository, &release, state, &bundle, &mut progress).await {
            let fetch = Fetch { rate: self.rate, progress: &mut progress };
            repository.fetch(&release, &bundle, fetch).await?;
        }
        self.stage(state, lock, &release, ModelStage::Verified)?;

        let (reached, mut stages) = tokio::sync::mpsc::unbounded_channel(); // three stages
        let work = {
            let (options, release, candidate) =
                (self.trial_options(state), release.clone(), candidate.clone());
            let (agent, bundle) = (self.options.agent.clone(), bundle.clone());
            let cores = self.options.detector.cores; // as the model will run
            tokio::task::spawn_blocking(move || {
                cores.within(|| {
                    try_bundle(&agent, &bundle, &candidate, &release, &options, &mut |stage| {
                        let _ = reached.send(stage); // the receiver outlives this closure
                    })
                })
            })
        };
        while let Some(stage) = stages.recv().await {
            self.stage(state, lock, &release, stage)?;
        }
        let passed = match work.await.map_err(|error| InstallError::Task(error.to_string()))? {
            Ok(passed) => passed,
            Err(TrialError::Failed(Failed { reason, .. })) => {
                return self.refuse(state, lock, &release, reason, &bundle);
            }
            Err(TrialError::Untried(why)) => return self.put_off(&release, why),
        };
        let mut doubt = None;
        if let Some(desk) = self.window.filter(|_| !self.options.config.shadow.is_zero()) {
            self.stage(state, lock, &release, ModelStage::Shadow)?;
            match self.look_beside(state, desk, &candidate).await? {
                // Not refused: a model that mends one that sees nothing has nothing to be compared with either.
                Judgement::Passed(comparison) if comparison.frames == 0 => {
                    tracing::warn!(model = %release.model, "{UNSEEN}");
                    doubt = Some(UNSEEN);
                }
                Judgement::Passed(comparison) => tracing::info!(model = %release.model, "{comparison}"),
                Judgement::Refused(reason) => return self.refuse(state, lock, &release, reason, &bundle),
                Judgement::Untried(why) => return self.put_off(&release, why),
                Judgement::Stopped => return Ok(Outcome::Stopped),
            }
        }
        let model = release.model.clone();
        self.activate(state, lock, release, &passed, &candidate, doubt).map_err(self.at())?;
        fs::remove_file(&bundle).map_err(self.at())?;
        Ok(Outcome::Activated(model))
    }

    /// Makes the bundle out of the active model and what is new, where there is a patch. Whatever fails, the whole one is
    /// as good.
    async fn fetch_patch(
        &self,
        repository: &Repository,
        release: &Release,
        state: &State,
        bundle: &Path,
        progress: &mut (dyn FnMut(u64) + Send),
    ) -> bool {
        let Some(active) = &state.active else { return false };
        let Some(patch) = release.patches.iter().find(|patch| patch.from == active.release.sha256) else {
            return false;
        };
        let file = self.options.folder.join(format!("{INCOMING}patch"));
        let fetched = repository.fetch_patch(patch, &file, Fetch { rate: self.rate, progress }).await;
        let (old, new) = (active.slot.folder(&self.options.folder), bundle.to_owned());
        let (signed, patched, from) = (release.clone(), file.clone(), patch.from.clone());
        let work = move || patch_bundle(&old, &from, &patched, &signed, &new);
        let made = match fetched {
            Ok(()) => tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(error.to_string())),
            Err(error) => Err(error.to_string()),
        };
        let _ = fs::remove_file(&file); // or it never came
        match &made {
            Ok(()) => tracing::info!(model = %release.model, bytes = patch.length, "made out of a patch"),
            Err(why) => tracing::warn!(model = %release.model, "fetched whole, because of its patch: {why}"),
        }
        made.is_ok()
    }

    /// Lets the candidate look at the cameras' frames, beside the active model.
    async fn look_beside(
        &self,
        state: &State,
        desk: &Arc<Desk>,
        candidate: &Path,
    ) -> Result<Judgement, InstallError> {
        let (options, desk, folder) = (self.options.clone(), desk.clone(), candidate.to_owned());
        let options_of_trial = self.trial_options(state);
        let patience =
            [ModelStage::Contract, ModelStage::Shadow].map(|stage| options_of_trial.patience(stage)).into();
        let work = tokio::task::spawn_blocking(move || {
            let shadow = Shadow {
                agent: &options.agent,
                folder: &folder,
                runtime: &options.detector.runtime,
                options: &options.detector.options,
                views: &options.views,
                time_zone: &options.time_zone,
                budget: options.budget,
                time: options.config.shadow,
                patience,
            };
            options.detector.cores.within(|| shadow.run(&desk.window))
        });
        work.await.map_err(|error| InstallError::Task(error.to_string()))
    }

    /// Writes down why a release is not tried again, and removes what there is of it.
    fn refuse(
        &self,
        state: &mut State,
        lock: &Lock,
        release: &Release,
        reason: String,
        bundle: &Path,
    ) -> Result<Outcome, InstallError> {
        let folder = &self.options.folder;
        state.refuse(release, &reason);
        state.write(lock, folder).map_err(self.at())?;
        let cleared = clear(&folder.join("candidate")).and_then(|()| fs::remove_file(bundle));
        cleared.map_err(self.at())?;
        Ok(Outcome::Refused(release.model.clone(), reason))
    }

    /// Leaves a release to the next check, which needs the bundle alone.
    fn put_off(&self, release: &Release, why: String) -> Result<Outcome, InstallError> {
        clear(&self.options.folder.join("candidate")).map_err(self.at())?;
        Err(InstallError::Untried(release.model.clone(), why))
    }

    /// Moves what has passed into the free slot, and points to it. Whenever the power goes, the state points to a slot
    /// that is whole.
    fn activate(
        &self,
        state: &mut State,
        lock: &Lock,
        release: Release,
        passed: &Passed,
        candidate: &Path,
        doubt: Option<&str>,
    ) -> io::Result<()> {
        let folder = &self.options.folder;
        let slot = state.free_slot();
        state.write(lock, folder)?;
        clear(&slot.folder(folder))?;
        fs::rename(candidate, slot.folder(folder))?;
        sync(folder)?;
        state.activate(Installed { slot, release, sha256: passed.sha256.clone() }, doubt);
        state.write(lock, folder)?;
        if let Some(update) = state.update.clone() {
            (self.tell)(update);
        }
        Ok(())
    }

    fn trial_options(&self, state: &State) -> TrialOptions {
        let detector = &self.options.detector;
        let active = state.active.as_ref().map(|active| active.slot.folder(&self.options.folder));
        TrialOptions {
            runtime: detector.runtime.clone(),
            options: detector.options.clone(),
            budget: Some(self.options.budget),
            beside: Some(active.unwrap_or_else(|| detector.model.clone()))
                .filter(|_| self.options.config.budget.is_none()),
        }
    }

    /// Writes a stage down, and tells it.
    fn stage(
        &self,
        state: &mut State,
        lock: &Lock,
        release: &Release,
        stage: ModelStage,
    ) -> Result<(), InstallError> {
        tracing::info!(model = %release.model, ?stage, "model update");
        state.tell(release, stage, None);
        state.write(lock, &self.options.folder).map_err(self.at())?;
        (self.tell)(update(release, stage));
        Ok(())
    }

    fn at(&self) -> impl Fn(io::Error) -> InstallError + use<> {
        let folder = self.options.folder.clone();
        move |source| InstallError::Folder { folder: folder.clone(), source }
    }
}

/// Unpacks a bundle and tries what is in it.
fn try_bundle(
    agent: &Path,
    bundle: &Path,
    candidate: &Path,
    release: &Release,
    options: &TrialOptions,
    reached: &mut dyn FnMut(ModelStage),
) -> Result<Passed, TrialError> {
    let contract = |reason: String| TrialError::Failed(Failed { stage: ModelStage::Contract, reason });
    reached(ModelStage::Contract);
    let file = File::open(bundle).map_err(|error| TrialError::Untried(error.to_string()))?;
    bundle::unpack(io::BufReader::new(file), candidate)
        .map_err(|error| trial::of_bundle(ModelStage::Contract, &error))?;
    let passed = trial::in_child(agent, candidate, options, reached)?;
    if passed.model != release.model {
        return Err(contract(format!(
            "the bundle holds {}; the repository calls it {}",
            passed.model, release.model
        )));
    }
    Ok(passed)
}

/// Packs an installed model as it came, and makes the next bundle of it, which is on the medium and as it is signed when
/// this returns.
fn patch_bundle(old: &Path, from: &str, patch: &Path, signed: &Release, new: &Path) -> Result<(), String> {
    let text = |error: io::Error| error.to_string();
    if signed.length > PATCHED_MAX_BYTES {
        return Err(format!("{} bytes are more than are patched", signed.length));
    }
    let mut before = Vec::new();
    bundle::pack(old, &mut before).map_err(|error| error.to_string())?;
    if hex::encode(Sha256::digest(&before)) != from {
        return Err("the active model packs to another bundle than it came in".to_owned());
    }
    let mut after = Vec::new();
    let patch = io::BufReader::new(File::open(patch).map_err(text)?);
    patch::apply(&before, patch, signed.length, &mut after).map_err(text)?;
    if hex::encode(Sha256::digest(&after)) != signed.sha256 {
        return Err("it leads to another bundle than is signed".to_owned());
    }
    let mut file = File::create(new).map_err(text)?;
    file.write_all(&after).and_then(|()| file.sync_all()).map_err(text)
}

fn update(release: &Release, stage: ModelStage) -> ModelUpdate {
    ModelUpdate { model: release.model.clone(), stage, reason: None, bytes: None, of: release.length }
}

/// Where a bundle is fetched to. What is there of it when the agent starts anew is not fetched again.
fn incoming(folder: &Path, release: &Release) -> PathBuf {
    folder.join(format!("{INCOMING}{}", release.sha256))
}

/// Removes what is there of bundles, but for one.
fn tidy(folder: &Path, but: Option<&Path>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let file = entry?.path();
        let is_incoming = file.file_name().is_some_and(|name| name.to_string_lossy().starts_with(INCOMING));
        if is_incoming && Some(file.as_path()) != but {
            fs::remove_file(file)?;
        }
    }
    Ok(())
}

/// Removes a folder that is pointed to no more.
fn clear(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The bundle and what is unpacked of it have to fit, and the outbox needs room beside them.
fn space(folder: &Path, bundle: u64) -> Result<(), InstallError> {
    const LEFT: u64 = 16 << 20;
    let at = |source: io::Error| InstallError::Folder { folder: folder.to_owned(), source };
    let found = rustix::fs::statvfs(folder).map_err(|error| at(error.into()))?;
    let (needed, free) = (2 * bundle + LEFT, found.f_bavail.saturating_mul(found.f_frsize));
    if free < needed { Err(InstallError::Space { folder: folder.to_owned(), needed, free }) } else { Ok(()) }
}
