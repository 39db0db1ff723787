//! Tracks to incidents: one file per kind of rule.
//!
//! What all kinds share lies here: which objects count, when a rule is awake and when it is quiet, and that one object
//! alarms once. A kind decides alone whether an object breaks it, by the path of its foot point.

mod crossing;
mod hazard;
mod intrusion;
mod place;
mod stopped;

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
use hazard::Hazard;
pub use intrusion::FLICKER;
use intrusion::Intrusion;
use place::Places;
use stopped::Stopped;

/// What must not happen in front of a camera.
#[derive(Clone, Debug)]
pub struct Rule {
    /// The rule's own name.
    pub name: Name,
    /// The zone's or the line's name, for the operator; none where it is about all of the picture.
    pub zone: Option<Name>,
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
    /// Whether the camera may not sleep while the rule is awake.
    pub wakeful: bool,
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
    /// To stand in this zone for so long.
    StoppedVehicle {
        /// The zone.
        polygon: Polygon,
        /// How long it takes.
        time: Duration,
    },
    /// To burn or to smoke.
    Hazard {
        /// Where; anywhere without one.
        polygon: Option<Polygon>,
        /// In how many ...
        seen: u32,
        /// ... of how many frames it has to be seen.
        frames: u32,
    },
}

/// A rule was broken.
#[derive(Clone, Debug, PartialEq)]
pub struct Incident {
    /// Unique within the scene's life: [`crate::Scene::over`] names it when it is over.
    pub number: u64,
    /// Index of the rule in the scene's list.
    pub rule: usize,
    /// What kind of rule it was.
    pub kind: AlertKind,
    /// How bad it is.
    pub severity: Severity,
    /// Where: the name of the zone or the line, if the rule has one.
    pub zone: Option<Name>,
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
    /// The tracks that may come to break it, and how much of what it takes each has done, 0 to 1.
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
    places: Places,
    quiet_until: Duration,
    /// Incidents that are not over.
    lasting: Vec<u64>,
    /// Since when nobody has broken the rule any more.
    clear: Option<Duration>,
}

/// How long nobody may have been there before it is over: detectors lose sight of people who stand there all the same.
pub const CLEARS: Duration = Duration::from_secs(10);

/// How long something has to stand still before a new track at its place is taken for it.
const SETTLES: Duration = Duration::from_secs(30);

/// How much longer than it needs a rule may make up its mind: what has too low a score seldom gets a better one.
const UNDECIDED_MAX: Duration = Duration::from_secs(3);

/// What each kind of rule remembers.
#[derive(Clone, Debug)]
enum Judge {
    Intrusion(Intrusion),
    Crossing(Crossing),
    Stopped(Stopped),
    Hazard(Hazard),
}

impl Judge {
    /// A vehicle that has moved may alarm anew, where it stops again; everybody else alarms once, also if lost and found again.
    fn alarms_anew(&self) -> bool {
        matches!(self, Self::Stopped(_))
    }
}

impl Watch {
    pub(crate) fn new(index: usize, rule: Rule) -> Self {
        let judge = match &rule.kind {
            RuleKind::Intrusion { polygon, dwell } => {
                Judge::Intrusion(Intrusion::new(polygon.clone(), *dwell))
            }
            RuleKind::Crossing { line, direction } => Judge::Crossing(Crossing::new(*line, *direction)),
            RuleKind::StoppedVehicle { polygon, time } => {
                Judge::Stopped(Stopped::new(polygon.clone(), *time))
            }
            RuleKind::Hazard { polygon, seen, frames } => {
                Judge::Hazard(Hazard::new(polygon.clone(), *seen, *frames))
            }
        };
        // Vehicles do not come out of doors: what is seen where one stopped, if only for a moment, is that one.
        let settles = if judge.alarms_anew() { Duration::ZERO } else { SETTLES };
        let (alerted, places) = (HashSet::new(), Places::new(settles, judge.alarms_anew()));
        let (quiet_until, lasting, clear) = (Duration::ZERO, Vec::new(), None);
        Self { index, rule, judge, alerted, places, quiet_until, lasting, clear }
    }

