//! The pictures that may leave the box: masked, heads pixelated, the incident's box drawn.
//!
//! [`Redacted`] is a frame after its redaction, and the only thing that can be encoded, so that there is no way
//! around it. A thumbnail follows the alert over any link; the large picture takes what the link has to spare. Both
//! are made of the same redacted pixels, and neither shows more than they do.

mod budget;
mod pixels;
mod redact;
#[cfg(test)]
mod tests;

use budget::Step;
use pixels::Region;
pub use redact::Redacted;

/// Largest picture, in bytes. Links are slow and paid by volume.
pub const EVIDENCE_MAX_BYTES: usize = 64 * 1024;

/// The smallest limit that [`Redacted::picture`] keeps: with less, a thumbnail shows more.
pub const EVIDENCE_MIN_BYTES: usize = 12 * 1024;

/// Largest thumbnail, in bytes: 2 s of a link of 24 kbit/s.
pub const THUMBNAIL_MAX_BYTES: usize = 6 * 1024;

/// Long side of the largest thumbnail, in pixels.
const THUMBNAIL_LONG_SIDE: u32 = 320;

/// How many times as wide and as high as the incident a thumbnail's part of the picture is, at least. Of a whole
/// street, 320 pixels leave ten for a person, who cannot be told from a post then.
const SURROUNDINGS: f32 = 2.0;

impl Redacted {
    /// The whole picture, with the incident's box and the label, as a JPEG of at most `max_bytes`.
    ///
    /// Fewer than [`EVIDENCE_MIN_BYTES`] count as these, more than [`EVIDENCE_MAX_BYTES`] as those. The less it may
    /// have, the coarser and then the smaller it is.
    pub fn picture(&self, max_bytes: usize) -> Result<Vec<u8>, EvidenceError> {
        let max_bytes = max_bytes.clamp(EVIDENCE_MIN_BYTES, EVIDENCE_MAX_BYTES);
        self.encode(self.whole(), None, max_bytes)
    }

    /// A JPEG of at most [`THUMBNAIL_MAX_BYTES`] and 320 pixels on the long side: the incident with its box and what
    /// is around it; of a snapshot, the whole picture. It has no label: the alert beside it says the same.
    pub fn thumbnail(&self) -> Result<Vec<u8>, EvidenceError> {
        self.encode(self.surroundings(), Some(THUMBNAIL_LONG_SIDE), THUMBNAIL_MAX_BYTES)
    }

    /// A part as a thumbnail of some size, or as a picture with its label.
    fn encode(
        &self,
        part: Region,
        thumbnail: Option<u32>,
        max_bytes: usize,
    ) -> Result<Vec<u8>, EvidenceError> {
        let longer = part.width().max(part.height()) as f32;
        let long_side = thumbnail.map_or(longer, |side| longer.min(side as f32));
        let pixels = (part.width() * part.height()) as f32 * (long_side / longer).powi(2);
        budget::within(max_bytes, pixels, |Step { scale, quality }| {
            let section = self.section(part, (long_side * scale) as u32);
            section.annotated(thumbnail.is_none()).jpeg(quality)
        })
    }

    /// The part that a thumbnail shows, in the shape of the whole: at least as many pixels as it has, so that
    /// nothing is lost of a far incident that need not be.
    fn surroundings(&self) -> Region {
        let whole = self.whole();
        let Some(bounds) = self.bounds() else { return whole };
        let bounds = bounds.clamped();
        let full_detail = THUMBNAIL_LONG_SIDE as f32 / whole.width().max(whole.height()) as f32;
        let share = (SURROUNDINGS * bounds.width.max(bounds.height)).max(full_detail);
        if share >= 1.0 {
            return whole;
        }
        let span = |middle: f32, side: usize| {
            let length = ((share * side as f32).ceil() as usize).clamp(1, side);
            let start = (middle * side as f32 - length as f32 / 2.0) as usize; // a cast takes negative numbers to 0
            let start = start.min(side - length);
            (start, start + length)
        };
        let centre = bounds.centre();
        let ((left, right), (top, bottom)) = (span(centre.x, whole.width()), span(centre.y, whole.height()));
        Region { left, top, right, bottom }
    }
}

/// No picture could be made.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum EvidenceError {
    #[error("evidence picture of {width}x{height} pixels: {source}")]
    Encode { width: usize, height: usize, source: jpeg_encoder::EncodingError },
    #[error("evidence picture has {bytes} bytes at its smallest, more than the {max_bytes} allowed")]
    TooLarge { bytes: usize, max_bytes: usize },
}
