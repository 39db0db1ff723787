//! A model's file, its manifest, and the contract that both must keep.
//!
//! The contract: one picture in, a known [`layout`](crate::layout) out, as many labels as the graph scores, at least
//! one of them a class of ours, and nothing that could tell who somebody is.
//!
//! - `manifest`: what the maker says of the model;
//! - `labels`: what else names the things that it sees;
//! - `boundary`: which words make a model one that could tell who somebody is;
//! - `graph`: what only the graph's own steps show;
//! - `picture`: what the model wants to see;
//! - `inspection`: all that was found out, for people to read.

mod boundary;
#[cfg(test)]
mod exports;
mod graph;
mod inspection;
mod labels;
mod manifest;
mod picture;

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use sharp_eyes_protocol::alert::ModelName;
use sharp_eyes_protocol::class::ObjectClass;
use sharp_eyes_protocol::topic::Name;

use crate::detection::Thresholds;
use crate::layout::{self, Decoder, Evidence, Layout, Origin, Output, Unrecognised, Wanted, WantedLabel};
use crate::letterbox::{Fit, Normalisation};
use crate::onnx::{OnnxError, Runtime, Session};
use crate::settings::{DetectorOptions, Provider};
use graph::Graph;
pub use inspection::{Inspection, LabelsFound, Mapped, Measure, Recognition};
pub use manifest::{Axes, ChannelOrder, Input, Manifest, ManifestError, PerChannel};
pub(crate) use picture::Picture;
use picture::Preprocessor;

/// What is known of a model once it is open.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelInfo {
    /// Name and version out of the manifest; of a file without one, its own name and how its SHA-256 begins.
    pub name: ModelName,
    /// SHA-256 of the file, in hexadecimal digits.
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

impl ModelInfo {
    /// Whether it sees people, so that their heads can be redacted.
    pub fn knows_people(&self) -> bool {
        self.classes.contains(&ObjectClass::Person)
    }
}

/// A model that has kept its contract, ready to run.
pub struct Model {
    pub(crate) info: ModelInfo,
    pub(crate) session: Session,
    pub(crate) picture: Picture,
    pub(crate) normalisation: Normalisation,
    pub(crate) fit: Fit,
    pub(crate) decoder: Decoder,
    /// The class of each label, where it is one of ours.
    pub(crate) classes: Vec<Option<ObjectClass>>,
    pub(crate) wanted: Wanted,
}

/// Largest `model.onnx`. A detector for these boxes has a tenth of it; a file of gigabytes is a mistake that must
/// not be read into memory.
pub const MODEL_MAX_BYTES: u64 = 256 << 20;

/// Why a graph is no detector that can be run; [`ModelError::NotADetector`] adds what was found.
struct Unlike(String);

impl Model {
    /// Opens a model and checks that it keeps the contract. `path` is a folder that holds `manifest.toml` and
    /// `model.onnx`; or an ONNX file, with a manifest of the same name but `.toml` beside it, or without one where
    /// nothing needs to be settled.
    pub fn open(
        runtime: &Runtime,
        path: &Path,
        provider: Provider,
        options: &DetectorOptions,
    ) -> Result<Self, ModelError> {
        Self::examine(runtime, path, (provider, options), None, &mut Inspection::default())
    }

