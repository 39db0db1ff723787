//! Frame to detections: letterbox, inference, layout decoding and NMS, joined.

use std::path::Path;

use crate::detection::Detection;
use crate::frame::FrameView;
use crate::geometry::Polygon;
use crate::model::{ModelError, ModelInfo};
use crate::onnx::Runtime;

/// A model and the buffers that its frames pass through. One per thread.
pub struct Detector {}

/// What a detector may use.
#[derive(Clone, Copy, Debug)]
pub struct DetectorOptions {
    /// Threads of one inference.
    pub threads: usize,
}

impl Detector {
    /// Opens the model in a folder and runs it once, so that a model that cannot run is refused here.
    pub fn load(_runtime: &Runtime, _folder: &Path, _options: DetectorOptions) -> Result<Self, ModelError> {
        todo!()
    }

    /// The model.
    pub fn model(&self) -> &ModelInfo {
        todo!()
    }

    /// The objects of one frame, best score first: everything above a tenth of its class's threshold, one box
    /// per object. What `masks` cover never reaches the model.
    pub fn detect(
        &mut self,
        _frame: &FrameView<'_>,
        _masks: &[Polygon],
    ) -> Result<Vec<Detection>, DetectError> {
        todo!()
    }
}

/// A frame yielded no detections because the detector failed, not because there was nothing.
#[derive(Debug, thiserror::Error)]
pub enum DetectError {}
