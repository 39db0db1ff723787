//! When a rule is awake.

use std::str::FromStr;
use std::sync::Arc;

use jiff::Timestamp;
use jiff::civil::{Date, Weekday};
use jiff::tz::TimeZone;

use crate::Moment;

/// Times of the week and of single dates, written as `always`, `daily 19:00-07:00`,
/// `mon-fri 08:00-18:00; sat,sun 09:00-12:00`, `2026-10-01..2026-10-07 00:00-24:00` or
/// `workday 18:00-08:00; holiday 00:00-24:00`.
///
/// A span that ends before it begins goes over midnight and belongs to the day on which it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    spans: Vec<Span>,
    /// What `holiday` and `workday` mean.
    holidays: Arc<[Dates]>,
}

/// Some days, from one minute of the day up to another.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Span {
    days: Vec<Days>,
    from: u16,
    to: u16,
}

/// One way to name days.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Days {
    /// Bit 0 is Monday.
    OfWeek(u8),
    Dates(Dates),
    /// Monday to Friday, unless it is a holiday.
    Workday,
    Holiday,
}

/// A date, or all from one to another, both included: `2027-01-01`, `2026-10-01..2026-10-07`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dates {
    first: Date,
    last: Date,
}

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const EVERY_DAY: Days = Days::OfWeek(0b111_1111);
const MONDAY_TO_FRIDAY: u8 = 0b001_1111;
const DAY_MINUTES: u16 = 24 * 60;

impl Schedule {
    /// At any time.
    pub fn always() -> Self {
        let span = Span { days: vec![EVERY_DAY], from: 0, to: DAY_MINUTES };
        Self { spans: vec![span], holidays: Arc::default() }
    }

    /// Whether it says `holiday` or `workday`, and so needs to know the holidays.
    pub fn names_holidays(&self) -> bool {
        let mut days = self.spans.iter().flat_map(|span| &span.days);
        days.any(|days| matches!(days, Days::Workday | Days::Holiday))
    }

    /// Says which days are holidays. Until then none is.
    pub fn set_holidays(&mut self, holidays: &Arc<[Dates]>) {
        // Others stay equal to what they were.
        if self.names_holidays() {
            self.holidays = holidays.clone();
        }
    }

    /// Whether it is on at a moment. While the wall clock is known to be wrong every schedule is: an alert too many is better
    /// than a night that nobody watches.
    pub fn is_on(&self, now: Moment, zone: &TimeZone) -> bool {
        now.wrong || self.contains(now.wall, zone)
    }

    /// Whether a moment lies inside, by the wall clock of the site: what the clock shows decides, also in the
    /// hour that a change to or from summer time skips or repeats.
    pub fn contains(&self, wall: Timestamp, zone: &TimeZone) -> bool {
        let local = zone.to_datetime(wall);
        let minute = local.hour() as u16 * 60 + local.minute() as u16;
        let (today, yesterday) = (local.date(), local.date().yesterday());
        self.spans.iter().any(|&Span { ref days, from, to }| {
            let on = |date| days.iter().any(|days| self.is_one_of(date, *days));
            if from < to {
                (from..to).contains(&minute) && on(today)
            } else {
                (minute >= from && on(today)) || (minute < to && yesterday.as_ref().is_ok_and(|day| on(*day)))
            }
        })
    }

    fn is_one_of(&self, date: Date, days: Days) -> bool {
        let holiday = || self.holidays.iter().any(|dates| dates.contain(date));
        match days {
            Days::OfWeek(days) => days & bit(date.weekday()) != 0,
            Days::Dates(dates) => dates.contain(date),
            Days::Workday => MONDAY_TO_FRIDAY & bit(date.weekday()) != 0 && !holiday(),
            Days::Holiday => holiday(),
        }
    }
}

impl Dates {
    fn contain(self, date: Date) -> bool {
        (self.first..=self.last).contains(&date)
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
            .map(|spans| Self { spans, holidays: Arc::default() })
            .map_err(|problem| ScheduleError { text: text.to_owned(), problem })
    }
}

impl FromStr for Dates {
    type Err = DatesError;

    fn from_str(text: &str) -> Result<Self, DatesError> {
        let date = |text: &str| {
            let plain = text.len() == 10 && text.bytes().all(|b| b.is_ascii_digit() || b == b'-');
            let parsed = plain.then(|| text.parse::<Date>().ok()).flatten();
            parsed.ok_or_else(|| DatesError::NoDate(text.to_owned()))
        };
        let (first, last) = text.split_once("..").unwrap_or((text, text));
        let dates = Self { first: date(first)?, last: date(last)? };
        if dates.last < dates.first {
            return Err(DatesError::Reversed(text.to_owned()));
        }
        Ok(dates)
    }
}

/// The text is no [`Dates`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[allow(missing_docs)] // the messages say it
pub enum DatesError {
    #[error("{0:?} is no date; write such as \"2027-01-01\" or \"2026-10-01..2026-10-07\"")]
    NoDate(String),
    #[error("{0:?} ends before it begins")]
    Reversed(String),
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

fn parse_days(text: &str) -> Result<Vec<Days>, String> {
    if text == "daily" {
        return Ok(vec![EVERY_DAY]);
    }
    let day = |name: &str| {
        DAYS.iter().position(|day| *day == name).ok_or_else(|| {
            format!("{name:?} is no day; days are {}, workday, holiday and dates", DAYS.join(", "))
        })
    };
    let days = text.split(',').map(|part| match part {
        "workday" => Ok(Days::Workday),
        "holiday" => Ok(Days::Holiday),
        dates if dates.starts_with(|first: char| first.is_ascii_digit()) => {
            dates.parse().map(Days::Dates).map_err(|error: DatesError| error.to_string())
        }
        week => {
            let (first, last) = week.split_once('-').unwrap_or((week, week));
            let (first, last) = (day(first)?, day(last)?);
            let length = (last + 7 - first) % 7; // "sat-mon" goes over the week's end
            Ok(Days::OfWeek((0..=length).fold(0, |days, step| days | 1 << ((first + step) % 7))))
        }
    });
    days.collect()
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
        check_with(&[], schedule, zone, moments);
    }

