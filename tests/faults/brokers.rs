//! Brokers that are killed in the middle of a message, and brokers that fall silent.

use anyhow::{bail, ensure};
use sharp_eyes_protocol::command::{Answer, Request};
use sharp_eyes_protocol::level::Severity;
use sharp_eyes_protocol::report::BoxState;
use sharp_eyes_tests::alert_source::AlertSource;
use sharp_eyes_tests::console::Console;
use sharp_eyes_tests::faulty_broker::{Direction, Fate, FaultyBroker, Kind, Passing, rule};
use sharp_eyes_tests::wait;

use crate::scene::{BOX, Scene, arrive, beside, times};
use crate::stage::{play, says};

/// Where an alert is when the broker dies, and how often it arrives.
struct Phase {
    rule: fn(&FaultyBroker),
    is_there: fn(&Scene) -> bool,
    box_knows: bool,
    arrives: usize,
}

#[test]
fn a_broker_that_is_killed_in_each_phase_of_a_message_and_forgets_everything() {
    let phases = [
        (
            "before the broker has it",
            Phase {
                rule: |between| between.set_rule(hold_alerts),
                is_there: |scene| scene.between.held() == 1,
                box_knows: false,
                arrives: 1,
            },
        ),
        (
            "the broker has it, and the box does not know",
            Phase {
                rule: |between| between.set_rule(rule::answers_to("/alert/", 1, Fate::Hold)),
                is_there: |scene| scene.between.held() == 1 && times(&scene.console, 1) == 1,
                box_knows: false,
                arrives: 2,
            },
        ),
        (
            "the box knows that the broker has it",
            Phase {
                rule: |between| between.heal(),
                is_there: |scene| times(&scene.console, 1) == 1,
                box_knows: true,
                arrives: 1,
            },
        ),
    ];
    play(|folder| {
        beside(folder, &phases, |folder, phase| {
            let mut scene = Scene::set(folder)?;
            let mut source = scene.box_at_rest()?;
            (phase.rule)(&scene.between);
            source.store(1, Some(Severity::Major))?;
            wait::until("the alert to be there", wait::PATIENCE, || (phase.is_there)(&scene).then_some(()))?;
            if phase.box_knows {
                source.await_delivery()?;
            }
            scene.broker.kill()?;
            source.store(1, Some(Severity::Critical))?;
            scene.restart_broker()?;
            source.await_delivery()?;
            arrive(&scene.console, &source.stored())?;
            ensure!(times(&scene.console, 1) == phase.arrives, "it came {} times", times(&scene.console, 1));

            // What the broker kept and whom it served is as before: retained reports, and the subscription to commands.
            let late = Console::connect(scene.broker.port(), None)?;
            late.wait_for("the retained reports", wait::PATIENCE, |seen| {
                let online = seen.status.as_ref().is_some_and(|status| status.state == BoxState::Online);
                (online && seen.health.is_some() && seen.models.is_some()).then_some(())
            })?;
            let Answer::Done(_) = scene.console.ask(BOX, "yun-shan-1", 1, Request::Status)? else {
                bail!("a command was refused")
            };
            scene.everything_arrives(source)
        })
    });
}

fn hold_alerts(passing: &Passing<'_>) -> Fate {
    let alert = passing.packet.topic.as_ref().is_some_and(|topic| topic.contains("/alert/"));
    if alert && passing.direction == Direction::ToBroker { Fate::Hold } else { Fate::Pass }
}

/// What passes, and what health says of it.
struct Silence {
    passes: fn(&Passing<'_>) -> bool,
    says: &'static [&'static str],
}

#[test]
fn brokers_that_fall_silent_are_named_and_get_everything_when_they_speak_again() {
    let silences = [
        ("accepts, and never answers", Silence { passes: |_| false, says: &["no answer within"] }),
        (
            "answers CONNACK, and nothing more",
            Silence {
                passes: |passing| {
                    passing.direction == Direction::ToBroker || passing.packet.kind == Kind::ConnAck
                },
                says: &["broker 127.0.0.1"],
            },
        ),
        (
            "answers everything but messages",
            Silence {
                passes: |passing| !passing.is(Direction::ToClient, Kind::PubAck),
                says: &["did not answer a message in time"],
            },
        ),
    ];
    play(|folder| {
        beside(folder, &silences, |folder, silence| {
            let scene = Scene::set(folder)?;
            let passes = silence.passes;
            scene.between.set_rule(move |passing| if passes(passing) { Fate::Pass } else { Fate::Lose });
            let mut source = AlertSource::start(&scene.village)?;
            source.store(20, None)?;
            let reason = source.health_when("a reason", 2 * wait::PATIENCE, |health| {
                health.uplinks[0].reason.clone().filter(|_| !health.uplinks[0].connected)
            })?;
            says(&reason, silence.says)?;
            source.store(20, None)?;
            scene.between.heal();
            scene.everything_arrives(source)
        })
    });
}
