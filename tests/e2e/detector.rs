//! Models that cannot be used: the agent says why, keeps its cameras, and sends no alert that it cannot vouch for.

use std::fs;
use std::path::Path;

use anyhow::{Result, bail, ensure};
use sharp_eyes_protocol::report::{CameraState, DetectorState};
use sharp_eyes_tests::agent::Agent;
use sharp_eyes_tests::bad_model::Mood;
use sharp_eyes_tests::broker::BrokerOptions;
use sharp_eyes_tests::village::VillageCamera;
use sharp_eyes_tests::wait;

use crate::stage::{
    IN_THE_LIGHT, await_analysis, bad_model, copy_builtin, edit_manifest, goes_on, play, says, street,
    township, village, wall, without_hash,
};

#[test]
fn a_missing_model_is_named_and_taken_when_it_comes() {
    play(|folder| {
        let model = folder.join("model");
        refused(folder, &model, &[&model.to_string_lossy()], |agent| {
            copy_builtin(&model)?;
            await_analysis(agent, "gate")
        })
    });
}

#[test]
fn a_missing_graph_is_named() {
    spoilt(&["model.onnx"], |model| Ok(fs::remove_file(model.join("model.onnx"))?));
}

#[test]
fn a_truncated_graph_is_named() {
    spoilt(&["model.onnx"], |model| {
        edit_manifest(model, without_hash)?;
        let bytes = fs::read(model.join("model.onnx"))?;
        Ok(fs::write(model.join("model.onnx"), &bytes[..bytes.len() / 2])?)
    });
}

#[test]
fn a_flipped_bit_is_noticed() {
    spoilt(&["model.onnx", "sha"], |model| {
        let mut bytes = fs::read(model.join("model.onnx"))?;
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        Ok(fs::write(model.join("model.onnx"), bytes)?)
    });
}

#[test]
fn a_graph_that_is_no_detector_is_named_with_what_it_is() {
    spoilt(&["model.onnx"], |model| {
        edit_manifest(model, without_hash)?;
        Ok(fs::write(model.join("model.onnx"), onnx_identity())?)
    });
}

#[test]
fn a_label_list_of_the_wrong_length_is_named() {
    spoilt(&["label"], |model| edit_labels(model, |labels| drop(labels.pop())));
}

#[test]
fn a_forbidden_class_is_refused() {
    spoilt(&["face"], |model| {
        edit_labels(model, |labels| {
            labels.pop();
            labels.push("\"face\"".to_owned());
        })
    });
}

#[test]
fn a_missing_runtime_is_named() {
    play(|folder| {
        let (broker, _console) = township(folder, &BrokerOptions::default())?;
        let gate = street(folder, "gate", &[])?;
        let mut village = village(folder, &broker)?.with(VillageCamera::guarded("gate", gate.url("gate")));
        village.runtime = folder.join("no-such-library.so");
        let mut agent = Agent::start(&village)?;
        failed_because(&mut agent, &["no-such-library.so"])
    });
}

#[test]
fn a_look_that_fails_in_one_session_takes_no_other_with_it() {
    play(|folder| {
        let (broker, console) = township(folder, &BrokerOptions::default())?;
        let (gate, mut wall) = (street(folder, "gate", &[])?, wall(folder)?);
        wall.restart()?;
        let mut village = village(folder, &broker)?
            .with(VillageCamera::guarded("gate", gate.url("gate")).line("gate = \"always\""))
            .with(VillageCamera::guarded("yard", wall.url("wall")).line("gate = \"always\""));
        village.model = bad_model(folder, Mood::NotNumbers, IN_THE_LIGHT)?;
        village.detector_lines = "sessions = 2".into();
        let mut agent = Agent::start(&village)?;
        await_analysis(&mut agent, "gate")?;
        goes_on(&mut agent, "gate", 25)?;
        console.wait_for("an alert", wait::PATIENCE, |seen| seen.alerts.first().map(drop))?;
        let health = agent.health_when("the wall to fail", |health| {
            (health.detector.failures > 5).then(|| health.clone())
        })?;
        let [gate, yard] = &health.cameras[..] else { bail!("two cameras: {health:?}") };
        ensure!(gate.failures == 0 && gate.blind_s < 1.0, "{gate:?}");
        ensure!(yard.analysed == 0 && yard.blind_s > 0.5, "{yard:?}");
        Ok(())
    });
}

