//! Tracks to incidents.

use std::collections::HashMap;
use std::time::Duration;

use jiff::tz::TimeZone;
use sharp_eyes_protocol::alert::AlertKind;
use sharp_eyes_protocol::class::ObjectClass;
use sharp_eyes_protocol::level::Severity;
use sharp_eyes_protocol::topic::Name;

use crate::Moment;
use crate::detection::Thresholds;
use crate::geometry::{Polygon, Rect};
use crate::schedule::Schedule;
use crate::track::Track;

/// Something of these classes stands in this zone for this long while the rule is awake.
#[derive(Clone, Debug)]
pub struct IntrusionRule {
    /// The rule's own name.
    pub name: Name,
    /// The zone's name, for the operator.
    pub zone: Name,
    /// The zone. An object is inside when its foot point, the middle of its box's bottom side, is.
    pub polygon: Polygon,
    /// What must not be there.
    pub classes: Vec<ObjectClass>,
    /// How long it must stay.
    pub dwell: Duration,
    /// How long the rule is silent after an alert.
    pub cooldown: Duration,
    /// How bad it is.
    pub severity: Severity,
    /// When the rule is awake.
    pub schedule: Schedule,
    /// Held against the mean score of the stay, instead of the model's threshold of the class: one lucky frame lifts
    /// the best score of a waving bush, but not its mean.
    pub min_score: Option<f32>,
    /// Whether a picture is wanted.
    pub evidence: bool,
}

/// A rule was broken.
#[derive(Clone, Debug, PartialEq)]
pub struct Incident {
    /// Index of the rule in the scene's list.
    pub rule: usize,
    /// What kind of rule it was.
    pub kind: AlertKind,
    /// How bad it is.
    pub severity: Severity,
    /// Where.
    pub zone: Name,
    /// What was seen.
    pub class: ObjectClass,
    /// The mean score of the stay, 0 to 1.
    pub confidence: f32,
    /// Where it is now, in 0..1 of the picture.
    pub bounds: Rect,
    /// The track, unique within the scene's life.
    pub track: u64,
    /// When it was decided.
    pub at: Moment,
    /// Whether the rule wants a picture.
    pub evidence: bool,
}

/// How long an object may be seen outside of the zone without having left: boxes flicker at the edge.
pub const FLICKER: Duration = Duration::from_secs(1);

/// An [`IntrusionRule`] with what it remembers.
#[derive(Clone, Debug)]
pub(crate) struct Intrusion {
    index: usize,
    rule: IntrusionRule,
    /// By track. Bounded by the tracker: the visits of dead tracks are forgotten.
    visits: HashMap<u64, Visit>,
    quiet_until: Duration,
}

/// What one track did in the zone.
#[derive(Clone, Debug, Default)]
struct Visit {
    stay: Option<Stay>,
    /// Once is enough, however long or often it stays.
    alerted: bool,
}

/// One uninterrupted time inside.
#[derive(Clone, Copy, Debug)]
struct Stay {
    since: Duration,
    /// Since when it has been seen outside, if it was outside when last seen.
    outside: Option<Duration>,
    scores: f32,
    frames: u32,
}

impl Intrusion {
    pub(crate) fn new(index: usize, rule: IntrusionRule) -> Self {
        Self { index, rule, visits: HashMap::new(), quiet_until: Duration::ZERO }
    }

    /// Whether something stays in the zone that may yet break the rule.
    pub(crate) fn is_undecided(&self, now: Moment) -> bool {
        let until = |stay: &Stay| (stay.since + self.rule.dwell).max(self.quiet_until) + UNDECIDED_MAX;
        self.visits.values().any(|visit| {
            !visit.alerted
                && visit
                    .stay
                    .as_ref()
                    .is_some_and(|stay| stay.outside.is_none() && now.monotonic < until(stay))
        })
    }

    /// Looks at the live tracks after one frame, and appends what breaks the rule.
    pub(crate) fn observe(
        &mut self,
        now: Moment,
        thresholds: &Thresholds,
        zone: &TimeZone,
        tracks: &[Track],
        incidents: &mut Vec<Incident>,
    ) {
        self.visits.retain(|id, _| tracks.iter().any(|track| track.id() == *id));
        let awake = self.rule.schedule.contains(now.wall, zone);
        // A track that this frame does not show may still be there: its stay goes on, but it raises no alert.
        for track in tracks.iter().filter(|track| track.seen() == now.monotonic) {
            let inside = awake
                && self.rule.classes.contains(&track.class())
                && self.rule.polygon.contains(track.bounds().foot());
            let visit = self.visits.entry(track.id()).or_default();
            visit.stay = next_stay(visit.stay, inside, now.monotonic, track.score());
            let Some(stay) = visit.stay.filter(|_| inside && !visit.alerted) else { continue };
            let score = stay.scores / stay.frames as f32;
            let due = track.is_confirmed()
                && now.monotonic.saturating_sub(stay.since) >= self.rule.dwell
                && now.monotonic >= self.quiet_until
                && score >= self.rule.min_score.unwrap_or_else(|| thresholds.of(track.class()));
            if due {
                visit.alerted = true;
                self.quiet_until = now.monotonic + self.rule.cooldown;
                incidents.push(Incident {
                    rule: self.index,
                    kind: AlertKind::Intrusion,
                    severity: self.rule.severity,
                    zone: self.rule.zone.clone(),
                    class: track.class(),
                    confidence: score,
                    bounds: track.bounds(),
                    track: track.id(),
                    at: now,
                    evidence: self.rule.evidence,
                });
            }
        }
    }
}

/// How much longer than the dwell time a rule may make up its mind: a stay with too low a score seldom gets a better one.
const UNDECIDED_MAX: Duration = Duration::from_secs(10);

/// The stay after a frame in which the object was seen inside or outside.
fn next_stay(stay: Option<Stay>, inside: bool, now: Duration, score: f32) -> Option<Stay> {
    let left = |stay: &Stay| stay.outside.is_some_and(|since| now.saturating_sub(since) >= FLICKER);
    let lasting = stay.filter(|stay| !left(stay));
    match (lasting, inside) {
        (None, false) => None,
        (None, true) => Some(Stay { since: now, outside: None, scores: score, frames: 1 }),
        (Some(stay), true) => {
            Some(Stay { outside: None, scores: stay.scores + score, frames: stay.frames + 1, ..stay })
        }
        (Some(stay), false) => Some(Stay { outside: stay.outside.or(Some(now)), ..stay }),
    }
}
