//! The broker's answers to messages: lost, doubled, refusing.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rusqlite::Connection;
use sharp_eyes_protocol::alert::Alert;
use sharp_eyes_protocol::command::{Answer, Done, Range, Request};
use sharp_eyes_protocol::level::Severity;
use sharp_eyes_tests::alert_source::AlertSource;
use sharp_eyes_tests::faulty_broker::{Direction, Fate, FaultyBroker, Kind, rule};
use sharp_eyes_tests::wait;

use crate::scene::{BOX, Scene, arrive, beside, times};
use crate::stage::{play, says};

/// The broker's answers have come through, or never will.
const LONG: Duration = Duration::from_secs(180);

/// What becomes of an answer, and what happens then.
struct Loss {
    rule: fn(&FaultyBroker),
    then: fn(AlertSource, &Scene) -> Result<AlertSource>,
}

#[test]
fn an_acknowledgement_that_is_lost_in_each_phase() {
    fn goes_on(source: AlertSource, _: &Scene) -> Result<AlertSource> {
        Ok(source)
    }
    let losses = [
        (
            "of the first report of a connection",
            Loss {
                rule: |between| between.set_rule(rule::answers_to("/status", 1, Fate::Lose)),
                then: goes_on,
            },
        ),
        (
            "of an alert with others behind it",
            Loss {
                rule: |between| between.set_rule(rule::answers_to("/alert/", 1, Fate::Lose)),
                then: goes_on,
            },
        ),
        (
            "of a thumbnail",
            Loss {
                rule: |between| between.set_rule(rule::answers_to("/thumbnail/", 1, Fate::Lose)),
                then: goes_on,
            },
        ),
        (
            "of an alert, and the link with it",
            Loss {
                rule: |between| between.set_rule(rule::answers_to("/alert/", 1, Fate::Cut)),
                then: goes_on,
            },
        ),
        (
            "of all alerts, before a power cut",
            Loss {
                rule: |between| between.set_rule(rule::answers_to("/alert/", u64::MAX, Fate::Lose)),
                then: |source, scene| {
                    seen_by_console(scene, 12)?;
                    let promised = source.kill()?;
                    scene.between.heal();
                    let again = AlertSource::start(&scene.village)?;
                    arrive(&scene.console, &promised)?;
                    Ok(again)
                },
            },
        ),
        (
            "of all alerts, before the agent is stopped",
            Loss {
                rule: |between| between.set_rule(rule::answers_to("/alert/", u64::MAX, Fate::Lose)),
                then: |source, scene| {
                    seen_by_console(scene, 12)?;
                    let promised = source.stop()?;
                    scene.between.heal();
                    let again = AlertSource::start(&scene.village)?;
                    arrive(&scene.console, &promised)?;
                    ensure!((1..=12).all(|number| times(&scene.console, number) >= 1), "they are there");
                    Ok(again)
                },
            },
        ),
    ];
    play(|folder| {
        beside(folder, &losses, |folder, loss| {
            let scene = Scene::set(folder)?;
            (loss.rule)(&scene.between);
            let mut source = AlertSource::start(&scene.village)?;
            source.decide_with_pictures(12, None, 5_000)?;
            source.await_stored(12)?;
            let mut source = (loss.then)(source, &scene)?;
            source.store(12, None)?;
            source.health_when("everything to be delivered", LONG, |health| {
                (health.outbox.alerts + health.outbox.evidence == 0).then_some(())
            })?;
            let lost = scene.between.seen().iter().any(|seen| matches!(seen.fate, Fate::Lose | Fate::Cut));
            ensure!(lost, "nothing was lost");
            scene.everything_arrives(source)
        })
    });
}

fn seen_by_console(scene: &Scene, alerts: usize) -> Result<()> {
    scene.console.await_alerts(alerts).map(drop)
}

