//! What is on its way to the broker, as a plain value.
//!
//! The client gives out packet ids itself: 1, 2, ... up to its limit, then 1 again, in the order in which messages were
//! handed to it; the subscription before the first message takes one. It stalls, and may stay so over reconnections, when it comes to an id whose message is not yet
//! acknowledged (its issue 1056). So the window counts from the *oldest* unacknowledged message, not how many there are: with
//! a window no larger than the client's limit no id can come up twice, in whatever order the broker acknowledges.

use std::collections::VecDeque;

/// Messages between the hand-over to the client and the broker's acknowledgement.
#[derive(Clone, Debug)]
pub(crate) struct InFlight<T> {
    window: usize,
    /// Messages handed over so far.
    handed: u64,
    /// Handed over, without a packet id yet; oldest first.
    waiting: VecDeque<(u64, T)>,
    /// On the wire; oldest first.
    sent: VecDeque<(u64, u16, T)>,
}

impl<T> InFlight<T> {
    /// Nothing is on its way. At least one message may be.
    pub(crate) fn new(window: usize) -> Self {
        Self { window: window.max(1), handed: 0, waiting: VecDeque::new(), sent: VecDeque::new() }
    }

    /// From now on up to `window` messages.
    pub(crate) fn widen(&mut self, window: usize) {
        self.window = window.max(self.window);
    }

    /// How many more messages may be handed over.
    pub(crate) fn room(&self) -> usize {
        let sent = self.sent.front().map(|(order, ..)| *order);
        let oldest = sent.or(self.waiting.front().map(|(order, _)| *order)).unwrap_or(self.handed);
        self.window.saturating_sub((self.handed - oldest) as usize)
    }

    /// A message was handed to the client. Only where there is room.
    pub(crate) fn hand_over(&mut self, message: T) {
        debug_assert!(self.room() > 0);
        self.waiting.push_back((self.handed, message));
        self.handed += 1;
    }

    /// The client sent the oldest message without an id under this one.
    pub(crate) fn published(&mut self, id: u16) -> Option<&T> {
        let (order, message) = self.waiting.pop_front()?;
        self.sent.push_back((order, id, message));
        self.sent.back().map(|(_, _, message)| message)
    }

    /// The broker answered the message with this id. `None`: it was not asked.
    pub(crate) fn acknowledged(&mut self, id: u16) -> Option<T> {
        let position = self.sent.iter().position(|(_, sent, _)| *sent == id)?;
        self.sent.remove(position).map(|(_, _, message)| message)
    }

    /// All that is on its way, oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.sent.iter().map(|(_, _, message)| message).chain(self.waiting.iter().map(|(_, message)| message))
    }

    /// How much is on its way.
    pub(crate) fn len(&self) -> usize {
        self.sent.len() + self.waiting.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_answer_belongs_to_the_message_that_was_sent_under_its_id() {
        let mut flight = InFlight::new(3);
        for message in ["a", "b", "c"] {
            flight.hand_over(message);
        }
        assert_eq!(flight.room(), 0);
        assert_eq!(flight.acknowledged(1), None, "not sent yet");
        assert_eq!(flight.published(1), Some(&"a"));
        assert_eq!(flight.published(2), Some(&"b"));
        assert_eq!(flight.acknowledged(2), Some("b"));
        assert_eq!(flight.acknowledged(2), None, "twice");
        assert_eq!(flight.room(), 0, "the oldest is still out");
        assert_eq!(flight.acknowledged(1), Some("a"));
        assert_eq!(flight.room(), 2);
        assert_eq!(flight.iter().collect::<Vec<_>>(), [&"c"]);
    }

    proptest! {
        /// Against a client that gives ids as ours does and a broker that answers in any order.
        #[test]
        fn no_id_comes_up_twice_and_every_message_is_answered_once(
            window in 1_usize..20, spare in prop_oneof![0_u16..5, Just(u16::MAX - 20)], before in any::<u16>(),
            steps in proptest::collection::vec(any::<u8>(), 1..400),
        ) {
            let limit = window as u16 + spare;
            let mut flight = InFlight::new(window);
            let (mut next, mut last_id) = (0_u32, before % limit);
            let (mut queued, mut out) = (VecDeque::new(), Vec::<(u16, u32)>::new());
            let mut answered = Vec::new();
            for step in steps {
                match step % 3 {
                    0 if flight.room() > 0 => {
                        flight.hand_over(next);
                        queued.push_back(next);
                        next += 1;
                    }
                    1 => if let Some(message) = queued.pop_front() {
                        last_id = last_id % limit + 1;
                        prop_assert!(out.iter().all(|(id, _)| *id != last_id), "id {} is out", last_id);
                        prop_assert_eq!(flight.published(last_id), Some(&message));
                        out.push((last_id, message));
                    }
                    2 if !out.is_empty() => {
                        let (id, message) = out.remove(usize::from(step) % out.len());
                        prop_assert_eq!(flight.acknowledged(id), Some(message));
                        answered.push(message);
                    }
                    _ => {}
                }
                prop_assert_eq!(flight.len(), queued.len() + out.len());
                prop_assert!(flight.len() <= window && flight.room() <= window - flight.len());
                prop_assert!(flight.room() > 0 || flight.len() > 0, "it never locks itself up");
            }
            answered.extend(flight.iter().copied());
            answered.sort_unstable();
            prop_assert_eq!(answered, (0..next).collect::<Vec<_>>());
        }
    }
}
