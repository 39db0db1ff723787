//! Tracker and rules of one camera.

use crate::Moment;
use crate::detection::{Detection, Thresholds};
use crate::rules::{Incident, IntrusionRule};

/// What one camera watches for.
#[derive(Clone, Debug)]
pub struct SceneOptions {
    /// The scores that count, per class.
    pub thresholds: Thresholds,
    /// The rules; an incident names one by its index.
    pub rules: Vec<IntrusionRule>,
    /// The site's time zone.
    pub time_zone: jiff::tz::TimeZone,
}

/// The memory of one camera: who is where for how long, as far as rules need it.
pub struct Scene {}

impl Scene {
    /// An empty scene.
    pub fn new(_options: SceneOptions) -> Self {
        todo!()
    }

    /// Takes what one frame showed, and says which rules it broke. Frames come in the order of time.
    pub fn observe(&mut self, _now: Moment, _detections: &[Detection]) -> Vec<Incident> {
        todo!()
    }
}
