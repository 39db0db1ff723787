//! Tracks to incidents: one file per kind of rule.
//!
//! What all kinds share lies here: which objects count, when a rule is awake and when it is quiet, and that one object
//! alarms once. A kind decides alone whether an object breaks it, by the path of its foot point.

mod crossing;
mod intrusion;

use std::collections::HashSet;
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
use crossing::Crossing;
pub use crossing::{Direction, LineError, Tripwire};
pub use intrusion::FLICKER;
use intrusion::Intrusion;

/// What must not happen in front of a camera.
#[derive(Clone, Debug)]
pub struct Rule {
    /// The rule's own name.
    pub name: Name,
    /// The zone's or the line's name, for the operator.
    pub zone: Name,
    /// What is forbidden there.
    pub kind: RuleKind,
    /// Whom it is forbidden to.
    pub classes: Vec<ObjectClass>,
    /// How long the rule is silent after an alert.
    pub cooldown: Duration,
    /// How bad it is.
    pub severity: Severity,
    /// When the rule is awake.
    pub schedule: Schedule,
    /// Held against the mean score of the time that the rule looked at, instead of the model's threshold of the class:
    /// one lucky frame lifts the best score of a waving bush, but not its mean.
    pub min_score: Option<f32>,
    /// Lower boxes do not count, in heights of the picture.
    pub min_height: f32,
    /// Whether a picture is wanted.
    pub evidence: bool,
}

/// What is forbidden. An object is where its foot point is, the middle of its box's bottom side.
#[derive(Clone, Debug)]
pub enum RuleKind {
    /// To stay in this zone for so long.
    Intrusion {
        /// The zone.
        polygon: Polygon,
        /// How long it takes.
        dwell: Duration,
    },
    /// To cross this line.
    Crossing {
        /// The line.
        line: Tripwire,
        /// Which way.
        direction: Direction,
    },
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
    /// Where: the name of the zone or the line.
    pub zone: Name,
    /// What was seen.
    pub class: ObjectClass,
    /// The mean score of the time that the rule looked at, 0 to 1.
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

/// What a rule is about, at one moment: for whoever tunes it.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleState {
    /// Whether its schedule is on.
    pub awake: bool,
    /// How much longer it is silent after an alert.
    pub quiet: Duration,
    /// The tracks that stay in its zone, and how much of the dwell time each has done, 0 to 1.
    pub waiting: Vec<(u64, f32)>,
    /// The tracks in sight that it has alarmed about.
    pub alerted: Vec<u64>,
}

/// A [`Rule`] with what it remembers.
#[derive(Clone, Debug)]
pub(crate) struct Watch {
    index: usize,
    rule: Rule,
    judge: Judge,
    /// Once is enough, however long or often an object breaks the rule. Bounded by the tracker: dead tracks are forgotten.
    alerted: HashSet<u64>,
    quiet_until: Duration,
}

/// How much longer than it needs a rule may make up its mind: what has too low a score seldom gets a better one.
const UNDECIDED_MAX: Duration = Duration::from_secs(10);

/// What each kind of rule remembers.
#[derive(Clone, Debug)]
enum Judge {
    Intrusion(Intrusion),
    Crossing(Crossing),
}

impl Watch {
    pub(crate) fn new(index: usize, rule: Rule) -> Self {
        let judge = match &rule.kind {
            RuleKind::Intrusion { polygon, dwell } => {
                Judge::Intrusion(Intrusion::new(polygon.clone(), *dwell))
            }
            RuleKind::Crossing { line, direction } => Judge::Crossing(Crossing::new(*line, *direction)),
        };
        Self { index, rule, judge, alerted: HashSet::new(), quiet_until: Duration::ZERO }
    }

    pub(crate) fn state(&self, now: Moment, zone: &TimeZone) -> RuleState {
        let alerted = |id: &u64| self.alerted.contains(id);
        let mut waiting: Vec<_> = match &self.judge {
            Judge::Intrusion(intrusion) => intrusion.progress(now.monotonic).collect(),
            Judge::Crossing(_) => Vec::new(), // nobody stays on a line
        };
        waiting.retain(|(id, _)| !alerted(id));
        waiting.sort_by_key(|(id, _)| *id);
        let mut alerted: Vec<_> = self.alerted.iter().copied().collect();
        alerted.sort_unstable();
        RuleState {
            awake: self.rule.schedule.contains(now.wall, zone),
            quiet: self.quiet_until.saturating_sub(now.monotonic),
            waiting,
            alerted,
        }
    }

    /// Whether something may yet break the rule without moving.
    pub(crate) fn is_undecided(&self, now: Moment) -> bool {
        match &self.judge {
            Judge::Intrusion(intrusion) => intrusion.waiting().any(|(id, due)| {
                !self.alerted.contains(&id) && now.monotonic < due.max(self.quiet_until) + UNDECIDED_MAX
            }),
            Judge::Crossing(_) => false,
        }
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
        let alive = |id: &u64| tracks.iter().any(|track| track.id() == *id);
        self.alerted.retain(alive);
        match &mut self.judge {
            Judge::Intrusion(intrusion) => intrusion.retain(alive),
            Judge::Crossing(crossing) => crossing.retain(alive),
        }
        let awake = self.rule.schedule.contains(now.wall, zone);
        // A track that this frame does not show may still be there: it is remembered, but it raises no alert.
        for track in tracks.iter().filter(|track| track.seen() == now.monotonic) {
            let counts = awake
                && self.rule.classes.contains(&track.class())
                && track.bounds().height >= self.rule.min_height;
            let broken = match &mut self.judge {
                Judge::Intrusion(intrusion) => intrusion.see(now.monotonic, track, counts),
                Judge::Crossing(crossing) => crossing.see(track, counts),
            };
            let least = self.rule.min_score.unwrap_or_else(|| thresholds.of(track.class()));
            let Some(score) = broken.filter(|score| *score >= least) else { continue };
            let due = track.is_confirmed()
                && now.monotonic >= self.quiet_until
                && !self.alerted.contains(&track.id());
            if due {
                self.alerted.insert(track.id());
                self.quiet_until = now.monotonic + self.rule.cooldown;
                incidents.push(Incident {
                    rule: self.index,
                    kind: self.rule.kind.alert(),
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

impl RuleKind {
    /// What the alert is called.
    pub fn alert(&self) -> AlertKind {
        match self {
            Self::Intrusion { .. } => AlertKind::Intrusion,
            Self::Crossing { .. } => AlertKind::Crossing,
        }
    }
}

/// Scores of some frames.
#[derive(Clone, Copy, Debug, Default)]
struct Scores {
    sum: f32,
    count: u32,
}

impl Scores {
    fn add(&mut self, score: f32) {
        self.sum += score;
        self.count += 1;
    }

    /// NaN of none, which is above no threshold.
    fn mean(self) -> f32 {
        self.sum / self.count as f32
    }
}
