//! When a box asks its repository: plain values. A thousand boxes that started together, or are asked together, do not come
//! together, and do not come together later either.

use std::time::{Duration, Instant};

/// The first check comes within half an interval, and at the latest within this time.
const FIRST: Duration = Duration::from_secs(600);

/// Each later one comes after the interval, give or take this part of it.
const SLACK: f64 = 0.25;

/// A check that somebody asks for comes within this time.
const HASTE: Duration = Duration::from_secs(5);

/// The time of the next check. The caller brings the time, and randomness that is uniform in 0 to 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Polling {
    interval: Duration,
    due: Instant,
}

impl Polling {
    /// The agent starts.
    pub fn start(interval: Duration, now: Instant, random: f64) -> Self {
        Self { interval, due: now + FIRST.min(interval.mul_f64(0.5)).mul_f64(random) }
    }

    /// Whether it is time.
    pub fn is_due(&self, now: Instant) -> bool {
        now >= self.due
    }

    /// Somebody wants a check: it comes soon, and never later than it would have.
    pub fn hasten(&mut self, now: Instant, random: f64) {
        self.due = self.due.min(now + HASTE.mul_f64(random));
    }

    /// A check has ended.
    pub fn checked(&mut self, now: Instant, random: f64) {
        self.due = now + self.interval.mul_f64(1.0 - SLACK + 2.0 * SLACK * random);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3600;

    /// The seconds at which each of a thousand boxes asks, all of which start at 0, and what they do at `hastened`.
    fn checks(interval: u64, until: u64, hastened: Option<u64>) -> Vec<Vec<u64>> {
        let start = Instant::now();
        let at = |second: u64| start + Duration::from_secs(second);
        let mut dice = fastrand::Rng::with_seed(7);
        let mut boxes = Vec::new();
        for _ in 0..1000 {
            let mut polling = Polling::start(Duration::from_secs(interval), start, dice.f64());
            let mut times = Vec::new();
            for second in 0..until {
                if hastened == Some(second) {
                    polling.hasten(at(second), dice.f64());
                }
                if polling.is_due(at(second)) {
                    times.push(second);
                    polling.checked(at(second), dice.f64());
                }
            }
            boxes.push(times);
        }
        boxes
    }

    /// The most boxes that ask in the same second, from one second on.
    fn busiest(boxes: &[Vec<u64>], from: u64) -> usize {
        let mut of_second = std::collections::BTreeMap::<u64, usize>::new();
        for second in boxes.iter().flatten().filter(|second| **second >= from) {
            *of_second.entry(*second).or_default() += 1;
        }
        of_second.into_values().max().unwrap_or_default()
    }

    #[test]
    fn a_thousand_boxes_that_start_together_do_not_ask_together() {
        let boxes = checks(6 * HOUR, 48 * HOUR, None);
        for times in &boxes {
            assert!(times[0] <= 600, "the first check at {} s", times[0]);
            for pair in times.windows(2) {
                let between = pair[1] - pair[0];
                assert!((9 * HOUR / 2..=15 * HOUR / 2 + 1).contains(&between), "{between} s between two");
            }
        }
        // By chance alone, 1.7 and then 0.05 in a second on average.
        assert!(busiest(&boxes, 0) <= 9, "{} at the start", busiest(&boxes, 0));
        assert!(busiest(&boxes, 24 * HOUR) <= 4, "{} on the second day", busiest(&boxes, 24 * HOUR));
    }

    #[test]
    fn a_thousand_boxes_that_are_asked_together_come_within_seconds_and_part_again() {
        let boxes = checks(6 * HOUR, 48 * HOUR, Some(HOUR));
        for times in &boxes {
            let soon = times.iter().find(|second| **second >= HOUR).unwrap();
            assert!((HOUR..=HOUR + 5).contains(soon), "asked {} s later", soon - HOUR);
        }
        assert!((150..=260).contains(&busiest(&boxes, HOUR)), "{} in a second", busiest(&boxes, HOUR));
        assert!(busiest(&boxes, HOUR + 6) <= 5, "{} in a second later", busiest(&boxes, HOUR + 6));
    }

    #[test]
    fn haste_never_delays_a_check() {
        let now = Instant::now();
        let mut polling = Polling::start(Duration::from_secs(HOUR), now, 0.0);
        polling.hasten(now, 1.0);
        assert!(polling.is_due(now));
    }
}
