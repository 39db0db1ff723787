//! `manifest.toml`: what the maker says of a model.

use std::collections::BTreeMap;

use serde::Deserialize;
use sharp_eyes_protocol::alert::{BadModelName, ModelName};
use sharp_eyes_protocol::class::ObjectClass;
use sharp_eyes_protocol::topic::Name;

use super::boundary::forbidden;
use crate::detection::Thresholds;
use crate::layout::{Layout, OutputSection};
use crate::letterbox::Fit;

/// `manifest.toml`, checked as far as it can be without the graph.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// Name and version.
    pub name: ModelName,
    /// What the outputs mean; detected where it is left out.
    pub layout: Option<Layout>,
    /// The labels that the graph scores, in its order; where they are left out, the graph's metadata name them, or
    /// a file of labels beside it.
    pub labels: Option<Vec<String>>,
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
    /// What its outputs leave open.
    pub output: OutputSection,
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
            output,
            thresholds,
        } = toml::from_str(text)?;
        let name = ModelName::new(name, version)?;
        if labels.as_ref().is_some_and(Vec::is_empty) {
            return Err(ManifestError::NoLabels);
        }
        if let Some((label, word)) =
            labels.iter().flatten().chain(class_map.keys()).find_map(|label| Some((label, forbidden(label)?)))
        {
            return Err(ManifestError::Forbidden { label: label.clone(), word });
        }
        if let Some(labels) = &labels
            && let Some(label) = class_map.keys().find(|label| !labels.contains(label))
        {
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
            output,
            thresholds: scores,
        })
    }

    /// What is taken for a manifest where a file comes without one.
    pub(super) fn of_bare_file(name: ModelName) -> Self {
        Self {
            name,
            layout: None,
            labels: None,
            licence: "unknown".into(),
            training_data: Vec::new(),
            sha256: None,
            class_map: BTreeMap::new(),
            input: Input::default(),
            output: OutputSection::default(),
            thresholds: Thresholds::default(),
        }
    }

    pub(super) fn class_of(&self, label: &str) -> Option<ObjectClass> {
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
    labels: Option<Vec<String>>,
    licence: String,
    training_data: Vec<String>,
    sha256: Option<String>,
    #[serde(default)]
    class_map: BTreeMap<String, ObjectClass>,
    #[serde(default)]
    input: Input,
    #[serde(default)]
    output: OutputSection,
    #[serde(default)]
    thresholds: BTreeMap<String, f32>,
}

/// The manifest's section `[input]`: the tensor holds `(pixel - mean) * scale`. What is left out is as the graph shows
/// it, or else as it is where the layout comes from.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Input {
    /// Width, where the graph leaves it open.
    pub width: Option<u32>,
    /// Height, where the graph leaves it open.
    pub height: Option<u32>,
    /// The order of the axes, where the graph leaves them open.
    pub axes: Option<Axes>,
    /// The order of the channels.
    pub colour: Option<ChannelOrder>,
    /// One factor, or one for each channel in the tensor's order.
    pub scale: Option<PerChannel>,
    /// One pixel value, or one for each channel in the tensor's order.
    pub mean: Option<PerChannel>,
    /// How a picture of other proportions becomes the tensor's.
    pub fit: Option<Fit>,
    /// The pixel value around the picture.
    pub padding: f32,
}

impl Default for Input {
    fn default() -> Self {
        Self {
            width: None,
            height: None,
            axes: None,
            colour: None,
            scale: None,
            mean: None,
            fit: None,
            padding: 114.0,
        }
    }
}

/// The order of a tensor's axes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Axes {
    /// Batch, channels, height, width.
    Nchw,
    /// Batch, height, width, channels.
    Nhwc,
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
    pub(super) fn channels(self) -> [f32; 3] {
        match self {
            Self::One(value) => [value; 3],
            Self::Each(values) => values,
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

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
            fit = "stretch"
            axes = "nhwc"

            [output]
            boxes = "yxyx"
            unit = "normalised"
            scores = "softmax"
            background = "last"
            first_label = 1

            [thresholds]
            default = 0.35
            person = 0.4
            "#,
        )
        .unwrap();
        let classes: Vec<_> =
            manifest.labels.iter().flatten().map(|label| manifest.class_of(label)).collect();
        assert_eq!(
            classes,
            [Some(ObjectClass::Person), Some(ObjectClass::Motorcycle), Some(ObjectClass::Cow), None]
        );
        assert_eq!(manifest.thresholds.of(ObjectClass::Person), 0.4);
        assert_eq!(manifest.thresholds.of(ObjectClass::Cow), 0.35);
        assert_eq!(manifest.input.mean.map(PerChannel::channels), Some([127.5; 3]));
        assert_eq!(manifest.input.scale.map(PerChannel::channels), Some([0.0174, 0.0175, 0.0171]));
        assert_eq!(manifest.output.boxes, Some(crate::layout::BoxForm::Yxyx));
    }
}
