//! All that is found out about a model file, for people to read: also of one that is refused.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;
use sharp_eyes_protocol::class::ObjectClass;

use super::{Model, ModelError};
use crate::layout::{Layout, Origin, Recognised, Remark};
use crate::onnx::{Runtime, TensorInfo};
use crate::settings::{DetectorOptions, Provider};

/// Measures one inference, given a way to run it: this crate reads no clock. Yields milliseconds.
pub type Measure<'a> =
    &'a mut dyn FnMut(&mut dyn FnMut() -> Result<(), ModelError>) -> Result<f64, ModelError>;

/// What a model file is. What was not reached before a refusal is empty.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Inspection {
    /// The ONNX file.
    pub file: PathBuf,
    /// Its manifest, if it has one.
    pub manifest: Option<PathBuf>,
    /// Name and version.
    pub name: String,
    /// SHA-256 of the file, in hexadecimal digits.
    pub sha256: String,
    /// Size of the file.
    pub bytes: usize,
    /// What the graph takes.
    pub inputs: Vec<TensorInfo>,
    /// What the graph yields.
    pub outputs: Vec<TensorInfo>,
    /// The file's own key and value pairs.
    pub metadata: BTreeMap<String, String>,
    /// What the outputs mean.
    pub layout: Option<Recognition>,
    /// How input and outputs are meant, and how that is known. Each subject is a key of the manifest, or begins like
    /// one.
    pub remarks: Vec<Remark>,
    /// What it calls what it sees.
    pub labels: Option<LabelsFound>,
    /// What one inference took.
    pub latency_ms: Option<f64>,
    /// Why it cannot be run here; `None` if it can.
    pub refusal: Option<String>,
}

/// A layout, and how it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Recognition {
    /// The layout.
    pub layout: Layout,
    /// How it is known.
    pub origin: Origin,
    /// How many labels the outputs score, where their shapes tell.
    pub labels: Option<usize>,
}

impl Recognition {
    pub(super) fn of(recognised: &Recognised) -> Self {
        Self { layout: recognised.decoder.layout, origin: recognised.origin, labels: recognised.labels }
    }
}

/// A model's labels.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LabelsFound {
    /// How many there are.
    pub count: usize,
    /// How they are known.
    pub origin: Origin,
    /// Key or file that holds them.
    pub place: String,
    /// Those that are classes of ours.
    pub mapped: Vec<Mapped>,
    /// Those that are not: detections of them are dropped.
    pub dropped: Vec<String>,
}

/// A label that is a class of ours.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Mapped {
    /// Its place among the labels, from 0.
    pub index: usize,
    /// What the model calls it.
    pub label: String,
    /// What it is.
    pub class: ObjectClass,
}

impl LabelsFound {
    pub(super) fn new(
        labels: &[String],
        origin: Origin,
        place: String,
        class_of: impl Fn(&str) -> Option<ObjectClass>,
    ) -> Self {
        let (mut mapped, mut dropped) = (Vec::new(), Vec::new());
        for (index, label) in labels.iter().enumerate() {
            match class_of(label) {
                Some(class) => mapped.push(Mapped { index, label: label.clone(), class }),
                None => dropped.push(label.clone()),
            }
        }
        Self { count: labels.len(), origin, place, mapped, dropped }
    }

    /// Whether one of them is a person. Without, nobody's head can be found, and pictures are coarse as a whole.
    pub fn knows_people(&self) -> bool {
        self.mapped.iter().any(|mapped| mapped.class == ObjectClass::Person)
    }
}

impl Inspection {
    /// Examines a model as [`Model::open`] does, and says what it is even if it cannot be run.
    pub fn of(runtime: &Runtime, path: &Path, threads: usize, measure: Measure<'_>) -> Self {
        let mut found = Self::default();
        let options = DetectorOptions { threads, ..DetectorOptions::default() };
        let examined = Model::examine(runtime, path, (Provider::Cpu, &options), Some(measure), &mut found);
        found.refusal = examined.err().map(|error| error.to_string());
        found
    }
}
