//! Something crosses a line.

use std::collections::HashMap;
use std::time::Duration;

use super::{Outside, Scores, has_left, outside_at};
use crate::geometry::Point;
use crate::track::Track;

/// A straight line between two points of the picture that lie apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tripwire {
    from: Point,
    to: Point,
}

/// Which way a line must not be crossed, as seen by somebody who walks along it in the picture from its first point to
/// its second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the right to the left.
    ToLeft,
    /// From the left to the right.
    ToRight,
    /// Either way.
    Both,
}

/// How far behind the line a foot has to be, in sides of its box, before it has crossed: boxes jitter.
pub(super) const MARGIN: f32 = 0.15;

impl Tripwire {
    /// Checks and wraps the two ends.
    pub fn new(from: Point, to: Point) -> Result<Self, LineError> {
        for (number, point) in [(1, from), (2, to)] {
            if !(0.0..=1.0).contains(&point.x) || !(0.0..=1.0).contains(&point.y) {
                return Err(LineError::Outside { number, x: point.x, y: point.y });
            }
        }
        if from == to { Err(LineError::Empty) } else { Ok(Self { from, to }) }
    }

    /// The two ends.
    pub fn ends(&self) -> [Point; 2] {
        [self.from, self.to]
    }

    /// Positive on the right, with `y` downwards; the line itself is on the right, so that no point is on neither side.
    fn side(&self, point: Point) -> f32 {
        let (dx, dy) = (self.to.x - self.from.x, self.to.y - self.from.y);
        dx * (point.y - self.from.y) - dy * (point.x - self.from.x)
    }

    /// How a straight step crosses the line: 1 to the right, -1 to the left, 0 not at all. The same step back is the
    /// opposite, to the last bit.
    fn crossed(&self, from: Point, to: Point) -> i32 {
        let (left, right, crossed) = match (self.side(from) >= 0.0, self.side(to) >= 0.0) {
            (false, true) => (from, to, 1),
            (true, false) => (to, from, -1),
            _ => return 0,
        };
        let part = self.side(left) / (self.side(left) - self.side(right));
        let (x, y) = (left.x + part * (right.x - left.x), left.y + part * (right.y - left.y));
        let (dx, dy) = (self.to.x - self.from.x, self.to.y - self.from.y);
        let along = ((x - self.from.x) * dx + (y - self.from.y) * dy) / (dx * dx + dy * dy);
        if (0.0..1.0).contains(&along) { crossed } else { 0 }
    }

    /// How far a point lies from the line, where both directions are measured in a scale of their own.
    fn distance(&self, point: Point, scale: (f32, f32)) -> f32 {
        let scaled = |p: Point| Point { x: p.x / scale.0, y: p.y / scale.1 };
        let (a, b, p) = (scaled(self.from), scaled(self.to), scaled(point));
        let (dx, dy) = (b.x - a.x, b.y - a.y);
        let along = ((p.x - a.x) * dx + (p.y - a.y) * dy) / (dx * dx + dy * dy);
        let along = along.clamp(0.0, 1.0);
        (p.x - a.x - along * dx).hypot(p.y - a.y - along * dy)
    }
}

/// The points make no [`Tripwire`].
#[derive(Debug, thiserror::Error, PartialEq)]
#[allow(missing_docs)] // the messages say it
pub enum LineError {
    #[error("point {number} of the line is {x}, {y}: both must be 0 to 1, as fractions of the picture")]
    Outside { number: usize, x: f32, y: f32 },
    #[error("the line begins where it ends")]
    Empty,
}

/// The line, and who is on the way across it.
#[derive(Clone, Debug)]
pub(super) struct Crossing {
    line: Tripwire,
    direction: Direction,
    /// By track.
    paths: HashMap<u64, Path>,
}

