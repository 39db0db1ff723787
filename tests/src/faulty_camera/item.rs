//! What an RTSP connection carries: messages (RFC 2326) and interleaved packets (10.12) of RTP and RTCP (RFC 3550), as far as
//! a fault needs them.

use std::io;

/// Larger than any message here: above, the stream is taken to be something else than RTSP.
const LARGEST: usize = 1024 * 1024;

/// One thing on a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A request or an answer.
    Message(Message),
    /// RTP or RTCP.
    Packet(Packet),
}

/// A request or an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The first line and the headers, without the empty line.
    pub head: String,
    /// As long as `Content-Length` says.
    pub body: Vec<u8>,
}

/// An interleaved packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Even for RTP, odd for RTCP, as everybody asks for it.
    pub channel: u8,
    /// The packet, header and all.
    pub bytes: Vec<u8>,
}

impl Item {
    /// Takes the first item off the front of a stream; `None` until all of it is there.
    pub fn take(stream: &mut Vec<u8>) -> io::Result<Option<Self>> {
        if stream.first() == Some(&b'$') {
            let [_, channel, high, low, ..] = stream[..] else { return Ok(None) };
            let end = 4 + usize::from(u16::from_be_bytes([high, low]));
            if stream.len() < end {
                return Ok(None);
            }
            let bytes = stream.drain(..end).skip(4).collect();
            return Ok(Some(Self::Packet(Packet { channel, bytes })));
        }
        let Some(at) = stream.windows(4).position(|four| four == b"\r\n\r\n") else {
            if stream.len() > LARGEST {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "this is no RTSP"));
            }
            return Ok(None);
        };
        let head = String::from_utf8_lossy(&stream[..at]).into_owned();
        let mut message = Message { head, body: Vec::new() };
        let length = message.header("Content-Length").and_then(|length| length.parse().ok()).unwrap_or(0);
        let end = at + 4 + length;
        if stream.len() < end {
            return Ok(None);
        }
        message.body = stream.drain(..end).skip(at + 4).collect();
        Ok(Some(Self::Message(message)))
    }

    /// As it is on the wire.
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Message(message) => [message.head.as_bytes(), b"\r\n\r\n", &message.body].concat(),
            Self::Packet(Packet { channel, bytes }) => {
                let [high, low] = (bytes.len() as u16).to_be_bytes();
                [&[b'$', *channel, high, low], &bytes[..]].concat()
            }
        }
    }
}

impl Message {
    /// An answer without a body to a request.
    pub fn answer(to: &Self, status: u16, reason: &str, headers: &str) -> Self {
        let number = to.header("CSeq").unwrap_or("0");
        Self { head: format!("RTSP/1.0 {status} {reason}\r\nCSeq: {number}{headers}"), body: Vec::new() }
    }

    /// Of a request, such as `DESCRIBE`; `RTSP/1.0` of an answer.
    pub fn method(&self) -> &str {
        self.head.split(' ').next().unwrap_or_default()
    }

    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// The same with another body.
    pub fn with_body(&self, body: &str) -> Self {
        Self { body: body.into(), ..self.with_header("Content-Length", &body.len().to_string()) }
    }

    /// The same with another value of a header that it has.
    pub fn with_header(&self, name: &str, value: &str) -> Self {
        let line = |line: &str| match line.split_once(':') {
            Some((key, _)) if key.eq_ignore_ascii_case(name) => format!("{key}: {value}"),
            _ => line.to_owned(),
        };
        let head = self.head.lines().map(line).collect::<Vec<_>>().join("\r\n");
        Self { head, body: self.body.clone() }
    }
}

impl Packet {
    /// Whether it carries media.
    pub fn is_rtp(&self) -> bool {
        self.channel.is_multiple_of(2)
    }

    /// Of RTP: whether it is the last one of an access unit.
    pub fn is_last(&self) -> bool {
        self.bytes.get(1).is_some_and(|byte| byte & 0x80 != 0)
    }

    /// Of RTP: the sequence number.
    pub fn sequence(&self) -> u16 {
        self.number().map_or(0, u16::from_be_bytes)
    }

    /// The same with another sequence number.
    pub fn with_sequence(mut self, sequence: u16) -> Self {
        self.put(2, &sequence.to_be_bytes());
        self
    }

