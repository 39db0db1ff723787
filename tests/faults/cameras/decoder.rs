//! A decoder that hangs, as hardware's do: the call does not come back, and no signal reaches it.

use std::fs;

use anyhow::{Context, ensure};
use sharp_eyes_tests::faulty_camera::rule;
use sharp_eyes_tests::shim;

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
