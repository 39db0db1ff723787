//! A folder as it is in memory and as it is on the medium, operation by operation: what a power cut may leave of it.
//!
//! # The model
//!
//! After the method of ALICE (Pillai et al., OSDI 2014): what was synced stays, of the rest anything may be missing.
//!
//! - **Bytes.** Of the writes and truncations of a file since its last fsync, a power cut keeps the first few, the last of
//!   them perhaps torn, or any subset, each perhaps torn. A torn write leaves its beginning or its end, up to a border of
//!   sectors; one within a sector is torn in the middle, which is worse than what most media do. What was never written
//!   below a later write is zero.
//! - **Entries.** Files and folders made, renamed and removed since the last fsync of their folder: a power cut keeps the
//!   first few of each folder, as file systems with an ordered journal do. A rename between two folders is on the medium
//!   when both are synced. Syncing a file does not sync its entry (ext4 does that, POSIX does not promise it).
//! - Bytes and entries are independent of one another: a rename may be kept and the bytes of what was renamed not.
//! - Every file has its own fate, but all choices are those of one seed.
//!
//! Not modelled: bytes that were never written (a sector of another file), entries of one folder out of their order,
//! loss of what was synced (a card that lies), changes in a folder that is renamed before its parent is synced.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use fastrand::Rng;

use super::journal::{Change, Operation};
use super::tree::Tree;

/// A medium is written by the sector.
const SECTOR: usize = 512;

/// Of a write.
const ALL: Range<usize> = 0..usize::MAX;

/// The folder.
#[derive(Clone, Debug, Default)]
pub struct Volume {
    files: Vec<File>,
    /// As programs see them.
    now: Entries,
    /// On the medium for certain.
    synced: Entries,
    /// Since then, in their order.
    pending: Vec<Pending>,
}

/// What a power cut may leave.
#[derive(Clone, Debug)]
pub struct Remains {
    /// In words, for the message of a test.
    pub choice: String,
    /// The folder.
    pub tree: Tree,
}

#[derive(Clone, Debug, Default)]
struct File {
    now: Vec<u8>,
    synced: Vec<u8>,
    pending: Vec<Change>,
}

type Entries = BTreeMap<PathBuf, Entry>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    Folder,
    /// Its place in [`Volume::files`].
    File(usize),
}

/// A change of entries.
#[derive(Clone, Debug)]
struct Pending {
    step: Step,
    /// Folders that were not synced since.
    folders: Vec<PathBuf>,
}

#[derive(Clone, Debug)]
enum Step {
    Add(PathBuf, Entry),
    Remove(PathBuf),
    Move(PathBuf, PathBuf),
}

impl Volume {
    /// A folder all of which is on the medium.
    pub fn new(before: Tree) -> Self {
        let mut volume = Self::default();
        for folder in before.folders {
            volume.now.insert(folder, Entry::Folder);
        }
        for (path, bytes) in before.files {
            volume.now.insert(path, Entry::File(volume.files.len()));
            volume.files.push(File { synced: bytes.clone(), now: bytes, pending: Vec::new() });
        }
        volume.synced = volume.now.clone();
        volume
    }

    /// Does the next operation. The error names one that does not fit what was before, which means that the shim has
    /// missed something.
    pub fn apply(&mut self, operation: &Operation) -> Result<()> {
        if operation.error.is_some() {
            return Ok(());
        }
        self.change(operation).with_context(|| {
            let Operation { number, path, .. } = operation;
            format!("operation {number} on {:?} does not fit what was before", path.display())
        })
    }

