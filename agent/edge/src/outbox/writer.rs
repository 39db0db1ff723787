//! The one thread that touches the disk.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sharp_eyes_protocol::command::Answer;
use sharp_eyes_protocol::report::OutboxHealth;
use sharp_eyes_protocol::topic::Site;
use tokio::sync::{oneshot, watch};

use super::folder::{self, OpenError};
use super::inbox::{Command, Inbox, Lost, Takes};
use super::ledger::MAX_BATCH;
use super::pace::Pace;
use super::store::{Batch, Store, StoreError};
use super::{
    AlertChange, Asked, NewAlert, NewEvidence, OutboxError, OutboxOptions, Row, Waiting, WallClock,
    no_storage,
};
use crate::backoff::Backoff;

/// How often limits of age are looked at and running time is written down, where nothing else happens.
const HOUSEKEEPING: Duration = Duration::from_secs(600);

/// The same while an alert is open: a crash puts its deadline off by no more.
const OPEN_HOUSEKEEPING: Duration = Duration::from_secs(60);

/// Acknowledgements wait so long for a transaction of their own, which needs no `fsync`, or for so many of them.
const ACKNOWLEDGED: (Duration, usize) = (Duration::from_secs(1), 256);

/// Alerts of which it is remembered when their frame arrived. The oldest are forgotten: they are sent unmeasured.
const MAX_FRESH: usize = 1024;

/// What the thread shows of itself.
pub(super) struct Shown {
    pub(super) health: watch::Sender<OutboxHealth>,
    pub(super) stored: watch::Sender<u64>,
}

