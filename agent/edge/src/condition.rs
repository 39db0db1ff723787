//! A condition of a camera that people are told of: since when it counts, until when, and how seldom it is told.
//!
//! Plain values, no clock.

use std::time::Duration;

/// How a condition is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// How long it has to last.
    pub after: Duration,
    /// How long it has to be gone until it is over.
    pub steady: Duration,
    /// How long nothing is told after that: a camera that flaps raises no storm.
    pub cooldown: Duration,
}

/// What is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// It counts from now on.
    Raised,
    /// It is over.
    Over,
}

/// How long it takes until what could not be told is tried again.
const UNTOLD: Duration = Duration::from_secs(60);

/// One condition of one camera.
#[derive(Clone, Copy, Debug)]
pub struct Condition {
    patience: Patience,
    state: State,
    quiet_until: Duration,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Good,
    Bad { since: Duration },
    Told { good: Option<Duration> },
}

impl Condition {
    /// Good so far.
    pub fn new(patience: Patience) -> Self {
        Self { patience, state: State::Good, quiet_until: Duration::ZERO }
    }

    /// Told already, by an agent that ran here before.
    pub fn told(patience: Patience) -> Self {
        Self { state: State::Told { good: None }, ..Self::new(patience) }
    }

    /// What was to be told could not be: it is again after a while, if it lasts.
    pub fn untold(&mut self, now: Duration) {
        self.state = State::Bad { since: now.saturating_sub(self.patience.after) };
        self.quiet_until = now + UNTOLD;
    }

    /// Takes how it is now. While nobody wants to hear of it (`wanted`), it is not raised.
    pub fn look(&mut self, now: Duration, bad: bool, wanted: bool) -> Option<News> {
        let Patience { after, steady, cooldown } = self.patience;
        match (self.state, bad) {
            (State::Good, true) => {
                self.state = State::Bad { since: now };
                self.look(now, bad, wanted)
            }
            (State::Bad { since }, true) if wanted => {
                let due = now.saturating_sub(since) >= after && now >= self.quiet_until;
                due.then(|| {
                    self.state = State::Told { good: None };
                    News::Raised
                })
            }
            (State::Told { .. }, true) => {
                self.state = State::Told { good: None };
                None
            }
            (State::Told { good }, false) => {
                let since = good.unwrap_or(now);
                self.state = State::Told { good: Some(since) };
                (now.saturating_sub(since) >= steady).then(|| {
                    self.state = State::Good;
                    self.quiet_until = now + cooldown;
                    News::Over
                })
            }
            (State::Bad { .. }, true) => None,
            (State::Good | State::Bad { .. }, false) => {
                self.state = State::Good;
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience {
        after: Duration::from_secs(60),
        steady: Duration::from_secs(10),
        cooldown: Duration::from_secs(300),
    };

    /// Seconds in which it is bad; what is told, and when.
    fn check(mut condition: Condition, bad: &[(u64, u64)], wanted_from: u64, expected: &[(u64, News)]) {
        let mut told = Vec::new();
        for second in 0..1200 {
            let is_bad = bad.iter().any(|(from, to)| (*from..*to).contains(&second));
            let news = condition.look(Duration::from_secs(second), is_bad, second >= wanted_from);
            told.extend(news.map(|news| (second, news)));
        }
        assert_eq!(told, expected, "{bad:?}");
    }

    #[test]
    fn what_could_not_be_told_is_tried_again() {
        let (mut condition, seconds) = (Condition::new(PATIENCE), Duration::from_secs);
        let mut tried = Vec::new();
        for second in 0..300 {
            if condition.look(seconds(second), true, true) == Some(News::Raised) {
                tried.push(second);
                if tried.len() < 3 {
                    condition.untold(seconds(second));
                }
            }
        }
        assert_eq!(tried, [60, 120, 180]);
    }

    #[test]
    fn an_outage_is_told_once_and_over_when_it_is() {
        use News::{Over, Raised};
        let fresh = || Condition::new(PATIENCE);
        check(fresh(), &[], 0, &[]);
        check(fresh(), &[(5, 64)], 0, &[]);
        check(fresh(), &[(5, 500)], 0, &[(65, Raised), (510, Over)]);
        // Pictures that come for a moment end nothing.
        check(fresh(), &[(5, 200), (203, 400)], 0, &[(65, Raised), (410, Over)]);
        // Outages that are told of too soon after the last one are not told of, unless they last.
        check(fresh(), &[(5, 100), (150, 230)], 0, &[(65, Raised), (110, Over)]);
        check(fresh(), &[(5, 100), (150, 600)], 0, &[(65, Raised), (110, Over), (410, Raised), (610, Over)]);
        check(fresh(), &[(5, 500)], 300, &[(300, Raised), (510, Over)]);
        // An agent that starts again during an outage does not tell of it twice.
        check(Condition::told(PATIENCE), &[(0, 500)], 0, &[(510, Over)]);
        check(Condition::told(PATIENCE), &[], 0, &[(10, Over)]);
    }
}
