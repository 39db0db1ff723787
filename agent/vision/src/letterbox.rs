//! A frame of any size to a model's tensor: scaled without distortion, at the top left, the rest padded.
//!
//! `BENCH=planes make bench`, one thread of an x86-64 machine: 0.4 ms from 1080p, 0.24 ms from 640x360. Taking the nearest
//! pixels would be faster still, but of a far person in 1080p it sees only every fifth row.

use pulp::{Arch, NullaryFnOnce};
use serde::Deserialize;

use crate::frame::FrameView;
use crate::geometry::{Polygon, Rect};
use crate::mask::{self, Span};
use crate::packing::{Area, Placement};
use crate::yuv::{Matrix, Scaler, Yuv444};

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

/// How a picture of other proportions becomes the tensor's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fit {
    /// Scaled as a whole, the rest padded.
    #[default]
    Letterbox,
    /// Each side for itself, as models were trained that know no padding.
    Stretch,
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

/// Parts of a frame, with what nobody may see of it.
pub type Parts<'a> = (&'a FrameView<'a>, &'a [Polygon], &'a [Placement]);

/// A picture of [3, height, width] as a model wants it, that frames are drawn on. Keeps its buffers.
pub struct Canvas {
    size: (u32, u32),
    fit: Fit,
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
    pub fn new(size: (u32, u32), normalisation: Normalisation, fit: Fit) -> Self {
        let tensor = vec![0.0; 3 * size.0 as usize * size.1 as usize];
        Self { size, fit, normalisation, tensor, scaler: Scaler::default(), drawn: None }
    }

    /// The tensor as it was last drawn.
    pub fn tensor(&self) -> &[f32] {
        &self.tensor
    }

    /// Draws a frame. The pixels under `masks` become padding: the model cannot see what is masked.
    pub fn draw(&mut self, frame: &FrameView<'_>, masks: &[Polygon]) -> Letterbox {
        let picture = (frame.width(), frame.height());
        let letterbox = match self.fit {
            Fit::Letterbox => Letterbox::new(picture, self.size),
            Fit::Stretch => Letterbox { width: self.size.0, height: self.size.1 },
        };
        let place = Area::all_of(letterbox.width, letterbox.height);
        let whole = Placement { part: Area::all_of(picture.0, picture.1), place };
        // Where the picture lies and what is masked are the same for all frames of a camera.
        if self.drawn.as_ref().is_none_or(|drawn| drawn.letterbox != letterbox || drawn.masks != masks) {
            self.pad();
            let spans = mask::spans(masks, letterbox.width, letterbox.height);
            self.drawn = Some(Drawn { letterbox, masks: masks.to_vec(), spans });
        }
        self.paint(frame, whole);
        let drawn = self.drawn.take();
        self.hide(drawn.as_ref().map_or(&[], |drawn| &drawn.spans));
        self.drawn = drawn;
        letterbox
    }

    /// Draws parts of frames, each without what is masked in it.
    pub fn draw_parts<'a>(&mut self, frames: impl IntoIterator<Item = Parts<'a>>) {
        self.drawn = None;
        self.pad();
        for (frame, masks, parts) in frames {
            for part in parts {
                self.paint(frame, *part);
                self.hide(&mask::spans_within(masks, (frame.width(), frame.height()), *part));
            }
        }
    }

    fn pad(&mut self) {
        let padding = self.normalisation.padding;
        let (channels, gain, offset) = channels(&mut self.tensor, &self.normalisation);
        for ((channel, gain), offset) in channels.into_iter().zip(gain).zip(offset) {
            channel.fill(padding * gain + offset);
        }
    }

    fn paint(&mut self, frame: &FrameView<'_>, Placement { part, place }: Placement) {
        let Self { size, normalisation, tensor, scaler, .. } = self;
        let (width, stride) = (place.width as usize, size.0 as usize);
        let picture = scaler.scale(frame, part, place.width, place.height);
        let (planes, gain, offset) = channels(tensor, normalisation);
        let from = place.top as usize * stride + place.left as usize;
        Arch::new().dispatch(Painting {
            picture,
            gain,
            offset,
            planes: planes.map(|plane| &mut plane[from..]),
            width,
            stride,
        });
    }

    /// Makes padding of pixels.
    fn hide(&mut self, spans: &[Span]) {
        let stride = self.size.0 as usize;
        let padding = self.normalisation.padding;
        let (channels, gain, offset) = channels(&mut self.tensor, &self.normalisation);
        for ((channel, gain), offset) in channels.into_iter().zip(gain).zip(offset) {
            for span in spans {
                let row = span.row * stride;
                channel[row + span.from..row + span.to].fill(padding * gain + offset);
            }
        }
    }
}

