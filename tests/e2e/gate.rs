//! Cameras that sleep while nothing happens: a street that stands still for half a minute, then goes on for as long.

use anyhow::{Result, bail, ensure};
use sharp_eyes_protocol::command::{Answer, Done, Request, SnapshotOf};
use sharp_eyes_protocol::report::{CameraHealth, CameraState, GateHealth, GateState};
use sharp_eyes_tests::agent::Agent;
use sharp_eyes_tests::broker::BrokerOptions;
use sharp_eyes_tests::village::VillageCamera;
use sharp_eyes_tests::wait;

use crate::stage::{play, street, township, village};

/// Half a minute and more of one picture with a sensor's noise, then the street's life.
const STILL_THEN_LIVE: &[&str] = &["--reel", "14~14x200,14-40", "--noise", "2"];

fn gate(camera: &CameraHealth) -> Option<&GateHealth> {
    camera.gate.as_ref()
}

fn is_asleep(camera: &CameraHealth) -> bool {
    gate(camera).is_some_and(|gate| gate.state == GateState::Asleep)
}

/// Waits for three seconds of one sleep, and tells what was received and decoded in the meantime. A gate that has just
/// begun looks up now and then, until it knows its stream.
fn watch_sleep(agent: &mut Agent, name: &str) -> Result<(u64, u64)> {
    let number = |camera: &CameraHealth, of: fn(&GateHealth) -> u64| gate(camera).map_or(0, of);
    loop {
        let asleep = agent.camera_when(name, "it to sleep", is_asleep)?;
        let slept = number(&asleep, |gate| gate.asleep_s);
        let looks = |camera: &CameraHealth| number(camera, |gate| gate.wakes + gate.checks);
        let later = agent.camera_when(name, "three seconds of sleep", |camera| {
            number(camera, |gate| gate.asleep_s) >= slept + 3 || looks(camera) > looks(&asleep)
        })?;
        ensure!(later.state == CameraState::Streaming && later.failures == asleep.failures, "{later:?}");
        if is_asleep(&later) && looks(&later) == looks(&asleep) {
            return Ok((later.received - asleep.received, later.decoded - asleep.decoded));
        }
    }
}

#[test]
fn a_still_street_is_not_decoded_and_its_life_is_seen_in_both_codecs() {
    play(|folder| {
        let (broker, console) = township(folder, &BrokerOptions::default())?;
        let mut village = village(folder, &broker)?;
        let mut cameras = Vec::new();
        for codec in ["h264", "h265"] {
            let camera = street(folder, codec, &[STILL_THEN_LIVE, &["--codec", codec]].concat())?;
            village = village.with(VillageCamera::guarded(codec, camera.url(codec)));
            cameras.push(camera);
        }
        let mut agent = Agent::start(&village)?;
        for codec in ["h264", "h265"] {
            let (received, decoded) = watch_sleep(&mut agent, codec)?;
            ensure!(
                received >= 20 && decoded * 10 <= received,
                "{codec}: {decoded} of {received} were decoded"
            );
        }
        for codec in ["h264", "h265"] {
            let asleep = agent.camera_when(codec, "its health", |_| true)?;
            // Those who stood there all the time were alarmed for before; who comes now is new.
            let awake = agent.camera_when(codec, "it to wake, and see somebody come", |camera| {
                gate(camera).is_some_and(|gate| gate.wakes > 0) && camera.alerts > asleep.alerts
            })?;
            ensure!(awake.failures == 0 && awake.state == CameraState::Streaming, "{awake:?}");
        }
        let wakeup = agent.quantile("wakeup_seconds", "0.5")?;
        ensure!(wakeup.is_some_and(|seconds| seconds > 0.0), "{wakeup:?}");
        console.await_alerts(2).map(drop)
    });
}

#[test]
fn a_sleeping_camera_shows_a_snapshot_of_now() {
    play(|folder| {
        let (broker, console) = township(folder, &BrokerOptions::default())?;
        let still = street(folder, "gate", &["--reel", "14~14x400", "--noise", "2"])?;
        let village = village(folder, &broker)?.with(VillageCamera::guarded("gate", still.url("gate")));
        let mut agent = Agent::start(&village)?;
        watch_sleep(&mut agent, "gate")?;
        let name = "gate".parse()?;
        let root = "sharp-eyes/1/lan-xi/yun-shan/wang-cun/box-1";
        let answer = console.ask(root, "yun-shan-1", 1, Request::Snapshot(SnapshotOf { camera: name }))?;
        let Answer::Done(Done::Snapshot(picture)) = answer else { bail!("{answer:?}") };
        console.wait_for("its picture", wait::PATIENCE, |seen| seen.evidence.get(&picture).cloned())?;
        watch_sleep(&mut agent, "gate").map(drop)
    });
}

#[test]
fn a_camera_that_goes_away_in_its_sleep_is_missed_and_comes_back() {
    play(|folder| {
        let (broker, _console) = township(folder, &BrokerOptions::default())?;
        let mut still = street(folder, "gate", &["--reel", "14~14x400", "--noise", "2"])?;
        let village = village(folder, &broker)?.with(VillageCamera::guarded("gate", still.url("gate")));
        let mut agent = Agent::start(&village)?;
        watch_sleep(&mut agent, "gate")?;
        still.kill()?;
        agent.camera_when("gate", "its loss to be noticed", |camera| camera.state == CameraState::Failed)?;
        still.restart()?;
        agent.camera_when("gate", "its return", |camera| camera.state == CameraState::Streaming)?;
        watch_sleep(&mut agent, "gate").map(drop)
    });
}

#[test]
fn a_gate_that_is_always_open_never_sleeps() {
    play(|folder| {
        let (broker, _console) = township(folder, &BrokerOptions::default())?;
        let still = street(folder, "gate", &["--reel", "14~14x400", "--noise", "2"])?;
        let open = VillageCamera::guarded("gate", still.url("gate")).line("gate = \"always\"");
        let mut agent = Agent::start(&village(folder, &broker)?.with(open))?;
        let camera = agent.camera_when("gate", "150 frames", |camera| camera.received >= 150)?;
        ensure!(camera.gate.is_none() && camera.skipped == 0, "{camera:?}");
        Ok(())
    });
}
