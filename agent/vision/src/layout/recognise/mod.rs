//! Which layout a graph has: by the shapes of its outputs, by the numbers of a trial run, and by the graph itself.
//!
//! Names of outputs break a tie at most, and then it is called an assumption. What still fits several layouts is
//! refused as ambiguous: the manifest settles it.
//!
//! - `numbers`: what the numbers of a trial run show;
//! - `fits`: the ways to read a set of outputs, layout family by layout family;
//! - `coding`: what a layout leaves open, as manifest, numbers or convention have it.

mod coding;
mod fits;
mod numbers;

use std::fmt;

use serde::{Deserialize, Serialize};

use super::grid::{STRIDES, cell_count};
use super::{Background, BoxForm, Decoder, Layout, Parts, Scores, Unit};
use crate::tensor::Slot;
use coding::code;
use fits::{Columns, Fit, levels, lists, pairs, singles};

/// One output of a trial run, and what the graph shows of it.
#[derive(Clone, Debug, Default)]
pub struct Output {
    /// The graph's name for it.
    pub name: String,
    /// Whether its numbers are whole by their type.
    pub whole: bool,
    /// Its sides in the trial run.
    pub shape: Vec<usize>,
    /// Which of its sides the graph leaves open.
    pub open: Vec<bool>,
    /// Its numbers in the trial run.
    pub numbers: Vec<f32>,
    /// How it ends, where the graph shows it.
    pub ending: Option<Ending>,
    /// Whether an exponential function is part of its last steps: boxes are decoded already.
    pub exponential: bool,
    /// Which of the columns that its last step joins are whole numbers, where the graph shows it.
    pub joined: Vec<bool>,
}

/// The last step that makes numbers of an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Sigmoid or softmax.
    Probability,
    /// A convolution or matrix product.
    Raw,
}

/// All that is known of a graph before its layout is.
pub struct Evidence<'a> {
    /// Width and height of the input.
    pub size: (u32, u32),
    /// The outputs, in the graph's order.
    pub outputs: &'a [Output],
    /// The labels, where they are known.
    pub labels: Option<&'a [String]>,
    /// The layout, where manifest or metadata name it.
    pub layout: Option<Layout>,
    /// What the manifest settles.
    pub section: &'a OutputSection,
    /// Whether the input has its colours last, as TensorFlow has it.
    pub channels_last: bool,
    /// Whether there are the inputs that PaddleDetection's exports with suppression have.
    pub paddle: bool,
}

impl Evidence<'_> {
    /// Whether an output has a row for each cell of the strides 8, 16 and 32, as detectors without anchors have it.
    pub(crate) fn on_grid(&self, slot: &Slot) -> bool {
        let rows = self.outputs[slot.output].total() / slot.columns.max(1);
        rows == cell_count(self.size, &STRIDES)
    }

    /// Whether the labels begin with one for "nothing", as lists of labels that start at 0 have it.
    pub(crate) fn names_background(&self) -> bool {
        self.labels.and_then(<[String]>::first).is_some_and(|label| is_background(label))
    }
}

fn is_background(label: &str) -> bool {
    let label = label.trim_matches(|c: char| !c.is_alphanumeric() && c != '/').to_lowercase();
    matches!(label.as_str(), "background" | "bg" | "n/a" | "none" | "" | "no object" | "unlabeled")
}

/// The manifest's section `[output]`: settles what a graph leaves open.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OutputSection {
    /// What the four numbers of a box are.
    pub boxes: Option<BoxForm>,
    /// What they are measured in.
    pub unit: Option<Unit>,
    /// What makes a probability out of a score.
    pub scores: Option<Scores>,
    /// Where the score of "nothing" stands.
    pub background: Option<Background>,
    /// The number that stands for the first label.
    pub first_label: Option<usize>,
    /// Whether a finished detection's row starts with label and score.
    pub label_first: Option<bool>,
    /// Where in its cell a distance starts.
    pub anchor: Option<f32>,
}

/// How something is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// The manifest says so.
    Manifest,
    /// The file's own metadata say so.
    Metadata,
    /// A file beside the model says so.
    File,
    /// The graph shows it: its types, shapes or steps.
    Graph,
    /// The numbers of a trial run show it.
    Trial,
    /// Only a name suggests it.
    Name,
    /// It is so where this layout comes from.
    Convention,
}

