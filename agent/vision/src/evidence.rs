//! The one picture of an incident that may leave the box: masked, heads pixelated, box and label drawn.

use crate::detection::Detection;
use crate::frame::FrameView;
use crate::geometry::Polygon;
use crate::rules::Incident;

/// Largest picture, in bytes. Links are slow and paid by volume.
pub const EVIDENCE_MAX_BYTES: usize = 64 * 1024;

/// A JPEG of at most [`EVIDENCE_MAX_BYTES`] and 1280 pixels on the long side.
///
/// `detections` are all of the frame, faint ones too: the head region of every person among them is pixelated.
pub fn picture(
    _frame: &FrameView<'_>,
    _masks: &[Polygon],
    _detections: &[Detection],
    _incident: &Incident,
    _label: &str,
) -> Result<Vec<u8>, EvidenceError> {
    todo!()
}

/// No picture could be made.
#[derive(Debug, thiserror::Error)]
pub enum EvidenceError {}
