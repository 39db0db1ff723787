//! A model's folder, its manifest, and the contract that both must keep.
//!
//! The contract: one f32 image in, a known [`layout`](crate::layout) out, as many labels as the graph scores, at
//! least one of them a class of ours, and nothing that could tell who somebody is.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest, Sha256};
use sharp_eyes_protocol::alert::{BadModelName, ModelName};
use sharp_eyes_protocol::class::ObjectClass;
use sharp_eyes_protocol::topic::Name;

use crate::detection::Thresholds;
use crate::layout::{self, Layout, Wanted};
use crate::letterbox::Normalisation;
use crate::onnx::{OnnxError, Runtime, Session, TensorInfo};

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
        if let Some((word, place)) =
            session.outputs().iter().find_map(|output| Some((forbidden(&output.name)?, output.name.clone())))
        {
            return Err(ModelError::Forbidden { file, place: format!("output {place:?}"), word });
        }
        let input = input_size(&manifest, &session).map_err(|problem| problem.at(&file, &session))?;
        let (layout, labels) =
            detect_layout(&manifest, &session, input).map_err(|problem| problem.at(&file, &session))?;
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

/// `manifest.toml`, checked as far as it can be without the graph.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// Name and version.
    pub name: ModelName,
    /// What the outputs mean; detected where it is left out.
    pub layout: Option<Layout>,
    /// The labels that the graph scores, in its order.
    pub labels: Vec<String>,
    /// An SPDX expression.
    pub licence: String,
    /// What it was trained on.
    pub training_data: Vec<String>,
    /// SHA-256 of `model.onnx`, checked where it is given.
    pub sha256: Option<String>,
    /// Labels that mean a class under another name.
    pub class_map: BTreeMap<String, ObjectClass>,
    /// What the graph wants to see.
    pub input: Input,
    /// From which scores on its detections count.
    pub thresholds: Thresholds,
}

impl Manifest {
    /// Reads a manifest.
    pub fn parse(text: &str) -> Result<Self, ManifestError> {
        let Written {
            name,
            version,
            layout,
            labels,
            licence,
            training_data,
            sha256,
            class_map,
            input,
            thresholds,
        } = toml::from_str(text)?;
        let name = ModelName::new(name, version)?;
        if labels.is_empty() {
            return Err(ManifestError::NoLabels);
        }
        if let Some((label, word)) =
            labels.iter().chain(class_map.keys()).find_map(|label| Some((label, forbidden(label)?)))
        {
            return Err(ManifestError::Forbidden { label: label.clone(), word });
        }
        if let Some(label) = class_map.keys().find(|label| !labels.contains(label)) {
            return Err(ManifestError::ClassMap { label: label.clone() });
        }
        if !(0.0..=255.0).contains(&input.padding) {
            return Err(ManifestError::Padding(input.padding));
        }
        let mut scores = Thresholds::default();
        for (key, score) in thresholds {
            if !(score > 0.0 && score <= 1.0) {
                return Err(ManifestError::Threshold { key, score });
            }
            match key.as_str() {
                "default" => scores.default = score,
                class => {
                    let class =
                        class.parse().map_err(|_| ManifestError::ThresholdClass { key: class.to_owned() })?;
                    scores.classes.insert(class, score);
                }
            }
        }
        Ok(Self {
            name,
            layout,
            labels,
            licence,
            training_data,
            sha256,
            class_map,
            input,
            thresholds: scores,
        })
    }

    fn class_of(&self, label: &str) -> Option<ObjectClass> {
        self.class_map.get(label).copied().or_else(|| ObjectClass::from_label(label))
    }
}

/// The manifest as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: Name,
    version: String,
    layout: Option<Layout>,
    labels: Vec<String>,
    licence: String,
    training_data: Vec<String>,
    sha256: Option<String>,
    #[serde(default)]
    class_map: BTreeMap<String, ObjectClass>,
    #[serde(default)]
    input: Input,
    #[serde(default)]
    thresholds: BTreeMap<String, f32>,
}

/// The manifest's section `[input]`: the tensor holds `(pixel - mean) * scale`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Input {
    /// Width, where the graph leaves it open.
    pub width: Option<u32>,
    /// Height, where the graph leaves it open.
    pub height: Option<u32>,
    /// The order of the channels.
    pub colour: ChannelOrder,
    /// One factor, or one for each channel in the tensor's order.
    pub scale: PerChannel,
    /// One pixel value, or one for each channel in the tensor's order.
    pub mean: PerChannel,
    /// The pixel value around the picture.
    pub padding: f32,
}

impl Default for Input {
    fn default() -> Self {
        Self {
            width: None,
            height: None,
            colour: ChannelOrder::Rgb,
            scale: PerChannel::One(1.0),
            mean: PerChannel::One(0.0),
            padding: 114.0,
        }
    }
}

/// The order of a tensor's channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)] // the names say it
pub enum ChannelOrder {
    Rgb,
    Bgr,
}

