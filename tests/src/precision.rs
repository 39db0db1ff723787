//! How well a detector finds objects, as a number that others measure too.
//!
//! Average precision as COCO defines it: 101 points of recall, intersections over union from 0.50 to 0.95, sizes by the area
//! in pixels, at most 100 detections of a class in a picture. `tests/precision/` compares it with pycocotools.

use serde::{Deserialize, Serialize};

/// A box in pixels: left, top, width and height.
pub type Box = [f64; 4];

/// An object of the class that is measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Labelled {
    /// Number of the picture.
    pub picture: u32,
    /// Where it is.
    pub bounds: Box,
    /// A place in which nobody counts what is found, such as COCO's crowds.
    pub ignored: bool,
}

/// What a detector found of that class.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Found {
    /// Number of the picture.
    pub picture: u32,
    /// Where it is.
    pub bounds: Box,
    /// How sure the detector is.
    pub score: f64,
}

/// One class over all pictures. `None` where the truth holds no such object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Precision {
    /// The mean over ten overlaps.
    pub ap: Option<f64>,
    /// From an overlap of 0.50 on.
    pub ap50: Option<f64>,
    /// From an overlap of 0.75 on.
    pub ap75: Option<f64>,
    /// Of objects below 32², up to 96² and above that many pixels; over ten overlaps.
    pub small: Option<f64>,
    #[allow(missing_docs)]
    pub medium: Option<f64>,
    #[allow(missing_docs)]
    pub large: Option<f64>,
    /// The greatest recall, over ten overlaps: COCO's AR at 100 detections.
    pub recall: Option<f64>,
}

/// Areas in pixels, both ends included.
type Areas = (f64, f64);

const ALL: Areas = (0.0, 1e10);
const SMALL: Areas = (0.0, 32.0 * 32.0);
const MEDIUM: Areas = (32.0 * 32.0, 96.0 * 96.0);
const LARGE: Areas = (96.0 * 96.0, 1e10);

/// Most detections of a class in one picture.
const FOUND_MAX: usize = 100;

const OVERLAPS: [f64; 10] = [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95];

/// Measures one class.
pub fn measure(truth: &[Labelled], found: &[Found]) -> Precision {
    let over = |overlaps: &[f64], areas: Areas| {
        let curves: Option<Vec<Curve>> =
            overlaps.iter().map(|overlap| Curve::new(truth, found, *overlap, areas)).collect();
        let mean = |value: fn(&Curve) -> f64| {
            let curves = curves.as_ref()?;
            Some(curves.iter().map(value).sum::<f64>() / curves.len() as f64)
        };
        (mean(Curve::area), mean(Curve::recall))
    };
    let (ap, recall) = over(&OVERLAPS, ALL);
    Precision {
        ap,
        ap50: over(&[0.5], ALL).0,
        ap75: over(&[0.75], ALL).0,
        small: over(&OVERLAPS, SMALL).0,
        medium: over(&OVERLAPS, MEDIUM).0,
        large: over(&OVERLAPS, LARGE).0,
        recall,
    }
}

/// The precision at each recall of 0, 0.01, ... 1, from an overlap of 0.5 on, for a plot. Empty without objects.
pub fn curve(truth: &[Labelled], found: &[Found]) -> Vec<f64> {
    Curve::new(truth, found, 0.5, ALL).map_or_else(Vec::new, |curve| curve.precisions.to_vec())
}

/// Precision over recall.
struct Curve {
    precisions: [f64; 101],
    recall: f64,
}

