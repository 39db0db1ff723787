//! What a township sees: everything that an agent publishes, kept as it arrives.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, PublishProperties};
use rumqttc::v5::{Client, Connection, Event, MqttOptions};
use sharp_eyes_protocol::alert::Alert;
use sharp_eyes_protocol::command::{Answer, Command, Request};
use sharp_eyes_protocol::report::{Health, Models, Status};
use sharp_eyes_protocol::topic;
use uuid::Uuid;

use crate::wait;

/// Larger than any picture that an agent may send.
const LARGEST_MESSAGE: u32 = 1024 * 1024;

/// A subscriber. It keeps its session when the broker goes away and connects again by itself.
pub struct Console {
    client: Client,
    shared: Arc<Shared>,
}

/// Everything that arrived so far.
#[derive(Debug, Default)]
pub struct Seen {
    /// In the order of their arrival, repetitions included.
    pub alerts: Vec<Received>,
    /// The small pictures, by alert, with the time of their arrival.
    pub thumbnails: BTreeMap<Uuid, (Timestamp, Vec<u8>)>,
    /// The large pictures, by alert, with the time of their arrival.
    pub evidence: BTreeMap<Uuid, (Timestamp, Vec<u8>)>,
    /// The latest.
    pub status: Option<Status>,
    /// The latest.
    pub health: Option<Health>,
    /// The latest.
    pub models: Option<Models>,
    /// Answers to commands, by their correlation data.
    pub answers: BTreeMap<Vec<u8>, Answer>,
    /// What arrived and should not have: unknown topics, and messages that are not what their topic promises.
    pub nonsense: Vec<String>,
}

/// An alert with how it came.
#[derive(Clone, Debug)]
pub struct Received {
    /// The alert.
    pub alert: Alert,
    /// When it arrived.
    pub at: Timestamp,
    /// Where it was published.
    pub topic: String,
    /// The message itself.
    pub json: String,
}

impl Received {
    /// From the arrival of the frame to here, by the clock of this machine.
    pub fn delivery(&self) -> Duration {
        self.at.duration_since(self.alert.time).try_into().unwrap_or_default()
    }
}

impl Seen {
    /// The numbers of the alerts, sorted, without repetitions.
    pub fn sequences(&self) -> Vec<u64> {
        let mut numbers: Vec<u64> = self.alerts.iter().map(|received| received.alert.sequence).collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    }

    fn take(&mut self, topic: &str, payload: &[u8], correlation: Option<&[u8]>) -> Result<()> {
        let steps: Vec<&str> = topic.split('/').collect();
        match steps.get(6..) {
            Some(["alert", _]) => {
                let (alert, json) = (serde_json::from_slice(payload)?, String::from_utf8(payload.to_vec())?);
                self.alerts.push(Received { alert, at: Timestamp::now(), topic: topic.to_owned(), json });
            }
            Some(["thumbnail", id]) => {
                self.thumbnails.insert(id.parse()?, (Timestamp::now(), payload.to_vec()));
            }
            Some(["evidence", id]) => {
                self.evidence.insert(id.parse()?, (Timestamp::now(), payload.to_vec()));
            }
            Some(["answer", _]) => {
                let correlation = correlation.context("an answer to nothing")?;
                self.answers.insert(correlation.to_vec(), serde_json::from_slice(payload)?);
            }
            Some(["command"]) => {} // a console's own
            Some(["status"]) => self.status = Some(serde_json::from_slice(payload)?),
            Some(["health"]) => self.health = Some(serde_json::from_slice(payload)?),
            Some(["models"]) => self.models = Some(serde_json::from_slice(payload)?),
            _ => bail!("a topic that nobody agreed on"),
        }
        Ok(())
    }
}

