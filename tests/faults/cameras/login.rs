//! Cameras that refuse: passwords, locked accounts, and connections that are all taken.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use sharp_eyes_protocol::report::CameraState;
use sharp_eyes_tests::faulty_camera::{Fate, rule};
use sharp_eyes_tests::wait;

use super::scene::{Cast, View};
use crate::stage::{await_state, play, says};

const PASSWORD: &str = "camera-s3cret";
/// `viewer:camera-s3cret` as basic authentication writes it.
const BASIC: &str = "dmlld2VyOmNhbWVyYS1zM2NyZXQ";
const DIGEST: &str = "\r\nWWW-Authenticate: Digest realm=\"IP Camera\", nonce=\"8b0c1f\"";

/// Lines of a camera that asks for a password.
fn login(folder: &Path) -> Result<String> {
    let file = folder.join("camera.password");
    std::fs::write(&file, PASSWORD)?;
    Ok(format!("user = \"viewer\"\npassword_file = \"{}\"", file.display()))
}

#[test]
fn refused_passwords_are_tried_so_rarely_that_no_account_is_locked() {
    play(|folder| {
        let mut cast = Cast::new(folder)?;
        let lines = login(folder)?;
        let mut refuse = |name, status, reason, headers: &str| {
            cast.add_with(name, View::Street, &lines, rule::refuse("DESCRIBE", status, reason, headers))
        };
        refuse("basic", 401, "Unauthorized", "\r\nWWW-Authenticate: Basic realm=\"IP Camera\"")?;
        refuse("digest", 401, "Unauthorized", DIGEST)?;
        // Whatever the password is, its answer was for a number that is no longer valid, for ever.
        refuse("stale", 401, "Unauthorized", &format!("{DIGEST}, stale=true"))?;
        refuse("no-way", 401, "Unauthorized", "")?;
        refuse("locked", 403, "Forbidden", "")?;
        let mut scene = cast.start_with(|agent| {
            agent.env("RUST_LOG", "trace");
        })?;
        for name in scene.broken() {
            let reason = await_state(&mut scene.agent, name, CameraState::Refused)?;
            says(&reason, &["password"]).context(name)?;
        }
        // An agent that tries again as it does after other failures has tried often by then.
        for _ in 0..5 {
            scene.well_is_well()?;
        }
        for name in scene.broken() {
            let seen = scene.between(name).seen();
            ensure!(seen.logins() <= 2 && seen.connections == 1, "{name}: {seen:?}");
        }
        let health = serde_json::to_string(&scene.agent.health()?)?;
        for text in [scene.agent.process().log(), scene.agent.metrics()?, health] {
            ensure!(!text.contains(PASSWORD) && !text.contains(BASIC), "the password was told: {text}");
        }
        Ok(())
    });
}

#[test]
fn a_camera_without_a_connection_left_is_no_wrong_password() {
    play(|folder| {
        let mut cast = Cast::new(folder)?;
        cast.add("full-at-setup", View::Street, rule::refuse("SETUP", 453, "Not Enough Bandwidth", ""))?;
        cast.add("full-at-play", View::Street, rule::refuse("PLAY", 453, "Not Enough Bandwidth", ""))?;
        cast.add("starting", View::Street, rule::refuse("DESCRIBE", 503, "Service Unavailable", ""))?;
        let mut scene = cast.start()?;
        for name in scene.broken() {
            says(&scene.fails(name)?, &["no connection left"]).context(name)?;
            scene.between(name).until("it to try again", |seen| seen.connections >= 3)?;
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
fn a_password_that_was_taken_before_is_tried_again_within_a_minute() {
    play(|folder| {
        let mut cast = Cast::new(folder)?;
        cast.add_with("gate", View::Street, &login(folder)?, rule::pass)?;
        let mut scene = cast.start()?;
        scene.streams("gate", 1)?;
        // Its own lost connection counts, until it forgets it: a 401 all the same.
        let mut refuse = rule::refuse("DESCRIBE", 401, "Unauthorized", DIGEST);
        scene.between("gate").set_rule(move |passing| match passing.rtp() {
            Some(_) => Fate::Cut,
            None => refuse(passing),
        });
        let reason = await_state(&mut scene.agent, "gate", CameraState::Refused)?;
        says(&reason, &["took before", "no connection left"])?;
        let logins = scene.between("gate").seen().logins();
        ensure!(logins <= 2, "{logins} attempts");
        scene.between("gate").heal();
        wait::until("it to be tried again", 2 * wait::PATIENCE, || {
            let health = scene.agent.health().ok()?;
            let gate = health.cameras.into_iter().find(|camera| camera.name.as_str() == "gate")?;
            (gate.state == CameraState::Streaming).then_some(())
        })?;
        scene.well_is_well()
    });
}
