//! The database: SQLite in WAL mode. Nothing else names it.
//!
//! A transaction that takes in an alert or parks one is durable on return (`synchronous=FULL`). One that only deletes what
//! the broker has acknowledged need not be: lost in a power cut, it costs a second delivery, and flash lives longer.

mod work;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, Transaction, params};
use sharp_eyes_protocol::level::Severity;
use sharp_eyes_protocol::report::OutboxHealth;
use sharp_eyes_protocol::topic::Site;
use uuid::Uuid;

use super::inbox::Lost;
use super::ledger::Ledger;
use super::{NewAlert, Row, Waiting};
use work::Work;

/// Alerts stored in one transaction at most: bounds what one commit holds in memory and how long it takes.
pub(super) const MAX_BATCH: usize = 64;

/// Size of the file that keeps space for a full disk: the log, and what deleting takes.
const RESERVE: usize = 1 << 20;

/// Seconds until it is made again.
const RESERVE_RETRY: u64 = 600;

/// `PRAGMA user_version`.
pub(super) const SCHEMA: i64 = 1;

const CREATE: &str = "
    CREATE TABLE meta (
        only INTEGER PRIMARY KEY CHECK (only = 1),
        sequence INTEGER NOT NULL,              -- the last one given
        ran INTEGER NOT NULL DEFAULT 0,         -- seconds that agents have run on this outbox
        evicted_evidence INTEGER NOT NULL DEFAULT 0,
        evicted_alerts INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE TABLE alert (
        sequence INTEGER PRIMARY KEY,
        rank INTEGER NOT NULL,                  -- severity, mildest 0
        level TEXT NOT NULL,                    -- who is called
        ran INTEGER NOT NULL,                   -- meta.ran when it came
        json TEXT NOT NULL,
        parked TEXT                             -- why the broker refused it
    ) STRICT;
    CREATE TABLE evidence (
        sequence INTEGER PRIMARY KEY,           -- of its alert
        rank INTEGER NOT NULL,
        alert TEXT NOT NULL,
        ran INTEGER NOT NULL,
        parked TEXT,
        jpeg BLOB NOT NULL                      -- last: the columns before it are read without it
    ) STRICT;
    -- The rowid ends every index: these are ordered by rank, then age.
    CREATE INDEX alert_waiting ON alert (rank) WHERE parked IS NULL;
    CREATE INDEX alert_parked ON alert (rank) WHERE parked IS NOT NULL;
    CREATE INDEX evidence_waiting ON evidence (rank) WHERE parked IS NULL;
    CREATE INDEX evidence_parked ON evidence (rank) WHERE parked IS NOT NULL;
";

/// What one transaction does.
#[derive(Debug)]
pub(super) struct Batch<'a> {
    pub(super) alerts: &'a [NewAlert],
    pub(super) acknowledged: &'a BTreeSet<Row>,
    pub(super) parked: &'a [(Row, String)],
    pub(super) lost: Lost,
    /// Seconds that the agent ran since the last transaction.
    pub(super) ran: u64,
}

