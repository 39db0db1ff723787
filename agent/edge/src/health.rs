//! The health report: what every part says of itself, in one message.

use std::sync::Arc;
use std::time::Duration;

use jiff::Unit;
use sharp_eyes_protocol::alert::seconds;
use sharp_eyes_protocol::report::{CameraHealth, Health, UplinkHealth};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::beat;
use crate::board::Board;
use crate::clock::Clock;
use crate::commands::Commands;
use crate::latency::Latency;
use crate::outbox::Outbox;
use crate::uplink::UplinkStats;

/// Health is published at least this often.
const INTERVAL: Duration = Duration::from_secs(60);

/// States are compared this often: a camera that flaps must not fill a slow link.
const REST: Duration = Duration::from_secs(1);

/// Asks every part how it is.
#[derive(Debug)]
pub struct Examiner {
    /// Cameras and detector.
    pub board: Arc<Board>,
    /// Both clocks.
    pub clock: Arc<Clock>,
    /// What waits for the broker.
    pub outbox: Outbox,
    /// The ways to the brokers.
    pub uplinks: Vec<watch::Receiver<UplinkStats>>,
    /// What consoles ask for.
    pub commands: Arc<Commands>,
}

impl Examiner {
    /// The report of this moment.
    pub fn health(&self) -> Health {
        let (now, clock) = self.clock.now();
        Health {
            time: now.round(Unit::Millisecond).unwrap_or(now),
            clock,
            boot: self.clock.boot().to_owned(),
            up_s: seconds(self.clock.since_boot(std::time::Instant::now())),
            uptime_s: self.clock.uptime().as_secs(),
            cameras: self.board.cameras.iter().map(|card| card.health()).collect(),
            detector: self.board.detector.health(),
            outbox: self.outbox.stats(),
            uplinks: self.uplinks.iter().map(|stats| stats.borrow().health.clone()).collect(),
            commands: self.commands.health(),
            configuration: self.board.configuration(),
        }
    }

    /// Each broker by itself, also where they stand in for each other.
    pub fn brokers(&self) -> Vec<UplinkHealth> {
        self.uplinks.iter().flat_map(|stats| stats.borrow().brokers.clone()).collect()
    }

    /// How long alerts take on the first way out.
    pub fn latency(&self) -> Latency {
        self.uplinks[0].borrow().latency
    }

    /// How long it takes to look at a camera that was woken.
    pub fn wakeups(&self) -> Latency {
        self.board.detector.wakeups()
    }

    /// Sends a new report when a state changed, and every minute. Counters alone are no change.
    pub async fn report(&self, health: &watch::Sender<Health>) {
        let mut sent = Instant::now();
        loop {
            beat::rest(REST).await;
            let now = self.health();
            if sent.elapsed() >= INTERVAL || states(&now) != states(&health.borrow()) {
                sent = Instant::now();
                health.send_replace(now);
            }
        }
    }
}

/// Everything in a report that is worth a message.
fn states(health: &Health) -> impl PartialEq + use<> {
    let doubt = |camera: &CameraHealth| camera.gate.as_ref().and_then(|gate| gate.doubt.clone());
    let cameras: Vec<_> = health
        .cameras
        .iter()
        .map(|camera| (camera.state, camera.reason.clone(), camera.tampered, doubt(camera)))
        .collect();
    let outbox = &health.outbox;
    (
        health.clock,
        cameras,
        (health.detector.state, health.detector.reason.clone()),
        (outbox.failure.clone(), outbox.open, outbox.parked, outbox.evicted_alerts, outbox.evicted_evidence),
        health.uplinks.iter().map(|uplink| (uplink.connected, uplink.refused)).collect::<Vec<_>>(),
        health.configuration.clone(),
    )
}
