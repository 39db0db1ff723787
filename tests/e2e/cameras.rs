//! Cameras that fail. In each test a second camera, `well`, is looked at all the while.

use std::path::Path;

use anyhow::{Result, ensure};
use sharp_eyes_protocol::report::CameraState;
use sharp_eyes_tests::agent::Agent;
use sharp_eyes_tests::authority::{Authority, Credentials};
use sharp_eyes_tests::broker::{Broker, BrokerOptions};
use sharp_eyes_tests::camera::Camera;
use sharp_eyes_tests::console::Console;
use sharp_eyes_tests::places;
use sharp_eyes_tests::village::VillageCamera;

use crate::stage::{await_analysis, await_state, goes_on, play, says, street, township, village};

/// The fields are dropped in this order: the agent before what it talks to.
struct Scene {
    agent: Agent,
    console: Console,
    _broker: Broker,
    _well: Camera,
}

/// Two cameras: `well`, and `gate`, which is at `url`.
fn scene(folder: &Path, url: &str, line: &str) -> Result<Scene> {
    let (broker, console) = township(folder, &BrokerOptions::default())?;
    let well = street(folder, "well", &[])?;
    let village = village(folder, &broker)?
        .with(VillageCamera::guarded("well", well.url("well")))
        .with(VillageCamera::guarded("gate", url).line(line));
    let mut agent = Agent::start(&village)?;
    await_analysis(&mut agent, "well")?;
    Ok(Scene { agent, console, _broker: broker, _well: well })
}

impl Scene {
    /// What health says on the box reaches the console, too.
    fn console_is_told(&self, camera: &str, state: CameraState) -> Result<()> {
        let what = format!("the console to be told that {camera} is {state:?}");
        self.console.wait_for(&what, sharp_eyes_tests::wait::PATIENCE, |seen| {
            let cameras = &seen.health.as_ref()?.cameras;
            cameras.iter().any(|entry| entry.name.as_str() == camera && entry.state == state).then_some(())
        })
    }
}

#[test]
fn a_camera_that_speaks_tls_is_believed_by_the_file_that_vouches_for_it() {
    play(|folder| {
        let (maker, stranger) = (Authority::new(folder, "maker")?, Authority::new(folder, "stranger")?);
        let Credentials { certificate, key, .. } = maker.vouch("ipc-4711")?; // as cameras are called, not where they are
        let (certificate, key) = (certificate.display().to_string(), key.display().to_string());
        let camera = street(folder, "street", &["--certificate", &certificate, "--key", &key])?;
        let url = camera.url("street").replace("rtsp:", "rtsps:");
        let (broker, _console) = township(folder, &BrokerOptions::default())?;
        let ca = |file: &str| format!("ca = {file:?}");
        let by = |name, line: String| VillageCamera::new(name, &url).line(&line);
        let village = village(folder, &broker)?
            .with(by("maker", ca(&maker.file().display().to_string())))
            .with(by("itself", ca(&certificate)))
            .with(by("stranger", ca(&stranger.file().display().to_string())))
            .with(by("nobody", String::new()));
        let mut agent = Agent::start(&village)?;
        for name in ["maker", "itself"] {
            await_state(&mut agent, name, CameraState::Streaming)?;
        }
        for (name, words) in [
            (
                "stranger",
                ["certificate is not trusted: its ca ", "stranger.pem does not vouch for it: unknown ca"],
            ),
            ("nobody", ["certificate is not trusted: no authority of this system", "the key ca"]),
        ] {
            says(&await_state(&mut agent, name, CameraState::Failed)?, &words)?;
        }
        Ok(())
    });
}

#[test]
fn a_camera_that_refuses_connections_is_named_and_comes_when_it_is_there() {
    play(|folder| {
        let mut gate = street(folder, "gate", &[])?;
        gate.kill()?;
        let mut scene = scene(folder, &gate.url("gate"), "")?;
        let reason = await_state(&mut scene.agent, "gate", CameraState::Failed)?;
        says(&reason, &["reach"])?;
        scene.console_is_told("gate", CameraState::Failed)?;
        goes_on(&mut scene.agent, "well", 5)?;
        gate.restart()?;
        await_analysis(&mut scene.agent, "gate")
    });
}

#[test]
fn a_camera_that_hangs_is_seen_within_5_s_and_comes_back() {
    play(|folder| {
        let gate = street(folder, "gate", &[])?;
        let mut scene = scene(folder, &gate.url("gate"), "")?;
        await_analysis(&mut scene.agent, "gate")?;
        gate.process()?.freeze()?;
        let reason = await_state(&mut scene.agent, "gate", CameraState::Failed)?;
        // Its own clock decides how long that was, not that of a busy machine.
        says(&reason, &["no RTP for 4.25s"])?;
        goes_on(&mut scene.agent, "well", 5)?;
        gate.process()?.thaw()?;
        await_state(&mut scene.agent, "gate", CameraState::Streaming)?;
        goes_on(&mut scene.agent, "gate", 5)
    });
}

