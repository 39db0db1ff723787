//! The one thread that touches the disk.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sharp_eyes_protocol::report::OutboxHealth;
use sharp_eyes_protocol::topic::Site;
use tokio::sync::watch;

use super::inbox::{Command, Inbox, Lost};
use super::store::{Batch, MAX_BATCH, SCHEMA, Store, StoreError};
use super::{NewAlert, OutboxError, OutboxOptions, Row, Waiting};
use crate::backoff::Backoff;

/// How often limits of age are looked at, where nothing else happens.
const HOUSEKEEPING: Duration = Duration::from_secs(600);

/// How long the lock of an agent that has just ended may outlive it: a child that it was starting holds a copy until
/// its own program runs.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);

/// Alerts of this run whose moment of decision is remembered until they are given out. Older ones are delivered all
/// the same, and only not measured.
const MAX_FRESH: usize = 4096;

/// The thread's whole state.
pub(super) struct Writer {
    options: OutboxOptions,
    site: Site,
    inbox: Arc<Inbox>,
    health: watch::Sender<OutboxHealth>,
    stored: watch::Sender<u64>,
    disk: Disk,
    lock: Option<File>,
    backoff: Backoff,
    /// Acknowledged, not yet deleted: given out no more.
    acknowledged: BTreeSet<Row>,
    /// Refused, not yet written down: given out no more.
    parked: Vec<(Row, String)>,
    /// Given up for want of memory, not yet written down.
    lost: Lost,
    fresh: BTreeMap<u64, Instant>,
    /// Up to when running time is written down.
    counted: Instant,
}

/// Whether the folder can be used.
enum Disk {
    Working(Store),
    /// The store is kept for reading where it was open before: what is stored can still be sent.
    Failing {
        store: Option<Store>,
        then: Then,
        retry_at: Instant,
        why: String,
    },
}

/// What a retry begins with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    /// The disk was full: the same connection goes on.
    Write,
    /// The folder may have been unmounted, replaced or opened read-only: only a new connection sees what is there.
    Open,
}

/// Why the folder cannot be opened.
enum OpenError {
    Fatal(OutboxError),
    Store(StoreError),
}

impl From<StoreError> for OpenError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Writer {
    /// Opens the folder once. What waiting cannot cure is an error; all else is tried again by the thread.
    pub(super) fn open(
        options: OutboxOptions,
        site: Site,
        inbox: Arc<Inbox>,
        health: watch::Sender<OutboxHealth>,
        stored: watch::Sender<u64>,
    ) -> Result<Self, OutboxError> {
        let (min, max) = (Duration::from_millis(200), Duration::from_secs(30));
        let backoff = Backoff::new(min, max, 0.2).expect("0 < 200 ms < 30 s, 0 <= 0.2 < 1");
        let now = Instant::now();
        let mut writer = Self {
            options,
            site,
            inbox,
            health,
            stored,
            disk: Disk::nowhere(),
            lock: None,
            backoff,
            acknowledged: BTreeSet::new(),
            parked: Vec::new(),
            lost: Lost::default(),
            fresh: BTreeMap::new(),
            counted: now,
        };
        match open(&writer.options, &mut writer.lock) {
            Ok(store) => writer.works(store, true),
            Err(OpenError::Fatal(error)) => return Err(error),
            Err(OpenError::Store(error)) => {
                let why = describe(&writer.options.folder, &error);
                writer.fail(None, Then::Open, why);
            }
        }
        writer.report();
        Ok(writer)
    }

    /// Works until the inbox is closed and what it held is stored, or its grace is over.
    pub(super) fn run(mut self) {
        let guard = Farewell { inbox: Arc::clone(&self.inbox), health: self.health.clone() };
        loop {
            let now = Instant::now();
            let retry_at = match &self.disk {
                Disk::Working(_) => None,
                Disk::Failing { retry_at, .. } => Some(*retry_at),
            };
            let until = retry_at.filter(|at| *at > now).unwrap_or(now + HOUSEKEEPING);
            let work = self.inbox.wait(MAX_BATCH, until, retry_at);
            self.lost.alerts += work.lost.alerts;
            self.lost.evidence += work.lost.evidence;
            let mut reads = Vec::new();
            for command in work.commands {
                match command {
                    Command::Acknowledge(row) => {
                        self.acknowledged.insert(row);
                    }
                    Command::Park(row, reason) => self.parked.push((row, reason)),
                    Command::Next { skip, limit, evidence, reply } => {
                        reads.push((skip, limit, evidence, reply));
                    }
                }
            }
            if retry_at.is_none_or(|at| Instant::now() >= at) {
                self.write(&work.alerts);
            }
            for (skip, limit, evidence, reply) in reads {
                let _ = reply.send(self.read(skip, limit, evidence)); // nobody waits any more: fine
            }
            self.report();
            if let Some(close_by) = work.close_by
                && (self.inbox.depth() == 0 || Instant::now() >= close_by)
            {
                break;
            }
        }
        drop(self); // the files are closed and unlocked before anyone is told
        drop(guard);
    }

