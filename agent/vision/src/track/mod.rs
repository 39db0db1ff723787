//! Detections of one object over time, within one camera and one visit.
//!
//! After ByteTrack (Zhang et al. 2022): where a track should be by now comes out of a Kalman filter ([`motion`]); the
//! detections with a good score are given to the tracks first, then those with a low one to the tracks that are left,
//! because something half hidden is seen badly and not gone; what is new is on probation until it is seen again. What only
//! low scores show is no track yet, but its place is kept for a moment and takes part: whoever steps in front of somebody
//! is seen badly at first, and is not to be taken for the other when his score gets better.
//!
//! Association is by place alone: there is no appearance to compare, so that nothing could link a person to another
//! visit or camera.

mod motion;

use std::collections::BTreeMap;
use std::time::Duration;

use sharp_eyes_protocol::class::ObjectClass;

use crate::detection::{Detection, Thresholds};
use crate::geometry::Rect;
use motion::Motion;

/// One object.
#[derive(Clone, Debug)]
pub struct Track {
    id: u64,
    votes: BTreeMap<ObjectClass, u32>,
    bounds: Rect,
    score: f32,
    motion: Motion,
    seen: Duration,
    faintly: Option<Sighting>,
    standing: Standing,
}

/// One look at an object.
#[derive(Clone, Copy, Debug)]
pub struct Sighting {
    /// When.
    pub at: Duration,
    /// Where.
    pub bounds: Rect,
    /// With what score, 0 to 1.
    pub score: f32,
}

/// How much there is to say that something is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// Low scores alone.
    Faint,
    /// One good score.
    New,
    /// More than that.
    Confirmed,
}

/// Whether a score is above its class's threshold, or just above half of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Score {
    Good,
    Low,
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

    /// Whether it was seen more than once, or frames come so rarely that nothing could be. What is not may be a
    /// whim of the detector.
    pub fn is_confirmed(&self) -> bool {
        self.standing == Standing::Confirmed
    }

    /// The first look at it, where that was too faint for a track.
    pub fn faintly(&self) -> Option<Sighting> {
        self.faintly
    }

    fn start(now: Duration, detection: &Detection, standing: Standing) -> Self {
        let Detection { class, score, bounds } = *detection;
        Self {
            id: 0, // until it is a track
            votes: BTreeMap::from([(class, 1)]),
            bounds,
            score,
            motion: Motion::start(now, bounds),
            seen: now,
            faintly: (standing == Standing::Faint).then_some(Sighting { at: now, bounds, score }),
            standing,
        }
    }

    /// Its motion is predicted for `now` already.
    fn update(&mut self, now: Duration, detection: &Detection, score: Score) {
        self.motion.correct(detection.bounds, detection.score);
        *self.votes.entry(detection.class).or_default() += 1;
        (self.bounds, self.score, self.seen) = (detection.bounds, detection.score, now);
        self.standing = match (self.standing, score) {
            (Standing::Faint, Score::Low) => Standing::Faint,
            (Standing::Faint, Score::Good) => Standing::New,
            (Standing::New | Standing::Confirmed, _) => Standing::Confirmed,
        };
    }
}

/// How long an object may stay unseen, behind a post or a passing van, and still be the same.
pub const GAP_MAX: Duration = Duration::from_secs(2);

/// How long something new may stay unseen, or faint, before it was nothing.
const PROBATION: Duration = Duration::from_millis(500);

/// Most tracks at once; what does not fit is not tracked until a place is free, and counted. A picture in which
/// 128 objects can be told apart does not exist at these sizes, so that more mean a broken model or a fair, and
/// association takes their number times that of the detections.
pub const TRACKS_MAX: usize = 128;

/// Tracks of one camera.
#[derive(Clone, Debug)]
pub struct Tracker {
    thresholds: Thresholds,
    tracks: Vec<Track>,
    /// What may become one; as many at most.
    faint: Vec<Track>,
    next: u64,
    overflow: u64,
    observed: Option<Duration>,
}

