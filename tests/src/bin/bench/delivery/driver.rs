//! The agent from the outbox on, as a process of its own: alerts are decided here in the place of the cameras.
//!
//! ```text
//! bench driver append FOLDER SEVERITY PER_SECOND COUNT          until each is durable
//! bench driver fill FOLDER COUNT                                so many messages that wait for a broker
//! bench driver deliver FOLDER SEVERITY PER_SECOND COUNT PORT    to a broker, beside what waits there already
//! ```
//!
//! It prints `ready`, waits for a line on its standard input, does its work, prints what it found as one line of JSON,
//! and ends with its input: so whoever started it can look at it before and afterwards.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use sharp_eyes_agent::board::Board;
use sharp_eyes_agent::clock::Clock;
use sharp_eyes_agent::commands::Commands;
use sharp_eyes_agent::escalation::Escalation;
use sharp_eyes_agent::health::Examiner;
use sharp_eyes_agent::outbox::{NewAlert, Outbox, OutboxOptions, Receipt, WallClock};
use sharp_eyes_agent::snapshots::Snapshots;
use sharp_eyes_agent::uplink::{self, Delivery, Reports, UplinkOptions, UplinkStats};
use sharp_eyes_protocol::alert::{AlertData, AlertKind, AlertState, ModelName, Subject, seconds};
use sharp_eyes_protocol::class::ObjectClass;
use sharp_eyes_protocol::level::Severity;
use sharp_eyes_protocol::report::{Models, OutboxHealth};
use sharp_eyes_protocol::topic::{Name, Site};
use sharp_eyes_tests::process::Process;
use sharp_eyes_tests::wait;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Alerts that wait for the disk at a time while it is filled: fewer than the outbox holds.
const PENDING: usize = 512;

/// While it is filled, each alert of this many is critical: the others share its commit, as many as a commit takes.
pub(super) const CRITICAL_ONE_IN: u64 = 64;

/// Messages in flight to the broker, as the agent has them.
pub(super) const WINDOW: usize = 16;

/// What `append` found.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Appended {
    /// From the decision until durable, milliseconds, one for each alert.
    pub(super) ms: Vec<f64>,
    /// Of the alerts themselves.
    pub(super) payload_bytes: u64,
    pub(super) seconds: f64,
}

/// What `fill` found.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Filled {
    pub(super) waiting: u64,
    /// Those of them that are sent before the others.
    pub(super) critical: u64,
    pub(super) bytes: u64,
}

/// What `deliver` found.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Delivered {
    /// From the decision to PUBLISH, milliseconds.
    pub(super) publish_ms_p50: f64,
    pub(super) publish_ms_p99: f64,
}

/// A driver that was started and is ready.
pub(super) struct Driver {
    process: Process,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Driver {
    /// `prepare` may put it under a disk.
    pub(super) fn start(
        folder: &Path,
        arguments: &[&str],
        prepare: impl FnOnce(&mut Command),
    ) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("driver").args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        prepare(&mut command);
        let mut process = Process::start("driver", command, &folder.join("driver.log"))?;
        let (input, output) = process.take_pipes();
        let output = BufReader::new(output.context("no standard output")?);
        let mut driver = Self { process, input, output };
        let word = driver.line()?;
        ensure!(word == "ready", "the driver says {word:?}");
        Ok(driver)
    }

    /// Has it do its work, and returns what it found.
    pub(super) fn work<T: for<'a> Deserialize<'a>>(&mut self) -> Result<T> {
        self.go()?;
        self.found()
    }

    /// Has it begin.
    pub(super) fn go(&mut self) -> Result<()> {
        writeln!(self.input.as_mut().context("it was ended")?, "go").context("starting the driver's work")
    }

    /// Waits until its work is done.
    pub(super) fn found<T: for<'a> Deserialize<'a>>(&mut self) -> Result<T> {
        let line = self.line()?;
        serde_json::from_str(&line).with_context(|| format!("reading {line:?}"))
    }

    /// Lets it end in good order.
    pub(super) fn end(mut self) -> Result<()> {
        drop(self.input.take());
        let status = self.process.wait(3 * wait::PATIENCE)?;
        ensure!(status.success(), "the driver: {}", self.process.last_words(5));
        Ok(())
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        let length = self.output.read_line(&mut line)?;
        ensure!(length > 0, "the driver ended: {}", self.process.last_words(5));
        Ok(line.trim().to_owned())
    }
}

