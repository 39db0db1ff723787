//! Many incidents of one camera in a short time become one alert that says how many.
//!
//! A fair, a broken model, a spider in front of the lens: fifty alerts in a minute are answered by nobody, and fill a
//! weak link. Plain values, no clock.

use std::collections::VecDeque;
use std::time::Duration;

use sharp_eyes_protocol::alert::AlertData;
use uuid::Uuid;

use crate::outbox::{AlertChange, Change};

/// The time in which alerts are counted, and after which a storm is over.
const MINUTE: Duration = Duration::from_secs(60);

/// A digest is told anew no more often than this, unless something worse joins it.
const TOLD: Duration = Duration::from_secs(10);

/// One camera's.
#[derive(Clone, Debug)]
pub(super) struct Storm {
    /// So many alerts within a minute are told one by one.
    alone: usize,
    /// When the last ones were raised: at most as many as are told one by one.
    recent: VecDeque<Duration>,
    digest: Option<Digest>,
}

#[derive(Clone, Debug)]
struct Digest {
    id: Uuid,
    /// Of the worst, and how many there are.
    data: AlertData,
    count: u32,
    /// When it was told last, unless it is to be told at once, and how many there were then.
    told: (Option<Duration>, u32),
    last: Duration,
}

/// What becomes of an incident.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Fate {
    /// An alert of its own.
    Alone,
    /// It is the first of a digest: an alert about the camera, with this to be said.
    Begins(Box<AlertData>),
    /// It belongs to the alert with this id. It is the worst so far, or another of many.
    Joins { id: Uuid, worst: bool },
}

impl Storm {
    /// None yet. So many alerts within a minute are told one by one.
    pub(super) fn new(alone: usize) -> Self {
        Self { alone, recent: VecDeque::new(), digest: None }
    }

    /// Takes an incident, and the id that its alert would have.
    pub(super) fn take(&mut self, now: Duration, id: Uuid, data: &AlertData) -> Fate {
        if let Some(digest) = &mut self.digest {
            digest.count += 1;
            digest.last = now;
            let worst = data.severity > digest.data.severity;
            if worst {
                digest.data = of_many(data);
                digest.told.0 = None; // at once
            }
            return Fate::Joins { id: digest.id, worst };
        }
        while self.recent.front().is_some_and(|at| now.saturating_sub(*at) >= MINUTE) {
            self.recent.pop_front();
        }
        if self.recent.len() < self.alone {
            self.recent.push_back(now);
            return Fate::Alone;
        }
        let data = AlertData { count: Some(1), ..of_many(data) };
        self.digest = Some(Digest { id, data: data.clone(), count: 1, told: (Some(now), 1), last: now });
        Fate::Begins(Box::new(data))
    }

    /// What is to be said of the digest by now.
    pub(super) fn tell(&mut self, now: Duration) -> Vec<AlertChange> {
        let Some(digest) = &mut self.digest else { return Vec::new() };
        let (id, over) = (digest.id, now.saturating_sub(digest.last) >= MINUTE);
        let mut changes = Vec::new();
        if digest.count > digest.told.1
            && (over || digest.told.0.is_none_or(|told| now.saturating_sub(told) >= TOLD))
        {
            digest.told = (Some(now), digest.count);
            let data = AlertData { count: Some(digest.count), ..digest.data.clone() };
            changes.push(AlertChange { id, change: Change::Worse(Box::new(data)) });
        }
        if over {
            changes.push(AlertChange { id, change: Change::Over });
            *self = Self::new(self.alone);
        }
        changes
    }
}

/// There is no one place for many.
fn of_many(data: &AlertData) -> AlertData {
    AlertData { bounds: None, ..data.clone() }
}

#[cfg(test)]
mod tests {
    use sharp_eyes_protocol::alert::{AlertKind, AlertState, ClockTrust};
    use sharp_eyes_protocol::level::Severity;

    use super::*;

    fn data(severity: Severity) -> AlertData {
        AlertData {
            kind: AlertKind::Intrusion,
            severity,
            level: severity.first_level(),
            state: AlertState::Open,
            respond_s: None,
            over: false,
            count: None,
            tampering: None,
            cell: Some("B2".into()),
            class: None,
            confidence: Some(0.9),
            bounds: Some([0.1, 0.1, 0.2, 0.2]),
            model: None,
            clock: ClockTrust::Synced,
            boot: "0123abcd".into(),
            up_s: 7,
            evidence: true,
        }
    }

    /// Plays incidents at seconds, `!` for critical ones, and compares what is said: `raise`, `digest`, `count severity`
    /// and `over`, each with its second.
    fn check(incidents: &[&str], expected: &[&str]) {
        let mut storm = Storm::new(5);
        let mut incidents = incidents.iter().map(|text| {
            let (second, severity) = match text.strip_suffix('!') {
                Some(second) => (second, Severity::Critical),
                None => (*text, Severity::Major),
            };
            (second.parse::<u64>().unwrap(), severity)
        });
        let mut next = incidents.next();
        let mut said = Vec::new();
        for second in 0..400 {
            let now = Duration::from_secs(second);
            while let Some((_, severity)) = next.filter(|(at, _)| *at == second) {
                match storm.take(now, Uuid::from_u128(u128::from(second)), &data(severity)) {
                    Fate::Alone => said.push(format!("{second} raise")),
                    Fate::Begins(data) => {
                        assert!(data.bounds.is_none() && data.count == Some(1));
                        said.push(format!("{second} digest"));
                    }
                    Fate::Joins { .. } => {}
                }
                next = incidents.next();
            }
            for AlertChange { change, .. } in storm.tell(now) {
                said.push(match change {
                    Change::Over => format!("{second} over"),
                    Change::Worse(data) => format!("{second} {} {}", data.count.unwrap(), data.severity),
                });
            }
        }
        assert_eq!(said, expected);
    }

    #[test]
    fn few_alerts_are_told_one_by_one_and_more_than_five_a_minute_become_one() {
        check(
            &["1", "1", "9", "30", "59", "62", "63"],
            &["1 raise", "1 raise", "9 raise", "30 raise", "59 raise", "62 raise", "63 raise"],
        );
        check(
            &["1", "2", "3", "4", "5", "6", "7", "8", "19", "20", "29"],
            &[
                "1 raise",
                "2 raise",
                "3 raise",
                "4 raise",
                "5 raise",
                "6 digest",
                "16 3 major",
                "26 5 major",
                "36 6 major",
                "89 over",
            ],
        );
    }

    #[test]
    fn the_worst_is_kept_and_told_at_once() {
        check(
            &["1", "1", "1", "1", "1", "2", "3", "4!", "5", "6"],
            &[
                "1 raise",
                "1 raise",
                "1 raise",
                "1 raise",
                "1 raise",
                "2 digest",
                "4 3 critical",
                "14 5 critical",
                "66 over",
            ],
        );
    }

    #[test]
    fn after_a_quiet_minute_alerts_are_told_one_by_one_again() {
        check(
            &["1", "1", "1", "1", "1", "2", "200", "201"],
            &[
                "1 raise",
                "1 raise",
                "1 raise",
                "1 raise",
                "1 raise",
                "2 digest",
                "62 over",
                "200 raise",
                "201 raise",
            ],
        );
    }
}
