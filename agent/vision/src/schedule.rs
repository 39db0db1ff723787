//! When a rule is awake.

use std::str::FromStr;

use jiff::Timestamp;
use jiff::civil::Weekday;
use jiff::tz::TimeZone;

use crate::Moment;

/// Times of the week, written as `always`, `daily 19:00-07:00` or `mon-fri 08:00-18:00; sat,sun 09:00-12:00`.
///
/// A span that ends before it begins goes over midnight and belongs to the day on which it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule(Vec<Span>);

/// Some days, from one minute of the day up to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    /// Bit 0 is Monday.
    days: u8,
    from: u16,
    to: u16,
}

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const EVERY_DAY: u8 = 0b111_1111;
const DAY_MINUTES: u16 = 24 * 60;

impl Schedule {
    /// At any time.
    pub fn always() -> Self {
        Self(vec![Span { days: EVERY_DAY, from: 0, to: DAY_MINUTES }])
    }

    /// Whether it is on at a moment. While the wall clock is known to be wrong every schedule is: an alert too many is better
    /// than a night that nobody watches.
    pub fn is_on(&self, now: Moment, zone: &TimeZone) -> bool {
        now.wrong || self.contains(now.wall, zone)
    }

    /// Whether a moment lies inside, by the wall clock of the site: what the clock shows decides, also in the
    /// hour that a change to or from summer time skips or repeats.
    fn contains(&self, wall: Timestamp, zone: &TimeZone) -> bool {
        let local = zone.to_datetime(wall);
        let minute = local.hour() as u16 * 60 + local.minute() as u16;
        let (today, yesterday) = (bit(local.weekday()), bit(local.weekday().previous()));
        self.0.iter().any(|&Span { days, from, to }| {
            if from < to {
                days & today != 0 && (from..to).contains(&minute)
            } else {
                (days & today != 0 && minute >= from) || (days & yesterday != 0 && minute < to)
            }
        })
    }
}

fn bit(day: Weekday) -> u8 {
    1 << day.to_monday_zero_offset()
}

impl FromStr for Schedule {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Self, ScheduleError> {
        if text.trim() == "always" {
            return Ok(Self::always());
        }
        text.split(';')
            .map(|span| parse_span(span.trim()))
            .collect::<Result<_, _>>()
            .map(Self)
            .map_err(|problem| ScheduleError { text: text.to_owned(), problem })
    }
}

fn parse_span(text: &str) -> Result<Span, String> {
    let (days, hours) =
        text.split_once(char::is_whitespace).ok_or_else(|| format!("{text:?} lacks days or times"))?;
    let (from, to) = hours.trim().split_once('-').ok_or_else(|| format!("{hours:?} is no span of time"))?;
    let (from, to) = (parse_minute(from)?, parse_minute(to)?);
    if from == to || from == DAY_MINUTES {
        return Err(format!("{:?} is empty; the whole day is 00:00-24:00", hours.trim()));
    }
    Ok(Span { days: parse_days(days)?, from, to })
}

fn parse_minute(text: &str) -> Result<u16, String> {
    let wrong = || format!("{text:?} is no time of day");
    let two_digits = |part: &str| {
        (part.len() == 2 && part.bytes().all(|b| b.is_ascii_digit()))
            .then(|| part.parse::<u16>().ok())
            .flatten()
    };
    let (hour, minute) = text.trim().split_once(':').ok_or_else(wrong)?;
    match (two_digits(hour), two_digits(minute)) {
        (Some(hour @ 0..=23), Some(minute @ 0..=59)) => Ok(hour * 60 + minute),
        (Some(24), Some(0)) => Ok(DAY_MINUTES),
        _ => Err(wrong()),
    }
}

fn parse_days(text: &str) -> Result<u8, String> {
    if text == "daily" {
        return Ok(EVERY_DAY);
    }
    let day = |name: &str| {
        DAYS.iter()
            .position(|day| *day == name)
            .ok_or_else(|| format!("{name:?} is no day; days are {}", DAYS.join(", ")))
    };
    text.split(',').try_fold(0, |days, part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (day(first)?, day(last)?);
        let length = (last + 7 - first) % 7; // "sat-mon" goes over the week's end
        Ok((0..=length).fold(days, |days, step| days | 1 << ((first + step) % 7)))
    })
}

