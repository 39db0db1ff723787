//! The message that an operator answers: one CloudEvents 1.0 JSON object of at most 600 bytes.

use std::fmt;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::class::ObjectClass;
use crate::level::{Level, Severity};
use crate::topic::{Name, Site};

/// Longest alert on the wire, in bytes. Links are slow and paid by volume.
pub const ALERT_MAX_BYTES: usize = 600;

/// An alert in CloudEvents 1.0 structured mode.
///
/// `id` names the alert for all its life; `sequence` numbers the messages of a box without a gap over restarts,
/// so that a reader proves that nothing is missing. A reader drops what it has by `source` and `sequence`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Alert {
    /// Version of CloudEvents.
    pub specversion: SpecVersion,
    /// A UUIDv7: [`Alert::time`] in milliseconds, and 74 random bits.
    pub id: Uuid,
    /// The box: the root of its topics.
    pub source: String,
    /// What became of the alert.
    #[serde(rename = "type")]
    pub event: AlertEvent,
    /// `camera/zone`.
    pub subject: String,
    /// When the frame arrived that decided the incident, by the box's clock; see [`AlertData::clock`].
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub time: Timestamp,
    /// The number of this message among all of the box: 20 decimal digits, so that it sorts as text too, as the
    /// CloudEvents extension "sequence" asks.
    #[schemars(with = "String", regex(pattern = r"^[0-9]{20}$"))]
    #[serde(with = "sequence")]
    pub sequence: u64,
    /// What happened, where.
    pub data: AlertData,
}

impl Alert {
    /// A new alert, at the level that its severity names.
    ///
    /// Seconds are cut to milliseconds and fractions to three places, to keep within [`ALERT_MAX_BYTES`].
    pub fn raised(site: &Site, id: Uuid, sequence: u64, time: Timestamp, mut data: AlertData) -> Self {
        data.confidence = three_places(data.confidence);
        data.bounds = data.bounds.map(three_places);
        let subject = match &data.zone {
            Some(zone) => format!("{}/{zone}", data.camera),
            None => data.camera.to_string(),
        };
        Self {
            specversion: SpecVersion::V1,
            id,
            source: site.to_string(),
            event: AlertEvent::Raised,
            subject,
            time: time
                .round(
                    jiff::TimestampRound::new()
                        .smallest(jiff::Unit::Millisecond)
                        .mode(jiff::RoundMode::Trunc),
                )
                .unwrap_or(time),
            sequence,
            data,
        }
    }

    /// The message as it is published.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("an alert holds nothing that JSON cannot say")
    }
}

fn three_places(value: f32) -> f32 {
    (value * 1000.0).round() / 1000.0
}

/// The `type` of the CloudEvent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AlertEvent {
    /// Seen for the first time.
    #[serde(rename = "sharp-eyes.alert.raised.v1")]
    Raised,
    /// It got worse.
    #[serde(rename = "sharp-eyes.alert.updated.v1")]
    Updated,
    /// Nobody answered: the next level is called.
    #[serde(rename = "sharp-eyes.alert.escalated.v1")]
    Escalated,
    /// It is over.
    #[serde(rename = "sharp-eyes.alert.ended.v1")]
    Ended,
}

/// CloudEvents' `specversion`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SpecVersion {
    /// CloudEvents 1.0.
    #[serde(rename = "1.0")]
    V1,
}

/// What happened, where.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AlertData {
    /// Which rule was broken.
    pub kind: AlertKind,
    /// How bad it is.
    pub severity: Severity,
    /// Who is called.
    pub level: Level,
    /// The camera that saw it.
    pub camera: Name,
    /// Where in the picture: column A to H from the left, row 1 to 6 from the top.
    #[schemars(regex(pattern = "^[A-H][1-6]$"))]
    pub cell: String,
    /// The zone, where the rule has one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub zone: Option<Name>,
    /// What was seen, where the rule is about an object.
    #[serde(rename = "class", skip_serializing_if = "Option::is_none", default)]
    pub class: Option<ObjectClass>,
    /// The detector's mean score over the time that the rule looked at, 0 to 1.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub confidence: f32,
    /// Left, top, width and height, 0 to 1 of the picture.
    #[serde(rename = "box")]
    pub bounds: [f32; 4],
    /// The model that saw it.
    pub model: ModelName,
    /// How far `time` can be trusted.
    pub clock: ClockTrust,
    /// Whether a redacted picture follows on the topic `evidence/{id}`.
    pub evidence: bool,
}