impl Tracker {
    /// No tracks.
    pub fn new(thresholds: Thresholds) -> Self {
        let (tracks, faint) = (Vec::new(), Vec::new());
        Self { thresholds, tracks, faint, next: 1, overflow: 0, observed: None }
    }

    /// The live tracks; those seen in the last frame have its time in [`Track::seen`].
    pub fn tracks(&self) -> &[Track] {
        &self.tracks
    }

    /// The scores that start a track.
    pub(crate) fn thresholds(&self) -> &Thresholds {
        &self.thresholds
    }

    pub(crate) fn set_thresholds(&mut self, thresholds: Thresholds) {
        self.thresholds = thresholds;
    }

    /// How many detections were not tracked because [`TRACKS_MAX`] were.
    pub fn overflow(&self) -> u64 {
        self.overflow
    }

    /// The camera slept until now, because nothing changed in front of it: what was there is there, and stands. What was out
    /// of sight already has been so for no longer than before.
    pub fn resume(&mut self, now: Duration) {
        let Some(last) = self.observed else { return };
        let before = now.saturating_sub(Duration::from_millis(1)).max(last);
        self.faint.clear();
        self.tracks.retain(|track| track.is_confirmed() && last.saturating_sub(track.seen) <= GAP_MAX);
        for track in &mut self.tracks {
            track.seen += before - last;
            track.motion = Motion::start(before, track.bounds);
        }
        self.observed = Some(before);
    }

    /// Takes the detections of one frame, best score first. Frames may come at any rate and with gaps.
    ///
    /// A detection above its class's threshold starts a track; one above half of it continues a track, or is kept for a
    /// moment because it may become one.
    pub fn observe(&mut self, now: Duration, detections: &[Detection]) {
        let gone = |since: Duration, limit: Duration| now.saturating_sub(since) > limit;
        let first = self.observed.replace(now).is_none_or(|last| gone(last, GAP_MAX));
        self.tracks.retain(|track| !gone(track.seen, GAP_MAX));
        self.faint.retain(|track| track.faintly.is_some_and(|first| !gone(first.at, PROBATION)));
        // The faint take part, behind the others.
        let count = self.tracks.len();
        self.tracks.append(&mut self.faint);
        for track in &mut self.tracks {
            track.motion.predict(now);
        }

        let (good, low) = self.distinct(detections);
        let mut open: Vec<usize> = (0..self.tracks.len()).collect();
        let good = self.associate(now, &mut open, good, Score::Good);
        open.retain(|&track| self.tracks[track].standing != Standing::New);
        let low = self.associate(now, &mut open, low, Score::Low);

        let faint = self.tracks.split_off(count);
        self.tracks.retain(|track| track.is_confirmed() || !gone(track.seen, PROBATION));
        let (seen_well, faint): (Vec<_>, Vec<_>) =
            faint.into_iter().partition(|track| track.standing != Standing::Faint);
        let standing = if first { Standing::Confirmed } else { Standing::New };
        let new = good.into_iter().map(|detection| Track::start(now, detection, standing));
        self.admit(seen_well.into_iter().chain(new));
        self.faint = faint;
        self.faint.extend(low.into_iter().map(|detection| Track::start(now, detection, Standing::Faint)));
        self.faint.truncate(TRACKS_MAX);
    }

    /// Numbers what is a track from now on.
    fn admit(&mut self, new: impl Iterator<Item = Track>) {
        for track in new {
            if self.tracks.len() < TRACKS_MAX {
                self.tracks.push(Track { id: self.next, ..track });
                self.next += 1;
            } else {
                self.overflow += 1;
            }
        }
    }

