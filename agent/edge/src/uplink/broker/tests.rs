use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::uplink::harness::{Mosquitto, Subscriber, slow_link};

const LONG: Duration = Duration::from_secs(60);
const COMMANDS: &str = "sharp-eyes/1/d/t/v/b/command";

fn options(port: u16) -> UplinkOptions {
    UplinkOptions {
        name: sharp_eyes_protocol::topic::Name::new("township").unwrap(),
        host: "localhost".into(),
        port,
        tls: None,
        credentials: None,
        client_id: "d.t.v.b".into(),
        keep_alive: Duration::from_secs(5),
        window: 16,
    }
}

fn publication(topic: &str, payload: &[u8]) -> Publication {
    Publication { topic: topic.into(), payload: payload.into(), ..Publication::default() }
}

async fn connect(port: u16) -> Result<Broker, Failure> {
    let clock = Arc::new(Clock::start(std::path::Path::new("/nonexistent")));
    let will = publication("sharp-eyes/1/d/t/v/b/status", b"gone");
    Broker::connect(&options(port), &clock, will, &[COMMANDS.into()]).await
}

async fn event(broker: &mut Broker) -> BrokerEvent {
    tokio::time::timeout(LONG, broker.event()).await.expect("an event").expect("a connection")
}

/// The next message; what else happens does not matter.
async fn message(broker: &mut Broker) -> Incoming {
    loop {
        if let BrokerEvent::Message(message) = event(broker).await {
            return message;
        }
    }
}

