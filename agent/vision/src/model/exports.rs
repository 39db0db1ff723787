//! Graphs that look as real exporters write them: shapes, types, names, metadata and neighbours of the file. Each one
//! sees a person at the same place with the same score, whatever its way to say so.

use std::path::Path;

use sharp_eyes_protocol::class::ObjectClass;

use super::ModelError;
use crate::detector::Detector;
use crate::frame::PixelFormat;
use crate::geometry::Rect;
use crate::layout::Layout;
use crate::onnx::Runtime;
use crate::settings::DetectorOptions;
use crate::testing::TinyElement::{self, F16, F32, I32, I64, U8};
use crate::testing::{TestFrame, TinyModel, TinyOutput, runtime};

/// Of every input here, so that no axis can be mistaken for another.
const WIDTH: i64 = 64;
const HEIGHT: i64 = 32;
/// Where the person is: 16,8 to 32,24 of the tensor.
const PLACE: Rect = Rect { left: 0.25, top: 0.25, width: 0.25, height: 0.5 };
const SCORE: f32 = 0.8;
/// A logit that a sigmoid makes 0.8 of, and a softmax beside a single 0.
const LOGIT: f32 = 1.386_294_4;
/// Cells of strides 8, 16 and 32.
const CELLS: i64 = 32 + 8 + 2;

