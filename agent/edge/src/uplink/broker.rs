//! The MQTT client: nothing else names rumqttc.
//!
//! What was learnt from its source (0.25.1) and shapes this file:
//!
//! - After an error it keeps packet ids, a stuck collision and unsent requests, and drops them when the broker has
//!   no session. So each connection gets a client of its own, and the outbox is the only memory.
//! - Its `poll` must not be dropped half-way: a packet could be counted as sent and not be on the wire. So the
//!   future is kept here until it is ready, and [`Broker::event`] may be dropped at any time.
//! - On an error it forgets the answers that it read in the same turn; they are picked up from its state.
//! - A packet that is larger than the broker takes ends the connection, which would then happen again for ever. So the
//!   size is checked before ([`Broker::takes`]).
//! - It pings at each tick of its keep-alive, and ends the connection at the next tick unless that ping was answered by
//!   then, whatever else came in. A ping that waits behind a picture on a slow link would so end a good connection again
//!   and again. Its flag is therefore cleared after each turn, and `patience` decides alone.
//! - It ticks first after the time that CONNECT announced, then after what its options say. The broker is told twice the
//!   time between pings, so that it bears with a late one; pings then go out in their own time, whatever the broker said.
//! - While it writes it does not read, and the write waits for as long as the other side takes nothing. A smaller send
//!   buffer than the kernel's own would make it deaf for as long as a picture crawls, so none is set.
//! - There is no way to its socket (its pull request 1032 is open), and so none to TCP_USER_TIMEOUT. That would see a
//!   link that died, a little earlier; `patience` sees that and a broker that is stuck while its kernel still takes bytes.
//! - A subscription takes a packet id as a message does, and the window in `in_flight` needs ids in an unbroken row. So
//!   the one SUBSCRIBE is sent, and answered, before the first message.
//! - With manual acknowledgement it answers nothing by itself. A PUBACK of ours goes through its queue, behind what waits
//!   there, and while the window is full not at all.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    ConnAckProperties, ConnectProperties, ConnectReturnCode, DisconnectReasonCode, Filter, LastWill,
    LastWillProperties, Packet, PubAckReason, Publish, PublishProperties, RetainForwardRule, SubAck,
    SubscribeReasonCode,
};
use rumqttc::v5::mqttbytes::{self};
use rumqttc::v5::{AsyncClient, ConnectionError, Event, EventLoop, MqttOptions, StateError, TlsError};
use rumqttc::{NetworkOptions, Outgoing, TlsConfiguration, Transport};
use tokio::time::Instant;

use super::patience::Patience;
use super::{UplinkOptions, tls};
use crate::clock::Clock;

/// From the first packet to CONNACK, and from SUBSCRIBE to its answer: enough for TLS over a link with seconds of delay,
/// and the end of a broker that accepts and never answers.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// The client's shortest keep-alive; it panics below.
const SHORTEST_KEEP_ALIVE: Duration = Duration::from_secs(5);

/// Messages that the broker may send before the first of them is acknowledged. It keeps the others.
const RECEIVE_MAXIMUM: u16 = 8;

/// Unacknowledged messages at which the connection ends. mosquitto loses count once it has kept some (its issue 2301, seen
/// with 2.0.11): it then sends more than it was told, and still no more than consoles have asked for.
const FLOOD: usize = 64;

/// Bytes of the largest packet that the broker may send. It drops what is larger; a command is an eighth of it.
const LARGEST_PACKET: u32 = 16 << 10;

type Turn = Pin<Box<dyn Future<Output = (EventLoop, Result<Event, ConnectionError>)> + Send>>;

/// One connection, from CONNACK to its end. Dropping it closes the socket.
pub(super) struct Broker {
    client: AsyncClient,
    turn: Option<Turn>,
    /// What has happened and was not asked for yet: what a turn and the wait for the subscription brought.
    events: VecDeque<BrokerEvent>,
    failure: Failure,
    patience: Patience,
    /// Messages whose PUBACK is not on the wire.
    unacknowledged: usize,
    clock: Arc<Clock>,
    /// Messages that may be unanswered at a time: the smaller of ours and the broker's.
    pub(super) window: usize,
    max_packet: Option<u32>,
}

