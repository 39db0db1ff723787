//! What is done to cameras, and what becomes of them: told once, and over when it is undone.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use sharp_eyes_protocol::alert::{AlertData, AlertEvent, AlertKind, AlertState, Tampering};
use sharp_eyes_tests::agent::Agent;
use sharp_eyes_tests::broker::BrokerOptions;
use sharp_eyes_tests::console::{Console, Received};
use sharp_eyes_tests::village::{VillageCamera, WHOLE_PICTURE};
use sharp_eyes_tests::wait;

use crate::stage::{await_analysis, play, street, township, village};

/// A camera is looked at for half a minute before it is judged; what is done to it is undone later on.
const LONG: Duration = Duration::from_secs(180);

fn about<'a>(
    alerts: &'a [Received],
    camera: &str,
    kind: AlertKind,
    event: AlertEvent,
) -> Option<&'a Received> {
    alerts.iter().find(|received| {
        let alert = &received.alert;
        alert.subject.camera.as_str() == camera && alert.data.kind == kind && alert.event == event
    })
}

fn await_event(console: &Console, camera: &str, kind: AlertKind, event: AlertEvent) -> Result<Received> {
    let what = format!("{event:?} of {kind:?} of {camera}");
    console.wait_for(&what, LONG, |seen| about(&seen.alerts, camera, kind, event).cloned())
}

/// Nothing of a detector.
fn is_about_the_camera(data: &AlertData) -> bool {
    data.class.is_none() && data.bounds.is_none() && data.confidence.is_none() && data.model.is_none()
}

#[test]
fn what_is_done_to_a_camera_is_told_once_with_a_picture_and_over_when_it_is_undone() {
    play(|folder| {
        let (broker, console) = township(folder, &BrokerOptions::default())?;
        let mut village = village(folder, &broker)?;
        let mut cameras = Vec::new();
        // A street full of life, and one that stands still, so that its camera sleeps.
        for (name, tamper, still, found) in [
            ("covered", "covered@400-600", false, Tampering::Covered),
            ("blurred", "blurred@400-600", false, Tampering::Defocused),
            ("asleep", "covered@500-900", true, Tampering::Covered),
        ] {
            let still: &[&str] = if still { &["--reel", "14~14x400"] } else { &[] };
            let camera = street(folder, name, &[&["--noise", "2", "--tamper", tamper], still].concat())?;
            let rules = VillageCamera::new(name, camera.url(name))
                .own_rule("tampered", "after = \"3s\"\nfrozen_after = \"15s\"\ncooldown = \"0s\"");
            village = village.with(rules);
            cameras.push((name, found, camera));
        }
        let mut agent = Agent::start(&village)?;
        for (name, found, _) in &cameras {
            let raised = await_event(&console, name, AlertKind::Tampered, AlertEvent::Raised)?.alert;
            ensure!(raised.data.tampering == Some(*found), "{name}: {:?}", raised.data);
            ensure!(is_about_the_camera(&raised.data) && raised.subject.zone.is_none(), "{raised:?}");
            let picture = |seen: &sharp_eyes_tests::console::Seen| seen.evidence.get(&raised.id).map(drop);
            console.wait_for("its picture", LONG, picture)?;
            let ended = await_event(&console, name, AlertKind::Tampered, AlertEvent::Ended)?.alert;
            ensure!(ended.id == raised.id && ended.data.over, "{ended:?}");
            ensure!(ended.data.state == AlertState::Open, "nobody has answered: {ended:?}");
            let health = agent.camera_when(name, "it to be as before", |camera| camera.tampered.is_none())?;
            ensure!(health.failures == 0, "{health:?}");
        }
        let raised = console.seen(|seen| {
            seen.alerts.iter().filter(|received| received.alert.event == AlertEvent::Raised).count()
        });
        ensure!(raised == cameras.len(), "{raised} alerts of {} cameras", cameras.len());
        Ok(())
    });
}

