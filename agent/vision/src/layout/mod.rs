//! Output tensors to candidate boxes, one plain function per layout.
//!
//! A layout is what the numbers of a detector's outputs mean. [`recognise`] finds out which one a graph has, and
//! yields a [`Decoder`]; for each frame it checks the shapes at the joint ([`crate::tensor`]) and calls the layout's
//! function:
//!
//! - `grid`: where the cells of feature maps are;
//! - `scores`: which rows show something that is wanted, found before any box is computed;
//! - `dense`: a box for each cell, in the YOLO family's ways;
//! - `distances`: boxes as distances to their four sides, plain or as distributions;
//! - `sets`: a box for each query, prior or finished detection;
//! - `recognise`: which of them it is, by shapes, numbers and the graph.
//!
//! Nothing here does I/O, and nothing is allocated for a candidate.

mod dense;
mod distances;
mod grid;
mod recognise;
mod scores;
mod sets;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::geometry::Rect;
use crate::tensor::{Slot, Tensor, UnexpectedShape};
pub use grid::{STRIDES, anchor_count};
pub use recognise::{
    Ending, Evidence, Origin, Output, OutputSection, Recognised, Remark, Unrecognised, recognise,
};
pub use scores::{Wanted, WantedLabel};

/// The layouts that can be read. N is the number of boxes, C that of labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// YOLOX without its decoding in the graph: `[1, N, 5 + C]`.
    Yolox,
    /// YOLOv5, v7, and YOLOX with its decoding: `[1, N, 5 + C]`, boxes, objectness and class scores.
    Yolov5,
    /// YOLOv8, v9, 11, 12: `[1, 4 + C, N]`, or the same transposed; boxes and class scores. Or both beside each other.
    Yolov8,
    /// Finished detections as rows: `[1, N, 6]`, as YOLOv10, YOLO26 and exports with suppression yield them.
    #[serde(rename = "end-to-end")]
    EndToEnd,
    /// Sides of the box as distances from a cell's middle: `[1, N, 4]` and `[1, N, C]`.
    Ltrb,
    /// A box and class scores for each query: `[1, N, 4]` and `[1, N, C]` or `[1, N, C + 1]`.
    Detr,
    /// A box and class scores for each prior, decoded: `[1, N, 4]` and `[1, N, C]` or `[1, N, 1 + C]`.
    Ssd,
    /// Finished detections as labels, boxes and scores: `[1, N]`, `[1, N, 4]`, `[1, N]`.
    Detections,
    /// TensorFlow's four: boxes `[1, N, 4]`, classes and scores `[1, N]`, and their number `[1]`.
    Tensorflow,
    /// Distributions over the distances to the sides, NanoDet and PicoDet: class scores `[1, N, C]` and
    /// `[1, N, 4 * (reg_max + 1)]` for each stride, or all in one `[1, N, C + 4 * (reg_max + 1)]`.
    Nanodet,
    /// One feature map `[1, 5 + C, height, width]`: objectness, place, size and class scores.
    Fastestdet,
}

impl Layout {
    /// Every layout.
    pub const ALL: [Layout; 11] = [
        Self::Yolox,
        Self::Yolov5,
        Self::Yolov8,
        Self::EndToEnd,
        Self::Ltrb,
        Self::Detr,
        Self::Ssd,
        Self::Detections,
        Self::Tensorflow,
        Self::Nanodet,
        Self::Fastestdet,
    ];

    /// The name in manifests and metadata.
    pub fn name(self) -> &'static str {
        match self {
            Self::Yolox => "yolox",
            Self::Yolov5 => "yolov5",
            Self::Yolov8 => "yolov8",
            Self::EndToEnd => "end-to-end",
            Self::Ltrb => "ltrb",
            Self::Detr => "detr",
            Self::Ssd => "ssd",
            Self::Detections => "detections",
            Self::Tensorflow => "tensorflow",
            Self::Nanodet => "nanodet",
            Self::Fastestdet => "fastestdet",
        }
    }
}

