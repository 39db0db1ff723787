//! The database: SQLite in WAL mode. Nothing else names it.
//!
//! # Layout
//!
//! - [`Store`] opens it, does one batch a transaction, and says what is to be sent next;
//! - `schema` makes the tables, and those of an older agent into these;
//! - `work` is what one transaction may do to messages and pictures: take in, write off, park, give up;
//! - `climb` keeps the open alerts: deadlines, and what follows when they are over;
//! - `command` does what consoles ask for, once, and keeps the audit log;
//! - `salvage` reads what can be read of a damaged database.
//!
//! A transaction that takes something in is durable on return (`synchronous=FULL`). One that only writes off what
//! a broker has acknowledged need not be: lost in a power cut, it costs a second delivery, and flash lives longer.

mod climb;
mod command;
mod salvage;
mod schema;
mod work;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, ErrorCode, OptionalExtension};
use sharp_eyes_protocol::alert::ClockTrust;
use sharp_eyes_protocol::command::Answer;
use sharp_eyes_protocol::level::Severity;
use sharp_eyes_protocol::report::OutboxHealth;
use sharp_eyes_protocol::topic::Site;
use uuid::Uuid;

use super::inbox::Lost;
use super::ledger::Ledger;
use super::{AlertChange, Asked, NewAlert, NewEvidence, OutboxOptions, Row, Waiting};
pub(super) use command::read_audit;
pub use command::{AuditEntry, AuditError};
pub(super) use schema::SCHEMA;
use work::Work;

/// Size of the file that keeps space for a full disk: the log, and what deleting takes.
const RESERVE: usize = 1 << 20;

/// Milliseconds until it is made again.
const RESERVE_RETRY: u64 = 600_000;

/// Turns in the order of sending, as the table `waiting` has them.
const TURNS: i64 = 10;
const TURN_OF_THUMBNAILS: i64 = 3;
const TURN_OF_REQUESTED: i64 = 6;
const TURN_OF_PICTURES: i64 = 7;

/// What one transaction does.
pub(super) struct Batch<'a> {
    pub(super) alerts: &'a [NewAlert],
    pub(super) changes: &'a [AlertChange],
    pub(super) evidence: &'a [NewEvidence],
    pub(super) acknowledged: &'a BTreeSet<(usize, Row)>,
    pub(super) parked: &'a [(usize, Row, String)],
    pub(super) asked: &'a [Asked],
    pub(super) lost: Lost,
    /// The outbox's own time: see [`Store::lived`].
    pub(super) lived: u64,
    pub(super) wall: Timestamp,
    pub(super) trust: ClockTrust,
}

/// What it did.
#[derive(Debug)]
pub(super) struct Committed {
    /// Sequence number of the first alert of the batch; those of the others follow.
    pub(super) first: u64,
    /// In the order of the questions.
    pub(super) answers: Vec<Answer>,
    /// Something new waits.
    pub(super) grown: bool,
    /// It cost an `fsync`.
    pub(super) durable: bool,
}

/// What becomes of the pictures of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pictures {
    Stored,
    LeftOut,
}

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreError {
    #[error("schema {0} is newer than this agent's")]
    Newer(i64),
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl StoreError {
    fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Sqlite(error) => error.sqlite_error_code(),
            _ => None,
        }
    }

    /// The file is damaged: it can only be moved aside.
    pub(super) fn is_corrupt(&self) -> bool {
        matches!(self.code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
            || matches!(self, Self::Sqlite(rusqlite::Error::QueryReturnedNoRows)) // `meta` lost its row
    }

    pub(super) fn is_full(&self) -> bool {
        matches!(self.code(), Some(ErrorCode::DiskFull))
            || matches!(self, Self::Io(error) if error.kind() == io::ErrorKind::StorageFull)
    }

    /// What somebody at the box can do about it.
    pub(super) fn advice(&self) -> &'static str {
        let kind = match self {
            Self::Io(error) => Some(error.kind()),
            _ => None,
        };
        match (self.code(), kind) {
            (Some(ErrorCode::DiskFull), _) | (_, Some(io::ErrorKind::StorageFull)) => {
                "free some space on its disk"
            }
            (Some(ErrorCode::ReadOnly), _) | (_, Some(io::ErrorKind::ReadOnlyFilesystem)) => {
                "mount it writable, or choose another state folder"
            }
            (Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied), _) | (None, Some(_)) => {
                "check that the folder exists, is mounted writable, and that the agent's user may write there"
            }
            _ => "check the disk (dmesg tells more)",
        }
    }
}

