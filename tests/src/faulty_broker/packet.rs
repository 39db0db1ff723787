//! MQTT 5 packets as far as a fault needs them: what kind, which identifier, which topic. The bytes stay as they are.
//!
//! rumqttc has a public parser, but the agent uses the same one, it makes every packet anew when it writes it, and it
//! refuses the reason codes that a broken broker may send.

use std::fmt;

use anyhow::{Context, Result, bail, ensure};

/// Larger than any packet here: above, the stream is taken to be something else than MQTT.
const LARGEST: usize = 16 * 1024 * 1024;

/// The type of a packet, section 2.1.2 of the standard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // the standard's own names
pub enum Kind {
    Connect = 1,
    ConnAck,
    Publish,
    PubAck,
    PubRec,
    PubRel,
    PubComp,
    Subscribe,
    SubAck,
    Unsubscribe,
    UnsubAck,
    PingReq,
    PingResp,
    Disconnect,
    Auth,
}

/// One packet.
#[derive(Clone, PartialEq, Eq)]
pub struct Packet {
    /// Its type.
    pub kind: Kind,
    /// Of acknowledgements, and of a PUBLISH that wants one.
    pub id: Option<u16>,
    /// Of a PUBLISH; "" where it names an alias.
    pub topic: Option<String>,
    /// Of an acknowledgement or DISCONNECT: 0 where the packet leaves it out.
    pub reason: u8,
    bytes: Vec<u8>,
    payload_at: usize,
}

impl Packet {
    /// Takes the first packet off the front of a stream; `None` until all of it is there.
    pub fn take(stream: &mut Vec<u8>) -> Result<Option<Self>> {
        let Some((length, body)) = number(stream.get(1..).unwrap_or_default())? else { return Ok(None) };
        let (length, body) = (length as usize, 1 + body);
        ensure!(length <= LARGEST, "a packet of {length} bytes");
        if stream.len() < body + length {
            return Ok(None);
        }
        let rest = stream.split_off(body + length);
        Self::read(std::mem::replace(stream, rest), body).map(Some)
    }

    fn read(bytes: Vec<u8>, body: usize) -> Result<Self> {
        use Kind::{
            Disconnect, PubAck, PubComp, PubRec, PubRel, Publish, SubAck, Subscribe, UnsubAck, Unsubscribe,
        };
        let kind = kind(bytes[0] >> 4)?;
        let mut packet = Self { kind, id: None, topic: None, reason: 0, payload_at: bytes.len(), bytes };
        match kind {
            Publish => {
                let length = usize::from(packet.u16(body)?);
                let mut at = body + 2 + length;
                let topic = packet.bytes.get(body + 2..at).context("a PUBLISH ends within its topic")?;
                packet.topic = Some(String::from_utf8(topic.to_vec()).context("a topic")?);
                if packet.qos() > 0 {
                    packet.id = Some(packet.u16(at)?);
                    at += 2;
                }
                let rest = packet.bytes.get(at..).unwrap_or_default();
                let (length, width) = number(rest)?.context("a PUBLISH without properties")?;
                packet.payload_at = at + width + length as usize;
                ensure!(packet.payload_at <= packet.bytes.len(), "a PUBLISH ends within its properties");
            }
            PubAck | PubRec | PubRel | PubComp => {
                packet.id = Some(packet.u16(body)?);
                packet.reason = packet.bytes.get(body + 2).copied().unwrap_or(0);
            }
            Subscribe | SubAck | Unsubscribe | UnsubAck => packet.id = Some(packet.u16(body)?),
            Disconnect => packet.reason = packet.bytes.get(body).copied().unwrap_or(0),
            _ => {}
        }
        Ok(packet)
    }

    /// A PUBACK. The standard allows only some reasons here, and this makes any.
    pub fn puback(id: u16, reason: u8) -> Self {
        let [high, low] = id.to_be_bytes();
        Self::made(vec![(Kind::PubAck as u8) << 4, 3, high, low, reason])
    }

    /// A broker's goodbye.
    pub fn disconnect(reason: u8) -> Self {
        Self::made(vec![(Kind::Disconnect as u8) << 4, 1, reason])
    }

    fn made(bytes: Vec<u8>) -> Self {
        Self::read(bytes, 2).expect("a packet of this program is in order")
    }

    /// As it is on the wire.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Of a PUBLISH; empty of others.
    pub fn payload(&self) -> &[u8] {
        &self.bytes[self.payload_at..]
    }

    /// Of a PUBLISH.
    pub fn qos(&self) -> u8 {
        self.bytes[0] >> 1 & 3
    }

    /// Of a PUBLISH: whether the sender says that it sent it before.
    pub fn is_again(&self) -> bool {
        self.kind == Kind::Publish && self.bytes[0] & 8 != 0
    }

    /// The same PUBLISH, delivered again.
    pub fn again(&self) -> Self {
        let mut again = self.clone();
        again.bytes[0] |= 8;
        again
    }

    fn u16(&self, at: usize) -> Result<u16> {
        let bytes = self.bytes.get(at..at + 2).with_context(|| format!("a short {:?}", self.kind))?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }
}

/// Without its payload, which may be a picture.
impl fmt::Debug for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, id, topic, reason, bytes, .. } = self;
        write!(f, "{kind:?} id={id:?} topic={topic:?} reason={reason:#x} of {} bytes", bytes.len())
    }
}