impl Layout {
    /// The outputs that it has for an input of `size` (width, height) and C labels, in words.
    pub fn outputs(self, size: (u32, u32)) -> String {
        let three = grid::cell_count(size, &STRIDES);
        let four = grid::cell_count(size, &grid::STRIDES_OF_FOUR);
        match self {
            Self::Yolox => format!("[1, {three}, 5 + C], boxes not decoded"),
            Self::Yolov5 => format!("[1, {}, 5 + C], boxes decoded", 3 * three),
            Self::Yolov8 => format!("[1, 4 + C, {three}], or [1, 4, {three}] and [1, C, {three}]"),
            Self::EndToEnd => "[1, N, 6], finished detections".into(),
            Self::Ltrb => format!("[1, {three}, 4] and [1, {three}, C]"),
            Self::Detr => "boxes [1, N, 4] and class scores [1, N, C] or [1, N, C + 1]".into(),
            Self::Ssd => "boxes [1, N, 4] and class scores [1, N, C] or [1, N, 1 + C]".into(),
            Self::Detections => {
                "labels [1, N], boxes [1, N, 4] and scores [1, N], finished detections".into()
            }
            Self::Tensorflow => "boxes [1, N, 4], classes [1, N], scores [1, N] and their number [1]".into(),
            Self::Nanodet => {
                format!("for each stride [1, cells, C] and [1, cells, 32]; or in one [1, {four}, C + 32]")
            }
            Self::Fastestdet => {
                format!("[1, 5 + C, {}, {}]", size.1.div_ceil(16), size.0.div_ceil(16))
            }
        }
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
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

/// What the four numbers of a box are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BoxForm {
    /// Left, top, right, bottom.
    Xyxy,
    /// Top, left, bottom, right, as TensorFlow has it.
    Yxyx,
    /// Middle, width and height.
    Cxcywh,
}

/// What a box is measured in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// Pixels of the tensor.
    Pixels,
    /// 0 to 1 of the tensor's width and height.
    Normalised,
}

/// What makes a probability out of a score.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scores {
    /// It is one.
    Probabilities,
    /// Logits, each label for itself.
    Sigmoid,
    /// Logits, one label of all.
    Softmax,
}

/// Where the score of "nothing" stands among the class scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Background {
    /// Nowhere.
    None,
    /// Before all labels, as in SSD.
    First,
    /// After all labels, as in DETR.
    Last,
}

/// How the numbers of a layout are meant, where layouts leave that open.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Coding {
    /// Of boxes.
    pub boxes: BoxForm,
    /// Of boxes.
    pub unit: Unit,
    /// Of class scores, and of objectness.
    pub scores: Scores,
    /// Among class scores.
    pub background: Background,
    /// The number that stands for the first label, in layouts of finished detections.
    pub first_label: usize,
    /// Whether a finished detection's row starts with label and score.
    pub label_first: bool,
    /// Where in its cell a distance starts: 0.5 in the middle, 0 at the top left.
    pub anchor: f32,
}

impl Default for Coding {
    fn default() -> Self {
        Self {
            boxes: BoxForm::Cxcywh,
            unit: Unit::Pixels,
            scores: Scores::Probabilities,
            background: Background::None,
            first_label: 0,
            label_first: false,
            anchor: 0.5,
        }
    }
}

impl Coding {
    /// A box in pixels of the tensor.
    fn bounds(&self, numbers: [f32; 4], size: (u32, u32)) -> Rect {
        let [a, b, c, d] = numbers;
        let (across, down) = match self.unit {
            Unit::Pixels => (1.0, 1.0),
            Unit::Normalised => (size.0 as f32, size.1 as f32),
        };
        match self.boxes {
            BoxForm::Xyxy => Rect::from_sides(a * across, b * down, c * across, d * down),
            BoxForm::Yxyx => Rect::from_sides(b * across, a * down, d * across, c * down),
            BoxForm::Cxcywh => {
                let (width, height) = ((c * across).max(0.0), (d * down).max(0.0));
                Rect { left: a * across - width / 2.0, top: b * down - height / 2.0, width, height }
            }
        }
    }
}

/// Which outputs hold what.
#[derive(Clone, Debug, PartialEq)]
pub enum Parts {
    /// Everything in one.
    Rows(Slot),
    /// Boxes, or distances, beside class scores.
    Pair {
        /// Four columns.
        boxes: Slot,
        /// A column a label.
        scores: Slot,
    },
    /// Finished detections.
    List {
        /// Four columns, or five with the score.
        boxes: Slot,
        /// One column.
        labels: Slot,
        /// One column, where it is no column of the boxes.
        scores: Option<Slot>,
        /// How many rows count, where that is said.
        count: Option<Slot>,
    },
    /// Class scores and distributions of all feature maps in one: the first `labels` columns are scores.
    Joined {
        /// A column a label, then `reg_max + 1` a side.
        rows: Slot,
        /// How many labels.
        labels: usize,
    },
    /// Class scores and distributions of each feature map.
    Levels(Vec<Level>),
}

