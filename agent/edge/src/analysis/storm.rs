//! Many incidents of one camera in a short time become one alert that says how many.
//!
//! A fair, a broken model, a spider in front of the lens: fifty alerts in a minute are answered by nobody, and fill a
//! weak link. Plain values, no clock.

use std::collections::VecDeque;
use std::time::Duration;

use sharp_eyes_protocol::alert::AlertData;
use sharp_eyes_protocol::level::Severity;
use uuid::Uuid;

use crate::outbox::{AlertChange, Change};

/// The time in which alerts are counted, and after which a storm is over.
const MINUTE: Duration = Duration::from_secs(60);

/// A digest is told anew no more often than this.
const TOLD: Duration = Duration::from_secs(10);

/// How long one digest lasts: somebody may have ended it long before its storm is over, and is to hear of the camera again.
const LASTS: Duration = Duration::from_secs(3600);

/// One camera's.
#[derive(Clone, Debug)]
pub(super) struct Storm {
    /// So many alerts within a minute are told one by one.
    alone: usize,
    /// When the last ones were raised: at most as many as are told one by one.
    recent: VecDeque<Duration>,
    digest: Option<Digest>,
    /// What is still to be said of one that another has taken the place of.
    left: Vec<AlertChange>,
}

#[derive(Clone, Debug)]
struct Digest {
    id: Uuid,
    severity: Severity,
    begun: Duration,
    count: u32,
    /// When it was told last, and how many there were then.
    told: (Duration, u32),
    last: Duration,
}

/// What becomes of an incident.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Fate {
    /// An alert of its own.
    Alone,
    /// It is the first of a digest: an alert about the camera, with this to be said.
    Begins(Box<AlertData>),
    /// The digest counts it.
    Joins,
}

impl Storm {
    /// None yet. So many alerts within a minute are told one by one.
    pub(super) fn new(alone: usize) -> Self {
        Self { alone, recent: VecDeque::new(), digest: None, left: Vec::new() }
    }

    /// Takes an incident, and the id that its alert would have. One that is worse than what the digest began with begins
    /// another: somebody may have ended the milder one.
    pub(super) fn take(&mut self, now: Duration, id: Uuid, data: &AlertData) -> Fate {
        let joins =
            |digest: &Digest| data.severity <= digest.severity && now.saturating_sub(digest.begun) < LASTS;
        match self.digest.take() {
            Some(digest) if joins(&digest) => {
                self.digest = Some(Digest { count: digest.count + 1, last: now, ..digest });
                return Fate::Joins;
            }
            Some(digest) => self.left.extend(digest.last_words()),
            None => {
                while self.recent.front().is_some_and(|at| now.saturating_sub(*at) >= MINUTE) {
                    self.recent.pop_front();
                }
                if self.recent.len() < self.alone {
                    self.recent.push_back(now);
                    return Fate::Alone;
                }
            }
        }
        // There is no one place for many.
        let data = AlertData { count: Some(1), bounds: None, ..data.clone() };
        self.digest =
            Some(Digest { id, severity: data.severity, begun: now, count: 1, told: (now, 1), last: now });
        Fate::Begins(Box::new(data))
    }

    /// Nobody will hear of the digest: the next incident begins another.
    pub(super) fn lost(&mut self, id: Uuid) {
        self.digest.take_if(|digest| digest.id == id);
    }

    /// What is to be said by now.
    pub(super) fn tell(&mut self, now: Duration) -> Vec<AlertChange> {
        let mut changes = std::mem::take(&mut self.left);
        if let Some(digest) = self.digest.take_if(|digest| now.saturating_sub(digest.last) >= MINUTE) {
            changes.extend(digest.last_words());
            self.recent.clear();
        }
        if let Some(digest) = &mut self.digest
            && digest.count > digest.told.1
            && now.saturating_sub(digest.told.0) >= TOLD
        {
            digest.told = (now, digest.count);
            changes.push(digest.many());
        }
        changes
    }
}

impl Digest {
    /// How many there are by now.
    fn many(&self) -> AlertChange {
        AlertChange { id: self.id, change: Change::Many(self.count) }
    }

    /// How many there were, and that it is over.
    fn last_words(&self) -> impl Iterator<Item = AlertChange> + use<> {
        let untold = (self.count > self.told.1).then(|| self.many());
        untold.into_iter().chain([AlertChange { id: self.id, change: Change::Over }])
    }
}

#[cfg(test)]
mod tests {
    use sharp_eyes_protocol::alert::{AlertKind, AlertState, ClockTrust};

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
                    Fate::Joins => {}
                }
                next = incidents.next();
            }
            for AlertChange { change, .. } in storm.tell(now) {
                said.push(match change {
                    Change::Over => format!("{second} over"),
                    Change::Many(count) => format!("{second} {count}"),
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
                "1 raise", "2 raise", "3 raise", "4 raise", "5 raise", "6 digest", "16 3", "26 5", "36 6",
                "89 over",
            ],
        );
    }

    #[test]
    fn what_is_worse_than_all_before_is_told_as_another_alert() {
        check(
            &["1", "1", "1", "1", "1", "2", "3", "4!", "5", "6"],
            &[
                "1 raise", "1 raise", "1 raise", "1 raise", "1 raise", "2 digest", "4 digest", "4 2",
                "4 over", "14 3", "66 over",
            ],
        );
    }

    #[test]
    fn a_camera_whose_storm_does_not_end_is_told_of_again_every_hour() {
        let mut storm = Storm::new(0);
        let digests = (0..3 * 3600).step_by(30).filter(|second| {
            let fate = storm.take(Duration::from_secs(*second), Uuid::nil(), &data(Severity::Major));
            assert_ne!(fate, Fate::Alone);
            fate != Fate::Joins
        });
        assert_eq!(digests.collect::<Vec<_>>(), [0, 3600, 7200]);
    }

    #[test]
    fn a_digest_that_was_lost_is_begun_anew() {
        let (mut storm, id, now) = (Storm::new(0), Uuid::from_u128, Duration::from_secs);
        let begins = |fate| matches!(fate, Fate::Begins(_));
        assert!(begins(storm.take(now(1), id(1), &data(Severity::Major))));
        storm.lost(id(1));
        assert!(begins(storm.take(now(2), id(2), &data(Severity::Major))));
        storm.lost(id(1));
        assert_eq!(storm.take(now(3), id(3), &data(Severity::Major)), Fate::Joins);
        assert_eq!(storm.tell(now(300)).len(), 2);
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