/// An agent with a spoilt copy of the built-in model says each of `words`.
fn spoilt(words: &[&str], spoil: impl FnOnce(&Path) -> Result<()>) {
    play(|folder| {
        let model = folder.join("model");
        copy_builtin(&model)?;
        spoil(&model)?;
        refused(folder, &model, words, |_| Ok(()))
    });
}

fn refused(
    folder: &Path,
    model: &Path,
    words: &[&str],
    after: impl FnOnce(&mut Agent) -> Result<()>,
) -> Result<()> {
    let (broker, console) = township(folder, &BrokerOptions::default())?;
    let gate = street(folder, "gate", &[])?;
    let mut village = village(folder, &broker)?.with(VillageCamera::guarded("gate", gate.url("gate")));
    village.model = model.to_owned();
    let mut agent = Agent::start(&village)?;
    failed_because(&mut agent, words)?;
    // Cameras are watched for outages although nobody looks at their pictures.
    agent.camera_when("gate", "the camera to stream", |gate| {
        gate.state == CameraState::Streaming && gate.received > 10
    })?;
    let refusal = console.wait_for("the console to be told", wait::PATIENCE, |seen| {
        seen.models.as_ref()?.last_refusal.clone()
    })?;
    says(&refusal, words)?;
    ensure!(console.seen(|seen| seen.alerts.is_empty()), "an alert without a detector");
    after(&mut agent)
}

fn failed_because(agent: &mut Agent, words: &[&str]) -> Result<()> {
    // It is "failed" while it loads, too: only the words tell the two apart.
    agent.health_when(&format!("the detector to fail and to name {words:?}"), |health| {
        let reason = health.detector.reason.as_ref()?;
        (health.detector.state == DetectorState::Failed && says(reason, words).is_ok()).then_some(())
    })
}

/// The labels as they stand in the manifest, in quotes.
fn edit_labels(model: &Path, edit: impl FnOnce(&mut Vec<String>)) -> Result<()> {
    edit_manifest(model, |text| {
        let Some((before, rest)) = text.split_once("labels = [") else { return text.to_owned() };
        let Some((list, after)) = rest.split_once(']') else { return text.to_owned() };
        let labels = list.split(',').map(|label| label.trim().to_owned());
        let mut labels = labels.filter(|label| !label.is_empty()).collect();
        edit(&mut labels);
        format!("{before}labels = [{}]{after}", labels.join(", "))
    })
}

/// The smallest graph that ONNX Runtime loads: one number in, the same number out.
///
/// Field numbers are those of `onnx.proto3`; every field here is either a varint or length-delimited.
fn onnx_identity() -> Vec<u8> {
    fn number(field: u8, value: u8) -> Vec<u8> {
        vec![field << 3, value]
    }
    fn bytes(field: u8, parts: &[&[u8]]) -> Vec<u8> {
        let content = parts.concat();
        let length = u8::try_from(content.len()).expect("short");
        assert!(length < 128, "one byte of length");
        [&[field << 3 | 2, length], content.as_slice()].concat()
    }
    let float_1 = bytes(1, &[&number(1, 1), &bytes(2, &[&bytes(1, &[&number(1, 1)])])]);
    let value = |name: &[u8]| [bytes(1, &[name]), bytes(2, &[&float_1])].concat();
    let node = [bytes(1, &[b"x"]), bytes(2, &[b"y"]), bytes(4, &[b"Identity"])].concat();
    let graph =
        [bytes(1, &[&node]), bytes(2, &[b"g"]), bytes(11, &[&value(b"x")]), bytes(12, &[&value(b"y")])]
            .concat();
    [number(1, 8), bytes(8, &[&number(2, 13)]), bytes(7, &[&graph])].concat()
}
