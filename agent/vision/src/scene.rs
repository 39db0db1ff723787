//! Tracker and rules of one camera.

use crate::Moment;
use crate::detection::{Detection, Thresholds};
use crate::rules::{Incident, Intrusion, IntrusionRule};
use crate::track::{Track, Tracker};

/// What one camera watches for.
#[derive(Clone, Debug)]
pub struct SceneOptions {
    /// The scores that count, per class: the model's.
    pub thresholds: Thresholds,
    /// The rules; an incident names one by its index.
    pub rules: Vec<IntrusionRule>,
    /// The site's time zone.
    pub time_zone: jiff::tz::TimeZone,
}

/// The memory of one camera: what is where for how long, as far as rules need it.
#[derive(Clone, Debug)]
pub struct Scene {
    tracker: Tracker,
    rules: Vec<Intrusion>,
    time_zone: jiff::tz::TimeZone,
}

impl Scene {
    /// An empty scene.
    pub fn new(options: SceneOptions) -> Self {
        let rules = options.rules.into_iter().enumerate().map(|(index, rule)| Intrusion::new(index, rule));
        Self {
            tracker: Tracker::new(options.thresholds),
            rules: rules.collect(),
            time_zone: options.time_zone,
        }
    }

    /// Takes what one frame showed, best score first, and says which rules it broke. Frames come in the order of
    /// the monotonic clock.
    pub fn observe(&mut self, now: Moment, detections: &[Detection]) -> Vec<Incident> {
        self.tracker.observe(now.monotonic, detections);
        let mut incidents = Vec::new();
        for rule in &mut self.rules {
            rule.observe(now, &self.time_zone, self.tracker.tracks(), &mut incidents);
        }
        incidents
    }

    /// The objects in sight.
    pub fn tracks(&self) -> &[Track] {
        self.tracker.tracks()
    }

    /// How many detections were not tracked because there were too many at once.
    pub fn overflow(&self) -> u64 {
        self.tracker.overflow()
    }
}