#[test]
fn a_camera_that_dies_comes_back_by_itself() {
    play(|folder| {
        let mut gate = street(folder, "gate", &[])?;
        let mut scene = scene(folder, &gate.url("gate"), "")?;
        await_analysis(&mut scene.agent, "gate")?;
        gate.kill()?;
        await_state(&mut scene.agent, "gate", CameraState::Failed)?;
        scene.console_is_told("gate", CameraState::Failed)?;
        goes_on(&mut scene.agent, "well", 5)?;
        gate.restart()?;
        await_state(&mut scene.agent, "gate", CameraState::Streaming)?;
        goes_on(&mut scene.agent, "gate", 5)?;
        let health = scene.agent.camera_when("gate", "its health", |_| true)?;
        ensure!(health.failures >= 1 && health.blind_s > 0.0, "the outage was not counted: {health:?}");
        Ok(())
    });
}

#[test]
fn a_camera_may_change_its_size_in_mid_stream() {
    play(|folder| {
        let gate = street(folder, "gate", &["--switch-size-after", "30"])?;
        let mut scene = scene(folder, &gate.url("gate"), "")?;
        scene.agent.camera_when("gate", "the smaller stream", |gate| {
            gate.stream.as_ref().is_some_and(|stream| stream.contains("384x288"))
        })?;
        goes_on(&mut scene.agent, "gate", 5)?;
        goes_on(&mut scene.agent, "well", 5)
    });
}

#[test]
fn a_camera_that_sends_garbage_is_named_and_harms_no_other() {
    play(|folder| {
        let gate = street(folder, "gate", &["--garbage-after", "30"])?;
        let mut scene = scene(folder, &gate.url("gate"), "")?;
        let reason = await_state(&mut scene.agent, "gate", CameraState::Failed)?;
        ensure!(!reason.is_empty(), "no reason");
        goes_on(&mut scene.agent, "well", 10)
    });
}

#[test]
fn a_camera_that_falls_silent_is_named() {
    play(|folder| {
        let gate = street(folder, "gate", &["--silent-after", "30"])?;
        let mut scene = scene(folder, &gate.url("gate"), "")?;
        let reason = await_state(&mut scene.agent, "gate", CameraState::Failed)?;
        says(&reason, &["no RTP"])?;
        goes_on(&mut scene.agent, "well", 5)
    });
}

#[test]
fn something_that_is_no_camera_is_named() {
    play(|folder| {
        // It accepts connections and never says a word.
        let mute = std::net::TcpListener::bind(("127.0.0.1", 0))?;
        let url = format!("rtsp://{}/gate", mute.local_addr()?);
        let mut scene = scene(folder, &url, "")?;
        let reason = await_state(&mut scene.agent, "gate", CameraState::Failed)?;
        ensure!(!reason.is_empty(), "no reason");
        goes_on(&mut scene.agent, "well", 5)
    });
}

#[test]
fn a_wrong_password_is_named_and_not_tried_again_and_again() {
    play(|folder| {
        let gate = street(folder, "gate", &["--user", "viewer", "--password", "right"])?;
        let file = folder.join("camera.password");
        std::fs::write(&file, "wrong")?;
        let login = format!("user = \"viewer\"\npassword_file = \"{}\"", file.display());
        let mut scene = scene(folder, &gate.url("gate"), &login)?;
        let reason = await_state(&mut scene.agent, "gate", CameraState::Refused)?;
        says(&reason, &["password"])?;
        ensure!(!reason.contains("wrong"), "the password is told: {reason}");
        scene.console_is_told("gate", CameraState::Refused)?;
        // About ten seconds of the other camera: an agent that tries again at once has tried often by then.
        goes_on(&mut scene.agent, "well", 50)?;
        ensure!(gate.clients() <= 2, "{} connections to a camera that refused the password", gate.clients());
        await_state(&mut scene.agent, "gate", CameraState::Refused).map(drop)
    });
}

#[test]
fn a_missing_path_on_a_camera_is_named() {
    play(|folder| {
        let gate = street(folder, "gate", &[])?;
        let mut scene = scene(folder, &gate.url("no-such-path"), "")?;
        let reason = await_state(&mut scene.agent, "gate", CameraState::Failed)?;
        ensure!(!reason.is_empty(), "no reason");
        goes_on(&mut scene.agent, "well", 5)
    });
}

#[test]
fn a_password_file_that_is_missing_is_named() {
    play(|folder| {
        let line = "user = \"viewer\"\npassword_file = \"/no/such/file\"";
        let port = places::free_port()?;
        let mut scene = scene(folder, &format!("rtsp://127.0.0.1:{port}/gate"), line)?;
        let reason = await_state(&mut scene.agent, "gate", CameraState::Failed)?;
        says(&reason, &["/no/such/file"])?;
        goes_on(&mut scene.agent, "well", 5)
    });
}