#[derive(Default)]
struct Shared {
    seen: Mutex<Seen>,
    changed: Condvar,
    closed: AtomicBool,
    connected: AtomicBool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Console {
    /// Returns once it is subscribed to everything.
    pub fn connect(port: u16, login: Option<(&str, &str)>) -> Result<Self> {
        // Two of one name would end each other's connections.
        static CONSOLES: AtomicU64 = AtomicU64::new(1);
        let name = format!("console-{port}-{}", CONSOLES.fetch_add(1, Ordering::Relaxed));
        let mut options = MqttOptions::new(name, "127.0.0.1", port);
        options.set_keep_alive(Duration::from_secs(5));
        options.set_clean_start(false).set_session_expiry_interval(Some(3600));
        options.set_max_packet_size(Some(LARGEST_MESSAGE));
        if let Some((user, password)) = login {
            options.set_credentials(user, password);
        }
        let (client, connection) = Client::new(options, 16);
        let shared = Arc::new(Shared::default());
        let console = Self { client: client.clone(), shared: Arc::clone(&shared) };
        std::thread::spawn(move || receive(&client, connection, &shared));
        console.await_connection()?;
        Ok(console)
    }

    /// Waits until it is connected and subscribed.
    pub fn await_connection(&self) -> Result<()> {
        wait::until("the console to be connected", wait::PATIENCE, || {
            self.shared.connected.load(Ordering::Acquire).then_some(())
        })
    }

    /// Waits until it has noticed that the broker is gone.
    pub fn await_loss(&self) -> Result<()> {
        wait::until("the console to lose its broker", wait::PATIENCE, || {
            (!self.shared.connected.load(Ordering::Acquire)).then_some(())
        })
    }

    /// Looks at what has arrived so far.
    pub fn seen<T>(&self, look: impl FnOnce(&Seen) -> T) -> T {
        look(&self.shared.lock())
    }

    /// Waits until something has arrived that `ask` has an answer to.
    pub fn wait_for<T>(
        &self,
        what: &str,
        patience: Duration,
        mut ask: impl FnMut(&Seen) -> Option<T>,
    ) -> Result<T> {
        let deadline = Instant::now() + patience;
        let mut seen = self.shared.lock();
        loop {
            if let Some(answer) = ask(&seen) {
                return Ok(answer);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let found = format!("{} alerts, {:?}, {:?}", seen.alerts.len(), seen.status, seen.health);
                bail!("waited {} s in vain for {what}; the console has {found}", patience.as_secs());
            }
            seen = self
                .shared
                .changed
                .wait_timeout(seen, left)
                .map_or_else(|e| e.into_inner().0, |(seen, _)| seen);
        }
    }

    /// Asks a box for something, as the console `console` with this counter, and waits for the answer. The counter names
    /// the question: the same again is the same question.
    pub fn ask(&self, box_root: &str, console: &str, counter: u64, request: Request) -> Result<Answer> {
        let command = Command { console: console.parse()?, counter, by: "Li Wei".into(), request };
        let correlation = format!("{console}-{counter}").into_bytes();
        self.shared.lock().answers.remove(&correlation);
        let properties = PublishProperties {
            response_topic: Some(format!("{box_root}/answer/{console}")),
            correlation_data: Some(correlation.clone().into()),
            ..PublishProperties::default()
        };
        let topic = format!("{box_root}/command");
        let payload = serde_json::to_vec(&command)?;
        self.client.publish_with_properties(topic, QoS::AtLeastOnce, false, payload, properties)?;
        self.wait_for("an answer", wait::PATIENCE, |seen| seen.answers.get(&correlation).cloned())
    }

    /// Waits for at least so many different alerts.
    pub fn await_alerts(&self, count: usize) -> Result<Vec<Received>> {
        self.wait_for(&format!("{count} alerts"), wait::PATIENCE, |seen| {
            (seen.sequences().len() >= count).then(|| seen.alerts.clone())
        })
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Release);
        let _ = self.client.try_disconnect(); // or the broker is gone already
    }
}

/// Until the console is dropped.
fn receive(client: &Client, mut connection: Connection, shared: &Shared) {
    for event in connection.iter() {
        if shared.closed.load(Ordering::Acquire) {
            return;
        }
        match event {
            // A broker without memory has forgotten what was subscribed.
            Ok(Event::Incoming(Packet::ConnAck(_))) => {
                let _ = client.try_subscribe(format!("{}/#", topic::PREFIX), QoS::AtLeastOnce); // 16 places, 1 used
            }
            Ok(Event::Incoming(Packet::SubAck(_))) => shared.connected.store(true, Ordering::Release),
            Ok(Event::Incoming(Packet::Publish(message))) => {
                let topic = String::from_utf8_lossy(&message.topic).into_owned();
                let mut seen = shared.lock();
                let correlation = message.properties.as_ref().and_then(|p| p.correlation_data.as_deref());
                let taken = seen
                    .take(&topic, &message.payload, correlation)
                    .with_context(|| format!("message on {topic}"));
                if let Err(error) = taken {
                    seen.nonsense.push(format!("{error:#}"));
                }
                shared.changed.notify_all();
            }
            Ok(_) => {}
            Err(_) => {
                shared.connected.store(false, Ordering::Release);
                wait::pause(Duration::from_millis(100));
            }
        }
    }
}
