//! The newest time that is known, for what must be dated before the time service comes: certificates.
//!
//! A box without a clock of its own starts in 1970, in 2000, or far ahead, and its broker must be reached before, or
//! without, NTP. The time of the last start was written down while it was right; it is earlier than now, but certificates
//! live for months. What is compared with it is never older than the agent itself.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use sharp_eyes_protocol::alert::ClockTrust;

/// 2026-01-01: before the agent was written. Some packagers give every file the date 1970.
const WRITTEN: Timestamp = Timestamp::constant(1_767_225_600, 0);

/// The time is written down this often; flash wears out.
const INTERVAL: SignedDuration = SignedDuration::from_hours(1);

const YEAR: SignedDuration = SignedDuration::from_hours(24 * 365);

/// A file that was dated, or a time that was written down, further ahead than this came from a clock that was wrong.
const LIFE_YEARS: i32 = 20;

/// A wall clock that nobody vouches for is believed within this time after the newest time known.
const BELIEVED_YEARS: i32 = 10;

/// A clock that is behind the newest time known by less than this was corrected, or the newest was a little wrong.
const SLACK: SignedDuration = SignedDuration::from_mins(10);

/// The newest time known, and the file that keeps it over restarts.
#[derive(Clone, Debug)]
pub(super) struct Known {
    file: PathBuf,
    /// What the file holds.
    kept: Option<Timestamp>,
    newest: Timestamp,
}

impl Known {
    /// Reads the file `clock` in the folder. It is fine where there is none, or nonsense in it.
    pub(super) fn read(folder: &Path) -> Self {
        let file = folder.join("clock");
        let kept = fs::read_to_string(&file).ok().and_then(|text| text.trim().parse().ok());
        let installed = std::env::current_exe().and_then(|agent| fs::metadata(agent)?.modified());
        let installed = installed.ok().and_then(|time| Timestamp::try_from(time).ok());
        Self { file, kept, newest: newest([kept, installed]) }
    }

    pub(super) fn newest(&self) -> Timestamp {
        self.newest
    }

    /// The wall clock is right. It may be earlier than what was known: then that was wrong.
    pub(super) fn synced(&mut self, wall: Timestamp) {
        self.newest = wall;
    }

    /// Whether a time that is right is to be written down.
    pub(super) fn due(&self, wall: Timestamp) -> bool {
        self.kept.is_none_or(|kept| wall.duration_since(kept) >= INTERVAL || wall < kept)
    }

    /// Where it is to be written; it counts as done, so that a disk that is full is asked once an hour only.
    pub(super) fn keep(&mut self, wall: Timestamp) -> PathBuf {
        self.kept = Some(wall);
        self.file.clone()
    }
}

/// Writes a time down so that a power cut leaves the one before or this one.
pub(super) fn store(file: &Path, time: Timestamp) -> io::Result<()> {
    let fresh = file.with_extension("new");
    let mut writer = File::create(&fresh)?;
    writeln!(writer, "{time:.0}")?;
    writer.sync_all()?;
    fs::rename(&fresh, file)?;
    File::open(file.parent().unwrap_or(Path::new(".")))?.sync_all()
}

fn newest(found: impl IntoIterator<Item = Option<Timestamp>>) -> Timestamp {
    let credible = |time: &Timestamp| *time <= later(WRITTEN, LIFE_YEARS);
    found.into_iter().flatten().filter(credible).fold(WRITTEN, Ord::max)
}

/// The time that certificates are judged by.
pub(super) fn certificate_time(trust: ClockTrust, wall: Timestamp, newest: Timestamp) -> Timestamp {
    let believed = trust == ClockTrust::Synced || (newest..=later(newest, BELIEVED_YEARS)).contains(&wall);
    if believed { wall } else { newest }
}

/// Whether the wall clock cannot be right: nobody vouches for it, and it is before the newest time known or absurdly long after.
pub(super) fn is_wrong(trust: ClockTrust, wall: Timestamp, newest: Timestamp) -> bool {
    let earliest = newest.checked_sub(SLACK).unwrap_or(Timestamp::MIN);
    trust != ClockTrust::Synced && !(earliest..=later(newest, BELIEVED_YEARS)).contains(&wall)
}

/// For the text of a failure that hangs on the time.
pub(super) fn describe(trust: ClockTrust, wall: Timestamp, taken: Timestamp) -> String {
    let date = |time: Timestamp| time.to_zoned(TimeZone::UTC).date();
    let doubt = match trust {
        ClockTrust::Synced => "",
        ClockTrust::Unsynced => " and is not synchronised",
        ClockTrust::Stepped => " and has jumped",
    };
    let says = format!("this box's clock says {}{doubt}", date(wall));
    if taken == wall {
        return says;
    }
    format!("{says}; {}, the newest date known, was taken instead", date(taken))
}

