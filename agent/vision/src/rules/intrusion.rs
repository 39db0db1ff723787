//! Something stays in a zone.

use std::collections::HashMap;
use std::time::Duration;

use super::{Outside, Scores, has_left, outside_at, share_done};
use crate::geometry::Polygon;
use crate::track::{Sighting, Track};

/// How long an object may be seen outside of the zone without having left: boxes flicker at the edge.
pub const FLICKER: Duration = Duration::from_secs(1);

/// The zone, and who is in it.
#[derive(Clone, Debug)]
pub(super) struct Intrusion {
    polygon: Polygon,
    dwell: Duration,
    /// By track.
    stays: HashMap<u64, Stay>,
}

/// One uninterrupted time inside.
#[derive(Clone, Copy, Debug)]
struct Stay {
    since: Duration,
    /// When it was seen outside, if it was outside when last seen.
    outside: Outside,
    scores: Scores,
}

impl Intrusion {
    pub(super) fn new(polygon: Polygon, dwell: Duration) -> Self {
        Self { polygon, dwell, stays: HashMap::new() }
    }

    pub(super) fn retain(&mut self, alive: impl Fn(&u64) -> bool) {
        self.stays.retain(|id, _| alive(id));
    }

    /// The tracks inside, and when each has stayed for long enough.
    pub(super) fn waiting(&self) -> impl Iterator<Item = (u64, Duration)> {
        let inside = self.stays.iter().filter(|(_, stay)| stay.outside.is_none());
        inside.map(|(id, stay)| (*id, stay.since + self.dwell))
    }

    /// The tracks inside, and how much of the dwell time each has done, 0 to 1.
    pub(super) fn progress(&self, now: Duration) -> impl Iterator<Item = (u64, f32)> {
        self.waiting().map(move |(id, due)| (id, share_done(now, due, self.dwell)))
    }

    /// The mean score of the stay, where the object is inside and has been for long enough.
    pub(super) fn see(&mut self, now: Duration, track: &Track, counts: bool) -> Option<f32> {
        let inside = counts && self.polygon.contains(track.bounds().foot());
        let before =
            self.stays.remove(&track.id()).or_else(|| self.faint_stay(now, track).filter(|_| counts));
        let stay = next_stay(before, inside, now, track.score())?;
        self.stays.insert(track.id(), stay);
        (inside && now.saturating_sub(stay.since) >= self.dwell).then(|| stay.scores.mean())
    }

    /// The stay of an object that was inside already when it was too faint for a track.
    fn faint_stay(&self, now: Duration, track: &Track) -> Option<Stay> {
        let Sighting { at, bounds, score } = track.faintly()?;
        let just = now.saturating_sub(at) < FLICKER;
        let mut stay = Stay { since: at, outside: None, scores: Scores::default() };
        stay.scores.add(score);
        (just && self.polygon.contains(bounds.foot())).then_some(stay)
    }
}

/// The stay after a frame in which the object was seen inside or outside.
fn next_stay(stay: Option<Stay>, inside: bool, now: Duration, score: f32) -> Option<Stay> {
    let lasting = stay.filter(|stay| !has_left(stay.outside));
    if !inside {
        return lasting.map(|stay| Stay { outside: outside_at(now, stay.outside), ..stay });
    }
    let mut stay = lasting.unwrap_or(Stay { since: now, outside: None, scores: Scores::default() });
    stay.outside = None;
    stay.scores.add(score);
    Some(stay)
}