    pub(crate) fn state(&self, now: Moment, zone: &TimeZone) -> RuleState {
        let alerted = |id: &u64| self.alerted.contains(id);
        let mut waiting: Vec<_> = match &self.judge {
            Judge::Intrusion(intrusion) => intrusion.progress(now.monotonic).collect(),
            Judge::Crossing(_) => Vec::new(), // nobody stays on a line
            Judge::Stopped(stopped) => stopped.progress(now.monotonic, &self.places).collect(),
            Judge::Hazard(hazard) => hazard.progress().collect(),
        };
        waiting.retain(|(id, _)| !alerted(id));
        waiting.sort_by_key(|(id, _)| *id);
        let mut alerted: Vec<_> = self.alerted.iter().copied().collect();
        alerted.sort_unstable();
        RuleState {
            awake: self.rule.schedule.is_on(now, zone),
            quiet: self.quiet_until.saturating_sub(now.monotonic),
            waiting,
            alerted,
        }
    }

    /// Whether the rule keeps its camera awake at this moment.
    pub(crate) fn is_wakeful(&self, now: Moment, zone: &TimeZone) -> bool {
        self.rule.wakeful && self.rule.schedule.is_on(now, zone)
    }

    /// Whether something may yet break the rule without moving.
    pub(crate) fn is_undecided(&self, now: Moment) -> bool {
        let open = |due: Duration| now.monotonic < due.max(self.quiet_until) + UNDECIDED_MAX;
        match &self.judge {
            Judge::Intrusion(intrusion) => {
                intrusion.waiting().any(|(id, due)| !self.alerted.contains(&id) && open(due))
            }
            Judge::Crossing(_) => false,
            Judge::Stopped(stopped) => stopped.waiting(&self.places).any(|(_, due)| open(due)),
            Judge::Hazard(hazard) => hazard.pondered(now.monotonic).any(|id| !self.alerted.contains(&id)),
        }
    }

    /// The incidents that are over by now. A vehicle's is when it has moved; those of others, all at once when nobody has
    /// broken the rule for [`CLEARS`].
    pub(crate) fn over(&mut self, now: Duration) -> Vec<u64> {
        if let Judge::Stopped(_) = self.judge {
            return self.places.over();
        }
        match self.clear {
            Some(since) if now.saturating_sub(since) >= CLEARS => std::mem::take(&mut self.lasting),
            _ => Vec::new(),
        }
    }

