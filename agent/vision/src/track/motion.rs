//! Where a box should be by now: a Kalman filter at constant velocity.
//!
//! The four numbers of a box are filtered each for itself, because neither model nor noise ties them to each other:
//! the filter of 8 states that SORT and ByteTrack use falls apart into these. Its step is any time, not a frame, with
//! white noise as acceleration (Bar-Shalom, Li and Kirubarajan 2001, 6.2.2), so that one prediction over a gap is the
//! same as several over its parts.

use std::time::Duration;

use crate::geometry::{Point, Rect};

/// Standard deviation of a detected place, in sides of the box: how much boxes jitter.
const JITTER: f32 = 0.08;

/// How much more the variance of that is at score 0 than at score 1 (as NSA Kalman, Du et al. 2021): a half hidden
/// object has a low score and a box that lies beside it.
const DOUBT: f32 = 2.0;

/// Spread of the speed at which something appears, in sides of the box per second.
const SPEED: f32 = 0.8;

/// How quickly speeds change, in sides of the box per second, within a second.
const TURN: f32 = 0.5;

/// How quickly sizes change, in parts of the size, within a second.
const GROWTH: f32 = 0.1;

/// What is believed about a box.
#[derive(Clone, Debug)]
pub(super) struct Motion {
    at: Duration,
    x: Axis,
    y: Axis,
    width: Side,
    height: Side,
}

/// A centre along one axis.
#[derive(Clone, Debug)]
struct Axis {
    place: f32,
    speed: f32,
    /// Variances of place and speed, and between them their covariance.
    variance: (f32, f32, f32),
}

/// Width or height: it changes, but nobody knows whereto.
#[derive(Clone, Debug)]
struct Side {
    length: f32,
    variance: f32,
}

impl Motion {
    /// Seen for the first time.
    pub(super) fn start(now: Duration, bounds: Rect) -> Self {
        let Point { x, y } = bounds.centre();
        let axis = |place: f32, side: f32| Axis {
            place,
            speed: 0.0,
            variance: (square(JITTER * side), 0.0, square(SPEED * side)),
        };
        let side = |length: f32| Side { length, variance: square(JITTER * length) };
        Self {
            at: now,
            x: axis(x, bounds.width),
            y: axis(y, bounds.height),
            width: side(bounds.width),
            height: side(bounds.height),
        }
    }

    /// Where it should be.
    pub(super) fn bounds(&self) -> Rect {
        let (width, height) = (self.width.length, self.height.length);
        Rect { left: self.x.place - width / 2.0, top: self.y.place - height / 2.0, width, height }
    }

    /// Lets time pass.
    pub(super) fn predict(&mut self, now: Duration) {
        let elapsed = now.saturating_sub(self.at).as_secs_f32();
        self.at = self.at.max(now);
        for (axis, side) in [(&mut self.x, &mut self.width), (&mut self.y, &mut self.height)] {
            axis.predict(elapsed, square(TURN * side.length));
            side.variance += square(GROWTH * side.length) * elapsed;
        }
    }

    /// Corrects it by what was detected at the time that it was predicted for.
    pub(super) fn correct(&mut self, bounds: Rect, score: f32) {
        let Point { x, y } = bounds.centre();
        let doubt = 1.0 + DOUBT * (1.0 - score);
        let measured = [
            (&mut self.x, x, &mut self.width, bounds.width),
            (&mut self.y, y, &mut self.height, bounds.height),
        ];
        for (axis, place, side, length) in measured {
            let noise = square(JITTER * side.length) * doubt;
            axis.correct(place, noise);
            side.correct(length, noise);
        }
    }
}

impl Axis {
    fn predict(&mut self, elapsed: f32, turn: f32) {
        let (place, both, speed) = self.variance;
        let t = elapsed;
        self.place += self.speed * t;
        self.variance = (
            place + 2.0 * t * both + t * t * speed + turn * t * t * t / 3.0,
            both + t * speed + turn * t * t / 2.0,
            speed + turn * t,
        );
    }

    fn correct(&mut self, place: f32, noise: f32) {
        let (variance, both, speed) = self.variance;
        let (gain, speed_gain) = (variance / (variance + noise), both / (variance + noise));
        let surprise = place - self.place;
        self.place += gain * surprise;
        self.speed += speed_gain * surprise;
        self.variance = ((1.0 - gain) * variance, (1.0 - gain) * both, speed - speed_gain * both);
    }
}

impl Side {
    fn correct(&mut self, length: f32, noise: f32) {
        let gain = self.variance / (self.variance + noise);
        self.length += gain * (length - self.length);
        self.variance *= 1.0 - gain;
    }
}

fn square(value: f32) -> f32 {
    value * value
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(left: f32) -> Rect {
        Rect { left, top: 0.4, width: 0.1, height: 0.2 }
    }

    fn seconds(seconds: f32) -> Duration {
        Duration::from_secs_f32(seconds)
    }

    #[test]
    fn it_learns_a_speed_and_goes_on_with_it() {
        let mut motion = Motion::start(seconds(0.0), at(0.0));
        for step in 1..=20u8 {
            motion.predict(seconds(f32::from(step) * 0.2));
            motion.correct(at(f32::from(step) * 0.02), 0.9);
        }
        motion.predict(seconds(5.0));
        assert!((motion.bounds().left - 0.5).abs() < 0.01, "{motion:?}");
        assert!((motion.bounds().width - 0.1).abs() < 1e-6, "{motion:?}");
    }

    #[test]
    fn a_detection_with_a_low_score_is_believed_less() {
        let moved = |score| {
            let mut motion = Motion::start(seconds(0.0), at(0.0));
            motion.predict(seconds(0.2));
            motion.correct(at(0.05), score);
            motion.bounds().left
        };
        assert!(0.0 < moved(0.1) && moved(0.1) < moved(0.9) && moved(0.9) < 0.05);
    }

    proptest! {
        #[test]
        fn one_prediction_is_the_same_as_several(
            seen in prop::collection::vec((0.0f32..1.0, 0.01f32..2.0, 0.0f32..=1.0), 1..10),
            parts in (0.0f32..2.0, 0.0f32..2.0),
        ) {
            let mut motion = Motion::start(seconds(0.0), at(0.5));
            let mut now = 0.0;
            for (left, elapsed, score) in seen {
                now += elapsed;
                motion.predict(seconds(now));
                motion.correct(at(left), score);
            }
            let (mut once, mut twice) = (motion.clone(), motion);
            once.predict(seconds(now + parts.0 + parts.1));
            twice.predict(seconds(now + parts.0));
            twice.predict(seconds(now + parts.0 + parts.1));
            for (a, b) in [(once.x, twice.x), (once.y, twice.y)] {
                let near = |a: f32, b: f32| (a - b).abs() <= 1e-3 * (1.0 + a.abs());
                prop_assert!(near(a.place, b.place) && near(a.speed, b.speed));
                let (place, both, speed) = a.variance;
                prop_assert!(near(place, b.variance.0) && near(both, b.variance.1) && near(speed, b.variance.2));
                prop_assert!(place > 0.0 && speed > 0.0 && both * both <= place * speed * 1.001);
            }
        }
    }
}
