//! How long to wait before the next attempt: for cameras, the broker and a disk that cannot be written alike.
//!
//! Laws: the wait without jitter starts at `min`, doubles with each attempt and never passes `max`; jitter only
//! shortens it, by at most its share, so `max` holds with jitter too and a thousand boxes that lost the same
//! broker come back spread out; after [`Backoff::reset`] it starts anew.

use std::time::Duration;

/// Exponential waits with jitter, as a plain value: the caller brings the randomness and does the waiting.
#[derive(Clone, Debug, PartialEq)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    jitter: f64,
    current: Duration,
}

/// The limits of a [`Backoff`] contradict each other.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum BadBackoff {
    /// A wait of nothing is a busy loop.
    #[error("the shortest wait must be more than 0")]
    NoWait,
    /// There is no wait between the two.
    #[error("the shortest wait, {min:?}, is longer than the longest, {max:?}")]
    Reversed {
        /// Shortest wait asked for.
        min: Duration,
        /// Longest wait asked for.
        max: Duration,
    },
    /// A share of the wait is from 0 to below 1.
    #[error("jitter {0} is no share from 0 to below 1")]
    Jitter(f64),
}

impl Backoff {
    /// Waits from `min` to `max`, each shortened by a random share of up to `jitter` (0 to below 1).
    pub fn new(min: Duration, max: Duration, jitter: f64) -> Result<Self, BadBackoff> {
        if min.is_zero() {
            return Err(BadBackoff::NoWait);
        }
        if min > max {
            return Err(BadBackoff::Reversed { min, max });
        }
        if !(0.0..1.0).contains(&jitter) {
            return Err(BadBackoff::Jitter(jitter));
        }
        Ok(Self { min, max, jitter, current: min })
    }

    /// The wait before the next attempt. `random` is uniform in 0 to 1; what lies outside is clamped, NaN is 0.
    pub fn next(&mut self, random: f64) -> Duration {
        let wait = self.current;
        self.current = self.current.saturating_mul(2).min(self.max);
        let random = if random.is_nan() { 0.0 } else { random.clamp(0.0, 1.0) };
        wait.mul_f64(1.0 - self.jitter * random)
    }

    /// The attempt worked: the next failure waits the shortest time again.
    pub fn reset(&mut self) {
        self.current = self.min;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn limits_that_contradict_each_other_are_refused() {
        assert_eq!(Backoff::new(Duration::ZERO, SECOND, 0.0), Err(BadBackoff::NoWait));
        let reversed = BadBackoff::Reversed { min: 2 * SECOND, max: SECOND };
        assert_eq!(Backoff::new(2 * SECOND, SECOND, 0.0), Err(reversed));
        for jitter in [-0.1, 1.0, f64::INFINITY] {
            assert_eq!(Backoff::new(SECOND, SECOND, jitter), Err(BadBackoff::Jitter(jitter)));
        }
        assert!(Backoff::new(SECOND, SECOND, f64::NAN).is_err());
    }

    #[test]
    fn it_doubles_up_to_the_longest_wait() {
        let mut backoff = Backoff::new(SECOND, 5 * SECOND, 0.0).unwrap();
        let waits: Vec<u64> = (0..5).map(|_| backoff.next(0.7).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 5, 5]);
    }

    proptest! {
        #[test]
        fn laws(
            min in 1_u64..100_000, span in 0_u64..10_000_000, jitter in 0.0..0.99,
            random in proptest::collection::vec(prop_oneof![0.0..=1.0, Just(-3.0), Just(9.0), Just(f64::NAN)], 1..80),
        ) {
            let (min, max) = (Duration::from_millis(min), Duration::from_millis(min + span));
            let fresh = Backoff::new(min, max, jitter).unwrap();
            let (mut backoff, mut plain) = (fresh.clone(), Backoff::new(min, max, 0.0).unwrap());
            let mut before = Duration::ZERO;
            for random in random {
                let (wait, full) = (backoff.next(random), plain.next(random));
                prop_assert!(min <= full && full <= max, "bounds");
                prop_assert!(before <= full && (full == max || full >= before * 2), "growth");
                let slack = Duration::from_micros(1) + full.mul_f64(1e-9);
                prop_assert!(full.mul_f64(1.0 - jitter) <= wait + slack && wait <= full + slack, "jitter");
                before = full;
            }
            backoff.reset();
            prop_assert_eq!(backoff, fresh);
        }
    }
}
