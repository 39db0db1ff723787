//! The shim's journal: one record for each operation, in the order in which they were done.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail};
use rustix::io::Errno;

/// One operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Counted from 1, over all processes.
    pub number: u64,
    /// When it was done, by the clock of this machine, whatever the process believes.
    pub at: SystemTime,
    /// Below the folder; empty for the folder itself.
    pub path: PathBuf,
    /// What it did.
    pub change: Change,
    /// Why it did not.
    pub error: Option<Errno>,
}

/// What an operation does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A new, empty file.
    Create,
    /// To a size, smaller or larger.
    Truncate(u64),
    /// Bytes at an offset.
    Write(u64, Vec<u8>),
    /// To another path; what was there is replaced.
    Rename(PathBuf),
    /// A file is taken out of its folder.
    Unlink,
    /// A new folder.
    MakeFolder,
    /// A folder is taken away.
    RemoveFolder,
    /// What was done to a file or a folder's entries before is on the medium.
    Sync,
}

/// As in a test's message: `write outbox.db-wal 4152+4096`.
impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = if self.path.as_os_str().is_empty() { Path::new(".") } else { &self.path }.display();
        match &self.change {
            Change::Create => write!(f, "create {path}"),
            Change::Truncate(size) => write!(f, "truncate {path} {size}"),
            Change::Write(offset, data) => write!(f, "write {path} {offset}+{}", data.len()),
            Change::Rename(to) => write!(f, "rename {path} {}", to.display()),
            Change::Unlink => write!(f, "unlink {path}"),
            Change::MakeFolder => write!(f, "mkdir {path}"),
            Change::RemoveFolder => write!(f, "rmdir {path}"),
            Change::Sync => write!(f, "sync {path}"),
        }?;
        self.error.map_or(Ok(()), |error| write!(f, ": {error}"))
    }
}

const HEADER: usize = 40;

/// Reads all records. The last one may be cut off: its writer was killed from outside.
pub fn read(mut bytes: &[u8]) -> Result<Vec<Operation>> {
    let mut operations = Vec::new();
    while let Some((header, rest)) = bytes.split_at_checked(HEADER) {
        let long = |at: usize| header[at..at + 8].try_into().map_or(0, u64::from_ne_bytes);
        let short = |at: usize| header[at..at + 4].try_into().map_or(0, u32::from_ne_bytes);
        let Some((path, rest)) = rest.split_at_checked(short(32) as usize) else { break };
        let Some((data, rest)) = rest.split_at_checked(short(36) as usize) else { break };
        let path_of = |bytes: &[u8]| PathBuf::from(OsStr::from_bytes(bytes));
        let change = match short(24) {
            1 => Change::Create,
            2 => Change::Truncate(long(16)),
            3 => Change::Write(long(16), data.to_vec()),
            4 => Change::Rename(path_of(data)),
            5 => Change::Unlink,
            6 => Change::MakeFolder,
            7 => Change::RemoveFolder,
            8 => Change::Sync,
            other => bail!("record {} of the journal is of kind {other}", operations.len()),
        };
        operations.push(Operation {
            number: long(0),
            at: UNIX_EPOCH + Duration::from_nanos(long(8)),
            path: path_of(path),
            change,
            error: (short(28) != 0).then(|| Errno::from_raw_os_error(short(28) as i32)),
        });
        bytes = rest;
    }
    Ok(operations)
}