#[test]
fn a_camera_that_was_turned_away_says_so_and_its_rules_about_places_rest() {
    play(|folder| {
        let (broker, console) = township(folder, &BrokerOptions::default())?;
        let gate = street(folder, "gate", &["--noise", "2", "--tamper", "turned@400-900"])?;
        let rules = VillageCamera::new("gate", gate.url("gate"))
            .line("alerts_per_minute = 1000")
            .rule("yard", WHOLE_PICTURE, "0s", "1s", "minor")
            .own_rule("tampered", "after = \"3s\"\nevidence = false");
        let mut agent = Agent::start(&village(folder, &broker)?.with(rules))?;
        let raised = await_event(&console, "gate", AlertKind::Tampered, AlertEvent::Raised)?.alert;
        ensure!(raised.data.tampering == Some(Tampering::TurnedAway), "{raised:?}");
        let turned = agent.camera_when("gate", "health to say so", |camera| {
            camera.tampered == Some(Tampering::TurnedAway)
        })?;
        console.wait_for("the console to be told", wait::PATIENCE, |seen| {
            let camera = seen.health.as_ref()?.cameras.first()?;
            (camera.tampered == Some(Tampering::TurnedAway)).then_some(())
        })?;
        let later = agent
            .camera_when("gate", "thirty frames more", |camera| camera.analysed >= turned.analysed + 30)?;
        ensure!(later.tampered == Some(Tampering::TurnedAway), "{later:?}");
        ensure!(later.alerts == turned.alerts, "{} alerts from wrong places", later.alerts - turned.alerts);
        await_event(&console, "gate", AlertKind::Tampered, AlertEvent::Ended)?;
        agent.camera_when("gate", "its rules to go on", |camera| camera.alerts > later.alerts).map(drop)
    });
}

#[test]
fn an_outage_is_told_once_over_a_restart_and_cleared_when_pictures_come() {
    play(|folder| {
        let (broker, console) = township(folder, &BrokerOptions::default())?;
        let mut gate = street(folder, "gate", &[])?;
        let rules = VillageCamera::new("gate", gate.url("gate")).own_rule("offline", "after = \"2s\"");
        let village = village(folder, &broker)?.with(rules);
        let mut agent = Agent::start(&village)?;
        await_analysis(&mut agent, "gate")?;
        gate.kill()?;
        let raised = await_event(&console, "gate", AlertKind::Offline, AlertEvent::Raised)?.alert;
        ensure!(is_about_the_camera(&raised.data) && !raised.data.evidence, "{raised:?}");
        ensure!(raised.subject.to_string() == "gate", "{}", raised.subject);
        agent.kill()?;

        let mut agent = Agent::start(&village)?;
        agent
            .camera_when("gate", "it to be missed for longer than it takes", |camera| camera.blind_s > 5.0)?;
        gate.restart()?;
        let ended = await_event(&console, "gate", AlertKind::Offline, AlertEvent::Ended)?.alert;
        ensure!(ended.id == raised.id && ended.data.over, "{ended:?}");
        ensure!(ended.data.state == AlertState::Cleared, "{ended:?}");
        // The agent that was killed may not have learnt that the broker had it: then it was sent again.
        let raised: BTreeSet<_> = console.seen(|seen| {
            let raised = seen.alerts.iter().filter(|one| one.alert.event == AlertEvent::Raised);
            raised.map(|one| one.alert.id).collect()
        });
        ensure!(raised.len() == 1, "one outage was told {} times", raised.len());
        let health = agent.health()?;
        ensure!(health.outbox.open == 0, "{:?}", health.outbox);
        console.seen(|seen| seen.nonsense.first().cloned()).map_or(Ok(()), Err).map_err(anyhow::Error::msg)
    });
}

#[test]
fn a_street_full_of_life_is_not_tampered_with() {
    play(|folder| {
        let (broker, console) = township(folder, &BrokerOptions::default())?;
        let gate = street(folder, "gate", &["--noise", "2"])?;
        let rules = VillageCamera::new("gate", gate.url("gate"))
            .own_rule("tampered", "after = \"2s\"\nfrozen_after = \"10s\"")
            .own_rule("offline", "after = \"10s\"");
        let mut agent = Agent::start(&village(folder, &broker)?.with(rules))?;
        // More than the clip's length, so that it begins anew in between.
        agent.health_when("nothing", |health| (health.cameras[0].received >= 550).then_some(()))?;
        agent.health_when("nothing more", |health| (health.cameras[0].received >= 900).then_some(()))?;
        let told = console.seen(|seen| seen.alerts.first().map(|received| received.json.clone()));
        ensure!(told.is_none(), "{}", told.context("told")?);
        Ok(())
    });
}