    fn check_with(holidays: &[&str], schedule: &str, zone: &str, moments: &str) {
        let mut parsed: Schedule = schedule.parse().unwrap();
        parsed.set_holidays(&holidays.iter().map(|dates| dates.parse().unwrap()).collect());
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
    fn dates_stand_for_days_and_a_span_over_midnight_goes_on_after_the_last() {
        // 2026-10-01 is a Thursday.
        check(
            "2026-10-01..2026-10-07 22:00-06:00; 2026-10-10,sun 12:00-13:00",
            "Asia/Shanghai",
            "2026-10-01T05:00:00+08:00 out
             2026-10-01T21:59:59+08:00 out
             2026-10-01T22:00:00+08:00 in
             2026-10-04T05:59:59+08:00 in
             2026-10-07T23:00:00+08:00 in
             2026-10-08T05:59:59+08:00 in
             2026-10-08T06:00:00+08:00 out
             2026-10-08T22:00:00+08:00 out
             2026-10-10T12:00:00+08:00 in
             2026-10-11T12:00:00+08:00 in
             2026-10-12T12:00:00+08:00 out
             2027-10-01T22:00:00+08:00 out",
        );
        check(
            "2026-12-30..2027-01-02 00:00-24:00",
            "Asia/Shanghai",
            "2026-12-29T23:59:59+08:00 out
             2026-12-29T16:00:00Z in
             2026-12-31T23:59:59+08:00 in
             2027-01-01T00:00:00+08:00 in
             2027-01-02T23:59:59+08:00 in
             2027-01-03T00:00:00+08:00 out",
        );
        check(
            "2026-12-31 19:00-07:00",
            "UTC",
            "2027-01-01T06:59:59Z in
             2027-01-01T07:00:00Z out
             2027-01-01T19:00:00Z out",
        );
    }

    #[test]
    fn a_holiday_is_no_workday_whatever_day_of_the_week_it_is() {
        // 2026-10-01 is a Thursday, 2027-01-01 a Friday.
        let holidays = ["2026-10-01..2026-10-07", "2027-01-01"];
        check_with(
            &holidays,
            "workday 18:00-08:00; holiday 00:00-24:00",
            "Asia/Shanghai",
            "2026-09-30T17:59:59+08:00 out
             2026-09-30T18:00:00+08:00 in
             2026-10-01T12:00:00+08:00 in
             2026-10-04T12:00:00+08:00 in
             2026-10-07T23:59:59+08:00 in
             2026-10-08T00:00:00+08:00 out
             2026-10-08T18:00:00+08:00 in
             2026-10-09T18:00:00+08:00 in
             2026-10-10T07:59:59+08:00 in
             2026-10-10T18:00:00+08:00 out
             2026-12-31T23:59:59+08:00 in
             2027-01-01T12:00:00+08:00 in
             2027-01-02T00:00:00+08:00 out",
        );
        check_with(&holidays, "mon-fri 08:00-18:00", "UTC", "2026-10-01T12:00:00Z in");
        // Without a list, no day is a holiday.
        check("workday,holiday 08:00-18:00", "UTC", "2026-10-01T12:00:00Z in\n2026-10-03T12:00:00Z out");
    }

    #[test]
    fn summer_time_moves_a_holiday_s_span_with_the_wall_clock() {
        // Berlin goes back from +02 to +01 on 2026-10-25 at 03:00, a Sunday.
        check_with(
            &["2026-10-25"],
            "holiday 02:30-04:00; holiday 23:00-02:45",
            "Europe/Berlin",
            "2026-10-24T22:00:00Z out
             2026-10-25T00:30:00Z in
             2026-10-25T01:00:00Z out
             2026-10-25T01:30:00Z in
             2026-10-25T02:59:59Z in
             2026-10-25T03:00:00Z out
             2026-10-25T22:00:00Z in
             2026-10-26T01:44:59Z in
             2026-10-26T01:45:00Z out",
        );
    }

    #[test]
    fn an_error_says_what_is_wrong_and_what_would_be_right() {
        for (text, problem) in [
            ("", r#""" lacks days or times"#),
            ("19:00-07:00", r#""19:00-07:00" lacks days or times"#),
            (
                "nightly 19:00-07:00",
                r#""nightly" is no day; days are mon, tue, wed, thu, fri, sat, sun, workday, holiday and dates"#,
            ),
            ("daily 19:00", r#""19:00" is no span of time"#),
            ("daily 19:00-25:00", r#""25:00" is no time of day"#),
            ("daily 7:00-19:00", r#""7:00" is no time of day"#),
            ("daily 08:00-08:00", r#""08:00-08:00" is empty; the whole day is 00:00-24:00"#),
            (
                "2026-02-30 08:00-09:00",
                r#""2026-02-30" is no date; write such as "2027-01-01" or "2026-10-01..2026-10-07""#,
            ),
            (
                "2026-10-1 08:00-09:00",
                r#""2026-10-1" is no date; write such as "2027-01-01" or "2026-10-01..2026-10-07""#,
            ),
            (
                "2026-10-01-2026-10-07 08:00-09:00",
                r#""2026-10-01-2026-10-07" is no date; write such as "2027-01-01" or "2026-10-01..2026-10-07""#,
            ),
            ("mon,2026-10-07..2026-10-01 08:00-09:00", r#""2026-10-07..2026-10-01" ends before it begins"#),
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
