//! A box asks a repository, and keeps what it has come to trust.
//!
//! `tough` judges signatures, versions, lengths and hashes. Two things are done here instead. Expiry: a box may have no
//! clock, so that the newest time known counts, and a clock that ran ahead once must not lock the box out for ever. And
//! what is kept between two checks: `tough` writes its files in place, so it works in a temporary folder, and what it has
//! approved of is written, synced and renamed one by one. Each of the files is a floor of its own, so that a power cut
//! between two of them forgets nothing; and a root counts from the moment on at which it was verified, whatever is wrong
//! with the rest.

use std::fs;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Instant;

use futures_util::StreamExt;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use tough::schema::{Role, Root, Signed, Snapshot, Timestamp};
use tough::{ExpirationEnforcement, Limits, RepositoryLoader, TargetName};

use super::super::release::{Patch, Release};
use super::transport::Web;
use super::{CONFIGURATION, PATCH, TufError, addresses, at, offer, release};
use crate::budget::Budget;
use crate::durable::replace;
use crate::remote::offer::Offer;

/// Who may sign what.
const ROOT: &str = "root.json";

/// What is kept between two checks.
const KEPT: [&str; 4] = [ROOT, "timestamp.json", "snapshot.json", "targets.json"];

/// A repository of ten thousand releases has a tenth of it.
const LIMITS: Limits = Limits {
    max_root_size: 256 << 10,
    max_targets_size: 4 << 20,
    max_timestamp_size: 64 << 10,
    max_snapshot_size: 256 << 10,
    max_root_updates: 256,
};

/// By what a box judges a repository.
#[derive(Clone, Debug)]
pub struct Trust {
    /// The root metadata that came with the box.
    pub root: PathBuf,
    /// Where it is kept what that has led to.
    pub folder: PathBuf,
    /// The time that nothing may be older than.
    pub now: jiff::Timestamp,
    /// What the clock says, for the text of a refusal.
    pub clock: String,
}

/// A repository all of whose metadata are verified.
#[derive(Debug)]
pub struct Repository {
    inner: tough::Repository,
    web: Web,
    /// What it offers.
    pub releases: Vec<Release>,
    /// How it says that boxes are to be configured.
    pub configurations: Vec<Offer>,
    /// What it holds that is no release, and why.
    pub ignored: Vec<String>,
    /// The SHA-256 of bundles whose release this agent does not understand.
    pub unreadable: Vec<String>,
}

/// How a bundle is fetched.
pub struct Fetch<'a> {
    /// Bytes a second; without it as fast as it comes.
    pub rate: Option<u64>,
    /// Hears how many bytes are here.
    pub progress: &'a mut (dyn FnMut(u64) + Send),
}

impl Repository {
    /// Fetches and verifies the metadata of a repository.
    pub async fn open(address: &str, web: &Web, trust: &Trust) -> Result<Self, TufError> {
        let reading = |source| TufError::Root { file: trust.root.clone(), source };
        let shipped = fs::read(&trust.root).map_err(reading)?;
        // Another root of trust has no history yet.
        let name = &hex::encode(Sha256::digest(&shipped))[..16];
        let kept = trust.folder.join(name);
        let newest = fs::read(kept.join(ROOT)).ok();
        // One that is damaged on the disk: what came with the box is as good, with all that the repository has since.
        let is_whole = |root: &Vec<u8>| {
            let root = serde_json::from_slice::<Signed<Root>>(root);
            root.is_ok_and(|root| root.signed.verify_role(&root).is_ok())
        };
        let newest = newest.filter(is_whole);
        let (loaded, work) = load(address, web, newest.as_ref().unwrap_or(&shipped), &kept).await?;
        let loaded = loaded.and_then(|inner| trust.check_expiry(&inner).map(|()| inner));
        let approved = if loaded.is_ok() { &KEPT[..] } else { &[ROOT] };
        keep(work.path(), approved, &trust.folder, &kept)
            .map_err(|source| TufError::Keep { folder: kept.clone(), source })?;
        let inner = loaded?;
        let (mut releases, mut configurations) = (Vec::new(), Vec::new());
        let (mut ignored, mut unreadable) = (Vec::new(), Vec::new());
        for (name, target) in &inner.targets().signed.targets {
            if name.raw().ends_with(PATCH) {
                continue; // a release names it
            }
            if name.raw().ends_with(CONFIGURATION) {
                match offer(name.raw(), target) {
                    Ok(offer) => configurations.push(offer),
                    Err(why) => ignored.push(why),
                }
                continue;
            }
            match release(name.raw(), target) {
                Ok(release) => releases.push(release),
                Err(why) => {
                    ignored.push(why);
                    unreadable.push(hex::encode(&target.hashes.sha256));
                }
            }
        }
        releases.sort_by_key(|release| release.number);
        ignored.sort();
        configurations.sort_by_key(|offer| offer.number);
        Ok(Self { inner, web: web.clone(), releases, configurations, ignored, unreadable })
    }

    /// Fetches a bundle into a file. It is all there, verified and on the medium when this returns. What a fetch that was cut
    /// off has left there is not fetched again, where the server can do that.
    pub async fn fetch(&self, release: &Release, file: &Path, fetch: Fetch<'_>) -> Result<(), TufError> {
        self.fetch_target(&release.target, release.length, file, fetch).await
    }

    /// The same with what leads to a bundle.
    pub async fn fetch_patch(&self, patch: &Patch, file: &Path, fetch: Fetch<'_>) -> Result<(), TufError> {
        self.fetch_target(&patch.target, patch.length, file, fetch).await
    }