/// A fault by name, and how to make it.
type Named = (&'static str, fn(&FaultyBroker));

#[test]
fn messages_and_acknowledgements_that_come_twice() {
    let doubled: [Named; 3] = [
        ("every third message", |between| {
            between.set_rule(rule::each(Direction::ToBroker, Kind::Publish, 3, Fate::Twice));
        }),
        ("every third acknowledgement", |between| {
            between.set_rule(rule::each(Direction::ToClient, Kind::PubAck, 3, Fate::Twice));
        }),
        ("every message and every acknowledgement", |between| {
            between.set_rule(|passing| match passing.packet.kind {
                Kind::Publish | Kind::PubAck => Fate::Twice,
                _ => Fate::Pass,
            });
        }),
    ];
    play(|folder| {
        beside(folder, &doubled, |folder, break_it| {
            let scene = Scene::set(folder)?;
            let mut source = scene.box_at_rest()?;
            break_it(&scene.between);
            source.store(12, None)?;
            let delivered =
                |health: &sharp_eyes_protocol::report::Health| (health.outbox.alerts == 0).then_some(());
            source.health_when("everything to be delivered", LONG, delivered)?;
            scene.everything_arrives(source)
        })
    });
}

/// Every reason with which MQTT 5 lets a broker refuse a message (3.4.2.1), and how the agent names it. 0x95 is not among
/// them, and mosquitto sends it.
const REASONS: [(u8, &str); 8] = [
    (0x80, "unspecified"),
    (0x83, "implementation"),
    (0x87, "notauthorized"),
    (0x90, "topicname"),
    (0x91, "packetidentifier"),
    (0x95, "149"),
    (0x97, "quota"),
    (0x99, "payloadformat"),
];

#[test]
fn a_message_that_is_refused_for_any_reason_is_kept_with_it_and_holds_up_nothing() {
    play(|folder| {
        let scene = Scene::set(folder)?;
        let refused: BTreeMap<u64, u8> = (2..).step_by(2).zip(REASONS.map(|(reason, _)| reason)).collect();
        let mut source = scene.box_at_rest()?;
        let rule = refused.clone();
        scene.between.set_rule(move |passing| {
            let alert = || serde_json::from_slice::<Alert>(passing.packet.payload()).ok();
            let reason = passing
                .is(Direction::ToBroker, Kind::Publish)
                .then(alert)
                .flatten()
                .and_then(|alert| rule.get(&alert.sequence).copied());
            reason.map_or(Fate::Pass, Fate::Refuse)
        });
        source.store(20, None)?;
        let health = source.health_when("the refusals", wait::PATIENCE, |health| {
            (health.outbox.alerts == 0 && health.outbox.parked == 8).then(|| health.clone())
        })?;
        ensure!(health.outbox.parked_reason.is_some(), "no reason in health");
        ensure!(health.uplinks[0].refused == 8, "{:?}", health.uplinks);
        scene.console.await_alerts(12)?;
        ensure!(refused.keys().all(|number| times(&scene.console, *number) == 0), "one arrived all the same");
        source.stop()?;

        let kept = kept_reasons(&scene)?;
        for ((number, code), (_, word)) in refused.iter().zip(REASONS) {
            let reason = kept.get(number).with_context(|| format!("{number} is not parked"))?;
            says(reason, &[word]).with_context(|| format!("refused with {code:#x}"))?;
        }

        // A console may have them tried again, when whatever was wrong is right.
        scene.between.heal();
        let source = scene.box_at_rest()?;
        let range = Range { from: 1, to: None };
        let answer = scene.console.ask(BOX, "yun-shan-1", 1, Request::Resend(range))?;
        let Answer::Done(Done::Resend(resent)) = answer else { bail!("{answer:?}") };
        ensure!((resent.messages, resent.missing.len()) == (20, 0), "{resent:?}");
        scene.console.await_alerts(20)?;
        scene.everything_arrives(source)
    });
}

/// What stands in the outbox beside each message that was refused.
fn kept_reasons(scene: &Scene) -> Result<BTreeMap<u64, String>> {
    let db = Connection::open(scene.village.state.join("outbox.db"))?;
    let mut parked = db.prepare("SELECT sequence, reason FROM message WHERE parked > 0")?;
    let rows = parked.query_map([], |row| Ok((row.get::<_, i64>(0)? as u64, row.get(1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

#[test]
fn a_box_whose_every_message_is_refused_goes_on() {
    play(|folder| {
        let scene = Scene::set(folder)?;
        scene.between.set_rule(rule::refuse("sharp-eyes/", 0x97));
        let mut source = AlertSource::start(&scene.village)?;
        source.store(30, None)?;
        source.health_when("all to be parked", wait::PATIENCE, |health| {
            (health.outbox.alerts == 0 && health.outbox.parked == 30).then_some(())
        })?;
        scene.between.heal();
        source.store(1, Some(Severity::Minor))?;
        scene.console.await_alerts(1)?;
        Ok(())
    });
}
