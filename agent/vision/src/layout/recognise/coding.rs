//! What a layout leaves open.

use std::fmt;

use super::fits::{Columns, Fit};
use super::numbers::{Range, is_whole};
use super::{Ending, Evidence, Origin, Output, Recognised, Remark, Unrecognised};
use crate::layout::grid::{STRIDES, cell_count};
use crate::layout::sets::table_columns;
use crate::layout::{Background, BoxForm, Coding, Decoder, Layout, Parts, Scores, Unit};
use crate::tensor::{Rows, Slot};

/// What the layout leaves open: as the manifest says, else as the numbers show, else as it is where the layout
/// comes from.
pub(super) fn code(fit: &Fit, origin: Origin, evidence: &Evidence<'_>) -> Result<Recognised, Unrecognised> {
    let section = evidence.section;
    let outputs = evidence.outputs;
    let mut coding = Coding::default();
    let mut remarks = Vec::new();
    let mut remark = |subject, value: &str, origin| {
        remarks.push(Remark { subject, value: value.to_owned(), origin });
    };
    let rows_of = |slot: &Slot| Rows::new(&outputs[slot.output].numbers, slot.columns, slot.transposed);

    // Which numbers are boxes, which are class scores.
    let (boxes, scores) = match (&fit.parts, fit.layout) {
        (Parts::Rows(rows), Layout::Yolox) => (None, Some(rows_of(rows).columns(4..rows.columns))),
        (Parts::Rows(rows), Layout::Yolov5 | Layout::Yolov8) => {
            let all = rows_of(rows);
            (Some(all.columns(0..4)), Some(all.columns(4..rows.columns)))
        }
        (Parts::Rows(rows), Layout::EndToEnd) => {
            let all = rows_of(rows);
            let (first, origin) = label_first(all, &outputs[rows.output], evidence)?;
            coding.label_first = first;
            let order = match (rows.columns, first) {
                (7, true) => "picture, box, label, score",
                (7, false) => "picture, box, score, label",
                (_, true) => "label, score, box",
                _ => "box, score, label",
            };
            remark("output.label_first", &format!("{first}: {order}"), origin);
            let (at, ..) = table_columns(rows.columns, first);
            (Some(all.columns(at..at + 4)), None)
        }
        (Parts::Pair { scores, .. }, Layout::Ltrb) => (None, Some(rows_of(scores))),
        (Parts::Pair { boxes, scores }, _) => (Some(rows_of(boxes)), Some(rows_of(scores))),
        (Parts::List { boxes, .. }, _) => (Some(rows_of(boxes).columns(0..4)), None),
        (Parts::Joined { rows, labels }, _) => (None, Some(rows_of(rows).columns(0..*labels))),
        (Parts::Levels(levels), _) => (None, levels.first().map(|level| rows_of(&level.scores))),
        _ => (None, None),
    };

    if let Some(boxes) = boxes {
        let (form, unit) = match fit.layout {
            Layout::Tensorflow => (BoxForm::Yxyx, Unit::Normalised),
            Layout::Detr => (BoxForm::Cxcywh, Unit::Normalised),
            Layout::Ssd => (BoxForm::Xyxy, Unit::Normalised),
            Layout::EndToEnd | Layout::Detections => (BoxForm::Xyxy, Unit::Pixels),
            _ => (BoxForm::Cxcywh, Unit::Pixels),
        };
        let (form, from) = section.boxes.map_or((form, Origin::Convention), |form| (form, Origin::Manifest));
        coding.boxes = form;
        remark("output.boxes", &lower(form), from);
        let range = range_of_boxes(boxes, fit, coding.label_first, evidence);
        let seen = if range.is_normalised() { Unit::Normalised } else { Unit::Pixels };
        let (unit, from) = match section.unit {
            Some(unit) => (unit, Origin::Manifest),
            None if range.any => (seen, Origin::Trial),
            None => (unit, Origin::Convention),
        };
        coding.unit = unit;
        remark("output.unit", &lower(unit), from);
    }

    let told = match scores {
        Some(scores) if fit.layout == Layout::Detr && has_spare_column(fit, evidence) => {
            queries(scores, evidence)?
        }
        _ => None,
    };
    let labels = match fit.columns {
        Columns::Labels(columns) => Some(columns),
        Columns::Unknown => None,
        Columns::WithBackground(columns) => {
            let known = evidence.labels.map(<[String]>::len);
            let usual = if fit.layout == Layout::Detr { Background::Last } else { Background::First };
            let alone = section.scores.or(told) == Some(Scores::Sigmoid);
            let (background, from) = match (section.background, known) {
                (Some(background), _) => (background, Origin::Manifest),
                // RF-DETR numbers a data set's own labels, and which column is left over depends on that set.
                (None, Some(labels)) if fit.layout == Layout::Detr && alone && labels + 1 == columns => {
                    let choice = "\"first\" or \"last\", the column that no label has";
                    return Err(Unrecognised::Open { key: "background", choice });
                }
                (None, Some(labels)) if labels + 1 == columns => (usual, Origin::Graph),
                (None, Some(_)) => (Background::None, Origin::Graph),
                // COCO's 91 numbers and one for nothing, as DETR was published.
                (None, None) if columns == 92 => (usual, Origin::Convention),
                (None, None) => (Background::None, Origin::Convention),
            };
            coding.background = background;
            remark("output.background", &lower(background), from);
            Some(columns - usize::from(background != Background::None))
        }
    };

    if let Some(scores) = scores {
        let logits = Range::of(scores.iter()).is_logit();
        let ending = match &fit.parts {
            Parts::Rows(slot) | Parts::Joined { rows: slot, .. } | Parts::Pair { scores: slot, .. } => {
                outputs[slot.output].ending
            }
            Parts::Levels(levels) => levels.first().and_then(|level| outputs[level.scores.output].ending),
            Parts::List { .. } => None,
        };
        let usual = if coding.background == Background::None { Scores::Sigmoid } else { Scores::Softmax };
        let as_logits = told.unwrap_or(usual);
        let (kind, from) = match (section.scores, logits, ending) {
            (Some(scores), _, _) => (scores, Origin::Manifest),
            (None, Some(false), Some(Ending::Probability)) => (Scores::Probabilities, Origin::Graph),
            (None, Some(false), _) => (Scores::Probabilities, Origin::Trial),
            (None, Some(true), _) => (as_logits, Origin::Trial),
            (None, None, Some(Ending::Raw)) => (as_logits, Origin::Graph),
            (None, None, Some(Ending::Probability)) => (Scores::Probabilities, Origin::Graph),
            (None, None, None) if fit.layout == Layout::Detr => (as_logits, Origin::Convention),
            (None, None, None) => (Scores::Probabilities, Origin::Convention),
        };
        coding.scores = kind;
        remark("output.scores", &lower(kind), from);
    }

    if matches!(fit.layout, Layout::EndToEnd | Layout::Detections | Layout::Tensorflow) {
        let named = evidence.names_background();
        // TensorFlow and torchvision (which has no batch axis) count from 1: 0 is the background.
        let from_one = match &fit.parts {
            Parts::List { boxes, labels, .. } => {
                let zero_seen = || rows_of(labels).iter().any(|label| label == 0.0);
                fit.layout == Layout::Tensorflow || (boxes.shape.len() == 2 && !zero_seen())
            }
            _ => false,
        };
        let (first, from) = match section.first_label {
            Some(first) => (first, Origin::Manifest),
            None if from_one && !named => (1, Origin::Convention),
            None => (0, Origin::Convention),
        };
        coding.first_label = first;
        remark("output.first_label", &first.to_string(), from);
    }

    if matches!(fit.layout, Layout::Nanodet | Layout::Ltrb) {
        // NanoDet-Plus counts from the corner of a cell, all others from its middle.
        let corner = matches!(&fit.parts, Parts::Joined { rows, .. }
            if rows_of(rows).count != cell_count(evidence.size, &STRIDES));
        let usual = if corner { 0.0 } else { 0.5 };
        let (anchor, from) =
            section.anchor.map_or((usual, Origin::Convention), |anchor| (anchor, Origin::Manifest));
        coding.anchor = anchor;
        remark("output.anchor", &anchor.to_string(), from);
    }
    Ok(Recognised {
        decoder: Decoder { layout: fit.layout, parts: fit.parts.clone(), coding },
        labels,
        origin,
        remarks,
    })
}

