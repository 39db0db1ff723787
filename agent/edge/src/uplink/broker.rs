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

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    ConnAckProperties, ConnectReturnCode, DisconnectReasonCode, LastWill, LastWillProperties, PubAckReason,
    PublishProperties,
};
use rumqttc::v5::mqttbytes::{self};
use rumqttc::v5::{
    AsyncClient, ConnectionError, Event, EventLoop, Incoming, MqttOptions, StateError, TlsError,
};
use rumqttc::{NetworkOptions, Outgoing, TlsConfiguration, Transport};

use super::{UplinkOptions, tls};
use crate::clock::Clock;

/// From the first packet to CONNACK: enough for TLS over a link with seconds of delay, and the end of a broker that
/// accepts and never answers.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// The client's shortest keep-alive; it panics below.
const SHORTEST_KEEP_ALIVE: Duration = Duration::from_secs(5);

type Turn = Pin<Box<dyn Future<Output = (EventLoop, Result<Event, ConnectionError>)> + Send>>;

/// One connection, from CONNACK to its end. Dropping it closes the socket.
pub(super) struct Broker {
    client: AsyncClient,
    turn: Option<Turn>,
    events: VecDeque<Event>,
    failure: Failure,
    clock: Arc<Clock>,
    /// Messages that may be unanswered at a time: the smaller of ours and the broker's.
    pub(super) window: usize,
    max_packet: Option<u32>,
}

/// A message to the broker. QoS 1 always.
#[derive(Clone, Debug)]
pub(super) struct Publication {
    pub(super) topic: String,
    pub(super) payload: Vec<u8>,
    pub(super) content_type: &'static str,
    pub(super) retain: bool,
}

/// What happens on a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum BrokerEvent {
    /// The oldest message without an id is on the wire under this one.
    Published(u16),
    /// The broker answered: it has the message, or it refuses it and says why.
    Answered(u16, Result<(), String>),
    /// Anything else came in: the broker is alive.
    Heard,
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
}

impl Broker {
    /// Connects, with `will` to be published by the broker if the connection ends without a goodbye.
    pub(super) async fn connect(
        options: &UplinkOptions,
        clock: &Arc<Clock>,
        will: Publication,
    ) -> Result<Self, Failure> {
        let window = u16::try_from(options.window).unwrap_or(u16::MAX).max(1);
        let mut mqtt = MqttOptions::new(&options.client_id, &options.host, options.port);
        mqtt.set_clean_start(true) // what was not acknowledged comes from the outbox
            .set_keep_alive(options.keep_alive.max(SHORTEST_KEEP_ALIVE))
            .set_connection_timeout(CONNECT_TIMEOUT.as_secs())
            .set_outgoing_inflight_upper_limit(window);
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
        // Room for the window and a DISCONNECT: the window is kept by the caller, so this never fills.
        let (client, mut eventloop) = AsyncClient::new(mqtt, usize::from(window) + 1);
        let connack = loop {
            match eventloop.poll().await {
                Ok(Event::Incoming(Incoming::ConnAck(connack))) => break connack,
                Ok(_) => {}
                Err(error) => return Err(explain(&error, clock)),
            }
        };
        let (receive_max, max_packet) = match connack.properties {
            Some(ConnAckProperties { receive_max, max_packet_size, .. }) => (receive_max, max_packet_size),
            None => (None, None),
        };
        Ok(Self {
            client,
            turn: Some(turn(eventloop)),
            events: VecDeque::new(),
            failure: Failure::Lost("the connection ended".into()),
            clock: clock.clone(),
            window: usize::from(receive_max.unwrap_or(window).min(window)),
            max_packet,
        })
    }

    /// Whether the broker accepts a message of this size, as it said when it let us in.
    pub(super) fn takes(&self, publication: &Publication) -> Result<(), String> {
        // Fixed header, two lengths, id, properties: 32 bytes are more than they can be.
        let size = publication.topic.len() + publication.payload.len() + publication.content_type.len() + 32;
        match self.max_packet {
            Some(max) if size > max as usize => {
                Err(format!("too large: {size} bytes, the broker takes {max}"))
            }
            _ => Ok(()),
        }
    }

    /// Hands a message to the client. `false`: the connection has failed, as [`Broker::event`] will say. (The client's
    /// queue cannot be full: it is as long as the window.)
    pub(super) fn publish(&self, publication: Publication) -> bool {
        let properties = PublishProperties {
            content_type: Some(publication.content_type.into()),
            ..PublishProperties::default()
        };
        self.client
            .try_publish_with_properties(
                publication.topic,
                QoS::AtLeastOnce,
                publication.retain,
                publication.payload,
                properties,
            )
            .is_ok()
    }

    /// Ends the connection in good order: the broker keeps the will to itself.
    pub(super) fn say_goodbye(&self) -> bool {
        self.client.try_disconnect().is_ok()
    }

    /// The next thing that happens. After an error there is nothing more. It is safe to drop the future.
    pub(super) async fn event(&mut self) -> Result<BrokerEvent, Failure> {
        loop {
            if let Some(event) = self.events.pop_front() {
                if let Some(event) = translate(event) {
                    return Ok(event);
                }
                continue;
            }
            let Some(pending) = &mut self.turn else { return Err(self.failure.clone()) };
            let (mut eventloop, result) = pending.as_mut().await;
            match result {
                Ok(event) => {
                    self.events.push_back(event);
                    self.turn = Some(turn(eventloop));
                }
                Err(error) => {
                    self.events.extend(eventloop.state.events.drain(..));
                    self.failure = explain(&error, &self.clock);
                    self.turn = None;
                }
            }
        }
    }
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
        Event::Outgoing(_) => None,
        Event::Incoming(Incoming::PubAck(ack)) => {
            let answer = match ack.reason {
                PubAckReason::Success | PubAckReason::NoMatchingSubscribers => Ok(()),
                reason => {
                    let said = ack.properties.and_then(|properties| properties.reason_string);
                    Err(said.map_or_else(|| format!("{reason:?}"), |said| format!("{reason:?}: {said}")))
                }
            };
            Some(BrokerEvent::Answered(ack.pkid, answer))
        }
        Event::Incoming(_) => Some(BrokerEvent::Heard),
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
        ) => tls::explain(error, || clock.describe()).unwrap_or_else(|| Failure::Lost(error.to_string())),
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
            error @ (mqttbytes::Error::InvalidReason(_) | mqttbytes::Error::InvalidConnectReturnCode(_)),
        )) => Failure::Message(format!("the broker refuses a message with a reason out of place: {error}")),
        ConnectionError::MqttState(StateError::OutgoingPacketTooLarge { pkt_size, max }) => {
            Failure::Message(format!("too large: {pkt_size} bytes, the broker takes {max}"))
        }
        ConnectionError::MqttState(StateError::ConnectionAborted) => {
            Failure::Lost("the broker closed the connection".into())
        }
        ConnectionError::MqttState(StateError::AwaitPingResp) => {
            Failure::Lost("the broker does not answer pings".into())
        }
        error => Failure::Lost(error.to_string()),
    }
}
