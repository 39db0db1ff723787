//! When a rule is awake.

use std::str::FromStr;

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Times of the week.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {}

impl Schedule {
    /// Whether a moment lies inside, by the wall clock of the site.
    pub fn contains(&self, _wall: Timestamp, _zone: &TimeZone) -> bool {
        todo!()
    }
}

impl FromStr for Schedule {
    type Err = ScheduleError;

    fn from_str(_text: &str) -> Result<Self, ScheduleError> {
        todo!()
    }
}

/// The text is no [`Schedule`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{text:?} is no schedule")]
pub struct ScheduleError {
    text: String,
}