    fn change(&mut self, Operation { path, change, .. }: &Operation) -> Result<()> {
        match change {
            Change::Create => {
                self.files.push(File::default());
                self.enter(Step::Add(path.clone(), Entry::File(self.files.len() - 1)));
            }
            Change::MakeFolder => self.enter(Step::Add(path.clone(), Entry::Folder)),
            Change::Unlink | Change::RemoveFolder => {
                self.now.get(path).context("it is not there")?;
                self.enter(Step::Remove(path.clone()));
            }
            Change::Rename(to) => {
                self.now.get(path).context("it is not there")?;
                self.enter(Step::Move(path.clone(), to.clone()));
            }
            Change::Sync => match self.now.get(path) {
                Some(Entry::File(file)) => {
                    let file = &mut self.files[*file];
                    file.synced.clone_from(&file.now);
                    file.pending.clear();
                }
                _ => self.sync_folder(path),
            },
            Change::Truncate(_) | Change::Write(..) => {
                let Some(Entry::File(file)) = self.now.get(path) else { anyhow::bail!("it is not there") };
                let file = &mut self.files[*file];
                alter(&mut file.now, change, ALL);
                file.pending.push(change.clone());
            }
        }
        Ok(())
    }

    fn enter(&mut self, step: Step) {
        step.apply(&mut self.now);
        let folder = |path: &Path| path.parent().unwrap_or(Path::new("")).to_owned();
        let mut folders = match &step {
            Step::Add(path, _) | Step::Remove(path) => vec![folder(path)],
            Step::Move(from, to) => vec![folder(from), folder(to)],
        };
        folders.dedup();
        self.pending.push(Pending { step, folders });
    }

    fn sync_folder(&mut self, folder: &Path) {
        for pending in &mut self.pending {
            pending.folders.retain(|other| other != folder);
        }
        // Whatever happened in a folder that is gone from the medium goes with it: another of that name is another folder.
        let on_medium = self.pending.iter().enumerate().filter(|(_, pending)| pending.folders.is_empty());
        let gone: Vec<(usize, PathBuf)> = on_medium
            .filter_map(|(at, pending)| match &pending.step {
                Step::Remove(path) => Some((at, path.clone())),
                _ => None,
            })
            .collect();
        let (synced, mut at) = (&mut self.synced, 0);
        self.pending.retain(|pending| {
            let place = at;
            at += 1;
            if pending.folders.is_empty() {
                pending.step.apply(synced);
                return false;
            }
            !gone.iter().any(|(removed, folder)| place < *removed && pending.step.is_within(folder))
        });
    }

    /// What a process that is killed now leaves: all that it has written.
    pub fn written(&self) -> Tree {
        self.tree(&self.now, |file| file.now.clone())
    }

    /// What a power cut may leave now: the four corners (entries and bytes that were not synced: all or none), and up
    /// to `more` combinations at random. Those that are the same are left out.
    pub fn after_power_cut(&self, more: usize, seed: u64) -> Vec<Remains> {
        let mut all: Vec<Remains> = Vec::new();
        let mut add = |choice: &str, tree: Tree| {
            if all.iter().all(|other| other.tree != tree) {
                all.push(Remains { choice: choice.to_owned(), tree });
            }
        };
        add("nothing that was not synced", self.tree(&self.synced, |file| file.synced.clone()));
        add("everything", self.written());
        add("entries without bytes", self.tree(&self.now, |file| file.synced.clone()));
        add("bytes without entries", self.tree(&self.synced, |file| file.now.clone()));
        let mut rng = Rng::with_seed(seed);
        for _ in 0..more {
            let mut choice = String::new();
            let entries = self.some_entries(&mut rng, &mut choice);
            let bytes: Vec<Vec<u8>> = self
                .files
                .iter()
                .enumerate()
                .map(|(n, file)| self.some_bytes(n, file, &mut rng, &mut choice))
                .collect();
            let tree = self.places(&entries, |n| bytes[n].clone());
            add(&choice, tree);
        }
        all
    }

    /// Of each folder the first few changes.
    fn some_entries(&self, rng: &mut Rng, choice: &mut String) -> Entries {
        let mut kept: BTreeMap<&Path, usize> = BTreeMap::new();
        for folder in self.pending.iter().flat_map(|pending| &pending.folders) {
            *kept.entry(folder).or_default() += 1;
        }
        for (folder, count) in &mut kept {
            let all = *count;
            *count = rng.usize(0..=all);
            *choice += &format!("{count} of {all} changes of folder {:?}; ", folder.display());
        }
        let mut entries = self.synced.clone();
        for pending in &self.pending {
            let mut stays = true;
            for folder in &pending.folders {
                match kept.get_mut(folder.as_path()) {
                    Some(left) if *left > 0 => *left -= 1,
                    _ => stays = false,
                }
            }
            if stays {
                pending.step.apply(&mut entries);
            }
        }
        entries
    }

