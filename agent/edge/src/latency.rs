//! How long something takes, of the newest times that it happened.

use std::collections::VecDeque;
use std::time::Duration;

/// Newest measurements that the quantiles are taken from.
const KEPT: usize = 1024;

/// Quantiles of the newest 1024 measurements.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    /// Measured since the start.
    pub count: u64,
    /// Half of the newest took no longer.
    pub p50: Option<Duration>,
    /// 99 of 100 of the newest took no longer.
    pub p99: Option<Duration>,
}

/// The newest measurements. The oldest makes room.
#[derive(Debug, Default)]
pub(crate) struct Samples {
    newest: VecDeque<Duration>,
    count: u64,
}

impl Samples {
    pub(crate) fn add(&mut self, sample: Duration) {
        if self.newest.len() == KEPT {
            self.newest.pop_front();
        }
        self.newest.push_back(sample);
        self.count += 1;
    }

    pub(crate) fn summary(&self) -> Latency {
        let mut sorted: Vec<Duration> = self.newest.iter().copied().collect();
        sorted.sort_unstable();
        let rank =
            |percent: usize| sorted.get((sorted.len() * percent).div_ceil(100).saturating_sub(1)).copied();
        Latency { count: self.count, p50: rank(50), p99: rank(99) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_the_newest() {
        let mut samples = Samples::default();
        assert_eq!(samples.summary(), Latency::default());
        for old in 0..5000 {
            samples.add(Duration::from_secs(old));
        }
        for millis in (1..=1000).rev() {
            samples.add(Duration::from_millis(millis));
        }
        for _ in 0..KEPT - 1000 {
            samples.add(Duration::from_millis(1));
        }
        let summary = samples.summary();
        assert_eq!(summary.count, 5000 + KEPT as u64);
        assert_eq!(summary.p50, Some(Duration::from_millis(488)));
        assert_eq!(summary.p99, Some(Duration::from_millis(990)));
    }
}
