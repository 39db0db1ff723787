//! The man in the middle, before a real mosquitto. Its PUBACKs say 10 (hexadecimal) where nobody has subscribed.

use std::sync::{Arc, Mutex};

use anyhow::Result;
use sharp_eyes_tests::broker::{Broker, BrokerOptions};
use sharp_eyes_tests::faulty_broker::Direction::{ToBroker, ToClient};
use sharp_eyes_tests::faulty_broker::Kind::{PubAck, Publish};
use sharp_eyes_tests::faulty_broker::rule::{acknowledge_in_reverse, at, cut_each, each, refuse};
use sharp_eyes_tests::faulty_broker::{Fate, FaultyBroker, Passing};

use super::client::Client;

/// Publishes 1, 2, 3, ... with a fault between, and says what the publisher was told and what a subscriber saw.
fn publish(
    topics: &[&str],
    rule: impl FnMut(&Passing<'_>) -> Fate + Send + 'static,
    answers: usize,
    arrivals: usize,
) -> Result<(String, String)> {
    let folder = tempfile::tempdir()?;
    let broker = Broker::start(folder.path(), &BrokerOptions::default())?;
    let faulty = FaultyBroker::start(broker.port())?;
    let mut console = Client::subscribed(broker.port(), "console")?;
    let mut agent = Client::connect(faulty.port(), "agent")?;
    faulty.set_rule(rule);
    for (n, topic) in topics.iter().enumerate() {
        agent.publish(n as u16 + 1, topic)?;
    }
    let told = agent.take(answers)?.join(", ");
    // What did not arrive would arrive now, before this.
    Client::connect(broker.port(), "other")?.publish(9, "last")?;
    Ok((told, console.take(arrivals + 1)?.join(", ")))
}

#[test]
fn each_fault_does_what_it_says() {
    let three = ["a", "b/alert", "c"];
    let check =
        |topics: &[&str], rule: Box<dyn FnMut(&Passing<'_>) -> Fate + Send>, told: &str, seen: &str| {
            let (answers, arrivals) = (told.split(", ").count(), seen.split(", ").count() - 1);
            let result = publish(topics, rule, answers, arrivals).unwrap();
            assert_eq!(result, (told.to_owned(), seen.to_owned()));
        };
    let all = "1, 2, 3, 9";
    check(&three, Box::new(|_| Fate::Pass), "ack 1 0, ack 2 0, ack 3 0", all);
    check(&three, Box::new(at(ToClient, PubAck, 2, Fate::Lose)), "ack 1 0, ack 3 0", all);
    check(&three, Box::new(each(ToClient, PubAck, 3, Fate::Lose)), "ack 1 0, ack 2 0", all);
    check(&["b/alert"], Box::new(refuse("alert", 0x87)), "ack 1 87", "9");
    check(&three, Box::new(at(ToClient, PubAck, 3, Fate::Refuse(0x97))), "ack 1 0, ack 2 0, ack 3 97", all);
    check(&three, Box::new(acknowledge_in_reverse(3)), "ack 3 0, ack 2 0, ack 1 0", all);
    check(&["a"], Box::new(at(ToBroker, Publish, 1, Fate::Twice)), "ack 1 0, ack 1 0", "1, 1, 9");
    check(&["a"], Box::new(at(ToBroker, Publish, 1, Fate::Disconnect(0x95))), "Disconnect 95, end", "9");
    // The three phases of a publish that is under way.
    check(&["a"], Box::new(at(ToBroker, Publish, 1, Fate::Cut)), "end", "9");
    check(&["a"], Box::new(at(ToClient, PubAck, 1, Fate::Cut)), "end", "1, 9");
    check(&["a"], Box::new(at(ToClient, PubAck, 1, Fate::CutAfter)), "ack 1 0, end", "1, 9");
}

#[test]
fn a_command_arrives_twice() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let broker = Broker::start(folder.path(), &BrokerOptions::default())?;
    let faulty = FaultyBroker::start(broker.port())?;
    faulty.set_rule(at(ToClient, Publish, 1, Fate::Twice));
    let mut agent = Client::subscribed(faulty.port(), "agent")?;
    Client::connect(broker.port(), "console")?.publish(1, "command")?;
    assert_eq!(agent.take(2)?, ["1", "1 again"]);
    let seen = faulty.until("the command", |seen| seen.iter().find(|seen| seen.kind == Publish).cloned())?;
    assert_eq!((seen.topic.as_deref(), seen.direction, seen.fate), (Some("command"), ToClient, Fate::Twice));
    Ok(())
}

