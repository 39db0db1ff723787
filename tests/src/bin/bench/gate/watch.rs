//! One agent on its cameras, with a broker and a console of its own: what it uses, and what it notices.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use jiff::Timestamp;
use sharp_eyes_protocol::alert::AlertEvent;
use sharp_eyes_protocol::report::{CameraHealth, CameraState, DetectorState, Health};
use sharp_eyes_tests::agent::Agent;
use sharp_eyes_tests::broker::{Broker, BrokerOptions};
use sharp_eyes_tests::console::Console;
use sharp_eyes_tests::usage::Usage;
use sharp_eyes_tests::village::{Village, VillageCamera, WHOLE_PICTURE};
use sharp_eyes_tests::wait;
use tempfile::TempDir;

use super::workloads::{FPS, Visit};
use crate::agent::sum;

/// A running agent.
pub(super) struct Watch {
    agent: Agent,
    console: Console,
    gate: String,
    began: Instant,
    clock: Timestamp,
    _broker: Broker,
    _folder: TempDir,
}

/// What an agent used in a span of time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Used {
    pub(super) cpu_s: f64,
    pub(super) span_s: f64,
    pub(super) received: u64,
    pub(super) decoded: u64,
    pub(super) analysed: u64,
    /// Of the camera that was looked at least often.
    pub(super) analysed_least: u64,
    /// Fewer than frames, where several cameras share one.
    pub(super) inferences: u64,
    pub(super) dropped: u64,
    /// PSS at the end, in bytes.
    pub(super) memory: u64,
}

impl Used {
    pub(super) fn cores(&self) -> f64 {
        self.cpu_s / self.span_s
    }

    /// Of the access units that came, keyframes that were only compared included.
    pub(super) fn decoded_percent(&self) -> f64 {
        100.0 * self.decoded as f64 / self.received.max(1) as f64
    }

    pub(super) fn memory_mb(&self) -> f64 {
        self.memory as f64 / f64::from(1 << 20)
    }
}

/// A state between which two an agent's use is measured.
#[derive(Clone, Debug)]
pub(super) struct Mark {
    at: Instant,
    usage: Usage,
    health: Health,
}

impl Watch {
    /// Starts an agent that alarms for any person who stays for a second, and returns once access units arrive.
    pub(super) fn start(folder: &Path, urls: &[String], gate: &str) -> Result<Self> {
        let mut watch = Self::start_without_waiting(folder, urls, gate)?;
        watch.agent.health_when("every camera sends", |health| {
            health.cameras.iter().all(|camera| camera.received > 0).then_some(())
        })?;
        (watch.began, watch.clock) = (Instant::now(), Timestamp::now());
        Ok(watch)
    }

    /// The same with cameras that may be away.
    pub(super) fn start_without_waiting(folder: &Path, urls: &[String], gate: &str) -> Result<Self> {
        let folder = tempfile::tempdir_in(folder)?;
        let broker = Broker::start(folder.path(), &BrokerOptions::default())?;
        let console = Console::connect(broker.port(), None)?;
        let mut village = Village::new(folder.path(), broker.port())?;
        for (index, url) in urls.iter().enumerate() {
            let camera = VillageCamera::new(&format!("view-{index}"), url)
                .line(&format!("gate = {gate:?}"))
                .line("alerts_per_minute = 1000") // each visit counts
                .rule("anywhere", WHOLE_PICTURE, "1s", "5s", "major");
            village = village.with(camera);
        }
        if let Ok(sessions) = std::env::var("BENCH_SESSIONS") {
            village.detector_lines = format!("sessions = {sessions}");
        }
        let agent = Agent::start(&village)?;
        let (began, clock) = (Instant::now(), Timestamp::now());
        Ok(Self { agent, console, gate: gate.to_owned(), began, clock, _broker: broker, _folder: folder })
    }

    /// How long it took to look at cameras that woke up, in ms; none if none did.
    pub(super) fn wakeup_ms(&self, quantile: &str) -> Result<Option<f64>> {
        Ok(self.agent.quantile("wakeup_seconds", quantile)?.map(|seconds| 1000.0 * seconds))
    }

    /// Waits until no camera has been decoded for three seconds. Says so where that does not happen, and goes on: what is
    /// then measured is true, too.
    pub(super) fn asleep(&mut self) {
        if self.gate == "always" {
            return;
        }
        let mut since = (0, 0); // frames decoded, and access units received when the last one was
        let mut asleep = |health: &Health| {
            let received = sum(health, |camera| camera.received);
            let decoded = sum(health, |camera| camera.decoded);
            if decoded != since.0 {
                since = (decoded, received);
            }
            (received > since.1 + 3 * FPS * health.cameras.len() as u64).then_some(())
        };
        // A new camera compares every keyframe for a minute.
        let asleep = self
            .agent
            .health_when("every camera sleeps", &mut asleep)
            .or_else(|_| self.agent.health_when("every camera sleeps", &mut asleep));
        if let Err(error) = asleep {
            println!("  not asleep: {error}");
        }
    }