/// The thread's state.
pub(super) struct Writer {
    options: OutboxOptions,
    site: Site,
    clock: WallClock,
    inbox: Arc<Inbox>,
    shown: Shown,
    disk: Disk,
    lock: Option<File>,
    backoff: Backoff,
    pace: Pace,
    /// Acknowledged, not yet written down: given out no more.
    acknowledged: BTreeSet<(usize, Row)>,
    /// Since when there are any.
    acknowledged_at: Option<Instant>,
    /// Refused, not yet written down: given out no more.
    parked: Vec<(usize, Row, String)>,
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

impl Writer {
    /// Opens the folder once. What waiting cannot cure is an error; all else is tried again by the thread.
    pub(super) fn open(
        options: OutboxOptions,
        site: Site,
        clock: WallClock,
        inbox: Arc<Inbox>,
        shown: Shown,
    ) -> Result<Self, OutboxError> {
        let (min, max) = (Duration::from_millis(200), Duration::from_secs(30));
        let backoff = Backoff::new(min, max, 0.2).expect("0 < 200 ms < 30 s, 0 <= 0.2 < 1");
        let now = Instant::now();
        let mut writer = Self {
            options,
            site,
            clock,
            inbox,
            shown,
            disk: Disk::nowhere(),
            lock: None,
            backoff,
            pace: Pace::new(now),
            acknowledged: BTreeSet::new(),
            acknowledged_at: None,
            parked: Vec::new(),
            lost: Lost::default(),
            fresh: BTreeMap::new(),
            counted: now,
        };
        match folder::open(&writer.options, &mut writer.lock) {
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
        let guard = Farewell { inbox: Arc::clone(&self.inbox), health: self.shown.health.clone() };
        loop {
            let (until, takes) = self.plan(Instant::now());
            let work = self.inbox.wait(MAX_BATCH, until, takes);
            self.lost.alerts += work.lost.alerts;
            self.lost.evidence += work.lost.evidence;
            let (mut reads, mut asked, mut replies) = (Vec::new(), Vec::new(), Vec::new());
            let mut lasting = Vec::new();
            for command in work.commands {
                match command {
                    Command::Acknowledge(route, row) => {
                        self.acknowledged.insert((route, row));
                        self.acknowledged_at.get_or_insert(Instant::now());
                    }
                    Command::Park(route, row, reason) => self.parked.push((route, row, reason)),
                    Command::Next { route, skip, limit, evidence, reply } => {
                        reads.push((route, skip, limit, evidence, reply));
                    }
                    Command::Execute(question, reply) => {
                        asked.push(*question);
                        replies.push(reply);
                    }
                    Command::Lasting(reply) => lasting.push(reply),
                }
            }
            self.write(&work.alerts, &work.changes, &work.evidence, &asked, replies);
            for (route, skip, limit, evidence, reply) in reads {
                let _ = reply.send(self.read(route, skip, limit, evidence)); // nobody waits any more: fine
            }
            for reply in lasting {
                let (Disk::Working(store) | Disk::Failing { store: Some(store), .. }) = &self.disk else {
                    continue; // dropped, so that the asker reads an empty answer
                };
                let _ = reply.send(store.lasting().unwrap_or_default()); // nobody waits any more: fine
            }
            self.report();
            if let Some(close_by) = work.close_by
                && (self.inbox.depth() == (0, 0) || Instant::now() >= close_by)
            {
                break;
            }
        }
        self.last_words();
        drop(self); // the files are closed and unlocked before anyone is told
        drop(guard);
    }

    /// Until when to wait, and from when on alerts may be taken.
    fn plan(&self, now: Instant) -> (Instant, Takes) {
        let store = match &self.disk {
            Disk::Working(store) => store,
            Disk::Failing { retry_at, .. } => {
                return (
                    if *retry_at > now { *retry_at } else { now + HOUSEKEEPING },
                    Takes::Retry(*retry_at),
                );
            }
        };
        let earliest = self.pace.earliest(now);
        let rest = if store.health().open > 0 { OPEN_HOUSEKEEPING } else { HOUSEKEEPING };
        let climb = store.next_climb().map(|at| {
            let left = at.saturating_sub(self.lived(store));
            (now + Duration::from_millis(left)).max(earliest)
        });
        let acknowledged = self.acknowledged_at.map(|at| at + ACKNOWLEDGED.0);
        let until = [Some(self.counted + rest), climb, acknowledged].into_iter().flatten().min();
        (until.unwrap_or(now), Takes::From(earliest))
    }

    /// The outbox's own time: see [`Store::lived`].
    fn lived(&self, store: &Store) -> u64 {
        store.lived() + self.counted.elapsed().as_millis() as u64
    }

    /// One transaction with all that is to be written, if anything is.
    fn write(
        &mut self,
        alerts: &[NewAlert],
        changes: &[AlertChange],
        evidence: &[NewEvidence],
        asked: &[Asked],
        replies: Vec<oneshot::Sender<Answer>>,
    ) {
        let now = Instant::now();
        let refuse = |replies: Vec<oneshot::Sender<Answer>>, why: &str| {
            for reply in replies {
                let _ = reply.send(Answer::Refused(no_storage(why))); // the console went away: fine
            }
        };
        let store = match std::mem::replace(&mut self.disk, Disk::nowhere()) {
            Disk::Working(store) => {
                let pending = self.acknowledged.len() >= ACKNOWLEDGED.1
                    || self.acknowledged_at.is_some_and(|at| now >= at + ACKNOWLEDGED.0);
                let rest = if store.health().open > 0 { OPEN_HOUSEKEEPING } else { HOUSEKEEPING };
                let something =
                    !(alerts.is_empty() && changes.is_empty() && evidence.is_empty() && asked.is_empty())
                        || pending
                        || !self.parked.is_empty()
                        || self.lost != Lost::default()
                        || self.counted.elapsed() >= rest
                        || store.next_climb().is_some_and(|at| at <= self.lived(&store));
                if !something {
                    self.disk = Disk::Working(store);
                    return;
                }
                Ok(store)
            }
            Disk::Failing { store, then, retry_at, why } if now < retry_at => {
                refuse(replies, &why);
                self.disk = Disk::Failing { store, then, retry_at, why };
                return;
            }
            Disk::Failing { store: Some(store), then: Then::Write, .. } => Ok(store),
            Disk::Failing { store: old, .. } => self.open_store().map_err(|why| (old, why)),
        };
        let mut store = match store {
            Ok(store) => store,
            Err((old, why)) => {
                refuse(replies, &why);
                return self.fail(old, Then::Open, why);
            }
        };
        let (wall, trust) = (self.clock)();
        let batch = Batch {
            alerts,
            changes,
            evidence,
            acknowledged: &self.acknowledged,
            parked: &self.parked,
            asked,
            lost: self.lost,
            lived: self.lived(&store),
            wall,
            trust,
        };
        match store.commit(&self.site, &batch) {
            Ok(committed) => {
                self.inbox.stored(committed.first, alerts.len(), changes.len(), evidence.len());
                for (sequence, alert) in (committed.first..).zip(alerts) {
                    self.fresh.insert(sequence, alert.arrived);
                }
                while self.fresh.len() > MAX_FRESH {
                    self.fresh.pop_first();
                }
                self.acknowledged.clear();
                self.acknowledged_at = None;
                self.parked.clear();
                self.lost = Lost::default();
                self.counted = now;
                if committed.durable {
                    self.pace.committed(Instant::now());
                }
                for (reply, answer) in replies.into_iter().zip(committed.answers) {
                    let _ = reply.send(answer); // the console went away: fine
                }
                self.works(store, committed.grown);
            }
            Err(error) => {
                let why = describe(&self.options.folder, &error);
                refuse(replies, &why);
                self.failed(store, &error);
            }
        }
    }

    /// What was acknowledged is written down before the end, so that the next start does not send it again.
    fn last_words(&mut self) {
        if !self.acknowledged.is_empty() || !self.parked.is_empty() {
            self.acknowledged_at = Some(self.counted.checked_sub(ACKNOWLEDGED.0).unwrap_or(self.counted));
            self.write(&[], &[], &[], &[], Vec::new());
        }
    }

    /// Opens the database, under the lock that is taken first and kept to the end.
    fn open_store(&mut self) -> Result<Store, String> {
        folder::open(&self.options, &mut self.lock).map_err(|error| match error {
            OpenError::Fatal(error) => error.to_string(),
            OpenError::Store(error) => describe(&self.options.folder, &error),
        })
    }

    fn works(&mut self, store: Store, grown: bool) {
        let recovered = self.shown.health.borrow().failure.is_some();
        if recovered {
            tracing::info!("the outbox in {} can be written again", self.options.folder.display());
        }
        self.backoff.reset();
        let last = store.health().sequence;
        self.disk = Disk::Working(store);
        self.report();
        // After a failure whoever was told that nothing waits must ask again, though the number is the same.
        self.shown.stored.send_if_modified(|stored| {
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
        let why = match folder::move_aside(&file) {
            Ok(()) => why,
            Err(error) => describe(&self.options.folder, &StoreError::Io(error)),
        };
        self.fail(None, Then::Open, why);
    }

    fn fail(&mut self, store: Option<Store>, then: Then, why: String) {
        if self.shown.health.borrow().failure.as_ref() != Some(&why) {
            tracing::error!("{why}");
        }
        let retry_at = Instant::now() + self.backoff.next(fastrand::f64());
        self.disk = Disk::Failing { store, then, retry_at, why };
    }

    fn read(&mut self, route: usize, skip: Vec<Row>, limit: usize, evidence: bool) -> Vec<Waiting> {
        let (Disk::Working(store) | Disk::Failing { store: Some(store), .. }) = &mut self.disk else {
            return Vec::new();
        };
        let mut skip: BTreeSet<Row> = skip.into_iter().collect();
        skip.extend(self.acknowledged.iter().filter(|(of, _)| *of == route).map(|(_, row)| *row));
        skip.extend(self.parked.iter().filter(|(of, ..)| *of == route).map(|(_, row, _)| *row));
        match store.next(&self.site, route, &skip, limit, evidence) {
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
        let (alerts, pictures) = self.inbox.depth();
        health.alerts += alerts as u64; // they wait too, though not yet on disk
        health.evidence += 2 * pictures as u64;
        health.evicted_alerts += self.lost.alerts;
        health.evicted_evidence += self.lost.evidence;
        health.failure = failure;
        self.shown.health.send_if_modified(|known| std::mem::replace(known, health.clone()) != health);
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
