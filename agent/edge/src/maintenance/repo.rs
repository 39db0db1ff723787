//! `repo`: a maintainer makes a repository, puts bundles into it, and says who gets which.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use sharp_eyes_protocol::alert::ModelName;
use sharp_eyes_vision::DetectorOptions;

use super::passphrases::{self, PassphraseOptions};
use super::{MaintenanceError, at, wait};
use crate::config::{DEFAULT_RUNTIME, Overlay};
use crate::models::bundle;
use crate::models::release::{Release, Rollout};
use crate::models::trial::{self, TrialOptions};
use crate::models::tuf::{
    Editor, Expiry, Fetch, KeyFolders, KeyRole, NewRepository, Repository, Rotation, Trust, Web,
};
use crate::remote::offer::{Boxes, Offer};
use crate::remote::take::CONFIGURATION_MAX_BYTES;

/// What can be done with a repository.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum RepoCommand {
    /// Make keys and an empty repository.
    Init {
        /// The folder of the repository.
        repository: PathBuf,
        /// Where the keys are put. Take them apart then, to several people.
        #[arg(long)]
        keys: PathBuf,
        /// Keys of root and of targets each.
        #[arg(long, default_value_t = 3)]
        number: u8,
        /// How many of them have to sign.
        #[arg(long, default_value_t = 2)]
        threshold: u8,
        /// Days that the root holds.
        #[arg(long, default_value_t = 3650)]
        root_days: u32,
        /// What locks them.
        #[command(flatten)]
        passphrases: PassphraseOptions,
        /// For how long it holds.
        #[command(flatten)]
        expiry: ExpiryOptions,
    },
    /// Check a bundle as a box will, and add it. No box gets it yet: `repo channel` says who does.
    Add {
        /// The folder of the repository.
        repository: PathBuf,
        /// The bundle that `model pack` made.
        bundle: PathBuf,
        /// ONNX Runtime's library.
        #[arg(long, default_value = DEFAULT_RUNTIME)]
        runtime: PathBuf,
        /// What it is signed with.
        #[command(flatten)]
        signing: SigningOptions,
    },
    /// Say how many boxes of a channel get a release.
    Channel {
        /// The folder of the repository.
        repository: PathBuf,
        /// NAME@VERSION.
        #[arg(value_parser = model)]
        model: ModelName,
        /// Percent of the boxes of the channel `stable`.
        #[arg(long, value_parser = clap::value_parser!(u8).range(0..=100))]
        stable: Option<u8>,
        /// Percent of the boxes of the channel `canary`.
        #[arg(long, value_parser = clap::value_parser!(u8).range(0..=100))]
        canary: Option<u8>,
        /// Let boxes try it again that refused it or rolled it back.
        #[arg(long)]
        again: bool,
        /// What it is signed with.
        #[command(flatten)]
        signing: SigningOptions,
    },
    /// Take a release back: no box runs it any more once it has heard of it.
    Revoke {
        /// The folder of the repository.
        repository: PathBuf,
        /// NAME@VERSION.
        #[arg(value_parser = model)]
        model: ModelName,
        /// Why. Boxes report it.
        #[arg(long)]
        reason: String,
        /// What it is signed with.
        #[command(flatten)]
        signing: SigningOptions,
    },
    /// Say how boxes are to be configured: cameras, zones, rules, brokers, over their own files. A box that loses its broker by
    /// it goes back by itself.
    Configure {
        /// The folder of the repository.
        repository: PathBuf,
        /// A file with [[camera]], [broker], [delivery] or [escalation]; what it does not say stays as it is. Its name without
        /// .toml is what the configuration is called.
        file: PathBuf,
        /// Which boxes: DISTRICT/TOWNSHIP/VILLAGE/BOX, each a name or *. The narrowest counts for a box.
        #[arg(long = "box", value_name = "PATTERN", required_unless_present = "remove")]
        boxes: Option<Boxes>,
        /// Take the configuration of that name away: the boxes go back to the next that is for them, or to their own files.
        #[arg(long, conflicts_with = "boxes")]
        remove: bool,
        /// What it is signed with.
        #[command(flatten)]
        signing: SigningOptions,
    },
    /// Say anew that there is nothing newer, with the keys of snapshot and timestamp alone.
    Refresh {
        /// The folder of the repository.
        repository: PathBuf,
        /// What it is signed with.
        #[command(flatten)]
        signing: SigningOptions,
    },
    /// Replace a key by a new one, before its time or because it was stolen or lost. Boxes follow by themselves.
    RotateKey {
        /// The folder of the repository.
        repository: PathBuf,
        /// Whose key.
        role: KeyRole,
        /// The key that goes: its file or, where that is lost, the beginning of its id. Need not be said where the role has
        /// one key.
        #[arg(long)]
        old: Option<String>,
        /// The file of the key that comes; made where it is not there.
        #[arg(long)]
        new: PathBuf,
        /// Days that the new root holds.
        #[arg(long, default_value_t = 3650)]
        root_days: u32,
        /// What it is signed with: the keys of root, and of what is signed anew.
        #[command(flatten)]
        signing: SigningOptions,
    },
    /// Judge a repository as a new box does, every bundle included.
    Verify {
        /// The folder of the repository.
        repository: PathBuf,
        /// The root of trust that boxes have.
        #[arg(long)]
        root: PathBuf,
    },
}

