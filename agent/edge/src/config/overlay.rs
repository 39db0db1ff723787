//! What may be said from outside: some sections, in the words of the file itself.

use std::sync::Arc;

use sharp_eyes_vision::schedule::Dates;

use super::calendar;
use super::camera::{self, CameraConfig};
use super::reader::{Document, Problem, Section};
use super::{BrokerConfig, Config, DeliveryConfig, brokers, delivery, escalation};
use crate::escalation::Escalation;

/// Sections of the file that are never said from outside: who the box is, whom it trusts, where its state lies, what it runs.
const OWN: [&str; 6] = ["site", "state", "detector", "models", "remote", "metrics"];

/// Sections that take the place of those of the box's own file. What is not there leaves that as it is.
#[derive(Clone, Debug)]
pub struct Overlay {
    brokers: Option<Vec<BrokerConfig>>,
    delivery: Option<DeliveryConfig>,
    escalation: Option<Escalation>,
    holidays: Option<Arc<[Dates]>>,
    cameras: Option<Vec<CameraConfig>>,
}

impl Overlay {
    /// Reads a text, or says all that is wrong with it in the order of the text.
    pub fn parse(text: &str) -> Result<Self, Vec<Problem>> {
        Document::read(text, read)
    }

    /// The box's own configuration with what is said here.
    pub fn over(&self, own: &Config) -> Config {
        let Self { brokers, delivery, escalation, holidays, cameras } = self.clone();
        let holidays = holidays.or_else(|| own.holidays.clone());
        let mut cameras = cameras.unwrap_or_else(|| own.cameras.clone());
        holidays.iter().for_each(|holidays| calendar::tell(&mut cameras, holidays));
        Config {
            brokers: brokers.unwrap_or_else(|| own.brokers.clone()),
            delivery: delivery.unwrap_or_else(|| own.delivery.clone()),
            escalation: escalation.unwrap_or_else(|| own.escalation.clone()),
            holidays,
            cameras,
            ..own.clone()
        }
    }
}

fn read(root: Section<'_>) -> Option<Overlay> {
    for key in OWN {
        root.refuse(key, "is the box's own: it cannot be changed from outside");
    }
    let brokers = if root.has("broker") { brokers(&root).map(Some) } else { Some(None) };
    let delivery = root.read_section("delivery", delivery);
    let escalation = root.read_section("escalation", escalation);
    let holidays = root.read_section("calendar", calendar::holidays);
    let cameras = if root.has("camera") { camera::cameras(&root).map(Some) } else { Some(None) };
    for key in ["broker", "camera"] {
        root.known(key);
    }
    if root.is_empty() {
        root.problem(
            "",
            "says nothing; expected [broker], [delivery], [escalation], [calendar] or [[camera]]",
        );
    }
    root.finish();
    Some(Overlay {
        brokers: brokers?,
        delivery: delivery?,
        escalation: escalation?,
        holidays: holidays?,
        cameras: cameras?,
    })
}
