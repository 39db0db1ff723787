//! How often the disk is made to write: flash cards die of it.
//!
//! A durable commit costs one `fsync`. An alert after a quiet moment and every critical one is stored at once; others
//! wait for those that come within [`GROUP`]; and where they come for long, they share one commit every [`REFILL`].

use std::time::{Duration, Instant};

/// Alerts within this time share a commit.
pub(super) const GROUP: Duration = Duration::from_millis(50);

/// One commit in this time may be had for ever: with those of checkpoints that is less than one `fsync` a second.
pub(super) const REFILL: Duration = Duration::from_millis(1250);

/// Commits that a quiet time saves up.
const BURST: u32 = 40;

/// A critical alert commits whatever was saved. So many commits are owed at most: others wait no more than 5 s for them.
const DEBT: u32 = 4;

/// A token bucket of commits, as a plain value.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    last: Option<Instant>,
    /// When the bucket would be full: each commit moves it on by [`REFILL`].
    full_at: Instant,
}

impl Pace {
    /// A full bucket.
    pub(super) fn new(now: Instant) -> Self {
        Self { last: None, full_at: now }
    }

    /// The earliest moment for a commit of what is not critical.
    pub(super) fn earliest(&self, now: Instant) -> Instant {
        let token = self.full_at.checked_sub(REFILL * (BURST - 1)).unwrap_or(now);
        let group = self.last.map_or(now, |last| last + GROUP);
        token.max(group)
    }

    /// There was a durable commit.
    pub(super) fn committed(&mut self, now: Instant) {
        self.last = Some(now);
        let most = now + REFILL * (BURST + DEBT);
        self.full_at = (self.full_at.max(now) + REFILL).min(most);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Alerts at these milliseconds, none critical: when each commit happens.
    fn commits(arrivals: impl IntoIterator<Item = u64>) -> Vec<u64> {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        let mut commits = Vec::<u64>::new();
        for arrival in arrivals {
            if commits.last().is_some_and(|last| *last >= arrival) {
                continue; // it shares that commit
            }
            let now = start + Duration::from_millis(arrival);
            let at = pace.earliest(now).max(now);
            pace.committed(at);
            commits.push(at.duration_since(start).as_millis() as u64);
        }
        commits
    }

    #[test]
    fn the_first_alert_is_stored_at_once_and_a_burst_is_grouped() {
        assert_eq!(commits([5]), [5]);
        assert_eq!(commits([0, 10, 20, 90, 300]), [0, 50, 100, 300]);
    }

    #[test]
    fn many_alerts_for_long_cost_less_than_a_commit_a_second() {
        let hour = commits((0..3_600_000).step_by(50));
        assert!(hour.len() as u64 <= 3_600_000 / 1250 + u64::from(BURST), "{}", hour.len());
        let gaps: Vec<u64> = hour.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(gaps.iter().all(|gap| *gap <= 1300), "nobody waits longer: {:?}", gaps.iter().max());
    }

    proptest! {
        #[test]
        fn the_wait_is_bounded_and_so_is_the_rate(gaps in proptest::collection::vec(0_u64..5_000, 1..300)) {
            let arrivals: Vec<u64> = gaps.iter().scan(0, |sum, gap| { *sum += gap; Some(*sum) }).collect();
            let commits = commits(arrivals.iter().copied());
            for arrival in &arrivals {
                let stored = commits.iter().find(|at| *at >= arrival).expect("everything is stored");
                prop_assert!(stored - arrival <= 1250);
            }
            let span = commits[commits.len() - 1] - commits[0];
            prop_assert!(commits.len() as u64 <= span / 1250 + 1 + u64::from(BURST));
        }
    }
}
