//! The agent without its cameras as a process (`tests/src/bin/alert-source.rs`): decides alerts when it is told to, and
//! every promise that it made is kept here, whatever becomes of the process.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use sharp_eyes_agent::clock::Clock;
use sharp_eyes_agent::outbox::NewAlert;
use sharp_eyes_protocol::alert::{AlertData, AlertKind, AlertState, ModelName, Subject, seconds};
use sharp_eyes_protocol::level::Severity;
use sharp_eyes_protocol::report::Health;
use sharp_eyes_protocol::topic::Name;
use uuid::Uuid;

use crate::process::{Process, last_lines};
use crate::village::{Village, VillageCamera};
use crate::{places, wait};

/// An alert that was said to be durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its number.
    pub sequence: u64,
    /// Its id.
    pub id: Uuid,
    /// Its severity.
    pub severity: Severity,
    /// Since when, by the clock of the process.
    pub since: SystemTime,
}

/// What a process has said so far.
#[derive(Debug, Default)]
struct Said {
    stored: Vec<Stored>,
    lost: Vec<Uuid>,
    health: Option<Health>,
    nonsense: Option<String>,
}

/// A running process.
#[derive(Debug)]
pub struct AlertSource {
    process: Process,
    orders: Option<ChildStdin>,
    said: Arc<Mutex<Said>>,
    listener: Option<JoinHandle<()>>,
}

impl AlertSource {
    /// The box of a village in `folder`, whose broker listens on this port. Its camera does not exist, and no alert climbs
    /// while a test runs.
    pub fn village(folder: &Path, broker_port: u16) -> Result<Village> {
        let camera = VillageCamera::guarded("gate", "rtsp://127.0.0.1:9/none");
        let mut village = Village::new(folder, broker_port)?.with(camera);
        village.escalation_lines = "minor = \"24h\"\nmajor = \"24h\"\ncritical = \"24h\"\n".into();
        Ok(village)
    }

    /// Starts it with the configuration of a village. Returns at once.
    pub fn start(village: &Village) -> Result<Self> {
        Self::start_with(village, |_| {})
    }

