//! Output tensors to candidate boxes, one plain function per layout.
//!
//! A layout is what the numbers of a detector's outputs mean. The functions here trust the lengths of the slices,
//! which [`crate::model`] and [`crate::detector`] have checked against the layout, and nothing else.

use serde::Deserialize;

use crate::geometry::Rect;

/// The layouts that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// YOLOX without its decoding in the graph: one output [1, N, 5 + classes], see [`yolox`].
    Yolox,
    /// Sides of the box as distances from an anchor point: outputs `distances` [1, N, 4] and `scores`
    /// [1, N, classes], see [`ltrb`].
    Ltrb,
}

impl Layout {
    /// Every layout.
    pub const ALL: [Layout; 2] = [Self::Yolox, Self::Ltrb];

    /// The name in manifests and metadata.
    pub fn name(self) -> &'static str {
        match self {
            Self::Yolox => "yolox",
            Self::Ltrb => "ltrb",
        }
    }
}

/// A box of one class, before suppression.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// Index of the model's label.
    pub label: usize,
    /// 0 to 1.
    pub score: f32,
    /// In pixels of the tensor.
    pub bounds: Rect,
}

/// Which labels are wanted, and from which score on.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The least score of each of the model's labels; infinity for a label that is none of our classes.
    pub floors: Vec<f32>,
    /// The index of `person`, if the model has it.
    pub person: Option<usize>,
}

impl Wanted {
    /// What one anchor shows: the best label above its floor; and a person, where another label has won, because
    /// the head of whoever sits on the motorcycle must be found for redaction.
    fn pick(&self, score: impl Fn(usize) -> f32, mut found: impl FnMut(usize, f32)) {
        let mut best: Option<(usize, f32)> = None;
        for (label, &floor) in self.floors.iter().enumerate() {
            let score = score(label);
            if score >= floor && best.is_none_or(|(_, better)| score > better) {
                best = Some((label, score));
            }
        }
        let Some((label, best)) = best else { return };
        found(label, best);
        if let Some(person) = self.person.filter(|&person| person != label) {
            let score = score(person);
            if score >= self.floors[person] {
                found(person, score);
            }
        }
    }
}

/// The strides of the feature maps of both layouts, in the order of their rows.
pub const STRIDES: [u32; 3] = [8, 16, 32];

/// How many anchors a tensor of `size` (width, height) has; `None` if its sides are no multiples of the largest
/// stride.
pub fn anchor_count(size: (u32, u32)) -> Option<usize> {
    let [.., largest] = STRIDES;
    let whole = size.0 > 0 && size.1 > 0 && size.0.is_multiple_of(largest) && size.1.is_multiple_of(largest);
    whole.then(|| STRIDES.iter().map(|stride| (size.0 / stride) as usize * (size.1 / stride) as usize).sum())
}

/// Column, row and stride of every anchor: feature map by feature map, row by row.
fn anchors(size: (u32, u32)) -> impl Iterator<Item = (f32, f32, f32)> {
    STRIDES.into_iter().flat_map(move |stride| {
        (0..size.1 / stride).flat_map(move |row| {
            (0..size.0 / stride).map(move |column| (column as f32, row as f32, stride as f32))
        })
    })
}

/// YOLOX, raw grid (Ge et al. 2021, `decode_outputs` of the reference): each anchor has x, y, w, h, objectness and
/// class scores, the last two after their sigmoid. Centre = (xy + cell) * stride, size = exp(wh) * stride,
/// score = objectness * class.
pub fn yolox(output: &[f32], size: (u32, u32), wanted: &Wanted, candidates: &mut Vec<Candidate>) {
    let row_length = 5 + wanted.floors.len();
    for (row, (column, line, stride)) in output.chunks_exact(row_length).zip(anchors(size)) {
        let (place, scores) = row.split_at(5);
        let objectness = place[4];
        let bounds = || {
            let (width, height) = (place[2].exp() * stride, place[3].exp() * stride);
            let (x, y) = ((place[0] + column) * stride, (place[1] + line) * stride);
            Rect { left: x - width / 2.0, top: y - height / 2.0, width, height }
        };
        wanted.pick(
            |label| objectness * scores[label],
            |label, score| candidates.push(Candidate { label, score, bounds: bounds() }),
        );
    }
}

