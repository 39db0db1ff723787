//! The path of a frame, from RTSP to an alert with a picture on the console, and over restarts.

use anyhow::{Context, Result, ensure};
use sharp_eyes_protocol::alert::{ALERT_MAX_BYTES, AlertKind};
use sharp_eyes_protocol::level::Severity;
use sharp_eyes_protocol::report::{BoxState, DetectorState};
use sharp_eyes_tests::agent::Agent;
use sharp_eyes_tests::bad_model::Mood;
use sharp_eyes_tests::broker::BrokerOptions;
use sharp_eyes_tests::camera::Camera;
use sharp_eyes_tests::console::{Console, Received};
use sharp_eyes_tests::village::{VillageCamera, WHOLE_PICTURE};
use sharp_eyes_tests::{places, wait};

use crate::stage::{
    ANY_LIGHT, await_analysis, bad_model, complete, play, read, says, street, township, village,
};

/// Largest picture that may leave a box.
const EVIDENCE_MAX_BYTES: usize = 64 * 1024;

#[test]
fn an_alert_arrives_as_its_schema_says_and_its_picture_follows() {
    play(|folder| {
        let (broker, console) = township(folder, &BrokerOptions::default())?;
        let gate = street(folder, "gate", &[])?;
        let rules = VillageCamera::new("gate", gate.url("gate"))
            .rule("yard", WHOLE_PICTURE, "1s", "1s", "major")
            .rule("well", &[(0.0, 0.2), (1.0, 0.2), (1.0, 0.7), (0.0, 0.7)], "1s", "1s", "critical");
        let mut agent = Agent::start(&village(folder, &broker)?.with(rules))?;

        let schema = read(&places::repository().join("agent/protocol/schemas/alert.json"))?;
        let schema = jsonschema::validator_for(&serde_json::from_str(&schema)?)?;
        for received in console.await_alerts(4)? {
            let Received { alert, topic, json, .. } = &received;
            schema
                .validate(&serde_json::from_str(json)?)
                .map_err(|error| error.to_owned())
                .context(json.clone())?;
            ensure!(json.len() <= ALERT_MAX_BYTES, "{} bytes", json.len());
            ensure!(alert.source == "sharp-eyes/1/lan-xi/yun-shan/wang-cun/box-1", "{}", alert.source);
            ensure!(*topic == format!("{}/alert/{}", alert.source, alert.data.level), "{topic}");
            ensure!(alert.data.level == alert.data.severity.first_level(), "{json}");
            let zone = if alert.data.severity == Severity::Critical { "well" } else { "yard" };
            ensure!(alert.subject.to_string() == format!("gate/{zone}"), "{}", alert.subject);

            let id = alert.id;
            let jpeg =
                console.wait_for("its picture", wait::PATIENCE, |seen| seen.evidence.get(&id).cloned())?.1;
            ensure!(jpeg.len() <= EVIDENCE_MAX_BYTES, "{} bytes of picture", jpeg.len());
            let picture = image::load_from_memory(&jpeg).context("the picture does not decode")?;
            let (width, height) = (picture.width(), picture.height());
            ensure!(width.abs_diff(height * 4 / 3) <= 2, "a picture of {width}x{height} of a 4:3 camera");
        }
        let (nonsense, status, models) =
            console.seen(|seen| (seen.nonsense.clone(), seen.status.clone(), seen.models.clone()));
        ensure!(nonsense.is_empty(), "{nonsense:?}");
        ensure!(status.is_some_and(|status| status.state == BoxState::Online), "not online");
        ensure!(models.is_some_and(|models| models.active.is_some()), "no active model");
        ensure!(agent.health()?.detector.state == DetectorState::Running);
        ensure!(agent.process().ended().is_none());
        Ok(())
    });
}

#[test]
fn cameras_share_looks_when_their_frames_wait_for_one() {
    play(|folder| {
        let (broker, _console) = township(folder, &BrokerOptions::default())?;
        let names = ["north", "east", "south", "west"];
        let footage = places::footage()?;
        let mounts = names.map(|name| format!("{name}={}", footage.display()));
        let arguments: Vec<&str> = mounts.iter().flat_map(|mount| ["--mount", mount]).collect();
        let street = Camera::start(folder, &arguments)?;
        let mut village = village(folder, &broker)?;
        for name in names {
            let camera = VillageCamera::guarded(name, street.url(name))
                .line("gate = \"always\"")
                .line("analysed_fps = 30")
                // What is left of the street has few people in it, and all of them fit into a quarter of a look.
                .line("masks = [[[0.4, 0.0], [1.0, 0.0], [1.0, 1.0], [0.4, 1.0]]]");
            village = village.with(camera);
        }
        // One that no machine is too fast for: frames have to wait.
        village.model = bad_model(folder, Mood::Slow, ANY_LIGHT)?;
        let mut agent = Agent::start(&village)?;
        agent.health_when("cameras to share looks", |health| {
            let each: Vec<u64> = health.cameras.iter().map(|camera| camera.analysed).collect();
            let shared = health.detector.inferences + 10 < each.iter().sum::<u64>();
            (shared && each.iter().all(|analysed| *analysed > 20)).then_some(())
        })
    });
}

