//! A budget as a plain value: so much a second, and a quiet time saves up a burst.

use std::time::{Duration, Instant};

/// A token bucket that may go into debt once: whoever comes while it is not in debt is served whole, and what he took too
/// much is paid off before the next. So a thing larger than the burst is never stuck.
#[derive(Clone, Debug)]
pub struct Budget {
    per_second: f64,
    burst: f64,
    balance: f64,
    counted: Instant,
}

impl Budget {
    /// Full. `per_second` is more than 0.
    pub fn new(per_second: f64, burst: f64, now: Instant) -> Self {
        Self { per_second, burst, balance: burst, counted: now }
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.counted).as_secs_f64();
        self.balance = (self.balance + passed * self.per_second).min(self.burst);
        self.counted = self.counted.max(now);
    }

    /// When somebody may take: now or in the past, where he may.
    pub fn ready_at(&mut self, now: Instant) -> Instant {
        self.fill(now);
        if self.balance > 0.0 {
            return now;
        }
        // A little more than nothing, so that the wait is never one of no time.
        now + Duration::from_secs_f64((-self.balance / self.per_second).clamp(0.001, 86_400.0))
    }

    /// Takes. Only where [`Budget::ready_at`] says so.
    pub fn take(&mut self, amount: f64, now: Instant) {
        self.fill(now);
        self.balance -= amount;
    }

    /// Takes one, if that may be.
    pub fn take_one(&mut self, now: Instant) -> bool {
        let may = self.ready_at(now) <= now && self.balance >= 1.0;
        if may {
            self.balance -= 1.0;
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn never_more_than_the_burst_and_the_rate_and_one_thing_and_never_stuck(
            per_second in 1.0..100_000.0_f64, burst in 1.0..100_000.0_f64,
            things in proptest::collection::vec((1.0..70_000.0_f64, 0_u64..5_000), 1..60),
        ) {
            let start = Instant::now();
            let mut budget = Budget::new(per_second, burst, start);
            let (mut now, mut taken, mut largest) = (start, 0.0, 0.0_f64);
            for (size, pause) in things {
                now += Duration::from_millis(pause);
                let mut turns = 0;
                while budget.ready_at(now) > now {
                    now = budget.ready_at(now);
                    turns += 1;
                    prop_assert!(turns < 4, "stuck");
                }
                budget.take(size, now);
                taken += size;
                largest = largest.max(size);
                let limit = burst + largest + per_second * now.duration_since(start).as_secs_f64();
                prop_assert!(taken <= limit * (1.0 + 1e-6), "{} of {}", taken, limit);
            }
        }
    }

    #[test]
    fn one_at_a_time_until_it_is_empty() {
        let now = Instant::now();
        let mut budget = Budget::new(1.0, 2.0, now);
        let taken = [0, 0, 0, 500, 1100, 1200].map(|ms| budget.take_one(now + Duration::from_millis(ms)));
        assert_eq!(taken, [true, true, false, false, true, false]);
    }
}