/// An open database. Totals are kept beside it, so that health costs no query.
#[derive(Debug)]
pub(super) struct Store {
    db: Connection,
    file: PathBuf,
    ledger: Ledger,
    meta: Meta,
    options: OutboxOptions,
    /// Ids of [`OutboxOptions::routes`].
    routes: Vec<i64>,
    /// The clock was trusted once since the store was opened.
    placed: bool,
    /// When the next alert climbs.
    next_climb: Option<u64>,
    /// No picture is taken in above so many bytes: `max_bytes`, or less after the disk was full.
    pictures_up_to: u64,
    /// A file that is given up when the disk is full.
    reserve: PathBuf,
    /// When to make it, in [`Meta::lived`].
    reserve_due: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Meta {
    sequence: u64,
    picture: u64,
    lived: u64,
    /// A trusted wall clock's milliseconds since 1970, and what `lived` was then.
    wall: Option<(i64, i64)>,
    next_repeat: u64,
    totals: OutboxHealth,
}

impl Store {
    /// Opens the database of a folder, or makes it.
    pub(super) fn open(options: &OutboxOptions) -> Result<Self, StoreError> {
        let folder = &options.folder;
        let file = folder.join("outbox.db");
        let ledger = Ledger::open(folder)?;
        let mut db = Connection::open(&file)?;
        db.busy_timeout(Duration::from_secs(5))?; // an operator's sqlite3 shell may be reading
        // The log goes into the database at 1 MB, so that the two together need little more than the limit.
        db.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 256; PRAGMA cache_size = -2000;",
        )?;
        db.set_prepared_statement_cache_capacity(64);
        let routes = schema::prepare(&mut db, ledger.last(None), &options.routes)?;
        let mut meta = Meta::read(&db)?;
        meta.sequence = ledger.last(Some(meta.sequence));
        meta.totals.sequence = meta.sequence;
        let mut store = Self {
            db,
            file,
            ledger,
            meta,
            options: options.clone(),
            routes,
            placed: false,
            next_climb: None,
            pictures_up_to: options.max_bytes,
            reserve: folder.join("reserve"),
            reserve_due: 0,
        };
        store.next_climb = store.read_next_climb()?;
        Ok(store)
    }

    /// Where the database is.
    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    /// What waits and what is open.
    pub(super) fn health(&self) -> &OutboxHealth {
        &self.meta.totals
    }

    /// Milliseconds that this outbox has lived, as of the last transaction: while an agent ran on it by the monotonic
    /// clock, while none did by the wall clock, where that was trusted before and afterwards. Ages and deadlines are
    /// measured in it, so that a clock in 1970 or 2099 moves none of them.
    pub(super) fn lived(&self) -> u64 {
        self.meta.lived
    }

    /// When the next alert climbs, in [`Store::lived`].
    pub(super) fn next_climb(&self) -> Option<u64> {
        self.next_climb
    }