/// All messages that the broker had sent when it answered a message of ours.
async fn messages_so_far(broker: &mut Broker) -> Vec<String> {
    assert!(broker.publish(publication("sharp-eyes/1/d/t/v/b/health", b"{}")));
    let mut all = Vec::new();
    loop {
        match event(broker).await {
            BrokerEvent::Message(message) => all.push(String::from_utf8(message.payload).unwrap()),
            BrokerEvent::Answered(_, answer) => {
                assert_eq!(answer, Ok(()));
                return all;
            }
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_command_arrives_with_all_that_an_answer_needs() {
    let mosquitto = Mosquitto::start("allow_anonymous true").await;
    mosquitto.publish(COMMANDS, "kept for later", &["-r"]);
    let mut broker = connect(mosquitto.port).await.unwrap();
    assert_eq!(event(&mut broker).await, BrokerEvent::Subscribed(Ok(())));
    let answers = "sharp-eyes/1/d/t/v/b/answer/yun-shan-1";
    mosquitto.publish(
        COMMANDS,
        "{}",
        &["-D", "publish", "response-topic", answers, "-D", "publish", "correlation-data", "order-7"],
    );
    let command = message(&mut broker).await;
    let wanted = Incoming {
        topic: COMMANDS.into(),
        payload: b"{}".into(),
        response_topic: Some(answers.into()),
        correlation: Some(b"order-7".into()),
        retain: false,
        dup: false,
        id: command.id,
    };
    assert_eq!(command, wanted, "and not what was kept on the topic");
    assert!(command.id.is_some() && broker.acknowledge(&command));
    mosquitto.publish(COMMANDS, "kept", &["-r"]);
    assert!(message(&mut broker).await.retain, "it can be told that it was published to be kept");
}

#[tokio::test]
async fn the_broker_keeps_commands_until_those_before_are_taken_over() {
    let mosquitto = Mosquitto::start("allow_anonymous true").await;
    let mut broker = connect(mosquitto.port).await.unwrap();
    let first = usize::from(RECEIVE_MAXIMUM);
    for n in 1..=first + 2 {
        mosquitto.publish(COMMANDS, &n.to_string(), &[]);
    }
    let mut waiting = Vec::new();
    while waiting.len() < first {
        waiting.push(message(&mut broker).await);
    }
    assert_eq!(messages_so_far(&mut broker).await, [] as [&str; 0]);
    for taken_over in waiting.iter().take(2) {
        assert!(broker.acknowledge(taken_over));
    }
    for n in first + 1..=first + 2 {
        assert_eq!(message(&mut broker).await.payload, n.to_string().as_bytes());
    }
}

#[tokio::test]
async fn a_broker_that_floods_is_left() {
    const ANSWERS: &[u8] = &[0x90, 4, 0, 1, 0, 1];
    let publish = [0x32, 7, 0, 1, b'c', 0, 9, 0, b'1'];
    let flood: &[u8] = [ANSWERS, &publish.repeat(FLOOD + 1)].concat().leak();
    let mut broker = connect(script(vec![CONNACK, flood].leak()).await).await.unwrap();
    assert_eq!(event(&mut broker).await, BrokerEvent::Subscribed(Ok(())));
    for _ in 0..=FLOOD {
        message(&mut broker).await;
    }
    let end = broker.event().await;
    assert_eq!(end, Err(Failure::Lost("the broker sends more messages than it may".into())));
}

/// The subscription takes the only packet id that there is, and gives it back.
#[tokio::test]
async fn a_broker_that_takes_one_message_at_a_time_gets_one_after_the_other() {
    let mosquitto = Mosquitto::start("allow_anonymous true\nmax_inflight_messages 1").await;
    let mut broker = connect(mosquitto.port).await.unwrap();
    assert_eq!(broker.window, 1);
    for n in 1..=5 {
        mosquitto.publish(COMMANDS, &n.to_string(), &[]);
        assert_eq!(messages_so_far(&mut broker).await, [n.to_string()]);
    }
}

#[tokio::test]
async fn a_message_that_is_too_large_never_reaches_the_box() {
    let mosquitto = Mosquitto::start("allow_anonymous true").await;
    let mut broker = connect(mosquitto.port).await.unwrap();
    mosquitto.publish(COMMANDS, &"x".repeat(LARGEST_PACKET as usize), &[]);
    mosquitto.publish(COMMANDS, "small", &[]);
    assert_eq!(messages_so_far(&mut broker).await, ["small"]);
}

#[tokio::test]
async fn a_message_says_how_long_it_may_be_kept_and_what_it_answers() {
    let mosquitto = Mosquitto::start("allow_anonymous true").await;
    let mut console = Subscriber::start(mosquitto.port).await;
    let mut broker = connect(mosquitto.port).await.unwrap();
    let expiring = Publication {
        expiry: Some(Duration::from_secs(3600)),
        correlation: Some(b"order-7".into()),
        ..publication("sharp-eyes/1/d/t/v/b/answer/yun-shan-1", b"{}")
    };
    assert!(broker.publish(expiring));
    assert!(broker.publish(publication("sharp-eyes/1/d/t/v/b/alert/district", b"{}")));
    while !matches!(event(&mut broker).await, BrokerEvent::Answered(..)) {}
    while !matches!(event(&mut broker).await, BrokerEvent::Answered(..)) {}
    let all = console.until("both", |all| all.len() == 2).await;
    let left = all[0].expiry_s.expect("an expiry");
    assert!((3000..=3600).contains(&left), "{left}");
    assert_eq!(all[0].correlation, "order-7");
    assert_eq!((all[1].expiry_s, all[1].correlation.as_str()), (None, ""), "an alert never expires");
}

#[test]
fn an_expiry_is_whole_seconds_and_never_none() {
    for (expiry, seconds) in
        [(Duration::ZERO, 1), (Duration::from_millis(1900), 1), (Duration::MAX, u32::MAX)]
    {
        assert_eq!(expiry_s(expiry), seconds);
    }
}

/// The pings wait behind the picture for 16 s: the client itself would give up after the second.
#[tokio::test]
async fn a_picture_that_crawls_raises_no_false_alarm() {
    let mosquitto = Mosquitto::start("allow_anonymous true").await;
    let mut broker = connect(slow_link(mosquitto.port, 4_000).await).await.unwrap();
    let start = Instant::now();
    assert!(broker.publish(publication("sharp-eyes/1/d/t/v/b/evidence/x", &[0xff; 64_000])));
    while !matches!(event(&mut broker).await, BrokerEvent::Answered(_, Ok(()))) {}
    eprintln!("64 kB at 4 kB/s took {:?}", start.elapsed());
    assert_eq!(messages_so_far(&mut broker).await, [] as [&str; 0]);
}

#[tokio::test]
async fn a_broker_that_stands_still_is_noticed() {
    let mosquitto = Mosquitto::start("allow_anonymous true").await;
    let mut broker = connect(mosquitto.port).await.unwrap();
    assert_eq!(event(&mut broker).await, BrokerEvent::Subscribed(Ok(())));
    mosquitto.freeze();
    let start = Instant::now();
    let end = tokio::time::timeout(LONG, broker.event()).await.expect("an end");
    eprintln!("noticed after {:?}", start.elapsed());
    let Err(Failure::Lost(why)) = end else { panic!("{end:?}") };
    assert_eq!(why, "nothing heard for 15 s: connection given up");
    assert_eq!(broker.event().await, Err(Failure::Lost(why)), "and nothing comes after it");
}

/// A broker that answers one packet after the other with these bytes, whatever they say, and then listens.
async fn script(answers: &'static [&'static [u8]]) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut agent, _) = listener.accept().await.unwrap();
        let mut bytes = [0; 4096];
        for answer in answers {
            if agent.read(&mut bytes).await.unwrap() == 0 {
                return;
            }
            agent.write_all(answer).await.unwrap();
        }
        while agent.read(&mut bytes).await.is_ok_and(|count| count > 0) {}
    });
    port
}