    /// The detections with a good and with a low score, each object once.
    fn distinct<'d>(&self, detections: &'d [Detection]) -> (Vec<&'d Detection>, Vec<&'d Detection>) {
        let good = |d: &&Detection| d.score >= self.thresholds.of(d.class);
        let low = |d: &&Detection| d.score >= self.thresholds.of(d.class) / 2.0;
        let mut distinct: Vec<&Detection> = Vec::new();
        for detection in detections.iter().filter(low) {
            if !distinct.iter().any(|better| doubles(better, detection)) {
                distinct.push(detection);
            }
        }
        distinct.into_iter().partition(good)
    }

    /// Gives detections to the tracks in `open`, the closest pair first, and returns what is left.
    ///
    /// Greedy, because the best assignment over all was measured and is no better: with it, identity switches on
    /// PETS09-S2L1 were 162 instead of 162 over two models and three rates, and IDF1 0.671 instead of 0.687.
    fn associate<'d>(
        &mut self,
        now: Duration,
        open: &mut Vec<usize>,
        mut detections: Vec<&'d Detection>,
        score: Score,
    ) -> Vec<&'d Detection> {
        let least = if score == Score::Good { GOOD_AFFINITY } else { LOW_AFFINITY };
        let mut pairs = Vec::new();
        for &index in &*open {
            let track = &self.tracks[index];
            let (class, predicted) = (track.class(), widened(track.motion.bounds()));
            let trust = if track.is_confirmed() { 1.0 } else { UNCONFIRMED };
            for &detection in &detections {
                let affinity = predicted.iou(&widened(detection.bounds));
                if family(class) == family(detection.class) && affinity >= least {
                    pairs.push((affinity * trust, index, detection));
                }
            }
        }
        pairs.sort_by(|a, b| b.0.total_cmp(&a.0));
        for (_, track, detection) in pairs {
            let left = detections.iter().position(|&left| std::ptr::eq(left, detection));
            if let (Some(left), Some(place)) = (left, open.iter().position(|&left| left == track)) {
                self.tracks[track].update(now, detection, score);
                detections.remove(left);
                open.remove(place);
            }
        }
        detections
    }
}

/// The least overlap of a widened prediction with a widened detection of a good score for one object. Boxes of equal
/// size reach it when they lie one box width apart: what a walker covers between two frames at 2.5 a second.
const GOOD_AFFINITY: f32 = 0.2;

/// The same for one of a low score, which is more often something else.
const LOW_AFFINITY: f32 = 0.3;

/// How much less the overlap with something unconfirmed counts: it may be a second box of what is known.
const UNCONFIRMED: f32 = 0.8;