/// Between which limits boxes lie. Rows of finished detections without a score or a label, or beyond their number, are
/// padding, which may hold anything.
fn range_of_boxes(boxes: Rows<'_>, fit: &Fit, label_first: bool, evidence: &Evidence<'_>) -> Range {
    let rows_of =
        |slot: &Slot| Rows::new(&evidence.outputs[slot.output].numbers, slot.columns, slot.transposed);
    let (labels, scores, count) = match &fit.parts {
        Parts::List { boxes, labels, scores, count } => {
            let count = count.as_ref().and_then(|count| rows_of(count).iter().next());
            let scores = scores.as_ref().map_or_else(|| rows_of(boxes).columns(4..5), rows_of);
            (rows_of(labels), scores, count)
        }
        Parts::Rows(rows) if fit.layout == Layout::EndToEnd => {
            let (_, label, score) = table_columns(rows.columns, label_first);
            (rows_of(rows).columns(label..label + 1), rows_of(rows).columns(score..score + 1), None)
        }
        _ => return Range::of(boxes.iter()),
    };
    let count = count.map_or(usize::MAX, |count| count.max(0.0) as usize);
    let rows = boxes.count.min(labels.count).min(scores.count).min(count);
    let real = |row: &usize| scores.at(*row, 0) > 0.0 && labels.at(*row, 0) >= 0.0;
    Range::of((0..rows).filter(real).flat_map(|row| boxes.four(row, 0)))
}

