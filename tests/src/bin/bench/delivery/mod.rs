//! What delivery costs, from the decision to the broker: disk, wire, memory, time.
//!
//! # Layout
//!
//! - [`driver`]: the agent from the outbox on, as a process that decides alerts itself;
//! - `floor`: what delivery cannot cost less than;
//! - `table`: the figures, each beside its floor or goal.
//!
//! Each figure is of a real process against a real mosquitto, on the disk that holds the folder for temporary files
//! (`TMPDIR` chooses another).

pub(crate) mod driver;
mod floor;
mod table;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value};
use sharp_eyes_protocol::alert::AlertEvent;
use sharp_eyes_protocol::report::DetectorState;
use sharp_eyes_tests::agent::Agent;
use sharp_eyes_tests::broker::{Broker, BrokerOptions};
use sharp_eyes_tests::console::{Console, Received};
use sharp_eyes_tests::disk::Disk;
use sharp_eyes_tests::faulty_broker::{Direction, FaultyBroker, Kind, Seen};
use sharp_eyes_tests::link::{Link, Weather};
use sharp_eyes_tests::usage::Usage;
use sharp_eyes_tests::village::{Village, VillageCamera};
use sharp_eyes_tests::{disk, wait};

use crate::figures::percentile;
use driver::{Appended, Delivered, Driver, Filled};
use table::{Beside, Table};

/// Messages that wait while a backlog is drained.
const BACKLOG: u64 = 100_000;

/// Messages that wait while memory is measured.
const MILLION: u64 = 1_000_000;

/// A village's link: 64 kbit/s each way, 100 ms to the township and back.
const SLOW: Weather =
    Weather { delay: Duration::from_millis(50), up: Some(8_000), down: Some(8_000), ..Weather::CLEAR };

/// How long memory is watched.
const WATCHED: Duration = Duration::from_secs(10);

/// Measures and prints everything, and returns it as JSON.
pub(crate) fn measure() -> Result<Map<String, Value>> {
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    let mut table = Table::default();
    println!("delivery: alerts until they are durable");
    let payload = append(folder, &mut table)?;
    println!("delivery: alerts on a healthy link");
    healthy(folder, payload, &mut table)?;
    println!("delivery: {BACKLOG} messages");
    backlog(folder, payload, &mut table)?;
    println!("delivery: {MILLION} messages");
    million(folder, &mut table)?;
    Ok(table.to_json())
}

/// Until durable, and what the disk has to do for it. Returns the bytes of an alert.
fn append(folder: &Path, table: &mut Table) -> Result<usize> {
    let mut payload = 0;
    for (severity, kind) in [("critical", "critical"), ("major", "paced")] {
        for (per_second, count) in [(1_u32, 30_u32), (10, 200)] {
            let (state, notes) = (within(folder, "state")?, within(folder, "notes")?);
            let disk = Disk::counted(&state, &notes)?;
            let (rate, number) = (per_second.to_string(), count.to_string());
            let arguments = ["append", path(&state)?, severity, &rate, &number];
            let mut driver = Driver::start(folder, &arguments, |command| {
                disk.prepare(command, &disk::Fault::None);
            })?;
            let before = disk.counts()?;
            let found: Appended = driver.work()?;
            let after = disk.counts()?;
            driver.end()?;
            let (fsyncs, written) = (after.fsyncs - before.fsyncs, after.bytes - before.bytes);
            payload = usize::try_from(found.payload_bytes / u64::from(count))?;
            let floor =
                floor::synced_writes(folder, payload, f64::from(per_second), u64::from(count.min(50)))?;
            let at = format!("{kind} at {per_second} a second");
            // The plain names are those of the alerts that nothing holds up.
            let key = |name: &str| match (kind, per_second) {
                ("critical", 10) => name.to_owned(),
                _ => format!("{name}_{kind}_{per_second}_per_s"),
            };
            for percent in [50, 99] {
                let (value, least) = (percentile(&found.ms, percent), percentile(&floor, percent));
                let what = format!("until durable, {at}, p{percent} (ms)");
                table.add(&key(&format!("append_ms_p{percent}")), &what, value, Beside::Floor(least));
            }
            let per_alert = fsyncs as f64 / f64::from(count);
            table.add(
                &key("fsyncs_per_alert"),
                &format!("fsyncs an alert, {at}"),
                per_alert,
                Beside::Nothing,
            );
            let each_second = fsyncs as f64 / found.seconds;
            table.add(&key("fsyncs_per_s"), &format!("fsyncs a second, {at}"), each_second, Beside::Nothing);
            let amplification = written as f64 / found.payload_bytes as f64;
            let what = format!("bytes to disk for a byte of alert, {at}");
            table.add(&key("write_amplification"), &what, amplification, Beside::Floor(1.0));
        }
    }
    Ok(payload)
}