/// One number for all channels or one for each.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(untagged, expecting = "one number, or three in the tensor's order of channels")]
#[allow(missing_docs)] // the names say it
pub enum PerChannel {
    One(f32),
    Each([f32; 3]),
}

impl PerChannel {
    fn channels(self) -> [f32; 3] {
        match self {
            Self::One(value) => [value; 3],
            Self::Each(values) => values,
        }
    }
}

/// The word in a label or output's name that says who somebody is instead of what happens, if there is one.
///
/// Whole words, so that "headphones" and "traffic light" pass. A model that declares one of these is refused
/// even though its label would be dropped: it was made for something that this agent does not do.
fn forbidden(text: &str) -> Option<&'static str> {
    const WORDS: [&str; 36] = [
        "face",
        "faces",
        "facial",
        "landmark",
        "landmarks",
        "iris",
        "identity",
        "reid",
        "embedding",
        "embeddings",
        "embed",
        "feature",
        "features",
        "feat",
        "plate",
        "plates",
        "numberplate",
        "licenseplate",
        "gait",
        "man",
        "men",
        "woman",
        "women",
        "boy",
        "girl",
        "child",
        "children",
        "baby",
        "elderly",
        "male",
        "female",
        "gender",
        "age",
        "ethnicity",
        "race",
        "religion",
    ];
    const CHARACTERS: [&str; 9] = ["人脸", "脸", "车牌", "男", "女", "儿童", "年龄", "性别", "民族"];
    let lower = text.to_lowercase();
    let words: Vec<&str> = lower.split(|c: char| !c.is_alphanumeric()).collect();
    let reid = words.windows(2).any(|pair| pair == ["re", "id"]).then_some("re-id");
    reid.or_else(|| WORDS.into_iter().find(|word| words.contains(word)))
        .or_else(|| CHARACTERS.into_iter().find(|characters| lower.contains(characters)))
}

/// Why a graph is no detector that can be run; [`ModelError::NotADetector`] adds what was found.
struct Unlike(String);

impl Unlike {
    fn at(self, file: &Path, session: &Session) -> ModelError {
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
fn input_size(manifest: &Manifest, session: &Session) -> Result<(u32, u32), Unlike> {
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
fn detect_layout(
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

/// The text is no manifest.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum ManifestError {
    #[error("{0}")]
    Toml(#[from] toml::de::Error),
    #[error(transparent)]
    Name(#[from] BadModelName),
    #[error("labels is empty: list what the graph scores, in its order")]
    NoLabels,
    #[error(
        "label {label:?} is refused for {word:?}: this agent reports events, never identities or kinds of people"
    )]
    Forbidden { label: String, word: &'static str },
    #[error("class_map names {label:?}, which is none of the labels")]
    ClassMap { label: String },
    #[error("input.padding is {0}: a pixel value is 0 to 255")]
    Padding(f32),
    #[error("thresholds.{key} is {score}: a score is above 0 and at most 1")]
    Threshold { key: String, score: f32 },
    #[error("thresholds.{key}: no such class; use \"default\" or one of the agent's classes")]
    ThresholdClass { key: String },
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_about_identities_and_kinds_of_people_are_forbidden_and_objects_are_not() {
        for (label, word) in [
            ("face", Some("face")),
            ("Human_Face", Some("face")),
            ("license plate", Some("plate")),
            ("woman", Some("woman")),
            ("re-id", Some("re-id")),
            ("person_reid", Some("reid")),
            ("output_embedding", Some("embedding")),
            ("age/gender", Some("gender")),
            ("人脸", Some("人脸")),
            ("person", None),
            ("headphones", None),
            ("surface", None),
            ("fire hydrant", None),
            ("teddy bear", None),
            ("garbage", None),
            ("plateau", None),
        ] {
            assert_eq!(forbidden(label), word, "{label}");
        }
    }

    #[test]
    fn a_full_manifest_is_read() {
        let manifest = Manifest::parse(
            r#"
            name = "village-detector"
            version = "1.0.0"
            layout = "ltrb"
            labels = ["person", "motorbike", "cattle", "kite"]
            licence = "Apache-2.0"
            training_data = ["own pictures"]
            sha256 = "00"

            [class_map]
            cattle = "cow"

            [input]
            width = 512
            height = 320
            colour = "bgr"
            scale = [0.0174, 0.0175, 0.0171]
            mean = 127.5
            padding = 0

            [thresholds]
            default = 0.35
            person = 0.4
            "#,
        )
        .unwrap();
        let classes: Vec<_> = manifest.labels.iter().map(|label| manifest.class_of(label)).collect();
        assert_eq!(
            classes,
            [Some(ObjectClass::Person), Some(ObjectClass::Motorcycle), Some(ObjectClass::Cow), None]
        );
        assert_eq!(manifest.thresholds.of(ObjectClass::Person), 0.4);
        assert_eq!(manifest.thresholds.of(ObjectClass::Cow), 0.35);
        assert_eq!(manifest.input.mean.channels(), [127.5; 3]);
        assert_eq!(manifest.input.scale.channels(), [0.0174, 0.0175, 0.0171]);
    }
}