    fn some_bytes(&self, number: usize, file: &File, rng: &mut Rng, choice: &mut String) -> Vec<u8> {
        let all = file.pending.len();
        if all == 0 {
            return file.synced.clone();
        }
        let in_order = rng.bool();
        let first = rng.usize(0..=all);
        let name = self.now.iter().find(|(_, entry)| **entry == Entry::File(number));
        let name = name.map_or("a file that is gone".to_owned(), |(path, _)| path.display().to_string());
        *choice += &format!("of {all} writes of {name}");
        let mut bytes = file.synced.clone();
        for (n, change) in file.pending.iter().enumerate() {
            let (kept, may_tear) = if in_order { (n < first, n + 1 == first) } else { (rng.bool(), true) };
            if !kept {
                continue;
            }
            let part = match change {
                Change::Write(offset, data) if may_tear && rng.bool() => {
                    torn(*offset as usize, data.len(), rng)
                }
                _ => ALL,
            };
            alter(&mut bytes, change, part.clone());
            *choice += &if part == ALL { format!(", {n}") } else { format!(", {part:?} of {n}") };
        }
        *choice += "; ";
        bytes
    }

    fn tree(&self, entries: &Entries, bytes: impl Fn(&File) -> Vec<u8>) -> Tree {
        self.places(entries, |n| bytes(&self.files[n]))
    }

    /// What can be reached.
    fn places(&self, entries: &Entries, bytes: impl Fn(usize) -> Vec<u8>) -> Tree {
        let mut tree = Tree::default();
        for (path, entry) in entries {
            // Sorted: a folder comes before what is in it.
            let parent = path.parent().unwrap_or(Path::new(""));
            if parent != Path::new("") && !tree.folders.contains(parent) {
                continue;
            }
            match entry {
                Entry::Folder => drop(tree.folders.insert(path.clone())),
                Entry::File(file) => drop(tree.files.insert(path.clone(), bytes(*file))),
            }
        }
        tree
    }
}

impl Step {
    fn is_within(&self, folder: &Path) -> bool {
        let within = |path: &Path| path != folder && path.starts_with(folder);
        match self {
            Self::Add(path, _) | Self::Remove(path) => within(path),
            Self::Move(from, to) => within(from) && within(to),
        }
    }

    fn apply(&self, entries: &mut Entries) {
        match self {
            Self::Add(path, entry) => drop(entries.insert(path.clone(), *entry)),
            // Of a folder also what a power cut would have left in it.
            Self::Remove(path) => entries.retain(|entry, _| !entry.starts_with(path)),
            Self::Move(from, to) => {
                let moved: Vec<_> = entries.extract_if(.., |path, _| path.starts_with(from)).collect();
                for (path, entry) in moved {
                    let below = path.strip_prefix(from).unwrap_or(&path);
                    let path = if below == Path::new("") { to.clone() } else { to.join(below) };
                    entries.insert(path, entry);
                }
            }
        }
    }
}

/// The beginning or the end of a write, up to a border of sectors in the file; half of one that crosses none.
fn torn(offset: usize, length: usize, rng: &mut Rng) -> Range<usize> {
    let borders: Vec<usize> =
        (offset / SECTOR + 1..).map(|n| n * SECTOR - offset).take_while(|at| *at < length).collect();
    let at = rng.choice(borders).unwrap_or(length / 2);
    if rng.bool() { 0..at } else { at..length }
}

/// Does a write or a truncation, of a write only a part.
fn alter(bytes: &mut Vec<u8>, change: &Change, part: Range<usize>) {
    match change {
        Change::Truncate(size) => bytes.resize(*size as usize, 0),
        Change::Write(offset, data) => {
            let start = *offset as usize + part.start;
            let data = &data[part.start..part.end.min(data.len())];
            if !data.is_empty() {
                bytes.resize(bytes.len().max(start + data.len()), 0);
                bytes[start..start + data.len()].copy_from_slice(data);
            }
        }
        _ => {}
    }
}