/// A message to the broker. QoS 1 always.
#[derive(Clone, Debug, Default)]
pub(super) struct Publication {
    pub(super) topic: String,
    pub(super) payload: Vec<u8>,
    pub(super) content_type: &'static str,
    pub(super) retain: bool,
    /// How long the broker may keep it for readers who are away. At least a second.
    pub(super) expiry: Option<Duration>,
    /// Which request it answers.
    pub(super) correlation: Option<Vec<u8>>,
}

/// A message from the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Incoming {
    pub(super) topic: String,
    pub(super) payload: Vec<u8>,
    /// Where its sender waits for an answer.
    pub(super) response_topic: Option<String>,
    /// What that answer must repeat.
    pub(super) correlation: Option<Vec<u8>>,
    /// Published to be kept, as a command must not be.
    pub(super) retain: bool,
    /// The broker has sent it before.
    pub(super) dup: bool,
    /// Packet id; none where it came with QoS 0.
    id: Option<u16>,
}

/// What happens on a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum BrokerEvent {
    /// The oldest message without an id is on the wire under this one.
    Published(u16),
    /// The broker answered: it has the message, or it refuses it and says why.
    Answered(u16, Result<(), String>),
    /// Whether the broker sends what comes on the topics that were asked for. The first event, where any were.
    Subscribed(Result<(), String>),
    /// A message, to be acknowledged: after [`RECEIVE_MAXIMUM`] the broker waits, after [`FLOOD`] the connection ends.
    Message(Incoming),
    /// Our DISCONNECT is on the wire.
    SaidGoodbye,
}

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// Nobody there, or no longer.
    Lost(String),
    /// The broker does not let this box in: password, certificate or client id.
    Refused(String),
    /// The broker ended the connection over one of the messages on their way.
    Message(String),
    /// The broker ended the connection over the topics that were asked for, or never answered: it is to be tried without.
    Subscription(String),
    /// The connection ended before the broker answered the subscription: over it, or by chance.
    Unsubscribed(String),
}

impl Incoming {
    /// Whether the broker waits for an acknowledgement, and so holds others back.
    pub(super) fn is_acknowledged(&self) -> bool {
        self.id.is_some()
    }
}

