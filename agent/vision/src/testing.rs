//! What several modules' tests need: frames out of a formula, tiny ONNX files, and the runtime if it is there.

use std::path::{Path, PathBuf};

use crate::frame::{Colour, FrameView, PixelFormat, Plane};
use crate::onnx::Runtime;

/// A frame that owns its planes.
pub(crate) struct TestFrame {
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) format: PixelFormat,
    pub(crate) colour: Colour,
    pub(crate) full_range: bool,
    pub(crate) planes: Vec<(Vec<u8>, usize)>,
}

impl TestFrame {
    /// Y, U and V of each luma pixel by a formula; chroma is taken at the top left of its four pixels.
    pub(crate) fn new(
        width: u32,
        height: u32,
        format: PixelFormat,
        yuv: impl Fn(usize, usize) -> [u8; 3],
    ) -> Self {
        Self::padded(width, height, format, 0, yuv)
    }

    /// The same with `padding` bytes of rubbish at the end of each row but the last.
    pub(crate) fn padded(
        width: u32,
        height: u32,
        format: PixelFormat,
        padding: usize,
        yuv: impl Fn(usize, usize) -> [u8; 3],
    ) -> Self {
        let plane = |columns: usize, rows: usize, step: usize, channels: &[usize]| {
            let mut data = Vec::new();
            for y in 0..rows {
                for x in 0..columns {
                    let pixel = yuv(x * step, y * step);
                    data.extend(channels.iter().map(|&channel| pixel[channel]));
                }
                if y + 1 < rows {
                    data.extend((0..padding).map(|x| noise(x, y)));
                }
            }
            (data, columns * channels.len() + padding)
        };
        let (w, h) = (width as usize, height as usize);
        let (half_w, half_h) = (w.div_ceil(2), h.div_ceil(2));
        let luma = plane(w, h, 1, &[0]);
        let planes = match format {
            PixelFormat::I420 => vec![luma, plane(half_w, half_h, 2, &[1]), plane(half_w, half_h, 2, &[2])],
            PixelFormat::Nv12 => vec![luma, plane(half_w, half_h, 2, &[1, 2])],
        };
        Self { width, height, format, colour: Colour::Bt601, full_range: false, planes }
    }

    pub(crate) fn view(&self) -> FrameView<'_> {
        let planes: Vec<_> =
            self.planes.iter().map(|(data, stride)| Plane { data, stride: *stride }).collect();
        FrameView::new(self.width, self.height, self.format, self.colour, self.full_range, &planes).unwrap()
    }
}

/// White noise that is the same in every run.
pub(crate) fn noise(x: usize, y: usize) -> u8 {
    let mut hash = (x as u32).wrapping_mul(0x9E37_79B1) ^ (y as u32).wrapping_mul(0x85EB_CA77);
    hash = (hash ^ (hash >> 15)).wrapping_mul(0x2C1B_3C6D);
    (hash ^ (hash >> 13)) as u8
}

/// A plane scaled as the definition of the triangle filter says, in f64 and without any trick.
pub(crate) fn scaled(
    plane: &dyn Fn(usize, usize) -> u8,
    from: (usize, usize),
    to: (usize, usize),
) -> Vec<f64> {
    let weights = |from: usize, to: usize| -> Vec<Vec<f64>> {
        let scale = from as f64 / to as f64;
        let support = scale.max(1.0);
        (0..to)
            .map(|target| {
                let centre = (target as f64 + 0.5) * scale;
                let weight = |x: usize| (1.0 - ((x as f64 + 0.5 - centre) / support).abs()).max(0.0);
                let sum: f64 = (0..from).map(weight).sum();
                (0..from).map(|x| weight(x) / sum).collect()
            })
            .collect()
    };
    let (across, down) = (weights(from.0, to.0), weights(from.1, to.1));
    let mut result = Vec::new();
    for down in &down {
        for across in &across {
            let row =
                |y: usize| across.iter().enumerate().map(|(x, w)| w * f64::from(plane(x, y))).sum::<f64>();
            result.push(down.iter().enumerate().filter(|(_, w)| **w > 0.0).map(|(y, w)| w * row(y)).sum());
        }
    }
    result
}

/// ONNX Runtime out of `ORT_DYLIB_PATH` or the workspace's cache; without it, says so, and the test returns.
pub(crate) fn runtime() -> Option<Runtime> {
    let library = std::env::var_os("ORT_DYLIB_PATH").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.cache/onnxruntime/libonnxruntime.so"),
        PathBuf::from,
    );
    if !library.exists() {
        eprintln!("skipped: no ONNX Runtime at {library:?}; `make test` installs it");
        return None;
    }
    Some(Runtime::load(&library).unwrap())
}

