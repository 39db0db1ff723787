//! Boxes as distances from a cell to their four sides, plain or as distributions.

use super::grid::{Cell, STRIDES, STRIDES_OF_FOUR, cell, cell_count};
use super::scores::scan;
use super::{Candidate, Frame};
use crate::geometry::Rect;
use crate::tensor::Rows;

/// Distances to the four sides (Tian et al. 2019, FCOS), in units of the stride, from the middle of the cell: rows
/// are left, top, right, bottom; `scores` rows are one score per label.
pub(super) fn ltrb(
    distances: Rows<'_>,
    scores: Rows<'_>,
    frame: &Frame<'_>,
    candidates: &mut Vec<Candidate>,
) {
    scan(scores, frame.coding.scores, frame.wanted, |row, label, score| {
        let Some(cell) = cell(row, frame.size, &STRIDES) else { return };
        let bounds = around(cell, distances.four(row, 0), frame.coding.anchor);
        candidates.push(Candidate { label, score, bounds });
    });
}

/// One feature map of NanoDet or PicoDet (Li et al. 2020, generalised focal loss): each side's distance is the mean
/// of a distribution over 0 to `reg_max` strides, whose logits are given.
pub(super) fn level(
    stride: u32,
    scores: Rows<'_>,
    sides: Rows<'_>,
    frame: &Frame<'_>,
    candidates: &mut Vec<Candidate>,
) {
    scan(scores, frame.coding.scores, frame.wanted, |row, label, score| {
        let Some(cell) = cell(row, frame.size, &[stride]) else { return };
        let bounds = around(cell, means(sides, row), frame.coding.anchor);
        candidates.push(Candidate { label, score, bounds });
    });
}

/// All feature maps in one tensor, as NanoDet-Plus (strides 8 to 64) and later exports of NanoDet (8 to 32) have it:
/// class scores, then distributions. Which of the two is seen by the number of rows.
pub(super) fn joined(rows: Rows<'_>, labels: usize, frame: &Frame<'_>, candidates: &mut Vec<Candidate>) {
    let strides: &[u32] =
        if rows.count == cell_count(frame.size, &STRIDES) { &STRIDES } else { &STRIDES_OF_FOUR };
    let (scores, sides) = (rows.columns(0..labels), rows.columns(labels..rows.columns));
    scan(scores, frame.coding.scores, frame.wanted, |row, label, score| {
        let Some(cell) = cell(row, frame.size, strides) else { return };
        let bounds = around(cell, means(sides, row), frame.coding.anchor);
        candidates.push(Candidate { label, score, bounds });
    });
}

/// The four sides around a cell.
fn around(cell: Cell, sides: [f32; 4], anchor: f32) -> Rect {
    let Cell { column, row, stride } = cell;
    let (x, y) = (column + anchor, row + anchor);
    Rect::from_sides(
        (x - sides[0]) * stride,
        (y - sides[1]) * stride,
        (x + sides[2]) * stride,
        (y + sides[3]) * stride,
    )
}

/// The mean of each side's distribution, in strides.
fn means(sides: Rows<'_>, row: usize) -> [f32; 4] {
    let bins = sides.columns / 4;
    std::array::from_fn(|side| {
        let logit = |bin: usize| sides.at(row, side * bins + bin);
        let largest = (0..bins).map(logit).fold(f32::NEG_INFINITY, f32::max);
        let (mut sum, mut mean) = (0.0, 0.0);
        for bin in 0..bins {
            let weight = (logit(bin) - largest).exp();
            sum += weight;
            mean += weight * bin as f32;
        }
        mean / sum
    })
}
