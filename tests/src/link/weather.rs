//! What a link does to what passes it, in numbers.

use std::time::{Duration, Instant};

use fastrand::Rng;

use super::SEGMENT;

/// The state of a link.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Weather {
    /// One way.
    pub delay: Duration,
    /// Bytes a second from the client to the broker, shared by all connections; `None` as many as will.
    pub up: Option<u32>,
    /// Bytes a second from the broker to the client.
    pub down: Option<u32>,
    /// Probability that a segment is lost, each way, 0.0 to 0.9.
    pub loss: f64,
    /// Of the losses.
    pub seed: u64,
}

impl Weather {
    /// A link that does nothing.
    pub const CLEAR: Self = Self { delay: Duration::ZERO, up: None, down: None, loss: 0.0, seed: 0 };

    /// A village in the rain: 64 kbit/s, 20 % loss, 800 ms to the township and back.
    pub const RAIN: Self =
        Self { delay: Duration::from_millis(400), up: Some(8_000), down: Some(8_000), loss: 0.2, seed: 1 };

    /// There and back.
    pub(super) fn round_trip(&self) -> Duration {
        2 * self.delay
    }

    /// How long a sender waits before it sends a segment again for the first time.
    pub(super) fn retransmission_timeout(&self) -> Duration {
        self.round_trip() + Duration::from_millis(200)
    }

    /// How often a segment, or the packet of a handshake, is lost before it arrives.
    pub(super) fn losses(&self, rng: &mut Rng) -> u32 {
        (0..).take_while(|_| self.loss > 0.0 && rng.f64() < self.loss.min(0.9)).count() as u32
    }
}

/// What a sender waits after the n-th loss, 0 the first.
pub(super) fn timeout(first: Duration, n: u32) -> Duration {
    first.saturating_mul(1 << n.min(20)).min(Duration::from_secs(60))
}

/// One direction: one segment at a time.
#[derive(Debug, Default)]
pub(super) struct Wire {
    free_at: Option<Instant>,
}

impl Wire {
    /// Takes a segment that is ready now and says when its last bit has left.
    pub(super) fn send(&mut self, now: Instant, bytes: usize, rate: Option<u32>) -> Instant {
        let Some(rate) = rate else { return now };
        let start = self.free_at.map_or(now, |free_at| free_at.max(now));
        let left = start + Duration::from_secs_f64(bytes as f64 / f64::from(rate.max(1)));
        self.free_at = Some(left);
        left
    }
}

/// Where losses of one direction of one connection come from.
pub(super) fn dice(seed: u64, connection: u64, direction: u64) -> Rng {
    Rng::with_seed(seed ^ (connection * 2 + direction).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

const _: () = assert!(super::WINDOW > SEGMENT);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wire_passes_one_segment_after_another() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut wire = Wire::default();
        // (ready at ms, bytes) at 1000 bytes a second -> has left at ms
        for (ready, bytes, left) in [(0, 100, 100), (0, 100, 200), (150, 50, 250), (1_000, 10, 1_010)] {
            assert_eq!(wire.send(at(ready), bytes, Some(1_000)), at(left), "{ready} {bytes}");
        }
        assert_eq!(wire.send(at(0), 1_000_000, None), at(0), "a wire without a rate");
    }

    #[test]
    fn timeouts_double_up_to_a_minute() {
        let waits: Vec<u64> = (0..8).map(|n| timeout(Duration::from_secs(1), n).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(Weather::RAIN.retransmission_timeout(), Duration::from_millis(1_000));
    }

    #[test]
    fn losses_follow_their_probability_and_their_seed() {
        for (loss, at_least, at_most) in [(0.0, 0.0, 0.0), (0.2, 0.23, 0.27), (0.5, 0.95, 1.05)] {
            // A segment is lost p + p^2 + p^3 ... = p / (1 - p) times on average.
            let weather = Weather { loss, ..Weather::CLEAR };
            let mut rng = dice(7, 1, 0);
            let mean = f64::from((0..20_000).map(|_| weather.losses(&mut rng)).sum::<u32>()) / 20_000.0;
            assert!((at_least..=at_most).contains(&mean), "{loss}: {mean}");
        }
        let play = |seed, connection| -> Vec<u32> {
            let mut rng = dice(seed, connection, 1);
            (0..50).map(|_| Weather::RAIN.losses(&mut rng)).collect()
        };
        assert_eq!(play(1, 1), play(1, 1));
        assert_ne!(play(1, 1), play(2, 1));
        assert_ne!(play(1, 1), play(1, 2));
    }

    /// The figure in the module's documentation.
    #[test]
    fn rain_with_a_long_delay_lets_through_what_a_real_link_would() {
        let weather = Weather { delay: Duration::from_millis(800), ..Weather::RAIN };
        let mut rng = dice(1, 0, 0);
        let mut time = Duration::ZERO;
        for _ in 0..10_000 {
            for n in 0..weather.losses(&mut rng) {
                time += timeout(weather.retransmission_timeout(), n);
            }
            time += Duration::from_secs_f64(SEGMENT as f64 / 8_000.0);
        }
        let rate = 10_000.0 * SEGMENT as f64 / time.as_secs_f64();
        assert!((1_500.0..3_500.0).contains(&rate), "{rate} bytes a second");
    }
}
