//! The usual rules.

use std::collections::HashMap;

use fastrand::Rng;

use super::item::HEADER;
use super::{Fate, Item, Message, Packet, Passing};

/// No fault.
pub fn pass(_: &Passing<'_>) -> Fate {
    Fate::Pass
}

/// Requests of a method are never answered.
pub fn never_answer(method: &str) -> impl FnMut(&Passing<'_>) -> Fate + Send + use<> {
    let method = method.to_owned();
    move |passing| match passing.request() {
        Some(request) if request.method() == method => Fate::Lose,
        _ => Fate::Pass,
    }
}

/// Requests of a method are refused. `headers` are more lines, each after "\r\n".
pub fn refuse(
    method: &str,
    status: u16,
    reason: &str,
    headers: &str,
) -> impl FnMut(&Passing<'_>) -> Fate + Send + use<> {
    let (method, reason, headers) = (method.to_owned(), reason.to_owned(), headers.to_owned());
    move |passing| match passing.request() {
        Some(request) if request.method() == method => {
            Fate::Answer(vec![Item::Message(Message::answer(request, status, &reason, &headers))])
        }
        _ => Fate::Pass,
    }
}

/// Nothing is heard of the camera any more, and the connection stays open.
pub fn silence(_: &Passing<'_>) -> Fate {
    Fate::Lose
}

/// Requests are answered, and no RTP comes.
pub fn no_media(passing: &Passing<'_>) -> Fate {
    if passing.rtp().is_some() { Fate::Lose } else { Fate::Pass }
}

/// The SDP of a description is another.
pub fn describe(change: impl Fn(&str) -> String + Send) -> impl FnMut(&Passing<'_>) -> Fate + Send {
    move |passing| match passing.answer() {
        Some(answer) if answer.body.starts_with(b"v=0") => {
            let body = change(&String::from_utf8_lossy(&answer.body));
            Fate::Become(vec![Item::Message(answer.with_body(&body))])
        }
        _ => Fate::Pass,
    }
}

/// Each RTP packet becomes others, which are numbered anew.
pub fn media(
    mut change: impl FnMut(&Packet) -> Vec<Packet> + Send,
) -> impl FnMut(&Passing<'_>) -> Fate + Send {
    let mut next: HashMap<u64, u16> = HashMap::new();
    move |passing| {
        let Some(packet) = passing.rtp() else { return Fate::Pass };
        let next = next.entry(passing.connection).or_insert_with(|| packet.sequence());
        let numbered = |packet: Packet| {
            let packet = packet.with_sequence(*next);
            *next = next.wrapping_add(1);
            Item::Packet(packet)
        };
        Fate::Become(change(packet).into_iter().map(numbered).collect())
    }
}

/// Time stamps of access units are others. `change` takes the number of the access unit, from 0, and its time stamp.
pub fn times(mut change: impl FnMut(u64, u32) -> u32 + Send) -> impl FnMut(&Passing<'_>) -> Fate + Send {
    let mut units = 0;
    let mut last = None;
    media(move |packet| {
        let time = packet.time();
        if last.is_some_and(|last| last != time) {
            units += 1;
        }
        last = Some(time);
        vec![packet.clone().with_time(change(units, time))]
    })
}

/// In one of so many RTP packets one bit is flipped: in the payload, or anywhere.
pub fn flip_bits(one_in: u64, headers_too: bool, seed: u64) -> impl FnMut(&Passing<'_>) -> Fate + Send {
    let mut dice = Rng::with_seed(seed);
    move |passing| {
        let Some(packet) = passing.rtp() else { return Fate::Pass };
        let from = if headers_too { 0 } else { HEADER };
        if dice.u64(..one_in) != 0 || packet.bytes.len() <= from {
            return Fate::Pass;
        }
        let mut packet = packet.clone();
        let at = dice.usize(from..packet.bytes.len());
        packet.bytes[at] ^= 1 << dice.u8(..8);
        Fate::Become(vec![Item::Packet(packet)])
    }
}

#[cfg(test)]
mod tests {
    use super::super::Direction;
    use super::*;

    fn packet(sequence: u16, time: u32) -> Item {
        let packet = Packet { channel: 0, bytes: vec![0x80; 20] };
        Item::Packet(packet.with_sequence(sequence).with_time(time))
    }

    fn play(mut rule: impl FnMut(&Passing<'_>) -> Fate, items: &[Item]) -> Vec<Fate> {
        let ask = |item| rule(&Passing { item, direction: Direction::ToAgent, connection: 1, media: 1 });
        items.iter().map(ask).collect()
    }

    #[test]
    fn what_takes_a_packets_place_is_numbered_on() {
        let twice = media(|packet| vec![packet.clone(), packet.clone()]);
        let fates = play(twice, &[packet(65_535, 5), packet(0, 5)]);
        let expected = [
            Fate::Become(vec![packet(65_535, 5), packet(0, 5)]),
            Fate::Become(vec![packet(1, 5), packet(2, 5)]),
        ];
        assert_eq!(fates, expected);
    }

    #[test]
    fn packets_of_an_access_unit_share_a_time() {
        let fates = play(times(|unit, _| unit as u32), &[packet(7, 100), packet(8, 100), packet(9, 50)]);
        let expected = [packet(7, 0), packet(8, 0), packet(9, 1)].map(|item| Fate::Become(vec![item]));
        assert_eq!(fates, expected);
    }

    #[test]
    fn a_bit_is_flipped_in_one_packet_of_so_many() {
        let items: Vec<Item> = (0..1000).map(|n| packet(n, 0)).collect();
        let flipped = play(flip_bits(10, false, 1), &items);
        let broken = flipped.iter().filter(|fate| **fate != Fate::Pass).count();
        assert!((60..140).contains(&broken), "{broken}");
    }
}
