//! Detections of one object over time, within one camera and one visit.
//!
//! Association is by place alone (predicted box against detected box, in the two passes of ByteTrack, Zhang et al.
//! 2022): there is no appearance to compare, so that nothing could link a person to another visit or camera.

use std::collections::BTreeMap;
use std::time::Duration;

use sharp_eyes_protocol::class::ObjectClass;

use crate::detection::{Detection, Thresholds};
use crate::geometry::{Point, Rect};

/// One object.
#[derive(Clone, Debug)]
pub struct Track {
    id: u64,
    votes: BTreeMap<ObjectClass, u32>,
    bounds: Rect,
    score: f32,
    velocity: Point,
    seen: Duration,
}

impl Track {
    /// Unique within the tracker's life.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The class that most of its detections had; of two with as many, the later in the enum.
    pub fn class(&self) -> ObjectClass {
        let most = self.votes.iter().max_by_key(|(_, votes)| **votes);
        *most.expect("a track starts with a detection").0
    }

    /// Where it was seen last.
    pub fn bounds(&self) -> Rect {
        self.bounds
    }

    /// The score with which it was seen last.
    pub fn score(&self) -> f32 {
        self.score
    }

    /// When it was seen last.
    pub fn seen(&self) -> Duration {
        self.seen
    }

    fn start(id: u64, now: Duration, detection: &Detection) -> Self {
        Self {
            id,
            votes: BTreeMap::from([(detection.class, 1)]),
            bounds: detection.bounds,
            score: detection.score,
            velocity: Point { x: 0.0, y: 0.0 },
            seen: now,
        }
    }

    /// Where it should be by now, at constant velocity.
    fn predicted(&self, now: Duration) -> Rect {
        let ahead = now.saturating_sub(self.seen).min(COAST).as_secs_f32();
        let Rect { left, top, .. } = self.bounds;
        Rect { left: left + self.velocity.x * ahead, top: top + self.velocity.y * ahead, ..self.bounds }
    }

    fn update(&mut self, now: Duration, detection: &Detection) {
        let elapsed = now.saturating_sub(self.seen).as_secs_f32();
        if elapsed > 0.0 {
            let (before, after) = (self.bounds.centre(), detection.bounds.centre());
            let blend = |old: f32, from: f32, to: f32| old + VELOCITY_GAIN * ((to - from) / elapsed - old);
            self.velocity = Point {
                x: blend(self.velocity.x, before.x, after.x),
                y: blend(self.velocity.y, before.y, after.y),
            };
        }
        *self.votes.entry(detection.class).or_default() += 1;
        (self.bounds, self.score, self.seen) = (detection.bounds, detection.score, now);
    }
}

/// How much of a newly measured velocity is believed. Boxes jitter by a few per cent of their size between frames.
const VELOCITY_GAIN: f32 = 0.4;

/// How long an unseen track keeps moving before it waits where it is.
const COAST: Duration = Duration::from_millis(500);

/// How long an object may stay unseen, behind a post or a passing van, and still be the same.
pub const GAP_MAX: Duration = Duration::from_secs(2);

/// Most tracks at once; what does not fit is not tracked until a place is free, and counted. A picture in which
/// 128 objects can be told apart does not exist at these sizes, so that more mean a broken model or a fair, and
/// association takes their number times that of the detections.
pub const TRACKS_MAX: usize = 128;

/// Tracks of one camera.
#[derive(Clone, Debug)]
pub struct Tracker {
    thresholds: Thresholds,
    tracks: Vec<Track>,
    next: u64,
    overflow: u64,
}

impl Tracker {
    /// No tracks.
    pub fn new(thresholds: Thresholds) -> Self {
        Self { thresholds, tracks: Vec::new(), next: 1, overflow: 0 }
    }

    /// The live tracks; those seen in the last frame have its time in [`Track::seen`].
    pub fn tracks(&self) -> &[Track] {
        &self.tracks
    }

    /// The scores that start a track.
    pub(crate) fn thresholds(&self) -> &Thresholds {
        &self.thresholds
    }

    /// How many detections were not tracked because [`TRACKS_MAX`] were.
    pub fn overflow(&self) -> u64 {
        self.overflow
    }