impl Broker {
    /// Connects, with `will` to be published by the broker if the connection ends without a goodbye, and asks for what
    /// comes on `topics`, with QoS 1 and without what was kept there.
    pub(super) async fn connect(
        options: &UplinkOptions,
        clock: &Arc<Clock>,
        will: Publication,
        topics: &[String],
    ) -> Result<Self, Failure> {
        let window = u16::try_from(options.window).unwrap_or(u16::MAX).max(1);
        let keep_alive = options.keep_alive.max(SHORTEST_KEEP_ALIVE);
        let mut mqtt = MqttOptions::new(&options.client_id, &options.host, options.port);
        mqtt.set_clean_start(true) // what was not acknowledged comes from the outbox; a command that was not, from its console
            .set_keep_alive(keep_alive * 2)
            .set_connection_timeout(CONNECT_TIMEOUT.as_secs())
            .set_outgoing_inflight_upper_limit(window)
            .set_manual_acks(true)
            .set_connect_properties(ConnectProperties {
                receive_maximum: Some(RECEIVE_MAXIMUM),
                max_packet_size: Some(LARGEST_PACKET),
                ..ConnectProperties::new()
            });
        let mut network = NetworkOptions::new();
        network.set_tcp_nodelay(true);
        mqtt.set_network_options(network);
        let properties =
            LastWillProperties { content_type: Some(will.content_type.into()), ..no_will_properties() };
        mqtt.set_last_will(LastWill::new(
            will.topic,
            will.payload,
            QoS::AtLeastOnce,
            will.retain,
            Some(properties),
        ));
        if let Some((user, password)) = &options.credentials {
            mqtt.set_credentials(user, password.expose());
        }
        if let Some(tls) = &options.tls {
            let config = tls::config(tls, clock).map_err(|error| Failure::Lost(format!("TLS: {error}")))?;
            mqtt.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(config)));
        }
        // Room for the window, an acknowledgement of each message that is taken, SUBSCRIBE and DISCONNECT: the caller
        // keeps the window, and more messages end the connection, so this never fills.
        let room = usize::from(window) + FLOOD + 2;
        let (client, mut eventloop) = AsyncClient::new(mqtt, room);
        let connack = loop {
            match eventloop.poll().await {
                Ok(Event::Incoming(Packet::ConnAck(connack))) => break connack,
                Ok(_) => {}
                Err(error) => return Err(explain(&error, clock)),
            }
        };
        let (receive_max, max_packet) = match connack.properties {
            Some(ConnAckProperties { receive_max, max_packet_size, .. }) => (receive_max, max_packet_size),
            None => (None, None),
        };
        let first_ping = eventloop.options.keep_alive(); // what was announced, or what the broker wants instead
        if first_ping > keep_alive || first_ping.is_zero() {
            eventloop.options.set_keep_alive(keep_alive);
        }
        let mut broker = Self {
            client,
            turn: Some(turn(eventloop)),
            events: VecDeque::new(),
            failure: Failure::Lost("the connection ended".into()),
            patience: Patience::new(keep_alive, first_ping, Instant::now()),
            unacknowledged: 0,
            clock: clock.clone(),
            window: usize::from(receive_max.unwrap_or(window).min(window)),
            max_packet,
        };
        if !topics.is_empty() {
            broker.subscribe(topics).await?;
        }
        Ok(broker)
    }

    async fn subscribe(&mut self, topics: &[String]) -> Result<(), Failure> {
        let filters = topics.iter().map(|topic| Filter {
            preserve_retain: true, // so that a command that was published to be kept can be told
            retain_forward_rule: RetainForwardRule::Never,
            ..Filter::new(topic, QoS::AtLeastOnce)
        });
        if self.client.try_subscribe_many(filters).is_err() {
            return Err(Failure::Subscription(format!("{topics:?} cannot be subscribed to")));
        }
        let mut before = VecDeque::new();
        let answered = async {
            loop {
                match self.event().await {
                    Ok(answer @ BrokerEvent::Subscribed(_)) => return Ok(answer),
                    Ok(event) => before.push_back(event), // a command that overtook the answer
                    Err(Failure::Message(why)) => return Err(Failure::Subscription(why)),
                    Err(Failure::Lost(why)) => return Err(Failure::Unsubscribed(why)),
                    Err(failure) => return Err(failure),
                }
            }
        };
        let answer = tokio::time::timeout(CONNECT_TIMEOUT, answered).await.unwrap_or_else(|_| {
            let waited = CONNECT_TIMEOUT.as_secs();
            Err(Failure::Subscription(format!("the broker does not answer a subscription within {waited} s")))
        })?;
        before.push_front(answer);
        before.append(&mut self.events);
        self.events = before;
        Ok(())
    }

    /// Whether the broker accepts a message of this size, as it said when it let us in.
    pub(super) fn takes(&self, publication: &Publication) -> Result<(), String> {
        let size = publication.size();
        match self.max_packet {
            Some(max) if size > max as usize => {
                Err(format!("too large: {size} bytes, the broker takes {max}"))
            }
            _ => Ok(()),
        }
    }

    /// Hands a message to the client. `false`: the connection has failed, as [`Broker::event`] will say. (The client's
    /// queue cannot be full: it is as long as the window.)
    pub(super) fn publish(&mut self, publication: Publication) -> bool {
        let size = publication.size();
        let properties = PublishProperties {
            content_type: Some(publication.content_type.into()),
            message_expiry_interval: publication.expiry.map(expiry_s),
            correlation_data: publication.correlation.map(Into::into),
            ..PublishProperties::default()
        };
        let handed_over = self.client.try_publish_with_properties(
            publication.topic,
            QoS::AtLeastOnce,
            publication.retain,
            publication.payload,
            properties,
        );
        if handed_over.is_ok() {
            self.patience.handed_over(size);
        }
        handed_over.is_ok()
    }

    /// Tells the broker that a message was taken over, and makes room for the next. In the order in which they came, as
    /// MQTT wants it (4.6), and each of them once, also where it was no command: else the broker sends no more. `false`:
    /// the connection has failed.
    pub(super) fn acknowledge(&self, message: &Incoming) -> bool {
        let Some(pkid) = message.id else { return true };
        self.client.try_ack(&Publish { qos: QoS::AtLeastOnce, pkid, ..Publish::default() }).is_ok()
    }

    /// Ends the connection in good order: the broker keeps the will to itself.
    pub(super) fn say_goodbye(&self) -> bool {
        self.client.try_disconnect().is_ok()
    }

    /// The next thing that happens. After an error there is nothing more. It is safe to drop the future.
    pub(super) async fn event(&mut self) -> Result<BrokerEvent, Failure> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(event);
            }
            let Some(turn) = &mut self.turn else { return Err(self.failure.clone()) };
            tokio::select! {
                biased; // what has come counts, however late this task is
                (eventloop, result) = turn.as_mut() => self.turned(eventloop, result),
                () = tokio::time::sleep_until(self.patience.deadline()) => {
                    let silence = self.patience.silence(Instant::now()).as_secs();
                    self.failure =
                        Failure::Lost(format!("nothing heard for {silence} s: connection given up"));
                    self.turn = None;
                }
            }
        }
    }

    /// Takes what a turn of the client brought, and starts the next.
    fn turned(&mut self, mut eventloop: EventLoop, result: Result<Event, ConnectionError>) {
        match result {
            Ok(event) => {
                self.note(event);
                eventloop.state.await_pingresp = false;
                if self.unacknowledged <= FLOOD {
                    self.turn = Some(turn(eventloop));
                } else {
                    self.failure = Failure::Lost("the broker sends more messages than it may".into());
                    self.turn = None;
                }
            }
            Err(error) => {
                for event in std::mem::take(&mut eventloop.state.events) {
                    self.note(event);
                }
                self.failure = explain(&error, &self.clock);
                self.turn = None;
            }
        }
    }

    fn note(&mut self, event: Event) {
        match &event {
            Event::Incoming(packet) => {
                self.patience.heard(Instant::now());
                match packet {
                    Packet::PubAck(ack) => self.patience.answered(ack.pkid),
                    Packet::Publish(publish) if publish.qos == QoS::AtLeastOnce => self.unacknowledged += 1,
                    _ => {}
                }
            }
            Event::Outgoing(Outgoing::Publish(id)) => self.patience.published(*id),
            Event::Outgoing(Outgoing::PingReq) => self.patience.pinged(),
            Event::Outgoing(Outgoing::PubAck(_)) => {
                self.unacknowledged = self.unacknowledged.saturating_sub(1);
            }
            Event::Outgoing(_) => {}
        }
        self.events.extend(translate(event));
    }
}

