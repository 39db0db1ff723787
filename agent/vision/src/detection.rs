//! What was seen in one frame, from which score on it counts, and why nothing could be seen.

use std::collections::BTreeMap;

use sharp_eyes_protocol::alert::ModelName;
use sharp_eyes_protocol::class::ObjectClass;

use crate::geometry::Rect;
use crate::onnx::OnnxError;
use crate::tensor::UnexpectedShape;

/// One object in one frame.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Detection {
    /// What it is.
    pub class: ObjectClass,
    /// How sure the model is, 0 to 1.
    pub score: f32,
    /// Where it is, in 0..1 of the picture.
    pub bounds: Rect,
}

/// Boxes that show somebody's head: of people, and of two-wheelers, because the boxes of many data sets, and so of
/// models trained on them, include the rider.
pub(crate) fn has_head(class: ObjectClass) -> bool {
    matches!(class, ObjectClass::Person | ObjectClass::Bicycle | ObjectClass::Motorcycle)
}

/// The score, per class, from which on a detection may raise an alert.
#[derive(Clone, Debug, PartialEq)]
pub struct Thresholds {
    /// For classes without a threshold of their own.
    pub default: f32,
    /// Per class.
    pub classes: BTreeMap<ObjectClass, f32>,
}

impl Thresholds {
    /// The threshold of one class.
    pub fn of(&self, class: ObjectClass) -> f32 {
        self.classes.get(&class).copied().unwrap_or(self.default)
    }

    /// The score from which on a detection leaves the detector: a tenth of the alert threshold. Redaction wants
    /// every head, also one that no alert would be raised for.
    pub fn faint(&self, class: ObjectClass) -> f32 {
        self.of(class) / 10.0
    }
}

impl Default for Thresholds {
    fn default() -> Self {
        Self { default: 0.5, classes: BTreeMap::new() }
    }
}

/// A frame yielded no detections because the detector failed, not because there was nothing.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum DetectError {
    #[error("model {model}: {source}")]
    Onnx { model: ModelName, source: OnnxError },
    #[error("model {model}: {source}")]
    Shape { model: ModelName, source: UnexpectedShape },
    #[error(
        "model {model}: {count} of its numbers are not finite, or scores beyond 1; its detections of this frame are dropped"
    )]
    NotFinite { model: ModelName, count: usize },
}
