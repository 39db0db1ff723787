//! The ways to read a set of outputs, family by family. Each yields those that the shapes allow, ranked by how well
//! the numbers fit.

use super::numbers::{Ordering, PerCell, Range, is_whole};
use super::{Ending, Evidence, Origin, Output, indexed};
use crate::layout::grid::{STRIDES, STRIDES_OF_FOUR, cell_count};
use crate::layout::{Layout, Level, Parts};
use crate::tensor::{Rows, Slot};

/// One way to read the outputs.
pub(super) struct Fit {
    pub(super) layout: Layout,
    pub(super) parts: Parts,
    pub(super) columns: Columns,
    /// Of all fits, those with the highest count.
    pub(super) rank: u8,
    pub(super) origin: Origin,
}

/// How many columns of class scores there are.
#[derive(Clone, Copy)]
pub(super) enum Columns {
    /// One a label.
    Labels(usize),
    /// One a label, and perhaps one for "nothing".
    WithBackground(usize),
    /// Labels are numbers in the outputs.
    Unknown,
}

impl Columns {
    pub(super) fn admits(self, labels: usize) -> bool {
        match self {
            Self::Labels(columns) => columns == labels,
            Self::WithBackground(columns) => columns == labels || columns == labels + 1,
            Self::Unknown => true,
        }
    }
}

/// NanoDet and PicoDet: for each stride class scores and distributions.
pub(super) fn levels(evidence: &Evidence<'_>) -> Vec<Fit> {
    let mut found = Vec::new();
    for strides in [&STRIDES[..], &STRIDES_OF_FOUR[..]] {
        let Some(levels) = strides.iter().map(|&stride| level(evidence, stride)).collect::<Option<Vec<_>>>()
        else {
            continue;
        };
        let [(first, _), ..] = levels.as_slice() else { continue };
        let columns = first.scores.columns;
        let alike = levels
            .iter()
            .all(|(level, _)| level.scores.columns == columns && level.sides.columns == first.sides.columns);
        if !alike || evidence.outputs.iter().filter(|output| output.total() > 1).count() < 2 * strides.len() {
            continue;
        }
        let origin =
            levels.iter().map(|(_, origin)| *origin).find(|origin| origin.assumed()).unwrap_or(Origin::Graph);
        found.push(Fit {
            layout: Layout::Nanodet,
            parts: Parts::Levels(levels.into_iter().map(|(level, _)| level).collect()),
            columns: Columns::Labels(columns),
            rank: 2 + strides.len() as u8,
            origin,
        });
    }
    found
}

/// The two outputs that have as many rows as the feature map of this stride has cells.
fn level(evidence: &Evidence<'_>, stride: u32) -> Option<(Level, Origin)> {
    let cells = cell_count(evidence.size, &[stride]);
    let of_this_map = |transposed: bool| -> Vec<Slot> {
        indexed(evidence)
            .filter(|(_, output)| !output.whole)
            .filter_map(|(index, output)| {
                let columns = match (output.body(), transposed) {
                    (&[rows, columns], false) if rows == cells => columns,
                    (&[columns, rows], true) if rows == cells => columns,
                    (&[columns, height, width], true) if height * width == cells => columns,
                    _ => return None,
                };
                Some(output.slot(index, columns, transposed, false))
            })
            .collect()
    };
    // A map may happen to have as many cells as another has columns: rows come first more often.
    let plain = of_this_map(false);
    let of_this_map = if plain.len() == 2 { plain } else { of_this_map(true) };
    let [one, other] = of_this_map.as_slice() else { return None };
    let sides = |slot: &Slot| slot.columns.is_multiple_of(4) && slot.columns >= 8;
    let labels = evidence.labels.map(<[String]>::len);
    let as_scores = |slot: &Slot| {
        // Scores that are probabilities stand out from logits; where nothing stands out, the usual reg_max does.
        let output = &evidence.outputs[slot.output];
        let mut weight = 0;
        weight += 8 * u32::from(labels == Some(slot.columns));
        weight += 4 * u32::from(Range::of(output.numbers.iter().copied()).is_probability());
        weight += 2 * u32::from(output.ending == Some(Ending::Probability));
        weight + u32::from(![32, 64, 68].contains(&slot.columns))
    };
    let (scores, sides) = match (sides(one), sides(other)) {
        (false, true) => (one, other),
        (true, false) => (other, one),
        (true, true) if as_scores(one) > as_scores(other) => (one, other),
        (true, true) if as_scores(other) > as_scores(one) => (other, one),
        _ => return None,
    };
    Some((Level { stride, scores: scores.clone(), sides: sides.clone() }, Origin::Graph))
}