/// Distances to the four sides (Tian et al. 2019, FCOS), in units of the stride, from the middle of the cell:
/// `distances` rows are left, top, right, bottom; `scores` rows are one score per label, after the sigmoid.
pub fn ltrb(
    distances: &[f32],
    scores: &[f32],
    size: (u32, u32),
    wanted: &Wanted,
    candidates: &mut Vec<Candidate>,
) {
    let rows = distances.chunks_exact(4).zip(scores.chunks_exact(wanted.floors.len()));
    for ((sides, scores), (column, line, stride)) in rows.zip(anchors(size)) {
        let bounds = || {
            let (x, y) = (column + 0.5, line + 0.5);
            Rect::from_sides(
                (x - sides[0]) * stride,
                (y - sides[1]) * stride,
                (x + sides[2]) * stride,
                (y + sides[3]) * stride,
            )
        };
        wanted.pick(
            |label| scores[label],
            |label, score| candidates.push(Candidate { label, score, bounds: bounds() }),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: (u32, u32) = (64, 32);
    const ANCHORS: usize = 8 * 4 + 4 * 2 + 2;

    fn wanted() -> Wanted {
        Wanted { floors: vec![0.1, 0.3, f32::INFINITY], person: Some(0) }
    }

    #[test]
    fn anchors_are_counted_for_whole_grids_only() {
        for (size, count) in [
            (SIZE, Some(ANCHORS)),
            ((416, 416), Some(3549)),
            ((512, 320), Some(3360)),
            ((100, 64), None),
            ((0, 32), None),
        ] {
            assert_eq!(anchor_count(size), count, "{size:?}");
        }
        assert_eq!(anchors(SIZE).count(), ANCHORS);
    }

    #[test]
    fn a_yolox_cell_becomes_its_box() {
        // anchor index, its row (x, y, w, h, objectness, three labels), the candidate
        let ln2 = 2.0f32.ln();
        for (anchor, row, expected) in [
            // The first cell of stride 8: centre 0.5 * 8, size exp(ln 2) * 8.
            (0, [0.5, 0.5, ln2, 0.0, 1.0, 0.8, 0.0, 0.0], Some((0, 0.8, [-4.0, 0.0, 16.0, 8.0]))),
            // Column 1, row 2 of stride 8.
            (17, [0.0, 0.0, 0.0, 0.0, 0.5, 0.0, 0.8, 0.0], Some((1, 0.4, [4.0, 12.0, 8.0, 8.0]))),
            // The second cell of stride 16, the last of stride 32.
            (33, [0.5, 0.5, 0.0, 0.0, 1.0, 0.5, 0.0, 0.0], Some((0, 0.5, [16.0, 0.0, 16.0, 16.0]))),
            (41, [0.5, 0.5, 0.0, 0.0, 1.0, 0.5, 0.0, 0.0], Some((0, 0.5, [32.0, 0.0, 32.0, 32.0]))),
            // Below its floor, and a label that nobody wants.
            (0, [0.5, 0.5, 0.0, 0.0, 0.3, 0.3, 0.9, 0.0], None),
            (0, [0.5, 0.5, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0], None),
        ] {
            let mut output = vec![0.0; ANCHORS * 8];
            output[anchor * 8..][..8].copy_from_slice(&row);
            let mut found = Vec::new();
            yolox(&output, SIZE, &wanted(), &mut found);
            assert_eq!(found, candidates(expected), "anchor {anchor}, {row:?}");
        }
    }

    #[test]
    fn an_ltrb_cell_becomes_its_box() {
        for (anchor, sides, scores, expected) in [
            (0, [0.5, 0.5, 1.5, 2.5], [0.7, 0.0, 0.0], Some((0, 0.7, [0.0, 0.0, 16.0, 24.0]))),
            (17, [1.0, 1.0, 1.0, 1.0], [0.0, 0.4, 0.9], Some((1, 0.4, [4.0, 12.0, 16.0, 16.0]))),
            (41, [0.5, 0.5, 0.5, 0.5], [0.5, 0.0, 0.0], Some((0, 0.5, [32.0, 0.0, 32.0, 32.0]))),
            // Sides that cross leave no box, but never a negative one.
            (0, [0.0, 0.0, -1.0, 0.0], [0.5, 0.0, 0.0], Some((0, 0.5, [4.0, 4.0, 0.0, 0.0]))),
            (0, [0.5, 0.5, 1.5, 2.5], [0.05, 0.2, 1.0], None),
        ] {
            let (mut distances, mut all) = (vec![0.0; ANCHORS * 4], vec![0.0; ANCHORS * 3]);
            distances[anchor * 4..][..4].copy_from_slice(&sides);
            all[anchor * 3..][..3].copy_from_slice(&scores);
            let mut found = Vec::new();
            ltrb(&distances, &all, SIZE, &wanted(), &mut found);
            assert_eq!(found, candidates(expected), "anchor {anchor}, {sides:?}");
        }
    }

    #[test]
    fn a_person_is_found_under_the_motorcycle_that_wins() {
        let (mut scores, distances) = (vec![0.0; ANCHORS * 3], vec![1.0; ANCHORS * 4]);
        scores[..3].copy_from_slice(&[0.2, 0.9, 1.0]);
        let mut found = Vec::new();
        ltrb(&distances, &scores, SIZE, &wanted(), &mut found);
        let labels: Vec<_> = found.iter().map(|c| (c.label, c.score)).collect();
        assert_eq!(labels, [(1, 0.9), (0, 0.2)]);
    }

    fn candidates(expected: Option<(usize, f32, [f32; 4])>) -> Vec<Candidate> {
        let candidate = |(label, score, [left, top, width, height]): (usize, f32, [f32; 4])| Candidate {
            label,
            score,
            bounds: Rect { left, top, width, height },
        };
        expected.map(candidate).into_iter().collect()
    }
}
