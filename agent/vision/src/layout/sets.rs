//! A box for each query, prior or finished detection, wherever it is.

use super::scores::scan;
use super::{Background, Candidate, Frame, Scores};
use crate::tensor::Rows;

/// DETR (Carion et al. 2020) and SSD (Liu et al. 2016) with decoded boxes: a box and class scores for each query or
/// prior, with "nothing" as a class of its own or not.
pub(super) fn boxes_and_scores(
    boxes: Rows<'_>,
    scores: Rows<'_>,
    frame: &Frame<'_>,
    candidates: &mut Vec<Candidate>,
) {
    let shift = usize::from(frame.coding.background == Background::First);
    let mut found = |row: usize, label: usize, score: f32| {
        let bounds = frame.coding.bounds(boxes.four(row, 0), frame.size);
        candidates.push(Candidate { label, score, bounds });
    };
    if shift == 1 && frame.coding.scores == Scores::Softmax {
        // The background takes part in the sum.
        let shifted = frame.wanted.shifted(shift);
        scan(scores, Scores::Softmax, &shifted, |row, label, score| found(row, label - shift, score));
    } else {
        scan(scores.columns(shift..scores.columns), frame.coding.scores, frame.wanted, found);
    }
}

/// Finished detections as rows of left, top, right, bottom, score, label; or label, score and box, as PaddleDetection
/// has it. With seven columns the first is the picture's number, then the box, then label and score (YOLOv7) or score
/// and label (YOLO-NAS). Returns how many scores are none.
pub(super) fn table(rows: Rows<'_>, frame: &Frame<'_>, candidates: &mut Vec<Candidate>) -> usize {
    let (at_box, at_label, at_score) = table_columns(rows.columns, frame.coding.label_first);
    for row in 0..rows.count {
        finished(rows.at(row, at_label), rows.at(row, at_score), frame, |label, score| {
            let bounds = frame.coding.bounds(rows.four(row, at_box), frame.size);
            candidates.push(Candidate { label, score, bounds });
        });
    }
    impossible(rows.columns(at_score..at_score + 1))
}

/// Where such rows have the box, the label and the score.
pub(super) fn table_columns(columns: usize, label_first: bool) -> (usize, usize, usize) {
    match (columns, label_first) {
        (7, true) => (1, 5, 6),
        (7, false) => (1, 6, 5),
        (_, true) => (2, 0, 1),
        _ => (0, 5, 4),
    }
}

/// Finished detections as three lists, of which the first `count` entries hold. Returns how many scores are none.
pub(super) fn list(
    boxes: Rows<'_>,
    labels: Rows<'_>,
    scores: Rows<'_>,
    count: usize,
    frame: &Frame<'_>,
    candidates: &mut Vec<Candidate>,
) -> usize {
    for row in 0..count {
        finished(labels.at(row, 0), scores.at(row, 0), frame, |label, score| {
            let bounds = frame.coding.bounds(boxes.four(row, 0), frame.size);
            candidates.push(Candidate { label, score, bounds });
        });
    }
    impossible(scores.first(count))
}

/// How many numbers can be no scores: those of labels can't, and rounding takes a score a little beyond 1.
fn impossible(scores: Rows<'_>) -> usize {
    scores.iter().filter(|score| score.is_finite() && *score > 1.01).count()
}

/// Calls `found` if the label is wanted with this score. Padding has the score 0 or a negative label.
fn finished(label: f32, score: f32, frame: &Frame<'_>, found: impl FnOnce(usize, f32)) {
    let label = label.round() as i64 - frame.coding.first_label as i64;
    let Ok(label) = usize::try_from(label) else { return };
    if frame.wanted.floor(label).is_some_and(|floor| score >= floor) {
        found(label, score);
    }
}