/// What a change is signed with.
#[derive(Clone, Debug, clap::Args)]
pub struct SigningOptions {
    /// A folder with keys; may be named several times.
    #[arg(long, required = true)]
    keys: Vec<PathBuf>,
    #[command(flatten)]
    passphrases: PassphraseOptions,
    #[command(flatten)]
    expiry: ExpiryOptions,
}

/// For how long what is signed holds. A box refuses what has expired, and keeps its model.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct ExpiryOptions {
    /// Days that the list of releases holds.
    #[arg(long, default_value_t = 365)]
    targets_days: u32,
    /// Days that the list of files holds.
    #[arg(long, default_value_t = 30)]
    snapshot_days: u32,
    /// Days within which `repo refresh` has to be run again.
    #[arg(long, default_value_t = 14)]
    timestamp_days: u32,
}

impl From<ExpiryOptions> for Expiry {
    fn from(options: ExpiryOptions) -> Self {
        let ExpiryOptions { targets_days, snapshot_days, timestamp_days } = options;
        Self { targets_days, snapshot_days, timestamp_days }
    }
}

impl SigningOptions {
    fn keys(&self) -> Result<(KeyFolders, Expiry), MaintenanceError> {
        let keys = KeyFolders::new(self.keys.iter().cloned());
        Ok((keys.locked(self.passphrases.read()?, Some(passphrases::ask)), self.expiry.into()))
    }
}

impl RepoCommand {
    /// Does it.
    pub fn run(self) -> Result<bool, MaintenanceError> {
        wait(self.act())?.map(|()| true)
    }

    async fn act(self) -> Result<(), MaintenanceError> {
        match self {
            Self::Init { repository, keys, number, threshold, root_days, passphrases, expiry } => {
                let new = NewRepository {
                    folder: repository,
                    keys: keys.clone(),
                    passphrase: passphrases.of_new_keys()?,
                    ask: Some(passphrases::ask),
                    number,
                    threshold,
                    root_days,
                    expiry: expiry.into(),
                };
                let root = new.make().await?;
                println!("{}: {threshold} of {number} keys sign for root and targets", keys.display());
                println!("{}: the root of trust for the boxes", root.display());
            }
            Self::Add { repository, bundle, runtime, signing } => {
                let model = check(&bundle, runtime)?;
                let mut release = Release::new(model);
                let (keys, expiry) = signing.keys()?;
                Editor::open(&repository).await?.add(&bundle, &mut release, &keys, expiry).await?;
                say(&release);
            }
            Self::Channel { repository, model, stable, canary, again, signing } => {
                change(&repository, &model, &signing, |release| {
                    release.rollout.stable = stable.unwrap_or(release.rollout.stable);
                    release.rollout.canary = canary.unwrap_or(release.rollout.canary);
                    release.attempt += u32::from(again);
                })
                .await?;
            }
            Self::Revoke { repository, model, reason, signing } => {
                change(&repository, &model, &signing, |release| {
                    release.revoked = Some(reason);
                    release.rollout = Rollout::default();
                })
                .await?;
            }
            Self::Configure { repository, file, boxes, remove, signing } => {
                let name = configuration_name(&file)?;
                let (keys, expiry) = signing.keys()?;
                let mut editor = Editor::open(&repository).await?;
                match boxes.filter(|_| !remove) {
                    Some(boxes) => {
                        check_configuration(&file)?;
                        say_configuration(&editor.configure(&name, boxes, &file, &keys, expiry).await?);
                    }
                    None => {
                        editor.remove_configuration(&name, &keys, expiry).await?;
                        println!("{name}: no configuration any more");
                    }
                }
            }
            Self::Refresh { repository, signing } => {
                let (keys, expiry) = signing.keys()?;
                Editor::open(&repository).await?.refresh(&keys, expiry).await?;
                println!("{}: holds for {} days", repository.display(), expiry.timestamp_days);
            }
            Self::RotateKey { repository, role, old, new, root_days, signing } => {
                let (keys, expiry) = signing.keys()?;
                let passphrase = signing.passphrases.of_new_keys()?;
                let rotation = Rotation { role, old, new: new.clone(), passphrase, root_days };
                let rotated = Editor::open(&repository).await?.rotate(&rotation, &keys, expiry).await?;
                println!("{}: signs from root {} on, id {}", new.display(), rotated.version, rotated.new);
                println!("the key with the id {} signs no more", rotated.old);
            }
            Self::Verify { repository, root } => verify(&repository, root).await?,
        }
        Ok(())
    }
}