/// The way to the socket, and the bytes of it.
fn healthy(folder: &Path, payload: usize, table: &mut Table) -> Result<()> {
    let broker = broker(folder)?;
    let between = FaultyBroker::start(broker.port())?;
    let state = within(folder, "state")?;
    let (port, count) = (between.port().to_string(), 200);
    let arguments = ["deliver", path(&state)?, "critical", "5", &count.to_string(), &port];
    let mut driver = Driver::start(folder, &arguments, |_| {})?;
    let Delivered { publish_ms_p50, publish_ms_p99 } = driver.work()?;
    between.until("every alert to be acknowledged", |seen| {
        let (alerts, answers, _) = alerts_and_acknowledgements(seen);
        (alerts >= count && answers >= count).then_some(())
    })?;
    driver.end()?;
    let (what, goals) = ("decided to PUBLISH, healthy link, no evidence", [20.0, 60.0]);
    table.add(
        "decided_to_publish_ms_p50",
        &format!("{what}, p50 (ms)"),
        publish_ms_p50,
        Beside::Goal(goals[0]),
    );
    table.add(
        "decided_to_publish_ms_p99",
        &format!("{what}, p99 (ms)"),
        publish_ms_p99,
        Beside::Goal(goals[1]),
    );
    let seen = between.seen();
    let (alerts, _, bytes) = alerts_and_acknowledgements(&seen);
    let each = bytes as f64 / alerts as f64;
    let floor = Beside::Floor(payload as f64);
    table.add("wire_bytes_per_alert", "bytes of MQTT an alert, PUBLISH and PUBACK", each, floor);
    Ok(())
}

/// How many alerts went to the broker and how many answers came, and the bytes of both.
fn alerts_and_acknowledgements(seen: &[Seen]) -> (u64, u64, usize) {
    let alert = |topic: &Option<String>| topic.as_ref().is_some_and(|topic| topic.contains("/alert/"));
    let mut ids = BTreeSet::new();
    let (mut alerts, mut answers, mut bytes) = (0, 0, 0);
    for packet in seen {
        match (packet.direction, packet.kind) {
            (Direction::ToBroker, Kind::Publish) if alert(&packet.topic) => {
                ids.insert(packet.id);
                alerts += 1;
                bytes += packet.bytes;
            }
            (Direction::ToClient, Kind::PubAck) if ids.remove(&packet.id) => {
                answers += 1;
                bytes += packet.bytes;
            }
            _ => {}
        }
    }
    (alerts, answers, bytes)
}

/// A night's alerts: how fast they go, and how long a fresh one waits for them on a slow link.
fn backlog(folder: &Path, payload: usize, table: &mut Table) -> Result<()> {
    let village = village(folder)?;
    let filled = fill(folder, &village.state, BACKLOG)?;
    let copy = within(folder, "copy")?;
    for entry in std::fs::read_dir(&village.state)? {
        let file = entry?.path();
        std::fs::copy(&file, copy.join(file.file_name().context("a file without a name")?))?;
    }

    // The whole agent.
    let broker = broker(folder)?;
    let mut agent = start(&village, broker.port())?;
    let begun = agent.health_when("the first message", |health| {
        (health.uplinks[0].acknowledged > 0).then(|| (Instant::now(), health.uplinks[0].acknowledged))
    })?;
    let ended = wait::until("the backlog to be drained", 5 * wait::PATIENCE, || {
        let health = agent.health().ok()?;
        (health.outbox.alerts == 0).then(|| (Instant::now(), health.uplinks[0].acknowledged))
    })?;
    ensure!(agent.stop()? == 0, "the agent ended with an error");
    let rate = (ended.1 - begun.1) as f64 / (ended.0 - begun.0).as_secs_f64();
    let floor = floor::published_per_second(folder, broker.port(), payload, filled.waiting)?;
    table.add("drain_alerts_per_s", "drained a second over loopback", rate, Beside::Floor(floor));

    // The mild ones of the same backlog, when the critical ones among them are out.
    let link = Link::start(broker.port())?;
    let console = Console::connect(broker.port(), None)?;
    let (port, count) = (link.port().to_string(), 40);
    let arguments = ["deliver", path(&copy)?, "critical", "0.5", &count.to_string(), &port];
    let mut driver = Driver::start(folder, &arguments, |_| {})?;
    let critical = usize::try_from(filled.critical)?;
    console.wait_for("the critical ones of the backlog", wait::PATIENCE, |seen| {
        (seen.alerts.len() >= critical).then_some(())
    })?;
    link.set_weather(SLOW);
    let before = console.seen(|seen| seen.alerts.len());
    driver.go()?;
    let last = filled.waiting;
    let fresh = console.wait_for("the fresh alerts", 3 * wait::PATIENCE, |seen| {
        let fresh = seen.alerts[before..]
            .iter()
            .filter(|Received { alert, .. }| alert.sequence > last && alert.event == AlertEvent::Raised);
        let ways: Vec<f64> = fresh.map(|received| received.delivery().as_secs_f64()).collect();
        (ways.len() >= count).then_some(ways)
    })?;
    let drained = console.seen(|seen| seen.alerts.len()) - before;
    ensure!(drained > 2 * count, "nothing was drained beside them");
    let p99 = percentile(&fresh, 99);
    let what = format!("a fresh critical alert over 64 kbit/s, {BACKLOG} waiting, p99 (s)");
    table.add("critical_over_64kbit_s_p99", &what, p99, Beside::Goal(2.0));
    Ok(())
}

