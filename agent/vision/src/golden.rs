//! Golden pictures: what a model has to see in pictures that travel with it.
//!
//! A model that was damaged, exported wrongly, or runs differently on this processor shows it here, before it looks at
//! a village. The pictures are JPEGs and take the way of a camera's frames: planes, letterbox, inference, NMS.

use serde::{Deserialize, Serialize};
use sharp_eyes_protocol::class::ObjectClass;
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use crate::detection::{Detection, Thresholds};
use crate::frame::{Colour, FrameError, FrameView, PixelFormat, Plane};
use crate::geometry::Rect;

/// Longest side of a golden picture, in pixels: the planes of the largest take 24 MB.
pub const PICTURE_MAX_SIDE: usize = 4096;

/// What is expected in one picture: everything at or above its class's threshold, and how far a box may be off.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expected {
    /// Least intersection over union of a box with the expected one, 0 to 1.
    #[serde(default = "Expected::usual_iou")]
    pub iou: f32,
    /// Largest difference of a score to the expected one, 0 to 1.
    #[serde(default = "Expected::usual_score")]
    pub score: f32,
    /// What is there.
    pub detections: Vec<ExpectedDetection>,
}

/// One object.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpectedDetection {
    /// What it is.
    pub class: ObjectClass,
    /// How sure the model is, 0 to 1.
    pub score: f32,
    /// Left, top, width and height, in 0..1 of the picture.
    #[serde(rename = "box")]
    pub bounds: [f32; 4],
}

impl Expected {
    fn usual_iou() -> f32 {
        0.8
    }

    fn usual_score() -> f32 {
        0.1
    }

    /// Reads the JSON beside a picture.
    pub fn parse(json: &[u8]) -> Result<Self, GoldenError> {
        let expected: Self = serde_json::from_slice(json)?;
        let share = |number: f32| (0.0..=1.0).contains(&number);
        let fits = |d: &ExpectedDetection| share(d.score) && d.bounds.iter().all(|side| share(*side));
        if !share(expected.iou) || !share(expected.score) || !expected.detections.iter().all(fits) {
            return Err(GoldenError::Range);
        }
        Ok(expected)
    }

    /// What a model sees, as an expectation with the usual tolerances.
    pub fn of(detections: &[Detection], thresholds: &Thresholds) -> Self {
        let counts = detections.iter().filter(|d| d.score >= thresholds.of(d.class));
        let rounded = |number: f32| (number * 1e4).round() / 1e4;
        let detections = counts
            .map(|d| ExpectedDetection {
                class: d.class,
                score: rounded(d.score),
                bounds: [d.bounds.left, d.bounds.top, d.bounds.width, d.bounds.height].map(rounded),
            })
            .collect();
        Self { iou: Self::usual_iou(), score: Self::usual_score(), detections }
    }

    /// Says what differs, in words. Each detection answers one expectation at most. One that is expected may be seen
    /// with a score below its threshold, and one that is not expected may be seen above it, by the tolerance.
    pub fn compare(&self, found: &[Detection], thresholds: &Thresholds) -> Result<(), String> {
        let mut unclaimed: Vec<&Detection> = found.iter().collect();
        for expected in &self.detections {
            let [left, top, width, height] = expected.bounds;
            let bounds = Rect { left, top, width, height };
            let answers = |d: &Detection| {
                d.class == expected.class
                    && (d.score - expected.score).abs() <= self.score
                    && d.bounds.iou(&bounds) >= self.iou
            };
            let Some(place) = unclaimed.iter().position(|d| answers(d)) else {
                let same = found.iter().filter(|d| d.class == expected.class);
                let nearest = same.max_by(|a, b| a.bounds.iou(&bounds).total_cmp(&b.bounds.iou(&bounds)));
                let nearest = nearest.map_or("none of that class was seen".to_owned(), |d| {
                    format!(
                        "the nearest has score {:.2} and overlaps by {:.2}",
                        d.score,
                        d.bounds.iou(&bounds)
                    )
                });
                return Err(format!(
                    "a {} with score {:.2} at {:.2}, {:.2} is expected; {nearest}",
                    expected.class, expected.score, left, top
                ));
            };
            unclaimed.remove(place);
        }
        let surplus: Vec<_> =
            unclaimed.into_iter().filter(|d| d.score >= thresholds.of(d.class) + self.score).collect();
        match surplus.first() {
            None => Ok(()),
            Some(first) => Err(format!(
                "{} that are not expected were seen, the first a {} with score {:.2} at {:.2}, {:.2}",
                surplus.len(),
                first.class,
                first.score,
                first.bounds.left,
                first.bounds.top
            )),
        }
    }
}

/// A decoded picture that owns its planes: I420, full range, BT.601, as JFIF has it.
#[derive(Clone, Debug)]
pub struct Picture {
    width: u32,
    height: u32,
    planes: [Vec<u8>; 3],
}

