//! What crosses the wire is what the schemas and the AsyncAPI document say: the documents themselves, and every packet
//! between a running agent and its broker.
//!
//! # Layout
//!
//! - `contract` reads the documents and judges packets;
//! - `asyncapi.cjs` has AsyncAPI's own parser read the document.

mod contract;

use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, bail, ensure};
use rumqttc::v5::mqttbytes::v5::Packet;
use serde_json::{Value, json};
use sharp_eyes_protocol::alert::{Alert, AlertEvent};
use sharp_eyes_protocol::command::{
    Answer, DismissReason, Dismissal, Done, OfAlert, PictureOf, Range, Refusal, Request, SnapshotOf,
};
use sharp_eyes_protocol::report::BoxState;
use sharp_eyes_tests::agent::Agent;
use sharp_eyes_tests::broker::BrokerOptions;
use sharp_eyes_tests::console::Console;
use sharp_eyes_tests::faulty_broker::{Direction, Fate, FaultyBroker, Kind};
use sharp_eyes_tests::village::{Village, VillageCamera};
use sharp_eyes_tests::{places, wait};

use crate::stage::{play, street, township};
use contract::Contract;

const BOX: &str = "sharp-eyes/1/lan-xi/yun-shan/wang-cun/box-1";

#[test]
fn asyncapi_s_own_parser_understands_the_document() -> Result<()> {
    let found = parse(&contract::document_file())?;
    let findings = found["findings"].as_array().context("no findings")?;
    let (errors, remarks): (Vec<_>, Vec<_>) = findings.iter().partition(|finding| finding["severity"] != 2);
    ensure!(errors.is_empty(), "{errors:#?}");
    // That AsyncAPI 3.1 is out.
    ensure!(remarks.iter().all(|remark| remark["at"] == "asyncapi"), "{remarks:#?}");

    let contract = Contract::read()?;
    for (what, name) in [("channels", "address"), ("operations", "")] {
        let parsed = found[what].as_array().context("nothing was parsed")?;
        let written = contract.document[what].as_object().context("nothing was written")?;
        ensure!(parsed.len() == written.len(), "{what}: {parsed:?}");
        for (id, entry) in written {
            let expected = entry.get(name).cloned().unwrap_or_else(|| json!(id));
            ensure!(parsed.contains(&expected), "{what}: no {expected} in {parsed:?}");
        }
    }
    Ok(())
}

#[test]
fn asyncapi_s_own_parser_is_one_that_can_fail() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut document = Contract::read()?.document;
    document["operations"]["send-alert"]["channel"] = json!({ "$ref": "#/channels/nowhere" });
    document["servers"]["boxes"]["bindings"]["mqtt"]["lastWill"]["qos"] = json!(3);
    let file = folder.path().join("asyncapi.json");
    std::fs::write(&file, document.to_string())?;
    let findings = parse(&file)?["findings"].to_string();
    ensure!(findings.contains("#/channels/nowhere") && findings.contains("lastWill.qos"), "{findings}");
    Ok(())
}