/// A picture that becomes red, green and blue. A structure, because what a closure does would not be inlined where SIMD is
/// known.
struct Painting<'a> {
    picture: Yuv444<'a>,
    planes: [&'a mut [f32]; 3],
    gain: [f32; 3],
    offset: [f32; 3],
    width: usize,
    stride: usize,
}

impl NullaryFnOnce for Painting<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { picture: Yuv444 { y, u, v, matrix }, planes: [red, green, blue], width, stride, .. } =
            self;
        let (gain, offset) = (self.gain, self.offset);
        for row in 0..y.len() / width {
            let (from, to) = (row * width, row * stride);
            let yuv = [y, u, v].map(|plane| &plane[from..][..width]);
            paint_row(
                matrix,
                yuv,
                gain,
                offset,
                &mut red[to..][..width],
                &mut green[to..][..width],
                &mut blue[to..][..width],
            );
        }
    }
}

/// A function of its own, so that compilers know that none of what it writes to is another.
#[inline(always)]
fn paint_row(
    matrix: Matrix,
    [y, u, v]: [&[u8]; 3],
    gain: [f32; 3],
    offset: [f32; 3],
    red: &mut [f32],
    green: &mut [f32],
    blue: &mut [f32],
) {
    for column in 0..y.len() {
        let [r, g, b] = matrix.rgb(y[column], u[column], v[column]);
        red[column] = r * gain[0] + offset[0];
        green[column] = g * gain[1] + offset[1];
        blue[column] = b * gain[2] + offset[2];
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::frame::{Colour, PixelFormat};
    use crate::geometry::Point;
    use crate::testing::{TestFrame, noise, scaled};

    const PLAIN: Normalisation =
        Normalisation { bgr: false, mean: [0.0; 3], scale: [1.0; 3], padding: 114.0 };

    #[test]
    fn the_picture_is_as_large_as_it_can_be() {
        for (picture, tensor, expected) in [
            ((1920, 1080), (416, 416), (416, 234)),
            ((640, 360), (512, 320), (512, 288)),
            ((768, 576), (512, 320), (427, 320)),
            ((1080, 1920), (416, 416), (234, 416)),
            ((100, 50), (416, 416), (416, 208)),
            ((1, 1), (512, 320), (320, 320)),
            ((16_000, 2), (512, 320), (512, 1)),
        ] {
            let Letterbox { width, height } = Letterbox::new(picture, tensor);
            assert_eq!((width, height), expected, "{picture:?} in {tensor:?}");
        }
    }

    proptest! {
        #[test]
        fn there_and_back_is_within_a_pixel(
            picture in (1u32..4000, 1u32..4000),
            tensor in (32u32..1300, 32u32..1300),
            at in (0.0f32..1.0, 0.0f32..1.0, 0.0f32..1.0, 0.0f32..1.0),
        ) {
            let letterbox = Letterbox::new(picture, tensor);
            prop_assert!(letterbox.width <= tensor.0 && letterbox.height <= tensor.1);
            let there = Rect { left: at.0, top: at.1, width: at.2, height: at.3 };
            let back = letterbox.to_picture(letterbox.to_tensor(there));
            let pairs = [(there.left, back.left), (there.width, back.width), (there.top, back.top), (there.height, back.height)];
            for ((there, back), side) in pairs.into_iter().zip([picture.0, picture.0, picture.1, picture.1]) {
                prop_assert!(((there - back) * side as f32).abs() < 1.0);
            }
            // And the place in the tensor is the undistorted one, but for the rounding of the size.
            let scale = f32::min(tensor.0 as f32 / picture.0 as f32, tensor.1 as f32 / picture.1 as f32);
            let drawn = letterbox.to_tensor(there);
            prop_assert!((drawn.left - there.left * picture.0 as f32 * scale).abs() <= 1.0);
            prop_assert!((drawn.top - there.top * picture.1 as f32 * scale).abs() <= 1.0);
        }
    }

    #[test]
    fn the_tensor_is_what_the_definitions_say() {
        let yuv = |x: usize, y: usize| [noise(x, y), noise(x + 1000, y), noise(x, y + 1000)];
        // width, height, bytes of padding, tensor, matrix, full range
        let rows = [
            (40, 30, 0, (32, 32), Colour::Bt601, false),
            (41, 31, 3, (32, 32), Colour::Bt709, false),
            (63, 17, 5, (32, 64), Colour::Bt601, true),
            (15, 40, 1, (64, 32), Colour::Bt709, true),
            (9, 7, 2, (32, 32), Colour::Bt601, false), // larger than it was
            (33, 21, 7, (33, 21), Colour::Bt601, false), // as it was
            (1, 1, 0, (32, 32), Colour::Bt601, false),
        ];
        for (width, height, padding, tensor, colour, full_range) in rows {
            for format in [PixelFormat::I420, PixelFormat::Nv12] {
                let mut frame = TestFrame::padded(width, height, format, padding, yuv);
                (frame.colour, frame.full_range) = (colour, full_range);
                let mut canvas = Canvas::new(tensor, PLAIN, Fit::Letterbox);
                let letterbox = canvas.draw(&frame.view(), &[]);

                let to = (letterbox.width as usize, letterbox.height as usize);
                let luma = (width as usize, height as usize);
                let chroma = (luma.0.div_ceil(2), luma.1.div_ceil(2));
                let y = scaled(&|x, y| yuv(x, y)[0], luma, to);
                let u = scaled(&|x, y| yuv(2 * x, 2 * y)[1], chroma, to);
                let v = scaled(&|x, y| yuv(2 * x, 2 * y)[2], chroma, to);
                let stride = tensor.0 as usize;
                let plane = stride * tensor.1 as usize;
                for (index, pixel) in
                    (0..to.1).flat_map(|row| (0..to.0).map(move |column| row * stride + column)).enumerate()
                {
                    let expected = reference_rgb(colour, full_range, [y[index], u[index], v[index]]);
                    for (channel, expected) in expected.into_iter().enumerate() {
                        let found = f64::from(canvas.tensor()[channel * plane + pixel]);
                        // Three planes in bytes, rounded twice each, through gains of up to 2.1.
                        assert!(
                            (found - expected).abs() < 4.5,
                            "{width}x{height} {format:?} {channel}/{index}: {found} for {expected}"
                        );
                    }
                }
                for outside in (0..plane).filter(|i| i % stride >= to.0 || i / stride >= to.1) {
                    assert_eq!(canvas.tensor()[outside], 114.0);
                }
            }
        }
    }

    /// ITU-T H.273, equations for MatrixCoefficients 1 and 6.
    fn reference_rgb(colour: Colour, full_range: bool, [y, u, v]: [f64; 3]) -> [f64; 3] {
        let (kr, kb) = if colour == Colour::Bt601 { (0.299, 0.114) } else { (0.2126, 0.0722) };
        let (y, pb, pr) = if full_range {
            (y / 255.0, (u - 128.0) / 255.0, (v - 128.0) / 255.0)
        } else {
            ((y - 16.0) / 219.0, (u - 128.0) / 224.0, (v - 128.0) / 224.0)
        };
        let (r, b) = (y + 2.0 * (1.0 - kr) * pr, y + 2.0 * (1.0 - kb) * pb);
        let g = (y - kr * r - kb * b) / (1.0 - kr - kb);
        [r, g, b].map(|channel| (channel * 255.0).clamp(0.0, 255.0))
    }

    #[test]
    fn channels_come_in_the_order_and_scale_that_the_model_wants() {
        // Red in limited BT.601.
        let frame = TestFrame::new(32, 16, PixelFormat::I420, |_, _| [81, 90, 240]);
        let imagenet = Normalisation {
            mean: [103.53, 116.28, 123.675],
            scale: [0.5, 0.25, 2.0],
            bgr: true,
            padding: 10.0,
        };
        for (normalisation, expected) in [
            (PLAIN, [254.0, 0.0, 0.0]),
            (Normalisation { bgr: true, ..PLAIN }, [0.0, 0.0, 254.0]),
            (imagenet, [-103.53 * 0.5, -116.28 * 0.25, (254.0 - 123.675) * 2.0]),
        ] {
            let mut canvas = Canvas::new((32, 32), normalisation, Fit::Letterbox);
            canvas.draw(&frame.view(), &[]);
            for (channel, expected) in expected.into_iter().enumerate() {
                let plane = &canvas.tensor()[channel * 1024..][..1024];
                assert!((plane[0] - expected).abs() < 4.0, "channel {channel}: {} for {expected}", plane[0]);
                let Normalisation { mean, scale, padding, .. } = normalisation;
                assert!((plane[1023] - (padding - mean[channel]) * scale[channel]).abs() < 1e-3);
            }
        }
    }

    #[test]
    fn a_stretched_picture_fills_the_tensor_and_its_boxes_come_back() {
        let frame =
            TestFrame::new(128, 32, PixelFormat::Nv12, |x, _| [if x < 64 { 235 } else { 16 }, 128, 128]);
        let mut canvas = Canvas::new((32, 32), PLAIN, Fit::Stretch);
        let letterbox = canvas.draw(&frame.view(), &[]);
        let row: Vec<_> = [2, 13, 18, 30].map(|column| canvas.tensor()[31 * 32 + column].round()).to_vec();
        assert_eq!(row, [255.0, 255.0, 0.0, 0.0]);
        let left_half = Rect { left: 0.0, top: 0.0, width: 16.0, height: 32.0 };
        assert_eq!(letterbox.to_picture(left_half), Rect { left: 0.0, top: 0.0, width: 0.5, height: 1.0 });
    }

    #[test]
    fn the_model_cannot_see_what_is_masked_and_sees_it_again_when_the_mask_goes() {
        let points = [(0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0)];
        let left_half = Polygon::new(points.iter().map(|&(x, y)| Point { x, y }).collect()).unwrap();
        let grey = |width, height| TestFrame::new(width, height, PixelFormat::Nv12, |_, _| [235, 128, 128]);
        let mut canvas = Canvas::new((64, 64), PLAIN, Fit::Letterbox);
        // frame, mask, then what is seen at column 10 and 50, and at row 40
        for (size, masks, expected) in [
            ((128, 64), &[][..], [255.0, 255.0, 114.0]),
            ((128, 64), std::slice::from_ref(&left_half), [114.0, 255.0, 114.0]),
            ((64, 64), std::slice::from_ref(&left_half), [114.0, 255.0, 255.0]),
            ((64, 64), &[], [255.0, 255.0, 255.0]),
            ((128, 64), &[], [255.0, 255.0, 114.0]),
        ] {
            canvas.draw(&grey(size.0, size.1).view(), masks);
            for channel in 0..3 {
                let at = |x: usize, y: usize| canvas.tensor()[channel * 64 * 64 + y * 64 + x];
                assert_eq!([at(10, 5), at(50, 5), at(50, 40)].map(f32::round), expected, "{size:?}");
            }
        }
    }

    /// Two parts of a picture of 128x64 whose luma says where a pixel is from, in a tensor of 64x64 that showed all of it.
    fn parts(format: PixelFormat, masks: &[Polygon]) -> (Vec<Placement>, Canvas) {
        let area = |left, top, width, height| Area { left, top, width, height };
        let parts = vec![
            Placement { part: area(100, 40, 28, 24), place: area(0, 0, 28, 24) }, // as it is
            Placement { part: area(0, 0, 40, 60), place: area(30, 2, 20, 30) },   // half as large
        ];
        let mut frame = TestFrame::new(128, 64, format, |x, y| [(x + y / 2) as u8, 128, 128]);
        frame.full_range = true;
        let mut canvas = Canvas::new((64, 64), PLAIN, Fit::Letterbox);
        canvas.draw(&frame.view(), &[]);
        canvas.draw_parts([(&frame.view(), masks, &parts[..])]);
        (parts, canvas)
    }

    #[test]
    fn parts_lie_where_they_were_placed_and_the_rest_is_padding() {
        for format in [PixelFormat::I420, PixelFormat::Nv12] {
            let (parts, canvas) = parts(format, &[]);
            for (x, y) in (0..64_u32).flat_map(|y| (0..64_u32).map(move |x| (x, y))) {
                let inside = parts.iter().find(|Placement { place, .. }| {
                    (place.left..place.left + place.width).contains(&x)
                        && (place.top..place.top + place.height).contains(&y)
                });
                let found = canvas.tensor()[(y * 64 + x) as usize];
                let Some(Placement { part, place }) = inside else {
                    assert_eq!(found, 114.0, "{x} {y}");
                    continue;
                };
                let scale = part.width as f32 / place.width as f32;
                let from =
                    |at: u32, place: u32, part: u32| part as f32 + ((at - place) as f32 + 0.5) * scale - 0.5;
                let expected = from(x, place.left, part.left) + from(y, place.top, part.top) / 2.0;
                assert!((found - expected).abs() < 3.0, "{x} {y}: {found} for {expected}");
            }
        }
    }

    #[test]
    fn no_part_shows_what_is_masked() {
        let points = [(0.1, 0.0), (0.9, 0.0), (0.9, 0.8), (0.1, 0.8)];
        let mask = Polygon::new(points.iter().map(|&(x, y)| Point { x, y }).collect()).unwrap();
        let (parts, canvas) = parts(PixelFormat::Nv12, std::slice::from_ref(&mask));
        let (mut hidden, mut seen) = (0, 0);
        for Placement { part, place } in parts {
            for y in place.top..place.top + place.height {
                for x in place.left..place.left + place.width {
                    let scale = part.width as f32 / place.width as f32;
                    // The picture's pixels that this one shows, in part at least.
                    let span = |at: u32, place: u32, part: u32| {
                        let from = part as f32 + (at - place) as f32 * scale;
                        (from, from + scale)
                    };
                    let ((left, right), (top, bottom)) =
                        (span(x, place.left, part.left), span(y, place.top, part.top));
                    let masked =
                        right > 0.1 * 128.0 && left < 0.9 * 128.0 && top < 0.8 * 64.0 && bottom > 0.0;
                    let padded = canvas.tensor()[(y * 64 + x) as usize] == 114.0;
                    assert!(padded || !masked, "{x} {y}");
                    (hidden, seen) = (hidden + u32::from(padded), seen + u32::from(!padded));
                }
            }
        }
        assert!(hidden > 400 && seen > 300, "{hidden} {seen}");
    }
}