/// A model, the files beside it, and what it is.
struct Export {
    name: &'static str,
    layout: Layout,
    model: TinyModel,
    beside: Vec<(&'static str, String)>,
    /// Colour, scale and fit that it is to be given, where the table says.
    pixels: Option<[&'static str; 3]>,
}

/// What most of the YOLO family want, what YOLOX wants, and those with ImageNet's mean and deviation.
const UNIT: [&str; 3] = ["rgb", "1/255", "letterbox"];
const YOLOX: [&str; 3] = ["bgr", "1", "letterbox"];
const IMAGENET: [&str; 3] = ["rgb", "[1/58.395, 1/57.12, 1/57.375]", "stretch"];

impl Export {
    fn new(name: &'static str, layout: Layout, outputs: Vec<TinyOutput>) -> Self {
        Self {
            name,
            layout,
            model: TinyModel { outputs, ..TinyModel::new(&[1, 3, HEIGHT, WIDTH], F32) },
            beside: Vec::new(),
            pixels: None,
        }
    }

    fn names(mut self, names: &'static str) -> Self {
        self.model.metadata.push(("names", names));
        self
    }

    fn metadata(mut self, key: &'static str, value: &'static str) -> Self {
        self.model.metadata.push((key, value));
        self
    }

    fn input(mut self, name: &'static str, sides: &[i64], element: TinyElement) -> Self {
        self.model.inputs = vec![(name, sides.to_vec(), element)];
        self
    }

    fn and_input(mut self, name: &'static str, sides: &[i64], element: TinyElement) -> Self {
        self.model.inputs.push((name, sides.to_vec(), element));
        self
    }

    fn beside(mut self, name: &'static str, text: impl Into<String>) -> Self {
        self.beside.push((name, text.into()));
        self
    }

    fn pixels(mut self, pixels: [&'static str; 3]) -> Self {
        self.pixels = Some(pixels);
        self
    }

    fn write(&self, folder: &Path) -> std::path::PathBuf {
        for (name, text) in &self.beside {
            std::fs::write(folder.join(name), text).unwrap();
        }
        let file = folder.join("detector.onnx");
        std::fs::write(&file, self.model.to_bytes()).unwrap();
        file
    }

    /// What an inspection says of some subjects.
    fn remarks<const N: usize>(&self, runtime: &Runtime, subjects: [&str; N]) -> [Option<String>; N] {
        let folder = tempfile::tempdir().unwrap();
        let mut measure = |run: &mut dyn FnMut() -> Result<(), ModelError>| run().map(|()| 1.0);
        let found = super::Inspection::of(runtime, &self.write(folder.path()), 1, &mut measure);
        let value = |subject| found.remarks.iter().find(|remark| remark.subject == subject);
        subjects.map(|subject| value(subject).map(|remark| remark.value.clone()))
    }

    fn load(&self, runtime: &Runtime) -> Result<Detector, ModelError> {
        let folder = tempfile::tempdir().unwrap();
        Detector::load(runtime, &self.write(folder.path()), &DetectorOptions::default())
    }
}

/// Rows of `columns` numbers, all `rest`, but for the row `at`.
fn rows(count: i64, at: usize, row: &[f32], rest: &[f32]) -> Vec<f32> {
    (0..count as usize).flat_map(|index| if index == at { row.to_vec() } else { rest.to_vec() }).collect()
}

/// The same with columns first.
fn transposed(count: i64, at: usize, row: &[f32], rest: &[f32]) -> Vec<f32> {
    let plain = rows(count, at, row, rest);
    (0..row.len()).flat_map(|column| plain.iter().skip(column).step_by(row.len()).copied()).collect()
}

/// A row's numbers, then class scores: `score` for one of the labels, `rest` for the others.
fn scored(place: &[f32], labels: usize, label: usize, score: f32, rest: f32) -> Vec<f32> {
    let scores = (0..labels).map(|index| if index == label { score } else { rest });
    place.iter().copied().chain(scores).collect()
}

fn out(name: &'static str, sides: &[i64], numbers: Vec<f32>) -> TinyOutput {
    TinyOutput::new(name, sides, numbers)
}

/// An output whose graph leaves some sides open.
fn open(name: &'static str, declared: &[i64], sides: &[i64], numbers: Vec<f32>) -> TinyOutput {
    TinyOutput::new(name, sides, numbers).declared(declared)
}

/// A distribution over so many bins for each side, whose mean is so many strides.
fn distributions(bins: usize, sides: [f32; 4]) -> Vec<f32> {
    let bins = |side: f32| {
        (0..bins).map(move |bin| {
            let share: f32 = (1.0 - (side - bin as f32).abs()).max(0.0);
            share.max(1e-9).ln()
        })
    };
    sides.into_iter().flat_map(bins).collect()
}

/// What every manifest has.
const OWN: &str = "name = \"own\"\nversion = \"1\"\nlicence = \"MIT\"\ntraining_data = []\n";
const TWO: &str = "{0: 'person', 1: 'kite'}";
const FIVE: [f32; 4] = [24.0, 16.0, 16.0, 16.0];
const CENTRE: [f32; 4] = [0.375, 0.5, 0.25, 0.5];
const CORNERS: [f32; 4] = [16.0, 8.0, 32.0, 24.0];
const FRACTIONS: [f32; 4] = [0.25, 0.25, 0.5, 0.75];
const SMALL: [f32; 4] = [40.0, 20.0, 6.0, 6.0];

/// YOLO in its kinds.
fn grids() -> Vec<Export> {
    let three = 3 * CELLS;
    let v8 = |labels: usize, scale: f32| {
        let place = |numbers: [f32; 4], across: f32, down: f32| {
            let [x, y, w, h] = numbers;
            [x * across, y * down, w * across, h * down]
        };
        let (across, down) = if scale == 1.0 { (1.0, 1.0) } else { (1.0 / 64.0, 1.0 / 32.0) };
        transposed(
            CELLS,
            10,
            &scored(&place(FIVE, across, down), labels, 0, SCORE, 0.0),
            &scored(&place(SMALL, across, down), labels, 0, 0.0, 0.001),
        )
    };
    let v5 = |labels: usize, count: i64| {
        let [x, y, w, h] = FIVE;
        let rest = scored(&[40.0, 20.0, 6.0, 6.0, 0.001], labels, 0, 0.5, 0.5);
        rows(count, 10, &scored(&[x, y, w, h, 1.0], labels, 0, SCORE, 0.1), &rest)
    };
    let ln2 = 2f32.ln();
    let yolox =
        rows(CELLS, 10, &[1.0, 1.0, ln2, ln2, 0.9, SCORE / 0.9, 0.1], &[0.5, 0.5, -1.0, -1.0, 0.0, 0.5, 0.5]);
    let mut negative = v5(2, CELLS);
    negative[2] = -0.01;
    let mut decoded_yolox =
        Export::new("YOLOX, decoded", Layout::Yolov5, vec![out("output", &[1, CELLS, 7], v5(2, CELLS))])
            .beside("detector.txt", "person\nkite\n")
            .pixels(YOLOX);
    decoded_yolox.model.constants = vec![("zero", vec![0.0])];
    decoded_yolox.model.nodes =
        vec![("Exp", vec!["zero"], vec!["one"]), ("Mul", vec!["output_constant", "one"], vec!["output"])];
    let hundreds: &'static str = Box::leak(
        format!(
            "{{{}}}",
            (0..300)
                .map(|n| format!("{n}: '{}'", if n == 0 { "person".into() } else { format!("thing {n}") }))
                .collect::<Vec<_>>()
                .join(", ")
        )
        .into_boxed_str(),
    );
    vec![
        Export::new(
            "ultralytics YOLOv8, fixed",
            Layout::Yolov8,
            vec![out("output0", &[1, 6, CELLS], v8(2, 1.0))],
        )
        .names(TWO)
        .metadata("task", "detect")
        .metadata("stride", "32"),
        Export::new(
            "ultralytics YOLO11, dynamic",
            Layout::Yolov8,
            vec![open("output0", &[-1, 6, -1], &[1, 6, CELLS], v8(2, 1.0))],
        )
        .input("images", &[-1, 3, -1, -1], F32)
        .names(TWO)
        .metadata("imgsz", "[32, 64]"),
        Export::new("one class", Layout::Yolov8, vec![out("output0", &[1, 5, CELLS], v8(1, 1.0))])
            .names("{0: 'person'}"),
        Export::new("300 classes", Layout::Yolov8, vec![out("output0", &[1, 304, CELLS], v8(300, 1.0))])
            .names(hundreds),
        Export::new(
            "YOLOv8 with boxes of 0 to 1",
            Layout::Yolov8,
            vec![out("output0", &[1, 6, CELLS], v8(2, 0.0))],
        )
        .names(TWO),
        Export::new(
            "YOLOv8 in half precision",
            Layout::Yolov8,
            vec![TinyOutput::of(F16, "output0", &[1, 6, CELLS], v8(2, 1.0))],
        )
        .input("images", &[1, 3, HEIGHT, WIDTH], F16)
        .names(TWO),
        Export::new(
            "YOLOv8 with colours last",
            Layout::Yolov8,
            vec![out("output0", &[1, 6, CELLS], v8(2, 1.0))],
        )
        .input("images", &[1, HEIGHT, WIDTH, 3], U8)
        .names(TWO),
        Export::new(
            "YOLOv8, rows first",
            Layout::Yolov8,
            vec![out(
                "output0",
                &[1, CELLS, 6],
                rows(CELLS, 10, &scored(&FIVE, 2, 0, SCORE, 0.0), &scored(&SMALL, 2, 0, 0.0, 0.0)),
            )],
        )
        .names(TWO),
        Export::new("YOLOv5", Layout::Yolov5, vec![out("output0", &[1, three, 7], v5(2, three))]).names(TWO),
        Export::new("YOLOv5, one class", Layout::Yolov5, vec![out("output0", &[1, three, 6], v5(1, three))])
            .names("['person']"),
        Export::new(
            "YOLOv5 with two strides, one class",
            Layout::Yolov5,
            vec![out(
                "output",
                &[1, 1400, 6],
                rows(1400, 10, &[24.01, 16.0, 16.0, 16.0, 1.0, SCORE], &[40.5, 20.0, 6.0, 6.0, 0.001, 0.5]),
            )],
        )
        .names("['person']"),
        Export::new(
            "YOLOv5 with its feature maps",
            Layout::Yolov5,
            vec![
                out("output", &[1, three, 7], v5(2, three)),
                out("345", &[1, 3, 4, 8, 7], vec![-3.0; 3 * 32 * 7]),
                out("403", &[1, 3, 2, 4, 7], vec![-3.0; 3 * 8 * 7]),
                out("461", &[1, 3, 1, 2, 7], vec![-3.0; 3 * 2 * 7]),
            ],
        )
        .names(TWO),
        Export::new(
            "YOLOv7 with four strides",
            Layout::Yolov5,
            vec![out("output", &[1, 3 * (CELLS + 1), 7], v5(2, 3 * (CELLS + 1)))],
        )
        .beside("labels.txt", "person\nkite\n"),
        Export::new("YOLOX", Layout::Yolox, vec![out("output", &[1, CELLS, 7], yolox)])
            .beside("detector.names", "person\nkite\n")
            .pixels(YOLOX),
        decoded_yolox,
        Export::new("YOLOv6", Layout::Yolov5, vec![out("output", &[1, CELLS, 7], v5(2, CELLS))])
            .beside("detector.txt", "person\nkite\n")
            .pixels(UNIT),
        Export::new(
            "YOLOv6 with a negative width",
            Layout::Yolov5,
            vec![out("output", &[1, CELLS, 7], negative)],
        )
        .beside("detector.txt", "person\nkite\n"),
    ]
}

/// Finished detections.
fn finished() -> Vec<Export> {
    let [left, top, right, bottom] = CORNERS;
    let [x1, y1, x2, y2] = FRACTIONS;
    let row = [left, top, right, bottom, SCORE, 0.0];
    let table = |count| rows(count, 1, &row, &[0.0; 6]);
    let mut mixed = table(300);
    mixed[..6].copy_from_slice(&[1.0, 1.0, 9.0, 9.0, 0.9, 1.0]); // a kite
    let labels = |count: i64, of: f32, rest: f32| rows(count, 1, &[of], &[rest]);
    let scores = |count: i64| rows(count, 1, &[SCORE], &[0.01]);
    let boxes = |count: i64, place: [f32; 4]| rows(count, 1, &place, &[0.0; 4]);
    let tensorflow = |shuffled: bool| {
        let mut all = vec![
            out("detection_boxes", &[1, 100, 4], boxes(100, [y1, x1, y2, x2])),
            out("detection_classes", &[1, 100], labels(100, 1.0, 3.0)),
            out("detection_scores", &[1, 100], scores(100)),
            out("num_detections", &[1], vec![100.0]),
        ];
        if shuffled {
            all.reverse();
        }
        Export::new("TensorFlow's four", Layout::Tensorflow, all)
            .input("input_tensor", &[1, HEIGHT, WIDTH, 3], U8)
            .beside("labels.txt", "person\nbicycle\ncar\n")
    };
    let mut eight = tensorflow(false);
    eight.name = "TensorFlow's eight";
    eight.model.outputs.extend([
        out("detection_anchor_indices", &[1, 100], labels(100, 7.0, 9.0)),
        out("detection_multiclass_scores", &[1, 100, 4], [0.8, 0.1, 0.06, 0.04].repeat(100)),
        out("raw_detection_boxes", &[1, 50, 4], vec![0.1; 200]),
        out("raw_detection_scores", &[1, 50, 4], [0.8, 0.1, 0.06, 0.04].repeat(50)),
    ]);
    vec![
        Export::new("YOLOv10", Layout::EndToEnd, vec![out("output0", &[1, 300, 6], mixed)]).names(TWO),
        Export::new(
            "YOLO26 in half precision",
            Layout::EndToEnd,
            vec![TinyOutput::of(F16, "output0", &[1, 300, 6], table(300))],
        )
        .input("images", &[1, 3, HEIGHT, WIDTH], F16)
        .names(TWO),
        Export::new(
            "end to end, one class",
            Layout::EndToEnd,
            vec![out("output0", &[1, 100, 6], table(100))],
        )
        .names("{0: 'person'}"),
        Export::new(
            "YOLOv7, end to end",
            Layout::EndToEnd,
            vec![open(
                "output",
                &[-1, 7],
                &[2, 7],
                rows(
                    2,
                    1,
                    &[0.0, left, top, right, bottom, 0.0, SCORE],
                    &[0.0, 1.0, 1.0, 9.0, 9.0, 1.0, 0.5],
                ),
            )],
        )
        .names(TWO)
        .pixels(UNIT),
        Export::new(
            "PaddleDetection",
            Layout::EndToEnd,
            vec![
                open(
                    "multiclass_nms3_0.tmp_0",
                    &[-1, 6],
                    &[2, 6],
                    rows(2, 1, &[0.0, SCORE, left, top, right, bottom], &[1.0, 0.5, 1.0, 1.0, 9.0, 9.0]),
                ),
                TinyOutput::of(I32, "multiclass_nms3_0.tmp_2", &[1], vec![2.0]),
            ],
        )
        .input("image", &[-1, 3, HEIGHT, WIDTH], F32)
        .and_input("im_shape", &[-1, 2], F32)
        .and_input("scale_factor", &[-1, 2], F32)
        .beside("labels.txt", "person\nkite")
        .pixels(IMAGENET),
        Export::new(
            "RT-DETR",
            Layout::Detections,
            vec![
                TinyOutput::of(I64, "labels", &[1, 300], labels(300, 0.0, 1.0)),
                out("boxes", &[1, 300, 4], boxes(300, CORNERS)),
                out("scores", &[1, 300], scores(300)),
            ],
        )
        .and_input("orig_target_sizes", &[-1, 2], I64)
        .beside("labels.txt", "person\nkite"),
        Export::new(
            "RT-DETR, names and order of chance",
            Layout::Detections,
            vec![
                open("c", &[-1, 300], &[1, 300], scores(300)),
                TinyOutput::of(I64, "a", &[1, 300], labels(300, 0.0, 1.0)),
                open("b", &[-1, 300, 4], &[1, 300, 4], boxes(300, CORNERS)),
            ],
        )
        .and_input("x", &[1, 2], I64)
        .beside("labels.txt", "person\nkite"),
        Export::new(
            "RT-DETR with whole numbers beside",
            Layout::Detections,
            vec![
                TinyOutput::of(I64, "labels", &[1, 300], labels(300, 0.0, 1.0)),
                out("boxes", &[1, 300, 4], boxes(300, CORNERS)),
                out("scores", &[1, 300], scores(300)),
                TinyOutput::of(I32, "queries", &[1, 300], vec![7.0; 300]),
                TinyOutput::of(I64, "selected", &[2, 3], vec![0.0; 6]).declared(&[-1, 3]),
            ],
        )
        .beside("labels.txt", "person\nkite"),
        Export::new(
            "torchvision SSD",
            Layout::Detections,
            vec![
                open("boxes", &[-1, 4], &[3, 4], boxes(3, CORNERS)),
                open("scores", &[-1], &[3], scores(3)),
                TinyOutput::of(I64, "labels", &[3], labels(3, 1.0, 2.0)).declared(&[-1]),
            ],
        )
        .input("image", &[3, HEIGHT, WIDTH], F32)
        .beside("labels.txt", "__background__\nperson\nbicycle"),
        Export::new(
            "torchvision with labels only",
            Layout::Detections,
            vec![
                TinyOutput::of(I64, "3", &[3], labels(3, 1.0, 2.0)).declared(&[-1]),
                open("1", &[-1], &[3], scores(3)),
                open("2", &[-1, 4], &[3, 4], boxes(3, CORNERS)),
            ],
        )
        .beside("labels.txt", "person\nbicycle"),
        Export::new(
            "YOLO-NAS, end to end",
            Layout::EndToEnd,
            vec![open(
                "graph2_flat_predictions",
                &[-1, 7],
                &[2, 7],
                rows(
                    2,
                    1,
                    &[0.0, left, top, right, bottom, SCORE, 0.0],
                    &[0.0, 1.0, 1.0, 9.0, 9.0, 0.5, 1.0],
                ),
            )],
        )
        .names(TWO)
        .pixels(UNIT),
        Export::new(
            "PP-YOLOE",
            Layout::EndToEnd,
            vec![
                open("a", &[-1, 6], &[1, 6], vec![0.0, SCORE, left, top, right, bottom]),
                TinyOutput::of(I32, "b", &[1], vec![1.0]),
            ],
        )
        .input("image", &[-1, 3, HEIGHT, WIDTH], F32)
        .and_input("scale_factor", &[-1, 2], F32)
        .beside("labels.txt", "person\nkite"),
        Export::new(
            "SSD of ONNX's zoo",
            Layout::Detections,
            vec![
                out("bboxes", &[1, 200, 4], boxes(200, FRACTIONS)),
                TinyOutput::of(I64, "labels", &[1, 200], labels(200, 1.0, 2.0)),
                out("scores", &[1, 200], scores(200)),
            ],
        )
        .beside("labels.txt", "background\nperson\nbicycle"),
        Export::new(
            "MMDetection",
            Layout::Detections,
            vec![
                open("dets", &[1, -1, 5], &[1, 3, 5], rows(3, 1, &row[..5], &[0.0; 5])),
                TinyOutput::of(I64, "labels", &[1, 3], labels(3, 0.0, 1.0)).declared(&[1, -1]),
            ],
        )
        .beside("labels.txt", "person\nkite"),
        Export::new(
            "YOLO-NAS with suppression",
            Layout::Detections,
            vec![
                TinyOutput::of(I64, "num_detections", &[1, 1], vec![2.0]),
                out("detection_boxes", &[1, 100, 4], rows(100, 1, &CORNERS, &[-1.0; 4])),
                out("detection_scores", &[1, 100], rows(100, 1, &[SCORE], &[-1.0])),
                TinyOutput::of(I64, "detection_classes", &[1, 100], rows(100, 1, &[0.0], &[-1.0])),
            ],
        )
        .names(TWO),
        tensorflow(false),
        tensorflow(true),
        eight,
    ]
}

/// Rows of six as RT-DETR of ultralytics yields them for two labels; the second has the same score everywhere.
fn two_scores(second: f32) -> Vec<f32> {
    let [x, y, w, h] = CENTRE;
    rows(300, 3, &[x, y, w, h, SCORE, second], &[0.5, 0.5, 0.1, 0.2, 0.01, second])
}

/// A box for each query or prior.
fn queries() -> Vec<Export> {
    let detr = |count: i64, columns: usize, label: usize, nothing: bool| {
        let mut found = scored(&[], columns, label, LOGIT, -20.0);
        let mut rest = vec![-6.0; columns];
        if nothing {
            found[columns - 1] = 0.0;
            rest[columns - 1] = 6.0;
        }
        (rows(count, 3, &found, &rest), rows(count, 3, &CENTRE, &[0.5, 0.5, 0.1, 0.2]))
    };
    let (logits, boxes) = detr(100, 4, 1, true);
    let hugging = Export::new(
        "DETR of Hugging Face",
        Layout::Detr,
        vec![
            open("logits", &[-1, -1, 4], &[1, 100, 4], logits),
            open("pred_boxes", &[-1, -1, 4], &[1, 100, 4], boxes),
        ],
    )
    .input("pixel_values", &[-1, 3, -1, -1], F32)
    .and_input("pixel_mask", &[-1, 64, 64], I64)
    .beside("config.json", r#"{"id2label": {"0": "N/A", "1": "person", "2": "bicycle"}}"#)
    .beside(
        "preprocessor_config.json",
        r#"{"do_normalize": true, "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225],
            "size": {"height": 32, "width": 64}}"#,
    );
    let (logits, boxes) = detr(300, 80, 0, false);
    let eighty: String =
        (0..80).map(|n| if n == 0 { "person\n".into() } else { format!("thing {n}\n") }).collect();
    let rt = Export::new(
        "RT-DETR of Hugging Face",
        Layout::Detr,
        vec![out("pred_boxes", &[1, 300, 4], boxes), out("logits", &[1, 300, 80], logits)],
    )
    .beside("labels.txt", eighty.clone());
    let priors = |columns: usize, label: usize, background: f32| {
        let mut found = scored(&[], columns, label, SCORE, 0.0);
        found[0] = 1.0 - SCORE;
        let rest = scored(&[], columns, 0, background, 0.0);
        let boxes = rows(3000, 3, &FRACTIONS, &[0.1, 0.1, 0.2, 0.3]);
        vec![
            out("scores", &[1, 3000, columns as i64], rows(3000, 3, &found, &rest)),
            out("boxes", &[1, 3000, 4], boxes),
        ]
    };
    let ltrb = rows(CELLS, 10, &[0.5, 0.5, 1.5, 1.5], &[3.0, 2.0, 1.0, 1.0]);
    let two = rows(CELLS, 10, &[SCORE, 0.1], &[0.0, 0.02]);
    let nas = || {
        let boxes = rows(CELLS, 10, &CORNERS, &[1.0, 2.0, 9.0, 9.0]);
        vec![out("a", &[1, CELLS, 4], boxes), out("b", &[1, CELLS, 2], two.clone())]
    };
    // Small boxes, each in its cell, but for the one that is found.
    let split = |name, (across, down): (f32, f32)| {
        let in_cell = |stride: i64| {
            (0..HEIGHT / stride).flat_map(move |y| {
                (0..WIDTH / stride).map(move |x| {
                    let middle = |at: i64| (at as f32 + 0.5) * stride as f32;
                    [middle(x), middle(y), 6.0, 6.0]
                })
            })
        };
        let mut boxes: Vec<[f32; 4]> = [8, 16, 32].into_iter().flat_map(in_cell).collect();
        boxes[10] = FIVE;
        let sides = [across, down, across, down];
        let columns = (0..4).flat_map(|side| boxes.iter().map(move |numbers| numbers[side] * sides[side]));
        let scores = transposed(CELLS, 10, &[SCORE, 0.1], &[0.0, 0.02]);
        let outputs =
            vec![out("boxes", &[1, 4, CELLS], columns.collect()), out("scores", &[1, 2, CELLS], scores)];
        Export::new(name, Layout::Yolov8, outputs).names(TWO).pixels(UNIT)
    };
    let (mut logits, boxes) = detr(300, 3, 0, false);
    logits.iter_mut().skip(2).step_by(3).for_each(|spare| *spare = -9.0);
    let rf = |name, labels, output: &str| {
        let outputs =
            vec![out("dets", &[1, 300, 4], boxes.clone()), out("labels", &[1, 300, 3], logits.clone())];
        Export::new(name, Layout::Detr, outputs)
            .beside("labels.txt", labels)
            .beside("detector.toml", format!("{OWN}{output}"))
            .pixels(IMAGENET)
    };
    vec![
        hugging.pixels(IMAGENET),
        rt.pixels(["rgb", "1/255", "stretch"]),
        rf("RF-DETR of two labels", "person\nkite", "[output]\nbackground = \"last\""),
        rf("RF-DETR that names its spare column", "person\nkite\nN/A", ""),
        Export::new(
            "RT-DETR of ultralytics",
            Layout::Yolov8,
            vec![out(
                "output0",
                &[1, 300, 84],
                rows(
                    300,
                    3,
                    &scored(&CENTRE, 80, 0, SCORE, 0.0),
                    &scored(&[0.5, 0.5, 0.1, 0.2], 80, 0, 0.0, 0.01),
                ),
            )],
        )
        .beside("labels.txt", eighty),
        Export::new(
            "RT-DETR of ultralytics, two labels",
            Layout::Yolov8,
            vec![out("output0", &[1, 300, 6], two_scores(0.02))],
        )
        .names(TWO),
        Export::new("pytorch-ssd", Layout::Ssd, priors(3, 1, 1.0))
            .beside("labels.txt", "person\nkite")
            .pixels(["rgb", "1/128", "stretch"]),
        Export::new("pytorch-ssd with BACKGROUND", Layout::Ssd, priors(3, 1, 1.0))
            .beside("labels.txt", "BACKGROUND\nperson\nkite")
            .pixels(["rgb", "1/128", "stretch"]),
        Export::new("YOLO-NAS", Layout::Ssd, nas()).names(TWO).pixels(UNIT),
        Export::new("PP-YOLOE without suppression", Layout::Ssd, nas())
            .and_input("scale_factor", &[-1, 2], F32)
            .beside("labels.txt", "person\nkite")
            .pixels(IMAGENET),
        Export::new(
            "YOLOv4 of PyTorch",
            Layout::Ssd,
            vec![
                out("boxes", &[1, 3000, 1, 4], rows(3000, 3, &FRACTIONS, &[0.1, 0.1, 0.2, 0.3])),
                out("confs", &[1, 3000, 2], rows(3000, 3, &[SCORE, 0.1], &[0.0, 0.02])),
            ],
        )
        .names(TWO)
        .pixels(["rgb", "1/255", "stretch"]),
        split("YOLOv8, boxes beside scores", (1.0, 1.0)),
        split("YOLOv8, boxes of 0 to 1 beside scores", (1.0 / 64.0, 1.0 / 32.0)),
        Export::new(
            "the built-in layout without its name",
            Layout::Ltrb,
            vec![out("b", &[1, CELLS, 2], two.clone()), out("a", &[1, CELLS, 4], ltrb)],
        )
        .names(TWO),
    ]
}

/// Distributions and FastestDet.
fn maps() -> Vec<Export> {
    let place = |bins| distributions(bins, [0.5, 0.5, 1.5, 1.5]);
    let far = |bins| distributions(bins, [1.0; 4]);
    let level = |cells: i64, bins: usize, found: bool| {
        let at = if found { 10 } else { usize::MAX };
        (rows(cells, at, &[SCORE, 0.1], &[0.0, 0.01]), rows(cells, at, &place(bins), &far(bins)))
    };
    let levels = |strides: &[(i64, &'static str, &'static str)], bins: usize, batch: bool| {
        let mut outputs = Vec::new();
        for (index, &(cells, scores, sides)) in strides.iter().enumerate() {
            let (score_numbers, side_numbers) = level(cells, bins, index == 0);
            let shape = |columns: i64| if batch { vec![1, cells, columns] } else { vec![cells, columns] };
            outputs.push(out(scores, &shape(2), score_numbers));
            outputs.push(out(sides, &shape(4 * bins as i64), side_numbers));
        }
        outputs
    };
    let three = [(32, "792", "795"), (8, "814", "817"), (2, "836", "839")];
    let four = [(32, "t0", "t1"), (8, "t2", "t3"), (2, "t4", "t5"), (1, "t6", "t7")];
    let mut shuffled = levels(&three, 8, true);
    shuffled.sort_by_key(|output| std::cmp::Reverse(output.name));
    let plus = |count, at, sides| rows(count, at, &scored(&distributions(8, sides), 0, 0, 0.0, 0.0), &far(8));
    let joined = |count: i64, at: usize, sides: [f32; 4]| {
        let sides = plus(count, at, sides);
        let scores = rows(count, at, &[SCORE, 0.1], &[0.0, 0.01]);
        scores
            .chunks(2)
            .zip(sides.chunks(32))
            .flat_map(|(s, d)| s.iter().chain(d).copied().collect::<Vec<_>>())
            .collect::<Vec<_>>()
    };
    let fastest = [SCORE, 0.549_306_1, 0.0, -1.098_612_3, 0.0, SCORE, 0.2];
    let two = "person\nkite";
    vec![
        Export::new("NanoDet", Layout::Nanodet, levels(&three, 8, true)).beside("labels.txt", two).pixels([
            "bgr",
            "[1/57.375, 1/57.12, 1/58.395]",
            "stretch",
        ]),
        Export::new("YOLOv8, heads cut off", Layout::Nanodet, levels(&three, 16, true))
            .names(TWO)
            .pixels(UNIT),
        Export::new("NanoDet in any order", Layout::Nanodet, shuffled).beside("labels.txt", two),
        Export::new("NanoDet without a batch axis", Layout::Nanodet, levels(&three, 8, false))
            .beside("labels.txt", two),
        Export::new("PicoDet", Layout::Nanodet, levels(&four, 8, true))
            .metadata("character", "person\nkite")
            .pixels(IMAGENET),
        Export::new(
            "NanoDet-Plus",
            Layout::Nanodet,
            vec![out("output", &[1, CELLS + 1, 34], joined(CELLS + 1, 19, [1.0; 4]))],
        )
        .beside("labels.txt", two),
        Export::new(
            "NanoDet in one",
            Layout::Nanodet,
            vec![out("output", &[1, CELLS, 34], joined(CELLS, 10, [0.5, 0.5, 1.5, 1.5]))],
        )
        .beside("labels.txt", two),
        Export::new(
            "FastestDet",
            Layout::Fastestdet,
            vec![out(
                "758",
                &[1, 7, 2, 4],
                transposed(8, 5, &fastest, &[0.001, 0.0, 0.0, 0.0, 0.0, 0.5, 0.5]),
            )],
        )
        .beside("labels.txt", two),
    ]
}

fn all() -> Vec<Export> {
    [grids(), finished(), queries(), maps()].into_iter().flatten().collect()
}

#[test]
fn every_export_is_recognised_and_sees_the_person_where_it_is() {
    let Some(runtime) = runtime() else { return };
    let frame = TestFrame::new(128, 64, PixelFormat::I420, |x, y| [(x + y) as u8, 128, 128]);
    let problem = |export: &Export| -> Result<(), String> {
        let mut detector = export.load(&runtime).map_err(|error| error.to_string())?;
        let found = detector.detect(&frame.view(), &[]).map_err(|error| error.to_string())?;
        let (layout, input) = (detector.model().layout, detector.model().input);
        if layout != export.layout || input != (64, 32) {
            return Err(format!("taken for {layout} of {input:?}"));
        }
        let mut people = found.iter().filter(|d| d.class == ObjectClass::Person && d.score > 0.5);
        match (people.next(), people.next()) {
            // Half precision keeps three digits.
            (Some(one), None) if (one.score - SCORE).abs() < 2e-3 && one.bounds.iou(&PLACE) > 0.99 => Ok(()),
            _ => Err(format!("one person is there, found {found:?}")),
        }
    };
    let problems: Vec<_> = all()
        .iter()
        .filter_map(|export| Some(format!("{}: {}", export.name, problem(export).err()?)))
        .collect();
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn every_export_is_given_the_pixels_of_its_project() {
    let Some(runtime) = runtime() else { return };
    for export in all().iter().filter(|export| export.pixels.is_some()) {
        let pixels = export.remarks(&runtime, ["input.colour", "input.scale", "input.fit"]);
        let expected = export.pixels.map(|pixels| pixels.map(|pixel| Some(pixel.to_owned())));
        assert_eq!(Some(pixels), expected, "{}", export.name);
    }
}

#[test]
fn padding_is_no_box_in_fractions_of_the_picture() {
    let Some(runtime) = runtime() else { return };
    let lists = |count: f32, score: f32| {
        vec![
            TinyOutput::of(I64, "num_detections", &[1, 1], vec![count]),
            out("detection_boxes", &[1, 100, 4], vec![-1.0; 400]),
            out("detection_scores", &[1, 100], vec![score; 100]),
            TinyOutput::of(I64, "detection_classes", &[1, 100], vec![-1.0; 100]),
        ]
    };
    for (layout, outputs) in [
        (Layout::Detections, lists(0.0, 0.5)),
        (Layout::Detections, lists(100.0, -1.0)),
        (Layout::EndToEnd, vec![out("output0", &[1, 100, 6], vec![-1.0; 600])]),
    ] {
        let export = Export::new("nothing seen", layout, outputs).names(TWO);
        assert_eq!(export.load(&runtime).unwrap().model().layout, layout);
        assert_eq!(export.remarks(&runtime, ["output.unit"]), [Some("pixels".to_owned())], "{layout}");
    }
}

#[test]
fn numbers_that_are_none_are_no_empty_street() {
    let Some(runtime) = runtime() else { return };
    for poison in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for mut export in all() {
            for output in &mut export.model.outputs {
                output.poison(poison);
            }
            let name = export.name;
            let error =
                export.load(&runtime).err().unwrap_or_else(|| panic!("{name} with {poison} is taken"));
            assert!(!error.to_string().is_empty());
        }
    }
}

#[test]
fn a_frame_without_detections_is_one() {
    let Some(runtime) = runtime() else { return };
    let frame = TestFrame::new(128, 64, PixelFormat::I420, |_, _| [0, 128, 128]);
    let beside = "person\nkite";
    for export in [
        Export::new("rows", Layout::EndToEnd, vec![open("output0", &[1, -1, 6], &[1, 0, 6], vec![])]),
        Export::new(
            "rows of YOLO-NAS",
            Layout::EndToEnd,
            vec![open("graph2_flat_predictions", &[-1, 7], &[0, 7], vec![])],
        ),
        Export::new(
            "lists",
            Layout::Detections,
            vec![
                open("boxes", &[-1, 4], &[0, 4], vec![]),
                TinyOutput::of(I64, "labels", &[0], vec![]).declared(&[-1]),
                open("scores", &[-1], &[0], vec![]),
            ],
        ),
    ] {
        let export = export.beside("labels.txt", beside);
        let mut detector = export.load(&runtime).unwrap_or_else(|error| panic!("{}: {error}", export.name));
        assert_eq!(detector.model().layout, export.layout);
        assert_eq!(detector.detect(&frame.view(), &[]).unwrap(), []);
    }
}

#[test]
fn what_is_no_detector_or_open_is_refused_and_says_what_helps() {
    let Some(runtime) = runtime() else { return };
    let zeros = |name, sides: &[i64]| out(name, sides, vec![0.0; sides.iter().product::<i64>() as usize]);
    let bare = |outputs| Export::new("refused", Layout::Ltrb, outputs);
    let grid = || vec![zeros("a", &[1, CELLS, 4]), zeros("b", &[1, CELLS, 2])];
    let v8 = || vec![zeros("output0", &[1, 6, CELLS])];
    let with = |mut outputs: Vec<TinyOutput>, extra| {
        outputs.push(extra);
        outputs
    };
    for (export, parts) in [
        (bare(grid()).names(TWO), &["fit the layouts ltrb and ssd alike", "layout = \"ltrb\""][..]),
        (
            bare(vec![out("output0", &[1, 300, 6], two_scores(0.0))]).names(TWO),
            &["fit the layouts end-to-end and yolov8 alike", "layout = \"end-to-end\""],
        ),
        (
            bare(vec![out("output0", &[1, 300, 6], [0.1, 0.1, 0.5, 0.7, 0.01, 0.02].repeat(300))]).names(TWO),
            &["fit the layouts end-to-end and yolov8 alike"],
        ),
        (
            bare(vec![open("output", &[-1, 7], &[0, 7], vec![])]).names(TWO),
            &["nothing shows its output.label_first", "[output] label_first = true (label, score) or false"],
        ),
        (
            bare(vec![out("output0", &[1, 300, 6], [1.0, 1.0, 9.0, 9.0, 2.0, 0.5].repeat(300))])
                .beside(
                    "detector.toml",
                    format!("{OWN}layout = \"end-to-end\"\n[output]\nlabel_first = false"),
                )
                .names(TWO),
            &["300 of its numbers are not finite, or scores beyond 1"],
        ),
        (
            // Whose column is to spare, the first or the last?
            bare(vec![zeros("dets", &[1, 300, 4]), out("labels", &[1, 300, 3], vec![-6.0; 900])]).names(TWO),
            &["nothing shows its output.background", "[output] background = \"first\" or \"last\""],
        ),
        (
            bare(vec![
                zeros("dets", &[1, 300, 4]),
                out("labels", &[1, 300, 3], [-6.0, -6.0, -5.0].repeat(300)),
            ])
            .names(TWO),
            &["nothing shows its output.scores", "[output] scores = \"softmax\" or \"sigmoid\""],
        ),
        (
            bare(vec![out("a", &[1, CELLS, 4], [8.0, 4.0, 2.0, 2.0].repeat(42)), zeros("b", &[1, CELLS, 2])])
                .names(TWO),
            &["fit the layouts ltrb and yolov8 alike", "layout = \"ltrb\""],
        ),
        (
            bare(vec![zeros("output", &[1, 1400, 6])]).names("['person']"),
            &["fit the layouts end-to-end and yolov5 alike", "layout = \"end-to-end\""],
        ),
        (bare(v8()), &["does not name the 2 labels", "detector.labels", "one a line"]),
        (bare(v8()).names("{0: 'person'}"), &["scores 2 labels", "lists 1"]),
        (bare(v8()).names("{0: 'FACE_FEMALE', 1: 'person'}"), &["\"face\"", "never identities"]),
        (bare(v8()).names("{0: 'person', 1: 'old woman'}"), &["\"woman\"", "kinds of people"]),
        (bare(v8()).names(TWO).metadata("task", "pose"), &["the task \"pose\""]),
        (bare(with(v8(), zeros("reid", &[1, 512]))).names(TWO), &["\"reid\"", "never identities"]),
        (bare(with(v8(), zeros("x", &[1, 128]))).names(TWO), &["\"x\" [1, 128]", "could be an embedding"]),
        (
            bare(with(v8(), TinyOutput::of(U8, "x", &[1, 512], vec![7.0; 512]))).names(TWO),
            &["\"x\" [1, 512]", "could be an embedding"],
        ),
        (
            bare(with(
                finished().remove(0).model.outputs,
                TinyOutput::of(I64, "x", &[1, 512], vec![7.0; 512]),
            ))
            .names(TWO),
            &["\"x\" [1, 512]", "could be an embedding"],
        ),
        (
            bare(with(v8(), zeros("x", &[1, 64, 8, 16]))).names(TWO),
            &["\"x\" [1, 64, 8, 16]", "could be an embedding"],
        ),
        (bare(vec![zeros("x", &[6])]).names(TWO), &["fit no layout", "detections", "x f32 [6]"]),
        (bare(vec![zeros("x", &[1, 2, 1, 2, 1, 6])]).names(TWO), &["fit no layout"]),
        (bare(v8()).input("images", &[1, 1, HEIGHT, WIDTH], F32).names(TWO), &["its input is no picture"]),
        (bare(v8()).input("images", &[4, 3, HEIGHT, WIDTH], F32).names(TWO), &["its input is no picture"]),
        (bare(v8()).input("images", &[1, 3, HEIGHT, WIDTH], I64).names(TWO), &["its input is no picture"]),
        (bare(v8()).and_input("audio", &[1, 16000], F32).names(TWO), &["nobody knows what its input audio"]),
    ] {
        let error = export.load(&runtime).err().expect(parts[0]).to_string();
        for part in parts {
            assert!(error.contains(part), "expected {part:?} in: {error}");
        }
    }
}

#[test]
fn a_manifest_beside_the_file_settles_what_is_open() {
    let Some(runtime) = runtime() else { return };
    let frame = TestFrame::new(128, 64, PixelFormat::I420, |_, _| [0, 128, 128]);
    let outputs = || {
        vec![
            out("a", &[1, CELLS, 4], rows(CELLS, 10, &FRACTIONS, &[0.0; 4])),
            out("b", &[1, CELLS, 2], rows(CELLS, 10, &[LOGIT, -9.0], &[-9.0, -9.0])),
        ]
    };
    let manifest = "name = \"own\"\nversion = \"1\"\nlicence = \"MIT\"\ntraining_data = []\nlayout = \"ssd\"\nlabels = [\"walker\", \"kite\"]\n\
        [class_map]\nwalker = \"person\"\n[output]\nboxes = \"xyxy\"\nunit = \"normalised\"\nscores = \"sigmoid\"\n";
    let export = Export::new("own", Layout::Ssd, outputs()).beside("detector.toml", manifest);
    let mut detector = export.load(&runtime).unwrap();
    assert_eq!((detector.model().layout, detector.model().name.to_string()), (Layout::Ssd, "own@1".into()));
    let found = detector.detect(&frame.view(), &[]).unwrap();
    assert!((found[0].score - SCORE).abs() < 1e-3 && found[0].bounds.iou(&PLACE) > 0.99, "{found:?}");
}

#[test]
fn the_manifest_settles_whether_six_columns_are_finished_or_scored() {
    let Some(runtime) = runtime() else { return };
    for layout in [Layout::EndToEnd, Layout::Yolov8] {
        let manifest = format!(
            "name = \"own\"\nversion = \"1\"\nlicence = \"MIT\"\ntraining_data = []\nlayout = \"{layout}\"\n\
            labels = [\"person\", \"kite\"]"
        );
        let outputs = vec![out("output0", &[1, 300, 6], two_scores(0.0))];
        let export = Export::new("own", layout, outputs).beside("detector.toml", manifest);
        assert_eq!(export.load(&runtime).unwrap().model().layout, layout);
    }
}

#[test]
fn the_manifest_settles_whether_many_rows_are_finished_or_a_grid() {
    let Some(runtime) = runtime() else { return };
    for layout in [Layout::EndToEnd, Layout::Yolov5] {
        let manifest = format!("{OWN}layout = \"{layout}\"\nlabels = [\"person\"]");
        let outputs = vec![out("output", &[1, 1400, 6], vec![0.0; 8400])];
        let export = Export::new("own", layout, outputs).beside("detector.toml", manifest);
        assert_eq!(export.load(&runtime).unwrap().model().layout, layout);
    }
}

#[test]
fn the_graph_s_own_steps_tell_scores_and_pixels() {
    let Some(runtime) = runtime() else { return };
    // A network of its own kind: the picture is divided by 255, and scores are zeros that a sigmoid makes 0.5 of.
    let mut export = Export::new(
        "own",
        Layout::Yolov8,
        vec![out("output0", &[1, 6, CELLS], vec![0.0; 6 * CELLS as usize])],
    )
    .names(TWO);
    export.model.constants = vec![("byte", vec![255.0]), ("logits", vec![0.0])];
    export.model.nodes = vec![("Div", vec!["images", "byte"], vec!["scaled"])];
    let folder = tempfile::tempdir().unwrap();
    let file = export.write(folder.path());
    let mut measure = |run: &mut dyn FnMut() -> Result<(), ModelError>| run().map(|()| 1.5);
    let inspection = super::Inspection::of(&runtime, &file, 1, &mut measure);
    let remark = |subject: &str| {
        let remark = inspection.remarks.iter().find(|remark| remark.subject == subject).unwrap();
        format!("{} {}", remark.value, remark.origin)
    };
    assert_eq!(inspection.latency_ms, Some(1.5));
    assert_eq!(inspection.refusal, None);
    for (subject, expected) in [
        ("input.size", "64x32 graph"),
        ("input.type", "f32 graph"),
        ("input.axes", "nchw graph"),
        ("input.colour", "rgb assumed"),
        ("input.mean", "0 graph"),
        ("input.scale", "1 graph"),
        ("output.boxes", "cxcywh assumed"),
    ] {
        assert_eq!(remark(subject), expected, "{subject}");
    }
    let labels = inspection.labels.unwrap();
    assert_eq!((labels.count, labels.dropped, labels.mapped.len()), (2, vec!["kite".to_owned()], 1));
}