impl Origin {
    /// Whether it is a guess that the manifest should confirm.
    pub fn assumed(self) -> bool {
        matches!(self, Self::Name | Self::Convention)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Manifest => "manifest",
            Self::Metadata => "metadata",
            Self::File => "file beside it",
            Self::Graph => "graph",
            Self::Trial => "trial run",
            Self::Name => "assumed by name",
            Self::Convention => "assumed",
        })
    }
}

/// One thing that was found out about a model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Remark {
    /// What it is about; where it has a key in the manifest, that key.
    pub subject: &'static str,
    /// What it is.
    pub value: String,
    /// How that is known.
    pub origin: Origin,
}

/// A graph's layout.
#[derive(Clone, Debug, PartialEq)]
pub struct Recognised {
    /// Reads the outputs.
    pub decoder: Decoder,
    /// How many labels the graph scores, where its shapes tell.
    pub labels: Option<usize>,
    /// How the layout is known.
    pub origin: Origin,
    /// What else was found out.
    pub remarks: Vec<Remark>,
}

/// No layout, or too many.
#[derive(Clone, Debug, PartialEq)]
pub enum Unrecognised {
    /// Nothing fits.
    Nothing,
    /// The named layout does not fit.
    Not(Layout),
    /// Several fit alike.
    Several(Vec<Layout>),
    /// A key of the manifest's `[output]` that nothing else settles, and what it can be.
    Open {
        /// The key.
        key: &'static str,
        /// What is to be written there, in words.
        choice: &'static str,
    },
    /// An output that no detector needs: it could be an embedding.
    Surplus(String),
}

impl fmt::Display for Unrecognised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("its outputs fit no layout"),
            Self::Not(layout) => write!(f, "its outputs do not fit the layout {layout}"),
            Self::Several(layouts) => {
                let names: Vec<_> = layouts.iter().map(|layout| layout.name()).collect();
                if let [name] = names[..] {
                    return write!(f, "its outputs fit the layout {name} in several ways");
                }
                write!(
                    f,
                    "its outputs fit the layouts {} alike: name one in the manifest, layout = \"{}\"",
                    names.join(" and "),
                    names[0]
                )
            }
            Self::Open { key, choice } => {
                write!(
                    f,
                    "nothing shows its output.{key}: name it in the manifest, [output] {key} = {choice}"
                )
            }
            Self::Surplus(output) => write!(f, "output {output} is none that a detector needs"),
        }
    }
}

/// Finds the layout of a graph.
pub fn recognise(evidence: &Evidence<'_>) -> Result<Recognised, Unrecognised> {
    let mut fits: Vec<Fit> =
        [levels, lists, pairs, singles].iter().flat_map(|family| family(evidence)).collect();
    if let Some(layout) = evidence.layout {
        fits.retain(|fit| fit.layout == layout);
        if fits.is_empty() {
            return Err(Unrecognised::Not(layout));
        }
    }
    // Labels tell layouts of the same shape apart. If they fit none, the caller says what is wrong with their number.
    if let Some(labels) = evidence.labels
        && fits.iter().any(|fit| fit.columns.admits(labels.len()))
    {
        fits.retain(|fit| fit.columns.admits(labels.len()));
    }
    let best = fits.iter().map(|fit| fit.rank).max().ok_or(Unrecognised::Nothing)?;
    fits.retain(|fit| fit.rank == best);
    let surplus: Vec<_> = fits.iter().map(|fit| surplus(fit, evidence)).collect();
    if let Some(Some(output)) = surplus.iter().find(|output| output.is_some())
        && surplus.iter().all(Option::is_some)
    {
        return Err(Unrecognised::Surplus(output.clone()));
    }
    let mut none = surplus.iter().map(Option::is_none);
    fits.retain(|_| none.next() == Some(true));
    let [fit] = fits.as_slice() else {
        let mut layouts: Vec<_> = fits.iter().map(|fit| fit.layout).collect();
        layouts.dedup();
        return Err(Unrecognised::Several(layouts));
    };
    let origin = if evidence.layout.is_some() { Origin::Manifest } else { fit.origin };
    code(fit, origin, evidence)
}

