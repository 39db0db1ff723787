//! An MQTT client that does one thing at a time and nothing by itself.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{self, Filter};
use sharp_eyes_tests::faulty_broker::{Kind, Packet};

/// A connection.
pub(crate) struct Client {
    stream: TcpStream,
    waiting: Vec<u8>,
}

impl Client {
    /// Connected, without a session from before.
    pub(crate) fn connect(port: u16, id: &str) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).context("connecting")?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        let mut client = Self { stream, waiting: Vec::new() };
        let connect =
            v5::Connect { keep_alive: 60, client_id: id.to_owned(), clean_start: true, properties: None };
        client.send(&v5::Packet::Connect(connect, None, None))?;
        let answer = client.next()?.context("closed in place of a CONNACK")?;
        ensure!(answer.kind == Kind::ConnAck, "{answer:?} in place of a CONNACK");
        Ok(client)
    }

    /// With a subscription to everything.
    pub(crate) fn subscribed(port: u16, id: &str) -> Result<Self> {
        let mut client = Self::connect(port, id)?;
        let mut subscribe = v5::Subscribe::new(Filter::new("#", QoS::AtLeastOnce), None);
        subscribe.pkid = 1;
        client.send(&v5::Packet::Subscribe(subscribe))?;
        let answer = client.next()?.context("closed in place of a SUBACK")?;
        ensure!(answer.kind == Kind::SubAck, "{answer:?} in place of a SUBACK");
        Ok(client)
    }

    /// With QoS 1. Waits for nothing.
    pub(crate) fn publish(&mut self, id: u16, topic: &str) -> Result<()> {
        let mut publish = v5::Publish::new(topic, QoS::AtLeastOnce, id.to_string(), None);
        publish.pkid = id;
        self.send(&v5::Packet::Publish(publish))
    }

    /// The next packet; `None` when the broker has closed the connection.
    pub(crate) fn next(&mut self) -> Result<Option<Packet>> {
        loop {
            if let Some(packet) = Packet::take(&mut self.waiting)? {
                return Ok(Some(packet));
            }
            let mut bytes = [0; 4096];
            match self.stream.read(&mut bytes) {
                Ok(0) => return Ok(None),
                Ok(length) => self.waiting.extend(&bytes[..length]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The next so many packets, or those until the end: (kind, identifier or payload of a PUBLISH, reason).
    pub(crate) fn take(&mut self, count: usize) -> Result<Vec<String>> {
        let mut all = Vec::new();
        while all.len() < count {
            let Some(packet) = self.next()? else {
                all.push("end".to_owned());
                break;
            };
            all.push(match packet.kind {
                Kind::Publish => {
                    let again = if packet.is_again() { " again" } else { "" };
                    format!("{}{again}", String::from_utf8_lossy(packet.payload()))
                }
                Kind::PubAck => format!("ack {} {:x}", packet.id.unwrap_or(0), packet.reason),
                kind => format!("{kind:?} {:x}", packet.reason),
            });
        }
        Ok(all)
    }

    fn send(&mut self, packet: &v5::Packet) -> Result<()> {
        let mut bytes = Default::default();
        packet.write(&mut bytes, None).map_err(|error| anyhow::anyhow!("{error:?}"))?;
        self.stream.write_all(&bytes).context("sending")
    }
}
