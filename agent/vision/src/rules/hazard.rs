//! Something burns, or smokes.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use super::{Outside, has_left, outside_at};
use crate::geometry::{Polygon, Rect};
use crate::track::Track;

/// A box that covers less of the picture may be a thing: a lamp, a traffic cone.
const THING_AREA: f32 = 0.01;

/// A thing's box keeps its place and its sides to this part of them: flames do not.
const THING_SPREAD: f32 = 0.06;

/// How much of the smaller of its first and its last box both cover: what shows less has moved, as headlights do.
const STAYS: f32 = 0.3;

/// To what part of its first size it may have shrunk.
const SHRINKS: f32 = 0.5;

/// How long it may take to make up one's mind about something: a camera does not sleep meanwhile.
const PONDERS: Duration = Duration::from_secs(10);

/// The zone, if it is not everywhere, in how many of how many frames something has to be seen, and what was.
#[derive(Clone, Debug)]
pub(super) struct Hazard {
    polygon: Option<Polygon>,
    seen: u32,
    frames: u32,
    /// Frames so far.
    frame: u64,
    /// By track. Bounded by the tracker, and by `frames`.
    sights: HashMap<u64, Sights>,
}

#[derive(Clone, Debug)]
struct Sights {
    since: Duration,
    /// When it was outside or did not count, if so when last seen.
    outside: Outside,
    recent: VecDeque<Sight>,
}

#[derive(Clone, Copy, Debug)]
struct Sight {
    frame: u64,
    bounds: Rect,
    score: f32,
}

impl Hazard {
    pub(super) fn new(polygon: Option<Polygon>, seen: u32, frames: u32) -> Self {
        Self { polygon, seen, frames, frame: 0, sights: HashMap::new() }
    }

    /// A frame begins, with these tracks alive.
    pub(super) fn begin(&mut self, alive: impl Fn(&u64) -> bool) {
        self.frame += 1;
        self.sights.retain(|id, _| alive(id));
    }

    /// What has been seen for so short a time that it may yet turn out to be something.
    pub(super) fn pondered(&self, now: Duration) -> impl Iterator<Item = u64> {
        let young = move |sights: &Sights| now.saturating_sub(sights.since) < PONDERS;
        self.inside().filter(move |(_, sights)| young(sights)).map(|(id, _)| *id)
    }

    /// What is seen, and in how much of the frames that it takes, 0 to 1.
    pub(super) fn progress(&self) -> impl Iterator<Item = (u64, f32)> {
        let share = |sights: &Sights| (sights.recent.len() as f32 / self.seen as f32).min(1.0);
        self.inside().map(move |(id, sights)| (*id, share(sights)))
    }

    fn inside(&self) -> impl Iterator<Item = (&u64, &Sights)> {
        self.sights.iter().filter(|(_, sights)| sights.outside.is_none())
    }

    /// The mean of the best scores that make it a hazard, where there are enough.
    pub(super) fn see(&mut self, now: Duration, track: &Track, counts: bool) -> Option<f32> {
        let bounds = track.bounds();
        let inside = counts && self.polygon.as_ref().is_none_or(|polygon| polygon.contains(bounds.foot()));
        let lasting = self.sights.remove(&track.id()).filter(|sights| !has_left(sights.outside));
        if !inside {
            if let Some(sights) = lasting {
                self.sights.insert(track.id(), Sights { outside: outside_at(now, sights.outside), ..sights });
            }
            return None;
        }
        let fresh = Sights { since: now, outside: None, recent: VecDeque::new() };
        let sights = self.sights.entry(track.id()).or_insert(lasting.unwrap_or(fresh));
        sights.outside = None;
        let recent = &mut sights.recent;
        recent.push_back(Sight { frame: self.frame, bounds, score: track.score() });
        while recent.front().is_some_and(|first| first.frame + u64::from(self.frames) <= self.frame) {
            recent.pop_front();
        }
        if recent.len() < self.seen as usize || !stays(recent) || is_thing(recent) {
            return None;
        }
        let mut scores: Vec<f32> = recent.iter().map(|sight| sight.score).collect();
        scores.sort_by(|a, b| b.total_cmp(a));
        scores.truncate(self.seen as usize);
        Some(scores.iter().sum::<f32>() / scores.len() as f32)
    }
}

/// At its place, and not much smaller than at first.
fn stays(sights: &VecDeque<Sight>) -> bool {
    let (Some(first), Some(last)) = (sights.front(), sights.back()) else { return false };
    let (first, last) = (first.bounds, last.bounds);
    first.shared_area(&last) >= STAYS * first.area().min(last.area()) && last.area() >= SHRINKS * first.area()
}

/// Small, and always the same.
fn is_thing(sights: &VecDeque<Sight>) -> bool {
    let count = sights.len() as f32;
    let mean = |of: &dyn Fn(&Sight) -> f32| sights.iter().map(of).sum::<f32>() / count;
    let (width, height) = (mean(&|sight| sight.bounds.width), mean(&|sight| sight.bounds.height));
    let spread = |of: &dyn Fn(&Sight) -> f32| {
        let middle = mean(of);
        mean(&|sight| (of(sight) - middle).powi(2)).sqrt()
    };
    let constant = spread(&|sight| sight.bounds.width).max(spread(&|sight| sight.bounds.left))
        < THING_SPREAD * width
        && spread(&|sight| sight.bounds.height).max(spread(&|sight| sight.bounds.top))
            < THING_SPREAD * height;
    width * height < THING_AREA && constant
}
