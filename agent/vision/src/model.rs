//! A model's folder, its manifest, and the contract that both must keep.

use sharp_eyes_protocol::alert::ModelName;
use sharp_eyes_protocol::class::ObjectClass;

use crate::detection::Thresholds;

/// What is known of a model once it is open.
#[derive(Clone, Debug)]
pub struct ModelInfo {
    /// Name and version out of the manifest.
    pub name: ModelName,
    /// SHA-256 of `model.onnx`, in hexadecimal digits.
    pub sha256: String,
    /// The classes that it can see.
    pub classes: Vec<ObjectClass>,
    /// From which scores on they count.
    pub thresholds: Thresholds,
}

/// The folder holds no model that may run here.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {}
