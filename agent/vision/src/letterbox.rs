//! A frame of any size to a model's tensor: scaled without distortion, at the top left, the rest padded.

use crate::frame::FrameView;
use crate::geometry::{Polygon, Rect};
use crate::mask::{self, Span};
use crate::yuv::Scaler;

/// Where a picture lies in a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Letterbox {
    /// Width of the picture in the tensor, in pixels.
    pub width: u32,
    /// Height of the picture in the tensor, in pixels.
    pub height: u32,
}

impl Letterbox {
    /// The largest size that a picture can have within the tensor: at least one pixel, from its top left corner.
    pub fn new(picture: (u32, u32), tensor: (u32, u32)) -> Self {
        let scale =
            f64::min(f64::from(tensor.0) / f64::from(picture.0), f64::from(tensor.1) / f64::from(picture.1));
        let side = |picture: u32, tensor: u32| ((f64::from(picture) * scale).round() as u32).clamp(1, tensor);
        Self { width: side(picture.0, tensor.0), height: side(picture.1, tensor.1) }
    }

    /// A box in pixels of the tensor as a box in 0..1 of the picture. What lies on the padding comes out beyond 1.
    ///
    /// It divides by the rounded size rather than by the scale, so that no error grows towards the right.
    pub fn to_picture(&self, tensor: Rect) -> Rect {
        let (width, height) = (self.width as f32, self.height as f32);
        Rect {
            left: tensor.left / width,
            top: tensor.top / height,
            width: tensor.width / width,
            height: tensor.height / height,
        }
    }

    /// A box in 0..1 of the picture as a box in pixels of the tensor.
    pub fn to_tensor(&self, picture: Rect) -> Rect {
        let (width, height) = (self.width as f32, self.height as f32);
        Rect {
            left: picture.left * width,
            top: picture.top * height,
            width: picture.width * width,
            height: picture.height * height,
        }
    }
}

/// What a model wants its pixels to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Normalisation {
    /// Whether the first channel is blue.
    pub bgr: bool,
    /// Taken from each channel, in the tensor's order of channels.
    pub mean: [f32; 3],
    /// Multiplied with each channel after that.
    pub scale: [f32; 3],
    /// The pixel value of the padding, 0 to 255.
    pub padding: f32,
}

/// A model's input tensor, [1, 3, height, width], that frames are drawn on. Keeps its buffers.
pub struct Canvas {
    size: (u32, u32),
    normalisation: Normalisation,
    tensor: Vec<f32>,
    scaler: Scaler,
    drawn: Option<Drawn>,
}

/// What the last frame left behind, for the next one to reuse.
struct Drawn {
    letterbox: Letterbox,
    masks: Vec<Polygon>,
    spans: Vec<Span>,
}

impl Canvas {
    /// A canvas of `size` (width, height).
    pub fn new(size: (u32, u32), normalisation: Normalisation) -> Self {
        let tensor = vec![0.0; 3 * size.0 as usize * size.1 as usize];
        Self { size, normalisation, tensor, scaler: Scaler::default(), drawn: None }
    }

    /// The tensor as it was last drawn.
    pub fn tensor(&self) -> &[f32] {
        &self.tensor
    }

    /// The tensor's shape.
    pub fn shape(&self) -> [usize; 4] {
        [1, 3, self.size.1 as usize, self.size.0 as usize]
    }

    /// Draws a frame. The pixels under `masks` become padding: the model cannot see what is masked.
    pub fn draw(&mut self, frame: &FrameView<'_>, masks: &[Polygon]) -> Letterbox {
        let letterbox = Letterbox::new((frame.width(), frame.height()), self.size);
        self.prepare(letterbox, masks);

        let Self { size, normalisation, tensor, scaler, drawn } = self;
        let (width, stride) = (letterbox.width as usize, size.0 as usize);
        let picture = scaler.scale(frame, letterbox.width, letterbox.height);
        let matrix = picture.matrix;
        let (channels, gain, offset) = channels(tensor, normalisation);
        let [red, green, blue] = channels;
        for row in 0..letterbox.height as usize {
            let (from, to) = (row * width, row * stride);
            let (y, u, v) =
                (&picture.y[from..][..width], &picture.u[from..][..width], &picture.v[from..][..width]);
            let (red, green, blue) =
                (&mut red[to..][..width], &mut green[to..][..width], &mut blue[to..][..width]);
            for column in 0..width {
                let [r, g, b] = matrix.rgb(y[column], u[column], v[column]);
                red[column] = r * gain[0] + offset[0];
                green[column] = g * gain[1] + offset[1];
                blue[column] = b * gain[2] + offset[2];
            }
        }
        for span in drawn.iter().flat_map(|drawn| &drawn.spans) {
            let row = span.row * stride;
            for (channel, gain, offset) in
                [(&mut *red, gain[0], offset[0]), (green, gain[1], offset[1]), (blue, gain[2], offset[2])]
            {
                channel[row + span.from..row + span.to].fill(normalisation.padding * gain + offset);
            }
        }
        letterbox
    }

    /// Pads anew when the picture's place changes, and rasterises masks when they or the place change: both are
    /// the same for all frames of a camera.
    fn prepare(&mut self, letterbox: Letterbox, masks: &[Polygon]) {
        if self.drawn.as_ref().is_some_and(|drawn| drawn.letterbox == letterbox && drawn.masks == masks) {
            return;
        }
        let padding = self.normalisation.padding;
        let (channels, gain, offset) = channels(&mut self.tensor, &self.normalisation);
        for ((channel, gain), offset) in channels.into_iter().zip(gain).zip(offset) {
            channel.fill(padding * gain + offset);
        }
        let spans = mask::spans(masks, letterbox.width, letterbox.height);
        self.drawn = Some(Drawn { letterbox, masks: masks.to_vec(), spans });
    }
}

/// The channels red, green, blue of the tensor, wherever the model wants them, and for each the gain and offset
/// with which `pixel * gain + offset` is `(pixel - mean) * scale`.
fn channels<'a>(tensor: &'a mut [f32], wanted: &Normalisation) -> ([&'a mut [f32]; 3], [f32; 3], [f32; 3]) {
    let plane = tensor.len() / 3;
    let (first, rest) = tensor.split_at_mut(plane);
    let (second, third) = rest.split_at_mut(plane);
    let mut planes = [first, second, third];
    let mut gain = wanted.scale;
    let mut offset = std::array::from_fn(|channel| -wanted.mean[channel] * wanted.scale[channel]);
    if wanted.bgr {
        planes.reverse();
        gain.reverse();
        offset.reverse();
    }
    (planes, gain, offset)
}