impl Publication {
    /// Bytes on the wire, or a few more: fixed header, four lengths, id, names of properties and expiry are at most 32.
    pub(super) fn size(&self) -> usize {
        let correlation = self.correlation.as_ref().map_or(0, Vec::len);
        self.topic.len() + self.payload.len() + self.content_type.len() + correlation + 32
    }
}

fn expiry_s(expiry: Duration) -> u32 {
    u32::try_from(expiry.as_secs()).unwrap_or(u32::MAX).max(1)
}

fn turn(mut eventloop: EventLoop) -> Turn {
    Box::pin(async move {
        let result = eventloop.poll().await;
        (eventloop, result)
    })
}

fn no_will_properties() -> LastWillProperties {
    LastWillProperties {
        delay_interval: None,
        payload_format_indicator: None,
        message_expiry_interval: None,
        content_type: None,
        response_topic: None,
        correlation_data: None,
        user_properties: Vec::new(),
    }
}

fn translate(event: Event) -> Option<BrokerEvent> {
    match event {
        Event::Outgoing(Outgoing::Publish(id)) => Some(BrokerEvent::Published(id)),
        Event::Outgoing(Outgoing::Disconnect) => Some(BrokerEvent::SaidGoodbye),
        Event::Incoming(Packet::PubAck(ack)) => {
            let answer = match ack.reason {
                PubAckReason::Success | PubAckReason::NoMatchingSubscribers => Ok(()),
                reason => {
                    let said = ack.properties.and_then(|properties| properties.reason_string);
                    Err(said.map_or_else(|| format!("{reason:?}"), |said| format!("{reason:?}: {said}")))
                }
            };
            Some(BrokerEvent::Answered(ack.pkid, answer))
        }
        Event::Incoming(Packet::SubAck(ack)) => Some(BrokerEvent::Subscribed(subscribed(ack))),
        Event::Incoming(Packet::Publish(publish)) => Some(BrokerEvent::Message(incoming(publish))),
        Event::Outgoing(_) | Event::Incoming(_) => None,
    }
}

fn subscribed(ack: SubAck) -> Result<(), String> {
    let refused = ack.return_codes.iter().find(|code| !matches!(code, SubscribeReasonCode::Success(_)));
    let Some(reason) = refused else { return Ok(()) };
    let said = ack.properties.and_then(|properties| properties.reason_string);
    let said = said.map(|said| format!(": {said}")).unwrap_or_default();
    Err(format!("the broker lets no commands through to this box ({reason:?}{said})"))
}