/// What a long time without a broker costs.
fn million(folder: &Path, table: &mut Table) -> Result<()> {
    let broker = broker(folder)?;
    let village = village(folder)?;
    let (start_0, memory_0) = memory(&village, broker.port(), 0)?;
    fill(folder, &village.state, MILLION)?;
    let (start_1m, memory_1m) = memory(&village, broker.port(), MILLION)?;
    table.add("memory_mb_0_rows", "memory, nothing waits (PSS, MB)", memory_0, Beside::Nothing);
    let goal = Beside::Goal(memory_0 + 64.0);
    table.add("memory_mb_1m_rows", "memory, draining 1,000,000 messages (PSS, MB)", memory_1m, goal);
    table.add("start_s_0_rows", "start to health report, nothing waits (s)", start_0, Beside::Nothing);
    let what = "start to health report, 1,000,000 messages wait (s)";
    table.add("start_s_1m_rows", what, start_1m, Beside::Floor(start_0));
    Ok(())
}

/// Seconds until the agent reports, and the most memory that it takes while it drains.
fn memory(village: &Village, port: u16, waiting: u64) -> Result<(f64, f64)> {
    let begun = Instant::now();
    let mut agent = start(village, port)?;
    let health = loop {
        match agent.health() {
            Ok(health) => break health,
            Err(error) if begun.elapsed() > wait::PATIENCE => return Err(error),
            Err(_) => wait::pause(Duration::from_millis(2)),
        }
    };
    let start = begun.elapsed().as_secs_f64();
    let outbox = health.outbox;
    ensure!(outbox.alerts + outbox.delivered >= waiting && outbox.evicted_alerts == 0, "{outbox:?}");
    agent.health_when("the detector to run", |health| {
        (health.detector.state == DetectorState::Running).then_some(())
    })?;
    let (watched, mut most) = (Instant::now(), 0);
    while watched.elapsed() < WATCHED {
        most = most.max(Usage::of(agent.process().pid())?.memory);
        wait::pause(Duration::from_millis(250));
    }
    let drained = agent.health()?.uplinks[0].acknowledged;
    ensure!(waiting == 0 || drained > 1000, "it drained only {drained}");
    agent.stop()?;
    Ok((start, most as f64 / f64::from(1 << 20)))
}

/// A box whose camera does not exist, in a folder of its own.
fn village(folder: &Path) -> Result<Village> {
    Ok(Village::new(&within(folder, "village")?, 0)?
        .with(VillageCamera::guarded("gate", "rtsp://127.0.0.1:9/none")))
}

fn start(village: &Village, port: u16) -> Result<Agent> {
    let village = Village { broker_port: port, ..village.clone() };
    Agent::start_with_configuration(&village, &village.toml().replace("\"512MB\"", "\"4GB\""))
}

fn fill(folder: &Path, state: &Path, count: u64) -> Result<Filled> {
    let mut driver = Driver::start(folder, &["fill", path(state)?, &count.to_string()], |_| {})?;
    let filled = driver.work()?;
    driver.end()?;
    Ok(filled)
}

fn broker(folder: &Path) -> Result<Broker> {
    Broker::start(&within(folder, "broker")?, &BrokerOptions::default())
}

/// A new folder, beside those of its name that there are.
fn within(folder: &Path, name: &str) -> Result<PathBuf> {
    let fresh = (1..).map(|n| folder.join(format!("{name}-{n}"))).find(|folder| !folder.exists());
    let fresh = fresh.context("no name is free")?;
    std::fs::create_dir(&fresh).with_context(|| format!("making {}", fresh.display()))?;
    Ok(fresh)
}

fn path(folder: &Path) -> Result<&str> {
    folder.to_str().context("a folder whose name is no text")
}
