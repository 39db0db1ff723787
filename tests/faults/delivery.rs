//! Brokers and links that break their promises, between a real agent and a real mosquitto: everything that was decided
//! arrives, each number once after a reader has dropped what it had, and none is missing.

use std::path::Path;

use anyhow::{Result, ensure};
use sharp_eyes_tests::agent::Agent;
use sharp_eyes_tests::broker::BrokerOptions;
use sharp_eyes_tests::faulty_broker::{Direction, Fate, FaultyBroker, Kind, rule};
use sharp_eyes_tests::link::{Link, Weather};
use sharp_eyes_tests::village::{Village, VillageCamera};
use sharp_eyes_tests::wait;

use crate::stage::{complete, play, raised, street, township};

/// A village with one camera whose broker is somewhere else than where it believes.
fn through(folder: &Path, port: u16, url: String) -> Result<Village> {
    let mut village = Village::new(folder, port)?.with(VillageCamera::guarded("gate", url));
    village.broker_port = port;
    Ok(village)
}

fn faulty(break_it: impl FnOnce(&FaultyBroker), mend: bool) {
    play(|folder| {
        let (broker, console) = township(folder, &BrokerOptions::default())?;
        let between = FaultyBroker::start(broker.port())?;
        break_it(&between);
        let gate = street(folder, "gate", &[])?;
        let mut agent = Agent::start(&through(folder, between.port(), gate.url("gate"))?)?;
        console.await_alerts(4)?;
        if mend {
            between.heal();
        }
        agent.health_when("six alerts", |health| (raised(health) >= 6).then_some(()))?;
        let last = raised(&agent.health()?);
        console.await_alerts(last as usize)?;
        complete(&console.seen(|seen| seen.sequences()), last)
    });
}

#[test]
fn acknowledgements_that_come_in_reverse_order() {
    faulty(|between| between.set_rule(rule::acknowledge_in_reverse(2)), true);
}

#[test]
fn every_third_acknowledgement_lost() {
    let rule = rule::each(Direction::ToClient, Kind::PubAck, 3, Fate::Lose);
    faulty(|between| between.set_rule(rule), true);
}

#[test]
fn a_broker_that_disconnects_at_every_tenth_packet() {
    faulty(|between| between.set_rule(rule::cut_each(10)), false);
}

#[test]
fn a_link_that_is_cut_and_one_that_is_half_open_and_noticed() {
    play(|folder| {
        let (broker, console) = township(folder, &BrokerOptions::default())?;
        let link = Link::start(broker.port())?;
        let gate = street(folder, "gate", &[])?;
        let mut agent = Agent::start(&through(folder, link.port(), gate.url("gate"))?)?;
        console.await_alerts(1)?;
        link.cut()?;
        link.heal()?;
        console.await_alerts(3)?;
        link.half_open()?;
        agent.health_when("it to be noticed", |health| (!health.uplinks[0].connected).then_some(()))?;
        agent.health_when("alerts to wait", |health| (health.outbox.alerts >= 2).then_some(()))?;
        link.heal()?;
        let last = raised(&agent.health()?);
        console.await_alerts(last as usize)?;
        complete(&console.seen(|seen| seen.sequences()), last)
    });
}

#[test]
fn a_link_of_64_kbit_with_a_fifth_lost_and_long_delays() {
    play(|folder| {
        let (broker, console) = township(folder, &BrokerOptions::default())?;
        let link = Link::start(broker.port())?;
        link.set_weather(Weather::RAIN);
        let gate = street(folder, "gate", &[])?;
        let mut agent = Agent::start(&through(folder, link.port(), gate.url("gate"))?)?;
        agent.health_when("five alerts", |health| (raised(health) >= 5).then_some(()))?;
        let last = raised(&agent.health()?);
        console.wait_for("them all", 3 * wait::PATIENCE, |seen| {
            (seen.sequences().len() as u64 >= last).then_some(())
        })?;
        let numbers = console.seen(|seen| seen.sequences());
        ensure!(numbers.iter().zip(1..).all(|(found, expected)| *found == expected), "{numbers:?}");
        Ok(())
    });
}