    /// Waits until every camera's pictures are looked at.
    pub(super) fn awake(&mut self) -> Result<()> {
        self.agent.health_when("every camera is looked at", |health| {
            let looked_at =
                |camera: &CameraHealth| camera.state == CameraState::Streaming && camera.analysed > 2;
            health.cameras.iter().all(looked_at).then_some(())
        })
    }

    /// Waits until the detector could look.
    pub(super) fn model_is_loaded(&mut self) -> Result<()> {
        self.agent.health_when("the model is loaded", |health| {
            (health.detector.state == DetectorState::Running).then_some(())
        })
    }

    pub(super) fn mark(&mut self) -> Result<Mark> {
        let pid = self.agent.process().pid();
        Ok(Mark { at: Instant::now(), usage: Usage::of(pid)?, health: self.agent.health()? })
    }

    /// What was used since a mark.
    pub(super) fn since(&mut self, mark: &Mark) -> Result<Used> {
        let now = self.mark()?;
        let grown = |read: fn(&CameraHealth) -> u64| sum(&now.health, read) - sum(&mark.health, read);
        Ok(Used {
            cpu_s: (now.usage.cpu - mark.usage.cpu).as_secs_f64(),
            span_s: (now.at - mark.at).as_secs_f64(),
            received: grown(|camera| camera.received),
            decoded: grown(|camera| camera.decoded),
            analysed: grown(|camera| camera.analysed),
            analysed_least: {
                let cameras = now.health.cameras.iter().zip(&mark.health.cameras);
                cameras.map(|(now, then)| now.analysed - then.analysed).min().unwrap_or(0)
            },
            inferences: now.health.detector.inferences - mark.health.detector.inferences,
            dropped: grown(|camera| camera.dropped),
            memory: now.usage.memory,
        })
    }

    /// Since the first access unit.
    pub(super) fn age(&self) -> Duration {
        self.began.elapsed()
    }

    /// Processor time since its start.
    pub(super) fn cpu(&mut self) -> Result<Duration> {
        Ok(Usage::of(self.agent.process().pid())?.cpu)
    }

    /// Of the agent.
    pub(super) fn pid(&mut self) -> u32 {
        self.agent.process().pid()
    }

    /// How often its cameras woke up, all together.
    pub(super) fn wakes(&mut self) -> Result<u64> {
        Ok(sum(&self.agent.health()?, |camera| camera.gate.as_ref().map_or(0, |gate| gate.wakes)))
    }

    /// When its alerts' frames arrived, in seconds after the first access unit.
    pub(super) fn alerts(&self) -> Vec<f64> {
        let mut raised: Vec<f64> = self.console.seen(|seen| {
            let raised = seen.alerts.iter().map(|received| &received.alert);
            let raised = raised.filter(|alert| alert.event == AlertEvent::Raised);
            raised.map(|alert| alert.time.duration_since(self.clock).as_secs_f64()).collect()
        });
        raised.sort_by(f64::total_cmp);
        raised
    }

    pub(super) fn stop(self) -> Result<()> {
        self.agent.stop().map(drop)
    }
}

/// Measures an agent for a span of time.
pub(super) fn for_a_span(watch: &mut Watch, span: Duration) -> Result<Used> {
    let used = side_by_side(std::slice::from_mut(watch), span)?;
    Ok(used[0])
}

/// Measures several agents at the same time.
pub(super) fn side_by_side(watches: &mut [Watch], span: Duration) -> Result<Vec<Used>> {
    let marks = watches.iter_mut().map(Watch::mark).collect::<Result<Vec<_>>>()?;
    wait::pause(span);
    watches.iter_mut().zip(&marks).map(|(watch, mark)| watch.since(mark)).collect()
}

/// How long after the beginning of each visit its first alert was raised, in seconds; `None` where there was none.
pub(super) fn delays(alerts: &[f64], visits: &[Visit], prelude_s: f64) -> Vec<Option<f64>> {
    let first = |&(from, to): &Visit| {
        let (from, to) = (prelude_s + f64::from(from), prelude_s + f64::from(to));
        // A frame that is looked at late still belongs to its visit.
        alerts.iter().find(|at| (from..to + 1.0).contains(*at)).map(|at| at - from)
    };
    visits.iter().map(first).collect()
}