/// The cell of the 8 by 6 grid that a point (0 to 1) lies in: `A1` is top left, `H6` bottom right.
pub fn grid_cell(x: f32, y: f32) -> String {
    let step = |value: f32, steps: u8| ((value.clamp(0.0, 1.0) * f32::from(steps)) as u8).min(steps - 1);
    format!("{}{}", char::from(b'A' + step(x, 8)), step(y, 6) + 1)
}

/// A model by name and version: `village-detector@1.0.0` on the wire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String", extend("pattern" = "^[a-z0-9-]{1,16}@[a-z0-9.+-]{1,12}$"))]
pub struct ModelName {
    /// As its manifest says.
    pub name: Name,
    /// As its manifest says: 1 to 12 characters.
    pub version: String,
}

/// Longest version of a model, in bytes.
pub const VERSION_MAX: usize = 12;

/// The text is no [`ModelName`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "{0:?} is no model: expected name@version, the version in 1 to 12 of a-z, 0-9, \"-\", \"+\" and \".\""
)]
pub struct BadModelName(pub String);

impl ModelName {
    /// Checks the version and joins it to the name.
    pub fn new(name: Name, version: impl Into<String>) -> Result<Self, BadModelName> {
        let version = version.into();
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-+.".contains(&b);
        if (1..=VERSION_MAX).contains(&version.len()) && version.bytes().all(plain) {
            Ok(Self { name, version })
        } else {
            Err(BadModelName(format!("{name}@{version}")))
        }
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.name, self.version)
    }
}

impl TryFrom<String> for ModelName {
    type Error = BadModelName;

    fn try_from(text: String) -> Result<Self, BadModelName> {
        let parts = text.split_once('@').and_then(|(name, version)| Some((Name::new(name).ok()?, version)));
        match parts {
            Some((name, version)) => Self::new(name, version),
            None => Err(BadModelName(text)),
        }
    }
}

impl From<ModelName> for String {
    fn from(model: ModelName) -> String {
        model.to_string()
    }
}

/// Which rule was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AlertKind {
    /// Something stayed in a zone where it should not be.
    Intrusion,
}

/// How far a box's wall clock can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ClockTrust {
    /// The kernel says that the clock is synchronised.
    Synced,
    /// It is not, or not yet.
    Unsynced,
    /// It jumped since the agent started.
    Stepped,
}

mod sequence {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(value: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{value:020}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.len() != 20 {
            return Err(D::Error::custom(format_args!("sequence {text:?} has not 20 digits")));
        }
        text.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn longest() -> Alert {
        let name = || Name::new("x".repeat(crate::topic::NAME_MAX)).unwrap();
        let site = Site { district: name(), township: name(), village: name(), box_name: name() };
        let data = AlertData {
            kind: AlertKind::Intrusion,
            severity: Severity::Critical,
            level: Level::Township,
            camera: name(),
            cell: "H6".into(),
            zone: Some(name()),
            class: Some(ObjectClass::Motorcycle),
            confidence: 0.98712,
            bounds: [0.12345, 0.12345, 0.12345, 0.12345],
            model: ModelName::new(name(), "x".repeat(VERSION_MAX)).unwrap(),
            clock: ClockTrust::Unsynced,
            evidence: false,
        };
        let time = "2026-11-23T20:31:01.123456Z".parse().unwrap();
        let mut alert = Alert::raised(&site, Uuid::nil(), u64::MAX, time, data);
        alert.event = AlertEvent::Escalated;
        alert
    }

    #[test]
    fn the_longest_alert_fits_and_comes_back_the_same() {
        let json = longest().to_json();
        assert!(json.len() <= ALERT_MAX_BYTES, "{} bytes: {json}", json.len());
        assert_eq!(serde_json::from_str::<Alert>(&json).unwrap(), longest());
    }

    #[test]
    fn a_field_that_nobody_agreed_on_is_refused() {
        let json = longest().to_json().replace("\"cell\"", "\"face\":\"x\",\"cell\"");
        assert!(serde_json::from_str::<Alert>(&json).is_err());
    }

    #[test]
    fn the_grid_covers_the_picture_and_no_more() {
        for (x, y, cell) in [(0.0, 0.0, "A1"), (1.0, 1.0, "H6"), (0.5, 0.5, "E4"), (-1.0, 2.0, "A6")] {
            assert_eq!(grid_cell(x, y), cell);
        }
    }
}
