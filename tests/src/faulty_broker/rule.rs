//! The usual rules.

use super::{Direction, Fate, Kind, Passing};

/// This becomes of the n-th packet (from 1) of a kind in a direction, and nothing of all others.
pub fn at(direction: Direction, kind: Kind, n: u64, fate: Fate) -> impl FnMut(&Passing<'_>) -> Fate + Send {
    move |passing| if passing.is(direction, kind) && passing.nth == n { fate } else { Fate::Pass }
}

/// This becomes of every k-th packet of a kind in a direction.
pub fn each(direction: Direction, kind: Kind, k: u64, fate: Fate) -> impl FnMut(&Passing<'_>) -> Fate + Send {
    move |passing| {
        if passing.is(direction, kind) && passing.nth.is_multiple_of(k) { fate } else { Fate::Pass }
    }
}

/// The broker refuses what a client publishes on topics that contain a text.
pub fn refuse(topic: &str, reason: u8) -> impl FnMut(&Passing<'_>) -> Fate + Send + use<> {
    let topic = topic.to_owned();
    move |passing| {
        let hit = passing.is(Direction::ToBroker, Kind::Publish)
            && passing.packet.topic.as_ref().is_some_and(|name| name.contains(&topic));
        if hit { Fate::Refuse(reason) } else { Fate::Pass }
    }
}

/// This becomes of the broker's answer to the first `count` messages on topics that contain a text.
pub fn answers_to(topic: &str, count: u64, fate: Fate) -> impl FnMut(&Passing<'_>) -> Fate + Send + use<> {
    let (topic, mut left, mut ids) = (topic.to_owned(), count, Vec::new());
    move |passing| {
        let packet = passing.packet;
        if passing.is(Direction::ToBroker, Kind::Publish)
            && left > 0
            && packet.topic.as_ref().is_some_and(|name| name.contains(&topic))
        {
            left -= 1;
            ids.extend(packet.id);
        }
        match ids
            .iter()
            .position(|id| passing.is(Direction::ToClient, Kind::PubAck) && packet.id == Some(*id))
        {
            Some(place) => {
                ids.remove(place);
                fate
            }
            None => Fate::Pass,
        }
    }
}

/// PUBACKs arrive in groups of k, each group in reverse. The last ones of an incomplete group are held.
pub fn acknowledge_in_reverse(k: u64) -> impl FnMut(&Passing<'_>) -> Fate + Send {
    move |passing| match passing.is(Direction::ToClient, Kind::PubAck) {
        true if passing.nth.is_multiple_of(k) => Fate::Release,
        true => Fate::Hold,
        false => Fate::Pass,
    }
}

/// The connection ends after every k-th packet that it carries, both ways counted.
pub fn cut_each(k: u64) -> impl FnMut(&Passing<'_>) -> Fate + Send {
    move |passing| if passing.nth_of_connection.is_multiple_of(k) { Fate::CutAfter } else { Fate::Pass }
}