    /// The same where the command is prepared further: by a disk, or a clock.
    pub fn start_with(village: &Village, prepare: impl FnOnce(&mut Command)) -> Result<Self> {
        let mut command = Command::new(places::binary("alert-source")?);
        command.arg(village.write()?).env("RUST_LOG", "info").stdin(Stdio::piped()).stdout(Stdio::piped());
        prepare(&mut command);
        let mut process = Process::start("alert-source", command, &village.folder.join("agent.log"))?;
        let (orders, output) = process.take_pipes();
        let output = output.context("no standard output")?;
        let said = Arc::new(Mutex::new(Said::default()));
        let listener = {
            let said = said.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    let mut said = lock(&said);
                    if take(&mut said, &line).is_none() {
                        said.nonsense = Some(line);
                    }
                }
            })
        };
        Ok(Self { process, orders, said, listener: Some(listener) })
    }

    /// Orders alerts of one severity, or of all in turn. Returns at once. Fails where the process has ended.
    pub fn decide(&mut self, count: usize, severity: Option<Severity>) -> Result<()> {
        self.decide_with_pictures(count, severity, 0)
    }

    /// The same, each with a picture of so many bytes.
    pub fn decide_with_pictures(
        &mut self,
        count: usize,
        severity: Option<Severity>,
        bytes: usize,
    ) -> Result<()> {
        let severity = severity.map_or("mixed", Severity::name);
        self.order(&format!("decide {count} {severity} {bytes}"))
    }

    /// Decides alerts, and returns when all are durable.
    pub fn store(&mut self, count: usize, severity: Option<Severity>) -> Result<()> {
        let before = self.said().stored.len();
        self.decide(count, severity)?;
        self.await_stored(before + count).map(drop)
    }

    /// Waits until so many alerts are durable, of all that this process decided.
    pub fn await_stored(&mut self, count: usize) -> Result<Vec<Stored>> {
        let what = format!("{count} alerts to be stored");
        let found = wait::until(&what, wait::PATIENCE, || {
            let stored = self.said().stored.clone();
            (stored.len() >= count || self.process.ended().is_some()).then_some(stored)
        });
        let stored = found.with_context(|| format!("{} are", self.said().stored.len()))?;
        ensure!(stored.len() >= count, "it ended with {} alerts: {}", stored.len(), self.last_words());
        Ok(stored)
    }

    /// What it has promised so far.
    pub fn stored(&self) -> Vec<Stored> {
        self.said().stored.clone()
    }

    /// What it reports of itself.
    pub fn health(&mut self) -> Result<Health> {
        self.said().health = None;
        self.order("health")?;
        let found = wait::until("a health report", wait::PATIENCE, || {
            let health = self.said().health.clone();
            (health.is_some() || self.process.ended().is_some()).then_some(health)
        })?;
        found.with_context(|| format!("it ended: {}", self.last_words()))
    }

    /// Waits until its health has something. The error names `what`, and the last health.
    pub fn health_when<T>(
        &mut self,
        what: &str,
        patience: Duration,
        mut ask: impl FnMut(&Health) -> Option<T>,
    ) -> Result<T> {
        let mut last = None;
        let found = wait::until(what, patience, || match self.health() {
            Err(error) => Some(Err(error)),
            Ok(health) => {
                let answer = ask(&health);
                last = Some(health);
                answer.map(Ok)
            }
        });
        match found {
            Ok(found) => found,
            Err(error) => bail!("{error}; last health: {last:?}"),
        }
    }

    /// Waits until everything is at the broker.
    pub fn await_delivery(&mut self) -> Result<()> {
        self.health_when("everything to be delivered", 2 * wait::PATIENCE, |health| {
            (health.outbox.alerts + health.outbox.evidence == 0).then_some(())
        })
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Lets it end in good order, and returns what it promised.
    pub fn stop(self) -> Result<Vec<Stored>> {
        let log = self.process.log_file().to_owned();
        let (status, promised) = self.end()?;
        let log = std::fs::read_to_string(log).unwrap_or_default();
        ensure!(status.success(), "it ended with {status}: {}", last_lines(&log, 5));
        Ok(promised)
    }

    /// Pulls the plug, and returns what it had promised until then.
    pub fn kill(self) -> Result<Vec<Stored>> {
        self.process.signal(Signal::KILL)?;
        self.end().map(|(_, promised)| promised)
    }

    /// Lets it end in good order, unless it has ended already. Returns how it ended, and what it promised.
    pub fn end(mut self) -> Result<(ExitStatus, Vec<Stored>)> {
        drop(self.orders.take());
        let status = self.process.wait(wait::PATIENCE)?;
        Ok((status, self.promises()?))
    }

    /// All that it said, after its end.
    fn promises(&mut self) -> Result<Vec<Stored>> {
        if let Some(listener) = self.listener.take() {
            let _ = listener.join(); // it does not panic
        }
        let said = self.said();
        if let Some(nonsense) = &said.nonsense {
            bail!("it said {nonsense:?}");
        }
        ensure!(said.lost.is_empty(), "lost without a word to anybody else: {:?}", said.lost);
        Ok(said.stored.clone())
    }

    fn order(&mut self, order: &str) -> Result<()> {
        let orders = self.orders.as_mut().context("it takes no orders any more")?;
        writeln!(orders, "{order}").with_context(|| format!("ordering {order:?}"))
    }

    fn last_words(&self) -> String {
        self.process.last_words(5)
    }

    fn said(&self) -> MutexGuard<'_, Said> {
        lock(&self.said)
    }
}

fn lock(said: &Mutex<Said>) -> MutexGuard<'_, Said> {
    said.lock().unwrap_or_else(PoisonError::into_inner)
}

fn take(said: &mut Said, line: &str) -> Option<()> {
    let (kind, rest) = line.split_once(' ')?;
    match kind {
        "health" => said.health = Some(serde_json::from_str(rest).ok()?),
        "lost" => said.lost.push(rest.parse().ok()?),
        "stored" => {
            let mut words = rest.split(' ');
            let mut next = || words.next();
            said.stored.push(Stored {
                sequence: next()?.parse().ok()?,
                id: next()?.parse().ok()?,
                severity: next()?.parse().ok()?,
                since: UNIX_EPOCH + Duration::from_nanos(next()?.parse().ok()?),
            });
        }
        _ => return None,
    }
    Some(())
}

/// An alert that nobody saw, decided now.
pub fn new_alert(camera: &Name, severity: Severity, clock: &Clock, evidence: bool) -> NewAlert {
    let ((time, trust), arrived) = (clock.now(), Instant::now());
    let name = |text: &str| Name::new(text).expect("lower-case letters are a name");
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
        model: Some(ModelName::new(name("none"), "1.0.0").expect("three numbers are a version")),
        clock: trust,
        boot: clock.boot().to_owned(),
        up_s: seconds(clock.since_boot(arrived)),
        evidence,
    };
    let subject = Subject { camera: camera.clone(), zone: None };
    NewAlert { id: Uuid::now_v7(), time, subject, data, arrived }
}