/// Whether there is a column of class scores more than labels.
fn has_spare_column(fit: &Fit, evidence: &Evidence<'_>) -> bool {
    let Columns::WithBackground(columns) = fit.columns else { return false };
    match evidence.section.background {
        Some(background) => background != Background::None,
        None => evidence.labels.is_some_and(|labels| labels.len() + 1 == columns),
    }
}

/// What makes probabilities of the logits of queries with a column to spare, of which hardly any see something in a
/// trial: in a softmax "nothing" wins then, sigmoids are all low. `None` where they are no logits.
fn queries(scores: Rows<'_>, evidence: &Evidence<'_>) -> Result<Option<Scores>, Unrecognised> {
    if evidence.section.scores.is_some() || Range::of(scores.iter()).is_logit() != Some(true) {
        return Ok(None);
    }
    let last = scores.columns - 1;
    let nothing = |row: usize| (0..last).all(|column| scores.at(row, column) < scores.at(row, last));
    let low = |row: usize| (0..=last).all(|column| scores.at(row, column) < 0.0);
    let nearly_all = |is: &dyn Fn(usize) -> bool| {
        10 * (0..scores.count).filter(|row| is(*row)).count() >= 9 * scores.count
    };
    match (nearly_all(&nothing), nearly_all(&low)) {
        (true, false) => Ok(Some(Scores::Softmax)),
        (false, true) => Ok(Some(Scores::Sigmoid)),
        _ => Err(Unrecognised::Open { key: "scores", choice: "\"softmax\" or \"sigmoid\"" }),
    }
}

/// Whether the label comes before the score in rows of finished detections.
fn label_first(
    rows: Rows<'_>,
    output: &Output,
    evidence: &Evidence<'_>,
) -> Result<(bool, Origin), Unrecognised> {
    let numbers = |column: usize| rows.columns(column..column + 1);
    let probable = |column: usize| Range::of(numbers(column).iter()).is_probability();
    // Where the label would be, and the score, if the label came first; and if the score did.
    let (label, score, other_label, other_score) =
        if rows.columns == 7 { (5, 6, 6, 5) } else { (0, 1, 5, 4) };
    let first = is_whole(rows, label) && probable(score);
    let last = is_whole(rows, other_label) && probable(other_score);
    let counted = evidence.outputs.iter().any(|output| output.whole && output.total() == 1);
    // Of seven columns the last two, of six the first and the last.
    let shown = match *output.joined {
        [.., one, other] if rows.columns == 7 => (one != other).then_some(one),
        [one, .., other] if rows.columns == 6 => (one != other).then_some(one),
        _ => None,
    };
    Ok(match (evidence.section.label_first, shown) {
        (Some(first), _) => (first, Origin::Manifest),
        (None, _) if evidence.paddle => (true, Origin::Graph),
        (None, Some(first)) => (first, Origin::Graph),
        (None, None) if first != last => (first, Origin::Trial),
        // YOLOv7 has the label first, YOLO-NAS the score, and neither may have seen anything.
        (None, None) if rows.columns == 7 && output.named(&["flat_predictions"]) => (false, Origin::Name),
        (None, None) if rows.columns == 7 => {
            return Err(Unrecognised::Open {
                key: "label_first",
                choice: "true (label, score) or false (score, label)",
            });
        }
        // PaddleDetection has the label first, and tells the number of rows beside.
        (None, None) => (counted, Origin::Convention),
    })
}

fn lower(value: impl fmt::Debug) -> String {
    format!("{value:?}").to_lowercase()
}