impl Picture {
    /// Decodes a colour JPEG of at most [`PICTURE_MAX_SIDE`] pixels a side.
    pub fn decode(jpeg: &[u8]) -> Result<Self, GoldenError> {
        let options = DecoderOptions::new_safe()
            .set_max_width(PICTURE_MAX_SIDE)
            .set_max_height(PICTURE_MAX_SIDE)
            .jpeg_set_out_colorspace(ColorSpace::YCbCr);
        let mut decoder = JpegDecoder::new_with_options(ZCursor::new(jpeg), options);
        let pixels = decoder.decode().map_err(|error| GoldenError::Jpeg(format!("{error:?}")))?;
        let (width, height) =
            decoder.info().map_or((0, 0), |info| (info.width as usize, info.height as usize));
        if width == 0 || height == 0 || pixels.len() != width * height * 3 {
            return Err(GoldenError::Jpeg("it is no picture in colour".into()));
        }
        let channel = |x: usize, y: usize, channel: usize| pixels[(y * width + x) * 3 + channel];
        let luma = pixels.iter().step_by(3).copied().collect();
        // Of each square of four pixels the mean, the last column and row of an odd size once more.
        let chroma = |of: usize| {
            let mut plane = Vec::with_capacity(width.div_ceil(2) * height.div_ceil(2));
            for y in (0..height).step_by(2) {
                for x in (0..width).step_by(2) {
                    let (right, below) = ((x + 1).min(width - 1), (y + 1).min(height - 1));
                    let sum: u32 = [(x, y), (right, y), (x, below), (right, below)]
                        .into_iter()
                        .map(|(x, y)| u32::from(channel(x, y, of)))
                        .sum();
                    plane.push(((sum + 2) / 4) as u8);
                }
            }
            plane
        };
        Ok(Self { width: width as u32, height: height as u32, planes: [luma, chroma(1), chroma(2)] })
    }

    /// The picture as a detector takes it.
    pub fn view(&self) -> Result<FrameView<'_>, FrameError> {
        let half = self.width.div_ceil(2) as usize;
        let strides = [self.width as usize, half, half];
        let [y, u, v] = &self.planes;
        let planes = [y, u, v].map(Vec::as_slice);
        let planes: Vec<_> =
            planes.into_iter().zip(strides).map(|(data, stride)| Plane { data, stride }).collect();
        FrameView::new(self.width, self.height, PixelFormat::I420, Colour::Bt601, true, &planes)
    }
}

/// Picture or expectation cannot be read.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum GoldenError {
    #[error("the picture is no JPEG that can be read: {0}")]
    Jpeg(String),
    #[error("what is expected cannot be read: {0}")]
    Json(#[from] serde_json::Error),
    #[error("what is expected has a number outside 0 to 1")]
    Range,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(class: ObjectClass, score: f32, left: f32) -> Detection {
        Detection { class, score, bounds: Rect { left, top: 0.2, width: 0.1, height: 0.4 } }
    }

    #[test]
    fn what_differs_is_named() {
        use ObjectClass::{Car, Person};
        let thresholds = Thresholds::default();
        let both = [seen(Person, 0.8, 0.1), seen(Car, 0.6, 0.5)];
        let expected = Expected::of(&both, &thresholds);
        for (found, verdict) in [
            (vec![seen(Car, 0.6, 0.5), seen(Person, 0.8, 0.1)], ""),
            (vec![seen(Person, 0.75, 0.105), seen(Car, 0.51, 0.5)], ""),
            (vec![seen(Person, 0.8, 0.1), seen(Car, 0.6, 0.5), seen(Car, 0.55, 0.8)], ""), // within the tolerance
            (vec![], "a person with score 0.80 at 0.10, 0.20 is expected; none of that class"),
            (vec![seen(Person, 0.8, 0.1)], "a car with score 0.60"),
            (vec![seen(Person, 0.8, 0.1), seen(Person, 0.6, 0.5)], "a car with score 0.60"),
            (
                vec![seen(Person, 0.6, 0.1), seen(Car, 0.6, 0.5)],
                "the nearest has score 0.60 and overlaps by 1.00",
            ),
            (vec![seen(Person, 0.8, 0.2), seen(Car, 0.6, 0.5)], "overlaps by 0.00"),
            (
                vec![seen(Person, 0.8, 0.1), seen(Car, 0.6, 0.5), seen(Car, 0.9, 0.7), seen(Car, 0.8, 0.8)],
                "2 that are not expected were seen, the first a car with score 0.90",
            ),
        ] {
            let said = expected.compare(&found, &thresholds).err().unwrap_or_default();
            assert!(
                said.contains(verdict) && said.is_empty() == verdict.is_empty(),
                "{said:?} is not {verdict:?}"
            );
        }
    }

    #[test]
    fn an_expectation_is_read_back_and_one_out_of_range_is_refused() {
        let expected = Expected::of(&[seen(ObjectClass::Dog, 0.7, 0.3)], &Thresholds::default());
        let json = serde_json::to_vec(&expected).unwrap();
        assert_eq!(Expected::parse(&json).unwrap(), expected);
        for wrong in [
            &b"{"[..],
            br#"{"detections":[{"class":"face","score":0.5,"box":[0,0,1,1]}]}"#,
            br#"{"detections":[{"class":"dog","score":1.5,"box":[0,0,1,1]}]}"#,
            br#"{"detections":[],"iou":-1}"#,
            br#"{"detections":[],"names":[]}"#,
        ] {
            assert!(Expected::parse(wrong).is_err(), "{}", String::from_utf8_lossy(wrong));
        }
    }

    #[test]
    fn a_jpeg_becomes_planes_and_rubbish_an_error() {
        let rgb: Vec<u8> = (0..33 * 17).flat_map(|_| [250, 10, 10]).collect();
        let mut jpeg = Vec::new();
        jpeg_encoder::Encoder::new(&mut jpeg, 95).encode(&rgb, 33, 17, jpeg_encoder::ColorType::Rgb).unwrap();
        let picture = Picture::decode(&jpeg).unwrap();
        let view = picture.view().unwrap();
        assert_eq!((view.width(), view.height()), (33, 17));
        let [y, u, v] = [0, 1, 2].map(|plane| view.planes()[plane].data[0]);
        assert!((80..=84).contains(&y) && u < 90 && v > 230, "red, not {y} {u} {v}");
        for rubbish in [&[][..], b"not a picture", &jpeg[..20]] {
            assert!(Picture::decode(rubbish).is_err());
        }
    }
}
