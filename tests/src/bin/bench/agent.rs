//! The whole agent on a real camera, as a process.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use sharp_eyes_protocol::report::{CameraHealth, Health};
use sharp_eyes_tests::agent::Agent;
use sharp_eyes_tests::usage::Usage;
use sharp_eyes_tests::village::{Village, VillageCamera, WHOLE_PICTURE};
use sharp_eyes_tests::wait;

/// Looks due from each camera in a second: the agent's own default.
pub(crate) const ANALYSED_FPS: f64 = 5.0;

/// What one run of the agent used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AgentCost {
    /// Processor time between the first frames and the end.
    pub(crate) cpu_s: f64,
    /// Frames decoded in that time.
    pub(crate) frames: u64,
    /// Frames looked at in that time.
    pub(crate) inferences: u64,
    /// PSS at the end.
    pub(crate) memory: u64,
    /// From the start of the process to the first inference.
    pub(crate) first_inference: Duration,
}

/// Runs the agent on a camera that never sleeps for a time, with a rule that any person breaks.
pub(crate) fn cost(folder: &Path, broker_port: u16, url: &str, span: Duration) -> Result<AgentCost> {
    let state = tempfile::tempdir_in(folder)?;
    let camera = VillageCamera::new("street", url).line("gate = \"always\"").rule(
        "anywhere",
        WHOLE_PICTURE,
        "0s",
        "60s",
        "major",
    );
    let village = Village::new(state.path(), broker_port)?.with(camera);
    let started = Instant::now();
    let mut agent = Agent::start(&village)?;
    let first_inference = loop {
        if let Ok(health) = agent.health()
            && health.detector.inferences > 0
        {
            break started.elapsed();
        }
        anyhow::ensure!(
            agent.process().ended().is_none(),
            "the agent ended:\n{}",
            agent.process().last_words(10)
        );
        anyhow::ensure!(started.elapsed() < wait::PATIENCE, "no inference within {:?}", wait::PATIENCE);
        wait::pause(Duration::from_millis(5));
    };
    agent.health_when("the camera streams", |health| {
        health.cameras.iter().all(|camera| camera.decoded > 10).then_some(())
    })?;

    let pid = agent.process().pid();
    let (cpu, before) = (Usage::of(pid)?.cpu, agent.health()?);
    wait::pause(span);
    let (usage, after) = (Usage::of(pid)?, agent.health()?);
    let cost = AgentCost {
        cpu_s: (usage.cpu - cpu).as_secs_f64(),
        frames: sum(&after, |camera| camera.decoded) - sum(&before, |camera| camera.decoded),
        inferences: after.detector.inferences - before.detector.inferences,
        memory: usage.memory,
        first_inference,
    };
    agent.stop().context("stopping the agent")?;
    Ok(cost)
}

/// Of all cameras.
pub(crate) fn sum(health: &Health, read: impl Fn(&CameraHealth) -> u64) -> u64 {
    health.cameras.iter().map(read).sum()
}