    /// One transaction with all that is to be written, if anything is.
    fn write(&mut self, alerts: &[NewAlert]) {
        let ran = self.counted.elapsed();
        let something = !alerts.is_empty()
            || !self.acknowledged.is_empty()
            || !self.parked.is_empty()
            || self.lost != Lost::default()
            || ran >= HOUSEKEEPING;
        let mut store = match std::mem::replace(&mut self.disk, Disk::nowhere()) {
            Disk::Working(store) if !something => {
                self.disk = Disk::Working(store);
                return;
            }
            Disk::Working(store) | Disk::Failing { store: Some(store), then: Then::Write, .. } => store,
            Disk::Failing { store: old, .. } => match self.open_store() {
                Ok(store) => store,
                Err(why) => return self.fail(old, Then::Open, why),
            },
        };
        let before = store.sequence();
        let batch = Batch {
            alerts,
            acknowledged: &self.acknowledged,
            parked: &self.parked,
            lost: self.lost,
            ran: ran.as_secs(),
        };
        match store.commit(&self.site, &batch) {
            Ok(()) => {
                self.inbox.stored(alerts.len());
                for (sequence, alert) in (before + 1..).zip(alerts) {
                    self.fresh.insert(sequence, alert.arrived);
                }
                while self.fresh.len() > MAX_FRESH {
                    self.fresh.pop_first();
                }
                self.acknowledged.clear();
                self.parked.clear();
                self.lost = Lost::default();
                self.counted += Duration::from_secs(ran.as_secs());
                self.works(store, !alerts.is_empty());
            }
            Err(error) => self.failed(store, &error),
        }
    }

    /// Opens the database, under the lock that is taken first and kept to the end.
    fn open_store(&mut self) -> Result<Store, String> {
        open(&self.options, &mut self.lock).map_err(|error| match error {
            OpenError::Fatal(error) => error.to_string(),
            OpenError::Store(error) => describe(&self.options.folder, &error),
        })
    }

    fn works(&mut self, store: Store, grown: bool) {
        let recovered = self.health.borrow().failure.is_some();
        if recovered {
            tracing::info!("the outbox in {} can be written again", self.options.folder.display());
        }
        self.backoff.reset();
        let last = store.sequence();
        self.disk = Disk::Working(store);
        self.report();
        // After a failure whoever was told that nothing waits must ask again, though the number is the same.
        self.stored.send_if_modified(|stored| {
            *stored = last;
            grown || recovered
        });
    }

    fn failed(&mut self, store: Store, error: &StoreError) {
        let why = describe(&self.options.folder, error);
        if !error.is_corrupt() {
            let then = if error.is_full() { Then::Write } else { Then::Open };
            return self.fail(Some(store), then, why);
        }
        let file = store.file().to_owned();
        drop(store);
        let why = match move_aside(&file) {
            Ok(()) => why,
            Err(error) => describe(&self.options.folder, &StoreError::Io(error)),
        };
        self.fail(None, Then::Open, why);
    }

    fn fail(&mut self, store: Option<Store>, then: Then, why: String) {
        if self.health.borrow().failure.as_ref() != Some(&why) {
            tracing::error!("{why}");
        }
        let retry_at = Instant::now() + self.backoff.next(fastrand::f64());
        self.disk = Disk::Failing { store, then, retry_at, why };
    }

    fn read(&mut self, skip: Vec<Row>, limit: usize, evidence: bool) -> Vec<Waiting> {
        let (Disk::Working(store) | Disk::Failing { store: Some(store), .. }) = &self.disk else {
            return Vec::new();
        };
        let mut skip: BTreeSet<Row> = skip.into_iter().collect();
        skip.extend(&self.acknowledged);
        skip.extend(self.parked.iter().map(|(row, _)| *row));
        match store.next(&self.site, &skip, limit, evidence) {
            Ok(mut found) => {
                for waiting in &mut found {
                    if let Row::Alert(sequence) = waiting.row {
                        waiting.arrived = self.fresh.remove(&sequence); // the first sending is measured
                    }
                }
                found
            }
            Err(error) => {
                match std::mem::replace(&mut self.disk, Disk::nowhere()) {
                    Disk::Working(store) | Disk::Failing { store: Some(store), .. } => {
                        self.failed(store, &error);
                    }
                    failing => self.disk = failing,
                }
                Vec::new()
            }
        }
    }

