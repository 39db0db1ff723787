//! Where objects stand still: over short occlusions, and over tracks that end because a detector lost sight of what is
//! there all the same.
//!
//! A track ends after two seconds without a detection, and what is seen again at the same place then is a new one. A
//! parked car, a scarecrow or a poster must not alarm anew for it: its place is remembered.

use std::time::Duration;

use super::Scores;
use crate::geometry::Rect;
use crate::track::{GAP_MAX, Track};

/// How far a foot may lie from where the object came to rest, in sides of its box: boxes jitter.
const RADIUS: f32 = 0.3;

/// How long it has to lie farther away before the object has moved: one bad box is no move.
const MOVED: Duration = Duration::from_secs(2);

/// In what time the place follows a box that changes slowly, as with shadows over a day. What goes on at more than
/// [`RADIUS`] in this time moves.
const FOLLOWS: Duration = Duration::from_secs(60);

/// The least overlap of a new object with a place for being what stood there.
const SAME: f32 = 0.5;

/// How long a place is remembered in which nothing is seen, in time in which frames were looked at: a van in front.
const OCCLUDED: Duration = Duration::from_secs(30);

/// The same for what has alarmed already. Longer than a detector is blind for what it sees badly at dusk.
const ALARMED: Duration = Duration::from_secs(600);

/// Most places of one rule at once; beyond it, the one that has been out of sight for longest is forgotten.
const PLACES_MAX: usize = 256;

/// Something that stands, or stood when it was last seen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    track: u64,
    bounds: Rect,
    since: Duration,
    seen: Duration,
    /// Since when its foot has been elsewhere.
    away: Option<Duration>,
    /// Time without a sight of it in which frames were looked at.
    unseen: Duration,
    scores: Scores,
    /// The incident that the rule has alarmed for, if it has.
    pub(super) alarmed: Option<u64>,
}

impl Place {
    fn new(track: &Track) -> Self {
        let mut scores = Scores::default();
        scores.add(track.score());
        let (bounds, seen) = (track.bounds(), track.seen());
        let unseen = Duration::ZERO;
        Self { track: track.id(), bounds, since: seen, seen, away: None, unseen, scores, alarmed: None }
    }

    /// When it came to rest.
    pub(super) fn since(&self) -> Duration {
        self.since
    }

    /// Where it stands.
    pub(super) fn bounds(&self) -> Rect {
        self.bounds
    }

    /// The mean score since it came to rest.
    pub(super) fn score(&self) -> f32 {
        self.scores.mean()
    }

    /// The track that was seen there last.
    pub(super) fn track(&self) -> u64 {
        self.track
    }

    /// Whether it is on its way elsewhere.
    pub(super) fn is_leaving(&self) -> bool {
        self.away.is_some()
    }

    /// Whether it was seen within the time that the tracker bridges.
    pub(super) fn is_in_sight(&self) -> bool {
        self.unseen <= GAP_MAX
    }

    /// The incident that is over with it, where it has moved and may alarm anew; else it takes its incident along.
    fn see(&mut self, track: &Track, anew: bool) -> Option<u64> {
        let mut over = None;
        let (bounds, foot, now) = (self.bounds, track.bounds().foot(), track.seen());
        let (dx, dy) = (foot.x - bounds.foot().x, foot.y - bounds.foot().y);
        if (dx / bounds.width.max(f32::MIN_POSITIVE)).hypot(dy / bounds.height.max(f32::MIN_POSITIVE))
            > RADIUS
        {
            let away = *self.away.get_or_insert(now);
            if now.saturating_sub(away) >= MOVED {
                let alarmed = self.alarmed;
                *self = Self::new(track);
                *if anew { &mut over } else { &mut self.alarmed } = alarmed;
            }
        } else {
            let passed = now.saturating_sub(self.seen).as_secs_f32() / FOLLOWS.as_secs_f32();
            let follow = |from: f32, to: f32| from + (to - from) * passed.min(1.0);
            let to = track.bounds();
            self.bounds = Rect {
                left: follow(bounds.left, to.left),
                top: follow(bounds.top, to.top),
                width: follow(bounds.width, to.width),
                height: follow(bounds.height, to.height),
            };
            self.away = None;
            self.scores.add(track.score());
        }
        (self.track, self.seen, self.unseen) = (track.id(), now, Duration::ZERO);
        over
    }
}

/// The places of one rule.
#[derive(Clone, Debug)]
pub(super) struct Places {
    places: Vec<Place>,
    settles: Duration,
    /// Whether what has moved may alarm anew.
    anew: bool,
    observed: Option<Duration>,
    /// Incidents whose objects have moved, or were out of sight for long. Those of objects that may not alarm anew end
    /// otherwise, and are none.
    over: Vec<u64>,
}

