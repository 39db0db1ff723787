//! Whether a graph is the detector that its manifest promises.

use std::fmt::Write as _;
use std::path::Path;

use super::{Manifest, ModelError};
use crate::layout::{self, Layout};
use crate::onnx::{Session, TensorInfo};

/// Why a graph is no detector that can be run; [`ModelError::NotADetector`] adds what was found.
pub(super) struct Unlike(String);

impl Unlike {
    pub(super) fn at(self, file: &Path, session: &Session) -> ModelError {
        let mut found = String::new();
        let tables = [("input ", session.inputs()), ("output", session.outputs())];
        for (kind, info) in
            tables.into_iter().flat_map(|(kind, infos)| infos.iter().map(move |info| (kind, info)))
        {
            let _ = write!(found, "\n  {kind}  {info}"); // a String takes everything
        }
        ModelError::NotADetector { file: file.to_owned(), reason: self.0, found }
    }
}

/// Width and height of the one input.
pub(super) fn input_size(manifest: &Manifest, session: &Session) -> Result<(u32, u32), Unlike> {
    let [input] = session.inputs() else {
        return Err(Unlike(format!("it has {} inputs instead of one", session.inputs().len())));
    };
    let &[batch, channels, height, width] = input.shape.as_slice() else {
        return Err(Unlike("its input is no image: expected f32 [1, 3, height, width]".into()));
    };
    if !input.is_f32() || !open_or(batch, 1) || !open_or(channels, 3) {
        return Err(Unlike("its input is no image: expected f32 [1, 3, height, width]".into()));
    }
    let side = |name: &str, graph: i64, manifest: Option<u32>| match (u32::try_from(graph).ok(), manifest) {
        (Some(graph), Some(manifest)) if graph != manifest => {
            Err(Unlike(format!("the graph's {name} is {graph}, the manifest's input.{name} is {manifest}")))
        }
        (Some(side), _) | (None, Some(side)) if (1..=MODEL_SIDE_MAX).contains(&side) => Ok(side),
        (None, None) => {
            Err(Unlike(format!("the graph leaves its {name} open: give input.{name} in the manifest")))
        }
        _ => Err(Unlike(format!("its {name} must be 1 to {MODEL_SIDE_MAX}"))),
    };
    Ok((side("width", width, manifest.input.width)?, side("height", height, manifest.input.height)?))
}

/// Largest side of a model's input: beyond it, one tensor takes more memory than the box has to spare.
const MODEL_SIDE_MAX: u32 = 2048;

/// Whether a side of a graph's tensor is, or can become, `side`.
fn open_or(graph: i64, side: usize) -> bool {
    graph < 0 || graph == side as i64
}

/// The layout, and how many labels the graph scores.
///
/// What the manifest or the file's metadata says must fit; where both are silent, the first layout that fits.
pub(super) fn detect_layout(
    manifest: &Manifest,
    session: &Session,
    size: (u32, u32),
) -> Result<(Layout, usize), Unlike> {
    let named = match (manifest.layout, session.metadata().get("sharp_eyes.layout")) {
        (Some(layout), _) => Some(layout),
        (None, Some(name)) => {
            let known = Layout::ALL.into_iter().find(|layout| layout.name() == name);
            Some(known.ok_or_else(|| {
                Unlike(format!("its metadata names the layout {name:?}, which is not known here"))
            })?)
        }
        (None, None) => None,
    };
    let candidates = named.map_or(Layout::ALL.to_vec(), |layout| vec![layout]);
    let anchors = layout::anchor_count(size)
        .ok_or_else(|| Unlike(format!("its input of {}x{} is no multiple of 32", size.0, size.1)))?;
    candidates
        .iter()
        .find_map(|&layout| {
            Some((layout, labels_of(layout, session.outputs(), anchors, manifest.labels.len())?))
        })
        .ok_or_else(|| {
            let names: Vec<_> = candidates.iter().map(|layout| layout.name()).collect();
            Unlike(format!("its outputs do not fit the layout {} for {anchors} anchors", names.join(" or ")))
        })
}

/// How many labels the outputs score if they have this layout. A graph that leaves the number open is taken at the
/// manifest's word; the first run shows whether that is true.
fn labels_of(layout: Layout, outputs: &[TensorInfo], anchors: usize, labels: usize) -> Option<usize> {
    let columns = |output: &TensorInfo, taken: usize| match *output.shape.as_slice() {
        [batch, rows, columns] if output.is_f32() && open_or(batch, 1) && open_or(rows, anchors) => {
            if columns < 0 { Some(labels) } else { (columns as usize).checked_sub(taken) }
        }
        _ => None,
    };
    match layout {
        Layout::Yolox => match outputs {
            [output] => columns(output, 5).filter(|&labels| labels > 0),
            _ => None,
        },
        Layout::Ltrb => {
            let by_name = |name: &str| outputs.iter().find(|output| output.name == name);
            let (distances, scores) = (by_name("distances")?, by_name("scores")?);
            let four = open_or(*distances.shape.last()?, 4) && columns(distances, 0).is_some();
            columns(scores, 0).filter(|&labels| labels > 0 && four && outputs.len() == 2)
        }
    }
}
