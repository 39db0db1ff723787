//! What a model wants to see: size, type, order of axes and colours, range of pixels; and what else it wants beside.

use std::path::Path;

use half::f16;

use super::Unlike;
use super::graph::PixelRange;
use super::manifest::{Axes, ChannelOrder, Manifest, PerChannel};
use crate::layout::{Background, Evidence, Layout, Origin, Parts, Recognised, Remark, Scores};
use crate::letterbox::{Fit, Normalisation};
use crate::onnx::{Feed, Numbers, TensorInfo};

/// The input that takes the picture, and what the others are always given.
#[derive(Clone, Debug)]
pub(crate) struct Picture {
    pub(crate) name: String,
    /// Width and height.
    pub(crate) size: (u32, u32),
    element: Element,
    axes: Axes,
    shape: Vec<usize>,
    others: Vec<Other>,
    /// Whether the others are those of PaddleDetection's exports with suppression.
    pub(crate) paddle: bool,
    /// The tensor in the model's type and order, where that is not f32 and channels first.
    packed: Packed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Element {
    F32,
    F16,
    U8,
}

#[derive(Clone, Debug, Default)]
struct Packed {
    f32: Vec<f32>,
    f16: Vec<f16>,
    u8: Vec<u8>,
}

/// An input beside the picture.
#[derive(Clone, Debug)]
struct Other {
    name: String,
    shape: Vec<usize>,
    values: Values,
}

#[derive(Clone, Debug)]
enum Values {
    F32(Vec<f32>),
    I64(Vec<i64>),
    I32(Vec<i32>),
    Bool(Vec<bool>),
}

/// Largest side of a model's input: beyond it, one tensor takes more memory than the box has to spare.
const MODEL_SIDE_MAX: u32 = 2048;

/// The side of an input that is open on all sides and of which nothing is known: what most exporters take.
const USUAL_SIDE: u32 = 640;
/// The same for TensorFlow's mobile detectors, which scale their input themselves.
const USUAL_SIDE_TENSORFLOW: u32 = 320;

impl Picture {
    /// Finds the picture among the inputs. `known` is a size (width, height) that metadata or a file beside the model
    /// tell.
    pub(super) fn of(
        manifest: &Manifest,
        inputs: &[TensorInfo],
        known: Option<((u32, u32), Origin)>,
        remarks: &mut Vec<Remark>,
    ) -> Result<Self, Unlike> {
        const EXPECTED: &str = "its input is no picture: expected f32, f16 or u8, [1, 3, height, width] or [1, height, width, 3]";
        let is_picture = |input: &&TensorInfo| element(input).is_some() && axes(manifest, input).is_some();
        let mut pictures = inputs.iter().filter(is_picture);
        let (Some(input), None) = (pictures.next(), pictures.next()) else {
            return Err(Unlike(EXPECTED.into()));
        };
        let (element, (axes, from)) =
            element(input).zip(axes(manifest, input)).ok_or_else(|| Unlike(EXPECTED.into()))?;
        remarks.push(Remark { subject: "input.type", value: input.element.clone(), origin: Origin::Graph });
        let named = if axes == Axes::Nchw { "nchw" } else { "nhwc" };
        remarks.push(Remark { subject: "input.axes", value: named.into(), origin: from });

        let (body, batch) = match input.shape.as_slice() {
            [batch, body @ ..] if body.len() == 3 => (body, Some(*batch)),
            body => (body, None),
        };
        let (height, width) = if axes == Axes::Nchw { (body[1], body[2]) } else { (body[0], body[1]) };
        let usual = if axes == Axes::Nchw { USUAL_SIDE } else { USUAL_SIDE_TENSORFLOW };
        let (usual, usual_from) = known.unwrap_or(((usual, usual), Origin::Convention));
        let side =
            |name: &str, graph: i64, told: Option<u32>, usual: u32| match (u32::try_from(graph).ok(), told) {
                (Some(graph), Some(told)) if graph != told => Err(Unlike(format!(
                    "the graph's {name} is {graph}, the manifest's input.{name} is {told}"
                ))),
                (Some(side), _) if (1..=MODEL_SIDE_MAX).contains(&side) => Ok((side, Origin::Graph)),
                (None, Some(side)) if (1..=MODEL_SIDE_MAX).contains(&side) => Ok((side, Origin::Manifest)),
                (None, None) => Ok((usual.min(MODEL_SIDE_MAX), usual_from)),
                _ => Err(Unlike(format!("its {name} must be 1 to {MODEL_SIDE_MAX}"))),
            };
        let (width, from) = side("width", width, manifest.input.width, usual.0)?;
        let (height, height_from) = side("height", height, manifest.input.height, usual.1)?;
        let origin = if height_from.assumed() { height_from } else { from };
        remarks.push(Remark { subject: "input.size", value: format!("{width}x{height}"), origin });

        let (columns, rows) = (width as usize, height as usize);
        let body = if axes == Axes::Nchw { [3, rows, columns] } else { [rows, columns, 3] };
        let shape = batch.iter().map(|_| 1).chain(body).collect();
        let beside: Vec<&TensorInfo> = inputs.iter().filter(|other| other.name != input.name).collect();
        let others = beside
            .iter()
            .map(|other| Other::of(other, &beside, (width, height)))
            .collect::<Result<Vec<_>, _>>()?;
        for Other { name, values, .. } in &others {
            remarks.push(Remark {
                subject: "input.other",
                value: format!("{name} = {}", values.shown()),
                origin: Origin::Convention,
            });
        }
        let paddle = others.iter().any(|other| matches!(other.values, Values::F32(_)));
        Ok(Self {
            name: input.name.clone(),
            size: (width, height),
            element,
            axes,
            shape,
            others,
            paddle,
            packed: Packed::default(),
        })
    }