    /// Looks at the live tracks after one frame, and appends what breaks the rule.
    pub(crate) fn observe(&mut self, now: Moment, scene: &Surroundings<'_>, incidents: &mut Incidents<'_>) {
        let tracks = scene.tracks;
        let alive = |id: &u64| tracks.iter().any(|track| track.id() == *id);
        self.alerted.retain(alive);
        let awake = self.rule.schedule.is_on(now, scene.time_zone);
        let rule = &self.rule;
        let is_about =
            |track: &Track| rule.classes.contains(&track.class()) && track.bounds().height >= rule.min_height;
        self.places.observe(now.monotonic, tracks, is_about);
        let anew = self.judge.alarms_anew();
        if !anew {
            self.alerted.extend(self.places.alarmed().filter(alive));
        }
        // A rule that sleeps forgets at once: whoever crosses a line meanwhile does not alarm when it wakes.
        let kept = |id: &u64| awake && alive(id);
        match &mut self.judge {
            Judge::Intrusion(intrusion) => intrusion.retain(kept),
            Judge::Crossing(crossing) => crossing.retain(kept),
            Judge::Stopped(stopped) => stopped.rest(now.monotonic, awake),
            Judge::Hazard(hazard) => hazard.begin(kept),
        }
        // A track that this frame does not show may still be there: it is remembered, but it raises no alert.
        for track in tracks.iter().filter(|track| track.seen() == now.monotonic) {
            let counts = awake && is_about(track);
            let broken = match &mut self.judge {
                Judge::Intrusion(intrusion) => intrusion.see(now.monotonic, track, counts),
                Judge::Crossing(crossing) => crossing.see(now.monotonic, track, counts),
                Judge::Stopped(stopped) => {
                    let place = self.places.of(track.id()).filter(|_| counts);
                    place.and_then(|place| stopped.see(now.monotonic, place))
                }
                Judge::Hazard(hazard) => hazard.see(now.monotonic, track, counts),
            };
            let least = self.rule.min_score.unwrap_or_else(|| scene.thresholds.of(track.class()));
            let Some(score) = broken.filter(|score| *score >= least) else { continue };
            let place_alarmed = self.places.of(track.id()).is_some_and(|place| place.alarmed.is_some());
            let alarmed = place_alarmed
                || if anew {
                    self.places.have_alarmed_at(&track.bounds())
                } else {
                    self.alerted.contains(&track.id())
                };
            if track.is_confirmed() && now.monotonic >= self.quiet_until && !alarmed {
                self.alerted.insert(track.id());
                let number = incidents.next();
                if let Some(place) = self.places.of(track.id()) {
                    place.alarmed = Some(number);
                }
                if !anew {
                    self.lasting.push(number);
                }
                self.quiet_until = now.monotonic + self.rule.cooldown;
                incidents.new.push(Incident {
                    number,
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
        let busy = match &self.judge {
            Judge::Intrusion(intrusion) => intrusion.waiting().next().is_some(),
            Judge::Crossing(_) | Judge::Stopped(_) | Judge::Hazard(_) => !self.alerted.is_empty(),
        };
        self.clear = if busy { None } else { self.clear.or(Some(now.monotonic)) };
    }
}

/// What a rule looks at.
pub(crate) struct Surroundings<'a> {
    /// The live tracks; those seen in this frame have its time.
    pub(crate) tracks: &'a [Track],
    /// The scores that count.
    pub(crate) thresholds: &'a Thresholds,
    /// The site's.
    pub(crate) time_zone: &'a TimeZone,
}

/// What one frame gives rise to.
pub(crate) struct Incidents<'a> {
    /// The number of the last incident of the scene.
    pub(crate) last: &'a mut u64,
    /// Those of this frame.
    pub(crate) new: Vec<Incident>,
}

impl Incidents<'_> {
    fn next(&mut self) -> u64 {
        *self.last += 1;
        *self.last
    }
}

/// From when until when something was seen outside, or did not count, since it was last seen inside.
type Outside = Option<(Duration, Duration)>;

/// Seen outside, too.
fn outside_at(now: Duration, before: Outside) -> Outside {
    Some((before.map_or(now, |(first, _)| first), now))
}

/// Whether what was seen outside has left: less is a flicker. What was hidden in between may have been anywhere.
fn has_left(outside: Outside) -> bool {
    outside.is_some_and(|(first, last)| last.saturating_sub(first) >= FLICKER)
}

/// How much of the time is done that ends when something is due, 0 to 1.
fn share_done(now: Duration, due: Duration, time: Duration) -> f32 {
    let left = due.saturating_sub(now).as_secs_f32();
    (1.0 - left / time.as_secs_f32().max(f32::EPSILON)).clamp(0.0, 1.0)
}

impl RuleKind {
    /// What the alert is called.
    pub fn alert(&self) -> AlertKind {
        match self {
            Self::Intrusion { .. } => AlertKind::Intrusion,
            Self::Crossing { .. } => AlertKind::Crossing,
            Self::StoppedVehicle { .. } => AlertKind::StoppedVehicle,
            Self::Hazard { .. } => AlertKind::Hazard,
        }
    }

    /// How long a rule that knows nothing of before has to look until it can say that nobody breaks it.
    pub fn settles_after(&self) -> Duration {
        let takes = match self {
            Self::Intrusion { dwell: takes, .. } | Self::StoppedVehicle { time: takes, .. } => *takes,
            Self::Crossing { .. } | Self::Hazard { .. } => Duration::ZERO,
        };
        takes + CLEARS
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
