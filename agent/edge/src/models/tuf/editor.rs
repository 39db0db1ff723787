//! A maintainer makes a repository and signs what is in it.
//!
//! Keys are files, named after their roles, in folders that may lie on several sticks: a role is signed by all of its keys
//! that are found, and refused where they are fewer than its threshold. Nothing is written
//! before all is signed, and then in the order in which a client that reads meanwhile needs it; the timestamp last.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};

use aws_lc_rs::rand::SystemRandom;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use tough::editor::signed::SignedRole;
use tough::schema::{
    Hashes, KeyHolder, Metafile, Role, RoleKeys, RoleType, Root, Signed, Snapshot, Target, Targets,
};
use tough::{ExpirationEnforcement, RepositoryLoader, TargetName};

use super::super::patch;
use super::super::release::{Patch, Release};
use super::keys::{Ask, KeyFolders, SigningKey, make_key};
use super::transport::Web;
use super::{PATCH, TufError, addresses, at, custom, release};
use crate::durable::replace;
use crate::secret::Secret;

const SPECIFICATION: &str = "1.0.0";

/// The newest releases, from which patches lead to a new one.
const PATCHES: usize = 3;

/// For how long what is signed now holds.
#[derive(Clone, Copy, Debug)]
pub struct Expiry {
    /// What boxes are offered.
    pub targets_days: u32,
    /// Which files belong together; renewed with every change and every refresh.
    pub snapshot_days: u32,
    /// That there is nothing newer; renewed with every change and every refresh.
    pub timestamp_days: u32,
}

/// What a new repository is made of.
#[derive(Clone, Debug)]
pub struct NewRepository {
    /// The folder, which is not there yet.
    pub folder: PathBuf,
    /// Where the keys are put.
    pub keys: PathBuf,
    /// What locks them, if anything.
    pub passphrase: Option<Secret>,
    /// Asks for the passphrases of those that are there already.
    pub ask: Option<Ask>,
    /// Keys of root and targets each.
    pub number: u8,
    /// How many of them have to sign.
    pub threshold: u8,
    /// For how long the root holds.
    pub root_days: u32,
    /// For how long the rest does.
    pub expiry: Expiry,
}

/// A repository that is being changed.
#[derive(Debug)]
pub struct Editor {
    folder: PathBuf,
    pub(super) root: Root,
    pub(super) targets: Targets,
    pub(super) snapshot: Snapshot,
    pub(super) timestamp: tough::schema::Timestamp,
}

/// A signed role as a file.
pub(super) type SignedFile = (PathBuf, Vec<u8>);

impl NewRepository {
    /// Makes keys and an empty repository. Returns the root of trust that boxes need.
    pub async fn make(&self) -> Result<PathBuf, TufError> {
        if self.threshold == 0 || self.threshold > self.number {
            return Err(TufError::Metadata(format!(
                "a threshold of {} with {} keys: expected 1 to {}",
                self.threshold, self.number, self.number
            )));
        }
        let metadata = self.folder.join("metadata");
        for folder in [&metadata, &self.folder.join("targets"), &self.keys] {
            fs::create_dir_all(folder).map_err(at(folder))?;
        }
        if fs::read_dir(&metadata).map_err(at(&metadata))?.next().is_some() {
            return Err(TufError::Metadata(format!("{} holds a repository already", self.folder.display())));
        }
        let mut root = Root {
            spec_version: SPECIFICATION.to_owned(),
            consistent_snapshot: true,
            version: NonZeroU64::MIN,
            expires: in_days(self.root_days),
            keys: HashMap::new(),
            roles: HashMap::new(),
            _extra: HashMap::new(),
        };
        let several = (self.number, self.threshold);
        let opener =
            KeyFolders::new([self.keys.clone()]).locked(self.passphrase.iter().cloned().collect(), self.ask);
        for (role, (number, threshold)) in [
            (RoleType::Root, several),
            (RoleType::Targets, several),
            (RoleType::Snapshot, (1, 1)),
            (RoleType::Timestamp, (1, 1)),
        ] {
            let mut keyids = Vec::new();
            for n in 1..=number {
                let file = match number {
                    1 => self.keys.join(format!("{role}.key")),
                    _ => self.keys.join(format!("{role}-{n}.key")),
                };
                make_key(&file, self.passphrase.as_ref())?;
                let SigningKey { id, key, .. } = opener.open(&file)?;
                root.keys.insert(id.clone(), key);
                keyids.push(id);
            }
            let threshold = NonZeroU64::new(threshold.into()).unwrap_or(NonZeroU64::MIN);
            root.roles.insert(role, RoleKeys { keyids, threshold, _extra: HashMap::new() });
        }
        let (none, expires) = (NonZeroU64::MIN, Timestamp::now());
        let mut editor = Editor {
            folder: self.folder.clone(),
            targets: Targets::new(SPECIFICATION.to_owned(), none, expires),
            snapshot: Snapshot::new(SPECIFICATION.to_owned(), none, expires),
            timestamp: tough::schema::Timestamp::new(SPECIFICATION.to_owned(), none, expires),
            root: root.clone(),
        };
        let keys = opener.load()?;
        let root = sign(&editor.root, root, &keys).await?;
        let root = editor.file(&root);
        let [targets, snapshot, timestamp] = editor.sign_all(&keys, self.expiry).await?;
        write(&[root, targets, snapshot, timestamp])?;
        Ok(metadata.join("1.root.json"))
    }
}

