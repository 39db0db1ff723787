//! A decoder's planes at another size, and the matrix that makes RGB of them.
//!
//! Planes are resized before they are converted: at the size of the target there are far fewer pixels to convert,
//! and no RGB picture of the full size ever exists.

use fast_image_resize::images::{TypedCroppedImage, TypedImage, TypedImageRef};
use fast_image_resize::pixels::{U8, U8x2};
use fast_image_resize::{FilterType, PixelTrait, ResizeAlg, ResizeOptions, Resizer};

use crate::frame::{Colour, FrameView, PixelFormat, Plane};
use crate::packing::Area;

/// Resizes planes. Keeps its buffers, so that a camera's frames allocate only once.
#[derive(Default)]
pub(crate) struct Scaler {
    resizer: Resizer,
    planes: [Vec<u8>; 3],
    /// Pairs of U and V, before and after their resizing.
    pairs: [Vec<u8>; 2],
    packed: Vec<u8>,
}

/// A picture in which each pixel has its own Y, U and V.
pub(crate) struct Yuv444<'a> {
    pub(crate) y: &'a [u8],
    pub(crate) u: &'a [u8],
    pub(crate) v: &'a [u8],
    pub(crate) matrix: Matrix,
}

impl Scaler {
    /// Brings a part of every plane of the frame, chroma too, to `width` by `height`. The part lies within the frame and
    /// begins at even pixels.
    pub(crate) fn scale(&mut self, frame: &FrameView<'_>, part: Area, width: u32, height: u32) -> Yuv444<'_> {
        let Self { resizer, planes: [y, u, v], pairs: [paired, pairs], packed } = self;
        let pixels = width as usize * height as usize;
        [&mut *y, u, v].into_iter().for_each(|plane| plane.resize(pixels, 0));
        pairs.resize(2 * pixels, 0);
        Source::of(frame, 0, part).resize(resizer, packed, y, width, height);
        let chroma = match frame.format() {
            // Both at once: two thirds of what they take one after the other.
            PixelFormat::I420 => Source::paired(frame, part.halved(), paired),
            PixelFormat::Nv12 => Source::of(frame, 1, part.halved()),
        };
        chroma.resize(resizer, packed, pairs, width, height);
        for ((pair, u), v) in pairs.chunks_exact(2).zip(u.iter_mut()).zip(v.iter_mut()) {
            (*u, *v) = (pair[0], pair[1]);
        }
        Yuv444 { y, u, v, matrix: Matrix::new(frame.colour(), frame.full_range()) }
    }
}

/// One plane with what its bytes mean.
struct Source<'a> {
    plane: Plane<'a>,
    columns: u32,
    rows: u32,
    bytes: usize,
    part: Area,
}

impl<'a> Source<'a> {
    /// A part of a frame's plane.
    fn of(frame: &FrameView<'a>, index: usize, part: Area) -> Self {
        let (columns, rows, bytes) = frame.plane_size(index);
        Self { plane: frame.planes()[index], columns, rows, bytes, part }
    }

    /// A part of the planes U and V as pairs.
    fn paired(frame: &FrameView<'_>, part: Area, pairs: &'a mut Vec<u8>) -> Self {
        let Area { left, top, width, height } = part;
        let (left, top, columns) = (left as usize, top as usize, width as usize);
        pairs.resize(2 * columns * height as usize, 0);
        for (row, pairs) in pairs.chunks_exact_mut(2 * columns).enumerate() {
            let [u, v] = [1, 2].map(|index| {
                let Plane { data, stride } = frame.planes()[index];
                &data[(top + row) * stride + left..][..columns]
            });
            for ((pair, u), v) in pairs.chunks_exact_mut(2).zip(u).zip(v) {
                (pair[0], pair[1]) = (*u, *v);
            }
        }
        let plane = Plane { data: pairs, stride: 2 * columns };
        Self { plane, columns: width, rows: height, bytes: 2, part: Area::all_of(width, height) }
    }

    fn resize(
        &self,
        resizer: &mut Resizer,
        packed: &mut Vec<u8>,
        target: &mut [u8],
        width: u32,
        height: u32,
    ) {
        let stride = self.plane.stride;
        // The library wants whole rows of whole pixels; a last row that ends early, or a stride that splits a
        // pixel, is rare enough to be copied.
        let whole = stride.is_multiple_of(self.bytes) && self.plane.data.len() >= stride * self.rows as usize;
        let (data, stride) = if whole {
            (self.plane.data, stride)
        } else {
            let row = self.columns as usize * self.bytes;
            packed.clear();
            for start in (0..self.rows as usize).map(|index| index * stride) {
                packed.extend_from_slice(&self.plane.data[start..start + row]);
            }
            (packed.as_slice(), row)
        };
        let columns = (stride / self.bytes) as u32;
        match self.bytes {
            1 => self.resize_typed::<U8>(resizer, data, columns, target, (width, height)),
            _ => self.resize_typed::<U8x2>(resizer, data, columns, target, (width, height)),
        }
    }

