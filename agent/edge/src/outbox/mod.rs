//! Where alerts wait for the brokers: on disk before anyone is told of them, there until the brokers have them, and open
//! until somebody answers.
//!
//! # Layout
//!
//! - [`Outbox`] is a cheap handle. [`Outbox::append`] puts an alert into the inbox (`inbox`) and returns a receipt.
//! - `writer` is the one thread that touches the disk. It takes what waits in the inbox, stores it in one
//!   transaction, and says so; while the disk cannot be written it keeps the alerts and tries again. `pace` says how
//!   often it may, `folder` makes, locks and opens what is on disk.
//! - `store` is the database, and the only module that names it. `ledger` keeps the sequence beside it.
//!
//! An alert is more than its first message: it stays in the store until somebody resolves it, climbs when its time is
//! over ([`crate::escalation`]), and changes by commands ([`Outbox::execute`]). The message, the deadline, the counter of
//! the console and the line in the audit log are one transaction, so that a power cut never parts them.
//!
//! Invariants: an uplink sees a row only after its `COMMIT`; sequence numbers have no gap and are never given
//! twice, over restarts and emptied tables; a row stops waiting on acknowledgement or by a counted eviction, never
//! otherwise; a command is executed once.

mod folder;
mod inbox;
mod ledger;
mod pace;
mod store;
mod writer;

#[cfg(test)]
pub(crate) mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use sharp_eyes_protocol::alert::{Alert, AlertData, ClockTrust, Subject};
use sharp_eyes_protocol::command::{Answer, Command as ConsoleCommand, Refusal, Refused};
use sharp_eyes_protocol::level::Severity;
use sharp_eyes_protocol::report::OutboxHealth;
use sharp_eyes_protocol::topic::Site;
use tokio::sync::{oneshot, watch};
use uuid::Uuid;

use crate::escalation::Escalation;
use inbox::{Command, Inbox};
pub use store::{AuditEntry, AuditError};

/// Where the outbox lives, how much it may hold, and what it does with it.
#[derive(Clone, Debug)]
pub struct OutboxOptions {
    /// The folder, made if it is not there. It belongs to one agent.
    pub folder: PathBuf,
    /// Most bytes of alerts and pictures together; the files take about a fifth more, 2 MB for the log and a reserve, and up
    /// to 25 MB for the audit log.
    pub max_bytes: u64,
    /// What waited longer is given up: first the pictures, then the alerts. It is measured in time that the agent
    /// ran, and where a trusted clock tells it, that it did not; never by a wall clock that may jump from 1970 to 2099.
    pub max_age: Duration,
    /// Delivered messages that are kept to be sent again on request. They are the first to go for want of space.
    pub max_delivered: u64,
    /// The ways out, each with a cursor of its own: a message is delivered when every one of them is rid of it. At least
    /// one, each name once. What waited for a route that is there no more waits for the first one.
    pub routes: Vec<String>,
    /// Large pictures wait until somebody asks for them.
    pub pictures_on_request: bool,
    /// When alerts climb.
    pub escalation: Escalation,
}

impl OutboxOptions {
    /// What is of before this moment in the outbox's own time is given up; nothing where it has not lived for so long.
    fn oldest(&self, lived: u64) -> Option<u64> {
        lived.checked_sub(u64::try_from(self.max_age.as_millis()).unwrap_or(u64::MAX))
    }
}

/// The wall clock, and how far it can be trusted. A function, because tests turn it.
pub type WallClock = Arc<dyn Fn() -> (Timestamp, ClockTrust) + Send + Sync>;

/// An alert that was just decided.
#[derive(Clone, Debug)]
pub struct NewAlert {
    /// A UUIDv7.
    pub id: Uuid,
    /// When the frame arrived that decided it, by the wall clock.
    pub time: Timestamp,
    /// Where it happened.
    pub subject: Subject,
    /// What happened. The outbox sets `respond_s` itself.
    pub data: AlertData,
    /// The same as `time` by the monotonic clock: the start of the measured way to the broker.
    pub arrived: Instant,
}

/// What becomes of an alert that was handed over before.
#[derive(Clone, Debug, PartialEq)]
pub struct AlertChange {
    /// The alert's id. Of one that is over already, or that the outbox never had, nothing changes.
    pub id: Uuid,
    /// What becomes of it.
    pub change: Change,
}

/// What becomes of an alert.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// It is over by itself.
    Over,
    /// It stands for so many incidents by now.
    Many(u32),
}

/// Pictures of an alert, redacted, made after it was handed over: an alert never waits for its picture.
#[derive(Clone, Debug)]
pub struct NewEvidence {
    /// The alert's id.
    pub alert: Uuid,
    /// The alert's severity: the order of sending and of eviction.
    pub severity: Severity,
    /// A small JPEG.
    pub thumbnail: Vec<u8>,
    /// A large JPEG.
    pub picture: Vec<u8>,
}

/// What a console asked for, as it arrived.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The route that it came on: what is sent again goes there.
    pub route: usize,
    /// Names the question: the same again gets the same answer.
    pub correlation: Vec<u8>,
    /// The command, if it is one. Else the start of the text that should have been one, for the audit log.
    pub command: Result<ConsoleCommand, (Refused, String)>,
    /// Where it asks for a snapshot: its id and JPEG, or why there is none.
    pub snapshot: Option<Result<(Uuid, Vec<u8>), Refused>>,
    /// Where it asks for a check of updates: why there is none.
    pub no_updates: Option<Refused>,
}