/// The process itself.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    runtime.block_on(async {
        match arguments[..] {
            ["append", folder, severity, per_second, count] => {
                append(Path::new(folder), severity.parse()?, per_second.parse()?, count.parse()?).await
            }
            ["fill", folder, count] => fill(Path::new(folder), count.parse()?).await,
            ["deliver", folder, severity, per_second, count, port] => {
                let folder = Path::new(folder);
                deliver(folder, severity.parse()?, per_second.parse()?, count.parse()?, port.parse()?).await
            }
            _ => bail!("the driver cannot do {arguments:?}"),
        }
    })
}

async fn append(folder: &Path, severity: Severity, per_second: f64, count: u64) -> Result<()> {
    let decider = Decider::open(folder)?;
    // Tables, the reserve for a full disk and the first block of numbers are not what an alert costs.
    stored(decider.decide(Severity::Critical)?).await?;
    ready()?;
    let (before, started) = (decider.outbox.stats().bytes, Instant::now());
    let receipts = decider.decide_paced(severity, per_second, count).await?;
    let mut ms = Vec::new();
    for waited in receipts.join_all().await {
        ms.push(waited?.as_secs_f64() * 1000.0);
    }
    let payload_bytes = decider.outbox.stats().bytes - before;
    report(&Appended { ms, payload_bytes, seconds: started.elapsed().as_secs_f64() })?;
    decider.close().await
}

async fn fill(folder: &Path, count: u64) -> Result<()> {
    let decider = Decider::open(folder)?;
    ready()?;
    let mut pending = VecDeque::new();
    let mut critical = 0;
    // Above 10,000 open alerts each new one costs another's life, which is a message too: so they are not counted here.
    for n in 0_u64.. {
        if decider.outbox.stats().alerts >= count {
            break;
        }
        let severity = if n % CRITICAL_ONE_IN == 0 { Severity::Critical } else { Severity::Minor };
        critical += u64::from(severity == Severity::Critical);
        pending.push_back(decider.decide(severity)?);
        if pending.len() >= PENDING
            && let Some(receipt) = pending.pop_front()
        {
            stored(receipt).await?;
        }
    }
    // The last may be mild ones, which nothing hurries.
    pending.push_back(decider.decide(Severity::Critical)?);
    for receipt in pending {
        stored(receipt).await?;
    }
    let OutboxHealth { alerts, bytes, evicted_alerts, .. } = decider.outbox.stats();
    ensure!(evicted_alerts == 0, "{evicted_alerts} alerts did not fit");
    report(&Filled { waiting: alerts, critical: critical + 1, bytes })?;
    decider.close().await
}

async fn deliver(folder: &Path, severity: Severity, per_second: f64, count: u64, port: u16) -> Result<()> {
    let decider = Decider::open(folder)?;
    let (stats, mut stats_seen) = watch::channel(UplinkStats::new(name("township")));
    let stop = CancellationToken::new();
    let uplink = tokio::spawn(decider.uplink(port, stats, stop.clone()));
    stats_seen.wait_for(|stats| stats.health.connected).await?;
    ready()?;
    let receipts = decider.decide_paced(severity, per_second, count).await?;
    for waited in receipts.join_all().await {
        waited?;
    }
    let measured = stats_seen.wait_for(|stats| stats.latency.count >= count);
    let latency =
        tokio::time::timeout(wait::PATIENCE, measured).await.context("waiting for PUBLISH")??.latency;
    let ms = |quantile: Option<Duration>| quantile.map_or(f64::NAN, |time| time.as_secs_f64() * 1000.0);
    report(&Delivered { publish_ms_p50: ms(latency.p50), publish_ms_p99: ms(latency.p99) })?;
    stop.cancel();
    uplink.await?;
    decider.close().await
}

/// In the place of the cameras and the analysis.
struct Decider {
    clock: Arc<Clock>,
    outbox: Outbox,
}

impl Decider {
    fn open(folder: &Path) -> Result<Self> {
        let clock = Arc::new(Clock::start(folder));
        let options = OutboxOptions {
            folder: folder.to_owned(),
            max_bytes: 4 << 30,
            max_age: Duration::from_secs(30 * 86_400),
            max_delivered: 10_000,
            routes: vec!["*".into()],
            pictures_on_request: false,
            escalation: Escalation::default(),
        };
        let wall: WallClock = {
            let clock = clock.clone();
            Arc::new(move || clock.now())
        };
        Ok(Self { outbox: Outbox::start(options, site(), wall)?, clock })
    }