    /// Whether the colours come last.
    pub(crate) fn channels_last(&self) -> bool {
        self.axes == Axes::Nhwc
    }

    /// All inputs for a tensor of [3, height, width].
    pub(crate) fn feeds<'a>(&'a mut self, tensor: &'a [f32]) -> Vec<Feed<'a>> {
        let Packed { f32, f16: halves, u8: bytes } = &mut self.packed;
        let plane = tensor.len() / 3;
        // The place in a tensor with the colours last, for each place in one with the colours first.
        let ordered: &[f32] = if self.axes == Axes::Nhwc {
            f32.resize(tensor.len(), 0.0);
            for (channel, numbers) in tensor.chunks_exact(plane.max(1)).enumerate() {
                for (pixel, number) in f32.chunks_exact_mut(3).zip(numbers) {
                    pixel[channel] = *number;
                }
            }
            f32
        } else {
            tensor
        };
        let numbers = match self.element {
            Element::F32 => Numbers::F32(ordered),
            Element::F16 => {
                halves.clear();
                halves.extend(ordered.iter().map(|&number| f16::from_f32(number)));
                Numbers::F16(halves)
            }
            Element::U8 => {
                bytes.clear();
                bytes.extend(ordered.iter().map(|&number| (number + 0.5) as u8)); // the cast keeps to 0..=255
                Numbers::U8(bytes)
            }
        };
        let mut feeds = vec![Feed { name: &self.name, shape: &self.shape, numbers }];
        feeds.extend(self.others.iter().map(|Other { name, shape, values }| Feed {
            name,
            shape,
            numbers: match values {
                Values::F32(values) => Numbers::F32(values),
                Values::I64(values) => Numbers::I64(values),
                Values::I32(values) => Numbers::I32(values),
                Values::Bool(values) => Numbers::Bool(values),
            },
        }));
        feeds
    }

    /// A tensor for a trial run: noise, so that scores and boxes spread over all that they can be. Pixels of 0 to 1
    /// are taken well enough by a model that wants 0 to 255, and the other way round they are not.
    pub(super) fn noise(&self) -> Vec<f32> {
        let largest = if self.element == Element::U8 { 255.0 } else { 1.0 };
        let number = |index: u32| (index.wrapping_mul(0x9E37_79B1) >> 16) as f32 / 65_535.0 * largest;
        (0..3 * self.size.0 * self.size.1).map(number).collect()
    }

