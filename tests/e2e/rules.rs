//! What each rule alarms for, on real footage, and how an alert goes on and ends.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use sharp_eyes_protocol::alert::{AlertData, AlertEvent, AlertKind};
use sharp_eyes_protocol::level::Severity;
use sharp_eyes_tests::agent::Agent;
use sharp_eyes_tests::broker::BrokerOptions;
use sharp_eyes_tests::camera::Camera;
use sharp_eyes_tests::console::Received;
use sharp_eyes_tests::village::{VillageCamera, WHOLE_PICTURE};
use sharp_eyes_tests::{places, wait};
use sharp_eyes_vision::Rect;

use crate::stage::{play, skip, street, township, village, wall};

/// A clip of the test data that is not part of the repository.
fn clip(name: &str) -> Option<PathBuf> {
    Some(places::shared_data()?.join("videos").join(name)).filter(|clip| clip.exists())
}

fn camera(folder: &Path, name: &str, clip: &Path, arguments: &[&str]) -> Result<Camera> {
    let mount = format!("{name}={}", clip.display());
    Camera::start(folder, &[&["--mount", mount.as_str()], arguments].concat())
}

#[test]
fn a_parked_car_alarms_once() {
    let Some(road) = clip("ahmetozlu-vehicle3.mp4") else {
        return skip("a_parked_car_alarms_once", "the test data is not there");
    };
    play(|folder| {
        let (broker, console) = township(folder, &BrokerOptions::default())?;
        // One moment of a road, as long as anybody looks.
        let gate = camera(folder, "gate", &road, &["--reel", "6~6x400", "--noise", "2", "--fps", "10"])?;
        let lines = "time = \"5s\"\ncooldown = \"0s\"\nmin_score = 0.25\nseverity = \"minor\"";
        let rules = VillageCamera::new("gate", gate.url("gate"))
            .zone_rule("lane", "stopped-vehicle", WHOLE_PICTURE, lines)
            .line("gate = \"always\"\nalerts_per_minute = 1000");
        let mut agent = Agent::start(&village(folder, &broker)?.with(rules))?;
        console.await_alerts(1)?;
        let first = agent.camera_when("gate", "its health", |_| true)?;
        agent.camera_when("gate", "more frames", |gate| gate.analysed >= first.analysed + 15)?;
        let alerts = console.seen(|seen| seen.alerts.clone());
        let mut boxes: Vec<Rect> = Vec::new();
        for data in alerts.iter().map(|received| &received.alert.data) {
            ensure!(data.kind == AlertKind::StoppedVehicle, "{data:?}");
            ensure!(data.class.context("no class")?.is_vehicle(), "{data:?}");
            let [left, top, width, height] = data.bounds.context("no box")?;
            let bounds = Rect { left, top, width, height };
            ensure!(boxes.iter().all(|other| other.iou(&bounds) < 0.5), "{bounds:?} is one of {boxes:?}");
            boxes.push(bounds);
        }
        Ok(())
    });
}

#[test]
fn an_alert_ends_when_everybody_has_left() {
    play(|folder| {
        let (broker, console) = township(folder, &BrokerOptions::default())?;
        let gate = street(folder, "gate", &[])?;
        // A corner that people pass now and then.
        let rules = VillageCamera::new("gate", gate.url("gate")).rule(
            "corner",
            &[(0.0, 0.75), (0.35, 0.75), (0.35, 1.0), (0.0, 1.0)],
            "0s",
            "1s",
            "minor",
        );
        let _agent = Agent::start(&village(folder, &broker)?.with(rules))?;
        let ended = console.wait_for("an alert to be over", 3 * wait::PATIENCE, |seen| {
            seen.alerts.iter().find(|one| one.alert.event == AlertEvent::Ended).cloned()
        })?;
        ensure!(ended.alert.data.over && ended.alert.data.state.is_open(), "{}", ended.json);
        let raised = console.seen(|seen| {
            let of_it = |one: &&Received| one.alert.id == ended.alert.id;
            seen.alerts.iter().filter(of_it).map(|one| one.alert.event).collect::<Vec<_>>()
        });
        ensure!(raised == [AlertEvent::Raised, AlertEvent::Ended], "{raised:?}");
        Ok(())
    });
}

#[test]
fn an_alert_that_lasts_over_a_power_cut_ends_once_its_camera_was_looked_at() {
    play(|folder| {
        let (broker, console) = township(folder, &BrokerOptions::default())?;
        let gate = street(folder, "gate", &[])?;
        let village_at = |url: String| {
            Ok::<_, anyhow::Error>(village(folder, &broker)?.with(VillageCamera::guarded("gate", url)))
        };
        let agent = Agent::start(&village_at(gate.url("gate"))?)?;
        let raised = console.await_alerts(1)?[0].alert.clone();
        agent.kill()?;
        drop(gate);

        // The camera is there before its pictures are: nobody has looked yet.
        let mut wall = wall(folder)?;
        let mut agent = Agent::start(&village_at(wall.url("wall"))?)?;
        agent
            .camera_when("gate", "it to be away for longer than it takes", |camera| camera.blind_s > 15.0)?;
        let is_over = |one: &&Received| one.alert.id == raised.id && one.alert.data.over;
        ensure!(console.seen(|seen| seen.alerts.iter().find(is_over).is_none()), "over without a look");
        wall.restart()?;
        let ended = console.wait_for("it to be over", 2 * wait::PATIENCE, |seen| {
            seen.alerts.iter().find(is_over).cloned()
        })?;
        ensure!(ended.alert.event == AlertEvent::Ended && ended.alert.data.state.is_open(), "{}", ended.json);
        Ok(())
    });
}

#[test]
fn a_storm_of_alerts_becomes_one_that_says_how_many() {
    play(|folder| {
        let (broker, console) = township(folder, &BrokerOptions::default())?;
        let gate = street(folder, "gate", &[])?;
        let mut rules = VillageCamera::new("gate", gate.url("gate"));
        for name in ["a", "b", "c", "d"] {
            rules = rules.rule(name, WHOLE_PICTURE, "0s", "0s", "minor");
        }
        rules = rules.rule("e", WHOLE_PICTURE, "8s", "0s", "major");
        let mut agent = Agent::start(&village(folder, &broker)?.with(rules))?;
        let digest = console.wait_for("a digest", 2 * wait::PATIENCE, |seen| {
            let many = |data: &AlertData| {
                data.severity == Severity::Minor && data.count.is_some_and(|count| count > 3)
            };
            seen.alerts.iter().find(|one| many(&one.alert.data)).cloned()
        })?;
        ensure!(
            digest.alert.event == AlertEvent::Updated && digest.alert.subject.to_string() == "gate",
            "{}",
            digest.json
        );
        let severity = |one: &Received| one.alert.data.severity;
        let is_raised = |one: &&Received| one.alert.event == AlertEvent::Raised;
        let mild = console.seen(|seen| {
            seen.alerts.iter().filter(is_raised).filter(|one| severity(one) == Severity::Minor).count()
        });
        ensure!(mild <= 6, "{mild} alerts and a digest");
        let worse = console.wait_for("what is worse", 2 * wait::PATIENCE, |seen| {
            seen.alerts.iter().filter(is_raised).find(|one| severity(one) == Severity::Major).cloned()
        })?;
        ensure!(worse.alert.data.count.is_some() && worse.alert.id != digest.alert.id, "{}", worse.json);
        let health = agent.camera_when("gate", "its health", |_| true)?;
        ensure!(health.alerts <= 7, "{health:?}");
        Ok(())
    });
}