const CONNACK: &[u8] = &[0x20, 3, 0, 0, 0];

#[tokio::test]
async fn a_broker_that_lets_no_commands_through_still_takes_alerts() {
    let mut broker = connect(script(&[CONNACK, &[0x90, 4, 0, 1, 0, 0x87]]).await).await.unwrap();
    let BrokerEvent::Subscribed(Err(why)) = event(&mut broker).await else { panic!("no refusal") };
    assert_eq!(why, "the broker lets no commands through to this box (NotAuthorized)");
    assert!(broker.publish(publication("sharp-eyes/1/d/t/v/b/alert/district", b"{}")));
    assert!(matches!(event(&mut broker).await, BrokerEvent::Published(_)));
}

#[tokio::test]
async fn what_comes_before_the_answer_to_the_subscription_waits() {
    const ANSWERS: &[u8] =
        &[0x32, 7, 0, 1, b'c', 0, 9, 0, b'1', 0x90, 4, 0, 1, 0, 1, 0x32, 7, 0, 1, b'c', 0, 10, 0, b'2'];
    let mut broker = connect(script(&[CONNACK, ANSWERS]).await).await.unwrap();
    assert_eq!(event(&mut broker).await, BrokerEvent::Subscribed(Ok(())));
    assert_eq!(message(&mut broker).await.payload, b"1");
    assert_eq!(message(&mut broker).await.payload, b"2");
}

#[tokio::test]
async fn a_broker_that_ends_the_connection_over_the_subscription_is_told_apart() {
    let end = connect(script(&[CONNACK, &[0xe0, 2, 0x87, 0]]).await).await.err();
    assert!(matches!(&end, Some(Failure::Subscription(why)) if why.contains("NotAuthorized")), "{end:?}");
    let end = connect(script(&[CONNACK, &[0x90, 4, 0, 1, 0, 0x7f]]).await).await.err();
    assert!(matches!(end, Some(Failure::Subscription(_))), "an answer that makes no sense: {end:?}");
    let end = connect(script(&[CONNACK, &[0xe0, 2, 0x8b, 0]]).await).await.err();
    assert!(matches!(end, Some(Failure::Unsubscribed(_))), "it shuts down: {end:?}");
}

/// It wants pings every 2 s or none at all; and one packet that is larger than it may be.
#[tokio::test]
async fn a_broker_may_want_other_pings() {
    for wanted in [2, 0] {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let pings = tokio::spawn(async move {
            let (mut agent, _) = listener.accept().await.unwrap();
            let mut bytes = [0; 4096];
            assert_ne!(agent.read(&mut bytes).await.unwrap(), 0, "CONNECT");
            agent.write_all(&[0x20, 6, 0, 0, 3, 0x13, 0, wanted]).await.unwrap();
            assert_ne!(agent.read(&mut bytes).await.unwrap(), 0, "SUBSCRIBE");
            agent.write_all(&[0x90, 4, 0, 1, 0, 1]).await.unwrap();
            let start = Instant::now();
            let mut pings = 0;
            while start.elapsed() < Duration::from_secs(6) {
                let count = tokio::time::timeout(LONG, agent.read(&mut bytes)).await.unwrap().unwrap();
                assert!(bytes[..count].chunks(2).all(|packet| packet == [0xc0, 0]), "{:?}", &bytes[..count]);
                pings += count / 2;
                agent.write_all(&[0xd0, 0].repeat(count / 2)).await.unwrap();
            }
            agent.write_all(&[0x30, 0xff, 0xff, 0x03]).await.unwrap();
            pings
        });
        let mut broker = connect(port).await.unwrap();
        assert_eq!(event(&mut broker).await, BrokerEvent::Subscribed(Ok(())));
        let end = tokio::time::timeout(LONG, broker.event()).await.unwrap();
        assert_eq!(
            end,
            Err(Failure::Lost("the broker sent a packet of 65535 bytes, this box takes 16384".into()))
        );
        let pings = pings.await.unwrap();
        assert!((2..=4).contains(&pings), "{pings} pings where it wants one every {wanted} s");
    }
}