    /// Does a batch, all of it or nothing. The alerts get the numbers that follow the last one given, in their order.
    /// On a full disk older pictures are given up, and where that does not help, those of the batch.
    pub(super) fn commit(&mut self, site: &Site, batch: &Batch<'_>) -> Result<Committed, StoreError> {
        let (placed, asleep) = self.asleep(batch);
        let lived = batch.lived + asleep;
        let climbs = self.next_climb.is_some_and(|at| at <= lived);
        let expires = self.expires(lived)?;
        let grows = !(batch.alerts.is_empty() && batch.changes.is_empty() && batch.evidence.is_empty())
            || climbs
            || expires;
        let durable = grows || !batch.asked.is_empty() || !batch.parked.is_empty();
        // Each alert, change, climb and command may take a number; a full register closes one for each alert.
        let numbers = 2 * batch.alerts.len()
            + batch.changes.len()
            + batch.asked.len()
            + if climbs { climb::MAX_CLIMBS } else { 0 }
            + if expires { climb::MAX_EXPIRED } else { 0 };
        if durable && numbers > 0 {
            self.ledger.cover(self.meta.sequence + numbers as u64)?;
        }
        self.db.execute_batch(if durable {
            "PRAGMA synchronous = FULL"
        } else {
            "PRAGMA synchronous = NORMAL"
        })?;
        let full = |result: &Result<_, StoreError>| matches!(result, Err(error) if error.is_full());
        let mut result = self.attempt(site, batch, lived, Pictures::Stored);
        if full(&result) {
            // The log may be what fills the disk, and deleting takes space before it gives any. The reserve lets the log be
            // emptied and pictures be deleted; their pages are used again, and no picture more than fits into them is taken
            // until the reserve can be made again. Where this fails, the next step tells.
            let _ = fs::remove_file(&self.reserve);
            self.reserve_due = lived + RESERVE_RETRY;
            let _ = self.db.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)");
            let size = |evidence: &NewEvidence| evidence.picture.len() + evidence.thumbnail.len() + 4096;
            let pictures: usize = batch.evidence.iter().map(size).sum();
            let bytes = (pictures + 4096 * batch.alerts.len() + 65_536) as u64;
            self.pictures_up_to = self.meta.totals.bytes;
            if self.give_up_pictures(bytes).is_ok() {
                result = self.attempt(site, batch, lived, Pictures::Stored);
            }
        }
        if full(&result) && !batch.evidence.is_empty() {
            result = self.attempt(site, batch, lived, Pictures::LeftOut);
        }
        let (first, answers) = result?;
        self.placed |= placed;
        if self.meta.lived >= self.reserve_due {
            self.set_aside();
        }
        self.next_climb = self.read_next_climb()?;
        // What somebody asked for waits again.
        let grown = grows || !answers.is_empty();
        Ok(Committed { first, answers, grown, durable })
    }

    /// Whether the clock is trusted now, and for how long the outbox was asleep before it was opened, where that is known
    /// for the first time now.
    fn asleep(&self, batch: &Batch<'_>) -> (bool, u64) {
        if batch.trust != ClockTrust::Synced {
            return (false, 0);
        }
        let asleep = match self.meta.wall {
            Some((wall, lived)) if !self.placed => {
                let passed = batch.wall.as_millisecond().saturating_sub(wall);
                let lived = (batch.lived as i64).saturating_sub(lived);
                passed.saturating_sub(lived).clamp(0, self.options.max_age.as_millis() as i64) as u64
            }
            _ => 0,
        };
        (true, asleep)
    }

    /// Makes the reserve where it is missing. Without room for it the outbox works all the same.
    fn set_aside(&mut self) {
        self.reserve_due = u64::MAX;
        self.pictures_up_to = self.options.max_bytes;
        let there = fs::metadata(&self.reserve).is_ok_and(|file| file.len() == RESERVE as u64);
        if !there && fs::write(&self.reserve, vec![0; RESERVE]).is_err() {
            let _ = fs::remove_file(&self.reserve);
            self.reserve_due = self.meta.lived + RESERVE_RETRY;
            self.pictures_up_to = self.meta.totals.bytes;
        }
    }

    fn attempt(
        &mut self,
        site: &Site,
        batch: &Batch<'_>,
        lived: u64,
        pictures: Pictures,
    ) -> Result<(u64, Vec<Answer>), StoreError> {
        let tx = self.db.unchecked_transaction()?; // of one connection: there is no other of ours inside it
        let mut work = self.work(&tx);
        work.meta.lived = lived;
        if batch.trust == ClockTrust::Synced {
            work.meta.wall = Some((batch.wall.as_millisecond(), lived as i64));
        }
        work.meta.totals.evicted_alerts += batch.lost.alerts;
        work.meta.totals.evicted_evidence += batch.lost.evidence;
        for (route, row) in batch.acknowledged {
            work.acknowledge(*route, *row)?;
        }
        for (route, row, reason) in batch.parked {
            work.park(*route, *row, reason)?;
        }
        work.expire()?;
        let first = work.meta.sequence + 1;
        for alert in batch.alerts {
            work.raise(site, alert)?;
        }
        for AlertChange { id, change } in batch.changes {
            work.follow(*id, change)?;
        }
        for evidence in batch.evidence {
            work.attach(evidence, pictures)?;
        }
        work.climb()?;
        let mut answers = Vec::with_capacity(batch.asked.len());
        for asked in batch.asked {
            answers.push(work.execute(asked, batch.wall, batch.trust)?);
        }
        work.make_room(0)?; // the limits may be lower than at the last start
        let mut meta = work.meta;
        meta.totals.sequence = meta.sequence;
        meta.write(&tx)?;
        tx.commit()?;
        self.meta = meta;
        Ok((first, answers))
    }

    fn work<'a>(&'a self, tx: &'a rusqlite::Transaction<'a>) -> Work<'a> {
        Work {
            tx,
            meta: self.meta.clone(),
            options: &self.options,
            routes: &self.routes,
            pictures_up_to: self.pictures_up_to,
        }
    }

    /// Makes room on a full disk: pages that are free within the database's own files.
    fn give_up_pictures(&mut self, bytes: u64) -> Result<(), StoreError> {
        let tx = self.db.unchecked_transaction()?; // of one connection: there is no other of ours inside it
        let mut work = self.work(&tx);
        let goal = work.meta.totals.bytes.saturating_sub(bytes);
        while work.meta.totals.bytes > goal && (work.forget_delivered()? || work.evict_evidence(None)?) {}
        let meta = work.meta;
        meta.write(&tx)?;
        tx.commit()?;
        self.meta = meta;
        Ok(())
    }

    /// See [`super::Outbox::next`].
    pub(super) fn next(
        &mut self,
        site: &Site,
        route: usize,
        skip: &BTreeSet<Row>,
        limit: usize,
        evidence: bool,
    ) -> Result<Vec<Waiting>, StoreError> {
        let Some(id) = self.routes.get(route).copied() else { return Ok(Vec::new()) };
        let (mut found, mut damaged) = (Vec::new(), Vec::new());
        {
            let mut turn_of = self.db.prepare_cached(
                "SELECT number FROM waiting WHERE route = ? AND turn = ? ORDER BY number LIMIT ?",
            )?;
            for turn in 0..TURNS {
                let is_evidence = turn >= TURN_OF_THUMBNAILS;
                if found.len() >= limit || is_evidence && !(evidence && found.is_empty()) {
                    break;
                }
                let wanted = if is_evidence { 1 } else { limit };
                let reach = (wanted + skip.len()).min(i64::MAX as usize) as i64;
                let mut rows = turn_of.query([id, turn, reach])?;
                while let Some(row) = rows.next()? {
                    let number = row.get::<_, i64>(0)?;
                    let row =
                        if is_evidence { Row::Evidence(number as u64) } else { Row::Alert(number as u64) };
                    if found.len() >= wanted || skip.contains(&row) {
                        continue;
                    }
                    match self.load(site, row)? {
                        Some((topic, payload)) => {
                            found.push(Waiting { row, topic, payload, arrived: None });
                        }
                        None => damaged.push(row),
                    }
                }
            }
        }
        if !damaged.is_empty() {
            self.give_up(&damaged)?;
        }
        Ok(found)
    }

    /// Topic and payload of a row, if it is what was once written.
    fn load(&self, site: &Site, row: Row) -> Result<Option<(String, Vec<u8>)>, rusqlite::Error> {
        let (sql, number) = match row {
            Row::Alert(number) => ("SELECT level, json, crc FROM message WHERE sequence = ?", number),
            Row::Evidence(number) => {
                ("SELECT alert, jpeg, crc, small FROM evidence WHERE number = ?", number)
            }
        };
        let mut statement = self.db.prepare_cached(sql)?;
        let read = |found: &rusqlite::Row<'_>| {
            let name: String = found.get(0)?;
            let payload = found.get_ref(1)?.as_bytes().map_err(conversion)?.to_vec();
            let topic = match row {
                Row::Alert(_) => format!("{site}/alert/{name}"),
                Row::Evidence(_) => {
                    let id = name.parse().unwrap_or(Uuid::nil());
                    if found.get(3)? { site.thumbnail(id) } else { site.evidence(id) }
                }
            };
            Ok((found.get::<_, i64>(2)? == checksum(&payload)).then_some((topic, payload)))
        };
        Ok(statement.query_row([number as i64], read).optional()?.flatten())
    }

    /// Rows that the disk has changed: nobody could make anything of them.
    fn give_up(&mut self, damaged: &[Row]) -> Result<(), StoreError> {
        tracing::error!(?damaged, "the disk has changed what was stored: given up, and counted as evicted");
        let tx = self.db.unchecked_transaction()?; // of one connection: there is no other of ours inside it
        let mut work = self.work(&tx);
        for row in damaged {
            work.evict(*row)?;
        }
        let meta = work.meta;
        meta.write(&tx)?;
        tx.commit()?;
        self.meta = meta;
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn connection(&self) -> &Connection {
        &self.db
    }
}

fn checksum(bytes: &[u8]) -> i64 {
    i64::from(crc32fast::hash(bytes))
}

fn rank(severity: Severity) -> i64 {
    match severity {
        Severity::Minor => 0,
        Severity::Major => 1,
        Severity::Critical => 2,
    }
}

fn conversion(error: rusqlite::types::FromSqlError) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(error))
}
