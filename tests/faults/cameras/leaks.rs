//! What reconnections leave behind: nothing.
//!
//! Descriptors and threads are counted. Memory is judged coarsely, because the allocator gains and loses some anyway: see
//! [`LEAK`].

use anyhow::{Result, ensure};
use sharp_eyes_tests::faulty_camera::record::Record;
use sharp_eyes_tests::faulty_camera::rule;
use sharp_eyes_tests::usage::Held;
use sharp_eyes_tests::wait;

use super::scene::{Cast, Scene, View};
use crate::stage::play;

const CAMERAS: [&str; 10] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];

/// Bytes of memory that are a leak when they come on top. What was measured is 2 MB after a thousand reconnections,
/// descriptors and threads as before. A pipeline that is not let go shows in descriptors and threads, pictures show here: one
/// has 166 kB (384x288, I420).
const LEAK: u64 = 64 * 1024 * 1024;

/// Waits until the agent holds no more descriptors and threads than before, and judges its memory.
fn nothing_is_left(scene: &mut Scene, before: Held, rounds: u64, seconds: u32) -> Result<()> {
    let mut now = before;
    let what = "descriptors and threads to be as before";
    wait::until(what, wait::PATIENCE, || {
        now = Held::at_rest(scene.agent.process().pid(), seconds).ok()?;
        (now.descriptors <= before.descriptors && now.threads <= before.threads).then_some(())
    })
    .map_err(|error| error.context(format!("before {before:?}, after {rounds} rounds {now:?}")))?;
    println!("before {before:?}, after {rounds} rounds {now:?}");
    let grown = now.memory.saturating_sub(before.memory);
    ensure!(grown < LEAK, "{grown} bytes of {rounds} rounds stay: before {before:?}, now {now:?}");
    Ok(())
}

fn failures(scene: &Scene) -> Result<u64> {
    Ok(scene.agent.health()?.cameras.iter().map(|camera| camera.failures).sum())
}

/// Waits for so many more connections, all cameras together, each broken after its first pictures or refused, and lets all
/// stream afterwards.
fn reconnect(scene: &mut Scene, record: &Record, times: u64) -> Result<()> {
    let before = failures(scene)?;
    for name in CAMERAS {
        scene.between(name).set_rule(record.clone().play(25));
    }
    let enough = || failures(scene).is_ok_and(|now| now >= before + times).then_some(());
    wait::until("reconnections", 5 * wait::PATIENCE, enough)?;
    for name in CAMERAS {
        scene.between(name).heal();
    }
    CAMERAS.into_iter().try_for_each(|name| scene.streams(name, 1))
}

#[test]
fn a_thousand_reconnections_leave_nothing_behind() {
    play(|folder| {
        let mut cast = Cast::new(folder)?;
        for name in CAMERAS {
            cast.add(name, View::Street, rule::pass)?;
        }
        let mut scene = cast.start()?;
        CAMERAS.into_iter().try_for_each(|name| scene.streams(name, 1))?;
        let record = Record::take(scene.between("a"), 3)?;
        reconnect(&mut scene, &record, 200)?;
        let before = Held::at_rest(scene.agent.process().pid(), 3)?;
        reconnect(&mut scene, &record, 1000)?;
        nothing_is_left(&mut scene, before, 1000, 3)?;
        scene.well_is_well()
    });
}
