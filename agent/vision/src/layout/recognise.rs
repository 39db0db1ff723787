//! Which layout a graph has: by the shapes of its outputs, by the numbers of a trial run, and by the graph itself.
//!
//! Names of outputs break a tie at most, and then it is called an assumption. What still fits several layouts is
//! refused as ambiguous: the manifest settles it.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::grid::{STRIDES, STRIDES_OF_FOUR, cell_count};
use super::{Background, BoxForm, Coding, Decoder, Layout, Level, Parts, Scores, Unit};
use crate::tensor::{Rows, Slot};

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
    Ok(code(fit, origin, evidence))
}

/// One way to read the outputs.
struct Fit {
    layout: Layout,
    parts: Parts,
    columns: Columns,
    /// Of all fits, those with the highest count.
    rank: u8,
    origin: Origin,
}

/// How many columns of class scores there are.
#[derive(Clone, Copy)]
enum Columns {
    /// One a label.
    Labels(usize),
    /// One a label, and perhaps one for "nothing".
    WithBackground(usize),
    /// Labels are numbers in the outputs.
    Unknown,
}

impl Columns {
    fn admits(self, labels: usize) -> bool {
        match self {
            Self::Labels(columns) => columns == labels,
            Self::WithBackground(columns) => columns == labels || columns == labels + 1,
            Self::Unknown => true,
        }
    }
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

/// NanoDet and PicoDet: for each stride class scores and distributions.
fn levels(evidence: &Evidence<'_>) -> Vec<Fit> {
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
fn lists(evidence: &Evidence<'_>) -> Vec<Fit> {
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
        let tensorflow = boxes.last() == 4
            && !evidence.outputs[labels].whole
            && (count.is_some() || evidence.channels_last)
            || evidence.channels_last;
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
fn pairs(evidence: &Evidence<'_>) -> Vec<Fit> {
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
                // Distances from cells, or boxes that happen to be as many (YOLO-NAS)? Only boxes are ordered.
                let by_name = boxes.named(&["dist", "ltrb"]);
                let told = |layout| evidence.layout == Some(layout);
                match form {
                    _ if told(Layout::Ltrb) || by_name => {
                        push(Layout::Ltrb, Columns::Labels(columns), rank + 1, Origin::Name)
                    }
                    Ordering::Unordered => push(Layout::Ltrb, Columns::Labels(columns), rank, Origin::Trial),
                    Ordering::Unknown => {
                        push(Layout::Ltrb, Columns::Labels(columns), rank, Origin::Convention)
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
fn singles(evidence: &Evidence<'_>) -> Vec<Fit> {
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
            if !transposed
                && is_table(output, columns)
                && (!dense(rows) || evidence.layout == Some(Layout::EndToEnd))
            {
                let slot = output.slot(index, columns, false, true);
                found.push(Fit {
                    layout: Layout::EndToEnd,
                    parts: Parts::Rows(slot),
                    columns: Columns::Unknown,
                    // Six columns could also be one label of YOLOv5; but so few rows are no grid.
                    rank: if rows <= QUERIES_MAX { 3 } else { 1 },
                    origin: Origin::Graph,
                });
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

/// Whether the boxes of a grid are pixels already. `None` where the numbers do not tell.
fn decoded(output: &Output, columns: usize, size: (u32, u32)) -> Option<bool> {
    if output.exponential {
        return Some(true);
    }
    let rows = Rows::new(&output.numbers, columns, false);
    let places = Range::of(rows.columns(0..2).iter());
    let sizes = Range::of(rows.columns(2..4).iter());
    if sizes.least < 0.0 {
        return Some(false); // logarithms of sizes
    }
    let side = size.0.max(size.1) as f32;
    if places.largest > side / 4.0 && places.largest <= side * 1.5 {
        return Some(true);
    }
    (places.largest != 0.0 || sizes.largest != 0.0).then_some(false)
}

/// Between which limits numbers lie, those that are not finite left out.
#[derive(Clone, Copy)]
struct Range {
    least: f32,
    largest: f32,
    any: bool,
}

impl Range {
    fn of(numbers: impl Iterator<Item = f32>) -> Self {
        let start = Self { least: 0.0, largest: 0.0, any: false };
        numbers.filter(|number| number.is_finite() && *number != 0.0).fold(start, |range, number| Self {
            least: range.least.min(number),
            largest: range.largest.max(number),
            any: true,
        })
    }

    /// Whether scores are logits; `None` where all are 0. Rounding takes a sigmoid a little beyond its limits.
    fn is_logit(self) -> Option<bool> {
        self.any.then_some(self.least < -0.01 || self.largest > 1.01)
    }

    fn is_probability(self) -> bool {
        self.is_logit() == Some(false)
    }
}

/// Whether the second corner of every box lies right of and below the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ordering {
    Ordered,
    Unordered,
    /// Too few boxes to tell.
    Unknown,
}

impl Ordering {
    fn of(boxes: &Output, transposed: bool) -> Self {
        let rows = Rows::new(&boxes.numbers, 4, transposed);
        let (mut seen, mut ordered) = (0, 0);
        for row in 0..rows.count {
            let [a, b, c, d] = rows.four(row, 0);
            if [a, b, c, d].iter().all(|number| number.is_finite()) && [a, b, c, d] != [0.0; 4] {
                seen += 1;
                ordered += usize::from(c >= a && d >= b);
            }
        }
        match (seen, ordered) {
            (seen, ordered) if ordered < seen => Self::Unordered,
            // A few boxes by their middle can look ordered by chance, many cannot.
            (8.., _) => Self::Ordered,
            _ => Self::Unknown,
        }
    }
}

/// The first output that a fit leaves over and that is none of those known to be harmless.
fn surplus(fit: &Fit, evidence: &Evidence<'_>) -> Option<String> {
    let used: Vec<usize> = match &fit.parts {
        Parts::Rows(rows) | Parts::Joined { rows, .. } => vec![rows.output],
        Parts::Pair { boxes, scores } => vec![boxes.output, scores.output],
        Parts::List { boxes, labels, scores, count } => {
            let rest = scores.iter().chain(count).map(|slot| slot.output);
            [boxes.output, labels.output].into_iter().chain(rest).collect()
        }
        Parts::Levels(levels) => {
            levels.iter().flat_map(|level| [level.scores.output, level.sides.output]).collect()
        }
    };
    let left: Vec<_> = indexed(evidence).filter(|(index, _)| !used.contains(index)).collect();
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
            let harmless = match output.body() {
                _ if output.whole || output.total() <= 1 => true,
                // TensorFlow's indices of anchors, whole numbers as f32.
                _ if tensorflow && output.last() == output.total() => {
                    output.numbers.iter().all(|number| number.fract() == 0.0)
                }
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

/// What the layout leaves open: as the manifest says, else as the numbers show, else as it is where the layout
/// comes from.
fn code(fit: &Fit, origin: Origin, evidence: &Evidence<'_>) -> Recognised {
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
            let whole = |column: usize| {
                let numbers = || all.columns(column..column + 1);
                numbers().iter().all(|n| n.fract() == 0.0) && Range::of(numbers().iter()).any
            };
            let probability =
                |column: usize| Range::of(all.columns(column..column + 1).iter()).is_probability();
            let (first, origin) = match section.label_first {
                Some(first) => (first, Origin::Manifest),
                None if rows.columns == 7 => (false, Origin::Graph),
                None if evidence.paddle => (true, Origin::Graph),
                None if probability(4) && !(probability(1) && whole(0) && !whole(5)) => {
                    (false, Origin::Trial)
                }
                None if probability(1) && !probability(4) => (true, Origin::Trial),
                None if outputs.iter().any(|output| output.whole && output.total() == 1) => {
                    (true, Origin::Graph)
                }
                None => (false, Origin::Convention),
            };
            coding.label_first = first;
            let order = match (rows.columns, first) {
                (7, _) => "picture, box, label, score",
                (_, true) => "label, score, box",
                _ => "box, score, label",
            };
            remark("output.label_first", &format!("{first}: {order}"), origin);
            let at = if rows.columns == 7 { 1 } else { 2 * usize::from(first) };
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
        let range = Range::of(boxes.iter());
        let seen = if range.largest.max(-range.least) <= 2.0 { Unit::Normalised } else { Unit::Pixels };
        let (unit, from) = match section.unit {
            Some(unit) => (unit, Origin::Manifest),
            None if range.any => (seen, Origin::Trial),
            None => (unit, Origin::Convention),
        };
        coding.unit = unit;
        remark("output.unit", &lower(unit), from);
    }

    let labels = match fit.columns {
        Columns::Labels(columns) => Some(columns),
        Columns::Unknown => None,
        Columns::WithBackground(columns) => {
            let known = evidence.labels.map(<[String]>::len);
            let usual = if fit.layout == Layout::Detr { Background::Last } else { Background::First };
            let (background, from) = match (section.background, known) {
                (Some(background), _) => (background, Origin::Manifest),
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
        let as_logits = if coding.background == Background::None { Scores::Sigmoid } else { Scores::Softmax };
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
        let named = evidence.labels.and_then(<[String]>::first).is_some_and(|label| is_background(label));
        let (first, from) = match section.first_label {
            Some(first) => (first, Origin::Manifest),
            None if fit.layout == Layout::Tensorflow && !named => (1, Origin::Convention),
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
    Recognised {
        decoder: Decoder { layout: fit.layout, parts: fit.parts.clone(), coding },
        labels,
        origin,
        remarks,
    }
}

/// Whether a label means "nothing", as lists of labels that start at 0 have it.
pub(crate) fn is_background(label: &str) -> bool {
    let label = label.trim_matches(|c: char| !c.is_alphanumeric() && c != '/').to_lowercase();
    matches!(label.as_str(), "background" | "bg" | "n/a" | "none" | "" | "no object" | "unlabeled")
}

fn lower(value: impl fmt::Debug) -> String {
    format!("{value:?}").to_lowercase()
}