    /// Publishes the totals where they changed.
    fn report(&self) {
        let (store, failure) = match &self.disk {
            Disk::Working(store) => (Some(store), None),
            Disk::Failing { store, why, .. } => (store.as_ref(), Some(why.clone())),
        };
        let mut health = store.map(|store| store.health().clone()).unwrap_or_default();
        health.alerts += self.inbox.depth() as u64; // they wait too, though not yet on disk
        health.evicted_alerts += self.lost.alerts;
        health.evicted_evidence += self.lost.evidence;
        health.failure = failure;
        self.health.send_if_modified(|known| std::mem::replace(known, health.clone()) != health);
    }
}

impl Disk {
    fn nowhere() -> Self {
        Self::Failing {
            store: None,
            then: Then::Open,
            retry_at: Instant::now(),
            why: "opening the outbox".into(),
        }
    }
}

/// Tells the world when the thread ends, by a panic too.
struct Farewell {
    inbox: Arc<Inbox>,
    health: watch::Sender<OutboxHealth>,
}

impl Drop for Farewell {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let failure = "the outbox thread panicked: restart the agent".to_owned();
            self.health.send_modify(|health| health.failure = Some(failure));
        }
        self.inbox.closed();
    }
}

fn describe(folder: &Path, error: &StoreError) -> String {
    format!("cannot write the outbox in {}: {error}: {}", folder.display(), error.advice())
}

/// Makes, locks and opens a folder. A damaged database is moved aside and made anew.
fn open(options: &OutboxOptions, held: &mut Option<File>) -> Result<Store, OpenError> {
    let OutboxOptions { folder, max_bytes, max_age } = options;
    fs::create_dir_all(folder).map_err(StoreError::Io)?;
    if held.is_none() {
        *held = Some(lock(folder)?);
    }
    let file = folder.join("outbox.db");
    let store = match Store::open(folder, *max_bytes, *max_age) {
        Err(error) if error.is_corrupt() => {
            move_aside(&file).map_err(StoreError::Io)?;
            Store::open(folder, *max_bytes, *max_age)
        }
        result => result,
    };
    store.map_err(|error| match error {
        StoreError::Newer(found) => OpenError::Fatal(OutboxError::Newer { file, found, known: SCHEMA }),
        error => OpenError::Store(error),
    })
}

fn lock(folder: &Path) -> Result<File, OpenError> {
    let path = folder.join("lock");
    // Never deleted: a second file of that name would be a second lock. On a read-only disk an old one will do.
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let file = file.or_else(|error| File::open(&path).map_err(|_| error)).map_err(StoreError::Io)?;
    let give_up = Instant::now() + LOCK_PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < give_up => {
                std::thread::park_timeout(Duration::from_millis(20));
            }
            Err(TryLockError::WouldBlock) => {
                return Err(OpenError::Fatal(OutboxError::Locked { folder: folder.to_owned() }));
            }
            Err(TryLockError::Error(error)) => return Err(OpenError::Store(StoreError::Io(error))),
        }
    }
}

/// Renames a damaged database with its log to `outbox.corrupt-<n>`. It is never deleted: what it holds was not
/// delivered, and somebody may be able to read it.
fn move_aside(file: &Path) -> std::io::Result<()> {
    let with = |end: &str| PathBuf::from(format!("{}{end}", file.display()));
    let target = (1_u32..)
        .map(|n| file.with_file_name(format!("outbox.corrupt-{n}")))
        .find(|target| !target.exists())
        .expect("there are more numbers than files");
    // The log first: a crash in between leaves a database without it, which is found damaged or incomplete, not
    // a new database with an old log.
    for end in ["-wal", "-shm", ""] {
        let to = PathBuf::from(format!("{}{end}", target.display()));
        match fs::rename(with(end), to) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    tracing::error!(
        "{} is damaged: moved to {}, alerts in it may not have been delivered; a new one is made and counting goes \
         on above all numbers given",
        file.display(),
        target.display()
    );
    Ok(())
}
