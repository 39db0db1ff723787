//! The one picture of an incident that may leave the box: masked, heads pixelated, box and label drawn.
//!
//! There is no way around the redaction: nothing else in the agent makes a picture, and nothing here makes one
//! without it.

use image::codecs::jpeg::JpegEncoder;
use image::{ExtendedColorType, ImageError};
use sharp_eyes_protocol::class::ObjectClass;

use crate::detection::Detection;
use crate::frame::FrameView;
use crate::geometry::{Polygon, Rect};
use crate::mask::{self, Span};
use crate::rules::Incident;
use crate::yuv::Scaler;

/// Largest picture, in bytes. Links are slow and paid by volume.
pub const EVIDENCE_MAX_BYTES: usize = 64 * 1024;

/// Long side in pixels, JPEG quality, and bytes per pixel relative to quality 80, roughly: tried in this order until
/// the file is small enough. The last one always is: uncompressed it would have 77 kB at most.
const ATTEMPTS: [(u32, u8, f32); 8] = [
    (1280, 80, 1.0),
    (1280, 60, 0.65),
    (1280, 45, 0.5),
    (960, 45, 0.5),
    (640, 45, 0.5),
    (480, 40, 0.45),
    (320, 35, 0.4),
    (160, 30, 0.35),
];

/// An attempt that is expected to be larger than the limit by more than this is not made: the alert waits for its
/// picture, and each attempt takes as long as an inference.
const OPTIMISM: f32 = 1.2;

/// A JPEG of at most [`EVIDENCE_MAX_BYTES`] and 1280 pixels on the long side.
///
/// `detections` are all of the frame, faint ones too: the head region of every person among them is pixelated, and
/// what `masks` cover is black. The label is drawn in ASCII; other characters become `?`.
pub fn picture(
    frame: &FrameView<'_>,
    masks: &[Polygon],
    detections: &[Detection],
    incident: &Incident,
    label: &str,
) -> Result<Vec<u8>, EvidenceError> {
    let heads: Vec<Rect> = detections
        .iter()
        .map(|detection| (detection.class, detection.bounds))
        .chain([(incident.class, incident.bounds)])
        .filter(|(class, _)| has_head(*class))
        .map(|(_, bounds)| bounds)
        .collect();
    let mut scaler = Scaler::default();
    let mut drawn: Option<Picture> = None;
    let mut jpeg = Vec::new();
    let mut bytes_per_pixel = 0.0; // of quality 80
    for (index, (long_side, quality, relative)) in ATTEMPTS.into_iter().enumerate() {
        let (width, height) = fit((frame.width(), frame.height()), long_side);
        let pixels = width as f32 * height as f32;
        let expected = bytes_per_pixel * relative * pixels;
        if expected > OPTIMISM * EVIDENCE_MAX_BYTES as f32 && index + 1 < ATTEMPTS.len() {
            continue;
        }
        let picture = match drawn.take() {
            Some(picture) if (picture.width, picture.height) == (width as usize, height as usize) => picture,
            _ => {
                let mut picture = Picture::of(frame, &mut scaler, width, height);
                picture.redact(&mask::spans(masks, width, height), &heads);
                picture.annotate(incident.bounds, label);
                picture
            }
        };
        jpeg.clear();
        JpegEncoder::new_with_quality(&mut jpeg, quality)
            .encode(&picture.rgb, width, height, ExtendedColorType::Rgb8)
            .map_err(|source| EvidenceError::Encode { width, height, source })?;
        if jpeg.len() <= EVIDENCE_MAX_BYTES {
            return Ok(jpeg);
        }
        bytes_per_pixel = jpeg.len() as f32 / (relative * pixels);
        drawn = Some(picture);
    }
    Err(EvidenceError::TooLarge(jpeg.len()))
}

/// Boxes that show somebody's head: of people, and of two-wheelers, because the boxes of many data sets, and so of
/// models trained on them, include the rider.
fn has_head(class: ObjectClass) -> bool {
    matches!(class, ObjectClass::Person | ObjectClass::Bicycle | ObjectClass::Motorcycle)
}

/// The size of a picture whose long side is at most `long_side`; never larger than it is.
fn fit((width, height): (u32, u32), long_side: u32) -> (u32, u32) {
    let longer = width.max(height);
    if longer <= long_side {
        return (width, height);
    }
    let side = |side: u32| ((u64::from(side) * u64::from(long_side) / u64::from(longer)) as u32).max(1);
    (side(width), side(height))
}