/// An ONNX file that takes `images` and answers with constants, whatever it sees, or with what it was given.
pub(crate) struct TinyModel {
    /// Its inputs: name, sides (negative for one that is left open) and type.
    pub(crate) inputs: Vec<(&'static str, Vec<i64>, TinyElement)>,
    /// What it answers.
    pub(crate) outputs: Vec<TinyOutput>,
    /// Steps that are computed and lead nowhere or to an output: operator, inputs, outputs.
    pub(crate) nodes: Vec<(&'static str, Vec<&'static str>, Vec<&'static str>)>,
    /// Constants for them.
    pub(crate) constants: Vec<(&'static str, Vec<f32>)>,
    /// Key and value pairs of the file.
    pub(crate) metadata: Vec<(&'static str, &'static str)>,
}

/// A type of numbers; the value is ONNX's number for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TinyElement {
    F32 = 1,
    U8 = 2,
    I32 = 6,
    I64 = 7,
    F16 = 10,
}

/// A constant output, or one that a node makes.
#[derive(Clone)]
pub(crate) struct TinyOutput {
    pub(crate) name: &'static str,
    /// The sides as the graph declares them; negative for one that is left open.
    pub(crate) declared: Vec<i64>,
    pub(crate) element: TinyElement,
    sides: Vec<i64>,
    /// `None` where a node makes it.
    numbers: Option<Vec<f32>>,
}

impl TinyOutput {
    /// A constant.
    pub(crate) fn new(name: &'static str, sides: &[i64], numbers: Vec<f32>) -> Self {
        Self {
            name,
            declared: sides.to_vec(),
            element: TinyElement::F32,
            sides: sides.to_vec(),
            numbers: Some(numbers),
        }
    }

    /// A constant of another type.
    pub(crate) fn of(element: TinyElement, name: &'static str, sides: &[i64], numbers: Vec<f32>) -> Self {
        Self { element, ..Self::new(name, sides, numbers) }
    }

    /// With sides as the graph declares them, some of them open.
    pub(crate) fn declared(self, sides: &[i64]) -> Self {
        Self { declared: sides.to_vec(), ..self }
    }

    /// Fills it with one number, where its type has that number.
    pub(crate) fn poison(&mut self, with: f32) {
        if matches!(self.element, TinyElement::F32 | TinyElement::F16)
            && let Some(numbers) = &mut self.numbers
        {
            numbers.fill(with);
        }
    }

    /// The input, once more.
    pub(crate) fn echo(name: &'static str, declared: &[i64], element: TinyElement) -> Self {
        Self { element, numbers: None, ..Self::new(name, declared, Vec::new()) }
    }
}

impl TinyModel {
    /// A model without outputs yet, with the input `images`.
    pub(crate) fn new(input: &[i64], element: TinyElement) -> Self {
        Self {
            inputs: vec![("images", input.to_vec(), element)],
            outputs: Vec::new(),
            nodes: Vec::new(),
            constants: Vec::new(),
            metadata: Vec::new(),
        }
    }

    /// The file, in the encoding of onnx.proto (field numbers as there).
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let value_info = |name: &str, sides: &[i64], element: TinyElement| {
            let shape: Vec<u8> = sides
                .iter()
                .flat_map(|&side| {
                    let dimension = if side < 0 { bytes(2, b"open") } else { number(1, side as u64) };
                    bytes(1, &dimension)
                })
                .collect();
            let tensor = [number(1, element as u64), bytes(2, &shape)].concat();
            [bytes(1, name.as_bytes()), bytes(2, &bytes(1, &tensor))].concat()
        };
        let node = |kind: &str, inputs: &[&str], outputs: &[&str]| {
            let names = |field: u64, names: &[&str]| -> Vec<u8> {
                names.iter().flat_map(|name| bytes(field, name.as_bytes())).collect()
            };
            bytes(1, &[names(1, inputs), names(2, outputs), bytes(4, kind.as_bytes())].concat())
        };
        let constant = |name: &str, sides: &[i64], element: TinyElement, numbers: &[f32]| {
            let sides: Vec<u8> = sides.iter().flat_map(|&side| number(1, side as u64)).collect();
            let raw: Vec<u8> = numbers.iter().flat_map(|&number| element.encode(number)).collect();
            let tensor =
                [sides, number(2, element as u64), bytes(8, name.as_bytes()), bytes(9, &raw)].concat();
            bytes(5, &tensor)
        };
        let mut graph = bytes(2, b"tiny");
        for (name, sides, element) in &self.inputs {
            graph.extend(bytes(11, &value_info(name, sides, *element)));
        }
        for (name, numbers) in &self.constants {
            graph.extend(constant(name, &[numbers.len() as i64], TinyElement::F32, numbers));
        }
        for (kind, inputs, outputs) in &self.nodes {
            graph.extend(node(kind, inputs, outputs));
        }
        for TinyOutput { name, declared, element, sides, numbers } in &self.outputs {
            let made = self.nodes.iter().any(|(_, _, outputs)| outputs.contains(name));
            let source = match numbers {
                Some(_) => format!("{name}_constant"),
                None => self.inputs[0].0.to_owned(),
            };
            // A node that makes it can read `NAME_constant`.
            if let Some(numbers) = numbers {
                graph.extend(constant(&source, sides, *element, numbers));
            }
            if !made {
                graph.extend(node("Identity", &[&source], &[name]));
            }
            graph.extend(bytes(12, &value_info(name, declared, *element)));
        }
        let mut model = [number(1, 8), bytes(7, &graph), bytes(8, &number(2, 17))].concat();
        for (key, value) in &self.metadata {
            model.extend(bytes(14, &[bytes(1, key.as_bytes()), bytes(2, value.as_bytes())].concat()));
        }
        model
    }
}

impl TinyElement {
    fn encode(self, number: f32) -> Vec<u8> {
        match self {
            Self::F32 => number.to_le_bytes().to_vec(),
            Self::F16 => half::f16::from_f32(number).to_le_bytes().to_vec(),
            Self::U8 => vec![number as u8],
            Self::I32 => (number as i32).to_le_bytes().to_vec(),
            Self::I64 => (number as i64).to_le_bytes().to_vec(),
        }
    }
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

fn number(field: u64, value: u64) -> Vec<u8> {
    [varint(field << 3), varint(value)].concat()
}

fn bytes(field: u64, value: &[u8]) -> Vec<u8> {
    [varint(field << 3 | 2), varint(value.len() as u64), value.to_vec()].concat()
}