#[test]
fn whoever_crosses_a_line_alarms_on_its_forbidden_side() {
    play(|folder| {
        let (broker, console) = township(folder, &BrokerOptions::default())?;
        let gate = street(folder, "gate", &[])?;
        // From the top down, so that left is the picture's right.
        let ends = [(0.5, 0.1), (0.5, 1.0)];
        let rules = VillageCamera::new("gate", gate.url("gate"))
            .tripwire("eastward", ends, "to-left")
            .tripwire("westward", ends, "to-right");
        let _agent = Agent::start(&village(folder, &broker)?.with(rules))?;
        let about = |name: &str| {
            console.wait_for(name, wait::PATIENCE, |seen| {
                let of = |received: &&Received| {
                    received.alert.subject.zone.as_ref().is_some_and(|zone| zone.as_str() == name)
                };
                seen.alerts.iter().find(of).map(|received| received.alert.data.clone())
            })
        };
        for (name, east) in [("eastward", true), ("westward", false)] {
            let data = about(name)?;
            ensure!(data.kind == AlertKind::Crossing, "{data:?}");
            let [left, _, width, _] = data.bounds.context("no box")?;
            ensure!((left + width / 2.0 > 0.5) == east, "{name} ends at {:?}", data.bounds);
        }
        Ok(())
    });
}

#[test]
fn numbers_have_no_gap_over_an_orderly_restart_and_over_a_power_cut() {
    play(|folder| {
        let (broker, console) = township(folder, &BrokerOptions::default())?;
        let gate = street(folder, "gate", &[])?;
        let village = village(folder, &broker)?.with(VillageCamera::guarded("gate", gate.url("gate")));

        let agent = Agent::start(&village)?;
        console.await_alerts(2)?;
        ensure!(agent.stop()? == 0, "asked to end, the agent ended with an error");
        await_offline(&console)?;

        let before = console.seen(|seen| seen.sequences().len());
        let agent = Agent::start(&village)?;
        console.await_alerts(before + 2)?;
        agent.kill()?;
        await_offline(&console)?;

        let before = console.seen(|seen| seen.sequences().len());
        let agent = Agent::start(&village)?;
        console.await_alerts(before + 2)?;
        ensure!(agent.stop()? == 0, "asked to end, the agent ended with an error");
        complete(&console.seen(|seen| seen.sequences()), 6)
    });
}

/// By its own word or by its last will.
fn await_offline(console: &Console) -> Result<()> {
    let offline = |state: BoxState| (state == BoxState::Offline).then_some(());
    console.wait_for("the box to be offline", wait::PATIENCE, |seen| {
        seen.status.as_ref().and_then(|status| offline(status.state))
    })
}

#[test]
fn a_camera_may_send_h265() {
    play(|folder| {
        // Smaller than the footage: H.265 takes long to encode.
        alerts_come(folder, &["--codec", "h265", "--size", "480x360"], "", "H.265 480x360")
    });
}

#[test]
fn a_camera_may_send_over_udp() {
    play(|folder| alerts_come(folder, &["--transport", "udp"], "transport = \"udp\"", "H.264 768x576"));
}

fn alerts_come(folder: &std::path::Path, camera: &[&str], line: &str, stream: &str) -> Result<()> {
    let (broker, console) = township(folder, &BrokerOptions::default())?;
    let gate = street(folder, "gate", camera)?;
    let guarded = VillageCamera::guarded("gate", gate.url("gate")).line(line);
    let mut agent = Agent::start(&village(folder, &broker)?.with(guarded))?;
    console.await_alerts(2)?;
    let health = agent.camera_when("gate", "its stream to be known", |gate| gate.stream.is_some())?;
    says(&health.stream.unwrap_or_default(), &[stream])
}

#[test]
fn passwords_are_used_and_never_told() {
    play(|folder| {
        const CAMERA: &str = "camera-s3cret";
        const BROKER: &str = "broker-s3cret";
        let login = Some(("box-1".to_owned(), BROKER.to_owned()));
        let (broker, console) = township(folder, &BrokerOptions { login, ..BrokerOptions::default() })?;
        let gate = street(folder, "gate", &["--user", "viewer", "--password", CAMERA])?;
        let secret = |name: &str, secret: &str| -> Result<String> {
            let file = folder.join(name);
            std::fs::write(&file, secret)?;
            Ok(format!("password_file = \"{}\"\n", file.display()))
        };
        let guarded = VillageCamera::guarded("gate", gate.url("gate"))
            .line("user = \"viewer\"")
            .line(&secret("camera.password", CAMERA)?);
        let mut village = village(folder, &broker)?.with(guarded);
        village.broker_lines = format!("user = \"box-1\"\n{}", secret("broker.password", BROKER)?);

        let mut agent = Agent::start_with_log_level(&village, "debug")?;
        await_analysis(&mut agent, "gate")?;
        let alerts = console.await_alerts(1)?;
        let told = [
            agent.process().log(),
            agent.metrics()?,
            serde_json::to_string(&agent.health()?)?,
            console.seen(|seen| format!("{seen:?}")),
            alerts.iter().map(|received| received.json.as_str()).collect(),
        ];
        for text in told {
            ensure!(!text.contains(CAMERA) && !text.contains(BROKER), "a password was told: {text}");
        }
        Ok(())
    });
}