    /// The camera slept until now, because nothing changed in front of it: what was there is there.
    pub fn resume(&mut self, now: Duration) {
        let Some(last) = self.tracks.iter().map(|track| track.seen).max() else { return };
        self.tracks.retain(|track| last.saturating_sub(track.seen) <= GAP_MAX);
        let before = now.saturating_sub(Duration::from_millis(1));
        for track in &mut self.tracks {
            track.seen = track.seen.max(before);
            track.velocity = Point { x: 0.0, y: 0.0 };
        }
    }

    /// Takes the detections of one frame, best score first.
    ///
    /// A detection above its class's threshold starts a track; one above half of it continues a track.
    pub fn observe(&mut self, now: Duration, detections: &[Detection]) {
        self.tracks.retain(|track| now.saturating_sub(track.seen) <= GAP_MAX);

        let strong = |d: &&Detection| d.score >= self.thresholds.of(d.class);
        let weak = |d: &&Detection| d.score >= self.thresholds.of(d.class) / 2.0;
        let mut distinct: Vec<&Detection> = Vec::new();
        for detection in detections.iter().filter(weak) {
            if !distinct.iter().any(|better| doubles(better, detection)) {
                distinct.push(detection);
            }
        }
        let (strong, weak): (Vec<_>, Vec<_>) = distinct.into_iter().partition(strong);

        let mut open: Vec<usize> = (0..self.tracks.len()).collect();
        let unmatched = self.associate(now, &mut open, strong);
        self.associate(now, &mut open, weak);
        for detection in unmatched {
            if self.tracks.len() < TRACKS_MAX {
                self.tracks.push(Track::start(self.next, now, detection));
                self.next += 1;
            } else {
                self.overflow += 1;
            }
        }
    }

    /// Gives detections to the tracks in `open`, the closest pair first, and returns what is left. Greedy: with
    /// velocities the best assignment over all differs from it in dense crowds only.
    fn associate<'d>(
        &mut self,
        now: Duration,
        open: &mut Vec<usize>,
        mut detections: Vec<&'d Detection>,
    ) -> Vec<&'d Detection> {
        let mut pairs = Vec::new();
        for &track in &*open {
            let (class, predicted) = (self.tracks[track].class(), widened(self.tracks[track].predicted(now)));
            for &detection in &detections {
                let affinity = predicted.iou(&widened(detection.bounds));
                if family(class) == family(detection.class) && affinity >= AFFINITY_MIN {
                    pairs.push((affinity, track, detection));
                }
            }
        }
        pairs.sort_by(|a, b| b.0.total_cmp(&a.0));
        for (_, track, detection) in pairs {
            let left = detections.iter().position(|&left| std::ptr::eq(left, detection));
            if let (Some(left), Some(place)) = (left, open.iter().position(|&left| left == track)) {
                self.tracks[track].update(now, detection);
                detections.remove(left);
                open.remove(place);
            }
        }
        detections
    }
}

/// The least overlap of two widened boxes for one object. Boxes of equal size reach it when they lie one box width
/// apart: what a walker covers between two analysed frames at 5 per second.
const AFFINITY_MIN: f32 = 0.3;

/// A box of twice the size: small and quick objects leave their own box between two frames (buffered IoU, Yang et
/// al. 2023).
fn widened(Rect { left, top, width, height }: Rect) -> Rect {
    Rect { left: left - width / 2.0, top: top - height / 2.0, width: width * 2.0, height: height * 2.0 }
}

/// Classes that detectors take for each other from frame to frame. A track keeps to one family.
fn family(class: ObjectClass) -> u8 {
    use ObjectClass::{Bicycle, Bus, Car, Cow, Dog, Fire, Horse, Motorcycle, Person, Sheep, Smoke, Truck};
    match class {
        Person => 0,
        Bicycle | Motorcycle => 1,
        Car | Bus | Truck => 2,
        Dog | Horse | Sheep | Cow => 3,
        Fire => 4,
        Smoke => 5,
    }
}

/// Whether a detection is the same object as a better one under another class of its family: suppression goes
/// class by class and leaves a van both as car and as truck.
fn doubles(better: &Detection, detection: &Detection) -> bool {
    family(better.class) == family(detection.class)
        && better.class != detection.class
        && better.bounds.iou(&detection.bounds) > 0.7
}
