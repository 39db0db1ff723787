//! An alert climbs until somebody answers, and what a console may ask of a box.

use std::process::Command;

use anyhow::{Context, bail, ensure};
use sharp_eyes_protocol::alert::{AlertEvent, AlertState};
use sharp_eyes_protocol::command::{Answer, Done, OfAlert, Range, Refusal, Request, SnapshotOf};
use sharp_eyes_protocol::level::Level;
use sharp_eyes_tests::agent::Agent;
use sharp_eyes_tests::broker::BrokerOptions;
use sharp_eyes_tests::console::Received;
use sharp_eyes_tests::village::VillageCamera;
use sharp_eyes_tests::{places, wait};

use crate::stage::{play, street, township, village};

const BOX: &str = "sharp-eyes/1/lan-xi/yun-shan/wang-cun/box-1";

#[test]
fn an_alert_climbs_over_a_power_cut_until_somebody_answers() {
    play(|folder| {
        let (broker, console) = township(folder, &BrokerOptions::default())?;
        let gate = street(folder, "gate", &[])?;
        let mut village = village(folder, &broker)?.with(VillageCamera::guarded("gate", gate.url("gate")));
        village.escalation_lines = "major = \"5s\"\nrepeat = \"10min\"".into();
        let agent = Agent::start(&village)?;
        let first = console.await_alerts(1)?[0].alert.clone();
        ensure!(first.data.respond_s == Some(5), "{}", first.to_json());
        agent.kill()?;
        let agent = Agent::start(&village)?;
        let climbed = console.wait_for("it to climb", wait::PATIENCE, |seen| {
            let of =
                |alert: &&Received| alert.alert.id == first.id && alert.alert.event == AlertEvent::Escalated;
            seen.alerts.iter().find(of).cloned()
        })?;
        ensure!(climbed.alert.data.level == Level::District, "{}", climbed.json);
        ensure!(climbed.topic == format!("{BOX}/alert/district"), "{}", climbed.topic);

        let of = OfAlert { alert: first.id, note: None };
        let answer = console.ask(BOX, "yun-shan-1", 1, Request::Acknowledge(of.clone()))?;
        let Answer::Done(Done::Alert(open)) = &answer else { bail!("{answer:?}") };
        ensure!(open.state == AlertState::Acknowledged, "{open:?}");
        ensure!(
            console.ask(BOX, "yun-shan-1", 1, Request::Acknowledge(of.clone()))? == answer,
            "not the same"
        );
        console.ask(BOX, "yun-shan-1", 2, Request::Resolve(of.clone()))?;
        console.wait_for("the end", wait::PATIENCE, |seen| {
            seen.alerts
                .iter()
                .any(|r| r.alert.id == first.id && r.alert.event == AlertEvent::Ended)
                .then_some(())
        })?;
        let Answer::Refused(refused) = console.ask(BOX, "yun-shan-2", 1, Request::Resolve(of))? else {
            bail!("resolved twice")
        };
        ensure!(refused.code == Refusal::AlreadyEnded, "{refused:?}");
        drop(agent);

        let mut audit = Command::new(places::binary("sharp-eyes-agent")?);
        let output = audit.args(["audit", "--config"]).arg(village.write()?).output().context("audit")?;
        let lines = String::from_utf8(output.stdout)?;
        ensure!(lines.lines().count() == 3, "{lines}");
        ensure!(lines.contains("\"by\":\"Li Wei\"") && lines.contains("already-ended"), "{lines}");
        Ok(())
    });
}

#[test]
fn a_console_gets_again_what_it_lost_and_a_picture_of_now() {
    play(|folder| {
        let (broker, console) = township(folder, &BrokerOptions::default())?;
        let gate = street(folder, "gate", &[])?;
        let village = village(folder, &broker)?.with(VillageCamera::guarded("gate", gate.url("gate")));
        let mut agent = Agent::start(&village)?;
        console.await_alerts(3)?;
        agent.health_when("three delivered alerts", |health| (health.outbox.delivered >= 3).then_some(()))?;
        let before = console.seen(|seen| seen.alerts.len());
        let range = Range { from: 1, to: Some(3) };
        let answer = console.ask(BOX, "yun-shan-1", 7, Request::Resend(range))?;
        let Answer::Done(Done::Resend(resent)) = answer else { bail!("{answer:?}") };
        ensure!((resent.messages, resent.missing.len(), resent.to) == (3, 0, 3), "{resent:?}");
        console.wait_for("them again", wait::PATIENCE, |seen| {
            let again = seen.alerts[before..].iter().filter(|r| r.alert.sequence <= 3).count();
            (again >= 3).then_some(())
        })?;

        let of =
            |camera: &str| Ok::<_, anyhow::Error>(Request::Snapshot(SnapshotOf { camera: camera.parse()? }));
        let answer = console.ask(BOX, "yun-shan-1", 8, of("gate")?)?;
        let Answer::Done(Done::Snapshot(id)) = answer else { bail!("{answer:?}") };
        let (_, jpeg) =
            console.wait_for("the snapshot", wait::PATIENCE, |seen| seen.evidence.get(&id).cloned())?;
        ensure!(image::load_from_memory(&jpeg)?.width() >= 320, "a small picture");
        for (counter, request, code) in
            [(9, of("no-such")?, Refusal::UnknownCamera), (3, Request::Status, Refusal::Stale)]
        {
            let answer = console.ask(BOX, "yun-shan-1", counter, request)?;
            let Answer::Refused(refused) = &answer else { bail!("{answer:?}") };
            ensure!(refused.code == code, "{refused:?}");
        }
        let nonsense = console.seen(|seen| seen.nonsense.clone());
        ensure!(nonsense.is_empty(), "{nonsense:?}");
        Ok(())
    });
}

#[test]
fn another_broker_stands_in_where_the_first_is_away() {
    play(|folder| {
        let (mut first, _console) = township(folder, &BrokerOptions::default())?;
        let other = folder.join("district");
        std::fs::create_dir_all(&other)?;
        let (second, district) = township(&other, &BrokerOptions::default())?;
        first.kill()?;
        let gate = street(folder, "gate", &[])?;
        let village = village(folder, &first)?.with(VillageCamera::guarded("gate", gate.url("gate")));
        let both = village.toml().replace("[broker]", "[[broker]]\nname = \"township\"").replace(
            "[escalation]",
            &format!(
                "[[broker]]\nname = \"district\"\nhost = \"127.0.0.1\"\nport = {}\n[escalation]",
                second.port()
            ),
        );
        let mut agent = Agent::start_with_configuration(&village, &both)?;
        district.await_alerts(2)?;
        let name = agent.health_when("the second broker", |health| {
            let uplink = &health.uplinks[0];
            uplink.connected.then(|| uplink.broker.to_string())
        })?;
        ensure!(name == "district", "{name}");
        Ok(())
    });
}
