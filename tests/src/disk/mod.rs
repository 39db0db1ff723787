//! Storage that fails, counts and remembers: a process below a shim (`tests/faults/disk/shim.c`, by LD_PRELOAD) that sees
//! every operation by which it changes a folder.
//!
//! - [`Disk`] starts commands under the shim: counts operations, fsyncs and bytes, kills before an operation or in the
//!   middle of a write, lets operations fail;
//! - [`journal`] reads back every operation, with the time at which it was done;
//! - [`volume`] makes the folder of any moment out of them: as a killed process leaves it, and as a power cut may.
//!
//! What the shim does not see is said at its top. Whether that matters for a program is known: [`volume::Volume::written`]
//! after its last operation has to be what is in the folder.

pub mod journal;
#[cfg(test)]
mod tests;
pub mod tree;
pub mod volume;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use anyhow::{Context, Result, ensure};
use rustix::io::Errno;

use crate::shim;
use journal::Operation;

const SOURCE: &str = include_str!("../../faults/disk/shim.c");

/// A folder whose changes are seen.
#[derive(Debug)]
pub struct Disk {
    shim: PathBuf,
    folder: PathBuf,
    notes: PathBuf,
    keeps_journal: bool,
}

/// What goes wrong. Operations are counted from 1, over all processes since [`Disk::reset`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// SIGKILL just before an operation.
    KillBefore(u64),
    /// SIGKILL in the middle of an operation that is a write, half of which is done; before it where it is none.
    KillWithin(u64),
    /// This operation and those that follow fail.
    Fail {
        /// The first that does.
        from: u64,
        /// With ENOSPC only what needs space fails; with EROFS all but fsync, and opening files for writing, too.
        error: Errno,
        /// Until when.
        until: Until,
    },
}

/// How long a fault lasts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Until {
    /// For ever.
    Never,
    /// For so many operations.
    After(u64),
    /// Until this file exists.
    Exists(PathBuf),
}

/// What was done since [`Disk::reset`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// All operations, those that failed included.
    pub operations: u64,
    /// fsync and fdatasync, of files and folders.
    pub fsyncs: u64,
    /// Written into files.
    pub bytes: u64,
    /// Operations that a fault let fail.
    pub failed: u64,
}

impl Disk {
    /// Counts what happens below `folder`, and journals it. Both are kept in the folder `notes`, which is elsewhere.
    pub fn recorded(folder: &Path, notes: &Path) -> Result<Self> {
        Self::new(folder, notes, true)
    }

    /// Counts only: the cheaper way for a bench.
    pub fn counted(folder: &Path, notes: &Path) -> Result<Self> {
        Self::new(folder, notes, false)
    }

    fn new(folder: &Path, notes: &Path, keeps_journal: bool) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        fs::create_dir_all(notes).with_context(|| format!("making {}", notes.display()))?;
        let (folder, notes) = (folder.canonicalize()?, notes.canonicalize()?);
        ensure!(!notes.starts_with(&folder), "{} is below the folder that is watched", notes.display());
        let disk = Self { shim: shim::build("disk", SOURCE)?, folder, notes, keeps_journal };
        disk.reset()?;
        Ok(disk)
    }

    /// Forgets everything. No process may be under the shim now.
    pub fn reset(&self) -> Result<()> {
        for file in [self.counts_file(), self.journal_file()] {
            match fs::remove_file(&file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Puts a command under the shim, and its children.
    pub fn prepare(&self, command: &mut Command, fault: &Fault) {
        command.env("LD_PRELOAD", &self.shim).env("SHARP_EYES_DISK", &self.folder);
        command.env("SHARP_EYES_DISK_COUNTS", self.counts_file());
        if self.keeps_journal {
            command.env("SHARP_EYES_DISK_JOURNAL", self.journal_file());
        }
        let mut set = |name: &str, value: u64| {
            command.env(format!("SHARP_EYES_DISK_{name}"), value.to_string());
        };
        match fault {
            Fault::None => {}
            Fault::KillBefore(operation) => set("KILL", *operation),
            Fault::KillWithin(operation) => {
                set("KILL", *operation);
                set("TORN", 1);
            }
            Fault::Fail { from, error, until } => {
                set("FAIL", *from);
                set("ERROR", error.raw_os_error() as u64);
                match until {
                    Until::Never => {}
                    Until::After(operations) => set("HEAL_AFTER", *operations),
                    Until::Exists(file) => drop(command.env("SHARP_EYES_DISK_HEAL_FILE", file)),
                }
            }
        }
    }

    /// Runs a command under the shim to its end.
    pub fn run(&self, mut command: Command, fault: &Fault) -> Result<ExitStatus> {
        self.prepare(&mut command, fault);
        command.status().with_context(|| format!("running {}", command.get_program().display()))
    }

    /// What was done so far. At any time.
    pub fn counts(&self) -> Result<Counts> {
        let bytes = match fs::read(self.counts_file()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Counts::default()),
            bytes => bytes?,
        };
        let numbers: Vec<u64> =
            bytes.as_chunks().0.iter().map(|number| u64::from_ne_bytes(*number)).collect();
        let [operations, fsyncs, bytes, failed] = numbers[..] else { return Ok(Counts::default()) };
        Ok(Counts { operations, fsyncs, bytes, failed })
    }

    /// Every operation so far, in order.
    pub fn journal(&self) -> Result<Vec<Operation>> {
        ensure!(self.keeps_journal, "this disk only counts");
        match fs::read(self.journal_file()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            bytes => journal::read(&bytes.context("reading the journal")?),
        }
    }

    fn counts_file(&self) -> PathBuf {
        self.notes.join("disk.counts")
    }

    fn journal_file(&self) -> PathBuf {
        self.notes.join("disk.journal")
    }
}

/// Runs a command to its end, and says what it did below a folder.
pub fn count(folder: &Path, command: Command) -> Result<(ExitStatus, Counts)> {
    let notes = tempfile::tempdir().context("a folder for the counts")?;
    let disk = Disk::counted(folder, notes.path())?;
    let status = disk.run(command, &Fault::None)?;
    Ok((status, disk.counts()?))
}
