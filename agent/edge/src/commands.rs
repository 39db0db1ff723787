//! What consoles ask for over MQTT: judged, done by the outbox, answered.
//!
//! Nothing in a message is believed before it was checked: where the answer goes (only to this box's own topics), how
//! long anything is, how often it comes. What was done, and what was refused, stands in the audit log of the outbox.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sharp_eyes_protocol::command::{
    Answer, CORRELATION_MAX_BYTES, Command, Done, Refusal, Refused, Request, TEXT_MAX,
};
use sharp_eyes_protocol::report::CommandsHealth;
use sharp_eyes_protocol::topic::{Name, Site};
use tokio::sync::Notify;
use uuid::Uuid;

use crate::budget::Budget;
use crate::outbox::{Asked, Outbox};
use crate::snapshots::Snapshots;

/// Commands a second that are taken for long, and at once. Each costs an `fsync`.
const COMMANDS: (f64, f64) = (2.0, 40.0);

/// Snapshots a second of all cameras together, and at once.
const SNAPSHOTS: (f64, f64) = (0.1, 4.0);

/// Checks of updates a second that are hastened, and at once. Each asks a server that a thousand boxes ask.
const CHECKS: (f64, f64) = (1.0 / 60.0, 4.0);

/// How long a camera may take to give a picture.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(10);

/// A message on the topic `command`, as it came.
#[derive(Clone, Debug)]
pub struct Question {
    /// The route that it came on.
    pub route: usize,
    /// What should be a command.
    pub payload: Vec<u8>,
    /// Where the answer is wanted.
    pub response_topic: Option<String>,
    /// What the answer must repeat.
    pub correlation: Option<Vec<u8>>,
    /// Published to be kept by the broker.
    pub retained: bool,
}

/// What is published in return.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// Where.
    pub topic: String,
    /// An answer in JSON.
    pub payload: Vec<u8>,
    /// As it came.
    pub correlation: Vec<u8>,
}

/// Takes questions from the uplinks.
#[derive(Debug)]
pub struct Commands {
    site: Site,
    outbox: Outbox,
    snapshots: Arc<Snapshots>,
    updates: Option<Arc<Notify>>,
    /// Who asked for the last check, and with which correlation data: the same question again asks for nothing new.
    hastened: Mutex<Option<(Name, Vec<u8>)>>,
    budgets: Mutex<Budgets>,
    done: AtomicU64,
    refused: AtomicU64,
    ignored: AtomicU64,
}

#[derive(Debug)]
struct Budgets {
    commands: Budget,
    snapshots: Budget,
    checks: Budget,
}

impl Commands {
    /// Nothing was asked yet. `updates` wakes whoever asks the repository of models, if the box has one.
    pub fn new(site: Site, outbox: Outbox, snapshots: Arc<Snapshots>, updates: Option<Arc<Notify>>) -> Self {
        let now = Instant::now();
        let budgets = Budgets {
            commands: Budget::new(COMMANDS.0, COMMANDS.1, now),
            snapshots: Budget::new(SNAPSHOTS.0, SNAPSHOTS.1, now),
            checks: Budget::new(CHECKS.0, CHECKS.1, now),
        };
        Self {
            site,
            outbox,
            snapshots,
            updates,
            hastened: Mutex::default(),
            budgets: Mutex::new(budgets),
            done: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            ignored: AtomicU64::new(0),
        }
    }

    /// How many there were.
    pub fn health(&self) -> CommandsHealth {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        CommandsHealth { done: read(&self.done), refused: read(&self.refused), ignored: read(&self.ignored) }
    }

    /// Does what is asked. Nothing where nobody could be answered: that is counted and logged.
    pub async fn answer(&self, question: Question) -> Option<Response> {
        let (topic, console, correlation) = match self.addressee(&question) {
            Ok(addressee) => addressee,
            Err(why) => {
                self.ignored.fetch_add(1, Ordering::Relaxed);
                tracing::warn!("a command is ignored: {why}");
                return None;
            }
        };
        let answer = self.decide(&question, &console, &correlation).await;
        let count = if matches!(answer, Answer::Done(_)) { &self.done } else { &self.refused };
        count.fetch_add(1, Ordering::Relaxed);
        let payload = serde_json::to_vec(&answer).expect("an answer holds nothing that JSON cannot say");
        Some(Response { topic, payload, correlation })
    }