fn incoming(publish: Publish) -> Incoming {
    let properties = publish.properties.unwrap_or_default();
    Incoming {
        topic: String::from_utf8_lossy(&publish.topic).into_owned(),
        payload: publish.payload.into(),
        response_topic: properties.response_topic,
        correlation: properties.correlation_data.map(Into::into),
        retain: publish.retain,
        dup: publish.dup,
        id: (publish.qos == QoS::AtLeastOnce).then_some(publish.pkid),
    }
}

/// What an operator can make of an error, and whose fault it is.
fn explain(error: &ConnectionError, clock: &Clock) -> Failure {
    use ConnectReturnCode as Code;
    use DisconnectReasonCode as Reason;
    match error {
        ConnectionError::Io(error)
        | ConnectionError::Tls(TlsError::Io(error))
        | ConnectionError::MqttState(
            StateError::Deserialization(mqttbytes::Error::Io(error)) | StateError::Io(error),
        ) => {
            let lost = || tls::explain(error, || clock.describe()).unwrap_or_else(|| error.to_string());
            tls::refusal(error).map_or_else(|| Failure::Lost(lost()), Failure::Refused)
        }
        ConnectionError::Timeout(_) => {
            Failure::Lost(format!("no answer within {} s", CONNECT_TIMEOUT.as_secs()))
        }
        ConnectionError::Tls(error) => Failure::Lost(format!("TLS: {error}")),
        ConnectionError::ConnectionRefused(code) => match code {
            Code::BadUserNamePassword | Code::NotAuthorized | Code::BadAuthenticationMethod => {
                Failure::Refused(format!(
                    "the broker refuses this box's user, password or certificate ({code:?})"
                ))
            }
            Code::BadClientId | Code::ClientIdentifierNotValid => {
                Failure::Refused(format!("the broker refuses this box's client id ({code:?})"))
            }
            Code::Banned | Code::RefusedProtocolVersion | Code::UnsupportedProtocolVersion => {
                Failure::Refused(format!("the broker does not let this box in ({code:?})"))
            }
            code => Failure::Lost(format!("the broker does not take connections now ({code:?})")),
        },
        ConnectionError::MqttState(StateError::ServerDisconnect { reason_code, reason_string }) => {
            let said = reason_string.as_ref().map(|said| format!(": {said}")).unwrap_or_default();
            let text = format!("the broker ended the connection ({reason_code:?}{said})");
            match reason_code {
                Reason::MalformedPacket
                | Reason::ProtocolError
                | Reason::ImplementationSpecificError
                | Reason::NotAuthorized
                | Reason::TopicNameInvalid
                | Reason::PacketTooLarge
                | Reason::QuotaExceeded
                | Reason::PayloadFormatInvalid
                | Reason::RetainNotSupported
                | Reason::QoSNotSupported => Failure::Message(text),
                Reason::SessionTakenOver => Failure::Lost(format!(
                    "{text}: another client uses this box's client id; is a second box configured with its name?"
                )),
                _ => Failure::Lost(text),
            }
        }
        // An answer that the client does not know, such as mosquitto's 0x95 (packet too large) in a PUBACK.
        ConnectionError::MqttState(StateError::Deserialization(
            error @ (mqttbytes::Error::InvalidReason(_)
            | mqttbytes::Error::InvalidConnectReturnCode(_)
            | mqttbytes::Error::InvalidSubscribeReasonCode(_)),
        )) => Failure::Message(format!("the broker refuses a message with a reason out of place: {error}")),
        ConnectionError::MqttState(StateError::OutgoingPacketTooLarge { pkt_size, max }) => {
            Failure::Message(format!("too large: {pkt_size} bytes, the broker takes {max}"))
        }
        ConnectionError::MqttState(StateError::ConnectionAborted) => {
            Failure::Lost("the broker closed the connection".into())
        }
        ConnectionError::MqttState(StateError::Deserialization(
            mqttbytes::Error::PayloadSizeLimitExceeded { pkt_size, max },
        )) => Failure::Lost(format!("the broker sent a packet of {pkt_size} bytes, this box takes {max}")),
        error => Failure::Lost(error.to_string()),
    }
}

#[cfg(test)]
mod tests;
