//! The box's wall clock, and how far it can be trusted.

use std::path::Path;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use sharp_eyes_protocol::alert::ClockTrust;
use sharp_eyes_vision::Moment;

/// Where systemd-timesyncd says that it has set the clock. Readable without a system call of our own, which
/// would need `unsafe`; a box that runs another time service says `unsynced`.
const SYNCHRONISED: &str = "/run/systemd/timesync/synchronized";

/// A wall clock that runs away from the monotonic one by more than this was set. Slewing stays far below it.
const STEP: Duration = Duration::from_secs(2);

/// Reads both clocks.
#[derive(Debug)]
pub struct Clock {
    started: Instant,
    last: Mutex<Reading>,
}

#[derive(Clone, Copy, Debug)]
struct Reading {
    wall: Timestamp,
    monotonic: Instant,
    stepped: bool,
}

impl Clock {
    /// Starts to watch the wall clock for steps.
    pub fn start() -> Self {
        let now = Instant::now();
        let last = Reading { wall: Timestamp::now(), monotonic: now, stepped: false };
        Self { started: now, last: Mutex::new(last) }
    }

    /// Since [`Clock::start`].
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// What both clocks showed, or would have shown, at a moment in the past.
    pub fn at(&self, instant: Instant) -> Moment {
        let wall = Timestamp::now();
        let age = jiff::SignedDuration::try_from(instant.elapsed()).unwrap_or(jiff::SignedDuration::ZERO);
        Moment {
            monotonic: instant.saturating_duration_since(self.started),
            wall: wall.checked_sub(age).unwrap_or(wall),
        }
    }

    /// How far the wall clock can be trusted now.
    pub fn trust(&self) -> ClockTrust {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.look(Timestamp::now(), Instant::now());
        if last.stepped {
            ClockTrust::Stepped
        } else if Path::new(SYNCHRONISED).exists() {
            ClockTrust::Synced
        } else {
            ClockTrust::Unsynced
        }
    }
}

impl Reading {
    fn look(&mut self, wall: Timestamp, monotonic: Instant) {
        let passed = jiff::SignedDuration::try_from(monotonic.saturating_duration_since(self.monotonic));
        let drift = passed.map(|passed| wall.duration_since(self.wall).saturating_sub(passed).unsigned_abs());
        self.stepped |= drift.is_ok_and(|drift| drift > STEP);
        (self.wall, self.monotonic) = (wall, monotonic);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_seen_and_remembered_and_slewing_is_none() {
        let (wall, monotonic) = (Timestamp::now(), Instant::now());
        // seconds on the wall clock and on the monotonic one, whether a step has been seen by then
        for rows in [
            &[(10.0, 10.0, false), (20.5, 20.0, false), (31.0, 30.0, false)][..],
            &[(10.0, 10.0, false), (-86_400.0, 20.0, true), (-86_390.0, 30.0, true)],
            &[(9e8, 10.0, true)],
        ] {
            let mut reading = Reading { wall, monotonic, stepped: false };
            for (wall_s, monotonic_s, stepped) in rows {
                let wall = wall + jiff::SignedDuration::from_secs_f64(*wall_s);
                reading.look(wall, monotonic + Duration::from_secs_f64(*monotonic_s));
                assert_eq!(reading.stepped, *stepped, "{rows:?} at {monotonic_s}");
            }
        }
    }
}
