//! How long the broker may be silent before the connection is given up, as a plain value.
//!
//! A link that died without a word, and a broker that is stuck while its kernel still takes bytes, look the same: nothing
//! comes back. A ping goes out every `keep_alive` and is answered at once, so three of these times without a byte are
//! enough: 15 s at the default of 5 s. But on a slow link a ping waits behind what was sent before it; so each byte that
//! is not answered yet adds its time at 4 kB/s, half of what a link of 64 kbit/s carries: 16 s for a picture of 64 KB.
//!
//! It counts from what was heard last, not from the ping: any packet of the broker shows that the link lives.

use std::time::Duration;

use tokio::time::Instant;

use super::in_flight::InFlight;

/// The slowest link that is waited for, in bytes per second.
const SLOWEST: f64 = 4_000.0;

/// What the broker still owes, and when it was last heard of.
#[derive(Clone, Debug)]
pub(super) struct Patience {
    keep_alive: Duration,
    /// From the connection to its first ping, while that has not been answered; then nothing.
    first_ping: Duration,
    pinged: bool,
    heard: Instant,
    /// The sizes of the messages that are not answered.
    unanswered: InFlight<usize>,
}

impl Patience {
    /// The connection stands. The first ping comes after `first_ping`, all others `keep_alive` after the one before.
    pub(super) fn new(keep_alive: Duration, first_ping: Duration, now: Instant) -> Self {
        // The window is kept elsewhere: here all that is sent is counted.
        let unanswered = InFlight::new(usize::MAX);
        Self { keep_alive, first_ping, pinged: false, heard: now, unanswered }
    }

    /// A packet came.
    pub(super) fn heard(&mut self, now: Instant) {
        self.heard = now;
        if self.pinged {
            self.first_ping = Duration::ZERO;
        }
    }

    /// A ping was sent.
    pub(super) fn pinged(&mut self) {
        self.pinged = true;
    }

    /// A message of so many bytes was handed to the client.
    pub(super) fn handed_over(&mut self, bytes: usize) {
        self.unanswered.hand_over(bytes);
    }

    /// The client sent the oldest message without an id under this one.
    pub(super) fn published(&mut self, id: u16) {
        self.unanswered.published(id);
    }

    /// The broker answered the message with this id.
    pub(super) fn answered(&mut self, id: u16) {
        self.unanswered.acknowledged(id);
    }

    /// When the connection is to be given up unless something is heard before.
    pub(super) fn deadline(&self) -> Instant {
        let bytes: usize = self.unanswered.iter().sum();
        let quiet = (self.first_ping + self.keep_alive).max(self.keep_alive * 3);
        self.heard + quiet + Duration::from_secs_f64(bytes as f64 / SLOWEST)
    }

    /// How long nothing was heard.
    pub(super) fn silence(&self, now: Instant) -> Duration {
        now.duration_since(self.heard)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What happens on a connection, each at a second.
    enum What {
        Heard,
        Pinged,
        /// A message of so many bytes is handed over and sent.
        Sent(u16, usize),
        Answered(u16),
    }
    use What::{Answered, Heard, Pinged, Sent};

    /// After all that, the connection is given up at `ends_s`.
    fn check(first_ping_s: u64, story: &[(f64, What)], ends_s: f64) {
        let start = Instant::now();
        let at = |seconds: f64| start + Duration::from_secs_f64(seconds);
        let mut patience = Patience::new(Duration::from_secs(5), Duration::from_secs(first_ping_s), start);
        for (second, what) in story {
            assert!(at(*second) < patience.deadline(), "given up before {second} s");
            match what {
                Heard => patience.heard(at(*second)),
                Pinged => patience.pinged(),
                Sent(id, bytes) => {
                    patience.handed_over(*bytes);
                    patience.published(*id);
                }
                Answered(id) => {
                    patience.heard(at(*second));
                    patience.answered(*id);
                }
            }
        }
        assert_eq!(patience.deadline(), at(ends_s));
    }

    #[test]
    fn silence_ends_a_connection_and_what_is_on_its_way_gives_it_time() {
        check(10, &[], 15.0);
        check(10, &[(0.2, Heard)], 15.2);
        check(10, &[(0.2, Heard), (10.0, Pinged)], 15.2);
        check(10, &[(10.0, Pinged), (11.0, Heard), (15.0, Pinged)], 26.0);
        // A broker that wants pings once a minute gets the first one then.
        check(60, &[(0.2, Heard)], 65.2);
        check(60, &[(60.0, Pinged), (60.1, Heard)], 75.1);
        // A picture of 64 kB crawls, and the pings wait behind it.
        check(
            10,
            &[(8.0, Heard), (9.0, Sent(1, 64_000)), (10.0, Pinged), (15.0, Pinged), (20.0, Pinged)],
            39.0,
        );
        check(10, &[(8.0, Heard), (9.0, Sent(1, 64_000)), (10.0, Pinged), (26.0, Answered(1))], 41.0);
        // Small messages hardly count, and none for ever.
        check(10, &[(1.0, Sent(1, 600)), (1.1, Sent(2, 600)), (2.0, Answered(2))], 17.15);
        check(10, &[(1.0, Sent(1, 600)), (2.0, Answered(1)), (3.0, Answered(1))], 18.0);
    }
}