/// Finished detections in several outputs: boxes, labels, scores, and perhaps how many.
pub(super) fn lists(evidence: &Evidence<'_>) -> Vec<Fit> {
    const LABELS: [&str; 4] = ["label", "class", "cls", "categor"];
    let mut found = Vec::new();
    for (at, boxes) in indexed(evidence) {
        if boxes.whole || boxes.shape.len() < 2 || !matches!(boxes.last(), 4 | 5) {
            continue;
        }
        let rows: usize = boxes.leading().iter().product();
        let rivals = indexed(evidence).filter(|(index, output)| *index != at && output.shape == boxes.shape);
        if rivals.into_iter().any(|(_, rival)| !rival.whole && boxes_rather(boxes, rival) == Some(false)) {
            continue;
        }
        let columns: Vec<(usize, &Output)> = indexed(evidence)
            .filter(|(index, output)| {
                let alike = output.shape == boxes.leading() || output.shape == [rows];
                *index != at && (alike || (rows > 1 && output.total() == rows && output.last() != 4))
            })
            .collect();
        let count = indexed(evidence)
            .find(|(index, output)| {
                *index != at && output.total() == 1 && !columns.iter().any(|(column, _)| column == index)
            })
            .map(|(index, output)| output.slot(index, 1, false, false));
        let whole: Vec<_> = columns.iter().filter(|(_, output)| output.whole).collect();
        let parts: Vec<_> = columns.iter().filter(|(_, output)| !output.whole).collect();
        let named = |outputs: &[&(usize, &Output)], words: &[&str]| {
            outputs.iter().find(|(_, output)| output.named(words)).map(|(index, _)| *index)
        };
        let integers = |output: &Output| output.numbers.iter().all(|number| number.fract() == 0.0);
        let beyond_one = |output: &Output| output.numbers.iter().any(|&number| number > 1.0);
        let (labels, scores, origin) = match (whole.as_slice(), parts.as_slice(), boxes.last()) {
            ([(labels, _)], [], 5) => (*labels, None, Origin::Graph),
            ([(labels, _)], [(scores, _)], 4) => (*labels, Some(*scores), Origin::Graph),
            ([first, ..], [(scores, _)], 4) => {
                (named(&whole, &LABELS).unwrap_or(first.0), Some(*scores), Origin::Name)
            }
            ([], [one, other], 4) => match (integers(one.1), integers(other.1)) {
                (true, false) => (one.0, Some(other.0), Origin::Trial),
                (false, true) => (other.0, Some(one.0), Origin::Trial),
                _ if beyond_one(one.1) && !beyond_one(other.1) => (one.0, Some(other.0), Origin::Trial),
                _ if beyond_one(other.1) && !beyond_one(one.1) => (other.0, Some(one.0), Origin::Trial),
                // Nothing was seen in the trial. TensorFlow yields classes, then scores.
                _ => match named(&parts, &LABELS) {
                    Some(labels) if labels == other.0 => (other.0, Some(one.0), Origin::Name),
                    Some(_) => (one.0, Some(other.0), Origin::Name),
                    None => (one.0, Some(other.0), Origin::Convention),
                },
            },
            ([], several @ [_, _, _, ..], 4) => {
                let (labels, scores) = (named(several, &LABELS), named(several, &["score", "conf"]));
                match (labels, scores) {
                    (Some(labels), Some(scores)) if labels != scores => (labels, Some(scores), Origin::Name),
                    _ => continue,
                }
            }
            _ => continue,
        };
        let tensorflow = evidence.channels_last
            || (boxes.last() == 4 && !evidence.outputs[labels].whole && count.is_some());
        let layout = match evidence.layout {
            Some(layout @ (Layout::Detections | Layout::Tensorflow)) => layout,
            _ if tensorflow => Layout::Tensorflow,
            _ => Layout::Detections,
        };
        let column = |index: usize| evidence.outputs[index].slot(index, 1, false, true);
        found.push(Fit {
            layout,
            parts: Parts::List {
                boxes: boxes.slot(at, boxes.last(), false, true),
                labels: column(labels),
                scores: scores.map(column),
                count,
            },
            columns: Columns::Unknown,
            rank: 5,
            origin,
        });
    }
    found
}

