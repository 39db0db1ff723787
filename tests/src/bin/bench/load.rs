//! From a frame's arrival to the console, on a box that its cameras keep four fifths busy.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use sharp_eyes_protocol::alert::AlertEvent;
use sharp_eyes_tests::agent::Agent;
use sharp_eyes_tests::broker::{Broker, BrokerOptions};
use sharp_eyes_tests::camera::Camera;
use sharp_eyes_tests::console::Console;
use sharp_eyes_tests::usage::{Machine, Usage};
use sharp_eyes_tests::village::{Village, VillageCamera, WHOLE_PICTURE};
use sharp_eyes_tests::wait;

use crate::agent::{ANALYSED_FPS, sum};

/// How busy the machine is to be.
const LOAD: f64 = 0.8;

/// What all cameras together tell in a second, at most: more than flash cards are allowed to be written for ever, but none of
/// the alerts of a minute waits for that.
const ALERTS_A_SECOND: f64 = 0.4;

/// Sessions of the model at most that a configuration may ask for.
const SESSIONS_MAX: usize = 16;

/// What came of it.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    pub(crate) cameras: usize,
    /// Processor time that was used of what the machine has, by everything on it.
    pub(crate) busy: f64,
    /// The agent's part of it.
    pub(crate) agent: f64,
    /// Frames looked at, of those that were due.
    pub(crate) looked_at: f64,
    /// PSS at the end.
    pub(crate) memory: u64,
    /// From the frame's arrival until the console had its alert, in ms.
    pub(crate) delivered_ms: Vec<f64>,
    /// The same until the console had the large picture.
    pub(crate) pictured_ms: Vec<f64>,
}

/// As many cameras of 768x576 at 10 fps as keep the machine that busy, when one takes `cores_each`.
pub(crate) fn measure(folder: &Path, footage: &Path, cores_each: f64, span: Duration) -> Result<Load> {
    let cores = std::thread::available_parallelism()?.get();
    let cameras = ((LOAD * cores as f64 / cores_each) as usize).max(1);
    let mounts: Vec<String> =
        (0..cameras).map(|i| format!("street-{i}={}@{}", footage.display(), i * 7 % 75)).collect();
    let arguments: Vec<&str> = mounts.iter().flat_map(|mount| ["--mount", mount]).collect();
    let camera = Camera::start(folder, &arguments)?;

    let state = tempfile::tempdir_in(folder)?;
    let broker = Broker::start(state.path(), &BrokerOptions::default())?;
    let console = Console::connect(broker.port(), None)?;
    let mut village = Village::new(state.path(), broker.port())?;
    village.detector_lines = format!("sessions = {}", cores.min(SESSIONS_MAX)); // one alone is busy before the machine is
    for index in 0..cameras {
        // No two in step.
        let pause = cameras as f64 / ALERTS_A_SECOND * (0.8 + 0.4 * index as f64 / cameras as f64);
        let cooldown = format!("{:.0}s", pause.max(1.0));
        let one = VillageCamera::new(&format!("street-{index}"), camera.url(&format!("street-{index}")))
            .line("alerts_per_minute = 1000")
            .rule("anywhere", WHOLE_PICTURE, "0s", &cooldown, "major");
        village = village.with(one);
    }
    let mut agent = Agent::start(&village)?;
    agent.health_when("every camera is looked at", |health| {
        health.cameras.iter().all(|camera| camera.analysed > 10).then_some(())
    })?;
    let pid = agent.process().pid();
    let (began, usage, health, machine) =
        (console.seen(|seen| seen.alerts.len()), Usage::of(pid)?, agent.health()?, Machine::now()?);
    wait::pause(span);
    let (usage_then, health_then, machine_then) = (Usage::of(pid)?, agent.health()?, Machine::now()?);
    wait::pause(Duration::from_secs(3)); // for pictures that are on their way

    let (mut delivered_ms, mut pictured_ms) = (Vec::new(), Vec::new());
    console.seen(|seen| {
        for alert in seen.alerts[began..].iter().filter(|one| one.alert.event == AlertEvent::Raised) {
            delivered_ms.push(alert.delivery().as_secs_f64() * 1000.0);
            if let Some((at, _)) = seen.evidence.get(&alert.alert.id) {
                pictured_ms.push(at.duration_since(alert.alert.time).as_secs_f64() * 1000.0);
            }
        }
    });
    agent.stop().context("stopping the agent")?;
    let analysed = sum(&health_then, |camera| camera.analysed) - sum(&health, |camera| camera.analysed);
    let seconds = span.as_secs_f64();
    Ok(Load {
        cameras,
        busy: machine_then.busy_since(&machine),
        agent: (usage_then.cpu - usage.cpu).as_secs_f64() / seconds / cores as f64,
        looked_at: analysed as f64 / (cameras as f64 * ANALYSED_FPS * seconds),
        memory: usage_then.memory,
        delivered_ms,
        pictured_ms,
    })
}