    /// The same, noting down whatever is found out up to the first refusal.
    fn examine(
        runtime: &Runtime,
        path: &Path,
        (provider, options): (Provider, &DetectorOptions),
        measure: Option<Measure<'_>>,
        found: &mut Inspection,
    ) -> Result<Self, ModelError> {
        let (file, manifest_file) = locate(path);
        found.file = file.clone();
        let written = match &manifest_file {
            Some(manifest_file) => {
                let text = String::from_utf8_lossy(&read(manifest_file)?).into_owned();
                let manifest = Manifest::parse(&text).map_err(|source| ModelError::Manifest {
                    file: manifest_file.clone(),
                    source: Box::new(source),
                })?;
                found.manifest = Some(manifest_file.clone());
                Some(manifest)
            }
            None => None,
        };
        let bytes = read(&file)?;
        let sha256 = hex::encode(Sha256::digest(&bytes));
        found.sha256.clone_from(&sha256);
        found.bytes = bytes.len();
        let mut manifest = written.unwrap_or_else(|| Manifest::of_bare_file(name_of(&file, &sha256)));
        found.name = manifest.name.to_string();
        if let Some(expected) =
            manifest.sha256.as_ref().filter(|expected| !expected.eq_ignore_ascii_case(&sha256))
        {
            return Err(ModelError::Changed { file, expected: expected.clone(), found: sha256 });
        }
        // From the bytes that were hashed, not from the file again: it may change in between.
        let mut session = runtime
            .session(&bytes, provider, options)
            .map_err(|source| ModelError::Onnx { file: file.clone(), source })?;
        found.inputs = session.inputs().to_vec();
        found.outputs = session.outputs().to_vec();
        found.metadata.clone_from(session.metadata());
        if manifest_file.is_none()
            && let Some(licence) = session.metadata().get("license")
        {
            manifest.licence.clone_from(licence);
        }
        if let Some((place, word)) = session.outputs().iter().find_map(|output| {
            Some((format!("output {:?}", output.name), boundary::forbidden(&output.name)?))
        }) {
            return Err(ModelError::Forbidden { file, place, word });
        }
        if let Some(task) = session.metadata().get("task").filter(|task| *task != "detect") {
            return Err(ModelError::Task { file, task: task.clone() });
        }
        let labels = find_labels(&manifest, &session, &file, found)?;
        let beside = Preprocessor::beside(&file);
        let known = image_size(&session)
            .map(|size| (size, Origin::Metadata))
            .or_else(|| Some((beside.as_ref()?.size?, Origin::File)));
        let mut picture = Picture::of(&manifest, session.inputs(), known, &mut found.remarks)
            .map_err(|unlike| refused(unlike, String::new(), &file, &session))?;

        // The trial shows which shapes and numbers come out.
        let trial = |source| ModelError::Trial { file: file.clone(), source };
        let graph = Graph::parse(&bytes);
        let noise = picture.noise();
        let outputs = trial_run(&mut session, &mut picture, &noise, &graph).map_err(trial)?;
        if let Some(measure) = measure {
            found.latency_ms =
                Some(measure(&mut || session.run(&picture.feeds(&noise)).map(|_| ()).map_err(trial))?);
        }
        let named = named_layout(&manifest, &session)
            .map_err(|unlike| refused(unlike, String::new(), &file, &session))?;
        let evidence = Evidence {
            size: picture.size,
            outputs: &outputs,
            labels: labels.as_deref(),
            layout: named,
            section: &manifest.output,
            channels_last: picture.channels_last(),
            paddle: picture.paddle,
        };
        let mut recognised = layout::recognise(&evidence).map_err(|unrecognised| match unrecognised {
            Unrecognised::Surplus(output) => ModelError::Surplus { file: file.clone(), output },
            other => {
                let (width, height) = picture.size;
                let fitting = Layout::ALL
                    .iter()
                    .map(|layout| format!("\n  {:<11} {}", layout.name(), layout.outputs(picture.size)))
                    .collect::<String>();
                let fitting =
                    format!("; for an input of {width}x{height} and C labels these would fit{fitting}");
                refused(Unlike(other.to_string()), fitting, &file, &session)
            }
        })?;
        if named.is_some() && manifest.layout.is_none() {
            recognised.origin = Origin::Metadata;
        }
        let range = graph.pixel_range(&picture.name);
        found.remarks.append(&mut recognised.remarks);
        let (normalisation, fit) = picture.normalisation(
            &manifest,
            (&recognised, &evidence),
            range,
            beside.as_ref(),
            &mut found.remarks,
        );
        found.layout = Some(Recognition::of(&recognised));

        let Some(labels) = labels else {
            return Err(ModelError::NoLabels {
                expected: recognised.labels,
                beside: labels::files_beside(&file),
                file,
            });
        };
        if let Some(expected) = recognised.labels.filter(|expected| *expected != labels.len()) {
            return Err(ModelError::LabelCount { file, expected, found: labels.len() });
        }
        let classes: Vec<_> = labels.iter().map(|label| manifest.class_of(label)).collect();
        let thresholds = manifest.thresholds;
        let wanted_label = |(label, class): (usize, &Option<ObjectClass>)| {
            let class = (*class)?;
            let person = class == ObjectClass::Person;
            Some(WantedLabel { label, floor: thresholds.faint(class), person })
        };
        let wanted = Wanted { labels: classes.iter().enumerate().filter_map(wanted_label).collect() };
        let seen: Vec<_> =
            ObjectClass::ALL.into_iter().filter(|class| classes.contains(&Some(*class))).collect();
        if seen.is_empty() {
            return Err(ModelError::NoClass { file });
        }
        let info = ModelInfo {
            name: manifest.name,
            sha256,
            classes: seen,
            thresholds,
            layout: recognised.decoder.layout,
            input: picture.size,
            licence: manifest.licence,
        };
        let decoder = recognised.decoder;
        Ok(Self { info, session, picture, normalisation, fit, decoder, classes, wanted })
    }
}

