//! Outbox to broker: every alert at least once, in the order of its severity, and what the box says of itself.
//!
//! # Layout
//!
//! - [`run`] goes from one [`Link`] mode to the next until it is told to stop.
//! - `session` is one connection: it asks the outbox for what waits, keeps the window, and takes the answers.
//! - `in_flight` is that window as a plain value.
//! - `broker` is the MQTT client, and the only file that names it; `tls` reads the certificates.
//! - `patience` is how long the broker may be silent, and `budget` what pictures may take of the link, as plain values.
//!
//! Rules: a row leaves the outbox only when the broker acknowledged it with success. One that the broker refuses is
//! parked with the reason, and holds up nothing. After any error the window is forgotten and sending starts again at the
//! first row that waits. Reports are retained: only the newest matters, so there is one of a kind on its way at a time.

mod broker;
#[cfg(test)]
#[path = "../../tests/broker/mod.rs"]
mod harness;
pub(crate) mod in_flight;
mod patience;
mod session;
mod tls;

use std::sync::Arc;
use std::time::Duration;

use sharp_eyes_protocol::report::{BoxState, Health, Models, Status, UplinkHealth};
use sharp_eyes_protocol::topic::{Name, Site};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::budget::Budget;
use crate::clock::Clock;
use crate::commands::Commands;
use crate::latency::{Latency, Samples};
use crate::outbox::Outbox;
use crate::secret::Secret;
use broker::{Broker, Failure, Publication};
use session::{Phase, Session, What};
pub use tls::TlsOptions;
pub(crate) use tls::web_tls;

/// Attempts in vain after which another broker is tried, where there is one.
const PATIENCE: u32 = 2;

/// How long another broker stands in before the first one is tried again.
const RETURN_AFTER: Duration = Duration::from_secs(300);

/// Where there are several brokers: the rest after one of them refused this box.
const REFUSED_REST: Duration = Duration::from_secs(5);

/// Bytes of pictures that a quiet time saves up.
const EVIDENCE_BURST: f64 = 131_072.0;

/// For all that is to be said after the stop: the rest of the alerts, `offline`, DISCONNECT.
const GRACE: Duration = Duration::from_secs(3);

/// Where the broker is and how it is spoken to.
#[derive(Clone, Debug)]
pub struct UplinkOptions {
    /// In health reports.
    pub name: Name,
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Without it the connection is in the clear.
    pub tls: Option<TlsOptions>,
    /// User and password.
    pub credentials: Option<(String, Secret)>,
    /// Unique among the broker's clients: two of one name end each other's connections.
    pub client_id: String,
    /// Pings go out this often. The link is given up when nothing was heard for three times this time, or longer while
    /// large messages are on their way; the broker is told to do the same. At least 5 s.
    pub keep_alive: Duration,
    /// Messages that may be unanswered at a time. A small one lets a new critical alert overtake a backlog.
    pub window: usize,
}

/// What one uplink delivers, and how.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Its place among the outbox's routes.
    pub route: usize,
    /// Bytes of pictures a second, so that a slow link is left to alerts.
    pub evidence_rate: u64,
    /// How long a broker keeps a picture for consoles that are away. Alerts are kept for ever.
    pub evidence_expiry: Duration,
}

/// What the box says of itself. Each is published when it changed and after each connection; only the newest counts.
#[derive(Clone, Debug)]
pub struct Reports {
    /// Cameras, detector, outbox, uplink.
    pub health: watch::Receiver<Health>,
    /// The model that looks.
    pub models: watch::Receiver<Models>,
}

/// How the uplink does.
#[derive(Clone, Debug, PartialEq)]
pub struct UplinkStats {
    /// For the health report: of all its brokers together.
    pub health: UplinkHealth,
    /// Of each of its brokers, for the metrics: counters of one that another stands in for stay its own.
    pub brokers: Vec<UplinkHealth>,
    /// From the arrival of the frame to PUBLISH.
    pub latency: Latency,
}

impl UplinkStats {
    /// Nothing happened yet.
    pub fn new(broker: Name) -> Self {
        let health = untouched(broker);
        Self { brokers: vec![health.clone()], health, latency: Latency::default() }
    }

    fn of(&mut self, broker: &Name) -> &mut UplinkHealth {
        let known = self.brokers.iter().position(|known| known.broker == *broker);
        let at = known.unwrap_or_else(|| {
            self.brokers.push(untouched(broker.clone()));
            self.brokers.len() - 1
        });
        &mut self.brokers[at]
    }

    /// What happened with a broker.
    fn tell(&mut self, broker: &Name, change: impl Fn(&mut UplinkHealth)) {
        self.health.broker.clone_from(broker);
        change(&mut self.health);
        change(self.of(broker));
    }
}

fn untouched(broker: Name) -> UplinkHealth {
    UplinkHealth { broker, connected: false, reason: None, acknowledged: 0, failures: 0, refused: 0 }
}

