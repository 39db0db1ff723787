//! Frame to detections: letterbox, inference, layout decoding and NMS, joined.

use std::path::Path;

use sharp_eyes_protocol::alert::ModelName;
use sharp_eyes_protocol::class::ObjectClass;

use crate::detection::Detection;
use crate::frame::{Colour, FrameView, PixelFormat, Plane};
use crate::geometry::Polygon;
use crate::layout::{self, Candidate, Layout};
use crate::letterbox::{Canvas, Letterbox};
use crate::model::{Model, ModelError, ModelInfo};
use crate::nms;
use crate::onnx::{OnnxError, Outputs, Runtime};

/// A model and the buffers that its frames pass through. One per thread.
pub struct Detector {
    model: Model,
    canvas: Canvas,
    candidates: Vec<Candidate>,
}

/// What a detector may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DetectorOptions {
    /// Threads of one inference. One thread per camera answers more frames than many threads per frame.
    pub threads: usize,
}

impl Detector {
    /// Opens the model in a folder and runs it once on a grey picture, so that a model that cannot run is refused
    /// here and not at the first intruder.
    pub fn load(runtime: &Runtime, folder: &Path, options: DetectorOptions) -> Result<Self, ModelError> {
        let model = Model::open(runtime, folder, options.threads.max(1))?;
        let canvas = Canvas::new(model.info.input, model.normalisation);
        let mut detector = Self { model, canvas, candidates: Vec::new() };
        let grey = [128; 4];
        let planes = [Plane { data: &grey, stride: 2 }, Plane { data: &grey, stride: 2 }];
        let frame = FrameView::new(2, 2, PixelFormat::Nv12, Colour::Bt601, true, &planes)
            .expect("four bytes are two planes of 2x2 pixels");
        detector.detect(&frame, &[]).map_err(|source| ModelError::Trial {
            file: folder.join("model.onnx"),
            source: Box::new(source),
        })?;
        Ok(detector)
    }

    /// The model.
    pub fn model(&self) -> &ModelInfo {
        &self.model.info
    }

    /// The objects of one frame, best score first: everything above a tenth of its class's threshold, one box
    /// per object. What `masks` cover never reaches the model.
    pub fn detect(
        &mut self,
        frame: &FrameView<'_>,
        masks: &[Polygon],
    ) -> Result<Vec<Detection>, DetectError> {
        let Self { model, canvas, candidates } = self;
        let letterbox = canvas.draw(frame, masks);
        let failed = |source| DetectError::Onnx { model: model.info.name.clone(), source };
        let outputs = model.session.run(canvas.tensor(), canvas.shape()).map_err(failed)?;
        candidates.clear();
        let not_finite = decode(&outputs, &model.info, &model.wanted, candidates).map_err(failed)?;
        if not_finite > 0 {
            return Err(DetectError::NotFinite { model: model.info.name.clone(), count: not_finite });
        }
        let detections = candidates
            .iter()
            .filter_map(|candidate| place(candidate, letterbox, model.classes[candidate.label]?))
            .collect();
        Ok(nms::suppress(detections, nms::OVERLAP))
    }
}

/// Decodes by layout, after checking the shapes. Returns how many numbers are not finite: a NaN compares as
/// smaller than any threshold, so that a broken model would look like an empty street.
fn decode(
    outputs: &Outputs<'_>,
    info: &ModelInfo,
    wanted: &layout::Wanted,
    candidates: &mut Vec<Candidate>,
) -> Result<usize, OnnxError> {
    let anchors = layout::anchor_count(info.input).unwrap_or(0);
    let labels = wanted.floors.len();
    let mut not_finite = 0;
    match info.layout {
        Layout::Yolox => {
            let output = outputs.only(&[1, anchors, 5 + labels])?;
            not_finite += count_not_finite(output);
            layout::yolox(output, info.input, wanted, candidates);
        }
        Layout::Ltrb => {
            let distances = outputs.tensor("distances", &[1, anchors, 4])?;
            let scores = outputs.tensor("scores", &[1, anchors, labels])?;
            not_finite += count_not_finite(distances) + count_not_finite(scores);
            layout::ltrb(distances, scores, info.input, wanted, candidates);
        }
    }
    // Finite outputs can still overflow on the way to a box.
    let overflown = |candidate: &&Candidate| {
        let Candidate { score, bounds, .. } = candidate;
        ![*score, bounds.left, bounds.top, bounds.right(), bounds.bottom()]
            .iter()
            .all(|value| value.is_finite())
    };
    Ok(not_finite + candidates.iter().filter(overflown).count())
}

fn count_not_finite(numbers: &[f32]) -> usize {
    numbers.iter().filter(|number| !number.is_finite()).count()
}

/// A candidate as a detection, cut to the picture; `None` if it lies on the padding or has no area.
fn place(candidate: &Candidate, letterbox: Letterbox, class: ObjectClass) -> Option<Detection> {
    let bounds = letterbox.to_picture(candidate.bounds).clamped();
    (bounds.area() > 0.0).then(|| Detection { class, score: candidate.score.min(1.0), bounds })
}

/// A frame yielded no detections because the detector failed, not because there was nothing.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum DetectError {
    #[error("model {model}: {source}")]
    Onnx { model: ModelName, source: OnnxError },
    #[error("model {model}: {count} of its numbers are not finite; its detections of this frame are dropped")]
    NotFinite { model: ModelName, count: usize },
}
