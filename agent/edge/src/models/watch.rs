//! Whether the active model keeps what its trial promised, from one reading to the next, as a plain value.

use std::time::Duration;

/// A model that fails at more than one frame in this many is taken back.
const FAILURES_ONE_IN: u64 = 20;

/// So many frames have to be looked at before anything is said of failures or latency, and before a model is kept.
const FRAMES_MIN: u64 = 20;

/// Frames of one camera that fail without one in between that does not: a second of it.
const FAILURES_MAX: u64 = 5;

/// It may take so many times its budget, or what the model before took: on a busy box a median is no mean.
const LATENCY_SLACK: f64 = 2.0;

/// It may raise so many times the alerts that the model before did...
const ALERTS_SLACK: f64 = 5.0;

/// ...and so many more, in the time that it is watched.
const ALERTS_MORE: f64 = 10.0;

/// What is counted, since any fixed start.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Reading {
    /// The time.
    pub at: Duration,
    /// Frames looked at.
    pub inferences: u64,
    /// Time that this took.
    pub busy: Duration,
    /// Frames that could not be looked at.
    pub failures: u64,
    /// Frames of one camera, the worst, that could not be looked at just now, without one in between that could.
    pub in_a_row: u64,
    /// Alerts raised.
    pub alerts: u64,
}

/// A model that is watched.
#[derive(Clone, Copy, Debug)]
pub struct Watch {
    start: Reading,
    /// Since the agent started until the model was switched to; nothing if it started with it.
    before: Reading,
    budget: Duration,
    time: Duration,
}

/// What is to be done with it.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Nothing yet.
    Watched,
    /// It stays.
    Kept,
    /// It goes, and why.
    RolledBack(String),
}

impl Watch {
    /// `before` is what the model before did, from zero on.
    pub fn new(start: Reading, before: Reading, budget: Duration, time: Duration) -> Self {
        Self { start, before, budget, time }
    }

    /// Takes the next reading.
    pub fn look(&self, now: &Reading) -> Verdict {
        let seconds = now.at.saturating_sub(self.start.at).as_secs_f64();
        let frames = now.inferences - self.start.inferences;
        let failures = now.failures - self.start.failures;
        let alerts = now.alerts - self.start.alerts;
        let enough = frames >= FRAMES_MIN;
        let in_a_row = now.in_a_row.min(failures);
        if in_a_row >= FAILURES_MAX
            || enough && failures >= FAILURES_MAX && failures * FAILURES_ONE_IN > frames
        {
            let all = frames + failures;
            return Verdict::RolledBack(format!("{failures} of {all} frames could not be analysed"));
        }
        let mean = |busy: Duration, frames: u64| busy.as_secs_f64() * 1000.0 / frames.max(1) as f64;
        let latency = mean(now.busy.saturating_sub(self.start.busy), frames);
        let usual = mean(self.before.busy, self.before.inferences);
        let limit = LATENCY_SLACK * usual.max(self.budget.as_secs_f64() * 1000.0);
        if enough && latency > limit {
            return Verdict::RolledBack(format!(
                "an inference takes {latency:.1} ms on average; {limit:.1} ms are the limit"
            ));
        }
        let an_hour = self.before.alerts as f64 * 3600.0 / self.before.at.as_secs_f64().max(1.0);
        let allowed = ALERTS_MORE + ALERTS_SLACK * an_hour * seconds / 3600.0;
        // What was seen for a shorter time than this one is watched says little of what is usual here.
        if self.before.at >= self.time && alerts as f64 > allowed {
            return Verdict::RolledBack(format!(
                "{alerts} alerts in {seconds:.0} s; the model before raised {an_hour:.1} an hour"
            ));
        }
        if seconds >= self.time.as_secs_f64() && enough { Verdict::Kept } else { Verdict::Watched }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(seconds: u64, inferences: u64, busy_ms: u64, failures: u64, alerts: u64) -> Reading {
        let (at, busy) = (Duration::from_secs(seconds), Duration::from_millis(busy_ms));
        Reading { at, inferences, busy, failures, in_a_row: 0, alerts }
    }

    #[test]
    fn a_model_is_kept_or_taken_back_by_what_it_does() {
        // The model before: an hour, 25 ms an inference, 6 alerts an hour.
        let before = reading(3600, 18_000, 450_000, 3, 6);
        let watch = Watch::new(before, before, Duration::from_millis(40), Duration::from_secs(600));
        let later = |seconds: u64, frames: u64, ms: u64, failures: u64, alerts: u64| {
            reading(3600 + seconds, 18_000 + frames, 450_000 + frames * ms, 3 + failures, 6 + alerts)
        };
        for (now, said) in [
            (later(1, 1, 500, 0, 0), "watched"), // the first inference warms up
            (later(599, 3000, 25, 0, 1), "watched"),
            (later(600, 3000, 25, 0, 1), "kept"),
            (later(600, 3000, 79, 9, 14), "kept"),
            (later(90_000, 5, 25, 0, 0), "watched"), // all cameras sleep
            (later(10, 0, 0, 4, 0), "watched"),
            (Reading { in_a_row: 4, ..later(10, 0, 0, 4, 0) }, "watched"),
            (Reading { in_a_row: 9, ..later(10, 0, 0, 4, 0) }, "watched"), // most of them before it looked
            (Reading { in_a_row: 5, ..later(10, 0, 0, 5, 0) }, "5 of 5 frames could not be analysed"),
            (Reading { in_a_row: 5, ..later(60, 300, 25, 5, 0) }, "5 of 305 frames"), // one camera of several
            (later(10, 50, 25, 5, 0), "5 of 55 frames"),
            (later(10, 50, 81, 0, 0), "81.0 ms on average; 80.0 ms"),
            (later(60, 300, 25, 0, 11), "11 alerts in 60 s; the model before raised 6.0 an hour"),
        ] {
            let verdict = match watch.look(&now) {
                Verdict::Watched => "watched".to_owned(),
                Verdict::Kept => "kept".to_owned(),
                Verdict::RolledBack(why) => why,
            };
            assert!(verdict.starts_with(said) || verdict.contains(said), "{now:?}: {verdict} is not {said}");
        }
    }
}