    /// What its pixels are to be: as the manifest says, else as the graph or `beside` show, else as it is where the
    /// layout comes from.
    pub(super) fn normalisation(
        &self,
        manifest: &Manifest,
        (recognised, evidence): (&Recognised, &Evidence<'_>),
        range: Option<PixelRange>,
        beside: Option<&Preprocessor>,
        remarks: &mut Vec<Remark>,
    ) -> (Normalisation, Fit) {
        let usual = Usual::of(recognised, evidence);
        let (colour, colour_from) = manifest
            .input
            .colour
            .map_or((usual.colour, Origin::Convention), |colour| (colour, Origin::Manifest));
        let bytes = self.element == Element::U8;
        let (mean, mean_from) = match (manifest.input.mean, range, beside) {
            (Some(mean), ..) => (mean.channels(), Origin::Manifest),
            (None, _, _) if bytes => ([0.0; 3], Origin::Graph),
            (None, Some(_), _) => ([0.0; 3], Origin::Graph),
            (None, None, Some(beside)) => (beside.mean, Origin::File),
            (None, None, None) => (usual.mean, Origin::Convention),
        };
        let (scale, scale_from) = match (manifest.input.scale, range, beside) {
            (Some(scale), ..) => (scale.channels(), Origin::Manifest),
            (None, _, _) if bytes => ([1.0; 3], Origin::Graph),
            (None, Some(PixelRange::Bytes), _) => ([1.0; 3], Origin::Graph),
            (None, Some(PixelRange::One), _) => ([1.0 / 255.0; 3], Origin::Graph),
            (None, None, Some(beside)) => (beside.scale, Origin::File),
            (None, None, None) => (usual.scale, Origin::Convention),
        };
        let (fit, fit_from) =
            manifest.input.fit.map_or((usual.fit, Origin::Convention), |fit| (fit, Origin::Manifest));
        let mut remark = |subject, value, origin| remarks.push(Remark { subject, value, origin });
        remark("input.colour", format!("{colour:?}").to_lowercase(), colour_from);
        remark("input.mean", per_channel(mean), mean_from);
        remark("input.scale", per_channel(scale), scale_from);
        remark("input.fit", format!("{fit:?}").to_lowercase(), fit_from);
        let bgr = colour == ChannelOrder::Bgr;
        (Normalisation { bgr, mean, scale, padding: manifest.input.padding }, fit)
    }
}

/// One number where all three are the same; a scale as a fraction where it is one.
fn per_channel(numbers: [f32; 3]) -> String {
    let shown = |number: f32| {
        let inverse = 1.0 / number;
        if number > 0.0 && number < 0.5 {
            format!("1/{}", (inverse * 1000.0).round() / 1000.0)
        } else {
            number.to_string()
        }
    };
    match numbers {
        [one, two, three] if one == two && two == three => shown(one),
        numbers => format!("[{}]", numbers.map(shown).join(", ")),
    }
}

fn element(input: &TensorInfo) -> Option<Element> {
    match input.element.as_str() {
        "f32" => Some(Element::F32),
        "f16" => Some(Element::F16),
        "u8" => Some(Element::U8),
        _ => None,
    }
}

/// The order of the axes, if the input can be one picture.
fn axes(manifest: &Manifest, input: &TensorInfo) -> Option<(Axes, Origin)> {
    let body = match input.shape.as_slice() {
        [-1 | 1, body @ ..] if body.len() == 3 => body,
        body if body.len() == 3 => body,
        _ => return None,
    };
    let (first, last) = (body[0], body[2]);
    match (manifest.input.axes, first, last) {
        (Some(Axes::Nchw), 3 | -1, _) => Some((Axes::Nchw, Origin::Manifest)),
        (Some(Axes::Nhwc), _, 3 | -1) => Some((Axes::Nhwc, Origin::Manifest)),
        (Some(_), ..) => None,
        (None, 3, _) => Some((Axes::Nchw, Origin::Graph)),
        (None, _, 3) => Some((Axes::Nhwc, Origin::Graph)),
        (None, -1, -1) if input.shape.len() == 4 => Some((Axes::Nchw, Origin::Convention)),
        _ => None,
    }
}

impl Other {
    /// What an input beside the picture is given: the tensor's size, so that boxes come in its pixels; a scale of 1;
    /// or a mask of ones.
    fn of(input: &TensorInfo, all: &[&TensorInfo], (width, height): (u32, u32)) -> Result<Self, Unlike> {
        let unknown = || Unlike(format!("nobody knows what its input {input} is to be given"));
        let name = input.name.clone();
        let integers = |shape: Vec<usize>, numbers: Vec<i64>| {
            let values = match input.element.as_str() {
                "i64" => Values::I64(numbers),
                "i32" => Values::I32(numbers.into_iter().map(|n| n as i32).collect()),
                "bool" => Values::Bool(numbers.into_iter().map(|n| n != 0).collect()),
                "f32" => Values::F32(numbers.into_iter().map(|n| n as f32).collect()),
                _ => return Err(unknown()),
            };
            Ok(Self { name: name.clone(), shape, values })
        };
        let (width, height) = (i64::from(width), i64::from(height));
        match *input.shape.as_slice() {
            // DETR's `orig_target_sizes`: width and height, whole. PaddleDetection has `scale_factor`, alone or beside
            // `im_shape` (height and width), which looks the same.
            [-1 | 1, 2 | -1] if all.len() == 1 && input.is_whole() => {
                integers(vec![1, 2], vec![width, height])
            }
            [-1 | 1, 2 | -1] if input.name.contains("shape") => integers(vec![1, 2], vec![height, width]),
            [-1 | 1, 2 | -1] if all.len() == 1 || input.name.contains("scale") => {
                integers(vec![1, 2], vec![1, 1])
            }
            // A mask of what is picture and what is padding, as Hugging Face's DETR has it.
            [-1 | 1, rows, columns] if !input.element.starts_with('f') => {
                let rows = usize::try_from(rows).unwrap_or(height as usize);
                let columns = usize::try_from(columns).unwrap_or(width as usize);
                integers(vec![1, rows, columns], vec![1; rows * columns])
            }
            _ => Err(unknown()),
        }
    }
}

impl Values {
    fn shown(&self) -> String {
        match self {
            Self::F32(values) if values.len() <= 4 => format!("{values:?}"),
            Self::I64(values) if values.len() <= 4 => format!("{values:?}"),
            Self::I32(values) if values.len() <= 4 => format!("{values:?}"),
            _ => "ones".into(),
        }
    }
}

/// What the pixels of a layout usually are, in the projects that it comes from.
struct Usual {
    colour: ChannelOrder,
    mean: [f32; 3],
    scale: [f32; 3],
    fit: Fit,
}

impl Usual {
    fn of(recognised: &Recognised, evidence: &Evidence<'_>) -> Self {
        use ChannelOrder::{Bgr, Rgb};
        const NONE: [f32; 3] = [0.0; 3];
        const ONE: [f32; 3] = [1.0; 3];
        const UNIT: [f32; 3] = [1.0 / 255.0; 3];
        // ImageNet's, red, green, blue.
        const MEAN: [f32; 3] = [123.675, 116.28, 103.53];
        const DEVIATION: [f32; 3] = [58.395, 57.12, 57.375];
        let reversed = |mut numbers: [f32; 3]| {
            numbers.reverse();
            numbers
        };
        let inverse = |numbers: [f32; 3]| numbers.map(|number| 1.0 / number);
        let usual = |colour, mean, scale, fit| Self { colour, mean, scale, fit };
        let imagenet = usual(Rgb, MEAN, inverse(DEVIATION), Fit::Stretch);
        let decoder = &recognised.decoder;
        let (levels, sides) = match &decoder.parts {
            Parts::Levels(levels) => (levels.len(), levels.first().map_or(0, |level| level.sides.columns)),
            Parts::Joined { rows, labels } => (0, rows.columns - labels),
            _ => (0, 0),
        };
        let background = decoder.coding.background != Background::None || evidence.names_background();
        let boxes_on_grid = matches!(&decoder.parts, Parts::Pair { boxes, .. } if evidence.on_grid(boxes));
        let yolox = usual(Bgr, NONE, ONE, Fit::Letterbox);
        // Of all that have one box a cell and objectness, only YOLOX has sizes as exponents.
        let decoded_yolox = matches!(&decoder.parts, Parts::Rows(rows)
            if evidence.on_grid(rows) && evidence.outputs[rows.output].exponential);
        let named_dets = matches!(&decoder.parts, Parts::Pair { boxes, .. } if boxes.name == "dets");
        let six = matches!(&decoder.parts, Parts::Rows(rows) if rows.columns == 6);
        match decoder.layout {
            Layout::Yolox => yolox,
            Layout::Yolov5 if decoded_yolox => yolox,
            Layout::Ltrb => usual(Rgb, NONE, ONE, Fit::Letterbox),
            // YOLOv7 has its seventh column, the picture's number, before a label that comes first, too.
            Layout::EndToEnd if evidence.paddle || (six && decoder.coding.label_first) => imagenet,
            Layout::Yolov5 | Layout::Yolov8 | Layout::EndToEnd => usual(Rgb, NONE, UNIT, Fit::Letterbox),
            // RT-DETR and its kin score labels for themselves and take 0 to 1; RF-DETR, which scores COCO's 91 numbers
            // or has a column to spare, takes ImageNet's; so does DETR, which has a softmax.
            Layout::Detr
                if decoder.coding.scores != Scores::Sigmoid
                    || decoder.coding.background != Background::None
                    || recognised.labels == Some(91)
                    || named_dets =>
            {
                imagenet
            }
            Layout::Detr => usual(Rgb, NONE, UNIT, Fit::Stretch),
            // PaddleDetection's without suppression, pytorch-ssd, YOLO-NAS, and YOLOv4 of PyTorch.
            Layout::Ssd if evidence.paddle => imagenet,
            Layout::Ssd if background => usual(Rgb, [127.0; 3], [1.0 / 128.0; 3], Fit::Stretch),
            Layout::Ssd if boxes_on_grid => usual(Rgb, NONE, UNIT, Fit::Letterbox),
            Layout::Ssd => usual(Rgb, NONE, UNIT, Fit::Stretch),
            Layout::Detections => usual(Rgb, NONE, UNIT, Fit::Stretch),
            // Those that take bytes have their own arithmetic.
            Layout::Tensorflow => usual(Rgb, [127.5; 3], [1.0 / 127.5; 3], Fit::Stretch),
            // YOLOv8's heads, cut off before its decoding: they alone have 16 bins a side.
            Layout::Nanodet if sides == 4 * 16 => usual(Rgb, NONE, UNIT, Fit::Letterbox),
            // PicoDet has four feature maps in as many outputs.
            Layout::Nanodet if levels == 4 => imagenet,
            Layout::Nanodet => usual(Bgr, reversed(MEAN), inverse(reversed(DEVIATION)), Fit::Stretch),
            Layout::Fastestdet => usual(Bgr, NONE, UNIT, Fit::Stretch),
        }
    }
}

/// Hugging Face's `preprocessor_config.json`, which lies beside the models that it exports.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Preprocessor {
    mean: [f32; 3],
    scale: [f32; 3],
    /// Width and height.
    pub(super) size: Option<(u32, u32)>,
}

impl Preprocessor {
    /// The file's name beside `model.onnx`.
    pub(super) const FILE: &'static str = "preprocessor_config.json";

