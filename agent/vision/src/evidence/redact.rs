//! The privacy boundary: the one way from a camera's pixels to a JPEG.

use jpeg_encoder::{ColorType, Encoder, SamplingFactor};

use super::EvidenceError;
use super::pixels::{BLACK, Pixels, Region};
use crate::detection::{Detection, has_head};
use crate::frame::{FrameView, Plane};
use crate::geometry::{Polygon, Rect};
use crate::mask::{self, Span};
use crate::packing::Area;
use crate::resample::Resampler;
use crate::rules::Incident;
use crate::yuv::Scaler;

/// Long side in pixels of the picture that everything else is made from.
const LONG_SIDE: u32 = 1280;

/// A head region becomes at most this many blocks on a side. A face is a third of the region's width: one block or
/// two, out of which no face can be restored.
const BLOCKS: usize = 4;

/// Least side of a block in pixels, for heads that are only a few blocks of that size themselves.
const BLOCK_MIN: usize = 6;

/// Part of its sides by which a head region is widened, but for the lower one: boxes cut off hair and ears.
const WIDENED: f32 = 0.15;

/// How many times over a picture may be pixelated for single heads, a tenth of a second of a server's core. Nothing but a
/// wall of faces comes near it.
const WORK_MAX: usize = 64;

/// A frame after its redaction: what masks cover is black, and the head of everybody who was detected, however
/// faintly, is pixelated; all of it where nobody can be detected.
///
/// [`Redacted::of`] is the only way to make one out of a frame, and nothing else can be encoded. It owns its pixels,
/// so that they may be encoded later and on another thread.
pub struct Redacted {
    pixels: Pixels,
    /// What the incident is about, in 0..1 of the picture; it may reach beyond it.
    bounds: Option<Rect>,
    label: String,
}

impl Redacted {
    /// Redacts a frame, of which at most 1280 pixels on the long side remain.
    ///
    /// `everybody` are all detections of the frame, faint ones too: the head region of every person among them is
    /// pixelated, that of the incident also, and what `masks` cover is black. `None` where the model knows no people, or
    /// there are more than can be told apart: the whole picture becomes as coarse as a head, as it does where heads fill
    /// it over and over. Without an incident it is a snapshot. The label is drawn in
    /// ASCII; other characters become `?`; an empty one is not drawn.
    pub fn of(
        frame: &FrameView<'_>,
        masks: &[Polygon],
        everybody: Option<&[Detection]>,
        incident: Option<&Incident>,
        label: &str,
    ) -> Self {
        let (width, height) = shrunk((frame.width(), frame.height()), LONG_SIDE);
        let mut pixels = converted(frame, width, height);
        let seen = everybody.into_iter().flatten().map(|detection| (detection.class, detection.bounds));
        let of_incident = incident.map(|incident| (incident.class, incident.bounds));
        let heads = of_incident.into_iter().chain(seen).filter(|(class, _)| has_head(*class));
        // Masks go on before the heads, so that no block takes its colour from below a mask, and again after them,
        // so that none spreads into one.
        let masks = mask::spans(masks, width, height);
        black_out(&mut pixels, &masks);
        let regions = regions(&pixels, heads.map(|(_, person)| person));
        for &head in regions.iter().flatten() {
            pixelate(&mut pixels, head);
        }
        if everybody.is_none() || regions.is_none() {
            let whole = pixels.whole();
            pixelate(&mut pixels, whole);
        }
        black_out(&mut pixels, &masks);
        Self { pixels, bounds: incident.map(|incident| incident.bounds), label: label.to_owned() }
    }

    /// Width, height and rows of RGB, top first: for whoever draws on it.
    pub fn rgb(&self) -> (u32, u32, &[u8]) {
        let Pixels { width, height, rgb } = &self.pixels;
        (*width as u32, *height as u32, rgb) // at most LONG_SIDE each
    }

    /// Where the incident is, unless it is a snapshot.
    pub(super) fn bounds(&self) -> Option<Rect> {
        self.bounds
    }

    /// All of its pixels.
    pub(super) fn whole(&self) -> Region {
        self.pixels.whole()
    }

    /// A part of it, with its long side at most `long_side`; never larger than it is.
    pub(super) fn section(&self, part: Region, long_side: u32) -> Self {
        let (columns, rows) = (part.width() as u32, part.height() as u32);
        let (width, height) = shrunk((columns, rows), long_side);
        let cut = if part == self.whole() { None } else { Some(self.pixels.cut(part)) };
        let pixels = if (width, height) == (columns, rows) {
            cut.unwrap_or_else(|| self.pixels.clone())
        } else {
            resized(cut.as_ref().unwrap_or(&self.pixels), width, height)
        };
        let (across, down) = (
            self.pixels.width as f32 / part.width() as f32,
            self.pixels.height as f32 / part.height() as f32,
        );
        let bounds = self.bounds.map(|bounds| Rect {
            left: bounds.left * across - part.left as f32 / part.width() as f32,
            top: bounds.top * down - part.top as f32 / part.height() as f32,
            width: bounds.width * across,
            height: bounds.height * down,
        });
        Self { pixels, bounds, label: self.label.clone() }
    }