/// Delivers until `shutdown`, then says goodbye within 3 s.
///
/// It never fails: whatever goes wrong is in `stats` and tried again. Alerts that were not acknowledged stay in the outbox.
/// The first of `brokers` that is there gets everything; the others stand in for it, until it is back.
#[allow(clippy::too_many_arguments)] // what it joins
pub async fn run(
    brokers: Vec<UplinkOptions>,
    delivery: Delivery,
    commands: Arc<Commands>,
    clock: Arc<Clock>,
    site: Site,
    outbox: Outbox,
    reports: Reports,
    stats: watch::Sender<UplinkStats>,
    shutdown: CancellationToken,
) {
    let backoff = |min, max| Backoff::new(min, max, 0.5).expect("0 < min < max, 0 <= 0.5 < 1");
    let stored = outbox.stored();
    stats.send_modify(|stats| {
        for broker in &brokers {
            stats.of(&broker.name); // there from the start
        }
    });
    let evidence = Budget::new(delivery.evidence_rate as f64, EVIDENCE_BURST, std::time::Instant::now());
    let mut uplink = Uplink {
        brokers,
        at: 0,
        failed: 0,
        unsubscribed: 0,
        delivery,
        commands,
        evidence,
        clock,
        site,
        outbox,
        stored,
        reports,
        stats,
        shutdown,
        samples: Samples::default(),
        backoff: backoff(Duration::from_millis(500), Duration::from_secs(60)),
        // A password does not become right by trying, and brokers lock accounts too.
        refusals: backoff(Duration::from_secs(30), Duration::from_secs(600)),
        suspects: Vec::new(),
        barren: false,
        barred: Barred::default(),
    };
    let mut link = Link::Connecting;
    loop {
        link = match link {
            Link::Connecting => uplink.connect().await,
            Link::Up(session) => uplink.serve(session).await,
            Link::Down { until } => uplink.wait(until).await,
            Link::Ended => break,
        };
    }
}

/// What the uplink is doing.
enum Link {
    Connecting,
    Up(Box<Session>),
    Down { until: Instant },
    Ended,
}

/// What lasts over connections.
struct Uplink {
    brokers: Vec<UplinkOptions>,
    /// The broker that is spoken to, or tried.
    at: usize,
    /// How often it was tried, or served, without an answer to a message.
    failed: u32,
    /// How often it ended the connection instead of answering the subscription to commands.
    unsubscribed: u32,
    delivery: Delivery,
    commands: Arc<Commands>,
    /// Of pictures.
    evidence: Budget,
    clock: Arc<Clock>,
    site: Site,
    outbox: Outbox,
    stored: watch::Receiver<u64>,
    reports: Reports,
    stats: watch::Sender<UplinkStats>,
    shutdown: CancellationToken,
    samples: Samples,
    backoff: Backoff,
    refusals: Backoff,
    /// Messages of which one made the broker end the last connection. While there are any, messages are sent one at a
    /// time, so that the next end names the one, which is then parked; else it would end every connection and
    /// hold up all others. Bounded by the window.
    suspects: Vec<What>,
    /// The last connection ended before the broker acknowledged any of the rows that it was sent: a link that breaks after
    /// a few packets would be given the same ones for ever. So the next one sends one message at a time, and rows before
    /// reports, until one is acknowledged.
    barren: bool,
    barred: Barred,
}

/// What the broker does not take as it is.
#[derive(Debug, Default)]
struct Barred {
    /// Whether the box is there, until a connection has brought an alert to the broker without saying so.
    status: bool,
    /// Reports, until they change.
    health: bool,
    models: bool,
    /// Why it ended the last connection over the subscription to commands. The next one does without: alerts come first.
    commands: Option<String>,
}

impl Uplink {
    async fn connect(&mut self) -> Link {
        let will = self.status(BoxState::Offline);
        let unreachable = self.barred.commands.take();
        let topics = if unreachable.is_none() { vec![self.site.command()] } else { Vec::new() };
        let result = tokio::select! {
            result = Broker::connect(self.options(), &self.clock, will, &topics) => result,
            () = self.shutdown.cancelled() => return Link::Ended,
        };
        match result {
            Ok(broker) => {
                let UplinkOptions { name, host, port, .. } = self.options().clone();
                tracing::info!(broker = %name, host, port, "connected");
                self.unsubscribed = 0;
                self.tell(&name, |health| (health.connected, health.reason) = (true, None));
                if let Some(why) = unreachable {
                    self.unreachable(&why);
                }
                self.refusals.reset();
                let until = (self.at > 0).then(|| Instant::now() + RETURN_AFTER);
                self.reports.health.mark_unchanged();
                self.reports.models.mark_unchanged();
                self.stored.mark_unchanged();
                Link::Up(Box::new(Session::new(
                    broker,
                    !self.suspects.is_empty() || self.barren,
                    &self.barred,
                    until,
                )))
            }
            Err(failure) => self.down(&failure),
        }
    }