/// Where something has come from.
#[derive(Clone, Copy, Debug)]
struct Path {
    foot: Point,
    /// Crossings to the right less those to the left since it came into sight: there and back is 0, and so is the way
    /// around an end.
    crossed: i32,
    /// When it did not count, if it did not when last seen.
    outside: Outside,
    scores: Scores,
}

impl Crossing {
    pub(super) fn new(line: Tripwire, direction: Direction) -> Self {
        Self { line, direction, paths: HashMap::new() }
    }

    pub(super) fn retain(&mut self, alive: impl Fn(&u64) -> bool) {
        self.paths.retain(|id, _| alive(id));
    }

    /// The mean score of the object since it came into sight, where it has crossed the line and is clear of it.
    pub(super) fn see(&mut self, now: Duration, track: &Track, counts: bool) -> Option<f32> {
        let lasting = self.paths.remove(&track.id()).filter(|path| !has_left(path.outside));
        let (bounds, foot) = (track.bounds(), track.bounds().foot());
        if !counts {
            if let Some(path) = lasting {
                self.paths.insert(track.id(), Path { outside: outside_at(now, path.outside), ..path });
            }
            return None;
        }
        let start = Path { foot, crossed: 0, outside: None, scores: Scores::default() };
        let path = self.paths.entry(track.id()).or_insert(lasting.unwrap_or(start));
        path.outside = None;
        path.crossed += self.line.crossed(path.foot, foot);
        path.foot = foot;
        path.scores.add(track.score());
        // Crossed, and still on that side: whoever went around an end has not.
        let right = path.crossed > 0 && self.line.side(foot) > 0.0;
        let left = path.crossed < 0 && self.line.side(foot) < 0.0;
        let forbidden = match self.direction {
            Direction::ToLeft => left,
            Direction::ToRight => right,
            Direction::Both => left || right,
        };
        let clear = || self.line.distance(foot, (bounds.width, bounds.height)) >= MARGIN;
        (forbidden && clear()).then(|| path.scores.mean())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn point() -> impl Strategy<Value = Point> {
        (0.0f32..=1.0, 0.0f32..=1.0).prop_map(|(x, y)| Point { x, y })
    }

    fn line() -> impl Strategy<Value = Tripwire> {
        (point(), point()).prop_filter_map("no line", |(from, to)| Tripwire::new(from, to).ok())
    }

    fn crossings(line: &Tripwire, path: &[Point]) -> i32 {
        path.windows(2).map(|step| line.crossed(step[0], step[1])).sum()
    }

    proptest! {
        #[test]
        fn there_and_back_by_the_same_way_cancels(line in line(), path in prop::collection::vec(point(), 1..20)) {
            let back = path.iter().rev().skip(1);
            let both: Vec<_> = path.iter().chain(back).copied().collect();
            prop_assert_eq!(crossings(&line, &both), 0);
        }

        #[test]
        fn a_path_that_touches_and_turns_does_not_cross(line in line(), start in point(), end in point(), at in 0.01f32..0.99) {
            let [a, b] = line.ends();
            let touched = Point { x: a.x + at * (b.x - a.x), y: a.y + at * (b.y - a.y) };
            prop_assume!((a.x - b.x).hypot(a.y - b.y) > 0.05);
            prop_assume!(line.side(start).min(line.side(end)) > 1e-4 || line.side(start).max(line.side(end)) < -1e-4);
            prop_assert_eq!(crossings(&line, &[start, touched, end]), 0);
        }

        #[test]
        fn a_jittery_way_across_crosses_once(jitter in prop::collection::vec(-0.04f32..0.04, 1..20)) {
            let line = Tripwire::new(Point { x: 0.5, y: 0.0 }, Point { x: 0.5, y: 1.0 }).unwrap();
            let step = |dx: f32| Point { x: 0.5 + dx, y: 0.5 };
            let path: Vec<_> =
                [0.3].into_iter().chain(jitter).chain([-0.3]).map(step).collect();
            prop_assert_eq!(crossings(&line, &path), 1);
        }
    }
}