impl Editor {
    /// Opens a repository, whatever has expired in it.
    pub async fn open(folder: &Path) -> Result<Self, TufError> {
        let folder = folder.canonicalize().map_err(at(folder))?;
        let metadata = folder.join("metadata");
        let version = |name: &str| name.strip_suffix(".root.json")?.parse::<u64>().ok();
        let newest = fs::read_dir(&metadata)
            .map_err(at(&metadata))?
            .filter_map(|entry| version(&entry.ok()?.file_name().to_string_lossy()))
            .max()
            .ok_or_else(|| TufError::Metadata(format!("{} holds no root metadata", metadata.display())))?;
        let file = metadata.join(format!("{newest}.root.json"));
        let root = fs::read(&file).map_err(at(&file))?;
        let (metadata, targets) = addresses(&folder.to_string_lossy())?;
        let repository = RepositoryLoader::new(&root, metadata, targets)
            .transport(Web::default())
            .expiration_enforcement(ExpirationEnforcement::Unsafe)
            .load()
            .await
            .map_err(|error| {
                TufError::Metadata(format!(
                    "{error}; if `repo rotate-key` was cut off here, remove {} and repeat it",
                    file.display()
                ))
            })?;
        Ok(Self {
            folder,
            root: repository.root().signed.clone(),
            targets: repository.targets().signed.clone(),
            snapshot: repository.snapshot().signed.clone(),
            timestamp: repository.timestamp().signed.clone(),
        })
    }

    /// What it offers.
    pub fn releases(&self) -> Vec<Release> {
        let of = |(name, target): (&TargetName, &Target)| release(name.raw(), target).ok();
        let mut releases: Vec<_> = self.targets.targets.iter().filter_map(of).collect();
        releases.sort_by_key(|release| release.number);
        releases
    }

    /// Adds a bundle that the caller has checked. Nobody gets it yet.
    pub async fn add(
        &mut self,
        bundle: &Path,
        release: &mut Release,
        keys: &KeyFolders,
        expiry: Expiry,
    ) -> Result<(), TufError> {
        let releases = self.releases();
        if releases.iter().any(|other| other.model == release.model) {
            return Err(TufError::Metadata(format!(
                "{} is in the repository already; another bundle needs another version",
                release.model
            )));
        }
        release.number = releases.last().map_or(1, |last| last.number + 1);
        let mut target = Target::from_path(bundle)
            .await
            .map_err(|error| TufError::Metadata(format!("{}: {error}", bundle.display())))?;
        release.length = target.length;
        release.sha256 = hex::encode(&target.hashes.sha256);
        let place = self.place(&release.sha256, &release.target);
        let bytes = fs::read(bundle).map_err(at(bundle))?;
        replace(&place, &bytes).map_err(at(&place))?;
        for old in releases.iter().rev().filter(|old| old.revoked.is_none()).take(PATCHES) {
            release.patches.extend(self.add_patch(old, release, &bytes).await?);
        }
        target.custom = custom(release)?;
        self.targets.add_target(TargetName::new(&release.target)?, target);
        self.publish(keys, expiry).await
    }

    /// Adds what leads from an older bundle to a new one, if that is worth it.
    async fn add_patch(
        &mut self,
        old: &Release,
        new: &Release,
        bytes: &[u8],
    ) -> Result<Option<Patch>, TufError> {
        let file = self.place(&old.sha256, &old.target);
        let Ok(before) = fs::read(&file) else { return Ok(None) }; // somebody made room
        let Some(patch) = patch::make(&before, bytes).map_err(at(&file))? else { return Ok(None) };
        let [name, from] = [new, old].map(|release| release.target.trim_end_matches(".bundle"));
        let name = format!("{name}-from-{from}{PATCH}");
        let file = self.place(&hex::encode(sha256(&patch)), &name);
        replace(&file, &patch).map_err(at(&file))?;
        let target = Target::from_path(&file)
            .await
            .map_err(|error| TufError::Metadata(format!("{}: {error}", file.display())))?;
        self.targets.add_target(TargetName::new(&name)?, target);
        Ok(Some(Patch { from: old.sha256.clone(), target: name, length: patch.len() as u64 }))
    }

    pub(super) fn place(&self, sha256: &str, target: &str) -> PathBuf {
        self.folder.join("targets").join(format!("{sha256}.{target}"))
    }

