//! A decoder that hangs, as hardware's do: the call does not come back, and no signal reaches it.

use std::fs;

use anyhow::{Context, ensure};
use sharp_eyes_tests::faulty_camera::rule;
use sharp_eyes_tests::{shim, wait};

use super::scene::{Cast, View};
use super::stop::GRANTED;
use crate::stage::{play, says};

const SHIM: &str = include_str!("decoder-shim.c");

#[test]
fn a_decoder_that_hangs_is_left_behind_and_the_agent_still_ends() {
    play(|folder| {
        let mut cast = Cast::new(folder)?;
        cast.add("gate", View::StreetH265, rule::pass)?;
        cast.add("room", View::StillH265, rule::pass)?;
        let (library, hangs) = (shim::build("decoder", SHIM)?, folder.join("decoders-of-h265-hang"));
        let mut scene = cast.start_with(|agent| {
            agent.env("LD_PRELOAD", &library).env("SHARP_EYES_H265_HANGS", &hangs);
        })?;
        scene.streams("gate", 1)?;
        scene.sleeps("room")?;
        fs::write(&hangs, "")?;
        for name in ["gate", "room"] {
            says(&scene.fails(name)?, &["no picture came out of avdec_h265"]).context(name)?;
        }
        scene.well_is_well()?;
        // Each attempt leaves one behind; the awake camera's and the sleeping one's are two at least.
        wait::until("what hangs to be counted", 3 * wait::PATIENCE, || {
            let metrics = scene.agent.metrics().ok()?;
            let count =
                metrics.lines().find_map(|line| line.strip_prefix("sharp_eyes_camera_pipelines_hung "))?;
            count.parse().ok().filter(|count: &f64| *count >= 2.0)
        })?;
        fs::remove_file(&hangs)?;
        scene.streams("gate", 3)?;
        scene.sleeps("room")?;

        fs::write(&hangs, "")?;
        scene.fails("gate")?;
        let code = scene.agent.stop_within(GRANTED).context("the end of the agent")?;
        ensure!(code == 0, "asked to end, the agent ended with {code}");
        Ok(())
    });
}
