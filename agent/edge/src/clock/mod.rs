//! The box's clocks: what they show, how far the wall clock can be trusted, and what places a moment without it.
//!
//! # Layout
//!
//! - [`Clock`] reads them. It is the only part of the agent that asks what time it is.
//! - `trust` judges one reading after the other, as a plain value.
//! - `boot` is the kernel's boot id and the time since then: they place a moment when the wall clock was wrong.
//! - `known` is the newest time known, kept over restarts: certificates are judged by it while the wall clock is wrong.
//!
//! # Who says that the clock is right
//!
//! systemd-timesyncd, by a file that it touches after it has set the clock. The kernel knows it too, whatever set the
//! clock (`adjtimex`, `STA_UNSYNC`), but asking takes `unsafe` or a crate, and none that is small and well kept has the
//! question (clock-steering 0.2 sets only, rustix 1 and nix 0.31 have no call). The unit of the agent would get no answer
//! either: `ProtectClock=` denies the call even to those who only read (systemd's issue 26413). A box with chrony or
//! ntpd says it in the same way, once, with a line in the unit that waits for them, for example in a drop-in for
//! `chrony-wait.service`: `ExecStartPost=/usr/bin/install -D /dev/null /run/systemd/timesync/synchronized`. A step after that
//! counts until the agent's next start there; timesyncd touches the file again whenever it has set the clock.

mod boot;
mod known;
mod trust;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use sharp_eyes_protocol::alert::ClockTrust;
use sharp_eyes_vision::Moment;
use tokio_util::sync::CancellationToken;

use boot::Boot;
use known::Known;
use trust::{Reading, Trust};

/// Where systemd-timesyncd says that it has set the clock. Gone with the next start of the box.
const SYNCHRONISED: &str = "/run/systemd/timesync/synchronized";

/// How often [`Clock::keep`] looks whether there is something to write.
const REST: Duration = Duration::from_secs(60);

/// Two clocks that were read within this time were read at the same moment.
const AT_ONCE: Duration = Duration::from_millis(100);

/// Reads both clocks.
#[derive(Debug)]
pub struct Clock {
    started: Instant,
    boot: Boot,
    synchronised: PathBuf,
    state: Mutex<State>,
}

/// What readings have told.
#[derive(Debug)]
struct State {
    trust: Trust,
    known: Known,
    /// Whether the wall clock cannot be right.
    wrong: bool,
}

impl Clock {
    /// Starts to watch the wall clock for steps. The newest time known is kept in `folder`, which need not be there yet.
    pub fn start(folder: &Path) -> Self {
        Self::watch(folder, PathBuf::from(SYNCHRONISED))
    }

    fn watch(folder: &Path, synchronised: PathBuf) -> Self {
        let started = Instant::now();
        let state =
            State { trust: Trust::new(read(&synchronised)), known: Known::read(folder), wrong: false };
        Self { started, boot: Boot::read(started), synchronised, state: Mutex::new(state) }
    }

