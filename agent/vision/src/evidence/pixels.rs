//! RGB pixels and what is drawn on them.

use crate::geometry::Rect;

pub(super) const BLACK: [u8; 3] = [0, 0, 0];
pub(super) const AMBER: [u8; 3] = [255, 191, 0];

/// Rows of RGB, top first.
#[derive(Clone)]
pub(super) struct Pixels {
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) rgb: Vec<u8>,
}

/// Pixels `left..right` of the rows `top..bottom`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Region {
    pub(super) left: usize,
    pub(super) top: usize,
    pub(super) right: usize,
    pub(super) bottom: usize,
}

impl Region {
    pub(super) fn width(self) -> usize {
        self.right.saturating_sub(self.left)
    }

    pub(super) fn height(self) -> usize {
        self.bottom.saturating_sub(self.top)
    }

    pub(super) fn contains(self, other: Self) -> bool {
        self.left <= other.left
            && self.top <= other.top
            && self.right >= other.right
            && self.bottom >= other.bottom
    }
}

impl Pixels {
    pub(super) fn whole(&self) -> Region {
        Region { left: 0, top: 0, right: self.width, bottom: self.height }
    }

    pub(super) fn cut(&self, part: Region) -> Self {
        let mut rgb = Vec::with_capacity(part.width() * part.height() * 3);
        for row in self.rgb.chunks_exact(self.width * 3).take(part.bottom).skip(part.top) {
            rgb.extend_from_slice(&row[part.left * 3..part.right * 3]);
        }
        Self { width: part.width(), height: part.height(), rgb }
    }

    /// The pixels that a rectangle touches, within the picture.
    pub(super) fn region(&self, left: f32, top: f32, right: f32, bottom: f32) -> Region {
        // A cast takes negative numbers and NaN to zero.
        let low = |value: f32, end: usize| (value.floor() as usize).min(end);
        let high = |value: f32, end: usize| (value.ceil() as usize).min(end);
        Region {
            left: low(left, self.width),
            top: low(top, self.height),
            right: high(right, self.width),
            bottom: high(bottom, self.height),
        }
    }

    pub(super) fn mean(&self, region: Region) -> [u8; 3] {
        let mut sums = [0u64; 3];
        for row in region.top..region.bottom {
            let from = (row * self.width + region.left) * 3;
            for pixel in self.rgb[from..][..region.width() * 3].chunks_exact(3) {
                for (sum, &value) in sums.iter_mut().zip(pixel) {
                    *sum += u64::from(value);
                }
            }
        }
        let count = (region.width() * region.height()).max(1) as u64;
        sums.map(|sum| (sum / count) as u8)
    }

    pub(super) fn fill(&mut self, region: Region, colour: [u8; 3]) {
        let right = region.right.min(self.width);
        for row in region.top..region.bottom.min(self.height) {
            for column in region.left..right {
                self.rgb[(row * self.width + column) * 3..][..3].copy_from_slice(&colour);
            }
        }
    }

    /// Draws a box and returns where it is. `bounds` are in 0..1 of this picture and may reach beyond it.
    pub(super) fn outline(&mut self, bounds: Rect) -> Region {
        let (columns, rows) = (self.width as f32, self.height as f32);
        let frame = self.region(
            bounds.left * columns,
            bounds.top * rows,
            bounds.right() * columns,
            bounds.bottom() * rows,
        );
        let Region { left, top, right, bottom } = frame;
        let line = (self.width / 400).max(2);
        for side in [
            Region { bottom: (top + line).min(bottom), ..frame },
            Region { top: bottom.saturating_sub(line).max(top), ..frame },
            Region { right: (left + line).min(right), ..frame },
            Region { left: right.saturating_sub(line).max(left), ..frame },
        ] {
            self.fill(side, AMBER);
        }
        frame
    }

    /// Writes on a black strip above the box or, at the top of the picture, below it; without a box, at the top.
    pub(super) fn label(&mut self, label: &str, bounds: Option<Region>) {
        if label.is_empty() {
            return;
        }
        let zoom = (self.width / 480).max(1);
        let (glyph, margin) = (8 * zoom, zoom);
        let strip = (glyph * label.chars().count() + 2 * margin, glyph + 2 * margin);
        let Region { left, top, bottom, .. } =
            bounds.unwrap_or(Region { left: 0, top: 0, right: self.width, bottom: 0 });
        let x = left.min(self.width.saturating_sub(strip.0));
        let y = if top >= strip.1 { top - strip.1 } else { bottom.min(self.height.saturating_sub(strip.1)) };
        self.fill(Region { left: x, top: y, right: x + strip.0, bottom: y + strip.1 }, BLACK);
        for (index, character) in label.chars().enumerate() {
            self.write(character, x + margin + index * glyph, y + margin, zoom);
        }
    }

    fn write(&mut self, character: char, x: usize, y: usize, zoom: usize) {
        let code =
            if character.is_ascii_graphic() || character == ' ' { character as usize } else { '?' as usize };
        for (row, bits) in font8x8::legacy::BASIC_LEGACY[code].into_iter().enumerate() {
            for column in (0..8).filter(|column| bits & 1 << column != 0) {
                let (left, top) = (x + column * zoom, y + row * zoom);
                self.fill(Region { left, top, right: left + zoom, bottom: top + zoom }, AMBER);
            }
        }
    }
}
