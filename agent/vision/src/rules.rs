//! Tracks to incidents.

use std::time::Duration;

use sharp_eyes_protocol::alert::AlertKind;
use sharp_eyes_protocol::class::ObjectClass;
use sharp_eyes_protocol::level::Severity;
use sharp_eyes_protocol::topic::Name;

use crate::Moment;
use crate::geometry::{Polygon, Rect};
use crate::schedule::Schedule;

/// Something of these classes stands in this zone for this long while the rule is awake.
#[derive(Clone, Debug)]
pub struct IntrusionRule {
    /// The rule's own name.
    pub name: Name,
    /// The zone's name, for the operator.
    pub zone: Name,
    /// The zone.
    pub polygon: Polygon,
    /// What must not be there.
    pub classes: Vec<ObjectClass>,
    /// How long it must stay.
    pub dwell: Duration,
    /// How long the rule is silent after an alert.
    pub cooldown: Duration,
    /// How bad it is.
    pub severity: Severity,
    /// When the rule is awake.
    pub schedule: Schedule,
    /// A higher bar than the model's threshold.
    pub min_score: Option<f32>,
    /// Whether a picture is wanted.
    pub evidence: bool,
}

/// A rule was broken.
#[derive(Clone, Debug, PartialEq)]
pub struct Incident {
    /// Index of the rule in the scene's list.
    pub rule: usize,
    /// What kind of rule it was.
    pub kind: AlertKind,
    /// How bad it is.
    pub severity: Severity,
    /// Where.
    pub zone: Name,
    /// What was seen.
    pub class: ObjectClass,
    /// How sure the model is, 0 to 1.
    pub confidence: f32,
    /// Where it is now, in 0..1 of the picture.
    pub bounds: Rect,
    /// The track, unique within the scene's life.
    pub track: u64,
    /// When it was decided.
    pub at: Moment,
    /// Whether the rule wants a picture.
    pub evidence: bool,
}
