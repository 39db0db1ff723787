//! From the first request to the first picture.

use anyhow::{Context, ensure};
use sharp_eyes_tests::faulty_camera::rule;

use super::scene::{Cast, View};
use crate::stage::{play, says};

#[test]
fn a_start_that_stalls_at_any_step_is_given_up_and_tried_again() {
    play(|folder| {
        let mut cast = Cast::new(folder)?;
        for (name, method) in
            [("options", "OPTIONS"), ("describe", "DESCRIBE"), ("setup", "SETUP"), ("play", "PLAY")]
        {
            cast.add(name, View::Street, rule::never_answer(method))?;
        }
        // Everything is answered, and that is all (TCP open, no RTP at all).
        cast.add("mute", View::Street, rule::no_media)?;
        let mut scene = cast.start()?;
        for name in scene.broken() {
            says(&scene.fails(name)?, &["no RTP within 10s"]).context(name)?;
        }
        scene.well_is_well()?;
        for name in scene.broken() {
            scene.between(name).heal();
        }
        for name in scene.broken() {
            scene.streams(name, 2)?;
        }
        Ok(())
    });
}

#[test]
fn a_clock_rate_that_is_none_is_mended_or_named() {
    play(|folder| {
        let mended = [
            ("none", "H264"),
            ("negative", "H264/-1"),
            ("huge", "H264/4294967295"),
            ("channels", "H264/90000/1"),
            ("small-letters", "h264/90000"),
        ];
        let named = [("zero", "H264/0"), ("kilo", "H264/90"), ("words", "H264/fast")];
        let mut cast = Cast::new(folder)?;
        for (name, rate) in mended.into_iter().chain(named) {
            let change = move |sdp: &str| sdp.replace("H264/90000", rate);
            cast.add(name, View::Street, rule::describe(change))?;
        }
        let mut scene = cast.start()?;
        for (name, _) in mended {
            scene.streams(name, 3).context(name)?;
            ensure!(scene.between(name).seen().broken > 0, "{name}: the description was not touched");
        }
        for (name, _) in named {
            says(&scene.fails(name)?, &["clock rate", "expected 90000"]).context(name)?;
            scene.between(name).heal();
        }
        for (name, _) in named {
            scene.streams(name, 2).context(name)?;
        }
        scene.well_is_well()
    });
}

#[test]
fn a_description_of_something_else_is_named_until_it_is_true() {
    play(|folder| {
        let mut cast = Cast::new(folder)?;
        let h265_as_h264 = |sdp: &str| {
            let lines = sdp.lines().filter(|line| !line.starts_with("a=fmtp"));
            lines.map(|line| line.replace("H265", "H264") + "\r\n").collect()
        };
        cast.add("called-h264", View::StreetH265, rule::describe(h265_as_h264))?;
        let h264_as_h265 = |sdp: &str| {
            let lines = sdp.lines().filter(|line| !line.starts_with("a=fmtp"));
            lines.map(|line| line.replace("H264", "H265") + "\r\n").collect()
        };
        cast.add("called-h265", View::Street, rule::describe(h264_as_h265))?;
        cast.add("called-jpeg", View::Street, rule::describe(|sdp| sdp.replace("H264", "JPEG")))?;
        cast.add("sound-only", View::Street, rule::describe(|sdp| sdp.replace("m=video", "m=audio")))?;
        cast.add("nothing", View::Street, rule::describe(|_| "v=0\r\n".into()))?;
        cast.add("no-sdp", View::Street, rule::describe(|_| "<html>hello</html>".into()))?;
        let mut scene = cast.start()?;
        for name in scene.broken() {
            ensure!(!scene.fails(name)?.is_empty(), "{name}: no reason");
        }
        says(&scene.fails("called-jpeg")?, &["JPEG", "expected H.264 or H.265"])?;
        scene.well_is_well()?;
        for name in scene.broken() {
            scene.between(name).heal();
        }
        for name in scene.broken() {
            scene.streams(name, 2).context(name)?;
        }
        Ok(())
    });
}

#[test]
fn a_camera_that_comes_back_with_another_codec_is_followed() {
    play(|folder| {
        let mut cast = Cast::new(folder)?;
        let (h264, h265) = (cast.real(View::Street)?.port(), cast.real(View::StreetH265)?.port());
        cast.add("gate", View::Street, rule::pass)?;
        let mut scene = cast.start()?;
        for (port, stream) in [(h264, "H.264 384x288"), (h265, "H.265 480x360"), (h264, "H.264 384x288")] {
            scene.between("gate").turn_to(port);
            scene.between("gate").cut()?;
            scene.agent.camera_when("gate", stream, |gate| {
                gate.stream.as_ref().is_some_and(|now| now.starts_with(stream))
            })?;
            scene.streams("gate", 2)?;
        }
        scene.well_is_well()
    });
}
