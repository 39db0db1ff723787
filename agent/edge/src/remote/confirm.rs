//! Commit-confirm: whether a new configuration keeps the way to a broker. A plain value.

use std::time::Duration;

/// It is kept when a broker was there for this part of the time after which it would be reverted.
const SHARE: f64 = 0.1;

/// What counts of one look at most: a process that was stopped meanwhile has lost nothing.
const LOOK_MAX: Duration = Duration::from_secs(5);

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing can be said yet.
    Open,
    /// It is kept.
    Kept,
    /// It is taken back.
    Reverted,
}

/// A configuration on trial. Time with a broker and time without add up, so that a link that comes and goes decides it, too.
#[derive(Clone, Debug)]
pub struct Confirm {
    limit: Duration,
    with: Duration,
    without: Duration,
}

impl Confirm {
    /// It is taken back after so long without a broker.
    pub fn new(limit: Duration) -> Self {
        Self { limit, with: Duration::ZERO, without: Duration::ZERO }
    }

    /// So much time has passed since the last look, with a broker or without.
    pub fn look(&mut self, connected: bool, passed: Duration) -> Verdict {
        let sum = if connected { &mut self.with } else { &mut self.without };
        *sum += passed.min(LOOK_MAX);
        if self.with >= self.limit.mul_f64(SHARE) {
            Verdict::Kept
        } else if self.without >= self.limit {
            Verdict::Reverted
        } else {
            Verdict::Open
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks once a second: `+` with a broker, `-` without.
    fn decides(limit: u64, looks: &str) -> (usize, Verdict) {
        let mut confirm = Confirm::new(Duration::from_secs(limit));
        for (n, look) in looks.chars().enumerate() {
            let verdict = confirm.look(look == '+', Duration::from_secs(1));
            if verdict != Verdict::Open {
                return (n + 1, verdict);
            }
        }
        (looks.len(), Verdict::Open)
    }

    #[test]
    fn a_broker_that_stays_keeps_it_and_none_takes_it_back() {
        for (looks, decided) in [
            ("-".repeat(299), (299, Verdict::Open)),
            ("-".repeat(301), (300, Verdict::Reverted)),
            ("+".repeat(29), (29, Verdict::Open)),
            ("-".repeat(9) + &"+".repeat(30), (39, Verdict::Kept)),
            ("+".to_owned() + &"-".repeat(300), (301, Verdict::Reverted)),
            ("+-".repeat(300), (59, Verdict::Kept)),
            ("+--------------------".repeat(300), (315, Verdict::Reverted)),
        ] {
            assert_eq!(decides(300, &looks), decided, "{looks}");
        }
    }

    #[test]
    fn a_process_that_was_stopped_has_lost_nothing() {
        let mut confirm = Confirm::new(Duration::from_secs(60));
        assert_eq!(confirm.look(false, Duration::from_secs(86_400)), Verdict::Open);
    }
}
