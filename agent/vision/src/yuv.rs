//! A decoder's planes at another size, and the matrix that makes RGB of them.
//!
//! Planes are resized before they are converted: at the size of the target there are far fewer pixels to convert,
//! and no RGB picture of the full size ever exists.

use crate::frame::{Colour, FrameView, PixelFormat};
use crate::packing::Area;
use crate::resample::Resampler;

/// Resizes planes. Keeps its buffers, so that a camera's frames allocate only once.
#[derive(Default)]
pub(crate) struct Scaler {
    resampler: Resampler,
    planes: [Vec<u8>; 3],
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
        let Self { resampler, planes: [y, u, v] } = self;
        let (size, pixels) = ((width, height), width as usize * height as usize);
        [&mut *y, u, v].into_iter().for_each(|plane| plane.resize(pixels, 0));
        let (planes, half) = (frame.planes(), part.halved());
        resampler.resample(planes[0], part, size, [y]);
        match frame.format() {
            PixelFormat::I420 => {
                resampler.resample(planes[1], half, size, [u]);
                resampler.resample(planes[2], half, size, [v]);
            }
            PixelFormat::Nv12 => resampler.resample(planes[1], half, size, [u, v]),
        }
        Yuv444 { y, u, v, matrix: Matrix::new(frame.colour(), frame.full_range()) }
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
