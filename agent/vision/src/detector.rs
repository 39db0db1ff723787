//! Frame to detections: letterbox, inference, layout decoding and NMS, joined.

use std::path::Path;

use crate::detection::{DetectError, Detection};
use crate::frame::{Colour, FrameView, PixelFormat, Plane};
use crate::geometry::{Polygon, Rect};
use crate::layout::Candidate;
use crate::letterbox::{Canvas, Fit};
use crate::look::Look;
use crate::model::{Model, ModelError, ModelInfo};
use crate::onnx::{Interrupt, OnnxError, Runtime};
use crate::packing::{self, Object, Placement, Sights};
use crate::settings::{DetectorOptions, Provider};

/// A model and the buffers that its frames pass through. One per thread.
pub struct Detector {
    model: Model,
    canvas: Canvas,
    candidates: Vec<Candidate>,
    provider: Provider,
}

/// A frame in which something is worth a close look.
#[derive(Clone, Copy, Debug)]
pub struct Glance<'a> {
    /// The picture.
    pub frame: &'a FrameView<'a>,
    /// What nobody may see of it.
    pub masks: &'a [Polygon],
    /// What in it.
    pub objects: &'a [Object],
}

impl Glance<'_> {
    fn picture(&self) -> (u32, u32) {
        (self.frame.width(), self.frame.height())
    }
}

impl Detector {
    /// Opens a model ([`Model::open`] says what `path` can be) and runs it once on a grey picture, so that one that
    /// cannot run is refused here and not at the first intruder: by the first of the providers that the library has and
    /// that can run it.
    pub fn load(runtime: &Runtime, path: &Path, options: &DetectorOptions) -> Result<Self, ModelError> {
        let offered = options.providers.iter().filter(|provider| runtime.providers().contains(provider));
        let mut refusal = None;
        for provider in offered {
            match Self::on(*provider, runtime, path, options) {
                Ok(detector) => return Ok(detector),
                // What the last one says counts: that is the processor, as a rule, and of the model.
                Err(error) => refusal = Some(error),
            }
        }
        Err(refusal.unwrap_or_else(|| ModelError::Onnx {
            file: path.to_owned(),
            source: OnnxError::NoProvider {
                wanted: options.providers.clone(),
                offered: runtime.providers().to_vec(),
            },
        }))
    }

    fn on(
        provider: Provider,
        runtime: &Runtime,
        path: &Path,
        options: &DetectorOptions,
    ) -> Result<Self, ModelError> {
        let model = Model::open(runtime, path, provider, options)?;
        let canvas = Canvas::new(model.info.input, model.normalisation, model.fit);
        let mut detector = Self { model, canvas, candidates: Vec::new(), provider };
        let grey = [128; 4];
        let planes = [Plane { data: &grey, stride: 2 }, Plane { data: &grey, stride: 2 }];
        let frame = FrameView::new(2, 2, PixelFormat::Nv12, Colour::Bt601, true, &planes)
            .expect("four bytes are two planes of 2x2 pixels");
        detector
            .detect(&frame, &[])
            .map_err(|source| ModelError::FirstRun { file: path.to_owned(), source: Box::new(source) })?;
        Ok(detector)
    }

    /// The model.
    pub fn model(&self) -> &ModelInfo {
        &self.model.info
    }

    /// What runs it.
    pub fn provider(&self) -> Provider {
        self.provider
    }

    /// What ends an inference that hangs. The detector is of no use any more then.
    pub fn interrupt(&self) -> Interrupt {
        self.model.session.interrupt()
    }

    /// The objects of one frame, best score first: everything above a tenth of its class's threshold, one box
    /// per object. What `masks` cover never reaches the model.
    pub fn detect(
        &mut self,
        frame: &FrameView<'_>,
        masks: &[Polygon],
    ) -> Result<Vec<Detection>, DetectError> {
        self.look(frame, masks).map(|look| look.detections)
    }

    /// The same, and who stands behind others: for whoever makes a picture of the frame.
    pub fn look(&mut self, frame: &FrameView<'_>, masks: &[Polygon]) -> Result<Look, DetectError> {
        let letterbox = self.canvas.draw(frame, masks);
        self.run()?;
        Ok(self.placed(true, |bounds| Some(letterbox.to_picture(bounds))))
    }