/// Boxes beside class scores: the built-in layout, DETR and SSD.
pub(super) fn pairs(evidence: &Evidence<'_>) -> Vec<Fit> {
    let mut found = Vec::new();
    for (at, boxes) in indexed(evidence).filter(|(_, output)| !output.whole && output.shape.len() >= 2) {
        let (rows, transposed) = match boxes.body() {
            [.., 4] => (boxes.total() / 4, false),
            [4, rows] => (*rows, true),
            _ => continue,
        };
        for (index, scores) in indexed(evidence).filter(|(index, output)| *index != at && !output.whole) {
            let (columns, scores_transposed) = match *scores.body() {
                [first, last] if first == rows => (last, false),
                [first, last] if last == rows => (first, true),
                _ => continue,
            };
            if rows < 2 || columns == 0 {
                continue;
            }
            let parts = Parts::Pair {
                boxes: boxes.slot(at, 4, transposed, true),
                scores: scores.slot(index, columns, scores_transposed, true),
            };
            let range = Range::of(scores.numbers.iter().copied());
            // With four labels both have four columns, and it is tried both ways.
            if columns == 4 && !scores_transposed && boxes_rather(boxes, scores) == Some(false) {
                continue;
            }
            let rank = 4;
            let logits = range.is_logit();
            let form = Ordering::of(boxes, transposed);
            let on_grid = rows == cell_count(evidence.size, &STRIDES);
            let mut push = |layout, columns, rank, origin| {
                found.push(Fit { layout, parts: parts.clone(), columns, rank, origin });
            };
            if on_grid {
                // Distances from cells, or boxes that happen to be as many (YOLO-NAS)? Only corners are ordered, and
                // middles (YOLOv8 before it joins boxes and scores) are where the cells are.
                let by_name = boxes.named(&["dist", "ltrb"]);
                let told = |layout| evidence.layout == Some(layout);
                match form {
                    _ if told(Layout::Ltrb) || by_name => {
                        push(Layout::Ltrb, Columns::Labels(columns), rank + 1, Origin::Name);
                    }
                    _ if told(Layout::Yolov8) => {
                        push(Layout::Yolov8, Columns::Labels(columns), rank, Origin::Manifest);
                    }
                    Ordering::Unordered => {
                        let shown = PerCell::of(Rows::new(&boxes.numbers, 4, transposed), evidence.size);
                        if shown != PerCell::Middles {
                            push(Layout::Ltrb, Columns::Labels(columns), rank, Origin::Trial);
                        }
                        if shown != PerCell::Distances {
                            push(Layout::Yolov8, Columns::Labels(columns), rank, Origin::Trial);
                        }
                    }
                    Ordering::Unknown => {
                        push(Layout::Ltrb, Columns::Labels(columns), rank, Origin::Convention);
                    }
                    Ordering::Ordered => {}
                }
                let origin = if form == Ordering::Ordered { Origin::Trial } else { Origin::Convention };
                if form != Ordering::Unordered || told(Layout::Ssd) {
                    push(Layout::Ssd, Columns::WithBackground(columns), rank, origin);
                }
                if told(Layout::Detr) {
                    push(Layout::Detr, Columns::WithBackground(columns), rank, Origin::Manifest);
                }
                continue;
            }
            // DETR yields logits and boxes by their middle, SSD probabilities and boxes by their corners. Where one
            // speaks for DETR and the other for SSD, the number of rows does: queries are hundreds, priors thousands.
            let (detr, origin) = match (logits, form) {
                (Some(true), Ordering::Unordered) => (true, Origin::Trial),
                (Some(false), Ordering::Ordered) => (false, Origin::Trial),
                (_, Ordering::Unordered) => (true, Origin::Trial),
                (_, Ordering::Ordered) => (false, Origin::Trial),
                (Some(logits), Ordering::Unknown) => (logits, Origin::Trial),
                (None, Ordering::Unknown) => (rows <= QUERIES_MAX, Origin::Convention),
            };
            let layout = match evidence.layout {
                Some(layout @ (Layout::Detr | Layout::Ssd)) => layout,
                _ if detr => Layout::Detr,
                _ => Layout::Ssd,
            };
            push(layout, Columns::WithBackground(columns), rank, origin);
        }
    }
    found
}