    /// Since [`Clock::start`].
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// What both clocks showed, or would have shown, at a moment in the past, and how far the wall clock can be trusted: both of
    /// one reading, as in [`Clock::now`].
    pub fn at(&self, instant: Instant) -> Moment {
        let (state, Reading { wall, monotonic, .. }, clock) = self.look();
        let age = SignedDuration::try_from(monotonic.saturating_duration_since(instant)).unwrap_or_default();
        Moment {
            monotonic: instant.saturating_duration_since(self.started),
            wall: wall.checked_sub(age).unwrap_or(wall),
            clock,
            wrong: state.wrong,
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

    /// What the wall clock shows, and how far it can be trusted: both of one moment, so that no time from before the time
    /// service set the clock is called synced. To be asked every few seconds: a step is what lies between two questions.
    pub fn now(&self) -> (Timestamp, ClockTrust) {
        let (_state, reading, trust) = self.look();
        (reading.wall, trust)
    }

    /// The time that certificates are judged by: the wall clock's where it is synchronised or at least credible, else the
    /// newest time known.
    pub fn certificate_time(&self) -> Timestamp {
        let (state, reading, trust) = self.look();
        known::certificate_time(trust, reading.wall, state.known.newest())
    }

    /// What the wall clock says, and whether it can be believed, for the text of a failure that hangs on the time.
    pub fn describe(&self) -> String {
        let (state, reading, trust) = self.look();
        let taken = known::certificate_time(trust, reading.wall, state.known.newest());
        known::describe(trust, reading.wall, taken)
    }

    /// Writes the time down until `shutdown`, once an hour and at the end, while it is right.
    pub async fn keep(self: Arc<Self>, shutdown: CancellationToken) {
        loop {
            let end = tokio::select! {
                () = tokio::time::sleep(REST) => false,
                () = shutdown.cancelled() => true,
            };
            let clock = self.clone();
            if let Err(error) = tokio::task::spawn_blocking(move || clock.write(end)).await {
                tracing::error!("the time cannot be written down: {error}");
            }
            if end {
                return;
            }
        }
    }

    /// `now`: however long ago the last time was.
    fn write(&self, now: bool) {
        let (file, time) = {
            let (mut state, reading, trust) = self.look();
            if trust != ClockTrust::Synced || !(now || state.known.due(reading.wall)) {
                return;
            }
            (state.known.keep(reading.wall), reading.wall)
        };
        if let Err(error) = known::store(&file, time) {
            tracing::warn!("cannot write the time to {}: {error}", file.display());
        }
    }

    fn look(&self) -> (MutexGuard<'_, State>, Reading, ClockTrust) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let reading = read(&self.synchronised);
        let trust = state.trust.look(reading);
        if trust == ClockTrust::Synced {
            state.known.synced(reading.wall);
        }
        let wrong = known::is_wrong(trust, reading.wall, state.known.newest());
        if std::mem::replace(&mut state.wrong, wrong) != wrong {
            let clock = reading.wall;
            match wrong {
                true => tracing::warn!(%clock, "the clock is wrong: until it is right, every schedule is on"),
                false => tracing::info!(%clock, "the clock may be right: schedules count again"),
            }
        }
        (state, reading, trust)
    }
}

/// The file is read first: whoever touches it has set the clock before, and a reading must never be `synced` with the
/// time of before.
fn read(synchronised: &Path) -> Reading {
    let synced = fs::metadata(synchronised).and_then(|file| file.modified()).ok();
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
    use jiff::tz::TimeZone;
    use sharp_eyes_vision::Schedule;

    use super::*;

    #[test]
    fn the_file_of_the_time_service_says_that_the_clock_is_right() {
        let folder = tempfile::tempdir().unwrap();
        let (file, kept) = (folder.path().join("synchronized"), folder.path().join("clock"));
        let clock = Clock::watch(folder.path(), file.clone());
        assert_eq!(clock.now().1, ClockTrust::Unsynced);
        clock.write(true);
        assert!(!kept.exists(), "a time that may be wrong is not written down");
        assert!(clock.describe().ends_with("and is not synchronised"), "{}", clock.describe());
        fs::write(file, "").unwrap();
        assert_eq!(clock.now().1, ClockTrust::Synced);
        clock.write(false);
        let time: Timestamp = fs::read_to_string(&kept).unwrap().trim().parse().unwrap();
        assert!(Timestamp::now().duration_since(time) < SignedDuration::from_mins(1));
        fs::remove_file(&kept).unwrap();
        clock.write(false);
        assert!(!kept.exists(), "once an hour");
        clock.write(true);
        assert!(kept.exists(), "and at the end");
    }

    #[test]
    fn a_moment_of_a_clock_that_cannot_be_right_is_marked_until_the_time_service_vouches_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("synchronized");
        let ahead = Timestamp::now() + SignedDuration::from_hours(24);
        fs::write(folder.path().join("clock"), ahead.to_string()).unwrap();
        let clock = Clock::watch(folder.path(), file.clone());
        let half_days = ["daily 00:00-12:00", "daily 12:00-24:00"];
        let on = |now: Moment| {
            let is_on = |text: &&str| text.parse::<Schedule>().unwrap().is_on(now, &TimeZone::UTC);
            half_days.iter().filter(|text| is_on(text)).count()
        };
        let arrived = Instant::now();
        let before = clock.at(arrived);
        assert!(before.wrong && before.clock == ClockTrust::Unsynced, "a day before what was known");
        assert_eq!(on(before), 2);
        fs::write(file, "").unwrap();
        let after = clock.at(arrived);
        assert!(!after.wrong && after.clock == ClockTrust::Synced);
        assert_eq!(on(after), 1);
    }

    #[tokio::test]
    async fn the_time_is_written_down_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("synchronized");
        fs::write(&file, "").unwrap();
        let shutdown = CancellationToken::new();
        let keeper = tokio::spawn(Arc::new(Clock::watch(folder.path(), file)).keep(shutdown.clone()));
        shutdown.cancel();
        keeper.await.unwrap();
        assert!(folder.path().join("clock").exists());
    }

    #[test]
    fn a_moment_is_placed_by_both_clocks_and_by_the_start_of_the_box() {
        let clock = Clock::start(Path::new("/nonexistent"));
        let earlier = Instant::now();
        let (then, now) = (clock.at(earlier), clock.at(Instant::now()));
        assert!(then.wall <= now.wall && then.monotonic <= now.monotonic);
        assert!(clock.since_boot(earlier) >= then.monotonic);
        assert_eq!(clock.boot().len(), 8);
    }
}