#[test]
fn what_is_held_is_released_in_any_order() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let broker = Broker::start(folder.path(), &BrokerOptions::default())?;
    let faulty = FaultyBroker::start(broker.port())?;
    let mut agent = Client::connect(faulty.port(), "agent")?;
    faulty.set_rule(each(ToClient, PubAck, 1, Fate::Hold));
    for id in [1, 2, 3] {
        agent.publish(id, "a")?;
    }
    sharp_eyes_tests::wait::until("three held", sharp_eyes_tests::wait::PATIENCE, || {
        (faulty.held() == 3).then_some(())
    })?;
    faulty.release(|held| held.rotate_left(1));
    assert_eq!(agent.take(3)?, ["ack 2 10", "ack 3 10", "ack 1 10"]);
    faulty.heal();
    agent.publish(4, "a")?;
    assert_eq!(agent.take(1)?, ["ack 4 10"]);
    Ok(())
}

#[test]
fn a_connection_ends_after_every_tenth_packet() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let broker = Broker::start(folder.path(), &BrokerOptions::default())?;
    let faulty = FaultyBroker::start(broker.port())?;
    faulty.set_rule(cut_each(10));
    for _ in 0..2 {
        let mut agent = Client::connect(faulty.port(), "agent")?; // CONNECT and CONNACK
        for id in 1..=4 {
            agent.publish(id, "a")?;
            assert_eq!(agent.take(1)?, [format!("ack {id} 10")]);
        }
        assert_eq!(agent.take(1)?, ["end"]);
    }
    Ok(())
}

#[test]
fn a_rule_may_kill_the_broker_behind() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let broker = Broker::start(folder.path(), &BrokerOptions::default())?;
    let faulty = FaultyBroker::start(broker.port())?;
    let mut agent = Client::connect(faulty.port(), "agent")?;
    let broker = Arc::new(Mutex::new(broker));
    let victim = Arc::clone(&broker);
    faulty.set_rule(move |passing| {
        if passing.is(ToClient, PubAck) {
            victim.lock().unwrap().kill().unwrap();
            return Fate::Cut;
        }
        Fate::Pass
    });
    agent.publish(1, "a")?;
    assert_eq!(agent.take(1)?, ["end"]);
    assert!(Client::connect(faulty.port(), "agent").is_err(), "nobody is there");
    broker.lock().unwrap().restart()?;
    faulty.heal();
    let mut agent = Client::connect(faulty.port(), "agent")?;
    agent.publish(1, "a")?;
    assert_eq!(agent.take(1)?, ["ack 1 10"]);
    Ok(())
}

#[test]
fn what_is_not_mqtt_is_said() -> Result<()> {
    use std::io::{Read, Write};
    let folder = tempfile::tempdir()?;
    let broker = Broker::start(folder.path(), &BrokerOptions::default())?;
    let faulty = FaultyBroker::start(broker.port())?;
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", faulty.port()))?;
    stream.write_all(b"\0\0GET / HTTP/1.0\r\n\r\n")?;
    assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    let error = faulty.until("a packet", |seen| (!seen.is_empty()).then_some(())).unwrap_err();
    assert!(error.to_string().contains("0 is no type of packet"), "{error}");
    Ok(())
}
