//! The times on a stream: cameras whose clock steps, stands or drifts, and packets that come in another order.

use anyhow::{Context, ensure};
use sharp_eyes_tests::faulty_camera::{Fate, Item, rule};

use super::scene::{Cast, View};
use crate::stage::play;

/// An hour of a 90 kHz clock.
const HOUR: u32 = 3600 * 90_000;

#[test]
fn times_that_go_wrong_stop_no_camera() {
    play(|folder| {
        let mut cast = Cast::new(folder)?;
        let mut times = |name, view, change: fn(u64, u32) -> u32| cast.add(name, view, rule::times(change));
        times("doubled", View::Street, |unit, time| time.wrapping_sub((unit % 2) as u32 * 9_000))?;
        times("sawtooth", View::Street, |unit, time| time.wrapping_sub((unit % 8) as u32 * 2 * 9_000))?;
        times("standing", View::Street, |_, _| 77)?;
        times("drifting", View::Street, |unit, time| time.wrapping_add((unit as u32).wrapping_mul(200)))?;
        times("hours", View::Street, |unit, time| time.wrapping_add((unit / 20 % 2) as u32 * HOUR))?;
        times("hours-back", View::Street, |unit, time| {
            time.wrapping_sub(HOUR.wrapping_mul((unit / 20) as u32))
        })?;
        times("random", View::Street, |unit, _| (unit as u32).wrapping_mul(0x9e37_79b9))?;
        times("room-hours", View::Still, |unit, time| time.wrapping_add((unit / 20 % 2) as u32 * HOUR))?;
        times("room-doubled", View::Still, |unit, time| time.wrapping_sub((unit % 2) as u32 * 9_000))?;
        let mut scene = cast.start()?;
        for name in scene.broken() {
            // Three steps of the clocks that step.
            scene.agent.camera_when(name, "sixty access units", |camera| camera.received >= 60)?;
            scene.agent.camera_when(name, "pictures", |camera| camera.analysed > 0).context(name)?;
        }
        for name in scene.broken().into_iter().filter(|name| !name.starts_with("room")) {
            // Of ten units a second, two are to be looked at; of those of a clock that stands, one.
            let health = scene.health(name)?;
            ensure!(health.analysed * 30 >= health.received, "{name}: {health:?}");
        }
        for name in ["room-hours", "room-doubled"] {
            scene.sleeps(name)?;
        }
        for name in scene.broken() {
            let health = scene.health(name)?;
            ensure!(health.failures == 0, "{name}: {health:?}");
        }
        scene.well_is_well()
    });
}

#[test]
fn reports_that_are_missing_or_lie_and_units_that_nobody_expects_stop_no_camera() {
    play(|folder| {
        let mut cast = Cast::new(folder)?;
        cast.add("no-reports", View::Street, |passing| match passing.rtcp() {
            Some(_) => Fate::Lose,
            None => Fate::Pass,
        })?;
        // The camera's time service sets its clock at each report, an hour ahead and back.
        let mut ahead = false;
        cast.add("stepping", View::Street, move |passing| match passing.rtcp() {
            Some(packet) if packet.bytes.get(1) == Some(&200) => {
                ahead = !ahead;
                let mut packet = packet.clone();
                if let Some(seconds) = packet.bytes.get_mut(8..12) {
                    let now = u32::from_be_bytes([seconds[0], seconds[1], seconds[2], seconds[3]]);
                    seconds.copy_from_slice(&now.wrapping_add(if ahead { 3600 } else { 0 }).to_be_bytes());
                }
                Fate::Become(vec![Item::Packet(packet)])
            }
            _ => Fate::Pass,
        })?;
        // A message of the camera's own before each picture, marked as if it were all of it.
        let message = [&[0x06, 5, 17][..], &[0xab; 17], &[0x80]].concat();
        cast.add(
            "marked-message",
            View::Street,
            rule::media(move |packet| match packet.is_last() {
                true => vec![packet.clone(), packet.with_payload(&message).marked(true)],
                false => vec![packet.clone()],
            }),
        )?;
        // The mark of an access unit's last packet is never there, or always.
        cast.add("unmarked", View::Street, rule::media(|packet| vec![packet.marked(false)]))?;
        cast.add("all-marked", View::Street, rule::media(|packet| vec![packet.marked(true)]))?;
        cast.add("twice", View::Street, rule::media(|packet| vec![packet.clone(), packet.clone()]))?;
        cast.add("b-frames", View::StreetReordered, rule::pass)?;
        let mut scene = cast.start()?;
        for name in scene.broken() {
            scene.agent.camera_when(name, "pictures", |camera| camera.analysed >= 15).context(name)?;
            let health = scene.health(name)?;
            ensure!(health.failures == 0, "{name}: {health:?}");
        }
        scene.well_is_well()
    });
}