    /// Topic, console and correlation data of an answer.
    fn addressee(&self, question: &Question) -> Result<(String, Name, Vec<u8>), String> {
        if question.retained {
            return Err("it was published to be retained, and would be executed at each start".into());
        }
        let topic = question.response_topic.clone().ok_or("it has no response topic")?;
        let prefix = format!("{}/answer/", self.site);
        let console = topic
            .strip_prefix(&prefix)
            .and_then(|name| Name::new(name).ok())
            .ok_or_else(|| format!("its response topic is not {prefix}{{console}}"))?;
        let correlation = question.correlation.clone().unwrap_or_default();
        if !(1..=CORRELATION_MAX_BYTES).contains(&correlation.len()) {
            return Err(format!(
                "it has {} bytes of correlation data instead of 1 to {CORRELATION_MAX_BYTES}",
                correlation.len()
            ));
        }
        Ok((topic, console, correlation))
    }

    async fn decide(&self, question: &Question, console: &Name, correlation: &[u8]) -> Answer {
        if !self.budgets().commands.take_one(Instant::now()) {
            return Answer::Refused(Refused::new(
                Refusal::TooOften,
                format!("this box takes {} commands a second: nothing was done, ask again", COMMANDS.0),
            ));
        }
        let command = Command::parse(&question.payload).and_then(|command| {
            if command.console == *console {
                return Ok(command);
            }
            let why = format!("console {} asks for an answer to {console}", command.console);
            Err(Refused::new(Refusal::Malformed, why))
        });
        let snapshot = match &command {
            Ok(Command { request: Request::Snapshot(of), .. }) => Some(self.snapshot(&of.camera).await),
            _ => None,
        };
        let asker = (console.clone(), correlation.to_vec());
        let updates = match &command {
            Ok(Command { request: Request::CheckUpdates, .. }) if !self.has_hastened(&asker) => {
                Some(self.updates())
            }
            _ => None,
        };
        let command = command.map_err(|refused| {
            let text = String::from_utf8_lossy(&question.payload);
            (refused, text.chars().take(TEXT_MAX).collect())
        });
        let correlation = correlation.to_vec();
        let no_updates = updates.as_ref().and_then(|updates| updates.as_ref().err().cloned());
        let asked = Asked { route: question.route, correlation, command, snapshot, no_updates };
        let answer = self.outbox.execute(asked).await;
        if let (Answer::Done(Done::CheckUpdates), Some(Ok(updates))) = (&answer, updates) {
            updates.notify_one();
            *self.hastened.lock().unwrap_or_else(PoisonError::into_inner) = Some(asker);
        }
        answer
    }

    fn has_hastened(&self, asker: &(Name, Vec<u8>)) -> bool {
        self.hastened.lock().unwrap_or_else(PoisonError::into_inner).as_ref() == Some(asker)
    }

    /// Who asks the repository of models.
    fn updates(&self) -> Result<&Notify, Refused> {
        let Some(updates) = &self.updates else {
            let why = "this box gets its models from a stick: [models] names no repository";
            return Err(Refused::new(Refusal::NoRepository, why));
        };
        if !self.budgets().checks.take_one(Instant::now()) {
            let why = format!("one check in {:.0} s: ask again later", 1.0 / CHECKS.0);
            return Err(Refused::new(Refusal::TooOften, why));
        }
        Ok(updates)
    }

    async fn snapshot(&self, camera: &Name) -> Result<(Uuid, Vec<u8>), Refused> {
        let Some(index) = self.snapshots.index_of(camera) else {
            let why = format!("this box has no camera {camera}");
            return Err(Refused::new(Refusal::UnknownCamera, why));
        };
        if !self.budgets().snapshots.take_one(Instant::now()) {
            let why = format!("one snapshot in {:.0} s: ask again later", 1.0 / SNAPSHOTS.0);
            return Err(Refused::new(Refusal::TooOften, why));
        }
        match tokio::time::timeout(SNAPSHOT_TIMEOUT, self.snapshots.take(index)).await {
            Ok(Some(snapshot)) => Ok((Uuid::now_v7(), snapshot.picture)),
            _ => {
                let waited = SNAPSHOT_TIMEOUT.as_secs();
                let why = format!("camera {camera} gave no picture within {waited} s; its health says why");
                Err(Refused::new(Refusal::NoPicture, why))
            }
        }
    }

    fn budgets(&self) -> std::sync::MutexGuard<'_, Budgets> {
        self.budgets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