fn parse(document: &Path) -> Result<Value> {
    let parser = places::asyncapi_parser()?;
    let script = places::repository().join("tests/e2e/wire/asyncapi.cjs");
    let mut node = Command::new("node");
    let output = node.arg(script).arg(parser).arg(document).output();
    let output = output.context("running node (Debian: nodejs; tests/setup.sh asyncapi installs it)")?;
    ensure!(output.status.success(), "node: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).context("what asyncapi.cjs printed")
}

#[test]
fn the_schemas_are_schemas_and_the_examples_fit_them() -> Result<()> {
    let contract = Contract::read()?;
    for (file, schema) in &contract.schemas {
        ensure!(schema["$schema"] == "https://json-schema.org/draft/2020-12/schema", "{file}: another draft");
        // Against the draft's own schema of schemas.
        jsonschema::draft202012::meta::validate(schema)
            .map_err(|error| error.to_owned())
            .context(file.clone())?;
    }
    for (name, payload) in contract.examples() {
        contract.judge_payload(&name, &payload).context(format!("an example of {name}: {payload}"))?;
    }
    Ok(())
}

#[test]
fn every_packet_of_a_running_agent_is_what_the_document_says() {
    play(|folder| {
        let (broker, console) = township(folder, &BrokerOptions::default())?;
        let between = FaultyBroker::start(broker.port())?;
        let tap = tap(&between);
        let gate = street(folder, "gate", &[])?;
        let mut village =
            Village::new(folder, between.port())?.with(VillageCamera::guarded("gate", gate.url("gate")));
        village.escalation_lines = "major = \"5s\"\nrepeat = \"10min\"".into();
        let nowhere = folder.join("nowhere").display().to_string();
        village.tables = format!("[models]\nrepository = {nowhere:?}\nroot = {nowhere:?}\n");
        village.delivery_lines = "pictures = \"on-request\"".into();
        let agent = Agent::start(&village)?;
        converse(&console)?;
        agent.kill()?;
        console.wait_for("the last will", wait::PATIENCE, |seen| {
            seen.status.as_ref().filter(|status| status.state == BoxState::Offline).map(drop)
        })?;

        let contract = Contract::read()?;
        let mut judge = contract.judge();
        for (direction, packet) in std::mem::take(&mut *tap.lock().unwrap_or_else(PoisonError::into_inner)) {
            judge.judge(direction, &read(&packet)?)?;
        }
        let missing = judge.missing();
        ensure!(missing.is_empty(), "never seen: {missing:?}");
        Ok(())
    });
}

/// Everything that an agent has to say.
fn converse(console: &Console) -> Result<()> {
    let (one, other) = {
        let alerts = console.await_alerts(2)?;
        (alerts[0].alert.clone(), alerts[1].alert.clone())
    };
    let of = |alert: &Alert| OfAlert { alert: alert.id, note: None };
    let becomes = |what: &str, alert: &Alert, event: AlertEvent| {
        let id = alert.id;
        console.wait_for(what, wait::PATIENCE, |seen| {
            seen.alerts.iter().any(|seen| seen.alert.id == id && seen.alert.event == event).then_some(())
        })
    };
    becomes("an alert to climb", &one, AlertEvent::Escalated)?;
    console.wait_for("its small picture", wait::PATIENCE, |seen| seen.thumbnails.get(&one.id).map(drop))?;

    let mut counter = 0;
    let mut ask = |request: Request| -> Result<Answer> {
        counter += 1;
        console.ask(BOX, "yun-shan-1", counter, request)
    };
    let mut done = |request: Request| match ask(request)? {
        Answer::Done(done) => Ok(done),
        Answer::Refused(refused) => bail!("{refused:?}"),
    };
    done(Request::Acknowledge(of(&one)))?;
    becomes("the answer to be told", &one, AlertEvent::Updated)?;
    done(Request::Resolve(of(&one)))?;
    becomes("the end to be told", &one, AlertEvent::Ended)?;
    done(Request::Dismiss(Dismissal { alert: other.id, reason: DismissReason::Drill, note: None }))?;
    done(Request::Resend(Range { from: 1, to: Some(1) }))?;
    done(Request::Status)?;
    done(Request::CheckUpdates)?;
    let pictures = [
        done(Request::Picture(PictureOf { alert: one.id }))?,
        done(Request::Snapshot(SnapshotOf { camera: "gate".parse()? }))?,
    ];
    for picture in pictures {
        let (Done::Picture(id) | Done::Snapshot(id)) = picture else { bail!("{picture:?}") };
        console.wait_for("a picture", wait::PATIENCE, |seen| seen.evidence.get(&id).map(drop))?;
    }
    let Answer::Refused(refused) = ask(Request::Resolve(of(&one)))? else { bail!("resolved twice") };
    ensure!(refused.code == Refusal::AlreadyEnded, "{refused:?}");
    Ok(())
}

type Tap = Arc<Mutex<Vec<(Direction, Vec<u8>)>>>;

/// Keeps every CONNECT and PUBLISH that comes by.
fn tap(between: &FaultyBroker) -> Tap {
    let tap = Tap::default();
    let keep = Arc::clone(&tap);
    between.set_rule(move |passing| {
        if matches!(passing.packet.kind, Kind::Connect | Kind::Publish) {
            let mut kept = keep.lock().unwrap_or_else(PoisonError::into_inner);
            kept.push((passing.direction, passing.packet.bytes().to_vec()));
        }
        Fate::Pass
    });
    tap
}

fn read(bytes: &[u8]) -> Result<Packet> {
    let mut buffer = Default::default();
    // The type is that of rumqttc, which does not show it.
    std::iter::Extend::extend(&mut buffer, bytes.iter().copied());
    Packet::read(&mut buffer, None).context("a packet that rumqttc does not understand")
}