async fn change(
    repository: &Path,
    model: &ModelName,
    signing: &SigningOptions,
    change: impl FnOnce(&mut Release),
) -> Result<(), MaintenanceError> {
    let mut editor = Editor::open(repository).await?;
    let releases = editor.releases();
    let names = releases.iter().map(|release| release.model.to_string()).collect::<Vec<_>>().join(", ");
    let mut release = releases.into_iter().find(|release| release.model == *model).ok_or_else(|| {
        MaintenanceError::Other(format!("there is no {model} in the repository; it holds: {names}"))
    })?;
    change(&mut release);
    let (keys, expiry) = signing.keys()?;
    editor.change(&release, &keys, expiry).await?;
    say(&release);
    Ok(())
}

/// What the configuration of a file is called.
fn configuration_name(file: &Path) -> Result<String, MaintenanceError> {
    let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    match (1..=64).contains(&name.len()) && name.bytes().all(plain) {
        true => Ok(name),
        false => Err(MaintenanceError::Other(format!(
            "{}: a configuration is called as its file is: expected 1 to 64 of a-z, 0-9 and \"-\", and .toml",
            file.display()
        ))),
    }
}

/// All that can be judged without a box's own file.
fn check_configuration(file: &Path) -> Result<(), MaintenanceError> {
    let text = std::fs::read_to_string(file).map_err(at(file))?;
    let problems = Overlay::parse(&text).err().unwrap_or_default();
    if text.len() as u64 <= CONFIGURATION_MAX_BYTES && problems.is_empty() {
        return Ok(());
    }
    let problems: Vec<_> = problems.iter().map(|problem| format!("\n  {problem}")).collect();
    Err(MaintenanceError::Other(format!(
        "{} cannot be used by any box: {} bytes ({CONFIGURATION_MAX_BYTES} are the limit), {} problems{}",
        file.display(),
        text.len(),
        problems.len(),
        problems.concat()
    )))
}

fn say_configuration(offer: &Offer) {
    println!("{}: configuration {}, for {}", offer.name, offer.number, offer.boxes);
}

/// Unpacks and tries a bundle as a box does.
fn check(bundle: &Path, runtime: PathBuf) -> Result<ModelName, MaintenanceError> {
    let place = tempfile::tempdir().map_err(at(bundle))?;
    let folder = place.path().join("candidate");
    let file = File::open(bundle).map_err(at(bundle))?;
    bundle::unpack(BufReader::new(file), &folder)?;
    let options = TrialOptions {
        runtime,
        options: DetectorOptions::default(),
        budget: Some(Duration::MAX),
        beside: None,
    };
    Ok(trial::run(&folder, &options, &mut |_| {})?.model)
}

async fn verify(repository: &Path, root: PathBuf) -> Result<(), MaintenanceError> {
    let folder = repository.canonicalize().map_err(at(repository))?;
    let place = tempfile::tempdir().map_err(at(repository))?;
    let trust = Trust {
        root,
        folder: place.path().join("trust"),
        now: Timestamp::now(),
        clock: "this machine's clock was taken".to_owned(),
    };
    let opened = Repository::open(&folder.to_string_lossy(), &Web::default(), &trust).await?;
    for why in &opened.ignored {
        println!("{why}");
    }
    for release in &opened.releases {
        if release.revoked.is_none() {
            let fetch = Fetch { rate: None, progress: &mut |_| {} };
            opened.fetch(release, &place.path().join("bundle"), fetch).await?;
            for patch in &release.patches {
                let fetch = Fetch { rate: None, progress: &mut |_| {} };
                opened.fetch_patch(patch, &place.path().join("patch"), fetch).await?;
            }
        }
        say(release);
    }
    for offer in &opened.configurations {
        let fetch = Fetch { rate: None, progress: &mut |_| {} };
        opened.fetch_configuration(offer, &place.path().join("configuration"), fetch).await?;
        say_configuration(offer);
    }
    println!("{}: {} releases, all as signed", repository.display(), opened.releases.len());
    Ok(())
}

fn say(release: &Release) {
    let Rollout { stable, canary } = release.rollout;
    match &release.revoked {
        Some(reason) => println!("{}: release {}, revoked: {reason}", release.model, release.number),
        None => println!(
            "{}: release {}, for {stable} % of stable and {canary} % of canary, attempt {}",
            release.model, release.number, release.attempt
        ),
    }
    for patch in &release.patches {
        let share = 100.0 * patch.length as f64 / release.length.max(1) as f64;
        println!("{}: {share:.1} % of the bundle", patch.target);
    }
}

fn model(text: &str) -> Result<ModelName, String> {
    ModelName::try_from(text.to_owned()).map_err(|error| error.to_string())
}