/// The model's file, and its manifest's where there has to be one or there is one.
fn locate(path: &Path) -> (PathBuf, Option<PathBuf>) {
    let is_file = path.is_file() || (!path.is_dir() && path.extension().is_some_and(|e| e == "onnx"));
    if !is_file {
        return (path.join("model.onnx"), Some(path.join("manifest.toml")));
    }
    let own = path.with_extension("toml");
    let of_folder = path.with_file_name("manifest.toml");
    let in_folder = path.file_name().is_some_and(|name| name == "model.onnx") && of_folder.is_file();
    let manifest = if own.is_file() { Some(own) } else { in_folder.then_some(of_folder) };
    (path.to_owned(), manifest)
}

/// A name for a file without a manifest: its own, as far as a name may have it, and how its hash begins.
fn name_of(file: &Path, sha256: &str) -> ModelName {
    let stem = file.file_stem().map(|stem| stem.to_string_lossy().to_lowercase()).unwrap_or_default();
    let plain: String =
        stem.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(16).collect();
    let name = Name::new(plain.trim_matches('-'))
        .or_else(|_| Name::new("model"))
        .expect("the word is one of a-z, and shorter than a name may be");
    ModelName::new(name, format!("sha-{}", &sha256[..8]))
        .expect("a version may have twelve of these characters")
}

/// The layout that the manifest names, or the file's own metadata.
fn named_layout(manifest: &Manifest, session: &Session) -> Result<Option<Layout>, Unlike> {
    let Some(name) = session.metadata().get("sharp_eyes.layout") else { return Ok(manifest.layout) };
    let known = Layout::ALL.into_iter().find(|layout| layout.name() == name);
    match (manifest.layout, known) {
        (None, None) => {
            Err(Unlike(format!("its metadata names the layout {name:?}, which is not known here")))
        }
        (told, known) => Ok(told.or(known)),
    }
}

/// The size (width, height) that ultralytics writes into a file's metadata as `[height, width]`.
fn image_size(session: &Session) -> Option<(u32, u32)> {
    let sides: Vec<u32> = serde_json::from_str(session.metadata().get("imgsz")?).ok()?;
    let [height, width] = sides[..] else { return None };
    (height > 0 && width > 0).then_some((width, height))
}

/// The error for a graph that is no detector, with what was found and what would fit.
fn refused(reason: Unlike, fitting: String, file: &Path, session: &Session) -> ModelError {
    let found = [("input ", session.inputs()), ("output", session.outputs())]
        .into_iter()
        .flat_map(|(kind, infos)| infos.iter().map(move |info| format!("\n  {kind}  {info}")))
        .collect();
    ModelError::NotADetector { file: file.to_owned(), reason: reason.0, found, fitting }
}

