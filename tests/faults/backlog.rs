//! Much to deliver: after a long outage, through one connection, and to a broker that takes one message at a time.

use std::collections::BTreeSet;

use anyhow::{bail, ensure};
use sharp_eyes_protocol::command::{Answer, Done, Range, Request};
use sharp_eyes_tests::alert_source::AlertSource;
use sharp_eyes_tests::broker::BrokerOptions;
use sharp_eyes_tests::faulty_broker::{Direction, Fate, Kind, Seen, rule};
use sharp_eyes_tests::wait;

use crate::scene::{BOX, Scene};
use crate::stage::play;

#[test]
fn an_hour_of_alerts_a_second_without_a_broker_arrives_worst_first_and_oldest_first() {
    const HOUR: usize = 3_600;
    play(|folder| {
        let scene = Scene::set(folder)?;
        scene.between.set_rule(rule::each(Direction::ToBroker, Kind::Connect, 1, Fate::Cut));
        let mut source = AlertSource::start(&scene.village)?;
        source.store(HOUR, None)?;
        let health = source.health()?;
        ensure!(health.outbox.alerts == HOUR as u64 && health.outbox.evicted_alerts == 0, "{health:?}");

        scene.between.heal();
        source.await_delivery()?;
        scene.console.await_alerts(HOUR)?;
        let order: Vec<_> = scene.console.seen(|seen| {
            let severity_and_age = |number: &sharp_eyes_tests::console::Received| {
                (std::cmp::Reverse(number.alert.data.severity), number.alert.sequence)
            };
            seen.alerts.iter().map(severity_and_age).collect()
        });
        ensure!(order.is_sorted(), "the order of arrival was another one: {order:?}");
        scene.everything_arrives(source)
    });
}

/// Packet ids are numbers of 16 bits: what happens at their end happens once in so many messages of one connection.
const PACKET_IDS: u64 = 65_535;

#[test]
fn more_messages_than_there_are_packet_ids_through_one_connection() {
    const KEPT: u64 = 2_000;
    play(|folder| {
        let mut scene = Scene::set(folder)?;
        scene.village.state_lines = format!("keep_delivered = {KEPT}\n");
        scene.village.broker_port = scene.broker.port(); // without a man in the middle: he remembers every packet
        let mut source = AlertSource::start(&scene.village)?;
        source.store(KEPT as usize, None)?;
        source.await_delivery()?;
        let rounds = PACKET_IDS / KEPT + 1;
        for round in 1..=rounds {
            let range = Range { from: 1, to: Some(KEPT) };
            let answer = scene.console.ask(BOX, "yun-shan-1", round, Request::Resend(range))?;
            let Answer::Done(Done::Resend(resent)) = answer else { bail!("{answer:?}") };
            ensure!((resent.messages, resent.missing.len()) == (KEPT, 0), "{resent:?}");
            // Those that still wait when the next round begins would be sent once for both.
            let expected = (KEPT * (round + 1)) as usize;
            scene.console.wait_for("a round of them", 2 * wait::PATIENCE, |seen| {
                (seen.alerts.len() >= expected).then_some(())
            })?;
            source.await_delivery()?;
        }
        let uplink = source.health()?.uplinks.remove(0);
        ensure!(uplink.failures == 0 && uplink.acknowledged > PACKET_IDS, "{uplink:?}");
        let expected = (KEPT * (rounds + 1)) as usize;
        let arrived = scene.console.seen(|seen| seen.alerts.len());
        ensure!(arrived == expected, "{arrived} messages arrived in place of {expected}");
        scene.everything_arrives(source)
    });
}

#[test]
fn a_broker_that_takes_one_message_at_a_time() {
    play(|folder| {
        let options = BrokerOptions { lines: "max_inflight_messages 1", ..BrokerOptions::default() };
        let scene = Scene::with(folder, &options)?;
        let mut source = AlertSource::start(&scene.village)?;
        source.decide_with_pictures(60, None, 3_000)?;
        source.await_stored(60)?;
        source.await_delivery()?;
        let most = most_in_flight(&scene.between.seen());
        ensure!(most == 1, "up to {most} were on their way");
        scene.everything_arrives(source)
    });
}

/// The most messages that waited for their answer at one moment.
fn most_in_flight(seen: &[Seen]) -> usize {
    let mut out = BTreeSet::new();
    let mut most = 0;
    for packet in seen {
        match (packet.direction, packet.kind) {
            (Direction::ToBroker, Kind::Publish) => drop(out.insert((packet.connection, packet.id))),
            (Direction::ToClient, Kind::PubAck) => drop(out.remove(&(packet.connection, packet.id))),
            _ => {}
        }
        most = most.max(out.len());
    }
    most
}
