//! A model's folder, its manifest, and the contract that both must keep.
//!
//! The contract: one f32 image in, a known [`layout`](crate::layout) out, as many labels as the graph scores, at
//! least one of them a class of ours, and nothing that could tell who somebody is.
//!
//! - `manifest`: what the maker says of the model;
//! - `boundary`: which words make a model one that could tell who somebody is;
//! - `contract`: whether the graph is the detector that the manifest promises.

mod boundary;
mod contract;
mod manifest;

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use sharp_eyes_protocol::alert::ModelName;
use sharp_eyes_protocol::class::ObjectClass;

use crate::detection::Thresholds;
use crate::layout::{Layout, Wanted};
use crate::letterbox::Normalisation;
use crate::onnx::{OnnxError, Runtime, Session};
pub use manifest::{ChannelOrder, Input, Manifest, ManifestError, PerChannel};

/// What is known of a model once it is open.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelInfo {
    /// Name and version out of the manifest.
    pub name: ModelName,
    /// SHA-256 of `model.onnx`, in hexadecimal digits.
    pub sha256: String,
    /// The classes that it can see.
    pub classes: Vec<ObjectClass>,
    /// From which scores on they count.
    pub thresholds: Thresholds,
    /// What its outputs mean.
    pub layout: Layout,
    /// Width and height of its input.
    pub input: (u32, u32),
    /// Its licence, an SPDX expression.
    pub licence: String,
}

/// A model that has kept its contract, ready to run.
pub struct Model {
    pub(crate) info: ModelInfo,
    pub(crate) session: Session,
    pub(crate) normalisation: Normalisation,
    /// The class of each label, where it is one of ours.
    pub(crate) classes: Vec<Option<ObjectClass>>,
    pub(crate) wanted: Wanted,
}

/// Largest `model.onnx`. A detector for these boxes has a tenth of it; a file of gigabytes is a mistake that must
/// not be read into memory.
pub const MODEL_MAX_BYTES: u64 = 256 << 20;

impl Model {
    /// Opens the folder that holds `manifest.toml` and `model.onnx`, and checks one against the other.
    pub fn open(runtime: &Runtime, folder: &Path, threads: usize) -> Result<Self, ModelError> {
        let manifest_file = folder.join("manifest.toml");
        let text = String::from_utf8_lossy(&read(&manifest_file)?).into_owned();
        let manifest = Manifest::parse(&text)
            .map_err(|source| ModelError::Manifest { file: manifest_file, source: Box::new(source) })?;

        let file = folder.join("model.onnx");
        let bytes = read(&file)?;
        let sha256 = hexadecimal(&Sha256::digest(&bytes));
        if let Some(expected) =
            manifest.sha256.as_ref().filter(|expected| !expected.eq_ignore_ascii_case(&sha256))
        {
            return Err(ModelError::Changed { file, expected: expected.clone(), found: sha256 });
        }
        // From the bytes that were hashed, not from the file again: it may change in between.
        let session = runtime
            .session(&bytes, threads)
            .map_err(|source| ModelError::Onnx { file: file.clone(), source })?;
        Self::check(manifest, session, file, sha256)
    }

    fn check(
        manifest: Manifest,
        session: Session,
        file: PathBuf,
        sha256: String,
    ) -> Result<Self, ModelError> {
        if let Some((word, place)) = session
            .outputs()
            .iter()
            .find_map(|output| Some((boundary::forbidden(&output.name)?, output.name.clone())))
        {
            return Err(ModelError::Forbidden { file, place: format!("output {place:?}"), word });
        }
        let input =
            contract::input_size(&manifest, &session).map_err(|problem| problem.at(&file, &session))?;
        let (layout, labels) = contract::detect_layout(&manifest, &session, input)
            .map_err(|problem| problem.at(&file, &session))?;
        if labels != manifest.labels.len() {
            return Err(ModelError::LabelCount { file, expected: labels, found: manifest.labels.len() });
        }
        let classes: Vec<_> = manifest.labels.iter().map(|label| manifest.class_of(label)).collect();
        let thresholds = manifest.thresholds;
        let floors = classes
            .iter()
            .map(|class| class.map_or(f32::INFINITY, |class| thresholds.faint(class)))
            .collect();
        let person = classes.iter().position(|class| *class == Some(ObjectClass::Person));
        let seen: Vec<_> =
            ObjectClass::ALL.into_iter().filter(|class| classes.contains(&Some(*class))).collect();
        if seen.is_empty() {
            return Err(ModelError::NoClass { file });
        }
        let normalisation = Normalisation {
            bgr: manifest.input.colour == ChannelOrder::Bgr,
            mean: manifest.input.mean.channels(),
            scale: manifest.input.scale.channels(),
            padding: manifest.input.padding,
        };
        let info = ModelInfo {
            name: manifest.name,
            sha256,
            classes: seen,
            thresholds,
            layout,
            input,
            licence: manifest.licence,
        };
        Ok(Self { info, session, normalisation, classes, wanted: Wanted { floors, person } })
    }
}

fn read(file: &Path) -> Result<Vec<u8>, ModelError> {
    let unreadable = |source| ModelError::Read { file: file.to_owned(), source };
    let length = std::fs::metadata(file).map_err(unreadable)?.len();
    if length > MODEL_MAX_BYTES {
        return Err(ModelError::TooLarge { file: file.to_owned(), length });
    }
    std::fs::read(file).map_err(unreadable)
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The folder holds no model that may run here.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum ModelError {
    #[error("model file {file:?}: {source}; a model is a folder with manifest.toml and model.onnx")]
    Read { file: PathBuf, source: std::io::Error },
    #[error("model file {file:?} has {length} bytes, more than the {MODEL_MAX_BYTES} that are read")]
    TooLarge { file: PathBuf, length: u64 },
    #[error("model manifest {file:?}: {source}")]
    Manifest { file: PathBuf, source: Box<ManifestError> },
    #[error(
        "model file {file:?} is not the one that its manifest describes: expected SHA-256 {expected}, found {found}; copy both again"
    )]
    Changed { file: PathBuf, expected: String, found: String },
    #[error("model file {file:?} is damaged or no ONNX file: {source}")]
    Onnx { file: PathBuf, source: OnnxError },
    #[error(
        "model file {file:?} is refused for {word:?} in {place}: this agent reports events, never identities or kinds of people"
    )]
    Forbidden { file: PathBuf, place: String, word: &'static str },
    #[error("model file {file:?} is no detector that can be run here: {reason}; found{found}")]
    NotADetector { file: PathBuf, reason: String, found: String },
    #[error("model file {file:?} scores {expected} labels, its manifest lists {found}")]
    LabelCount { file: PathBuf, expected: usize, found: usize },
    #[error(
        "model file {file:?} sees none of the agent's classes; map its labels in the manifest's class_map"
    )]
    NoClass { file: PathBuf },
    #[error("model file {file:?} failed its first run: {source}")]
    Trial { file: PathBuf, source: Box<crate::detector::DetectError> },
}
