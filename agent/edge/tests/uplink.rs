//! Outbox and uplink against a real mosquitto. Longer faults are in the end-to-end suite.

#![allow(clippy::unwrap_used)] // a panic is how a test says no

mod broker;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use broker::rogue::{Manners, Rogue};
use broker::{Certificates, Gate, Mosquitto, Received, Subscriber};
use jiff::Timestamp;
use sharp_eyes_agent::board::Board;
use sharp_eyes_agent::camera::GateOptions;
use sharp_eyes_agent::clock::Clock;
use sharp_eyes_agent::commands::Commands;
use sharp_eyes_agent::escalation::Escalation;
use sharp_eyes_agent::outbox::{NewAlert, NewEvidence, Outbox, OutboxOptions, Receipt, WallClock};
use sharp_eyes_agent::secret::Secret;
use sharp_eyes_agent::snapshots::Snapshots;
use sharp_eyes_agent::uplink::{self, Delivery, Reports, TlsOptions, UplinkOptions, UplinkStats};
use sharp_eyes_protocol::alert::{Alert, AlertData, AlertKind, AlertState, ClockTrust, ModelName, Subject};
use sharp_eyes_protocol::level::Severity;
use sharp_eyes_protocol::report::{
    CommandsHealth, DetectorHealth, DetectorState, Health, Models, OutboxHealth, UplinkHealth,
};
use sharp_eyes_protocol::topic::{Name, Site};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const LONG: Duration = Duration::from_secs(30);

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn site() -> Site {
    Site { district: name("d"), township: name("t"), village: name("v"), box_name: name("b") }
}

/// Decides an alert, with pictures or without.
fn raise(outbox: &Outbox, severity: Severity, picture: Option<usize>) -> Receipt {
    let data = AlertData {
        kind: AlertKind::Intrusion,
        severity,
        level: severity.first_level(),
        state: AlertState::Open,
        respond_s: None,
        over: false,
        count: None,
        tampering: None,
        cell: Some("B2".into()),
        class: None,
        confidence: Some(0.9),
        bounds: Some([0.1, 0.1, 0.2, 0.2]),
        model: Some(ModelName::new(name("test"), "1.0.0").unwrap()),
        clock: ClockTrust::Synced,
        boot: "0123abcd".into(),
        up_s: 7,
        evidence: false,
    };
    let subject = Subject { camera: name("gate"), zone: None };
    let id = Uuid::now_v7();
    let alert = NewAlert { id, time: Timestamp::now(), subject, data, arrived: Instant::now() };
    let receipt = outbox.append(alert).unwrap();
    if let Some(size) = picture {
        let (thumbnail, picture) = (vec![0xee; 100], vec![0xff; size]);
        outbox.attach(NewEvidence { alert: id, severity, thumbnail, picture });
    }
    receipt
}

fn health(uptime_s: u64) -> Health {
    Health {
        time: Timestamp::now(),
        clock: ClockTrust::Synced,
        boot: "0123abcd".into(),
        up_s: 7,
        uptime_s,
        cameras: Vec::new(),
        detector: DetectorHealth {
            state: DetectorState::Running,
            reason: None,
            inferences: 0,
            inference_ms: 1.0,
            failures: 0,
        },
        outbox: OutboxHealth::default(),
        uplinks: Vec::new(),
        commands: CommandsHealth::default(),
        configuration: None,
    }
}

fn options(port: u16) -> UplinkOptions {
    UplinkOptions {
        name: name("township"),
        host: "localhost".into(),
        port,
        tls: None,
        credentials: None,
        client_id: "d.t.v.b".into(),
        keep_alive: Duration::from_secs(5),
        window: 16,
    }
}

/// A box without cameras.
struct Agent {
    outbox: Outbox,
    stats: watch::Receiver<UplinkStats>,
    health: watch::Sender<Health>,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<()>,
    _models: watch::Sender<Models>,
    _folder: TempDir,
}

impl Agent {
    fn start(options: UplinkOptions) -> Self {
        Self::start_with(vec![options])
    }