    pub(super) fn parse(text: &str) -> Option<Self> {
        #[derive(serde::Deserialize)]
        struct Written {
            do_rescale: Option<bool>,
            rescale_factor: Option<f32>,
            do_normalize: Option<bool>,
            image_mean: Option<PerChannel>,
            image_std: Option<PerChannel>,
            size: Option<serde_json::Value>,
        }
        let written: Written = serde_json::from_str(text).ok()?;
        let factor = match written.do_rescale {
            Some(false) => 1.0,
            _ => written.rescale_factor.unwrap_or(1.0 / 255.0),
        };
        let (mean, deviation) = match (written.do_normalize, written.image_mean, written.image_std) {
            (Some(false), ..) => ([0.0; 3], [1.0; 3]),
            (_, Some(mean), Some(deviation)) => (mean.channels(), deviation.channels()),
            _ => ([0.0; 3], [1.0; 3]),
        };
        if factor <= 0.0 || deviation.iter().any(|deviation| *deviation <= 0.0) {
            return None;
        }
        // Of (pixel * factor - mean) / deviation.
        let size = written.size.and_then(|size| {
            let side = |key: &str| size.get(key)?.as_u64().and_then(|side| u32::try_from(side).ok());
            side("width").zip(side("height"))
        });
        Some(Self { mean: mean.map(|mean| mean / factor), scale: deviation.map(|d| factor / d), size })
    }

    pub(super) fn beside(model: &Path) -> Option<Self> {
        Self::parse(&std::fs::read_to_string(model.with_file_name(Self::FILE)).ok()?)
    }
}