    /// Typed, because the library's dynamic call compiles its kernels for every type of pixel that there is: four
    /// minutes of each build.
    fn resize_typed<P: PixelTrait + Default>(
        &self,
        resizer: &mut Resizer,
        data: &[u8],
        columns: u32,
        target: &mut [u8],
        (width, height): (u32, u32),
    ) {
        // `FrameView::new` has checked every size that could make one of these fail.
        const CHECKED: &str = "the planes hold what FrameView checked";
        let padded = TypedImageRef::<P>::from_buffer(columns, self.rows, data).expect(CHECKED);
        let Area { left, top, width: columns, height: rows } = self.part;
        let source = TypedCroppedImage::new(padded, left, top, columns, rows).expect(CHECKED);
        let mut target = TypedImage::<P>::from_buffer(width, height, target).expect(CHECKED);
        // Triangle filter with the support of the scale: every source pixel counts, so that a far person of a
        // 1080p picture is not lost between samples. The second byte of U8x2 is V here, not transparency.
        let options =
            ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear)).use_alpha(false);
        resizer.resize_typed(&source, &mut target, &options).expect(CHECKED);
    }
}

/// YUV to RGB, all in 0..=255 (ITU-R BT.601-7 and BT.709-6; range as in H.273, `VideoFullRangeFlag`).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Matrix {
    black: f32,
    luma: f32,
    red_v: f32,
    green_u: f32,
    green_v: f32,
    blue_u: f32,
}

impl Matrix {
    pub(crate) fn new(colour: Colour, full_range: bool) -> Self {
        let (kr, kb) = match colour {
            Colour::Bt601 => (0.299, 0.114),
            Colour::Bt709 => (0.2126, 0.0722),
        };
        let kg = 1.0 - kr - kb;
        let (black, luma, chroma) =
            if full_range { (0.0, 1.0, 1.0) } else { (16.0, 255.0 / 219.0, 255.0 / 224.0) };
        let (red_v, blue_u) = (2.0 * (1.0 - kr) * chroma, 2.0 * (1.0 - kb) * chroma);
        Self { black, luma, red_v, green_u: -blue_u * kb / kg, green_v: -red_v * kr / kg, blue_u }
    }

    /// One pixel, in 0.0..=255.0.
    #[inline(always)]
    pub(crate) fn rgb(&self, y: u8, u: u8, v: u8) -> [f32; 3] {
        let y = (f32::from(y) - self.black) * self.luma;
        let (u, v) = (f32::from(u) - 128.0, f32::from(v) - 128.0);
        let byte = |value: f32| value.clamp(0.0, 255.0);
        [byte(y + self.red_v * v), byte(y + self.green_u * u + self.green_v * v), byte(y + self.blue_u * u)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_matrices_agree_with_the_standards_corners() {
        use Colour::{Bt601, Bt709};
        // colour, full range, YUV, RGB; the primaries are the 8-bit values of the recommendations
        for (colour, full, [y, u, v], rgb) in [
            (Bt601, false, [16, 128, 128], [0, 0, 0]),
            (Bt601, false, [235, 128, 128], [255, 255, 255]),
            (Bt601, false, [81, 90, 240], [255, 0, 0]),
            (Bt601, false, [145, 54, 34], [0, 255, 0]),
            (Bt601, false, [41, 240, 110], [0, 0, 255]),
            (Bt709, false, [63, 102, 240], [255, 0, 0]),
            (Bt709, false, [173, 42, 26], [0, 255, 0]),
            (Bt709, false, [32, 240, 118], [0, 0, 255]),
            (Bt601, true, [0, 128, 128], [0, 0, 0]),
            (Bt601, true, [255, 128, 128], [255, 255, 255]),
            (Bt601, true, [76, 85, 255], [255, 0, 0]),
        ] {
            let found = Matrix::new(colour, full).rgb(y, u, v);
            for (found, expected) in found.into_iter().zip(rgb) {
                assert!(
                    (found - expected as f32).abs() <= 2.0,
                    "{colour:?} {y} {u} {v}: {found} for {expected}"
                );
            }
        }
    }
}