    fn start_with(brokers: Vec<UplinkOptions>) -> Self {
        let folder = TempDir::new().unwrap();
        let settings = OutboxOptions {
            folder: folder.path().into(),
            max_bytes: 64 << 20,
            max_age: Duration::MAX,
            max_delivered: 0,
            routes: vec!["township".into()],
            pictures_on_request: false,
            escalation: Escalation::default(),
        };
        let clock: WallClock = Arc::new(|| (Timestamp::now(), ClockTrust::Unsynced));
        let outbox = Outbox::start(settings, site(), clock).unwrap();
        let (sender, stats) = watch::channel(UplinkStats::new(name("broker")));
        let (health, seen) = watch::channel(health(1));
        let (models, models_seen) = watch::channel(Models::default());
        let shutdown = CancellationToken::new();
        let reports = Reports { health: seen, models: models_seen };
        let clock = Arc::new(Clock::start(folder.path()));
        let stop = shutdown.clone();
        let snapshots =
            Arc::new(Snapshots::new(Arc::new(Board::new([(name("gate"), GateOptions::default(), None)]))));
        let commands = Arc::new(Commands::new(site(), outbox.clone(), snapshots, None));
        let delivery =
            Delivery { route: 0, evidence_rate: 1 << 20, evidence_expiry: Duration::from_secs(3600) };
        let task = tokio::spawn(uplink::run(
            brokers,
            delivery,
            commands,
            clock,
            site(),
            outbox.clone(),
            reports,
            sender,
            stop,
        ));
        Self { outbox, stats, health, shutdown, task, _models: models, _folder: folder }
    }

    async fn until(&self, what: &str, wanted: impl Fn(&UplinkStats) -> bool) -> UplinkStats {
        let mut stats = self.stats.clone();
        let result = tokio::time::timeout(LONG, stats.wait_for(|stats| wanted(stats))).await;
        result.unwrap_or_else(|_| panic!("no {what}: {:?}", self.stats.borrow())).unwrap().clone()
    }

    async fn delivered(&self) {
        let mut health = self.outbox.watch();
        let result =
            tokio::time::timeout(LONG, health.wait_for(|health| health.alerts + health.evidence == 0)).await;
        result.unwrap_or_else(|_| panic!("not delivered: {:?}", self.outbox.stats())).unwrap();
    }
}

fn ids<'a>(received: impl IntoIterator<Item = &'a Received>) -> BTreeSet<u64> {
    let alerts = received.into_iter().filter(|message| message.topic.contains("/alert/"));
    alerts.map(|message| serde_json::from_slice::<Alert>(&message.payload).unwrap().sequence).collect()
}

#[tokio::test]
async fn alerts_pictures_and_reports_arrive_and_the_goodbye_is_said() {
    let broker = Mosquitto::start("allow_anonymous true").await;
    let mut console = Subscriber::start(broker.port).await;
    let agent = Agent::start(options(broker.port));
    agent.until("connection", |stats| stats.health.connected).await;
    let mut receipts = Vec::new();
    for n in 0..200 {
        receipts.push(raise(&agent.outbox, Severity::ALL[n % 3], (n % 50 == 0).then_some(30_000)));
    }
    for receipt in receipts {
        receipt.stored().await.unwrap();
    }
    agent.health.send_replace(health(2));
    agent.delivered().await;
    let stats = agent.until("acknowledgements", |stats| stats.health.acknowledged >= 212).await;
    let latency = stats.latency;
    eprintln!("arrived to PUBLISH of {} alerts: {latency:?}", latency.count);
    assert_eq!(latency.count, 200);
    agent.shutdown.cancel();
    tokio::time::timeout(LONG, agent.task).await.unwrap().unwrap();
    let offline = |message: &Received| message.text().contains("offline");
    let all = console.until("goodbye", |all| all.iter().any(offline)).await;
    assert_eq!(ids(all), (1..=200).collect());
    let pictures: Vec<_> = all.iter().filter(|message| message.topic.contains("/evidence/")).collect();
    assert_eq!(pictures.len(), 4);
    assert!(
        pictures
            .iter()
            .all(|picture| picture.payload.len() == 30_000 && picture.content_type == "image/jpeg")
    );
    let first = |part: &str| all.iter().find(|message| message.topic.ends_with(part)).unwrap();
    assert_eq!(first("/alert/district").content_type, "application/cloudevents+json");
    assert!(first("/status").text().contains("online"));
    assert!(first("/models").text().contains("active"));
    assert!(
        all.iter()
            .any(|message| message.topic.ends_with("/health") && message.text().contains("\"uptime_s\":2"))
    );
    assert!(
        all.iter().filter(|message| offline(message)).count() == 1,
        "the will is not published after a goodbye"
    );
    let mut late = Subscriber::start(broker.port).await;
    let kept = late.until("retained reports", |all| all.len() == 3).await;
    assert!(kept.iter().all(|message| message.retained), "{kept:?}");
}