fn later(time: Timestamp, years: i32) -> Timestamp {
    time.checked_add(YEAR * years).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        format!("{text}T06:30:00Z").parse().unwrap()
    }

    #[test]
    fn certificates_are_judged_by_the_clock_or_by_the_newest_time_known() {
        use ClockTrust::{Stepped, Synced, Unsynced};
        for (trust, wall, newest, taken) in [
            (Unsynced, "1970-01-01", "2026-11-24", "2026-11-24"),
            (Unsynced, "2000-01-01", "2026-11-24", "2026-11-24"),
            (Unsynced, "2026-11-23", "2026-11-24", "2026-11-24"),
            (Unsynced, "2026-11-24", "2026-11-24", "2026-11-24"),
            (Unsynced, "2026-12-24", "2026-11-24", "2026-12-24"),
            (Unsynced, "2036-11-01", "2026-11-24", "2036-11-01"),
            (Unsynced, "2037-01-01", "2026-11-24", "2026-11-24"),
            (Unsynced, "2099-01-01", "2026-11-24", "2026-11-24"),
            (Stepped, "2099-01-01", "2026-11-24", "2026-11-24"),
            (Stepped, "2027-01-01", "2026-11-24", "2027-01-01"),
            (Synced, "2026-11-24", "2026-11-24", "2026-11-24"),
            (Synced, "2020-01-01", "2026-11-24", "2020-01-01"),
            (Synced, "2099-01-01", "2026-11-24", "2099-01-01"),
        ] {
            assert_eq!(certificate_time(trust, at(wall), at(newest)), at(taken), "{trust:?} {wall}");
        }
    }

    #[test]
    fn a_clock_is_known_to_be_wrong_where_nobody_vouches_for_it_and_it_is_too_early_or_absurdly_late() {
        use ClockTrust::{Stepped, Synced, Unsynced};
        for (trust, wall, wrong) in [
            (Unsynced, "1970-01-01T06:30:00Z", true),
            (Unsynced, "2026-11-24T06:19:59Z", true),
            (Unsynced, "2026-11-24T06:20:00Z", false),
            (Stepped, "2026-11-23T06:30:00Z", true),
            (Stepped, "2026-11-24T06:29:57Z", false),
            (Unsynced, "2027-11-24T06:30:00Z", false),
            (Unsynced, "2099-01-01T06:30:00Z", true),
            (Synced, "1970-01-01T06:30:00Z", false),
            (Synced, "2099-01-01T06:30:00Z", false),
        ] {
            assert_eq!(is_wrong(trust, wall.parse().unwrap(), at("2026-11-24")), wrong, "{trust:?} {wall}");
        }
    }

    #[test]
    fn the_newest_time_known_is_never_before_the_agent_nor_far_after() {
        for (found, wanted) in [
            ([None, None], WRITTEN),
            ([Some(at("1970-01-01")), Some(at("1970-01-01"))], WRITTEN),
            ([Some(at("2027-03-01")), Some(at("2026-11-24"))], at("2027-03-01")),
            ([Some(at("2026-11-23")), Some(at("2026-11-24"))], at("2026-11-24")),
            ([Some(at("2099-01-01")), Some(at("2026-11-24"))], at("2026-11-24")),
            ([Some(at("2027-03-01")), Some(at("2099-01-01"))], at("2027-03-01")),
            ([Some(Timestamp::MAX), Some(Timestamp::MIN)], WRITTEN),
        ] {
            assert_eq!(newest(found), wanted);
        }
    }

    #[test]
    fn a_failure_says_what_the_clock_says() {
        for (trust, wall, taken, text) in [
            (ClockTrust::Synced, "2026-11-24", "2026-11-24", "this box's clock says 2026-11-24"),
            (
                ClockTrust::Stepped,
                "2026-11-24",
                "2026-11-24",
                "this box's clock says 2026-11-24 and has jumped",
            ),
            (
                ClockTrust::Unsynced,
                "2026-11-24",
                "2026-11-24",
                "this box's clock says 2026-11-24 and is not synchronised",
            ),
            (
                ClockTrust::Unsynced,
                "1970-01-01",
                "2026-11-24",
                "this box's clock says 1970-01-01 and is not synchronised; 2026-11-24, the newest date known, was taken \
                 instead",
            ),
        ] {
            assert_eq!(describe(trust, at(wall), at(taken)), text);
        }
    }

    #[test]
    fn the_time_is_written_once_an_hour_and_read_at_the_next_start() {
        let folder = tempfile::tempdir().unwrap();
        let mut known = Known::read(folder.path());
        let start = known.newest() + SignedDuration::from_hours(24); // the test program itself is younger than WRITTEN
        let minutes = |minutes| start + SignedDuration::from_mins(minutes);
        for (minute, due) in
            [(0, true), (1, false), (59, false), (60, true), (61, false), (-1, true), (0, false)]
        {
            assert_eq!(known.due(minutes(minute)), due, "at minute {minute}");
            if due {
                store(&known.keep(minutes(minute)), minutes(minute)).unwrap();
            }
        }
        let known = Known::read(folder.path());
        assert_eq!(known.newest().as_second(), minutes(-1).as_second());
        assert!(!known.due(minutes(30)), "a restart does not wear the disk");
        let files: Vec<_> =
            fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(files, ["clock"]);
        for nonsense in ["", "yesterday", "2099-01-01T00:00:00Z\n"] {
            fs::write(folder.path().join("clock"), nonsense).unwrap();
            assert!(Known::read(folder.path()).newest() < minutes(0), "{nonsense:?}");
        }
    }
}