/// The labels: the manifest's, else those of the file's metadata, else those of a file beside it.
fn find_labels(
    manifest: &Manifest,
    session: &Session,
    file: &Path,
    found: &mut Inspection,
) -> Result<Option<Vec<String>>, ModelError> {
    let (labels, origin, place) = if let Some(labels) = &manifest.labels {
        (labels.clone(), Origin::Manifest, "labels".to_owned())
    } else if let Some((labels, key)) = labels::of_metadata(session.metadata()) {
        (labels, Origin::Metadata, key.to_owned())
    } else {
        let beside = labels::files_beside(file).into_iter().find_map(|beside| {
            let text = std::fs::read_to_string(&beside).ok()?;
            Some((labels::parse(&text)?, beside))
        });
        let Some((labels, beside)) = beside else { return Ok(None) };
        (labels, Origin::File, beside.display().to_string())
    };
    found.labels = Some(LabelsFound::new(&labels, origin, place, |label| manifest.class_of(label)));
    if let Some((label, word)) = labels.iter().find_map(|label| Some((label, boundary::forbidden(label)?))) {
        let place = format!("label {label:?}");
        return Err(ModelError::Forbidden { file: file.to_owned(), place, word });
    }
    if let Some(label) = manifest.class_map.keys().find(|label| !labels.contains(label)) {
        return Err(ModelError::ClassMap { file: file.to_owned(), label: label.clone() });
    }
    Ok(Some(labels))
}

/// What the outputs are, in a run on noise.
fn trial_run(
    session: &mut Session,
    picture: &mut Picture,
    noise: &[f32],
    graph: &Graph<'_>,
) -> Result<Vec<Output>, OnnxError> {
    let declared: Vec<_> = session.outputs().to_vec();
    let outputs = session.run(&picture.feeds(noise))?;
    let output = |(tensor, info): (crate::tensor::Tensor<'_>, &crate::onnx::TensorInfo)| Output {
        name: info.name.clone(),
        whole: info.is_whole(),
        open: if info.shape.len() == tensor.shape.len() {
            info.shape.iter().map(|side| *side < 0).collect()
        } else {
            vec![true; tensor.shape.len()] // not even its rank is declared
        },
        shape: tensor.shape,
        numbers: tensor.numbers.into_owned(),
        ending: graph.ending(&info.name),
        exponential: graph.exponential(&info.name),
        joined: graph.joined(&info.name),
    };
    Ok(outputs.tensors().into_iter().zip(&declared).map(output).collect())
}

fn read(file: &Path) -> Result<Vec<u8>, ModelError> {
    let unreadable = |source| ModelError::Read { file: file.to_owned(), source };
    let length = std::fs::metadata(file).map_err(unreadable)?.len();
    if length > MODEL_MAX_BYTES {
        return Err(ModelError::TooLarge { file: file.to_owned(), length });
    }
    std::fs::read(file).map_err(unreadable)
}

/// This is no model that may run here.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum ModelError {
    #[error(
        "model file {file:?}: {source}; a model is a folder with manifest.toml and model.onnx, or an ONNX file"
    )]
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
    #[error(
        "model file {file:?} is refused for output {output}, which no detector needs and which could be an embedding: this agent reports events, never identities; export the detector without it"
    )]
    Surplus { file: PathBuf, output: String },
    #[error("model file {file:?} is made for the task {task:?}: this agent runs detectors of objects only")]
    Task { file: PathBuf, task: String },
    #[error("model file {file:?} is no detector that can be run here: {reason}; found{found}{fitting}")]
    NotADetector { file: PathBuf, reason: String, found: String, fitting: String },
    #[error(
        "model file {file:?} does not name the {}labels that it scores: write them into {:?}, one a line, or into its manifest",
        expected.map(|count| format!("{count} ")).unwrap_or_default(),
        beside.first().map(PathBuf::as_path).unwrap_or(file)
    )]
    NoLabels { file: PathBuf, expected: Option<usize>, beside: Vec<PathBuf> },
    #[error("model file {file:?} scores {expected} labels, its manifest lists {found}")]
    LabelCount { file: PathBuf, expected: usize, found: usize },
    #[error("model file {file:?}: class_map names {label:?}, which is none of its labels")]
    ClassMap { file: PathBuf, label: String },
    #[error(
        "model file {file:?} sees none of the agent's classes; map its labels in the manifest's class_map"
    )]
    NoClass { file: PathBuf },
    #[error("model file {file:?} cannot be run on a picture of the size that it is given: {source}")]
    Trial { file: PathBuf, source: OnnxError },
    #[error("model file {file:?} failed its first run: {source}")]
    FirstRun { file: PathBuf, source: Box<crate::detection::DetectError> },
}
