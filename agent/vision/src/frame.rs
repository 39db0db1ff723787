//! A picture as the decoder left it: borrowed planes, checked once, copied never.

/// How a decoder lays out the planes of 4:2:0 video.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PixelFormat {
    /// Three planes: Y, U, V.
    I420,
    /// Two planes: Y, and U and V interleaved.
    Nv12,
}

impl PixelFormat {
    fn planes(self) -> usize {
        match self {
            Self::I420 => 3,
            Self::Nv12 => 2,
        }
    }
}

/// Which matrix turns YUV into RGB (ITU-T H.273, `MatrixCoefficients`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Colour {
    /// ITU-R BT.601: standard definition, and many cameras at any size.
    Bt601,
    /// ITU-R BT.709: high definition.
    Bt709,
}

/// One plane: rows of `stride` bytes, of which the first ones are the picture.
#[derive(Clone, Copy, Debug)]
pub struct Plane<'a> {
    /// All rows, top first. The last row may end with its last pixel.
    pub data: &'a [u8],
    /// Bytes from the start of a row to the start of the next.
    pub stride: usize,
}

/// A decoded picture, borrowed from its decoder.
#[derive(Clone, Copy, Debug)]
pub struct FrameView<'a> {
    width: u32,
    height: u32,
    format: PixelFormat,
    colour: Colour,
    full_range: bool,
    planes: [Plane<'a>; 3],
}

/// Largest width and height that is taken for a picture: twice 8K. Beyond it, a size is a damaged header.
pub const SIZE_MAX: u32 = 16_384;

impl<'a> FrameView<'a> {
    /// Checks that the planes hold the picture that the sizes promise.
    pub fn new(
        width: u32,
        height: u32,
        format: PixelFormat,
        colour: Colour,
        full_range: bool,
        planes: &[Plane<'a>],
    ) -> Result<Self, FrameError> {
        if !(1..=SIZE_MAX).contains(&width) || !(1..=SIZE_MAX).contains(&height) {
            return Err(FrameError::Size { width, height });
        }
        if planes.len() != format.planes() {
            return Err(FrameError::PlaneCount { format, expected: format.planes(), found: planes.len() });
        }
        let mut view =
            Self { width, height, format, colour, full_range, planes: [Plane { data: &[], stride: 0 }; 3] };
        for (index, plane) in planes.iter().enumerate() {
            let (columns, rows, bytes) = view.plane_size(index);
            let row = columns as usize * bytes;
            if plane.stride < row {
                return Err(FrameError::Stride { index, expected: row, found: plane.stride });
            }
            let expected = plane.stride * (rows as usize - 1) + row;
            if plane.data.len() < expected {
                return Err(FrameError::PlaneLength { index, expected, found: plane.data.len() });
            }
            view.planes[index] = *plane;
        }
        Ok(view)
    }

    /// Width in pixels.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Height in pixels.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// How the planes are laid out.
    pub fn format(&self) -> PixelFormat {
        self.format
    }

    /// Which matrix the colours are in.
    pub fn colour(&self) -> Colour {
        self.colour
    }

    /// Whether luma uses 0..=255 (true) or 16..=235 (false).
    pub fn full_range(&self) -> bool {
        self.full_range
    }

    /// The planes: three of I420, two of NV12.
    pub fn planes(&self) -> &[Plane<'a>] {
        &self.planes[..self.format.planes()]
    }

    /// Columns, rows and bytes per pixel of one plane. Chroma of an odd size is rounded up, as decoders do.
    pub fn plane_size(&self, index: usize) -> (u32, u32, usize) {
        let half = (self.width.div_ceil(2), self.height.div_ceil(2));
        match (index, self.format) {
            (0, _) => (self.width, self.height, 1),
            (_, PixelFormat::I420) => (half.0, half.1, 1),
            (_, PixelFormat::Nv12) => (half.0, half.1, 2),
        }
    }
}

/// The planes cannot be the picture that their description promises.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[allow(missing_docs)] // the messages say it
pub enum FrameError {
    #[error("a frame of {width}x{height} pixels: each side must be 1 to {SIZE_MAX}")]
    Size { width: u32, height: u32 },
    #[error("a frame in {format:?} has {expected} planes, found {found}")]
    PlaneCount { format: PixelFormat, expected: usize, found: usize },
    #[error("plane {index}: a row takes {expected} bytes, the stride is {found}")]
    Stride { index: usize, expected: usize, found: usize },
    #[error("plane {index}: expected at least {expected} bytes, found {found}")]
    PlaneLength { index: usize, expected: usize, found: usize },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_what_its_sizes_promise_or_an_error() {
        use PixelFormat::{I420, Nv12};
        let bytes = [0u8; 64];
        // width, height, format, (length, stride) of each plane
        #[allow(clippy::type_complexity)]
        let rows: [(u32, u32, PixelFormat, &[(usize, usize)], Option<FrameError>); 9] = [
            (4, 4, I420, &[(16, 4), (4, 2), (4, 2)], None),
            (4, 4, Nv12, &[(16, 4), (8, 4)], None),
            (3, 3, I420, &[(9, 3), (4, 2), (4, 2)], None),
            (3, 3, I420, &[(19, 8), (10, 8), (10, 8)], None), // the last row may end early
            (
                3,
                3,
                Nv12,
                &[(9, 3), (7, 4)],
                Some(FrameError::PlaneLength { index: 1, expected: 8, found: 7 }),
            ),
            (
                4,
                4,
                I420,
                &[(16, 3), (4, 2), (4, 2)],
                Some(FrameError::Stride { index: 0, expected: 4, found: 3 }),
            ),
            (
                4,
                4,
                I420,
                &[(15, 4), (4, 2), (4, 2)],
                Some(FrameError::PlaneLength { index: 0, expected: 16, found: 15 }),
            ),
            (
                4,
                4,
                I420,
                &[(16, 4), (8, 4)],
                Some(FrameError::PlaneCount { format: I420, expected: 3, found: 2 }),
            ),
            (0, 4, I420, &[], Some(FrameError::Size { width: 0, height: 4 })),
        ];
        for (width, height, format, planes, error) in rows {
            let planes: Vec<_> =
                planes.iter().map(|&(len, stride)| Plane { data: &bytes[..len], stride }).collect();
            let result = FrameView::new(width, height, format, Colour::Bt601, false, &planes);
            assert_eq!(result.err(), error, "{width}x{height} {format:?}");
        }
    }
}
