//! The end of the agent while cameras hang.

use std::time::Duration;

use anyhow::{Context, ensure};
use sharp_eyes_tests::faulty_camera::rule;

use super::scene::{Cast, View};
use crate::stage::play;

/// What systemd grants (`TimeoutStopSec` of config/systemd/sharp-eyes-agent.service) before it kills.
pub(super) const GRANTED: Duration = Duration::from_secs(30);

#[test]
fn the_agent_ends_though_no_camera_lets_go() {
    play(|folder| {
        let mut cast = Cast::new(folder)?;
        for (name, method) in
            [("options", "OPTIONS"), ("describe", "DESCRIBE"), ("setup", "SETUP"), ("play", "PLAY")]
        {
            cast.add(name, View::Street, rule::never_answer(method))?;
        }
        cast.add("teardown", View::Street, rule::never_answer("TEARDOWN"))?;
        cast.add("gate", View::Street, rule::pass)?;
        cast.add("room", View::Still, rule::pass)?;
        let mut scene = cast.start()?;
        scene.streams("teardown", 1)?;
        scene.streams("gate", 1)?;
        scene.sleeps("room")?;
        for name in ["gate", "room"] {
            scene.between(name).set_rule(rule::silence);
        }
        for (name, method) in
            [("options", "OPTIONS"), ("describe", "DESCRIBE"), ("setup", "SETUP"), ("play", "PLAY")]
        {
            let before = scene.between(name).seen().requests(method);
            let asked = |seen: &sharp_eyes_tests::faulty_camera::Seen| seen.requests(method) > before;
            scene.between(name).until("a request that is not answered", asked)?;
        }
        let log = scene.agent.process().log_file().to_owned();
        let code = scene.agent.stop_within(GRANTED).context("the end of the agent")?;
        ensure!(code == 0, "asked to end, the agent ended with {code}");
        let log = std::fs::read_to_string(log)?;
        ensure!(log.contains("stopped"), "it did not come to its own end");
        Ok(())
    });
}