/// Of two outputs with four columns, whether the first holds the boxes. `None` where nothing tells.
fn boxes_rather(one: &Output, other: &Output) -> Option<bool> {
    let ranges = [one, other].map(|output| Range::of(output.numbers.iter().copied()));
    let apart = |found: [bool; 2]| (found[0] != found[1]).then_some(found[0]);
    // Logits are far below 0, boxes hardly; pixels are far beyond 1; corners are in order; and names may say it.
    apart(ranges.map(|range| range.any && range.least > -0.5))
        .filter(|_| ranges.iter().all(|range| range.any))
        .or_else(|| apart(ranges.map(|range| range.is_logit() == Some(true))))
        .or_else(|| apart([one, other].map(|output| Ordering::of(output, false) == Ordering::Ordered)))
        .or_else(|| apart([one, other].map(|output| output.named(&["box"]))))
}

/// Most queries of a DETR (Deformable DETR and DINO have 900), and most rows of finished detections.
const QUERIES_MAX: usize = 1000;

/// Everything in one output.
pub(super) fn singles(evidence: &Evidence<'_>) -> Vec<Fit> {
    let mut found = Vec::new();
    let labels = evidence.labels.map(<[String]>::len);
    for (index, output) in indexed(evidence).filter(|(_, output)| !output.whole) {
        let mut push = |layout, parts, labels, rank, origin| {
            found.push(Fit { layout, parts, columns: Columns::Labels(labels), rank, origin });
        };
        if let [columns, height, width] = *output.body()
            && columns > 5
            && height > 0
            && evidence.size.0 as usize / width.max(1) == evidence.size.1 as usize / height
            && width > 1
        {
            let slot = output.slot(index, columns, true, false);
            push(Layout::Fastestdet, Parts::Rows(slot), columns - 5, 2, Origin::Graph);
        }
        let &[first, last] = output.body() else { continue };
        let three = cell_count(evidence.size, &STRIDES);
        let four = cell_count(evidence.size, &STRIDES_OF_FOUR);
        let dense = |rows: usize| [three, four, 3 * three, 3 * four].contains(&rows);
        for (rows, columns, transposed) in [(first, last, false), (last, first, true)] {
            // The longer side is that of the boxes, unless the other is exactly as long as a grid.
            let plausible = if dense(first) != dense(last) { dense(rows) } else { rows > columns };
            let slot = || output.slot(index, columns, transposed, false);
            let may_be_table = match evidence.layout {
                None | Some(Layout::Yolov8) => !dense(rows),
                layout => layout == Some(Layout::EndToEnd),
            };
            if !transposed && is_table(output, columns) && may_be_table {
                found.extend(tables(evidence, index, output, columns));
                continue;
            }
            if !plausible || columns < 5 {
                continue;
            }
            let mut push = |layout, parts, labels, rank, origin| {
                found.push(Fit { layout, parts, columns: Columns::Labels(labels), rank, origin });
            };
            let natural = if transposed { 2 } else { 1 };
            push(Layout::Yolov8, Parts::Rows(slot()), columns - 4, natural, Origin::Graph);
            if transposed || columns < 6 {
                continue;
            }
            if rows == three {
                match decoded(output, columns, evidence.size) {
                    Some(true) => push(Layout::Yolov5, Parts::Rows(slot()), columns - 5, 2, Origin::Trial),
                    Some(false) => push(Layout::Yolox, Parts::Rows(slot()), columns - 5, 2, Origin::Trial),
                    None => push(Layout::Yolox, Parts::Rows(slot()), columns - 5, 2, Origin::Convention),
                }
                if let Some(layout @ (Layout::Yolox | Layout::Yolov5)) = evidence.layout {
                    push(layout, Parts::Rows(slot()), columns - 5, 3, Origin::Manifest);
                }
            } else {
                push(Layout::Yolov5, Parts::Rows(slot()), columns - 5, 2, Origin::Graph);
            }
            // NanoDet in one tensor: 4 * (reg_max + 1) columns beside the labels, 32 of them as it is published.
            let scored = match labels {
                Some(labels)
                    if columns > labels && (columns - labels).is_multiple_of(4) && columns - labels >= 8 =>
                {
                    labels
                }
                _ => columns.saturating_sub(32),
            };
            if scored > 0 && (rows == three || rows == four) {
                let scores = Rows::new(&output.numbers, columns, false).columns(0..scored);
                let sides = Rows::new(&output.numbers, columns, false).columns(scored..columns);
                let apart = Range::of(scores.iter()).is_probability()
                    && Range::of(sides.iter()).is_logit() == Some(true);
                let rank = if apart || rows == four && rows != three { 3 } else { 1 };
                push(
                    Layout::Nanodet,
                    Parts::Joined { rows: slot(), labels: scored },
                    scored,
                    rank,
                    Origin::Graph,
                );
            }
        }
    }
    found
}

