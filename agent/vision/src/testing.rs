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

/// An ONNX file that takes `images` and answers with constants, whatever it sees.
pub(crate) struct TinyModel {
    /// Sides of the input; negative for one that is left open.
    pub(crate) input: Vec<i64>,
    /// What it answers.
    pub(crate) outputs: Vec<TinyOutput>,
    /// Key and value pairs of the file.
    pub(crate) metadata: Vec<(&'static str, &'static str)>,
}

/// A constant output.
pub(crate) struct TinyOutput {
    pub(crate) name: &'static str,
    /// The sides as the graph declares them; negative for one that is left open.
    pub(crate) declared: Vec<i64>,
    sides: Vec<i64>,
    numbers: Vec<f32>,
}

impl TinyOutput {
    pub(crate) fn new(name: &'static str, sides: &[i64], numbers: Vec<f32>) -> Self {
        Self { name, declared: sides.to_vec(), sides: sides.to_vec(), numbers }
    }
}

impl TinyModel {
    /// The file, in the encoding of onnx.proto (field numbers as there).
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let value_info = |name: &str, sides: &[i64]| {
            let shape: Vec<u8> = sides
                .iter()
                .flat_map(|&side| {
                    let dimension = if side < 0 { bytes(2, b"open") } else { number(1, side as u64) };
                    bytes(1, &dimension)
                })
                .collect();
            let tensor = [number(1, 1), bytes(2, &shape)].concat();
            [bytes(1, name.as_bytes()), bytes(2, &bytes(1, &tensor))].concat()
        };
        let mut graph = [bytes(2, b"tiny"), bytes(11, &value_info("images", &self.input))].concat();
        for TinyOutput { name, declared, sides, numbers } in &self.outputs {
            let constant = format!("{name}_constant");
            let node =
                [bytes(1, constant.as_bytes()), bytes(2, name.as_bytes()), bytes(4, b"Identity")].concat();
            let sides: Vec<u8> = sides.iter().flat_map(|&side| number(1, side as u64)).collect();
            let raw: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
            let tensor = [sides, number(2, 1), bytes(8, constant.as_bytes()), bytes(9, &raw)].concat();
            graph.extend(
                [bytes(1, &node), bytes(5, &tensor), bytes(12, &value_info(name, declared))].concat(),
            );
        }
        let mut model = [number(1, 8), bytes(7, &graph), bytes(8, &number(2, 17))].concat();
        for (key, value) in &self.metadata {
            model.extend(bytes(14, &[bytes(1, key.as_bytes()), bytes(2, value.as_bytes())].concat()));
        }
        model
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