impl Output {
    fn last(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    fn total(&self) -> usize {
        self.shape.iter().product()
    }

    /// All but the last side.
    fn leading(&self) -> &[usize] {
        &self.shape[..self.shape.len().saturating_sub(1)]
    }

    /// Without the batch axis.
    fn body(&self) -> &[usize] {
        match self.shape.as_slice() {
            [1, body @ ..] if body.len() > 1 => body,
            body => body,
        }
    }

    /// A slot that keeps every side, but for those left open in lists of finished detections.
    fn slot(&self, index: usize, columns: usize, transposed: bool, list: bool) -> Slot {
        let side = |(at, &side): (usize, &usize)| {
            let open = list && self.open.get(at).copied().unwrap_or(false);
            (!open || (at + 1 == self.shape.len() && columns > 1)).then_some(side)
        };
        Slot {
            output: index,
            name: self.name.clone(),
            shape: self.shape.iter().enumerate().map(side).collect(),
            columns,
            transposed,
        }
    }

    fn named(&self, words: &[&str]) -> bool {
        let name = self.name.to_lowercase();
        words.iter().any(|word| name.contains(word))
    }
}

fn indexed<'a>(evidence: &Evidence<'a>) -> impl Iterator<Item = (usize, &'a Output)> + use<'a> {
    evidence.outputs.iter().enumerate()
}

/// The first output that a fit leaves over and that is none of those known to be harmless.
fn surplus(fit: &Fit, evidence: &Evidence<'_>) -> Option<String> {
    let used: Vec<&Slot> = match &fit.parts {
        Parts::Rows(rows) | Parts::Joined { rows, .. } => vec![rows],
        Parts::Pair { boxes, scores } => vec![boxes, scores],
        Parts::List { boxes, labels, scores, count } => {
            [boxes, labels].into_iter().chain(scores).chain(count).collect()
        }
        Parts::Levels(levels) => levels.iter().flat_map(|level| [&level.scores, &level.sides]).collect(),
    };
    let is_used = |index: usize| used.iter().any(|slot| slot.output == index);
    let left: Vec<_> = indexed(evidence).filter(|(index, _)| !is_used(*index)).collect();
    let boxes = used.first().map_or(0, |slot| evidence.outputs[slot.output].total() / slot.columns.max(1));
    // TensorFlow's raw boxes, and scores of as many rows.
    let raw = left.iter().find(|(_, output)| output.last() == 4).map(|(_, output)| output.total() / 4);
    let raw_columns = raw.and_then(|rows| {
        left.iter().find(|(_, output)| output.last() > 4 && output.total() == rows * output.last())
    });
    let raw_columns = raw_columns.map(|(_, output)| output.last());
    let columns = match fit.columns {
        Columns::Labels(columns) | Columns::WithBackground(columns) => columns,
        Columns::Unknown => 0,
    };
    left.into_iter()
        .find(|(_, output)| {
            let tensorflow = fit.layout == Layout::Tensorflow;
            // TensorFlow writes whole numbers as f32.
            let whole = || output.whole || (tensorflow && output.numbers.iter().all(|n| n.fract() == 0.0));
            let harmless = match output.body() {
                _ if output.total() <= 1 => true,
                // A whole number for each box, its index mostly.
                _ if output.total() == boxes && whole() => true,
                // What suppression in the graph has kept: picture, class and box.
                [_, 3] if output.whole => true,
                [_, last] if tensorflow => *last == 4 || Some(*last) == raw_columns,
                // YOLO's feature maps, which older exports yield beside the decoded boxes.
                [_, _, _, last] => fit.layout == Layout::Yolov5 && *last == 5 + columns,
                [first, _, _] if fit.layout == Layout::Yolov5 => first.is_multiple_of(5 + columns),
                [first, _, _] if fit.layout == Layout::Yolov8 => *first == 4 * 16 + columns,
                _ => false,
            };
            !harmless
        })
        .map(|(_, output)| format!("{:?} {:?}", output.name, output.shape))
}
