//! What is in the stream: damage, other sizes, units that nobody expects.

use anyhow::{Context, ensure};
use sharp_eyes_tests::faulty_camera::rule;

use super::scene::{Cast, View};
use crate::stage::play;

#[test]
fn bits_that_flip_on_the_wire_harm_one_camera_for_as_long_as_they_do() {
    play(|folder| {
        let mut cast = Cast::new(folder)?;
        cast.add("h264", View::Street, rule::flip_bits(3, false, 1))?;
        cast.add("h264-headers", View::Street, rule::flip_bits(3, true, 2))?;
        cast.add("h264-b-frames", View::StreetReordered, rule::flip_bits(3, false, 3))?;
        cast.add("h265", View::StreetH265, rule::flip_bits(3, false, 4))?;
        cast.add("h265-headers", View::StreetH265, rule::flip_bits(3, true, 5))?;
        cast.add("room", View::Still, rule::pass)?;
        let mut scene = cast.start()?;
        scene.sleeps("room")?;
        scene.between("room").set_rule(rule::flip_bits(3, true, 6));
        for name in scene.broken() {
            let before = scene.between(name).seen().broken;
            scene.between(name).until("damage", |seen| seen.broken >= before + 300)?;
        }
        scene.well_is_well()?;
        for name in scene.broken() {
            scene.between(name).heal();
        }
        for name in scene.broken().into_iter().filter(|name| *name != "room") {
            scene.streams(name, 3).context(name)?;
        }
        scene.sleeps("room")?;
        scene.well_is_well()
    });
}

#[test]
fn a_camera_may_change_its_size_and_change_it_back_awake_and_asleep() {
    play(|folder| {
        let mut cast = Cast::new(folder)?;
        cast.add("gate", View::Street, rule::pass)?;
        cast.add("room", View::Still, rule::pass)?;
        let mut scene = cast.start()?;
        scene.streams("gate", 1)?;
        scene.sleeps("room")?;
        for (order, gate, room) in [("half", "192x144", "384x288"), ("full", "384x288", "768x576")] {
            for view in [View::Street, View::Still] {
                scene.real(view)?.tell(order)?;
            }
            for (name, size) in [("gate", gate), ("room", room)] {
                let what = format!("{name} to send {size}");
                scene.agent.camera_when(name, &what, |camera| {
                    camera.stream.as_ref().is_some_and(|stream| stream.contains(size))
                })?;
            }
            scene.streams("gate", 3)?;
            scene.sleeps("room")?;
        }
        for name in ["gate", "room"] {
            let health = scene.health(name)?;
            ensure!(health.failures == 0, "a change of size is no failure: {health:?}");
        }
        Ok(())
    });
}