impl Curve {
    fn new(truth: &[Labelled], found: &[Found], overlap: f64, areas: Areas) -> Option<Self> {
        let mut pictures: Vec<u32> =
            truth.iter().map(|object| object.picture).chain(found.iter().map(|one| one.picture)).collect();
        pictures.sort_unstable();
        pictures.dedup();
        let mut objects = 0;
        let mut judged: Vec<(f64, bool)> = Vec::new();
        for picture in pictures {
            let truth: Vec<_> = truth.iter().filter(|object| object.picture == picture).collect();
            let mut found: Vec<_> = found.iter().filter(|one| one.picture == picture).collect();
            found.sort_by(|a, b| b.score.total_cmp(&a.score));
            found.truncate(FOUND_MAX);
            objects += judge(&truth, &found, overlap, areas, &mut judged);
        }
        if objects == 0 {
            return None;
        }
        judged.sort_by(|a, b| b.0.total_cmp(&a.0));
        let (mut right, mut wrong) = (0_u32, 0_u32);
        let mut points: Vec<(f64, f64)> = Vec::with_capacity(judged.len());
        for (_, is_right) in judged {
            if is_right {
                right += 1;
            } else {
                wrong += 1;
            }
            let (right, wrong) = (f64::from(right), f64::from(wrong));
            points.push((right / f64::from(objects), right / (right + wrong)));
        }
        let recall = points.last().map_or(0.0, |(recall, _)| *recall);
        // At each recall the best precision that can be had at it or above.
        for at in (1..points.len()).rev() {
            points[at - 1].1 = points[at - 1].1.max(points[at].1);
        }
        let mut precisions = [0.0; 101];
        for (percent, precision) in precisions.iter_mut().enumerate() {
            let reached = points.partition_point(|(recall, _)| *recall < percent as f64 / 100.0);
            *precision = points.get(reached).map_or(0.0, |(_, precision)| *precision);
        }
        Some(Self { precisions, recall })
    }

    fn area(&self) -> f64 {
        self.precisions.iter().sum::<f64>() / self.precisions.len() as f64
    }

    fn recall(&self) -> f64 {
        self.recall
    }
}

/// Gives each detection of one picture, best score first, the object that it covers most, and appends its score with
/// whether there was one; those that do not count are left out. Returns how many objects count.
fn judge(
    truth: &[&Labelled],
    found: &[&Found],
    overlap: f64,
    areas: Areas,
    judged: &mut Vec<(f64, bool)>,
) -> u32 {
    let outside = |bounds: Box| !(areas.0..=areas.1).contains(&(bounds[2] * bounds[3]));
    // Those that count come first: a detection is given one that does not only where it covers none that does.
    let mut objects: Vec<(&Labelled, bool)> =
        truth.iter().map(|object| (*object, object.ignored || outside(object.bounds))).collect();
    objects.sort_by_key(|(_, ignored)| *ignored);
    let mut taken = vec![false; objects.len()];
    for one in found {
        let mut best: Option<(usize, f64)> = None;
        for (index, (object, ignored)) in objects.iter().enumerate() {
            if taken[index] && !object.ignored {
                continue;
            }
            if *ignored && best.is_some_and(|(best, _)| !objects[best].1) {
                break;
            }
            let covers = covers(one.bounds, object);
            if covers >= best.map_or(overlap.min(1.0 - 1e-10), |(_, most)| most) {
                best = Some((index, covers));
            }
        }
        match best {
            Some((index, _)) => {
                taken[index] = true;
                if !objects[index].1 {
                    judged.push((one.score, true));
                }
            }
            None if outside(one.bounds) => {}
            None => judged.push((one.score, false)),
        }
    }
    objects.iter().filter(|(_, ignored)| !ignored).count() as u32
}

/// Intersection over union; of an ignored place, how much of the detection lies in it.
fn covers(found: Box, object: &Labelled) -> f64 {
    let side = |axis: usize| {
        let (a, b) = (found, object.bounds);
        ((a[axis] + a[axis + 2]).min(b[axis] + b[axis + 2]) - a[axis].max(b[axis])).max(0.0)
    };
    let both = side(0) * side(1);
    let own = found[2] * found[3];
    let all = if object.ignored { own } else { own + object.bounds[2] * object.bounds[3] - both };
    if all > 0.0 { both / all } else { 0.0 }
}