/// RGB pixels on their way to the encoder.
struct Picture {
    width: usize,
    height: usize,
    rgb: Vec<u8>,
}

/// Pixels `left..right` of the rows `top..bottom`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Region {
    left: usize,
    top: usize,
    right: usize,
    bottom: usize,
}

const BLACK: [u8; 3] = [0, 0, 0];
const AMBER: [u8; 3] = [255, 191, 0];

/// A head region becomes at most this many blocks on a side. A face is a third of the region's width: one block or
/// two, out of which no face can be restored.
const BLOCKS: usize = 4;

/// Least side of a block in pixels, for heads that are only a few blocks of that size themselves.
const BLOCK_MIN: usize = 6;

impl Picture {
    fn of(frame: &FrameView<'_>, scaler: &mut Scaler, width: u32, height: u32) -> Self {
        let planes = scaler.scale(frame, width, height);
        let pixels = planes.y.iter().zip(planes.u).zip(planes.v);
        let rgb = pixels
            .flat_map(|((&y, &u), &v)| planes.matrix.rgb(y, u, v).map(|channel| channel.round() as u8))
            .collect();
        Self { width: width as usize, height: height as usize, rgb }
    }

    /// Masks go on before the heads, so that no block takes its colour from below a mask, and again after them, so
    /// that none spreads into one.
    fn redact(&mut self, masks: &[Span], heads: &[Rect]) {
        self.black_out(masks);
        for &person in heads {
            self.pixelate(self.head_region(person));
        }
        self.black_out(masks);
    }

    fn black_out(&mut self, masks: &[Span]) {
        for span in masks {
            self.fill(Region { left: span.from, top: span.row, right: span.to, bottom: span.row + 1 }, BLACK);
        }
    }

    /// Where the head of a person is. Of a standing person it is the top 30 % of the box; of one who sits, lies or
    /// is cut off by the picture's edge, a larger part: three quarters of the box's width covers both. It is
    /// widened, because boxes cut off hair and ears.
    fn head_region(&self, person: Rect) -> Region {
        let (columns, rows) = (self.width as f32, self.height as f32);
        let (width, height) = (person.width * columns, person.height * rows);
        let tall = (0.3 * height).max((0.75 * width).min(height));
        let (left, top) = (person.left * columns, person.top * rows);
        self.region(left - 0.15 * width, top - 0.15 * tall, left + 1.15 * width, top + tall)
    }