    /// The same with a configuration.
    pub async fn fetch_configuration(
        &self,
        offer: &Offer,
        file: &Path,
        fetch: Fetch<'_>,
    ) -> Result<(), TufError> {
        self.fetch_target(&offer.target, offer.length, file, fetch).await
    }

    async fn fetch_target(
        &self,
        target: &str,
        length: u64,
        file: &Path,
        fetch: Fetch<'_>,
    ) -> Result<(), TufError> {
        let fetched = self.fetch_onto(target, length, file, fetch).await;
        if let Err(TufError::Refused(_)) = &fetched {
            fs::remove_file(file).map_err(at(file))?; // whatever it is, it is no beginning
        }
        fetched
    }

    async fn fetch_onto(
        &self,
        target: &str,
        length: u64,
        file: &Path,
        fetch: Fetch<'_>,
    ) -> Result<(), TufError> {
        let name = TargetName::new(target)?;
        let beginning = &self.web.beginning;
        *beginning.file.lock().unwrap_or_else(PoisonError::into_inner) = Some(file.to_owned());
        let stream = self.inner.read_target(&name).await;
        beginning.file.lock().unwrap_or_else(PoisonError::into_inner).take(); // a folder needs none
        let stream = stream?;
        let here = beginning.bytes.swap(0, Ordering::Relaxed);
        let mut stream = pin!(stream.ok_or_else(|| TufError::NoTarget(target.to_owned()))?);
        // What is there is read and written once more, the same bytes, so that the file is what was verified.
        let opened = fs::OpenOptions::new().create(true).truncate(false).write(true).open(file);
        // tough hands out files in parts of 4 KB.
        let mut writer = BufWriter::with_capacity(1 << 20, opened.map_err(at(file))?);
        let mut budget = fetch.rate.map(|rate| Budget::new(rate as f64, rate as f64, Instant::now()));
        let mut bytes = 0;
        while let Some(part) = stream.next().await {
            let part = part?;
            bytes += part.len() as u64;
            writer.write_all(&part).map_err(at(file))?;
            (fetch.progress)(bytes);
            if let Some(budget) = budget.as_mut().filter(|_| bytes > here) {
                let now = Instant::now();
                budget.take(part.len() as f64, now);
                tokio::time::sleep(budget.ready_at(now).saturating_duration_since(now)).await;
            }
        }
        if bytes != length {
            return Err(TufError::Refused(format!("{target} has {bytes} bytes; {length} are signed for")));
        }
        let writer = writer.into_inner().map_err(|error| at(file)(error.into_error()))?;
        writer.set_len(length).and_then(|()| writer.sync_all()).map_err(at(file))
    }
}

impl Trust {
    fn check_expiry(&self, repository: &tough::Repository) -> Result<(), TufError> {
        let roles = [
            ("root", repository.root().signed.expires()),
            ("timestamp", repository.timestamp().signed.expires()),
            ("snapshot", repository.snapshot().signed.expires()),
            ("targets", repository.targets().signed.expires()),
        ];
        match roles.into_iter().find(|(_, expires)| *expires <= self.now) {
            None => Ok(()),
            Some((role, expires)) => Err(TufError::Expired { role, expires, clock: self.clock.clone() }),
        }
    }
}

/// Lets `tough` verify a repository, in a folder with a copy of what is kept.
async fn load(
    address: &str,
    web: &Web,
    root: &[u8],
    kept: &Path,
) -> Result<(Result<tough::Repository, TufError>, tempfile::TempDir), TufError> {
    let (metadata, targets) = addresses(address)?;
    let work = tempfile::tempdir().map_err(at(Path::new("a temporary folder")))?;
    let rotated = serde_json::from_slice::<Signed<Root>>(root).is_ok_and(|root| {
        is_rotated::<Timestamp>(&root.signed, &kept.join("timestamp.json"))
            || is_rotated::<Snapshot>(&root.signed, &kept.join("snapshot.json"))
    });
    for name in KEPT {
        let is_floor = !(rotated && ["timestamp.json", "snapshot.json"].contains(&name));
        if let (true, Ok(bytes)) = (is_floor, fs::read(kept.join(name))) {
            fs::write(work.path().join(name), bytes).map_err(at(work.path()))?;
        }
    }
    let loaded = RepositoryLoader::new(&root, metadata, targets)
        .transport(web.clone())
        .limits(LIMITS)
        .datastore(work.path())
        .expiration_enforcement(ExpirationEnforcement::Unsafe)
        .load()
        .await;
    Ok((loaded.map_err(TufError::from), work))
}

/// Whether the key of a kept file was replaced since. Whoever stole it may have raised the versions of timestamp and
/// snapshot beyond any that will ever come, so that neither is a floor any more (section 5.3.11 of the specification).
/// `tough` sees to it while it follows the roots; this does for roots that were followed, and kept, before.
fn is_rotated<R: Role + DeserializeOwned>(root: &Root, file: &Path) -> bool {
    let kept = fs::read(file).ok().and_then(|bytes| serde_json::from_slice::<Signed<R>>(&bytes).ok());
    kept.is_some_and(|kept| root.verify_role(&kept).is_err())
}

/// Takes over what was approved of.
fn keep(work: &Path, approved: &[&str], folder: &Path, kept: &Path) -> std::io::Result<()> {
    if !work.join(ROOT).exists() {
        return Ok(()); // what came with the box is no root
    }
    if !kept.is_dir() {
        fs::create_dir_all(kept)?;
        for made in [folder, folder.parent().unwrap_or(folder)] {
            fs::File::open(made)?.sync_all()?;
        }
    }
    for name in approved {
        let fresh = fs::read(work.join(name))?;
        if fs::read(kept.join(name)).ok().as_ref() != Some(&fresh) {
            replace(&kept.join(name), &fresh)?;
        }
    }
    Ok(())
}