    /// Of RTP: when it is shown, in 90,000ths of a second.
    pub fn time(&self) -> u32 {
        self.bytes.get(4..8).and_then(|four| four.try_into().ok()).map_or(0, u32::from_be_bytes)
    }

    /// The same with another time stamp.
    pub fn with_time(mut self, time: u32) -> Self {
        self.put(4, &time.to_be_bytes());
        self
    }

    /// The same of another source.
    pub fn with_source(mut self, ssrc: u32) -> Self {
        self.put(8, &ssrc.to_be_bytes());
        self
    }

    /// The same of RTP with another payload.
    pub fn with_payload(&self, payload: &[u8]) -> Self {
        let header = self.bytes.get(..HEADER).unwrap_or(&self.bytes);
        Self { channel: self.channel, bytes: [header, payload].concat() }
    }

    /// The same of RTP, with or without the mark of an access unit's last packet.
    pub fn marked(&self, is_last: bool) -> Self {
        let mut packet = self.clone();
        if let Some(byte) = packet.bytes.get_mut(1) {
            *byte = *byte & 0x7f | u8::from(is_last) << 7;
        }
        packet
    }

    fn number(&self) -> Option<[u8; 2]> {
        self.bytes.get(2..4)?.try_into().ok()
    }

    fn put(&mut self, at: usize, value: &[u8]) {
        if let Some(place) = self.bytes.get_mut(at..at + value.len()) {
            place.copy_from_slice(value);
        }
    }
}

/// Bytes of an RTP header without contributing sources and extensions, which these cameras do not send.
pub const HEADER: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_comes_apart_into_items_however_it_is_cut() {
        let message =
            Message { head: "RTSP/1.0 200 OK\r\nCSeq: 7\r\nContent-Length: 3".into(), body: b"v=0".to_vec() };
        let packet = Packet { channel: 1, bytes: vec![0x80, 0xe0, 1, 2, 0, 0, 0, 9, 0, 0, 0, 5, 7] };
        let items = [Item::Message(message), Item::Packet(packet)];
        let wire: Vec<u8> = items.iter().flat_map(Item::to_bytes).collect();
        for cut in 0..wire.len() {
            let (mut stream, mut taken) = (Vec::new(), Vec::new());
            for part in [&wire[..cut], &wire[cut..]] {
                stream.extend_from_slice(part);
                while let Some(item) = Item::take(&mut stream).unwrap() {
                    taken.push(item);
                }
            }
            assert_eq!(taken, items, "cut at {cut}");
        }
    }

    #[test]
    fn headers_are_found_and_bodies_keep_their_length() {
        let request = Message { head: "DESCRIBE rtsp://x RTSP/1.0\r\ncseq: 3".into(), body: Vec::new() };
        assert_eq!((request.method(), request.header("CSeq")), ("DESCRIBE", Some("3")));
        let answer = Message::answer(&request, 401, "Unauthorized", "\r\nWWW-Authenticate: Basic");
        assert_eq!(answer.head, "RTSP/1.0 401 Unauthorized\r\nCSeq: 3\r\nWWW-Authenticate: Basic");
        let longer = Message { head: "RTSP/1.0 200 OK\r\nContent-length: 1".into(), body: b"a".to_vec() };
        assert_eq!(longer.with_body("abc").head, "RTSP/1.0 200 OK\r\nContent-length: 3");
    }

    #[test]
    fn a_packet_is_rewritten_in_place() {
        let packet = Packet { channel: 0, bytes: vec![0x80, 0xe0, 1, 2, 0, 0, 0, 9, 0, 0, 0, 5, 7, 8] };
        assert!(packet.is_rtp() && packet.is_last());
        assert_eq!((packet.sequence(), packet.time()), (0x102, 9));
        let other = packet.clone().with_sequence(3).with_time(4).with_source(6);
        assert_eq!(other.bytes, [0x80, 0xe0, 0, 3, 0, 0, 0, 4, 0, 0, 0, 6, 7, 8]);
        assert_eq!(packet.with_payload(&[1]).marked(false).bytes[..2], [0x80, 0x60]);
        assert_eq!(packet.with_payload(&[1]).bytes.len(), HEADER + 1);
    }
}
