//! Where alerts wait for the broker: on disk before anyone is told of them, there until the broker has them.
//!
//! # Layout
//!
//! - [`Outbox`] is a cheap handle. [`Outbox::append`] puts an alert into the inbox (`inbox`) and returns.
//! - `writer` is the one thread that touches the disk. It takes what waits in the inbox, stores it in one
//!   transaction, and says so; while the disk cannot be written it keeps the alerts and tries again.
//! - `store` is the database, and the only module that names it. `ledger` keeps the sequence beside it.
//!
//! Invariants: the uplink sees a row only after its `COMMIT`; sequence numbers have no gap and are never given
//! twice, over restarts and emptied tables; a row leaves on acknowledgement or by a counted eviction, never otherwise.

mod inbox;
mod ledger;
mod store;
mod writer;

#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use sharp_eyes_protocol::alert::{AlertData, Subject};
use sharp_eyes_protocol::report::OutboxHealth;
use sharp_eyes_protocol::topic::Site;
use tokio::sync::{oneshot, watch};
use uuid::Uuid;

use inbox::{Command, Inbox};

/// Where the outbox lives and how much it may hold.
#[derive(Clone, Debug)]
pub struct OutboxOptions {
    /// The folder, made if it is not there. It belongs to one agent.
    pub folder: PathBuf,
    /// Most bytes of alerts and pictures together; the files take about a fifth more, and 2 MB for the log and a reserve.
    pub max_bytes: u64,
    /// What waited longer is given up: first the pictures, then the alerts. It is measured in time that the agent
    /// ran, not by the wall clock, which may jump from 1970 to 2099.
    pub max_age: Duration,
}

/// An alert that was just decided.
#[derive(Clone, Debug)]
pub struct NewAlert {
    /// A UUIDv7.
    pub id: Uuid,
    /// When the frame arrived that decided it, by the wall clock.
    pub time: Timestamp,
    /// Where it happened.
    pub subject: Subject,
    /// What happened. The outbox sets `evidence` itself: whether the picture was really stored.
    pub data: AlertData,
    /// One redacted JPEG.
    pub picture: Option<Vec<u8>>,
    /// The same by the monotonic clock: the start of the measured way to the broker.
    pub arrived: Instant,
}

/// The alert was not taken, because the disk has not taken those before it: it is lost, and counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the outbox holds {} alerts in memory that the disk does not take: this one is lost",
    inbox::MAX_ALERTS
)]
pub struct Full;

/// The outbox cannot start, and waiting would not help.
#[derive(Debug, thiserror::Error)]
pub enum OutboxError {
    /// Another agent runs on the same folder.
    #[error("{} is in use by another agent: give each agent a state folder of its own", folder.display())]
    Locked {
        /// The folder that both want.
        folder: PathBuf,
    },
    /// The agent was downgraded.
    #[error(
        "{} was written by a newer agent (schema {found}, this agent knows up to {known}): \
         install that agent again, or move the file away to start with an empty outbox", file.display()
    )]
    Newer {
        /// The database.
        file: PathBuf,
        /// Its schema.
        found: i64,
        /// The newest schema known here.
        known: i64,
    },
    /// The system gives no thread.
    #[error("cannot start the thread of the outbox")]
    Thread(#[from] io::Error),
}

/// Names one waiting message for as long as the outbox exists: numbers are never given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Row {
    /// The alert with this sequence number.
    Alert(u64),
    /// The picture of the alert with this sequence number.
    Evidence(u64),
}

/// A message that waits for the broker.
#[derive(Clone, Debug, PartialEq)]
pub struct Waiting {
    /// Its name, for [`Outbox::acknowledge`] and [`Outbox::park`].
    pub row: Row,
    /// Where it is published.
    pub topic: String,
    /// Alert: JSON. Evidence: JPEG.
    pub payload: Vec<u8>,
    /// When its frame arrived, where that was in this run of the agent and it is given out for the first time.
    pub arrived: Option<Instant>,
}

/// A handle to the outbox. Clones are handles to the same one; it closes when the last is dropped.
#[derive(Clone, Debug)]
pub struct Outbox {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    inbox: Arc<Inbox>,
    health: watch::Receiver<OutboxHealth>,
    stored: watch::Receiver<u64>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.inbox.close(Duration::from_secs(5), None); // in the background
    }
}

impl Outbox {
    /// Opens the outbox and starts its thread.
    ///
    /// A folder that cannot be written is no error: the outbox keeps trying, and its health says why.
    pub fn start(options: OutboxOptions, site: Site) -> Result<Self, OutboxError> {
        let (health_sender, health) = watch::channel(OutboxHealth::default());
        let (stored_sender, stored) = watch::channel(0);
        let inbox = Arc::new(Inbox::default());
        let writer = writer::Writer::open(options, site, Arc::clone(&inbox), health_sender, stored_sender)?;
        std::thread::Builder::new().name("outbox".into()).spawn(move || writer.run())?;
        Ok(Self { shared: Arc::new(Shared { inbox, health, stored }) })
    }

    /// Hands over an alert. It returns at once; the alert is durable when [`Outbox::stored`] says so.
    ///
    /// At most 1024 alerts and 8 MiB of pictures wait for a disk that does not take them. Beyond that a picture is left
    /// out of its alert, and at last the alert is refused; both are counted in health as evicted.
    pub fn append(&self, alert: NewAlert) -> Result<(), Full> {
        self.shared.inbox.append(alert)
    }

    /// What waits for the broker beside the rows of `skip`, which are on their way: up to `limit` alerts, the most
    /// severe first and of those the oldest; where no alert waits and `evidence` is set, one picture.
    ///
    /// Nothing where the disk cannot be read. It is safe to drop the future.
    pub async fn next(&self, skip: Vec<Row>, limit: usize, evidence: bool) -> Vec<Waiting> {
        let (reply, answer) = oneshot::channel();
        self.shared.inbox.command(Command::Next { skip, limit, evidence, reply });
        answer.await.unwrap_or_default()
    }

    /// The broker has it. The row is given out no more from now on, and deleted with the next transaction: a power cut
    /// in between sends it a second time.
    pub fn acknowledge(&self, row: Row) {
        self.shared.inbox.command(Command::Acknowledge(row));
    }

    /// The broker refuses it. The row is kept with the reason, and never sent again.
    pub fn park(&self, row: Row, reason: impl Into<String>) {
        self.shared.inbox.command(Command::Park(row, reason.into()));
    }

    /// What waits, and whether the disk can be written.
    pub fn stats(&self) -> OutboxHealth {
        self.shared.health.borrow().clone()
    }

    /// The same, for whoever waits for a change.
    pub fn watch(&self) -> watch::Receiver<OutboxHealth> {
        self.shared.health.clone()
    }

    /// The highest sequence number that is on disk. It changes with every alert that was stored.
    pub fn stored(&self) -> watch::Receiver<u64> {
        self.shared.stored.clone()
    }

    /// Stores what still waits in memory, for at most `grace`, and closes the database and its folder, also for all
    /// other handles. Returns how many alerts could not be stored; they are lost.
    pub async fn close(&self, grace: Duration) -> usize {
        let (reply, answer) = oneshot::channel();
        self.shared.inbox.close(grace, Some(reply));
        answer.await.unwrap_or_default()
    }
}