    /// Draws the incident's box and, if wanted, the label.
    pub(super) fn annotated(mut self, with_label: bool) -> Self {
        let region = self.bounds.map(|bounds| self.pixels.outline(bounds));
        if with_label {
            self.pixels.label(&self.label, region);
        }
        self
    }

    /// Encodes it with half the colour resolution, which is what the camera sent: a tenth to a quarter smaller.
    ///
    /// Huffman tables of its own would save as much again, but with them the encoder writes a scan for each
    /// component, which is legal and yet drawn in wrong colours by a decoder in wide use (zune-jpeg 0.5.15).
    pub(super) fn jpeg(&self, quality: u8) -> Result<Vec<u8>, EvidenceError> {
        let mut jpeg = Vec::new();
        let mut encoder = Encoder::new(&mut jpeg, quality);
        encoder.set_sampling_factor(SamplingFactor::R_4_2_0);
        let Pixels { width, height, rgb } = &self.pixels;
        encoder
            .encode(rgb, *width as u16, *height as u16, ColorType::Rgb) // at most LONG_SIDE each
            .map_err(|source| EvidenceError::Encode { width: *width, height: *height, source })?;
        Ok(jpeg)
    }
}

/// The size of a picture whose long side is at most `long_side`; never larger than it is.
fn shrunk((width, height): (u32, u32), long_side: u32) -> (u32, u32) {
    let longer = width.max(height);
    if longer <= long_side {
        return (width, height);
    }
    let side = |side: u32| ((u64::from(side) * u64::from(long_side) / u64::from(longer)) as u32).max(1);
    (side(width), side(height))
}

fn converted(frame: &FrameView<'_>, width: u32, height: u32) -> Pixels {
    let mut scaler = Scaler::default();
    let planes = scaler.scale(frame, Area::all_of(frame.width(), frame.height()), width, height);
    let mut rgb = vec![0; planes.y.len() * 3];
    let yuv = planes.y.iter().zip(planes.u).zip(planes.v);
    for (pixel, ((&y, &u), &v)) in rgb.chunks_exact_mut(3).zip(yuv) {
        // Not `round`, which is a call of the C library on processors without an instruction for it.
        pixel.copy_from_slice(&planes.matrix.rgb(y, u, v).map(|channel| (channel + 0.5) as u8));
    }
    Pixels { width: width as usize, height: height as usize, rgb }
}

fn resized(source: &Pixels, width: u32, height: u32) -> Pixels {
    let pixels = width as usize * height as usize;
    let [mut red, mut green, mut blue] = [(); 3].map(|()| vec![0; pixels]);
    let plane = Plane { data: &source.rgb, stride: 3 * source.width };
    let whole = Area::all_of(source.width as u32, source.height as u32);
    Resampler::default().resample(plane, whole, (width, height), [&mut red, &mut green, &mut blue]);
    let rgb = red.into_iter().zip(green).zip(blue).flat_map(|((red, green), blue)| [red, green, blue]);
    Pixels { width: width as usize, height: height as usize, rgb: rgb.collect() }
}

fn black_out(pixels: &mut Pixels, masks: &[Span]) {
    for span in masks {
        pixels.fill(Region { left: span.from, top: span.row, right: span.to, bottom: span.row + 1 }, BLACK);
    }
}

/// The regions to pixelate so that nobody's head is left. `None` where that is too much work: heads fill the picture
/// over and over.
fn regions(pixels: &Pixels, people: impl Iterator<Item = Rect>) -> Option<Vec<Region>> {
    let mut regions: Vec<Region> = Vec::new();
    let mut left = WORK_MAX * pixels.width * pixels.height;
    for person in people {
        // The many boxes of one person have heads within each other, but for the edge by which each is widened.
        let core = head_region(pixels, person, WIDENED / 2.0);
        if regions.iter().any(|region| region.contains(core)) {
            continue;
        }
        let head = head_region(pixels, person, WIDENED);
        left = left.checked_sub(head.width() * head.height())?;
        regions.push(head);
    }
    Some(regions)
}

/// Where the head of a person is. Of a standing person it is the top 30 % of the box; of one who sits, lies or is
/// cut off by the picture's edge, a larger part: three quarters of the box's width covers both. It is widened by a
/// part of its sides.
fn head_region(pixels: &Pixels, person: Rect, widened: f32) -> Region {
    let (columns, rows) = (pixels.width as f32, pixels.height as f32);
    let (width, height) = (person.width * columns, person.height * rows);
    let tall = (0.3 * height).max((0.75 * width).min(height));
    let (left, top) = (person.left * columns, person.top * rows);
    let (beside, above) = (widened * width, widened * tall);
    pixels.region(left - beside, top - above, left + width + beside, top + tall)
}

fn pixelate(pixels: &mut Pixels, region: Region) {
    let block = |side: usize| side.div_ceil(BLOCKS).max(BLOCK_MIN);
    let (across, down) = (block(region.width()), block(region.height()));
    for top in (region.top..region.bottom).step_by(down) {
        for left in (region.left..region.right).step_by(across) {
            let block = Region {
                left,
                top,
                right: (left + across).min(region.right),
                bottom: (top + down).min(region.bottom),
            };
            pixels.fill(block, pixels.mean(block));
        }
    }
}