/// The text is no [`Schedule`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "{text:?} is no schedule: {problem}; write \"always\", \"daily 19:00-07:00\" or \"mon-fri 08:00-18:00; sat,sun 09:00-12:00\""
)]
pub struct ScheduleError {
    text: String,
    problem: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(schedule: &str, zone: &str, moments: &str) {
        let parsed: Schedule = schedule.parse().unwrap();
        let zone = TimeZone::get(zone).unwrap();
        for line in moments.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (moment, expected) = line.split_once(' ').unwrap();
            let found = if parsed.contains(moment.parse().unwrap(), &zone) { "in" } else { "out" };
            assert_eq!(found, expected.trim(), "{schedule} at {moment}");
        }
    }

    #[test]
    fn a_schedule_is_judged_by_the_wall_clock_of_the_site() {
        // 2026-11-23 is a Monday; Shanghai is 8 hours ahead all year.
        check("always", "Asia/Shanghai", "2026-11-23T12:00:00Z in");
        check(
            "mon-fri 08:00-18:00",
            "Asia/Shanghai",
            "2026-11-23T07:59:59+08:00 out
             2026-11-23T08:00:00+08:00 in
             2026-11-23T17:59:59+08:00 in
             2026-11-23T18:00:00+08:00 out
             2026-11-22T10:00:00+08:00 out
             2026-11-22T23:00:00Z out
             2026-11-23T00:00:00Z in",
        );
        check(
            "sat-mon 00:00-24:00",
            "UTC",
            "2026-11-20T23:59:59Z out
             2026-11-21T00:00:00Z in
             2026-11-23T23:59:59Z in
             2026-11-24T00:00:00Z out",
        );
        check(
            "mon,wed 08:00-09:00; tue 10:00-11:00",
            "UTC",
            "2026-11-23T08:30:00Z in
             2026-11-24T08:30:00Z out
             2026-11-24T10:30:00Z in
             2026-11-25T08:30:00Z in",
        );
    }

    #[test]
    fn a_span_over_midnight_belongs_to_the_day_on_which_it_begins() {
        check(
            "daily 19:00-07:00",
            "Asia/Shanghai",
            "2026-11-23T18:59:59+08:00 out
             2026-11-23T19:00:00+08:00 in
             2026-11-24T06:59:59+08:00 in
             2026-11-24T07:00:00+08:00 out",
        );
        check(
            "fri 22:00-06:00",
            "UTC",
            "2026-11-27T05:00:00Z out
             2026-11-27T22:00:00Z in
             2026-11-28T05:59:59Z in
             2026-11-28T22:00:00Z out",
        );
        check("sun 22:00-06:00", "UTC", "2026-11-30T01:00:00Z in");
    }

    #[test]
    fn summer_time_moves_the_span_with_the_wall_clock() {
        // Berlin goes from +01 to +02 on 2026-03-29 at 02:00, and back on 2026-10-25 at 03:00.
        check(
            "daily 02:30-04:00",
            "Europe/Berlin",
            "2026-03-29T00:59:59Z out
             2026-03-29T01:00:00Z in
             2026-03-29T02:00:00Z out
             2026-10-25T00:30:00Z in
             2026-10-25T01:00:00Z out
             2026-10-25T01:30:00Z in
             2026-10-25T02:59:59Z in
             2026-10-25T03:00:00Z out",
        );
    }

    #[test]
    fn an_error_says_what_is_wrong_and_what_would_be_right() {
        for (text, problem) in [
            ("", r#""" lacks days or times"#),
            ("19:00-07:00", r#""19:00-07:00" lacks days or times"#),
            ("nightly 19:00-07:00", r#""nightly" is no day; days are mon, tue, wed, thu, fri, sat, sun"#),
            ("daily 19:00", r#""19:00" is no span of time"#),
            ("daily 19:00-25:00", r#""25:00" is no time of day"#),
            ("daily 7:00-19:00", r#""7:00" is no time of day"#),
            ("daily 08:00-08:00", r#""08:00-08:00" is empty; the whole day is 00:00-24:00"#),
            ("mon 08:00-09:00;", r#""" lacks days or times"#),
        ] {
            let error = text.parse::<Schedule>().unwrap_err().to_string();
            let expected = format!(
                "{text:?} is no schedule: {problem}; write \"always\", \"daily 19:00-07:00\" or \
                 \"mon-fri 08:00-18:00; sat,sun 09:00-12:00\""
            );
            assert_eq!(error, expected);
        }
    }
}
