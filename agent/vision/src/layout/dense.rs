//! A box for each cell of feature maps, all in one tensor: YOLO in its kinds, and FastestDet.

use super::grid::{STRIDES, cell};
use super::scores::{scan, sigmoid};
use super::{Candidate, Frame, Scores};
use crate::geometry::Rect;
use crate::tensor::Rows;

/// YOLOX, raw grid (Ge et al. 2021, `decode_outputs` of the reference): each row has x, y, w, h, objectness and class
/// scores. Centre = (xy + cell) * stride, size = exp(wh) * stride, score = objectness * class.
pub(super) fn yolox(rows: Rows<'_>, frame: &Frame<'_>, candidates: &mut Vec<Candidate>) {
    objects(rows, frame, |row, label, score| {
        let Some(cell) = cell(row, frame.size, &STRIDES) else { return };
        let [x, y, w, h] = rows.four(row, 0);
        let (width, height) = (w.exp() * cell.stride, h.exp() * cell.stride);
        let (x, y) = ((x + cell.column) * cell.stride, (y + cell.row) * cell.stride);
        let bounds = Rect { left: x - width / 2.0, top: y - height / 2.0, width, height };
        candidates.push(Candidate { label, score, bounds });
    });
}

/// YOLOv5 and v7 (`Detect.forward` of both): each row has a decoded box, objectness and class scores.
pub(super) fn with_objectness(rows: Rows<'_>, frame: &Frame<'_>, candidates: &mut Vec<Candidate>) {
    objects(rows, frame, |row, label, score| {
        let bounds = frame.coding.bounds(rows.four(row, 0), frame.size);
        candidates.push(Candidate { label, score, bounds });
    });
}

/// YOLOv8, v9, 11 and 12: each row has a decoded box and class scores.
pub(super) fn without_objectness(rows: Rows<'_>, frame: &Frame<'_>, candidates: &mut Vec<Candidate>) {
    let scores = rows.columns(4..rows.columns);
    scan(scores, frame.coding.scores, frame.wanted, |row, label, score| {
        let bounds = frame.coding.bounds(rows.four(row, 0), frame.size);
        candidates.push(Candidate { label, score, bounds });
    });
}

/// FastestDet (`handle_preds` of the reference): each cell has objectness, tanh of the centre's offset, size as a
/// fraction of the picture, and class scores. Centre = (cell + tanh) * stride; score = objectness^0.6 * class^0.4.
///
/// The graph leaves tanh and the sigmoid of the size to whoever decodes.
pub(super) fn fastestdet(rows: Rows<'_>, frame: &Frame<'_>, candidates: &mut Vec<Candidate>) {
    let (width, height) = (frame.size.0 as f32, frame.size.1 as f32);
    // One feature map: its cells are as many times smaller than the picture across as down.
    let stride = (width * height / rows.count.max(1) as f32).sqrt().round().max(1.0);
    let across = (width / stride).ceil().max(1.0) as usize;
    let classes = rows.columns(5..rows.columns);
    let least = frame.wanted.least();
    for row in 0..rows.count {
        let objectness = rows.at(row, 0).powf(0.6);
        if objectness < least {
            continue;
        }
        frame.wanted.pick(
            |label| objectness * classes.at(row, label).powf(0.4),
            |label, score| {
                let [dx, dy, w, h] = rows.four(row, 1);
                let (x, y) = (
                    ((row % across) as f32 + dx.tanh()) * stride,
                    ((row / across) as f32 + dy.tanh()) * stride,
                );
                let (width, height) = (sigmoid(w) * width, sigmoid(h) * height);
                let bounds = Rect { left: x - width / 2.0, top: y - height / 2.0, width, height };
                candidates.push(Candidate { label, score, bounds });
            },
        );
    }
}

/// Rows of place (4), objectness and class scores, with the product of the last two.
fn objects(rows: Rows<'_>, frame: &Frame<'_>, mut found: impl FnMut(usize, usize, f32)) {
    let probability = |score: f32| match frame.coding.scores {
        Scores::Probabilities => score,
        Scores::Sigmoid | Scores::Softmax => sigmoid(score),
    };
    let classes = rows.columns(5..rows.columns);
    let least = frame.wanted.least();
    for row in 0..rows.count {
        let objectness = probability(rows.at(row, 4));
        if objectness < least {
            continue; // no product can be more
        }
        frame.wanted.pick(
            |label| objectness * probability(classes.at(row, label)),
            |label, score| found(row, label, score),
        );
    }
}