    /// Signs what is said of a release: its rollout, its attempt, or that it was revoked.
    pub async fn change(
        &mut self,
        release: &Release,
        keys: &KeyFolders,
        expiry: Expiry,
    ) -> Result<(), TufError> {
        let name = TargetName::new(&release.target)?;
        let target = self.targets.targets.get_mut(&name);
        target.ok_or_else(|| TufError::NoTarget(release.target.clone()))?.custom = custom(release)?;
        self.publish(keys, expiry).await
    }

    /// Says anew that there is nothing newer, with the keys of snapshot and timestamp alone.
    pub async fn refresh(&mut self, keys: &KeyFolders, expiry: Expiry) -> Result<(), TufError> {
        write(&self.sign_snapshot(None, &keys.load()?, expiry).await?)
    }

    /// Signs targets and all above them, as the next version, and writes them.
    pub(super) async fn publish(&mut self, keys: &KeyFolders, expiry: Expiry) -> Result<(), TufError> {
        self.targets.version = self.targets.version.saturating_add(1);
        write(&self.sign_all(&keys.load()?, expiry).await?)
    }

    /// Signs targets and all above them.
    pub(super) async fn sign_all(
        &mut self,
        keys: &[SigningKey],
        expiry: Expiry,
    ) -> Result<[SignedFile; 3], TufError> {
        self.targets.expires = in_days(expiry.targets_days);
        let targets = sign(&self.root, self.targets.clone(), keys).await?;
        let [snapshot, timestamp] = self.sign_snapshot(Some(meta_of(&targets)), keys, expiry).await?;
        Ok([self.file(&targets), snapshot, timestamp])
    }

    /// Signs snapshot and timestamp, with what is new of the targets.
    pub(super) async fn sign_snapshot(
        &mut self,
        targets: Option<Metafile>,
        keys: &[SigningKey],
        expiry: Expiry,
    ) -> Result<[SignedFile; 2], TufError> {
        // The first ones of a new repository have no meta yet.
        if !self.snapshot.meta.is_empty() {
            self.snapshot.version = self.snapshot.version.saturating_add(1);
            self.timestamp.version = self.timestamp.version.saturating_add(1);
        }
        if let Some(targets) = targets {
            self.snapshot.meta.insert("targets.json".to_owned(), targets);
        }
        self.snapshot.expires = in_days(expiry.snapshot_days);
        let snapshot = sign(&self.root, self.snapshot.clone(), keys).await?;
        self.timestamp.expires = in_days(expiry.timestamp_days);
        self.timestamp.meta.insert("snapshot.json".to_owned(), meta_of(&snapshot));
        let timestamp = sign(&self.root, self.timestamp.clone(), keys).await?;
        Ok([self.file(&snapshot), self.file(&timestamp)])
    }

    pub(super) fn file<R: Role + Serialize>(&self, signed: &SignedRole<R>) -> SignedFile {
        let name = signed.signed().signed.filename(self.root.consistent_snapshot);
        (self.folder.join("metadata").join(name), signed.buffer().clone())
    }
}

pub(super) fn write(files: &[SignedFile]) -> Result<(), TufError> {
    files.iter().try_for_each(|(file, bytes)| replace(file, bytes).map_err(at(file)))
}

/// Signs a role with all of its keys that are there, as `root` lists them.
pub(super) async fn sign<R: Role + Serialize>(
    root: &Root,
    role: R,
    keys: &[SigningKey],
) -> Result<SignedRole<R>, TufError> {
    let needed = &root.roles[&R::TYPE];
    let (mut own, mut found) = (Vec::new(), HashSet::new());
    for key in keys {
        if needed.keyids.contains(&key.id) && found.insert(&key.id) {
            own.push(key.source());
        }
    }
    if (found.len() as u64) < needed.threshold.get() {
        return Err(TufError::Threshold {
            role: R::TYPE.to_string(),
            threshold: needed.threshold.get(),
            found: found.len(),
        });
    }
    Ok(SignedRole::new(role, &KeyHolder::Root(root.clone()), &own, &SystemRandom::new()).await?)
}

pub(super) fn meta_of<R: Role>(role: &SignedRole<R>) -> Metafile
where
    Signed<R>: Clone,
{
    Metafile {
        length: Some(role.buffer().len() as u64),
        hashes: Some(Hashes { sha256: sha256(role.buffer()).into(), _extra: HashMap::new() }),
        version: role.signed().signed.version(),
        _extra: HashMap::new(),
    }
}

fn sha256(bytes: &[u8]) -> Vec<u8> {
    use sha2::{Digest, Sha256};
    Sha256::digest(bytes).to_vec()
}

/// Whole seconds: the specification knows no parts of them.
pub(super) fn in_days(days: u32) -> Timestamp {
    let now = Timestamp::from_second(Timestamp::now().as_second()).unwrap_or(Timestamp::UNIX_EPOCH);
    now.checked_add(SignedDuration::from_hours(24 * i64::from(days))).unwrap_or(Timestamp::MAX)
}