/// One feature map.
#[derive(Clone, Debug, PartialEq)]
pub struct Level {
    /// Pixels of the tensor from one cell to the next.
    pub stride: u32,
    /// A column a label.
    pub scores: Slot,
    /// `reg_max + 1` columns a side.
    pub sides: Slot,
}

/// Reads one graph's outputs.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoder {
    /// What the numbers mean.
    pub layout: Layout,
    /// Where they are.
    pub parts: Parts,
    /// What they leave open.
    pub coding: Coding,
}

impl Decoder {
    /// Adds what is wanted and found, for a tensor of `size` (width, height). Returns how many numbers are not
    /// finite, or scores that are none: a NaN compares as smaller than any threshold, so that a broken model would
    /// look like an empty street, and so would labels that are read as scores.
    pub fn decode(
        &self,
        outputs: &[Tensor<'_>],
        size: (u32, u32),
        wanted: &Wanted,
        candidates: &mut Vec<Candidate>,
    ) -> Result<usize, UnexpectedShape> {
        let frame = Frame { coding: &self.coding, size, wanted };
        let before = candidates.len();
        let mut not_finite = 0;
        match &self.parts {
            Parts::Rows(slot) => {
                let rows = slot.rows(outputs)?;
                not_finite += count_not_finite(&outputs[slot.output].numbers);
                match self.layout {
                    Layout::Yolox => dense::yolox(rows, &frame, candidates),
                    Layout::Yolov5 => dense::with_objectness(rows, &frame, candidates),
                    Layout::Fastestdet => dense::fastestdet(rows, &frame, candidates),
                    Layout::EndToEnd => not_finite += sets::table(rows, &frame, candidates),
                    _ => dense::without_objectness(rows, &frame, candidates),
                }
            }
            Parts::Pair { boxes, scores } => {
                not_finite += [boxes, scores].map(|slot| not_finite_of(slot, outputs)).iter().sum::<usize>();
                let (boxes, scores) = (boxes.rows(outputs)?, scores.rows(outputs)?);
                match self.layout {
                    Layout::Ltrb => distances::ltrb(boxes, scores, &frame, candidates),
                    _ => sets::boxes_and_scores(boxes, scores, &frame, candidates),
                }
            }
            Parts::List { boxes, labels, scores, count } => {
                let (rows, labels) = (boxes.rows(outputs)?, labels.rows(outputs)?);
                let scores = match scores {
                    Some(scores) => scores.rows(outputs)?,
                    None => rows.columns(4..5),
                };
                let counted = match count {
                    Some(count) => {
                        not_finite += not_finite_of(count, outputs);
                        count.rows(outputs)?.iter().next().unwrap_or(0.0).max(0.0) as usize
                    }
                    None => usize::MAX,
                };
                // A list of another length than its neighbours ends with the shortest.
                let counted = counted.min(rows.count).min(labels.count).min(scores.count);
                // Beyond the count there may be anything.
                let numbers = [rows.first(counted), labels.first(counted), scores.first(counted)];
                not_finite += numbers.iter().flat_map(|rows| rows.iter()).filter(|n| !n.is_finite()).count();
                not_finite += sets::list(rows, labels, scores, counted, &frame, candidates);
            }
            Parts::Joined { rows, labels } => {
                not_finite += not_finite_of(rows, outputs);
                distances::joined(rows.rows(outputs)?, *labels, &frame, candidates);
            }
            Parts::Levels(levels) => {
                for level in levels {
                    not_finite += [&level.scores, &level.sides]
                        .map(|slot| not_finite_of(slot, outputs))
                        .iter()
                        .sum::<usize>();
                    let (scores, sides) = (level.scores.rows(outputs)?, level.sides.rows(outputs)?);
                    distances::level(level.stride, scores, sides, &frame, candidates);
                }
            }
        }
        // Finite outputs can still overflow on the way to a box.
        let overflown = |candidate: &&Candidate| {
            let Candidate { score, bounds, .. } = candidate;
            ![*score, bounds.left, bounds.top, bounds.right(), bounds.bottom()].iter().all(|v| v.is_finite())
        };
        Ok(not_finite + candidates[before..].iter().filter(overflown).count())
    }
}

/// What every layout's function needs beside the tensors.
struct Frame<'a> {
    coding: &'a Coding,
    /// Width and height of the tensor.
    size: (u32, u32),
    wanted: &'a Wanted,
}

fn not_finite_of(slot: &Slot, outputs: &[Tensor<'_>]) -> usize {
    outputs.get(slot.output).map_or(0, |tensor| count_not_finite(&tensor.numbers))
}

fn count_not_finite(numbers: &[f32]) -> usize {
    numbers.iter().filter(|number| !number.is_finite()).count()
}
