//! Whether the wall clock can be trusted, from one reading to the next, as a plain value.

use std::time::{Duration, Instant, SystemTime};

use jiff::{SignedDuration, Timestamp};
use sharp_eyes_protocol::alert::ClockTrust;

/// A wall clock that runs away from the monotonic one by more than this was set. Slewing stays far below it.
const STEP: Duration = Duration::from_secs(2);

/// What the clocks showed at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading {
    pub(super) wall: Timestamp,
    pub(super) monotonic: Instant,
    /// When the time service said last that it has set the clock; none where it has not.
    pub(super) synced: Option<SystemTime>,
}

/// The last reading, and what the ones before told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trust {
    last: Reading,
    steps: Steps,
}

/// The steps that still count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Steps {
    None,
    /// Before anyone said that the clock is right: it is how a time service sets it, or a person who may be wrong.
    Unsynced,
    /// After it was said to be right, last at this time. Nobody can tell which of both times was, so it counts until the time
    /// service has set the clock again. That it is there does not suffice: it is also when its server is not.
    Synced(SystemTime),
}

impl Trust {
    pub(super) fn new(first: Reading) -> Self {
        Self { last: first, steps: Steps::None }
    }

    /// Takes the next reading.
    pub(super) fn look(&mut self, now: Reading) -> ClockTrust {
        if self.stepped(&now) {
            self.steps = match (self.last.synced, self.steps) {
                (Some(said), _) | (None, Steps::Synced(said)) => Steps::Synced(said),
                (None, _) => Steps::Unsynced,
            };
        }
        if let Some(said) = now.synced
            && self.steps != Steps::Synced(said)
        {
            self.steps = Steps::None; // the time service has looked at it since
        }
        self.last = now;
        match (self.steps, now.synced.is_some()) {
            (Steps::None, true) => ClockTrust::Synced,
            (Steps::None, false) => ClockTrust::Unsynced,
            (Steps::Unsynced | Steps::Synced(_), _) => ClockTrust::Stepped,
        }
    }

    fn stepped(&self, now: &Reading) -> bool {
        let passed = SignedDuration::try_from(now.monotonic.saturating_duration_since(self.last.monotonic));
        let by = passed.map(|passed| now.wall.duration_since(self.last.wall).saturating_sub(passed));
        by.is_ok_and(|by| by.unsigned_abs() > STEP)
    }
}

#[cfg(test)]
mod tests {
    use ClockTrust::{Stepped, Synced, Unsynced};

    use super::*;

    /// Seconds on the wall clock and on the monotonic one, how often the time service has said that the clock is right (0: it
    /// does not say so), and what is to be thought of it. The first line is the first reading.
    type Row = (f64, f64, u64, ClockTrust);

    fn check(what: &str, rows: &[Row]) {
        let (wall, monotonic) = ("2026-11-24T00:00:00Z".parse::<Timestamp>().unwrap(), Instant::now());
        let reading = |&(wall_s, monotonic_s, synced, _): &Row| Reading {
            wall: wall + SignedDuration::from_secs_f64(wall_s),
            monotonic: monotonic + Duration::from_secs_f64(monotonic_s),
            synced: (synced > 0).then(|| SystemTime::UNIX_EPOCH + Duration::from_secs(synced)),
        };
        let mut trust = Trust::new(reading(&rows[0]));
        for row in rows {
            assert_eq!(trust.look(reading(row)), row.3, "{what}: at {} s", row.1);
        }
    }

    #[test]
    fn a_clock_is_trusted_as_far_as_its_history_allows() {
        let day = 86_400.0;
        check("never set", &[(0.0, 0.0, 0, Unsynced), (10.0, 10.0, 0, Unsynced)]);
        check("slewed", &[(0.0, 0.0, 1, Synced), (10.4, 10.0, 1, Synced), (21.0, 20.0, 1, Synced)]);
        check("synced without a step", &[(0.0, 0.0, 0, Unsynced), (10.0, 10.0, 1, Synced)]);
        check("what NTP does, seen at once", &[(0.0, 0.0, 0, Unsynced), (9e8, 10.0, 1, Synced)]);
        check(
            "what NTP does, seen in two",
            &[(0.0, 0.0, 0, Unsynced), (9e8, 10.0, 0, Stepped), (9e8 + 1.0, 11.0, 1, Synced)],
        );
        check(
            "set by hand, without a time service",
            &[(0.0, 0.0, 0, Unsynced), (day, 10.0, 0, Stepped), (day + 10.0, 20.0, 0, Stepped)],
        );
        check(
            "back a day while synced, and the service says nothing more",
            &[
                (0.0, 0.0, 1, Synced),
                (-day, 10.0, 1, Stepped),
                (-day + 10.0, 20.0, 1, Stepped),
                (30.0, 30.0, 1, Stepped),
            ],
        );
        check(
            "forward 30 years while synced, and the service gives up and comes back",
            &[
                (0.0, 0.0, 1, Synced),
                (9.5e8, 10.0, 0, Stepped),
                (9.5e8 + 10.0, 20.0, 0, Stepped),
                (30.0, 30.0, 2, Synced),
            ],
        );
        check(
            "corrected after an outage, and the service says so with the next reading",
            &[
                (0.0, 0.0, 1, Synced),
                (13.0, 10.0, 1, Stepped),
                (14.0, 11.0, 2, Synced),
                (24.0, 21.0, 2, Synced),
                (38.0, 31.0, 2, Stepped),
            ],
        );
        check(
            "corrected after an outage, seen at once",
            &[(0.0, 0.0, 1, Synced), (13.0, 10.0, 2, Synced), (23.0, 20.0, 2, Synced)],
        );
        check(
            "the service stops",
            &[(0.0, 0.0, 1, Synced), (10.0, 10.0, 0, Unsynced), (20.0, 20.0, 1, Synced)],
        );
        check("asked rarely", &[(0.0, 0.0, 1, Synced), (3601.5, 3600.0, 1, Synced)]);
    }
}