    /// The same of the surroundings of some objects in one or several frames, larger than [`Detector::look`] sees them and
    /// in one inference; nothing is known of the rest of the pictures then. `None` where whole pictures show as much or there
    /// is no room for all ([`packing::pack`]), or the model does not keep proportions.
    pub fn detect_closely(&mut self, glances: &[Glance<'_>]) -> Result<Option<Vec<Look>>, DetectError> {
        let Some(parts) = self.pack(glances) else { return Ok(None) };
        let frames = glances.iter().zip(&parts);
        self.canvas.draw_parts(frames.map(|(glance, parts)| (glance.frame, glance.masks, &parts[..])));
        self.run()?;
        let looks = glances.iter().zip(&parts).map(|(glance, parts)| {
            let picture = glance.picture();
            self.placed(false, |bounds| parts.iter().find_map(|part| part.to_picture(bounds, picture)))
        });
        Ok(Some(looks.collect()))
    }

    /// Whether [`Detector::detect_closely`] would look at all of these at once.
    pub fn fit_together(&self, glances: &[Glance<'_>]) -> bool {
        self.pack(glances).is_some()
    }

    fn pack(&self, glances: &[Glance<'_>]) -> Option<Vec<Vec<Placement>>> {
        let sights: Vec<Sights<'_>> =
            glances.iter().map(|glance| (glance.objects, glance.picture())).collect();
        (self.model.fit == Fit::Letterbox).then(|| packing::pack(&sights, self.model.info.input))?
    }

    /// Runs the model on the canvas.
    fn run(&mut self) -> Result<(), DetectError> {
        let Self { model, canvas, candidates, .. } = self;
        let name = || model.info.name.clone();
        let feeds = model.picture.feeds(canvas.tensor());
        let outputs =
            model.session.run(&feeds).map_err(|source| DetectError::Onnx { model: name(), source })?;
        candidates.clear();
        let not_finite = model
            .decoder
            .decode(&outputs.tensors(), model.info.input, &model.wanted, candidates)
            .map_err(|source| DetectError::Shape { model: name(), source })?;
        if not_finite > 0 {
            return Err(DetectError::NotFinite { model: name(), count: not_finite });
        }
        Ok(())
    }

    /// What the last run found. `place` brings a box from the canvas to the picture; what has no place there, or no area, is
    /// nothing.
    fn placed(&self, whole: bool, place: impl Fn(Rect) -> Option<Rect>) -> Look {
        let detection = |candidate: &Candidate| {
            let class = (*self.model.classes.get(candidate.label)?)?;
            let bounds = place(candidate.bounds)?.clamped();
            (bounds.area() > 0.0).then(|| Detection { class, score: candidate.score.min(1.0), bounds })
        };
        Look::of(self.candidates.iter().filter_map(detection).collect(), whole)
    }
}

#[cfg(test)]
mod tests {
    use sharp_eyes_protocol::class::ObjectClass;

    use super::*;
    use crate::layout::Layout;
    use crate::testing::{TestFrame, TinyElement, TinyModel, TinyOutput, runtime};

    /// Anchors of a 64x32 tensor: 32 of stride 8, 8 of stride 16, 2 of stride 32.
    const ANCHORS: usize = 42;

    const MANIFEST: &str = r#"
        name = "tiny"
        version = "1"
        labels = ["person", "kite"]
        licence = "Apache-2.0"
        training_data = []
    "#;

    /// A model in the layout ltrb that sees what `answers` say: anchor, distances, scores.
    fn ltrb(answers: &[(usize, [f32; 4], [f32; 2])]) -> TinyModel {
        ltrb_of((64, 32), ANCHORS, answers)
    }

    /// The same for an input of this size, which has so many anchors.
    fn ltrb_of(
        (width, height): (i64, i64),
        anchors: usize,
        answers: &[(usize, [f32; 4], [f32; 2])],
    ) -> TinyModel {
        let (mut distances, mut scores) = (vec![0.0; anchors * 4], vec![0.0; anchors * 2]);
        for &(anchor, sides, score) in answers {
            distances[anchor * 4..][..4].copy_from_slice(&sides);
            scores[anchor * 2..][..2].copy_from_slice(&score);
        }
        let rows = anchors as i64;
        TinyModel {
            outputs: vec![
                TinyOutput::new("distances", &[1, rows, 4], distances),
                TinyOutput::new("scores", &[1, rows, 2], scores),
            ],
            metadata: vec![("sharp_eyes.layout", "ltrb")],
            ..TinyModel::new(&[1, 3, height, width], TinyElement::F32)
        }
    }

    /// A model with one output of these sides, filled with one number.
    fn constant(name: &'static str, sides: &[i64], value: f32) -> TinyModel {
        let numbers = vec![value; sides.iter().product::<i64>() as usize];
        TinyModel {
            outputs: vec![TinyOutput::new(name, sides, numbers)],
            ..TinyModel::new(&[1, 3, 32, 64], TinyElement::F32)
        }
    }

    fn load(runtime: &Runtime, manifest: &str, model: &[u8]) -> Result<Detector, ModelError> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("manifest.toml"), manifest).unwrap();
        std::fs::write(folder.path().join("model.onnx"), model).unwrap();
        Detector::load(runtime, folder.path(), &DetectorOptions::default())
    }

    #[test]
    fn what_the_model_answers_becomes_detections_of_the_picture() {
        let Some(runtime) = runtime() else { return };
        let model = ltrb(&[
            (0, [0.5, 0.5, 1.5, 2.5], [0.9, 0.0]),   // 0,0 to 16,24 of the tensor
            (1, [1.4, 0.5, 0.6, 2.5], [0.8, 0.0]),   // nearly the same: suppressed
            (20, [0.5, 0.5, 0.5, 0.5], [0.06, 0.0]), // faint: kept for redaction
            (21, [0.5, 0.5, 0.5, 0.5], [0.04, 0.0]), // fainter than a tenth of the threshold
            (22, [0.5, 0.5, 0.5, 0.5], [0.0, 0.9]),  // no class of ours
            (41, [-0.1, 0.5, 0.4, 0.5], [0.7, 0.0]), // on the padding
        ]);
        let mut detector = load(&runtime, MANIFEST, &model.to_bytes()).unwrap();
        let info = detector.model();
        assert_eq!(info.name.to_string(), "tiny@1");
        assert_eq!((info.layout, info.input), (Layout::Ltrb, (64, 32)));
        assert_eq!(info.classes, [ObjectClass::Person]);
        assert_eq!(info.sha256.len(), 64);

        // A square picture takes the left half of the tensor.
        let frame = TestFrame::new(128, 128, PixelFormat::I420, |_, _| [0, 128, 128]);
        let found = detector.detect(&frame.view(), &[]).unwrap();
        let [Detection { class: ObjectClass::Person, score: 0.9, bounds }] = found[..] else {
            panic!("expected one person, found {found:?}"); // the faint one lies on the padding too
        };
        let expected = Rect { left: 0.0, top: 0.0, width: 0.5, height: 0.75 };
        assert!(bounds.iou(&expected) > 0.999, "{bounds:?}");

        // A wide one takes all of it.
        let frame = TestFrame::new(128, 64, PixelFormat::Nv12, |_, _| [0, 128, 128]);
        let scores: Vec<_> = detector.detect(&frame.view(), &[]).unwrap().iter().map(|d| d.score).collect();
        assert_eq!(scores, [0.9, 0.7, 0.06]);
    }

    #[test]
    fn whoever_stands_behind_another_is_no_detection_and_not_forgotten() {
        let Some(runtime) = runtime() else { return };
        let model = ltrb(&[
            (17, [1.0, 0.875, 1.0, 0.625], [0.9, 0.0]), // 4,13 to 20,25 of the tensor
            (9, [1.0, 1.0, 1.0, 1.625], [0.3, 0.0]),    // 4,4 to 20,25: a head higher
        ]);
        let mut detector = load(&runtime, MANIFEST, &model.to_bytes()).unwrap();
        let frame = TestFrame::new(128, 64, PixelFormat::I420, |_, _| [80, 128, 128]);
        let scores = |found: &[Detection]| -> Vec<f32> { found.iter().map(|d| d.score).collect() };
        let whole = detector.look(&frame.view(), &[]).unwrap();
        let bounds = Rect { left: 0.5, top: 0.5, width: 8.0 / 640.0, height: 8.0 / 320.0 };
        let large = TestFrame::new(640, 320, PixelFormat::I420, |_, _| [80, 128, 128]);
        let (view, objects) = (large.view(), [Object { bounds, hazard: false }]);
        let glance = Glance { frame: &view, masks: &[], objects: &objects };
        let close = detector.detect_closely(&[glance]).unwrap().unwrap().remove(0);
        for look in [whole, close] {
            assert_eq!(scores(&look.detections), [0.9], "{look:?}");
            assert_eq!(scores(&look.everybody().unwrap()), [0.9, 0.3], "{look:?}");
        }
    }

    #[test]
    fn whoever_rides_is_a_person_like_all_others() {
        let Some(runtime) = runtime() else { return };
        let manifest = MANIFEST.replace(r#"["person", "kite"]"#, r#"["pedestrian", "rider"]"#);
        let model = ltrb(&[(0, [0.5, 0.5, 1.5, 2.5], [0.9, 0.0]), (20, [0.5; 4], [0.0, 0.7])]);
        let mut detector = load(&runtime, &manifest, &model.to_bytes()).unwrap();
        assert_eq!(detector.model().classes, [ObjectClass::Person]);
        let frame = TestFrame::new(128, 64, PixelFormat::I420, |_, _| [80, 128, 128]);
        let everybody = detector.look(&frame.view(), &[]).unwrap().everybody().unwrap();
        let found: Vec<_> = everybody.iter().map(|found| (found.class, found.score)).collect();
        assert_eq!(found, [(ObjectClass::Person, 0.9), (ObjectClass::Person, 0.7)]);
    }

    #[test]
    fn a_close_look_finds_its_objects_where_they_are_in_the_picture() {
        let Some(runtime) = runtime() else { return };
        // Anchor 0 is the first of stride 8, at 4,4 of the tensor: a box of 8x8 there; and one that lies beyond all parts.
        let model = ltrb(&[(0, [0.25, 0.25, 0.75, 0.75], [0.9, 0.0]), (31, [1.0; 4], [0.8, 0.0])]);
        let mut detector = load(&runtime, MANIFEST, &model.to_bytes()).unwrap();
        let frame = TestFrame::new(640, 320, PixelFormat::Nv12, |_, _| [80, 128, 128]);
        let small = Rect { left: 0.5, top: 0.5, width: 8.0 / 640.0, height: 8.0 / 320.0 };
        let view = frame.view();
        let mut closely = |bounds: Rect| {
            let objects = &[Object { bounds, hazard: false }];
            detector.detect_closely(&[Glance { frame: &view, masks: &[], objects }]).unwrap()
        };
        let found = closely(small).unwrap().remove(0).detections;
        let [Detection { bounds, .. }] = found[..] else { panic!("expected one, found {found:?}") };
        // The part begins 16 pixels before the object.
        let (left, top) = (bounds.left * 640.0, bounds.top * 320.0);
        assert!(
            (left - (320.0 - 16.0 + 2.0)).abs() < 2.0 && (top - (160.0 - 16.0 + 2.0)).abs() < 2.0,
            "{found:?}"
        );
        let large = Rect { left: 0.1, top: 0.1, width: 0.5, height: 0.8 };
        assert_eq!(closely(large), None);
    }

    #[test]
    fn a_close_look_at_several_pictures_finds_each_ones_objects_in_it() {
        let Some(runtime) = runtime() else { return };
        // 16 by 8 anchors of stride 8, then the others. The first at 4,4 of the tensor, the seventh at 52,4.
        let answers = [(0, [0.25, 0.25, 0.75, 0.75], [0.9, 0.0]), (6, [0.25; 4], [0.8, 0.0])];
        let model = ltrb_of((128, 64), 16 * 8 + 8 * 4 + 4 * 2, &answers);
        let mut detector = load(&runtime, MANIFEST, &model.to_bytes()).unwrap();
        let frame = |luma| TestFrame::new(1280, 640, PixelFormat::Nv12, move |_, _| [luma, 128, 128]);
        let (here, there) = (frame(80), frame(160));
        let (here, there) = (here.view(), there.view());
        let small = |left: f32| {
            let bounds = Rect { left, top: 0.5, width: 2.0 / 1280.0, height: 2.0 / 640.0 };
            [Object { bounds, hazard: false }]
        };
        let (left, right) = (small(0.25), small(0.75));
        let glances = [(&here, &left), (&there, &right), (&here, &right), (&there, &left)]
            .map(|(frame, objects)| Glance { frame, masks: &[], objects });
        // With 16 pixels around it each takes 34 columns and rows, and there are 4 between two.
        assert!(detector.fit_together(&glances[..3]));
        assert!(!detector.fit_together(&glances));
        let found = detector.detect_closely(&glances[..2]).unwrap().unwrap();
        let pixels = |detection: &Detection| {
            let Rect { left, top, width, height } = detection.bounds;
            [left * 1280.0, top * 640.0, width * 1280.0, height * 640.0].map(f32::round)
        };
        let found: Vec<Vec<_>> =
            found.iter().map(|look| look.detections.iter().map(pixels).collect()).collect();
        let (first, second) = ([304.0 + 2.0, 304.0 + 2.0, 8.0, 8.0], [944.0 + 12.0, 304.0 + 2.0, 4.0, 4.0]);
        assert_eq!(found, [vec![first], vec![second]]);
    }

    #[test]
    fn the_layout_is_detected_from_outputs_or_metadata() {
        let Some(runtime) = runtime() else { return };
        let unnamed = TinyModel { metadata: vec![], ..ltrb(&[]) };
        let mut open = ltrb(&[]);
        open.inputs[0].1 = vec![-1, 3, -1, -1];
        for output in &mut open.outputs {
            output.declared = vec![-1, -1, output.declared[2]];
        }
        let sized = format!("{MANIFEST}\n[input]\nwidth = 64\nheight = 32");
        for (manifest, model, layout) in [
            (MANIFEST, ltrb(&[]), Layout::Ltrb),
            (MANIFEST, unnamed, Layout::Ltrb),
            (&sized, open, Layout::Ltrb),
            (MANIFEST, constant("output", &[1, ANCHORS as i64, 7], 0.0), Layout::Yolox),
        ] {
            assert_eq!(load(&runtime, manifest, &model.to_bytes()).unwrap().model().layout, layout);
        }
    }

    #[test]
    fn a_model_that_breaks_the_contract_is_refused_with_what_was_found() {
        let Some(runtime) = runtime() else { return };
        let yolox = |columns| constant("output", &[1, ANCHORS as i64, columns], 0.0).to_bytes();
        let good = ltrb(&[]).to_bytes();
        let truncated = good[..good.len() / 2].to_vec();
        let with = |line: &str| format!("{MANIFEST}\n{line}");
        let labels = |list: &str| MANIFEST.replace(r#"["person", "kite"]"#, list);
        let mut embedding = ltrb(&[]);
        embedding.outputs.push(TinyOutput::new("embedding", &[1, 2], vec![0.0; 2]));
        let mut surplus = ltrb(&[]);
        surplus.outputs.push(TinyOutput::new("id", &[1, ANCHORS as i64, 16], vec![0.0; ANCHORS * 16]));
        let mut pose = ltrb(&[]);
        pose.metadata.push(("task", "pose"));
        let mut open = ltrb(&[]);
        open.inputs[0].1 = vec![1, 3, -1, -1];
        let not_a_number = ltrb(&[(5, [f32::NAN, 0.0, f32::INFINITY, 0.0], [0.0, 0.0])]);
        let overflow = constant("output", &[1, ANCHORS as i64, 7], 100.0); // exp(100) is infinite
        let wrong_metadata = TinyModel { metadata: vec![("sharp_eyes.layout", "yolo99")], ..ltrb(&[]) };
        let sized = with("[input]\nwidth = 416");
        let hash = with(&format!("sha256 = \"{}\"", "0".repeat(64)));
        for (manifest, model, parts) in [
            ("name = ", good.clone(), &["manifest.toml", "name"][..]),
            (&with("colour = \"rgb\""), good.clone(), &["unknown field `colour`"]),
            (&with("[thresholds]\nperson = 1.5"), good.clone(), &["thresholds.person is 1.5"]),
            (&with("[thresholds]\nkite = 0.5"), good.clone(), &["thresholds.kite: no such class"]),
            (&with("[class_map]\nkites = \"person\""), good.clone(), &["class_map names \"kites\""]),
            (&labels("[]"), good.clone(), &["labels is empty"]),
            (
                &labels(r#"["person", "Human face"]"#),
                good.clone(),
                &["\"Human face\"", "\"face\"", "never identities"],
            ),
            (&labels(r#"["person"]"#), good.clone(), &["scores 2 labels", "lists 1"]),
            (&labels(r#"["kite", "cell phone"]"#), good.clone(), &["none of the agent's classes"]),
            (&hash, good.clone(), &["expected SHA-256 000000", "found "]),
            (MANIFEST, truncated, &["model.onnx", "damaged or no ONNX file"]),
            (MANIFEST, b"<html>not found</html>".to_vec(), &["damaged or no ONNX file"]),
            (MANIFEST, Vec::new(), &["damaged or no ONNX file"]),
            (MANIFEST, yolox(8), &["scores 3 labels", "lists 2"]),
            (
                MANIFEST,
                constant("logits", &[1, 1000], 0.0).to_bytes(),
                &[
                    "its outputs fit no layout; found",
                    "for an input of 64x32 and C labels these would fit",
                    "yolov8      [1, 4 + C, 42]",
                    "input   images f32 [1, 3, 32, 64]",
                    "output  logits f32 [1, 1000]",
                ],
            ),
            (&with("layout = \"yolox\""), good.clone(), &["do not fit the layout yolox", "distances"]),
            (MANIFEST, wrong_metadata.to_bytes(), &["layout \"yolo99\""]),
            (MANIFEST, embedding.to_bytes(), &["output \"embedding\"", "never identities"]),
            (MANIFEST, surplus.to_bytes(), &["output \"id\" [1, 42, 16]", "embedding", "never identities"]),
            (MANIFEST, pose.to_bytes(), &["the task \"pose\"", "detectors of objects only"]),
            (MANIFEST, open.to_bytes(), &["an input of 640x640"]), // 42 rows are no grid of that size
            (&sized, good, &["the graph's width is 64", "input.width is 416"]),
            (MANIFEST, not_a_number.to_bytes(), &["tiny@1", "2 of its numbers are not finite"]),
            (MANIFEST, overflow.to_bytes(), &["tiny@1", "not finite"]),
        ] {
            let error = load(&runtime, manifest, &model).err().expect(parts[0]).to_string();
            for part in parts {
                assert!(error.contains(part), "expected {part:?} in: {error}");
            }
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        let Some(runtime) = runtime() else { return };
        let folder = tempfile::tempdir().unwrap();
        let options = &DetectorOptions::default();
        let error = |folder: &Path| Detector::load(&runtime, folder, options).err().unwrap().to_string();
        assert!(error(&folder.path().join("none")).contains("none/manifest.toml"));
        std::fs::write(folder.path().join("manifest.toml"), MANIFEST).unwrap();
        assert!(error(folder.path()).contains("model.onnx"));
        assert!(error(folder.path()).contains("a model is a folder with manifest.toml and model.onnx"));
    }

    #[test]
    fn a_process_loads_one_runtime_and_says_so() {
        let missing = Runtime::load(Path::new("/nonexistent/libonnxruntime.so")).unwrap_err().to_string();
        assert!(
            missing.contains("/nonexistent/libonnxruntime.so") && missing.contains("PyPI wheel"),
            "{missing}"
        );
        let Some(runtime) = runtime() else { return };
        assert!(runtime.version().starts_with("1."), "{}", runtime.version());
        assert!(runtime.providers().contains(&Provider::Cpu));
        let other = Runtime::load(&std::env::current_exe().unwrap()).unwrap_err().to_string();
        assert!(other.contains("already loaded"), "{other}");
    }
}