impl Places {
    /// None. An object has to have stood for `settles` before a new track at its place is taken for it: people come
    /// out of one door, one after the other. Where it has moved, it may alarm `anew` or not.
    pub(super) fn new(settles: Duration, anew: bool) -> Self {
        Self { places: Vec::new(), settles, anew, observed: None, over: Vec::new() }
    }

    /// Takes one frame: all live tracks, of which those with its time that the rule is about `count`.
    pub(super) fn observe(&mut self, now: Duration, tracks: &[Track], counts: impl Fn(&Track) -> bool) {
        let last = self.observed.replace(now).unwrap_or(now);
        let passed = now.saturating_sub(last).min(GAP_MAX);
        for place in &mut self.places {
            place.unseen += passed;
        }
        for track in tracks.iter().filter(|track| track.seen() == now && counts(track)) {
            let known = self.places.iter().position(|place| place.track == track.id());
            match known.or_else(|| self.left_behind(track, tracks)) {
                Some(at) => self.over.extend(self.places[at].see(track, self.anew)),
                None => self.places.push(Place::new(track)),
            }
        }
        let lives = |place: &Place| tracks.iter().any(|track| track.id() == place.track);
        self.places.retain(|place| {
            let patience = if place.alarmed.is_some() { ALARMED } else { OCCLUDED };
            let kept = lives(place) || place.unseen <= patience;
            if !kept {
                self.over.extend(place.alarmed);
            }
            kept
        });
        while self.places.len() > PLACES_MAX {
            let oldest = self.places.iter().enumerate().max_by_key(|(_, place)| place.unseen);
            let Some((at, _)) = oldest else { break };
            self.over.extend(self.places.swap_remove(at).alarmed);
        }
        if !self.anew {
            self.over.clear();
        }
    }

    /// The place of a live track.
    pub(super) fn of(&mut self, track: u64) -> Option<&mut Place> {
        self.places.iter_mut().find(|place| place.track == track)
    }

    /// The tracks that were seen last where something has alarmed.
    pub(super) fn alarmed(&self) -> impl Iterator<Item = u64> {
        self.places.iter().filter(|place| place.alarmed.is_some()).map(|place| place.track)
    }

    /// Whether something that has alarmed stands here: a detector may give one vehicle two boxes.
    pub(super) fn have_alarmed_at(&self, bounds: &Rect) -> bool {
        self.places.iter().any(|place| place.alarmed.is_some() && place.bounds.iou(bounds) >= SAME)
    }

    /// The incidents of objects that have moved since the last time, or are forgotten.
    pub(super) fn over(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.over)
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Place> {
        self.places.iter()
    }

    /// The place of a lost track that a new one is seen in.
    fn left_behind(&self, new: &Track, tracks: &[Track]) -> Option<usize> {
        let lost = |place: &Place| tracks.iter().all(|track| track.id() != place.track);
        let settled = |place: &Place| place.seen.saturating_sub(place.since) >= self.settles;
        let overlap = |place: &Place| place.bounds.iou(&new.bounds());
        let fits = |place: &Place| lost(place) && settled(place) && overlap(place) >= SAME;
        let fitting = self.places.iter().enumerate().filter(|(_, place)| fits(place));
        fitting.max_by(|(_, a), (_, b)| overlap(a).total_cmp(&overlap(b))).map(|(at, _)| at)
    }
}

#[cfg(test)]
mod tests {
    use sharp_eyes_protocol::class::ObjectClass;

    use super::*;
    use crate::detection::{Detection, Thresholds};
    use crate::track::Tracker;

    #[test]
    fn what_is_forgotten_is_over_for_those_who_may_alarm_anew_only() {
        for anew in [true, false] {
            let (mut tracker, mut places) =
                (Tracker::new(Thresholds::default()), Places::new(Duration::ZERO, anew));
            let bounds = Rect { left: 0.5, top: 0.5, width: 0.1, height: 0.1 };
            let car = [Detection { class: ObjectClass::Car, score: 0.9, bounds }];
            for second in 0..=620 {
                let now = Duration::from_secs(second);
                tracker.observe(now, if second == 0 { &car } else { &[] });
                places.observe(now, tracker.tracks(), |_| true);
                places.places.iter_mut().for_each(|place| place.alarmed = Some(7));
            }
            assert!(places.places.is_empty());
            assert_eq!(places.over, if anew { vec![7] } else { Vec::new() });
        }
    }
}