/// Whether an output can be rows of finished detections: six numbers, or seven without a batch axis.
fn is_table(output: &Output, columns: usize) -> bool {
    columns == 6 || (columns == 7 && output.shape.len() == 2)
}

/// The ways to read such rows: finished detections, the scores of two labels, and, where there are many, YOLOv5 with
/// strides of its own.
fn tables(evidence: &Evidence<'_>, index: usize, output: &Output, columns: usize) -> Vec<Fit> {
    let rows = Rows::new(&output.numbers, columns, false);
    // So few rows are no grid.
    let rank = if rows.count <= QUERIES_MAX { 3 } else { 1 };
    let grid = rows.count > QUERIES_MAX && evidence.layout.is_none();
    let labelled = [0, columns - 2, columns - 1].into_iter().any(|column| is_whole(rows, column));
    let (finished, scored) = finished_or_scored(output, columns, evidence);
    let fit = |layout, list, columns_of, origin| {
        let parts = Parts::Rows(output.slot(index, columns, false, list));
        Fit { layout, parts, columns: columns_of, rank, origin }
    };
    [
        (finished && (labelled || !grid))
            .then(|| fit(Layout::EndToEnd, true, Columns::Unknown, Origin::Graph)),
        scored.then(|| fit(Layout::Yolov8, false, Columns::Labels(columns - 4), Origin::Trial)),
        grid.then(|| fit(Layout::Yolov5, false, Columns::Labels(columns - 5), Origin::Trial)),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Whether such rows can be finished detections, and whether they can be boxes with the scores of two labels, as RT-DETR of
/// ultralytics has them: boxes by their middle, 0 to 1, and no column of whole numbers.
fn finished_or_scored(output: &Output, columns: usize, evidence: &Evidence<'_>) -> (bool, bool) {
    let rows = Rows::new(&output.numbers, columns, false);
    let two = evidence.labels.is_none_or(|labels| labels.len() == 2);
    match evidence.layout {
        Some(Layout::Yolov8) => return (false, true),
        // Scores of queries are never all 0.
        None if columns == 6 && two && Range::of(rows.iter()).any => {}
        _ => return (true, false),
    }
    let (label_last, label_first) = (is_whole(rows, 5), is_whole(rows, 0));
    let boxes = if label_first && !label_last { rows.columns(2..6) } else { rows.columns(0..4) };
    let range = Range::of(boxes.iter());
    match (label_last || label_first, Ordering::of_rows(boxes)) {
        (true, Ordering::Unordered) => (true, range.is_normalised()),
        (true, _) => (true, false),
        (false, form) => (form == Ordering::Ordered, true),
    }
}

/// Whether the boxes of a grid are pixels already. `None` where the numbers do not tell.
fn decoded(output: &Output, columns: usize, size: (u32, u32)) -> Option<bool> {
    if output.exponential {
        return Some(true);
    }
    let rows = Rows::new(&output.numbers, columns, false);
    let places = Range::of(rows.columns(0..2).iter());
    let sizes = Range::of(rows.columns(2..4).iter());
    // Places across the picture tell, whatever the sizes are: one of thousands may be negative.
    let side = size.0.max(size.1) as f32;
    if places.largest > side / 4.0 && places.largest <= side * 1.5 {
        return Some(true);
    }
    if sizes.least < 0.0 {
        return Some(false); // logarithms of sizes
    }
    (places.largest != 0.0 || sizes.largest != 0.0).then_some(false)
}