#[tokio::test]
async fn an_outage_from_the_start_and_kills_in_between_lose_nothing() {
    let mut broker = Mosquitto::reserve("allow_anonymous true");
    let gate = Gate::start(broker.port).await;
    let agent = Agent::start(options(gate.port));
    let reason = agent.until("reason", |stats| stats.health.reason.is_some()).await.health.reason.unwrap();
    assert!(reason.contains(&gate.port.to_string()), "{reason}");
    let mut seen = BTreeSet::new();
    for round in 1..=3_u64 {
        for _ in 0..40 {
            raise(&agent.outbox, Severity::Major, None);
        }
        broker.run().await;
        let mut console = Subscriber::start(broker.port).await;
        gate.open(true);
        if round == 3 {
            agent.delivered().await;
        }
        // The broker dies while acknowledgements are on their way.
        let all = console.until("alerts", |all| ids(all).len() >= if round == 3 { 1 } else { 3 }).await;
        if round == 3 {
            let mut rest: BTreeSet<u64> = (1..=120).collect();
            rest.retain(|id| !seen.contains(id));
            let all = console.until("the rest", |all| ids(all).is_superset(&rest)).await;
            seen.extend(ids(all));
        } else {
            seen.extend(ids(all));
            broker.kill();
            seen.extend(ids(console.rest().await));
            gate.open(false);
            agent.until("outage", |stats| !stats.health.connected).await;
        }
    }
    assert_eq!(seen, (1..=120).collect(), "every alert reached a subscriber");
    let left = OutboxHealth { sequence: 120, open: 120, ..OutboxHealth::default() };
    assert_eq!(agent.outbox.stats(), left);
}

#[tokio::test]
async fn a_dead_agent_is_reported_by_its_will() {
    let broker = Mosquitto::start("allow_anonymous true").await;
    let mut console = Subscriber::start(broker.port).await;
    let agent = Agent::start(options(broker.port));
    console.until("online", |all| all.iter().any(|message| message.text().contains("online"))).await;
    agent.task.abort();
    console.until("will", |all| all.iter().any(|message| message.text().contains("offline"))).await;
}

#[tokio::test]
async fn a_broker_that_stands_still_is_noticed_though_its_kernel_still_takes_bytes() {
    let broker = Mosquitto::start("allow_anonymous true").await;
    let agent = Agent::start(options(broker.port));
    agent.until("reports", |stats| stats.health.acknowledged >= 3).await;
    broker.freeze();
    let start = Instant::now();
    raise(&agent.outbox, Severity::Critical, None);
    let stats = agent.until("end", |stats| !stats.health.connected).await;
    eprintln!("noticed after {:?}", start.elapsed());
    let reason = stats.health.reason.unwrap();
    assert!(reason.contains("nothing heard for"), "{reason}");
    assert_eq!(agent.outbox.stats().alerts, 1, "the alert waits");
}

#[tokio::test]
async fn a_wrong_password_is_named_and_never_shown() {
    let broker = Mosquitto::start("password_file {folder}/passwords").await;
    let with = |password: &str| UplinkOptions {
        credentials: Some(("box".into(), Secret::new(password))),
        ..options(broker.port)
    };
    let agent = Agent::start(with("rosebud-wrong"));
    let stats = agent.until("refusal", |stats| stats.health.reason.is_some()).await;
    let reason = stats.health.reason.unwrap();
    assert!(reason.contains("refuses this box's user, password"), "{reason}");
    assert!(!format!("{reason} {:?}", with("rosebud-wrong")).contains("rosebud"));
    agent.task.abort();
    let agent = Agent::start(with("rosebud"));
    agent.until("connection", |stats| stats.health.connected).await;
}

#[tokio::test]
async fn refused_messages_are_parked_and_hold_up_nothing() {
    // Reports and the alerts of two levels are allowed, a third and large messages are not.
    let broker = Mosquitto::start(
        "allow_anonymous true\nacl_file {folder}/acl\nmessage_size_limit 20000\nmax_inflight_messages 8",
    )
    .await;
    let mut console = Subscriber::start(broker.port).await;
    let agent = Agent::start(options(broker.port));
    for _ in 0..5 {
        raise(&agent.outbox, Severity::Critical, None); // district: not allowed
        raise(&agent.outbox, Severity::Major, Some(10_000));
        raise(&agent.outbox, Severity::Minor, Some(30_000)); // the picture is too large
    }
    let allowed = console
        .until("what is allowed", |all| {
            ids(all).len() == 10
                && all.iter().filter(|message| message.topic.contains("/evidence/")).count() >= 5
        })
        .await;
    assert!(allowed.iter().all(|message| !message.topic.ends_with("/district")));
    let stats = agent.until("refusals", |stats| stats.health.refused >= 10).await;
    assert_eq!(stats.health.refused, 10, "{stats:?}");
    let mut health = agent.outbox.watch();
    let parked = health.wait_for(|health| (health.alerts, health.parked) == (0, 10));
    tokio::time::timeout(LONG, parked).await.unwrap().unwrap();
}

