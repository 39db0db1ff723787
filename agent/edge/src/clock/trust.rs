//! Whether the wall clock can be trusted, from one reading to the next, as a plain value.

use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use sharp_eyes_protocol::alert::ClockTrust;

/// A wall clock that runs away from the monotonic one by more than this was set. Slewing stays far below it.
const STEP: Duration = Duration::from_secs(2);

/// What the clocks showed at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading {
    pub(super) wall: Timestamp,
    pub(super) monotonic: Instant,
    /// Whether the time service says that it has set the clock.
    pub(super) synced: bool,
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
    /// After it was said to be right. Nobody can tell which of both times was, so it counts until the agent's next start.
    Synced,
}

impl Trust {
    pub(super) fn new(first: Reading) -> Self {
        Self { last: first, steps: Steps::None }
    }

    /// Takes the next reading.
    pub(super) fn look(&mut self, now: Reading) -> ClockTrust {
        if self.stepped(&now) {
            self.steps =
                if self.last.synced || self.steps == Steps::Synced { Steps::Synced } else { Steps::Unsynced };
        }
        if now.synced && self.steps == Steps::Unsynced {
            self.steps = Steps::None; // the time service has looked at it since
        }
        self.last = now;
        match (self.steps, now.synced) {
            (Steps::None, true) => ClockTrust::Synced,
            (Steps::None, false) => ClockTrust::Unsynced,
            (Steps::Unsynced | Steps::Synced, _) => ClockTrust::Stepped,
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

    /// Seconds on the wall clock and on the monotonic one, whether the time service says that the clock is right, and
    /// what is to be thought of it. The first line is the first reading.
    type Row = (f64, f64, bool, ClockTrust);

    fn check(what: &str, rows: &[Row]) {
        let (wall, monotonic) = ("2026-11-24T00:00:00Z".parse::<Timestamp>().unwrap(), Instant::now());
        let reading = |&(wall_s, monotonic_s, synced, _): &Row| Reading {
            wall: wall + SignedDuration::from_secs_f64(wall_s),
            monotonic: monotonic + Duration::from_secs_f64(monotonic_s),
            synced,
        };
        let mut trust = Trust::new(reading(&rows[0]));
        for row in rows {
            assert_eq!(trust.look(reading(row)), row.3, "{what}: at {} s", row.1);
        }
    }

    #[test]
    fn a_clock_is_trusted_as_far_as_its_history_allows() {
        let day = 86_400.0;
        check("never set", &[(0.0, 0.0, false, Unsynced), (10.0, 10.0, false, Unsynced)]);
        check("slewed", &[(0.0, 0.0, true, Synced), (10.4, 10.0, true, Synced), (21.0, 20.0, true, Synced)]);
        check("synced without a step", &[(0.0, 0.0, false, Unsynced), (10.0, 10.0, true, Synced)]);
        check("what NTP does, seen at once", &[(0.0, 0.0, false, Unsynced), (9e8, 10.0, true, Synced)]);
        check(
            "what NTP does, seen in two",
            &[(0.0, 0.0, false, Unsynced), (9e8, 10.0, false, Stepped), (9e8 + 1.0, 11.0, true, Synced)],
        );
        check(
            "set by hand, without a time service",
            &[(0.0, 0.0, false, Unsynced), (day, 10.0, false, Stepped), (day + 10.0, 20.0, false, Stepped)],
        );
        check(
            "back a day while synced: until the next start",
            &[
                (0.0, 0.0, true, Synced),
                (-day, 10.0, true, Stepped),
                (-day + 10.0, 20.0, true, Stepped),
                (30.0, 30.0, true, Stepped),
            ],
        );
        check(
            "forward 30 years while synced, and the service gives up and comes back",
            &[
                (0.0, 0.0, true, Synced),
                (9.5e8, 10.0, false, Stepped),
                (9.5e8 + 10.0, 20.0, false, Stepped),
                (30.0, 30.0, true, Stepped),
            ],
        );
        check(
            "the service stops",
            &[(0.0, 0.0, true, Synced), (10.0, 10.0, false, Unsynced), (20.0, 20.0, true, Synced)],
        );
        check("asked rarely", &[(0.0, 0.0, true, Synced), (3601.5, 3600.0, true, Synced)]);
    }
}
