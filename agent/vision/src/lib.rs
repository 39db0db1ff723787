//! Pixels to incidents: what a camera's decoder delivers becomes detections, tracks and, by rules, incidents.
//!
//! # Layout
//!
//! In the order in which a frame passes through:
//!
//! - [`frame`]: the decoder's planes, borrowed and checked;
//! - [`geometry`]: points, rectangles and polygons in 0..1 of the picture;
//! - [`motion`]: whether anything changed, in a miniature of the luma: what wakes a camera, and lets it sleep;
//! - [`tamper`]: whether the camera shows what it usually does, or somebody covered, blurred, turned or froze it;
//! - [`letterbox`]: planes to the model's tensor, masked places never written to it;
//! - [`attention`]: which parts of a frame to look at closely, or the whole; [`packing`]: such parts in one tensor;
//! - [`model`]: a model's file, its manifest, and the contract that both must keep;
//! - [`settings`]: how a model is run: threads, what runs it, memory;
//! - [`onnx`]: ONNX Runtime, loaded at run time; the only file that names it. `graph_cache`: what it makes of a graph, on disk;
//! - [`tensor`]: what a graph yields: the joint between inference and layout decoding;
//! - [`layout`]: which layout that is, and output tensors to candidate boxes, one plain function per layout;
//! - [`nms`]: many boxes of one object to one;
//! - [`detection`]: what a frame's hops yield, and the scores that count;
//! - [`look`]: what a look at a frame yields, with whoever else may be in it;
//! - [`detector`]: the hops up to here, joined;
//! - [`golden`]: what a model has to see in pictures that travel with it;
//! - [`track`]: detections of one object over time, within one camera and one visit;
//! - [`schedule`]: when a rule is awake;
//! - [`rules`]: tracks to incidents, one file per kind of rule;
//! - [`scene`]: tracker and rules of one camera;
//! - [`evidence`]: the one picture of an incident that may leave the box, redacted.
//!
//! # Invariants
//!
//! - Nothing here reads a clock or touches the network; [`Moment`] is an argument. Files are read in [`model`],
//!   [`onnx`] and `graph_cache` only.
//! - Nothing here can say who somebody is: [`model`] refuses models that could, a track has no appearance, and
//!   [`evidence`] pixelates every head without a switch.
//! - A number that is not finite never leaves [`detector`].

#![forbid(unsafe_code)]

pub mod attention;
pub mod detection;
pub mod detector;
pub mod evidence;
pub mod frame;
pub mod geometry;
pub mod golden;
mod graph_cache;
pub mod layout;
pub mod letterbox;
pub mod look;
mod mask;
pub mod model;
pub mod motion;
pub mod nms;
pub mod onnx;
pub mod packing;
mod resample;
pub mod rules;
pub mod scene;
pub mod schedule;
pub mod settings;
pub mod tamper;
pub mod tensor;
#[cfg(test)]
mod testing;
pub mod track;
mod yuv;

use std::time::Duration;

pub use attention::Attention;
pub use detection::{DetectError, Detection, Thresholds};
pub use detector::{Detector, Glance};
pub use evidence::{EVIDENCE_MAX_BYTES, EVIDENCE_MIN_BYTES, EvidenceError, Redacted, THUMBNAIL_MAX_BYTES};
pub use frame::{Colour, FrameView, PixelFormat, Plane};
pub use geometry::{Point, Polygon, Rect};
pub use look::Look;
pub use model::{Inspection, ModelError, ModelInfo};
pub use motion::{Background, Change, Miniature};
pub use onnx::{Interrupt, OnnxError, Runtime, TELEMETRY_OFF};
pub use packing::Object;
pub use rules::{Incident, Rule, RuleKind, RuleState};
pub use scene::{Scene, SceneOptions};
pub use schedule::Schedule;
pub use settings::{DetectorOptions, Provider};
use sharp_eyes_protocol::alert::ClockTrust;
pub use tamper::{Impression, Tamper, TamperOptions};

/// When a frame was taken, by both of the box's clocks.
///
/// Durations (dwell, cooldown, gaps) are measured on the monotonic clock, because the wall clock of a village
/// box jumps when it first finds a time server; schedules and alerts need the wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Time since any fixed start; never goes back.
    pub monotonic: Duration,
    /// The box's wall clock at the same moment.
    pub wall: jiff::Timestamp,
    /// How far that could be trusted when it was read.
    pub clock: ClockTrust,
    /// Whether it is known to be wrong, in 1970 say: nobody knows what time of the day it is.
    pub wrong: bool,
}

impl Moment {
    /// Of a wall clock that is right.
    pub fn new(monotonic: Duration, wall: jiff::Timestamp) -> Self {
        Self { monotonic, wall, clock: ClockTrust::Synced, wrong: false }
    }
}
