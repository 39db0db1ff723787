//! A number beside the database below which every sequence number given out lies.
//!
//! The database counts exactly, but it can be lost: corrupt after a power cut, deleted, restored from an old copy. A
//! sequence number given a second time would make a reader drop an alert as known, so a new database
//! must start above all numbers ever given. This file holds a ceiling that is raised by [`BLOCK`] at a time, before the
//! first number above the old one is used: one small durable write every 1024 alerts. After a loss counting goes on
//! at the ceiling; the gap tells readers the truth, that alerts may be missing.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Alerts stored in one transaction at most: bounds what one commit holds in memory and how long it takes.
pub(super) const MAX_BATCH: usize = 64;

/// Numbers that one transaction takes at most, with a good margin: of alerts and what a full register gives up for them, of
/// changes, climbs and commands.
const MAX_NUMBERS: u64 = 8 * MAX_BATCH as u64;

/// How far ahead the ceiling is set.
pub(super) const BLOCK: u64 = 1024;

/// The file `sequence`.
#[derive(Debug)]
pub(super) struct Ledger {
    folder: PathBuf,
    ceiling: u64,
}

impl Ledger {
    /// Reads the ceiling. A file that is missing or cannot be understood (it is written whole or not at all) says nothing.
    pub(super) fn open(folder: &Path) -> io::Result<Self> {
        let ceiling = match fs::read_to_string(folder.join("sequence")) {
            Ok(text) => text.trim().parse().unwrap_or_else(|_| {
                tracing::error!(file = %folder.join("sequence").display(), "not a number: ignored");
                0
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => 0,
            Err(error) => return Err(error),
        };
        Ok(Self { folder: folder.to_owned(), ceiling })
    }

    /// The last number given, where the database says that it was `last`; a new database knows nothing.
    ///
    /// A database that is further behind than a ceiling can be is an old copy: it is not believed. (One that is only
    /// a little behind cannot be told from a good one.)
    pub(super) fn last(&self, last: Option<u64>) -> u64 {
        match last {
            Some(last) if self.ceiling <= last.saturating_add(BLOCK + MAX_NUMBERS) => last,
            Some(last) => last.max(self.ceiling - 1),
            None => self.ceiling.saturating_sub(1),
        }
    }

    /// Makes sure that the next numbers up to `last`, at most [`MAX_NUMBERS`], may be given: durable on return.
    pub(super) fn cover(&mut self, last: u64) -> io::Result<()> {
        if last < self.ceiling {
            return Ok(());
        }
        let ceiling = last + BLOCK;
        match self.replace(ceiling) {
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                self.overwrite(ceiling).map_err(|_| error)?;
            }
            done => done?,
        }
        self.ceiling = ceiling;
        Ok(())
    }

    fn replace(&self, ceiling: u64) -> io::Result<()> {
        let fresh = self.folder.join("sequence.new");
        let mut file = File::create(&fresh)?;
        writeln!(file, "{ceiling}")?;
        file.sync_all()?;
        fs::rename(&fresh, self.folder.join("sequence"))?;
        File::open(&self.folder)?.sync_all()
    }

    /// A full disk has no room for another file, but these few bytes have theirs. They lie in one sector, which is written
    /// whole or not at all.
    fn overwrite(&self, ceiling: u64) -> io::Result<()> {
        let mut file = File::options().write(true).open(self.folder.join("sequence"))?;
        writeln!(file, "{ceiling}")?; // never shorter than what was there
        file.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_on_exactly_with_the_database_and_above_all_given_ones_without_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(folder.path()).unwrap();
        let mut highest = 0;
        for round in 0..5 {
            let first = ledger.last(None) + 1; // the database was lost
            assert!(first > highest, "round {round}: {first} was given before");
            for last in first..first + 3000 * u64::from(round == 4) + 30 {
                ledger.cover(last).unwrap();
                highest = last;
                let reopened = Ledger::open(folder.path()).unwrap();
                assert!(reopened.ceiling > last && reopened.last(Some(last)) == last, "{reopened:?} {last}");
                let behind = last.saturating_sub(MAX_NUMBERS); // a crash between ledger and database
                assert_eq!(reopened.last(Some(behind)), behind);
                if last > 10_000 {
                    assert!(reopened.last(Some(last - 10_000)) >= last, "an old copy");
                }
            }
            ledger = Ledger::open(folder.path()).unwrap();
        }
    }

    #[test]
    fn garbage_says_nothing() {
        let folder = tempfile::tempdir().unwrap();
        for bytes in [&b"\xff\xfe"[..], b"", b"x"] {
            fs::write(folder.path().join("sequence"), bytes).unwrap();
            assert_eq!(Ledger::open(folder.path()).unwrap().last(Some(7)), 7);
        }
    }
}