/// The alert was not taken, because the disk has not taken those before it: it is lost, and counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the outbox holds {} alerts in memory that the disk does not take: this one is lost",
    inbox::MAX_ALERTS
)]
pub struct Full;

/// Proof, in time, that an alert is on disk.
#[derive(Debug)]
pub struct Receipt(oneshot::Receiver<u64>);

impl Receipt {
    /// The alert's sequence number, as soon as a power cut cannot take it any more. `None`: it never came to the disk.
    pub async fn stored(self) -> Option<u64> {
        self.0.await.ok()
    }
}

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
    /// The message with this sequence number.
    Alert(u64),
    /// The picture with this number.
    Evidence(u64),
}

/// A message that waits for a broker.
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
    pub fn start(options: OutboxOptions, site: Site, clock: WallClock) -> Result<Self, OutboxError> {
        let (health_sender, health) = watch::channel(OutboxHealth::default());
        let (stored_sender, stored) = watch::channel(0);
        let inbox = Arc::new(Inbox::default());
        let shown = writer::Shown { health: health_sender, stored: stored_sender };
        let writer = writer::Writer::open(options, site, clock, Arc::clone(&inbox), shown)?;
        std::thread::Builder::new().name("outbox".into()).spawn(move || writer.run())?;
        Ok(Self { shared: Arc::new(Shared { inbox, health, stored }) })
    }

    /// Hands over an alert. It returns at once; the alert is durable when the receipt says so.
    ///
    /// At most 1024 alerts wait for a disk that does not take them. Beyond that the mildest of them is given up for a more
    /// severe one, or this one is refused; both are counted in health as evicted.
    pub fn append(&self, alert: NewAlert) -> Result<Receipt, Full> {
        self.shared.inbox.append(alert).map(Receipt)
    }

    /// Hands over what becomes of an alert, after the alert itself. It is stored and sent as alerts are. At most 1024
    /// changes wait for a disk that does not take them; beyond that the oldest is given up, and counted.
    pub fn change(&self, change: AlertChange) {
        self.shared.inbox.change(change);
    }

    /// The alerts that are neither over nor ended, as they were last told: what an agent that starts has to go on with. None
    /// where the disk cannot be read.
    pub async fn lasting(&self) -> Vec<Alert> {
        let (reply, answer) = oneshot::channel();
        self.shared.inbox.command(Command::Lasting(reply));
        answer.await.unwrap_or_default()
    }

    /// Hands over the pictures of an alert. At most 8 MiB wait for the disk; beyond that they are given up, and counted.
    pub fn attach(&self, evidence: NewEvidence) {
        self.shared.inbox.attach(evidence);
    }

    /// What waits for the broker of a route beside the rows of `skip`, which are on their way: up to `limit` alerts, the
    /// most severe first and of those the oldest; where no alert waits and `evidence` is set, one picture.
    ///
    /// Nothing where the disk cannot be read. It is safe to drop the future.
    pub async fn next(&self, route: usize, skip: Vec<Row>, limit: usize, evidence: bool) -> Vec<Waiting> {
        let (reply, answer) = oneshot::channel();
        self.shared.inbox.command(Command::Next { route, skip, limit, evidence, reply });
        answer.await.unwrap_or_default()
    }

    /// The broker has it. The row is given out on this route no more, and written off with one of the next
    /// transactions: a power cut in between sends it a second time.
    pub fn acknowledge(&self, route: usize, row: Row) {
        self.shared.inbox.command(Command::Acknowledge(route, row));
    }

    /// The broker refuses it. The row is kept with the reason, and sent on this route only when somebody asks for it.
    pub fn park(&self, route: usize, row: Row, reason: impl Into<String>) {
        self.shared.inbox.command(Command::Park(route, row, reason.into()));
    }

    /// Does what a console asks for, durably and once, and writes it into the audit log: all that in one transaction.
    pub async fn execute(&self, asked: Asked) -> Answer {
        let (reply, answer) = oneshot::channel();
        self.shared.inbox.command(Command::Execute(Box::new(asked), reply));
        answer.await.unwrap_or_else(|_| Answer::Refused(no_storage("the outbox is closed")))
    }

    /// What waits, and whether the disk can be written.
    pub fn stats(&self) -> OutboxHealth {
        self.shared.health.borrow().clone()
    }

    /// The same, for whoever waits for a change.
    pub fn watch(&self) -> watch::Receiver<OutboxHealth> {
        self.shared.health.clone()
    }

    /// The highest sequence number that is on disk. It changes with everything that was stored for sending.
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

    /// Reads the audit log of a folder, oldest first, while an agent may be running there.
    pub fn audit(folder: &Path, each: impl FnMut(AuditEntry) -> io::Result<()>) -> Result<(), AuditError> {
        store::read_audit(folder, each)
    }
}

/// Nothing was done, because it could not be remembered.
fn no_storage(why: &str) -> Refused {
    Refused::new(Refusal::Storage, format!("nothing was done: {why}"))
}