/// What becomes of the pictures of new alerts.
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
    }

    pub(super) fn is_full(&self) -> bool {
        matches!(self.code(), Some(ErrorCode::DiskFull))
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
                "check that the folder exists and that the agent's user may write there"
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
    max_bytes: u64,
    max_age: Duration,
    /// No picture is taken in above so many bytes: `max_bytes`, or less after the disk was full.
    pictures_up_to: u64,
    /// A file that is given up when the disk is full.
    reserve: PathBuf,
    /// When to make it, in [`Meta::ran`].
    reserve_due: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Meta {
    sequence: u64,
    /// Seconds that agents have run on this outbox.
    ran: u64,
    waiting: OutboxHealth,
}

impl Store {
    /// Opens the database of a folder, or makes it.
    pub(super) fn open(folder: &Path, max_bytes: u64, max_age: Duration) -> Result<Self, StoreError> {
        let file = folder.join("outbox.db");
        let ledger = Ledger::open(folder)?;
        let mut db = Connection::open(&file)?;
        db.busy_timeout(Duration::from_secs(5))?; // an operator's sqlite3 shell may be reading
        let version: i64 = db.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        if version > SCHEMA {
            return Err(StoreError::Newer(version));
        }
        // The log goes into the database at 1 MB, so that the two together need little more than the limit.
        db.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 256; PRAGMA cache_size = -2000;",
        )?;
        if version == 0 {
            let tx = db.transaction()?;
            tx.execute_batch(CREATE)?;
            tx.execute("INSERT INTO meta (only, sequence) VALUES (1, ?)", [ledger.last(None) as i64])?;
            tx.pragma_update(None, "user_version", SCHEMA)?;
            tx.commit()?;
        }
        let mut meta = Meta::read(&db)?;
        meta.sequence = ledger.last(Some(meta.sequence));
        let reserve = folder.join("reserve");
        let pictures_up_to = max_bytes;
        Ok(Self { db, file, ledger, meta, max_bytes, max_age, pictures_up_to, reserve, reserve_due: 0 })
    }

    /// Where the database is.
    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    /// The last sequence number given.
    pub(super) fn sequence(&self) -> u64 {
        self.meta.sequence
    }

    /// What waits.
    pub(super) fn health(&self) -> &OutboxHealth {
        &self.meta.waiting
    }

    /// Does a batch, all of it or nothing. The alerts get the numbers that follow [`Store::sequence`], in their order.
    /// On a full disk older pictures are given up, and where that does not help, those of the batch.
    pub(super) fn commit(&mut self, site: &Site, batch: &Batch<'_>) -> Result<(), StoreError> {
        let durable = !batch.alerts.is_empty() || !batch.parked.is_empty();
        if !batch.alerts.is_empty() {
            self.ledger.cover(self.meta.sequence + batch.alerts.len() as u64)?;
        }
        self.db.execute_batch(if durable {
            "PRAGMA synchronous = FULL"
        } else {
            "PRAGMA synchronous = NORMAL"
        })?;
        let full = |result: &Result<(), StoreError>| matches!(result, Err(error) if error.is_full());
        let mut result = self.attempt(site, batch, Pictures::Stored);
        if full(&result) {
            // The log may be what fills the disk, and deleting takes space before it gives any. The reserve lets the log be
            // emptied and pictures be deleted; their pages are used again, and no picture more than fits into them is taken
            // until the reserve can be made again. Where this fails, the next step tells.
            let _ = fs::remove_file(&self.reserve);
            self.reserve_due = self.meta.ran + RESERVE_RETRY;
            let _ = self.db.execute_batch("PRAGMA wal_checkpoint(RESTART)");
            let size =
                |alert: &NewAlert| alert.picture.as_ref().map_or(1024, |jpeg| jpeg.len() as u64 + 4096);
            let bytes = batch.alerts.iter().map(size).sum::<u64>() + 65_536;
            self.pictures_up_to = self.meta.waiting.bytes;
            if self.give_up_pictures(bytes).is_ok() {
                result = self.attempt(site, batch, Pictures::Stored);
            }
        }
        if full(&result) && batch.alerts.iter().any(|alert| alert.picture.is_some()) {
            result = self.attempt(site, batch, Pictures::LeftOut);
        }
        if result.is_ok() && self.meta.ran >= self.reserve_due {
            self.set_aside();
        }
        result
    }

    /// Makes the reserve where it is missing. Without room for it the outbox works all the same.
    fn set_aside(&mut self) {
        self.reserve_due = u64::MAX;
        self.pictures_up_to = self.max_bytes;
        let there = fs::metadata(&self.reserve).is_ok_and(|file| file.len() == RESERVE as u64);
        if !there && fs::write(&self.reserve, vec![0; RESERVE]).is_err() {
            let _ = fs::remove_file(&self.reserve);
            self.reserve_due = self.meta.ran + RESERVE_RETRY;
            self.pictures_up_to = self.meta.waiting.bytes;
        }
    }

    fn attempt(&mut self, site: &Site, batch: &Batch<'_>, pictures: Pictures) -> Result<(), StoreError> {
        let tx = self.db.unchecked_transaction()?; // of one connection: there is no other of ours inside it
        let mut work = self.work(&tx);
        work.meta.ran += batch.ran;
        work.meta.waiting.evicted_alerts += batch.lost.alerts;
        work.meta.waiting.evicted_evidence += batch.lost.evidence;
        for row in batch.acknowledged {
            work.delete(*row)?;
        }
        for (row, reason) in batch.parked {
            work.park(*row, reason)?;
        }
        work.expire(self.max_age)?;
        for alert in batch.alerts {
            work.insert(site, alert, pictures)?;
        }
        work.make_room(0, None)?; // the limit may be lower than at the last start
        let meta = work.finish()?;
        tx.commit()?;
        self.meta = meta;
        Ok(())
    }

    fn work<'a>(&self, tx: &'a Transaction<'a>) -> Work<'a> {
        let Self { max_bytes, pictures_up_to, .. } = *self;
        Work { tx, meta: self.meta.clone(), max_bytes, pictures_up_to }
    }

    /// Makes room on a full disk: pages that are free within the database's own files.
    fn give_up_pictures(&mut self, bytes: u64) -> Result<(), StoreError> {
        let tx = self.db.unchecked_transaction()?; // of one connection: there is no other of ours inside it
        let mut work = self.work(&tx);
        let goal = work.meta.waiting.bytes.saturating_sub(bytes);
        while work.meta.waiting.bytes > goal && work.evict_evidence(None)? {}
        let meta = work.finish()?;
        tx.commit()?;
        self.meta = meta;
        Ok(())
    }

    /// See [`super::Outbox::next`].
    pub(super) fn next(
        &self,
        site: &Site,
        skip: &BTreeSet<Row>,
        limit: usize,
        evidence: bool,
    ) -> Result<Vec<Waiting>, StoreError> {
        let mut found = Vec::new();
        let mut alerts = self.db.prepare_cached(
            "SELECT sequence, level, json FROM alert WHERE parked IS NULL AND rank = ? ORDER BY sequence LIMIT ?",
        )?;
        for rank in ranks_from_the_worst() {
            let reach = (limit + skip.len()).min(i64::MAX as usize) as i64;
            let mut rows = alerts.query(params![rank, reach])?;
            while let Some(row) = rows.next()? {
                let sequence = row.get::<_, i64>(0)? as u64;
                if found.len() < limit && !skip.contains(&Row::Alert(sequence)) {
                    let topic = format!("{site}/alert/{}", row.get_ref(1)?.as_str().map_err(conversion)?);
                    let payload = row.get_ref(2)?.as_bytes().map_err(conversion)?.to_vec();
                    found.push(Waiting { row: Row::Alert(sequence), topic, payload, arrived: None });
                }
            }
        }
        if !found.is_empty() || !evidence {
            return Ok(found);
        }
        let mut pictures = self.db.prepare_cached(
            "SELECT sequence FROM evidence WHERE parked IS NULL AND rank = ? ORDER BY sequence LIMIT ?",
        )?;
        for rank in ranks_from_the_worst() {
            let mut rows = pictures.query(params![rank, skip.len() as i64 + 1])?;
            while let Some(row) = rows.next()? {
                let sequence = row.get::<_, i64>(0)?;
                let row = Row::Evidence(sequence as u64);
                if !skip.contains(&row) {
                    let sql = "SELECT alert, jpeg FROM evidence WHERE sequence = ?";
                    let read = |row: &rusqlite::Row<'_>| Ok((row.get::<_, String>(0)?, row.get(1)?));
                    let (alert, payload) = self.db.query_row(sql, [sequence], read)?;
                    let topic = site.evidence(alert.parse().unwrap_or(Uuid::nil()));
                    return Ok(vec![Waiting { row, topic, payload, arrived: None }]);
                }
            }
        }
        Ok(Vec::new())
    }

    #[cfg(test)]
    pub(super) fn connection(&self) -> &Connection {
        &self.db
    }
}

