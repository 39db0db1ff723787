//! Brokers that are away. Every alert arrives in the end.

use std::path::Path;

use anyhow::{Result, ensure};
use sharp_eyes_tests::agent::Agent;
use sharp_eyes_tests::authority::{Authority, Credentials};
use sharp_eyes_tests::broker::{Broker, BrokerOptions, TlsFiles};
use sharp_eyes_tests::console::Console;
use sharp_eyes_tests::village::VillageCamera;
use sharp_eyes_tests::wait;

use crate::stage::{await_analysis, complete, goes_on, play, raised, says, street, township, village};

/// A broker that remembers, whenever it is killed, that the console subscribed: nothing is lost that it acknowledges while
/// the console is not back yet.
fn lasting(folder: &Path) -> Result<(Broker, Console)> {
    let (mut broker, console) =
        township(folder, &BrokerOptions { persistent: true, ..BrokerOptions::default() })?;
    broker.save()?;
    Ok((broker, console))
}

#[test]
fn a_broker_that_is_absent_at_the_start_gets_everything_later() {
    play(|folder| {
        let (mut broker, console) = lasting(folder)?;
        broker.kill()?;
        let gate = street(folder, "gate", &[])?;
        let village = village(folder, &broker)?.with(VillageCamera::guarded("gate", gate.url("gate")));
        let mut agent = Agent::start(&village)?;
        let reason = agent.health_when("3 alerts in the outbox", |health| {
            (health.outbox.alerts >= 3 && !health.uplinks[0].connected)
                .then(|| health.uplinks[0].reason.clone())
        })?;
        ensure!(reason.is_some_and(|reason| !reason.is_empty()), "no reason why there is no broker");
        broker.restart()?;
        everything_arrives(&mut agent, &console)
    });
}

#[test]
fn a_broker_that_is_killed_in_between_loses_no_alert() {
    play(|folder| {
        let (mut broker, console) = lasting(folder)?;
        let gate = street(folder, "gate", &[])?;
        let village = village(folder, &broker)?.with(VillageCamera::guarded("gate", gate.url("gate")));
        let mut agent = Agent::start(&village)?;
        for _ in 0..2 {
            let delivered = console.seen(|seen| seen.sequences().len());
            console.await_alerts(delivered + 1)?;
            broker.kill()?;
            agent.health_when("alerts to wait", |health| (health.outbox.alerts >= 2).then_some(()))?;
            goes_on(&mut agent, "gate", 2)?;
            broker.restart()?;
            everything_arrives(&mut agent, &console)?;
        }
        Ok(())
    });
}

#[test]
fn a_power_cut_while_the_broker_is_away_loses_no_alert() {
    play(|folder| {
        let (mut broker, console) = lasting(folder)?;
        broker.kill()?;
        let gate = street(folder, "gate", &[])?;
        let village = village(folder, &broker)?.with(VillageCamera::guarded("gate", gate.url("gate")));
        let mut agent = Agent::start(&village)?;
        let waiting = agent.health_when("2 alerts in the outbox", |health| {
            (health.outbox.alerts >= 2).then_some(health.outbox.alerts)
        })?;
        agent.kill()?;
        broker.restart()?;
        let _agent = Agent::start(&village)?;
        console.await_alerts(waiting as usize + 1)?;
        complete(&console.seen(|seen| seen.sequences()), waiting + 1)
    });
}

/// What was raised until now reaches the console, and the outbox is rid of it.
fn everything_arrives(agent: &mut Agent, console: &Console) -> Result<()> {
    let last = raised(&agent.health()?);
    console.wait_for(&format!("all {last} alerts"), wait::PATIENCE, |seen| {
        (seen.sequences().len() as u64 >= last).then_some(())
    })?;
    complete(&console.seen(|seen| seen.sequences()), last)?;
    agent.health_when("the outbox to be empty", |health| (health.outbox.alerts == 0).then_some(()))
}

#[test]
fn a_broker_that_refuses_the_password_is_named_and_nothing_is_lost() {
    play(|folder| {
        let login = Some(("box-1".to_owned(), "right".to_owned()));
        let (broker, console) = township(folder, &BrokerOptions { login, ..BrokerOptions::default() })?;
        let file = folder.join("broker.password");
        std::fs::write(&file, "wrong")?;
        let gate = street(folder, "gate", &[])?;
        let mut village = village(folder, &broker)?.with(VillageCamera::guarded("gate", gate.url("gate")));
        village.broker_lines = format!("user = \"box-1\"\npassword_file = \"{}\"\n", file.display());
        let mut agent = Agent::start(&village)?;
        await_analysis(&mut agent, "gate")?;
        let reason = agent.health_when("alerts to wait, and a reason", |health| {
            health.uplinks[0].reason.clone().filter(|_| health.outbox.alerts > 0)
        })?;
        says(&reason, &["refuse"])?;
        ensure!(agent.stop()? == 0, "asked to end, the agent ended with an error");

        std::fs::write(&file, "right")?;
        let mut agent = Agent::start(&village)?;
        console.await_alerts(2)?;
        agent.health_when("the outbox to be empty", |health| (health.outbox.alerts == 0).then_some(()))?;
        complete(&console.seen(|seen| seen.sequences()), 2)
    });
}

#[test]
fn certificates_on_both_sides_are_checked() {
    play(|folder| {
        let ours = Authority::new(folder, "ours")?;
        let Credentials { certificate, key, .. } = ours.vouch("127.0.0.1")?;
        let tls = Some(TlsFiles { ca: ours.file().to_owned(), certificate, key, revoked: None });
        let (broker, console) = township(folder, &BrokerOptions { tls, ..BrokerOptions::default() })?;
        let gate = street(folder, "gate", &[])?;
        let guarded = VillageCamera::guarded("gate", gate.url("gate"));
        let start = |ca: &Path, name: &str, by: &Authority| -> Result<Agent> {
            let Credentials { certificate, key, .. } = by.vouch(name)?;
            let mut village = village(folder, &broker)?.with(guarded.clone());
            village.broker_port = broker.tls_port();
            village.broker_lines = format!(
                "[broker.tls]\nca = \"{}\"\ncertificate = \"{}\"\nkey = \"{}\"\n",
                ca.display(),
                certificate.display(),
                key.display()
            );
            Agent::start(&village)
        };

        let theirs = Authority::new(folder, "theirs")?;
        for (ca, by) in [(theirs.file(), &ours), (ours.file(), &theirs)] {
            let mut agent = start(ca, "box-1", by)?;
            let reason = agent.health_when("a reason", |health| health.uplinks[0].reason.clone())?;
            ensure!(!agent.health()?.uplinks[0].connected, "connected although {reason}");
            ensure!(agent.stop()? == 0, "asked to end, the agent ended with an error");
        }
        let _agent = start(ours.file(), "box-1", &ours)?;
        console.await_alerts(2).map(drop)
    });
}

#[test]
fn two_brokers_do_not_meet() {
    // The harness itself: ports are free ones, so that tests run beside each other.
    play(|folder| {
        let (one, two) = (folder.join("one"), folder.join("two"));
        std::fs::create_dir_all(&one)?;
        std::fs::create_dir_all(&two)?;
        let first = Broker::start(&one, &BrokerOptions::default())?;
        let second = Broker::start(&two, &BrokerOptions::default())?;
        ensure!(first.port() != second.port());
        Ok(())
    });
}
