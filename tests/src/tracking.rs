//! How well tracks follow the objects, as numbers that others measure too.
//!
//! MOTA and identity switches are those of CLEAR MOT (Bernardin and Stiefelhagen 2008), IDF1 is that of Ristani et al.
//! 2016. Where the papers leave something open, it is done as py-motmetrics does it; `tests/tracking/` compares both.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::AddAssign;

use serde::{Deserialize, Serialize};
use sharp_eyes_vision::geometry::Rect;

use crate::assignment::assign;

/// An object, or a track, in one frame.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sighting {
    /// Number of the frame.
    pub frame: u32,
    /// Which object, or which track.
    pub id: u64,
    /// Where, in pixels or in fractions of the picture.
    pub bounds: Rect,
}

/// What happened in all frames together. Sums of several clips are the tally of all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Boxes of the truth.
    pub objects: u64,
    /// Boxes of the tracks.
    pub found: u64,
    /// Boxes of the truth that no track covers.
    pub misses: u64,
    /// Boxes of tracks that cover no object.
    pub false_alarms: u64,
    /// How often an object was followed by another track than the last time.
    pub switches: u64,
    /// Boxes in which an object was covered by the one track that is taken for its own over the whole clip: the
    /// pairing of objects with tracks that makes this largest.
    pub own: u64,
}

impl Tally {
    /// Multiple object tracking accuracy: 1 less all mistakes per object. It can be negative.
    pub fn mota(&self) -> f64 {
        1.0 - (self.misses + self.false_alarms + self.switches) as f64 / self.objects as f64
    }

    /// The F1 score of the identities: how much of all boxes lies on the own track of its object, 0 to 1.
    pub fn idf1(&self) -> f64 {
        2.0 * self.own as f64 / (self.objects + self.found) as f64
    }

    /// How many of the objects were covered, 0 to 1.
    pub fn recall(&self) -> f64 {
        (self.objects - self.misses) as f64 / self.objects as f64
    }

    /// How many of the tracks' boxes cover an object, 0 to 1.
    pub fn precision(&self) -> f64 {
        (self.found - self.false_alarms) as f64 / self.found as f64
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.objects += other.objects;
        self.found += other.found;
        self.misses += other.misses;
        self.false_alarms += other.false_alarms;
        self.switches += other.switches;
        self.own += other.own;
    }
}

/// Compares tracks with the truth. Boxes cover each other from this `overlap` (intersection over union) on.
///
/// Frame by frame, a pair that covered each other the last time stays one as long as it can; the others are paired so
/// that as many as possible cover each other, and of those ways the one with the largest overlaps.
pub fn compare(truth: &[Sighting], found: &[Sighting], overlap: f32) -> Tally {
    let mut tally = Tally { objects: truth.len() as u64, found: found.len() as u64, ..Tally::default() };
    let mut followed_by: HashMap<u64, u64> = HashMap::new();
    let mut together: BTreeMap<(u64, u64), u64> = BTreeMap::new();
    for (truth, found) in by_frame(truth, found) {
        let covers = |object: usize, track: usize| {
            Some(truth[object].bounds.iou(&found[track].bounds)).filter(|iou| *iou >= overlap)
        };
        for (object, track) in pairs(truth.len(), found.len()) {
            if covers(object, track).is_some() {
                *together.entry((truth[object].id, found[track].id)).or_default() += 1;
            }
        }
        let (mut kept, mut taken) = (BTreeSet::new(), BTreeSet::new());
        for (object, seen) in truth.iter().enumerate() {
            let last = followed_by.get(&seen.id);
            let track = found.iter().position(|track| Some(&track.id) == last);
            if let Some(track) =
                track.filter(|track| !taken.contains(track) && covers(object, *track).is_some())
            {
                kept.insert(object);
                taken.insert(track);
            }
        }
        // A pair is worth more than all overlaps together, so that their number comes first.
        let chosen = assign(truth.len(), found.len(), |object, track| {
            let free = !kept.contains(&object) && !taken.contains(&track);
            covers(object, track).filter(|_| free).map(|iou| f64::from(iou) + truth.len() as f64)
        });
        let mut covered = kept.len() as u64;
        for (object, track) in
            chosen.iter().enumerate().filter_map(|(object, track)| Some((object, (*track)?)))
        {
            covered += 1;
            if followed_by
                .insert(truth[object].id, found[track].id)
                .is_some_and(|last| last != found[track].id)
            {
                tally.switches += 1;
            }
        }
        tally.misses += truth.len() as u64 - covered;
        tally.false_alarms += found.len() as u64 - covered;
    }
    tally.own = own(&together);
    tally
}

/// The tracks without those that cover an object which does not count, one that is too small, say. Frame by frame all
/// objects, whether they count or not, are paired with the tracks first, as TrackEval does for MOTChallenge.
pub fn without_ignored(
    truth: &[Sighting],
    ignored: &[Sighting],
    found: &[Sighting],
    overlap: f32,
) -> Vec<Sighting> {
    let all: Vec<Sighting> = truth.iter().chain(ignored).copied().collect();
    let is_ignored = |seen: &Sighting| ignored.contains(seen);
    let mut left = Vec::new();
    for (objects, found) in by_frame(&all, found) {
        let chosen = assign(objects.len(), found.len(), |object, track| {
            let iou = objects[object].bounds.iou(&found[track].bounds);
            (iou >= overlap).then(|| f64::from(iou))
        });
        let gone: BTreeSet<usize> = chosen
            .iter()
            .zip(&objects)
            .filter(|(_, object)| is_ignored(object))
            .filter_map(|(t, _)| *t)
            .collect();
        left.extend(
            found.iter().enumerate().filter(|(track, _)| !gone.contains(track)).map(|(_, seen)| *seen),
        );
    }
    left
}

/// The sightings of each frame in which there is any, in order.
fn by_frame(truth: &[Sighting], found: &[Sighting]) -> impl Iterator<Item = (Vec<Sighting>, Vec<Sighting>)> {
    let mut frames: BTreeMap<u32, (Vec<Sighting>, Vec<Sighting>)> = BTreeMap::new();
    for seen in truth {
        frames.entry(seen.frame).or_default().0.push(*seen);
    }
    for seen in found {
        frames.entry(seen.frame).or_default().1.push(*seen);
    }
    frames.into_values()
}

fn pairs(rows: usize, columns: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..rows).flat_map(move |row| (0..columns).map(move |column| (row, column)))
}

/// The largest sum of frames together over all ways to give each object one track and each track one object.
fn own(together: &BTreeMap<(u64, u64), u64>) -> u64 {
    let distinct = |ids: BTreeSet<u64>| ids.into_iter().collect::<Vec<_>>();
    let objects = distinct(together.keys().map(|(object, _)| *object).collect());
    let tracks = distinct(together.keys().map(|(_, track)| *track).collect());
    let frames = |object: usize, track: usize| together.get(&(objects[object], tracks[track])).copied();
    let chosen = assign(objects.len(), tracks.len(), |object, track| frames(object, track).map(|n| n as f64));
    chosen.iter().enumerate().filter_map(|(object, track)| frames(object, (*track)?)).sum()
}
