//! How many bytes a second pictures may take of a link that is slow or paid by volume, as a plain value: a token bucket.
//!
//! It counts in billionths of a byte, so that nothing is lost to rounding however often it is asked.

use std::time::Duration;

use tokio::time::Instant;

/// One second in nanoseconds, and one byte in what the bucket counts.
const UNIT: i128 = 1_000_000_000;

/// In any time `t`, no more than `burst + rate * t` bytes are taken. A message that is larger than the burst is taken when
/// the bucket is full, and paid off after it; for `burst` then stands its size.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    /// Bytes per second.
    rate: i128,
    full: i128,
    /// Below zero while a large message is being paid off.
    level: i128,
    /// When the level was reckoned.
    at: Instant,
}

impl Budget {
    /// A full bucket of `burst` bytes. At least one byte comes in a second.
    pub(super) fn new(bytes_per_second: u32, burst: u32, now: Instant) -> Self {
        let full = i128::from(burst) * UNIT;
        Self { rate: i128::from(bytes_per_second.max(1)), full, level: full, at: now }
    }

    /// Takes the bytes of one message, or says when they can be taken if nothing else is until then.
    pub(super) fn take(&mut self, bytes: usize, now: Instant) -> Result<(), Instant> {
        let passed = now.saturating_duration_since(self.at);
        self.at += passed;
        self.level = self.full.min(self.level.saturating_add(nanoseconds(passed) * self.rate));
        let price = i128::try_from(bytes).unwrap_or(i128::MAX).saturating_mul(UNIT);
        let missing = price.min(self.full) - self.level;
        if missing > 0 {
            let wait = (missing + self.rate - 1) / self.rate;
            return Err(self.at + Duration::from_nanos(u64::try_from(wait).unwrap_or(u64::MAX)));
        }
        self.level -= price;
        Ok(())
    }
}

fn nanoseconds(duration: Duration) -> i128 {
    i128::from(duration.as_secs()) * UNIT + i128::from(duration.subsec_nanos())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_burst_goes_at_once_and_the_rest_at_the_rate() {
        let start = Instant::now();
        let at = |seconds: f64| start + Duration::from_secs_f64(seconds);
        let mut budget = Budget::new(1_000, 6_000, start);
        for (second, bytes, answer) in [
            (0.0, 4_000, Ok(())),
            (0.0, 2_000, Ok(())),
            (0.0, 500, Err(0.5)),
            (0.25, 500, Err(0.5)),
            (0.5, 500, Ok(())),
            (0.5, 0, Ok(())),
            (100.0, 6_000, Ok(())),
            (100.0, 1, Err(100.001)),
            // Larger than the burst: when the bucket is full, and then for a long time nothing.
            (101.0, 60_000, Err(106.0)),
            (106.0, 60_000, Ok(())),
            (106.0, 1, Err(160.001)),
            (160.001, 1, Ok(())),
        ] {
            assert_eq!(budget.take(bytes, at(second)), answer.map_err(at), "{bytes} bytes at {second} s");
        }
    }

    #[test]
    fn a_time_before_the_last_one_and_absurd_sizes_do_no_harm() {
        let start = Instant::now() + Duration::from_secs(100);
        let mut budget = Budget::new(0, 0, start);
        assert_eq!(budget.take(10, start), Ok(()));
        assert_eq!(budget.take(10, start - Duration::from_secs(50)), Err(start + Duration::from_secs(10)));
        assert_eq!(budget.take(usize::MAX, start + Duration::from_secs(10)), Ok(()));
        assert!(budget.take(1, start + Duration::from_secs(20)).is_err());
    }

    proptest! {
        #[test]
        fn no_window_holds_more_than_its_share_and_every_message_gets_its_turn(
            rate in 1_u32..100_000, burst in 0_u32..100_000,
            steps in proptest::collection::vec((0_u64..10_000_000_000, 0_usize..200_000), 1..60),
        ) {
            let start = Instant::now();
            let mut budget = Budget::new(rate, burst, start);
            let mut now = start;
            let mut taken = Vec::<(Instant, usize)>::new();
            for (wait, bytes) in steps {
                now += Duration::from_nanos(wait);
                match budget.clone().take(bytes, now) {
                    Ok(()) => prop_assert_eq!(budget.take(bytes, now), Ok(())),
                    Err(when) => {
                        let early = when - Duration::from_nanos(1);
                        prop_assert!(when > now);
                        prop_assert_eq!(budget.take(bytes, early.max(now)), Err(when), "asking costs nothing");
                        prop_assert_eq!(budget.take(bytes, when), Ok(()), "a promise is kept");
                        now = when;
                    }
                }
                taken.push((now, bytes));
            }
            for first in 0..taken.len() {
                let (mut sum, mut largest) = (0, 0);
                for (at, bytes) in &taken[first..] {
                    sum += *bytes;
                    largest = largest.max(*bytes);
                    let share = nanoseconds(*at - taken[first].0) * i128::from(rate);
                    let most = (largest.max(burst as usize) as i128) * UNIT + share;
                    prop_assert!(sum as i128 * UNIT <= most);
                }
            }
        }
    }
}