    fn decide(&self, severity: Severity) -> Result<Receipt> {
        let (time, trust) = self.clock.now();
        let arrived = Instant::now();
        let data = AlertData {
            kind: AlertKind::Intrusion,
            severity,
            level: severity.first_level(),
            state: AlertState::Open,
            respond_s: None,
            over: false,
            count: None,
            tampering: None,
            cell: Some("E3".into()),
            class: Some(ObjectClass::Person),
            confidence: Some(0.66),
            bounds: Some([0.475, 0.245, 0.102, 0.266]),
            model: Some(ModelName::new(name("village-detector"), "1.0.0")?),
            clock: trust,
            boot: self.clock.boot().to_owned(),
            up_s: seconds(self.clock.since_boot(arrived)),
            evidence: false,
        };
        let subject = Subject { camera: name("gate"), zone: Some(name("yard")) };
        Ok(self.outbox.append(NewAlert { id: Uuid::now_v7(), time, subject, data, arrived })?)
    }

    /// Decides alerts at an even pace, and returns how long each takes to be durable.
    async fn decide_paced(
        &self,
        severity: Severity,
        per_second: f64,
        count: u64,
    ) -> Result<JoinSet<Result<Duration>>> {
        let mut receipts = JoinSet::new();
        let mut pace = tokio::time::interval(Duration::from_secs_f64(1.0 / per_second));
        for _ in 0..count {
            pace.tick().await;
            let decided = Instant::now();
            let receipt = self.decide(severity)?;
            receipts.spawn(async move {
                stored(receipt).await?;
                Ok(decided.elapsed())
            });
        }
        Ok(receipts)
    }

    /// As the daemon joins it.
    fn uplink(
        &self,
        port: u16,
        stats: watch::Sender<UplinkStats>,
        stop: CancellationToken,
    ) -> impl Future<Output = ()> + Send + 'static {
        let site = site();
        let board = Arc::new(Board::new([]));
        let snapshots = Arc::new(Snapshots::new(board.clone()));
        let commands = Arc::new(Commands::new(site.clone(), self.outbox.clone(), snapshots, None));
        let examiner = Examiner {
            board,
            clock: self.clock.clone(),
            outbox: self.outbox.clone(),
            uplinks: vec![stats.subscribe()],
            commands: commands.clone(),
        };
        let (health, health_seen) = watch::channel(examiner.health());
        let (models, models_seen) = watch::channel(Models::default());
        let broker = UplinkOptions {
            name: name("township"),
            host: "127.0.0.1".into(),
            port,
            tls: None,
            credentials: None,
            client_id: "bench".into(),
            keep_alive: Duration::from_secs(5),
            window: WINDOW,
        };
        let delivery =
            Delivery { route: 0, evidence_rate: 65_536, evidence_expiry: Duration::from_secs(86_400) };
        let reports = Reports { health: health_seen, models: models_seen };
        let (clock, outbox) = (self.clock.clone(), self.outbox.clone());
        async move {
            let _models = models; // for as long as the uplink looks at it
            tokio::select! {
                () = uplink::run(vec![broker], delivery, commands, clock, site, outbox, reports, stats, stop) => {}
                () = examiner.report(&health) => {}
            }
        }
    }

    /// Waits for the end of the input, and ends in good order.
    async fn close(self) -> Result<()> {
        tokio::task::spawn_blocking(|| std::io::stdin().lock().read_line(&mut String::new())).await??;
        ensure!(self.outbox.close(wait::PATIENCE).await == 0, "alerts were lost");
        Ok(())
    }
}

/// Says so, and waits for the word to go.
fn ready() -> Result<()> {
    say("ready")?;
    let length = std::io::stdin().lock().read_line(&mut String::new())?;
    ensure!(length > 0, "told to end before the work");
    Ok(())
}

fn report(found: &impl Serialize) -> Result<()> {
    say(&serde_json::to_string(found)?)
}

fn say(line: &str) -> Result<()> {
    Ok(writeln!(std::io::stdout().lock(), "{line}")?)
}

async fn stored(receipt: Receipt) -> Result<u64> {
    receipt.stored().await.context("an alert never came to the disk: the driver's log says why")
}

fn site() -> Site {
    Site {
        district: name("lan-xi"),
        township: name("yun-shan"),
        village: name("wang-cun"),
        box_name: name("box-1"),
    }
}

fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}