/// A variable byte integer, section 1.5.5, and its width; `None` where it does not end yet.
fn number(bytes: &[u8]) -> Result<Option<(u32, usize)>> {
    let mut value = 0;
    for (n, byte) in bytes.iter().take(4).enumerate() {
        value |= u32::from(byte & 0x7f) << (7 * n);
        if byte & 0x80 == 0 {
            return Ok(Some((value, n + 1)));
        }
    }
    ensure!(bytes.len() < 4, "a length of more than four bytes");
    Ok(None)
}

fn kind(number: u8) -> Result<Kind> {
    const KINDS: [Kind; 15] = [
        Kind::Connect,
        Kind::ConnAck,
        Kind::Publish,
        Kind::PubAck,
        Kind::PubRec,
        Kind::PubRel,
        Kind::PubComp,
        Kind::Subscribe,
        Kind::SubAck,
        Kind::Unsubscribe,
        Kind::UnsubAck,
        Kind::PingReq,
        Kind::PingResp,
        Kind::Disconnect,
        Kind::Auth,
    ];
    match KINDS.iter().find(|kind| **kind as u8 == number) {
        Some(kind) => Ok(*kind),
        None => bail!("{number} is no type of packet"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes out of a text like `32 0a "a/b" 0007`: hexadecimal, and text between quotes.
    fn bytes(text: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (n, part) in text.split('"').enumerate() {
            if n % 2 == 1 {
                bytes.extend(part.as_bytes());
                continue;
            }
            let digits: String = part.split_whitespace().collect();
            bytes.extend(
                (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()),
            );
        }
        bytes
    }

    #[test]
    fn packets_tell_what_a_fault_needs() {
        for (text, says) in [
            (r#"10 0d 0004 "MQTT" 05 02 003c 00 0000"#, "Connect id=None topic=None reason=0x0"),
            (r#"32 0a 0003 "a/b" 0007 00 "hi""#, r#"Publish id=Some(7) topic=Some("a/b") reason=0x0"#),
            (r#"30 07 0003 "a/b" 00 "x""#, r#"Publish id=None topic=Some("a/b") reason=0x0"#),
            (r#"3a 0b 0003 "a/b" 0102 02 0101 "x""#, r#"Publish id=Some(258) topic=Some("a/b") reason=0x0"#),
            ("40 02 0009", "PubAck id=Some(9) topic=None reason=0x0"),
            ("40 03 0009 87", "PubAck id=Some(9) topic=None reason=0x87"),
            ("40 04 0009 10 00", "PubAck id=Some(9) topic=None reason=0x10"),
            ("90 04 0003 00 01", "SubAck id=Some(3) topic=None reason=0x0"),
            ("c0 00", "PingReq id=None topic=None reason=0x0"),
            ("e0 00", "Disconnect id=None topic=None reason=0x0"),
            ("e0 02 8e 00", "Disconnect id=None topic=None reason=0x8e"),
        ] {
            let whole = bytes(text);
            let mut stream = Vec::new();
            for byte in &whole[..whole.len() - 1] {
                stream.push(*byte);
                assert_eq!(Packet::take(&mut stream).unwrap(), None, "{text} is not complete");
            }
            stream.push(whole[whole.len() - 1]);
            stream.push(0xc0); // the next packet begins
            let packet = Packet::take(&mut stream).unwrap().unwrap();
            assert_eq!(format!("{packet:?}"), format!("{says} of {} bytes", whole.len()));
            assert_eq!(packet.bytes(), whole);
            assert_eq!(stream, [0xc0]);
        }
    }

    #[test]
    fn what_is_no_packet_is_an_error() {
        for (text, says) in [
            ("00 00", "0 is no type of packet"),
            ("30 ff ff ff ff 01", "more than four bytes"),
            ("30 ff ff ff 7f", "a packet of 268435455 bytes"),
            ("40 01 00", "a short PubAck"),
            (r#"30 04 0009 "ab""#, "within its topic"),
            (r#"30 04 0001 "a" 09"#, "within its properties"),
            (r#"30 03 0001 "a""#, "without properties"),
        ] {
            let error = format!("{:#}", Packet::take(&mut bytes(text)).unwrap_err());
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn payload_and_flags_of_a_publish() {
        let packet = Packet::take(&mut bytes(r#"32 0d 0003 "a/b" 0102 02 0101 "xyz""#)).unwrap().unwrap();
        assert_eq!((packet.payload(), packet.qos(), packet.is_again()), (&b"xyz"[..], 1, false));
        let again = packet.again();
        assert!(again.is_again() && again.bytes()[1..] == packet.bytes()[1..]);
        assert_eq!(Packet::puback(258, 0x97).bytes(), bytes("40 03 0102 97"));
        assert_eq!(Packet::disconnect(0x95).bytes(), bytes("e0 01 95"));
    }

    /// What the agent's own client makes of it, both ways.
    #[test]
    fn another_parser_agrees() {
        use rumqttc::v5::mqttbytes::v5 as other;
        let mut publish =
            other::Publish::new("a/b", rumqttc::v5::mqttbytes::QoS::AtLeastOnce, "payload", None);
        publish.pkid = 77;
        let mut buffer = Default::default();
        other::Packet::Publish(publish).write(&mut buffer, None).unwrap();
        let packet = Packet::take(&mut buffer.to_vec()).unwrap().unwrap();
        assert_eq!(
            (packet.id, packet.topic.as_deref(), packet.payload()),
            (Some(77), Some("a/b"), &b"payload"[..])
        );
        buffer.clear();
        buffer.extend_from_slice(Packet::puback(77, 0x87).bytes());
        let other::Packet::PubAck(ack) = other::Packet::read(&mut buffer, None).unwrap() else { panic!() };
        assert_eq!((ack.pkid, ack.reason), (77, other::PubAckReason::NotAuthorized));
    }
}