#[tokio::test]
async fn tls_with_certificates_of_the_box_and_none_other() {
    let certificates = Certificates::make();
    let folder = certificates.folder.path().display();
    let broker = Mosquitto::start(&format!(
        "allow_anonymous true\ncafile {folder}/ca.pem\ncertfile {folder}/server.pem\nkeyfile {folder}/server.key\n\
         require_certificate true"
    ))
    .await;
    let file = |name: &str| certificates.folder.path().join(name);
    let with = |ca: &str, client| UplinkOptions {
        tls: Some(TlsOptions { ca: file(ca), client }),
        ..options(broker.port)
    };
    let agent = Agent::start(with("ca.pem", Some((file("box.pem"), file("box.key")))));
    raise(&agent.outbox, Severity::Major, Some(10_000));
    agent.outbox.stored().wait_for(|last| *last == 1).await.unwrap();
    agent.delivered().await;
    agent.task.abort();
    for (options, says) in [
        (with("ca.pem", None), "ertificate"),
        (with("other.pem", Some((file("box.pem"), file("box.key")))), "ertificate"),
        (with("missing.pem", None), "missing.pem"),
    ] {
        let agent = Agent::start(options);
        let stats = agent.until("refusal", |stats| stats.health.reason.is_some()).await;
        let reason = stats.health.reason.unwrap();
        assert!(reason.contains(says), "{reason}");
        agent.task.abort();
    }
}

#[tokio::test]
async fn a_broker_that_breaks_the_protocol_is_left_and_tried_again() {
    // An empty topic, and an alias for it that was never given.
    let rogue = Rogue::start(Manners::Says(vec![0x30, 6, 0, 0, 3, 0x23, 0, 1])).await;
    let agent = Agent::start(options(rogue.port));
    let stats = agent.until("failures", |stats| stats.health.failures >= 3).await;
    assert!(!agent.task.is_finished());
    let reason = stats.health.reason.unwrap_or_default();
    assert!(reason.contains("broke the protocol"), "{reason}");
}

#[tokio::test]
async fn a_broker_that_lets_the_box_in_and_takes_nothing_gives_way_to_the_next() {
    let (rogue, broker) =
        (Rogue::start(Manners::HangsUp).await, Mosquitto::start("allow_anonymous true").await);
    let district = UplinkOptions { name: name("district"), ..options(broker.port) };
    let agent = Agent::start_with(vec![options(rogue.port), district]);
    raise(&agent.outbox, Severity::Critical, None);
    agent.delivered().await;
    let of = |stats: &UplinkStats, broker| {
        let is_it = |one: &&UplinkHealth| one.broker == name(broker);
        stats.brokers.iter().find(is_it).cloned()
    };
    let counted = |stats: &UplinkStats| of(stats, "district").is_some_and(|one| one.acknowledged > 0);
    let stats = agent.until("the count", counted).await;
    let first = of(&stats, "township").unwrap();
    assert!(!first.connected && first.acknowledged == 0 && first.failures > 0, "{stats:?}");
}

#[tokio::test]
async fn alerts_pass_a_broker_that_hangs_up_on_subscriptions_or_disconnects_over_the_status() {
    for manners in [Manners::HangsUpOnSubscriptions, Manners::RefusesStatus] {
        let rogue = Rogue::start(manners.clone()).await;
        let agent = Agent::start(options(rogue.port));
        agent.until("failures", |stats| stats.health.failures >= 2).await;
        for _ in 0..20 {
            raise(&agent.outbox, Severity::Major, None).stored().await.unwrap();
        }
        agent.delivered().await;
        agent.until("a connection that stays", |stats| stats.health.connected).await;
        assert!(agent.stats.borrow().health.failures < 6, "{manners:?}: {:?}", agent.stats.borrow());
    }
}

#[tokio::test]
async fn alerts_pass_among_commands_that_nobody_acknowledges() {
    // PUBLISH with QoS 0: a command with a topic for its answer, and no sense in it.
    let topic = site().command();
    let mut body = (topic.len() as u16).to_be_bytes().to_vec();
    body.extend(topic.as_bytes());
    let properties = [&[0x08, 0, 1, b'r'][..], &[0x09, 0, 1, 7]].concat();
    body.push(properties.len() as u8);
    body.extend(properties);
    body.extend(b"nonsense");
    let command = [&[0x30, body.len() as u8], body.as_slice()].concat();
    let rogue = Rogue::start(Manners::Says(command.repeat(20_000))).await;
    let agent = Agent::start(options(rogue.port));
    for _ in 0..20 {
        raise(&agent.outbox, Severity::Major, None).stored().await.unwrap();
    }
    agent.delivered().await;
    assert_eq!(agent.stats.borrow().health.failures, 0, "{:?}", agent.stats.borrow());
}