/// A box of one and a half times the size: what is small or quick leaves its own box between two frames (buffered IoU,
/// Yang et al. 2023).
fn widened(Rect { left, top, width, height }: Rect) -> Rect {
    Rect { left: left - width / 4.0, top: top - height / 4.0, width: width * 1.5, height: height * 1.5 }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays objects, and compares which tracks followed each of them, in order.
    ///
    /// An object is `CLASS FROM-TO X>X SCORE`: from one second up to another it is detected, on its way; after
    /// ` but FROM-TO SCORE` with another score in between, 0 for not at all. `intervals` are the seconds between
    /// frames, over and over again.
    fn check(intervals: &[f64], objects: &[&str], expected: &[&[u64]]) {
        let mut tracker = Tracker::new(Thresholds::default());
        let mut followed: Vec<Vec<u64>> = vec![Vec::new(); objects.len()];
        let mut seconds = 0.0;
        for interval in intervals.iter().cycle() {
            if seconds > 20.0 {
                break;
            }
            let seen: Vec<_> = objects.iter().map(|object| detection(object, seconds)).collect();
            let mut detections: Vec<_> = seen.iter().flatten().copied().collect();
            detections.sort_by(|a, b| b.score.total_cmp(&a.score));
            let now = Duration::from_secs_f64(seconds);
            tracker.observe(now, &detections);
            for (seen, followed) in seen.iter().zip(&mut followed) {
                let is_it = |track: &&Track| seen.is_some_and(|seen| seen.bounds == track.bounds);
                let now = tracker.tracks.iter().filter(|track| track.is_confirmed() && track.seen == now);
                if let Some(track) = now.clone().find(is_it)
                    && followed.last() != Some(&track.id)
                {
                    followed.push(track.id);
                }
            }
            seconds += interval;
        }
        assert_eq!(followed, expected, "{objects:?}, frames every {intervals:?} s");
    }

    fn detection(object: &str, seconds: f64) -> Option<Detection> {
        let number = |text: &str| text.parse::<f64>().unwrap();
        let pair = |text: &str, separator| {
            let (a, b) = text.split_once(separator).unwrap();
            (number(a), number(b))
        };
        let during = |(from, to): (f64, f64)| (from..to).contains(&seconds);
        let words: Vec<&str> = object.split_whitespace().collect();
        let [class, span, way, score, ref exception @ ..] = words[..] else { panic!("{object:?}") };
        let ((from, to), (start, end)) = (pair(span, '-'), pair(way, '>'));
        let score = match exception {
            ["but", span, score] if during(pair(span, '-')) => number(score),
            _ => number(score),
        };
        let left = start + (end - start) * (seconds - from) / (to - from);
        let bounds = Rect { left: left as f32, top: 0.5, width: 0.06, height: 0.16 };
        let seen = during((from, to)) && score > 0.0;
        seen.then(|| Detection { class: class.parse().unwrap(), score: score as f32, bounds })
    }

    const RATES: [&[f64]; 4] = [&[1.0 / 15.0], &[0.1], &[0.2], &[0.4]];

    #[test]
    fn who_walks_is_one_track_at_any_rate_of_frames() {
        for rate in RATES {
            check(rate, &["person 1-8 0>.9 .9"], &[&[1]]);
            check(rate, &["person 1-8 0>.5 .9", "person 1-8 .2>.7 .8"], &[&[1], &[2]]);
        }
        check(&[1.0], &["person 0-20 .1>.6 .9"], &[&[1]]);
        check(&[0.07, 0.4, 0.1, 0.9, 0.2], &["person 1-15 .1>.9 .9"], &[&[1]]);
    }

    #[test]
    fn who_is_hidden_for_a_short_while_comes_out_where_expected() {
        for rate in RATES {
            check(rate, &["person 1-15 0>.8 .9 but 5-6.5 0"], &[&[1]]);
            check(rate, &["person 1-15 0>.8 .9 but 5-8 0"], &[&[1, 2]]);
        }
        // A camera that sleeps for a minute has not seen that it is the same.
        check(&[0.2, 0.2, 0.2, 60.0], &["person 0-90 .5>.5 .9"], &[&[1]]);
        check(&[0.2, 0.2, 0.2, 10.0], &["person 0-90 .5>.5 .9"], &[&[1, 2]]);
    }

    #[test]
    fn who_stood_there_when_the_camera_fell_asleep_is_the_same_when_it_wakes() {
        let seconds = Duration::from_secs_f64;
        let mut tracker = Tracker::new(Thresholds::default());
        let seen = |tracker: &mut Tracker, at: f64, text: &[&str]| {
            let detections: Vec<_> = text.iter().filter_map(|object| detection(object, 1.0)).collect();
            tracker.observe(seconds(at), &detections);
            tracker
                .tracks()
                .iter()
                .filter(|track| track.seen() == seconds(at))
                .map(Track::id)
                .collect::<Vec<_>>()
        };
        let stands = "person 0-9 .5>.5 .9";
        for frame in 0..5 {
            assert_eq!(seen(&mut tracker, f64::from(frame) * 0.2, &[stands]), [1]);
        }
        tracker.resume(seconds(3600.0));
        assert_eq!(seen(&mut tracker, 3600.2, &[stands, "person 0-9 .1>.1 .9"])[0], 1);
        // Who is not there any more is forgotten as usual.
        tracker.resume(seconds(7200.0));
        assert_eq!(seen(&mut tracker, 7200.2, &[]), [0_u64; 0]);
        assert_eq!(seen(&mut tracker, 7203.0, &[]), [0_u64; 0]);
        assert_eq!(tracker.tracks().len(), 0);
        // Who was out of sight when it fell asleep is so when it wakes, and the next one at that place is another.
        assert_eq!(seen(&mut tracker, 7204.0, &[stands]), [3]);
        assert_eq!(seen(&mut tracker, 7204.2, &[stands]), [3]);
        assert_eq!(seen(&mut tracker, 7205.7, &[]), [0_u64; 0]);
        tracker.resume(seconds(9000.0));
        assert_eq!(seen(&mut tracker, 9000.0, &[]), [0_u64; 0]);
        tracker.resume(seconds(9600.0));
        seen(&mut tracker, 9600.6, &[stands]);
        assert_eq!(seen(&mut tracker, 9600.8, &[stands]), [4]);
    }

    #[test]
    fn a_low_score_goes_on_with_a_track_but_does_not_start_one() {
        for rate in RATES {
            check(rate, &["person 1-15 .1>.6 .9 but 4-12 .3"], &[&[1]]);
            check(rate, &["person 1-15 .1>.6 .9 but 4-12 .2"], &[&[1, 2]]);
            check(rate, &["person 1-15 .1>.6 .3"], &[&[]]);
        }
    }

    #[test]
    fn what_is_seen_once_is_nothing_unless_frames_are_rare() {
        check(&[0.1], &["person 0-9 .1>.1 .9", "person 5.02-5.12 .5>.5 .9"], &[&[1], &[]]);
        check(&[0.1], &["person 0-9 .1>.1 .9", "person 5.02-5.22 .5>.5 .9"], &[&[1], &[2]]);
        check(&[6.0], &["person 5-14 .5>.5 .9"], &[&[1, 2]]);
    }

    #[test]
    fn who_pass_each_other_keep_their_tracks() {
        for rate in RATES {
            check(rate, &["person 1-9 .2>.8 .9", "person 1-9 .81>.2 .8"], &[&[1], &[2]]);
        }
    }

    #[test]
    fn who_steps_in_front_of_somebody_is_not_taken_for_him() {
        for rate in [&[1.0 / 15.0], &[0.1], &[0.2]] {
            let hidden = "person 1-5 .5>.5 .9";
            check(rate, &[hidden, "person 4.8-9 .53>.53 .9 but 4.8-5.2 .3"], &[&[1], &[2]]);
            // Unseen until the other is gone, he could be either.
            check(rate, &[hidden, "person 5.2-9 .53>.53 .9"], &[&[1], &[1]]);
        }
    }

    #[test]
    fn what_stays_faint_is_kept_for_a_moment_and_never_grows() {
        let mut tracker = Tracker::new(Thresholds::default());
        let at = |column: u16| Rect { left: f32::from(column) / 400.0, top: 0.5, width: 0.002, height: 0.01 };
        let detection = |column| Detection { class: ObjectClass::Person, score: 0.3, bounds: at(column) };
        let crowd: Vec<_> = (0..400).map(detection).collect();
        for frame in 0..20 {
            tracker.observe(Duration::from_millis(100 * frame), &crowd);
            assert!(tracker.tracks().is_empty() && tracker.faint.len() <= TRACKS_MAX);
        }
        tracker.observe(Duration::from_millis(2500), &[]);
        assert!(tracker.faint.is_empty());
    }

    #[test]
    fn a_track_keeps_to_its_family_of_classes() {
        check(&[0.2], &["car 1-5 .5>.5 .9", "truck 5-9 .5>.5 .9"], &[&[1], &[1]]);
        check(&[0.2], &["dog 1-5 .5>.5 .9", "person 5-9 .5>.5 .9"], &[&[1], &[2]]);
        check(&[0.2], &["car 1-9 .5>.5 .9", "truck 1-9 .5>.5 .8"], &[&[1], &[1]]);
    }
}
