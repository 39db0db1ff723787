//! The box's clocks: what they show, how far the wall clock can be trusted, and what places a moment without it.
//!
//! # Layout
//!
//! - [`Clock`] reads them. It is the only part of the agent that asks what time it is.
//! - `trust` judges one reading after the other, as a plain value.
//! - `boot` is the kernel's boot id and the time since then: they place a moment when the wall clock was wrong.
//!
//! # Who says that the clock is right
//!
//! systemd-timesyncd, by a file that it touches after it has set the clock. The kernel knows it too, whatever set the
//! clock (`adjtimex`, `STA_UNSYNC`), but asking takes `unsafe` or a crate, and none that is small and well kept has the
//! question (clock-steering 0.2 sets only, rustix 1 and nix 0.31 have no call). The unit of the agent would get no answer
//! either: `ProtectClock=` denies the call even to those who only read (systemd's issue 26413). A box with chrony or
//! ntpd says it in the same way, with a line in the unit that waits for them, for example in a drop-in for
//! `chrony-wait.service`: `ExecStartPost=/usr/bin/install -D /dev/null /run/systemd/timesync/synchronized`.

mod boot;
mod trust;

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use sharp_eyes_protocol::alert::ClockTrust;
use sharp_eyes_vision::Moment;

use boot::Boot;
use trust::{Reading, Trust};

/// Where systemd-timesyncd says that it has set the clock. Gone with the next start of the box.
const SYNCHRONISED: &str = "/run/systemd/timesync/synchronized";

/// Two clocks that were read within this time were read at the same moment.
const AT_ONCE: Duration = Duration::from_millis(100);

/// Reads both clocks.
#[derive(Debug)]
pub struct Clock {
    started: Instant,
    boot: Boot,
    synchronised: PathBuf,
    trust: Mutex<Trust>,
}

impl Clock {
    /// Starts to watch the wall clock for steps.
    pub fn start() -> Self {
        Self::watch(PathBuf::from(SYNCHRONISED))
    }

    fn watch(synchronised: PathBuf) -> Self {
        let started = Instant::now();
        let trust = Mutex::new(Trust::new(read(&synchronised)));
        Self { started, boot: Boot::read(started), synchronised, trust }
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

    /// The start of the box that [`Clock::since_boot`] counts from: 8 hexadecimal digits, another at each start.
    pub fn boot(&self) -> &str {
        self.boot.id()
    }

    /// From the start of the box to a moment. The wall clock has no part in it.
    pub fn since_boot(&self, instant: Instant) -> Duration {
        self.boot.since(instant)
    }

    /// How far the wall clock can be trusted now. To be asked every few seconds: a step is what lies between two questions.
    pub fn trust(&self) -> ClockTrust {
        let mut trust = self.trust.lock().unwrap_or_else(PoisonError::into_inner);
        trust.look(read(&self.synchronised))
    }
}

/// The file is read first: whoever touches it has set the clock before, and a reading must never be `synced` with the
/// time of before.
fn read(synchronised: &std::path::Path) -> Reading {
    let synced = synchronised.exists();
    loop {
        let monotonic = Instant::now();
        let wall = Timestamp::now();
        // A process that was stopped between the two would see a step where there was none.
        if monotonic.elapsed() < AT_ONCE {
            return Reading { wall, monotonic, synced };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_of_the_time_service_says_that_the_clock_is_right() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("synchronized");
        let clock = Clock::watch(file.clone());
        assert_eq!(clock.trust(), ClockTrust::Unsynced);
        std::fs::write(file, "").unwrap();
        assert_eq!(clock.trust(), ClockTrust::Synced);
    }

    #[test]
    fn a_moment_is_placed_by_both_clocks_and_by_the_start_of_the_box() {
        let clock = Clock::start();
        let earlier = Instant::now();
        let (then, now) = (clock.at(earlier), clock.at(Instant::now()));
        assert!(then.wall <= now.wall && then.monotonic <= now.monotonic);
        assert!(clock.since_boot(earlier) >= then.monotonic);
        assert_eq!(clock.boot().len(), 8);
    }
}