    async fn wait(&mut self, until: Instant) -> Link {
        tokio::select! {
            () = tokio::time::sleep_until(until) => Link::Connecting,
            () = self.shutdown.cancelled() => Link::Ended,
        }
    }

    /// Alerts go out, but commands do not come in.
    fn unreachable(&self, why: &str) {
        tracing::error!("no commands reach this box: {why}");
        self.tell(&self.options().name, |health| health.reason = Some(why.to_owned()));
    }

    /// The connection ended: what was on its way is sent again, from the outbox.
    fn lost(&mut self, session: &Session, failure: &Failure) -> Link {
        self.barren |=
            session.in_flight.iter().any(|sent| matches!(sent.what, What::Row(_))) && !session.fruitful;
        self.barred.status &= !session.fruitful;
        if let Failure::Message(why) = failure {
            match session.only_one() {
                Some(message) if self.suspects.contains(&message) => {
                    self.suspects.retain(|suspect| *suspect != message);
                    self.refused(message, why);
                    self.backoff.reset(); // it was this message, and not the link
                }
                _ => self.suspects = session.in_flight.iter().map(|sent| sent.what).collect(),
            }
        }
        if session.phase == Phase::Serving { self.down(failure) } else { Link::Ended }
    }

    fn options(&self) -> &UplinkOptions {
        &self.brokers[self.at]
    }

    /// What happened with a broker.
    fn tell(&self, broker: &Name, change: impl Fn(&mut UplinkHealth)) {
        self.stats.send_modify(|stats| stats.tell(broker, change));
    }

    fn down(&mut self, failure: &Failure) -> Link {
        let UplinkOptions { name, host, port, .. } = self.options().clone();
        let broker = format!("broker {host}:{port}");
        self.failed += 1;
        if self.failed >= PATIENCE && self.brokers.len() > 1 {
            (self.at, self.failed, self.unsubscribed) = ((self.at + 1) % self.brokers.len(), 0, 0);
            self.barred.status = false;
            tracing::warn!(broker = %self.options().name, "trying another broker");
        }
        match failure {
            Failure::Subscription(why) => self.barred.commands = Some(why.clone()),
            // Once it may be the link.
            Failure::Unsubscribed(why) => {
                self.unsubscribed += 1;
                if self.unsubscribed >= PATIENCE {
                    (self.barred.commands, self.unsubscribed) = (Some(why.clone()), 0);
                }
            }
            _ => {}
        }
        let (reason, wait) = match failure {
            Failure::Lost(why)
            | Failure::Message(why)
            | Failure::Subscription(why)
            | Failure::Unsubscribed(why) => (format!("{broker}: {why}"), self.backoff.next(fastrand::f64())),
            Failure::Refused(why) => {
                let wait = self.refusals.next(fastrand::f64());
                // Another broker may let this box in.
                (
                    format!("{broker}: {why}"),
                    if self.brokers.len() > 1 { wait.min(REFUSED_REST) } else { wait },
                )
            }
        };
        // Once, not at each attempt.
        if self.stats.borrow().health.reason.as_ref() == Some(&reason) {
            tracing::debug!(?wait, "{reason}");
        } else {
            tracing::warn!(?wait, "no connection: {reason}");
        }
        self.tell(&name, |health| {
            (health.connected, health.reason) = (false, Some(reason.clone()));
            health.failures += 1;
        });
        Link::Down { until: Instant::now() + wait }
    }

    fn status(&self, state: BoxState) -> Publication {
        let status = Status { state, agent: env!("CARGO_PKG_VERSION").into() };
        report(self.site.status(), &status)
    }
}

/// A retained report in JSON.
fn report(topic: String, content: &impl serde::Serialize) -> Publication {
    let payload = serde_json::to_vec(content).expect("reports hold nothing that JSON cannot say");
    Publication { topic, payload, content_type: "application/json", retain: true, ..Publication::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_broker_counted_stays_its_own_while_another_stands_in() {
        let name = |text: &str| Name::new(text).unwrap();
        let mut stats = UplinkStats::new(name("township"));
        stats.of(&name("district"));
        stats.tell(&name("township"), |health| health.acknowledged += 2);
        stats.tell(&name("township"), |health| health.failures += 1);
        stats.tell(&name("district"), |health| health.connected = true);
        stats.tell(&name("district"), |health| health.acknowledged += 5);
        let counts = |of: &UplinkHealth| (of.broker.to_string(), of.connected, of.acknowledged, of.failures);
        assert_eq!(counts(&stats.health), ("district".into(), true, 7, 1));
        assert_eq!(
            stats.brokers.iter().map(counts).collect::<Vec<_>>(),
            [("township".into(), false, 2, 1), ("district".into(), true, 5, 0)]
        );
    }
}