    /// The pixels that a rectangle touches, within the picture.
    fn region(&self, left: f32, top: f32, right: f32, bottom: f32) -> Region {
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

    fn pixelate(&mut self, region: Region) {
        let block = |from: usize, to: usize| (to.saturating_sub(from)).div_ceil(BLOCKS).max(BLOCK_MIN);
        let (across, down) = (block(region.left, region.right), block(region.top, region.bottom));
        for top in (region.top..region.bottom).step_by(down) {
            for left in (region.left..region.right).step_by(across) {
                let block = Region {
                    left,
                    top,
                    right: (left + across).min(region.right),
                    bottom: (top + down).min(region.bottom),
                };
                self.fill(block, self.mean(block));
            }
        }
    }

    fn mean(&self, region: Region) -> [u8; 3] {
        let mut sums = [0u64; 3];
        for row in region.top..region.bottom {
            let from = (row * self.width + region.left) * 3;
            for pixel in self.rgb[from..][..(region.right - region.left) * 3].chunks_exact(3) {
                for (sum, &value) in sums.iter_mut().zip(pixel) {
                    *sum += u64::from(value);
                }
            }
        }
        let count = ((region.right - region.left) * (region.bottom - region.top)).max(1) as u64;
        sums.map(|sum| (sum / count) as u8)
    }

    fn fill(&mut self, region: Region, colour: [u8; 3]) {
        for row in region.top..region.bottom.min(self.height) {
            for column in region.left..region.right.min(self.width) {
                self.rgb[(row * self.width + column) * 3..][..3].copy_from_slice(&colour);
            }
        }
    }

    /// Draws the incident's box, and its label on a black strip above it or, at the top of the picture, below.
    fn annotate(&mut self, bounds: Rect, label: &str) {
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

        let zoom = (self.width / 480).max(1);
        let (glyph, margin) = (8 * zoom, zoom);
        let strip = (glyph * label.chars().count() + 2 * margin, glyph + 2 * margin);
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

/// No picture could be made.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum EvidenceError {
    #[error("evidence picture of {width}x{height} pixels: {source}")]
    Encode { width: u32, height: u32, source: ImageError },
    #[error("evidence picture has {0} bytes at its smallest, more than the {EVIDENCE_MAX_BYTES} allowed")]
    TooLarge(usize),
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use image::RgbImage;
    use sharp_eyes_protocol::alert::AlertKind;
    use sharp_eyes_protocol::level::Severity;
    use sharp_eyes_protocol::topic::Name;

    use super::*;
    use crate::Moment;
    use crate::frame::PixelFormat;
    use crate::geometry::Point;
    use crate::testing::{TestFrame, noise};

    fn incident(class: ObjectClass, bounds: Rect) -> Incident {
        Incident {
            rule: 0,
            kind: AlertKind::Intrusion,
            severity: Severity::Major,
            zone: Name::new("yard").unwrap(),
            class,
            confidence: 0.87,
            bounds,
            track: 1,
            at: Moment { monotonic: Duration::ZERO, wall: jiff::Timestamp::UNIX_EPOCH },
            evidence: true,
        }
    }

    fn seen(class: ObjectClass, score: f32, [left, top, width, height]: [f32; 4]) -> Detection {
        Detection { class, score, bounds: Rect { left, top, width, height } }
    }

    fn far_away() -> Incident {
        incident(ObjectClass::Car, Rect { left: 0.9, top: 0.9, width: 0.08, height: 0.08 })
    }

    fn decode(jpeg: &[u8]) -> RgbImage {
        image::load_from_memory(jpeg).unwrap().to_rgb8()
    }

    /// Mean difference between neighbours in a part of the picture (0..1): how much fine detail there is.
    fn detail(picture: &RgbImage, [left, top, width, height]: [f32; 4]) -> f32 {
        let (columns, rows) = (picture.width() as f32, picture.height() as f32);
        let (mut sum, mut count) = (0.0, 0.0);
        for y in (top * rows) as u32..((top + height) * rows) as u32 {
            for x in (left * columns) as u32..((left + width) * columns) as u32 - 1 {
                let (a, b) = (picture.get_pixel(x, y).0[1], picture.get_pixel(x + 1, y).0[1]);
                sum += f32::from(a.abs_diff(b));
                count += 1.0;
            }
        }
        sum / count
    }

    #[test]
    fn no_head_keeps_its_detail_however_faint_the_person() {
        use ObjectClass::{Bicycle, Car, Dog, Motorcycle, Person};
        // class, score, box, the part that must be gone
        let rows = [
            (Person, 0.9, [0.05, 0.3, 0.05, 0.3], Some([0.05, 0.3, 0.05, 0.08])),
            (Person, 0.04, [0.2, 0.3, 0.05, 0.3], Some([0.2, 0.3, 0.05, 0.08])),
            (Person, 0.5, [0.3, 0.3, 0.15, 0.2], Some([0.3, 0.3, 0.15, 0.19])), // a bust: nearly all of it
            (Person, 0.5, [0.5, 0.4, 0.2, 0.1], Some([0.5, 0.4, 0.2, 0.1])),    // lying
            (Person, 0.5, [0.8, -0.05, 0.05, 0.3], Some([0.8, 0.0, 0.05, 0.04])), // cut off by the edge
            (Motorcycle, 0.5, [0.05, 0.7, 0.1, 0.25], Some([0.05, 0.7, 0.1, 0.07])),
            (Bicycle, 0.5, [0.2, 0.7, 0.1, 0.25], Some([0.2, 0.7, 0.1, 0.07])),
            (Car, 0.5, [0.4, 0.7, 0.1, 0.25], None),
            (Dog, 0.5, [0.6, 0.7, 0.1, 0.25], None),
        ];
        let detections: Vec<_> =
            rows.iter().map(|&(class, score, bounds, _)| seen(class, score, bounds)).collect();
        for (width, height) in [(640, 480), (1600, 900)] {
            // As fine as survives JPEG and scaling: two pixels of the picture.
            let cell = width as usize / 320;
            let fine =
                |x: usize, y: usize| [if noise(x / cell, y / cell) > 127 { 235 } else { 16 }, 128, 128];
            let frame = TestFrame::new(width, height, PixelFormat::Nv12, fine);
            let picture = decode(&picture(&frame.view(), &[], &detections, &far_away(), "x").unwrap());
            let open = detail(&picture, [0.4, 0.7, 0.1, 0.2]);
            assert!(open > 5.0, "the frame has detail to lose: {open}");
            for (class, _, bounds, gone) in rows {
                let left = detail(&picture, gone.unwrap_or(bounds));
                let kept = if gone.is_some() { left < open / 4.0 } else { left > open / 2.0 };
                assert!(kept, "{width}x{height} {class} at {bounds:?}: {left} of {open}");
            }
        }
    }

    #[test]
    fn the_incident_itself_is_redacted_even_if_this_frame_does_not_show_it() {
        let frame = TestFrame::new(640, 480, PixelFormat::I420, |x, y| [noise(x / 8, y / 8), 128, 128]);
        let person = incident(ObjectClass::Person, Rect { left: 0.4, top: 0.3, width: 0.1, height: 0.5 });
        let picture = decode(&picture(&frame.view(), &[], &[], &person, "x").unwrap());
        assert!(detail(&picture, [0.42, 0.32, 0.06, 0.1]) < detail(&picture, [0.42, 0.55, 0.06, 0.1]) / 4.0);
    }

    #[test]
    fn what_is_masked_is_black() {
        let mask = |points: &[(f32, f32)]| {
            Polygon::new(points.iter().map(|&(x, y)| Point { x, y }).collect()).unwrap()
        };
        let masks = [
            mask(&[(0.1, 0.1), (0.4, 0.1), (0.4, 0.5), (0.1, 0.5)]),
            mask(&[(0.5, 0.5), (0.8, 0.5), (0.65, 0.9)]),
        ];
        // A head half under the mask must not bring anything out from below it.
        let person = seen(ObjectClass::Person, 0.9, [0.35, 0.3, 0.1, 0.4]);
        let frame = TestFrame::new(1000, 600, PixelFormat::I420, |_, _| [235, 128, 128]);
        let picture = decode(&picture(&frame.view(), &masks, &[person], &far_away(), "x").unwrap());
        for (x, y, black) in [
            (0.11, 0.12, true),
            (0.39, 0.35, true),
            (0.39, 0.49, true),
            (0.65, 0.6, true),
            (0.65, 0.88, true),
            (0.05, 0.3, false),
            (0.43, 0.35, false),
            (0.52, 0.8, false),
        ] {
            let pixel = picture.get_pixel((x * 1000.0) as u32, (y * 600.0) as u32).0;
            assert_eq!(pixel.iter().all(|&channel| channel < 24), black, "{x}, {y}: {pixel:?}");
        }
    }

    #[test]
    fn every_frame_makes_a_picture_within_the_limits() {
        use PixelFormat::{I420, Nv12};
        for (width, height, format) in [
            (1, 1, I420),
            (3, 5, Nv12),
            (16, 9, I420),
            (333, 777, Nv12),
            (2560, 1440, Nv12),
            (8000, 20, I420),
        ] {
            let colours = |x: usize, y: usize| [noise(x, y), noise(y, x), noise(x + 7, y)];
            let frame = TestFrame::new(width, height, format, colours);
            let person = seen(ObjectClass::Person, 0.5, [0.9, 0.9, 0.3, 0.3]);
            let label = "intrusion yard person 0.87 院子";
            let jpeg = picture(&frame.view(), &[], &[person], &far_away(), label).unwrap();
            assert!(jpeg.len() <= EVIDENCE_MAX_BYTES, "{width}x{height}: {} bytes", jpeg.len());
            let found = decode(&jpeg).dimensions();
            assert!(found.0.max(found.1) <= 1280);
            if width.max(height) <= 333 {
                assert_eq!(found, (width, height));
            }
        }
    }

    #[test]
    fn box_and_label_are_drawn() {
        let frame = TestFrame::new(640, 480, PixelFormat::I420, |_, _| [126, 128, 128]);
        let bounds = Rect { left: 0.25, top: 0.25, width: 0.5, height: 0.5 };
        let picture =
            decode(&picture(&frame.view(), &[], &[], &incident(ObjectClass::Car, bounds), "HI").unwrap());
        let amber = |x: u32, y: u32| {
            let [r, g, b] = picture.get_pixel(x, y).0;
            r > 180 && g > 130 && b < 110
        };
        for (x, y) in [(160, 240), (478, 240), (320, 121), (320, 358)] {
            assert!(amber(x, y), "the box's side at {x}, {y}: {:?}", picture.get_pixel(x, y));
        }
        assert!(!amber(320, 240), "the box is not filled");
        let text =
            (161..177).flat_map(|x| (110..119).map(move |y| (x, y))).filter(|&(x, y)| amber(x, y)).count();
        assert!((15..80).contains(&text), "{text} pixels of \"HI\"");
    }
}
