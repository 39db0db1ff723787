//! When an alert climbs that nobody answers: village, township, district.
//!
//! Plain values, no clock: the outbox keeps the deadlines and asks what comes next.

use std::time::Duration;

use sharp_eyes_protocol::level::{Level, Severity};

/// How long an answer may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Escalation {
    /// Until the next level is called; without it alerts of this severity never climb.
    pub minor: Option<Duration>,
    /// The same.
    pub major: Option<Duration>,
    /// The same.
    pub critical: Option<Duration>,
    /// At the district, where nobody is above: until it is told again for the first time. The wait doubles with each
    /// time, up to a day.
    pub repeat: Duration,
}

/// The longest wait between two repetitions.
pub const SLOWEST_REPEAT: Duration = Duration::from_secs(86_400);

/// What becomes of an alert that nobody answered in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Climb {
    /// Who is called now.
    pub level: Level,
    /// Whether this level was called before: such messages are spread out.
    pub repeated: bool,
    /// Until the next climb.
    pub within: Option<Duration>,
}

impl Default for Escalation {
    fn default() -> Self {
        let minutes = |n: u64| Some(Duration::from_secs(60 * n));
        Self {
            minor: minutes(30),
            major: minutes(10),
            critical: minutes(3),
            repeat: Duration::from_secs(3600),
        }
    }
}

impl Escalation {
    /// How long an alert of a severity waits for an answer.
    pub fn respond_within(&self, severity: Severity) -> Option<Duration> {
        match severity {
            Severity::Minor => self.minor,
            Severity::Major => self.major,
            Severity::Critical => self.critical,
        }
    }

    /// What comes after `level`, where nobody answered in time; `repeats`: how often the highest level was told again.
    pub fn climb(&self, severity: Severity, level: Level, repeats: u32) -> Climb {
        match level.above() {
            Some(level) => {
                let within = self.respond_within(severity);
                let top = level.above().is_none();
                Climb {
                    level,
                    repeated: false,
                    within: within.map(|w| if top { self.repeat.max(w) } else { w }),
                }
            }
            None => {
                // One that has climbed here has waited once already.
                let waited = repeats.saturating_add(u32::from(severity.first_level() != level));
                let wait = self.repeat.saturating_mul(2_u32.saturating_pow(waited.min(30)));
                let within = wait.min(SLOWEST_REPEAT.max(self.repeat));
                Climb { level, repeated: true, within: Some(within) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alert_climbs_to_the_top_and_is_repeated_there_ever_more_rarely() {
        let policy = Escalation::default();
        let (mut level, mut repeats) = (Level::Village, 0);
        let mut seen = Vec::new();
        for _ in 0..9 {
            let climb = policy.climb(Severity::Minor, level, repeats);
            repeats += u32::from(climb.repeated);
            level = climb.level;
            seen.push((climb.level.name(), climb.repeated, climb.within.unwrap().as_secs() / 60));
        }
        assert_eq!(
            seen,
            [
                ("township", false, 30),
                ("district", false, 60),
                ("district", true, 120),
                ("district", true, 240),
                ("district", true, 480),
                ("district", true, 960),
                ("district", true, 1440),
                ("district", true, 1440),
                ("district", true, 1440),
            ]
        );
    }

    #[test]
    fn what_begins_at_the_top_is_told_again_soon_and_then_as_what_has_climbed_there() {
        let policy = Escalation::default();
        assert_eq!(policy.respond_within(Severity::Critical), Some(Duration::from_secs(180)));
        let waits = [0, 1, 2, 3].map(|repeats| {
            policy.climb(Severity::Critical, Level::District, repeats).within.unwrap().as_secs() / 60
        });
        assert_eq!(waits, [60, 120, 240, 480]);
    }

    #[test]
    fn a_severity_without_a_time_never_climbs() {
        let policy = Escalation { minor: None, ..Escalation::default() };
        assert_eq!(policy.respond_within(Severity::Minor), None);
        assert!(policy.respond_within(Severity::Critical).is_some());
    }
}