impl Meta {
    /// Reads every page of both tables but the pictures' own: a damaged one is found now and not in the night.
    fn read(db: &Connection) -> Result<Self, rusqlite::Error> {
        let mut meta = db.query_row(
            "SELECT sequence, ran, evicted_evidence, evicted_alerts FROM meta WHERE only = 1",
            [],
            |row| {
                let number = |column| row.get::<_, i64>(column).map(|n| n as u64);
                let waiting = OutboxHealth {
                    evicted_evidence: number(2)?,
                    evicted_alerts: number(3)?,
                    ..OutboxHealth::default()
                };
                Ok(Self { sequence: number(0)?, ran: number(1)?, waiting })
            },
        )?;
        for (sql, alerts) in [
            (
                "SELECT count(*), count(parked), coalesce(sum(length(json)), 0), coalesce(max(sequence), 0) FROM alert",
                true,
            ),
            ("SELECT count(*), count(parked), coalesce(sum(length(jpeg)), 0), 0 FROM evidence", false),
        ] {
            let [count, parked, bytes, last] = db.query_row(sql, [], |row| {
                let number = |column| row.get::<_, i64>(column).map(|n| n as u64);
                Ok([number(0)?, number(1)?, number(2)?, number(3)?])
            })?;
            let waiting = &mut meta.waiting;
            waiting.bytes += bytes;
            if alerts {
                (waiting.alerts, waiting.parked) = (count - parked, parked);
                meta.sequence = meta.sequence.max(last);
            } else {
                waiting.evidence = count;
            }
        }
        Ok(meta)
    }
}

fn rank(severity: Severity) -> i64 {
    match severity {
        Severity::Minor => 0,
        Severity::Major => 1,
        Severity::Critical => 2,
    }
}

fn ranks_from_the_worst() -> impl Iterator<Item = i64> {
    Severity::ALL.into_iter().rev().map(rank)
}

fn conversion(error: rusqlite::types::FromSqlError) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(error))
}
