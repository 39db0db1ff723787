//! The message that an operator answers: one CloudEvents 1.0 JSON object of at most 600 bytes.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::class::ObjectClass;
use crate::level::{Level, Severity};
use crate::topic::{BadName, Name, Site};

/// Longest alert on the wire, in bytes. Links are slow and paid by volume.
pub const ALERT_MAX_BYTES: usize = 600;

/// An alert in CloudEvents 1.0 structured mode.
///
/// `id` names the alert for all its life, from `raised` over `escalated` and `updated` to `ended`; `sequence` numbers
/// the messages of a box without a gap over restarts, so that a reader proves that nothing is missing. A reader drops
/// what it has by `source` and `sequence`.
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
    /// Where it happened.
    pub subject: Subject,
    /// When the frame arrived that decided the incident, by the box's clock; see [`AlertData::clock`]. The same in all
    /// messages about the alert.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub time: Timestamp,
    /// The number of this message among all of the box: 16 decimal digits, so that it sorts as text too, as the
    /// CloudEvents extension "sequence" asks, and so that every language can count with it exactly.
    #[schemars(with = "String", regex(pattern = r"^[0-9]{16}$"))]
    #[serde(with = "sequence")]
    pub sequence: u64,
    /// What happened, where.
    pub data: AlertData,
}

impl Alert {
    /// A new alert.
    ///
    /// Seconds are cut to milliseconds and fractions to three places, to keep within [`ALERT_MAX_BYTES`].
    pub fn raised(
        site: &Site,
        id: Uuid,
        sequence: u64,
        time: Timestamp,
        subject: Subject,
        mut data: AlertData,
    ) -> Self {
        data.round();
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

    /// Nobody answered in time: the same alert at `level`, where it climbs on after `respond_within`.
    pub fn escalated(&self, sequence: u64, level: Level, respond_within: Option<Duration>) -> Self {
        let data = AlertData { level, respond_s: respond_within.map(seconds), ..self.data.clone() };
        Self { event: AlertEvent::Escalated, sequence, data, ..self.clone() }
    }

    /// Somebody answered, or the box gave up waiting: the same alert in its new state, which is not [`AlertState::Open`].
    pub fn answered(&self, sequence: u64, state: AlertState) -> Self {
        let event = if state == AlertState::Acknowledged { AlertEvent::Updated } else { AlertEvent::Ended };
        let data = AlertData { state, respond_s: None, ..self.data.clone() };
        Self { event, sequence, data, ..self.clone() }
    }

    /// It is over by itself: who was seen has left, pictures come again. Where nobody has answered yet, it climbs on after
    /// `respond_within`, unless nobody need look after it any more.
    pub fn over(&self, sequence: u64, respond_within: Option<Duration>) -> Self {
        let mut data = AlertData { over: true, bounds: None, ..self.data.clone() };
        data.respond_s = respond_within.map(seconds);
        if data.kind.clears() && !data.state.is_ended() {
            (data.state, data.respond_s) = (AlertState::Cleared, None);
        }
        Self { event: AlertEvent::Ended, sequence, data, ..self.clone() }
    }

    /// The same alert with what is to be said of it now.
    pub fn updated(&self, sequence: u64, mut data: AlertData) -> Self {
        data.round();
        Self { event: AlertEvent::Updated, sequence, data, ..self.clone() }
    }

    /// The message as it is published.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("an alert holds nothing that JSON cannot say")
    }
}

/// Whole seconds on the wire.
pub fn seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
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
    /// Somebody answered it, or it stands for more.
    #[serde(rename = "sharp-eyes.alert.updated.v1")]
    Updated,
    /// Nobody answered in time: the next level is called, or the highest one once more.
    #[serde(rename = "sharp-eyes.alert.escalated.v1")]
    Escalated,
    /// It is over: by itself ([`AlertData::over`]), or because somebody said so ([`AlertData::state`]).
    #[serde(rename = "sharp-eyes.alert.ended.v1")]
    Ended,
}

/// Where an alert happened: `camera/zone` on the wire, `camera` where the rule has no zone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String", extend("pattern" = "^[a-z0-9-]{1,16}(/[a-z0-9-]{1,16})?$"))]
pub struct Subject {
    /// The camera that saw it.
    pub camera: Name,
    /// The zone, where the rule has one.
    pub zone: Option<Name>,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.zone {
            Some(zone) => write!(f, "{}/{zone}", self.camera),
            None => write!(f, "{}", self.camera),
        }
    }
}

impl TryFrom<String> for Subject {
    type Error = BadName;

    fn try_from(text: String) -> Result<Self, BadName> {
        match text.split_once('/') {
            Some((camera, zone)) => Ok(Self { camera: Name::new(camera)?, zone: Some(Name::new(zone)?) }),
            None => Ok(Self { camera: Name::new(text)?, zone: None }),
        }
    }
}

impl From<Subject> for String {
    fn from(subject: Subject) -> String {
        subject.to_string()
    }
}

/// CloudEvents' `specversion`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SpecVersion {
    /// CloudEvents 1.0.
    #[serde(rename = "1.0")]
    V1,
}

/// What happened, and how it stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AlertData {
    /// Which rule was broken.
    pub kind: AlertKind,
    /// How bad it is.
    pub severity: Severity,
    /// Who is called.
    pub level: Level,
    /// Whether somebody answered; left out while it is open.
    #[serde(skip_serializing_if = "AlertState::is_open", default)]
    pub state: AlertState,
    /// Seconds after this message in which it climbs to the next level (or is repeated, at the highest) unless somebody
    /// acknowledges it; left out where it does not.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub respond_s: Option<u32>,
    /// It is over by itself; left out while it lasts. It still climbs until somebody answers: who was there may have
    /// taken something along.
    #[serde(skip_serializing_if = "is_false", default)]
    pub over: bool,
    /// How many incidents it stands for: a storm of them on one camera becomes one alert, which says this and is otherwise
    /// about the first. Left out where it stands for one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub count: Option<u32>,
    /// What was done to the camera, where the alert is about that.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tampering: Option<Tampering>,
    /// Where in the picture: column A to H from the left, row 1 to 6 from the top. Left out where it is about the camera.
    #[schemars(regex(pattern = "^[A-H][1-6]$"))]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cell: Option<String>,
    /// What was seen, where the rule is about an object.
    #[serde(rename = "class", skip_serializing_if = "Option::is_none", default)]
    pub class: Option<ObjectClass>,
    /// The detector's mean score over the time that the rule looked at, 0 to 1; left out where no detector saw it.
    #[schemars(range(min = 0.0, max = 1.0))]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub confidence: Option<f32>,
    /// Left, top, width and height, 0 to 1 of the picture; left out where there is no one place, and when it is over.
    #[serde(rename = "box", skip_serializing_if = "Option::is_none", default)]
    pub bounds: Option<[f32; 4]>,
    /// The model that saw it; left out where none did.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub model: Option<ModelName>,
    /// How far `time` can be trusted.
    pub clock: ClockTrust,
    /// The box's start that `up_s` counts from: 8 hexadecimal digits of the kernel's boot id.
    #[schemars(regex(pattern = "^[0-9a-f]{8}$"))]
    pub boot: String,
    /// Seconds from that start to `time`. Where `time` is not to be trusted, a health report of the same `boot` that is
    /// `synced` places the alert: `health.time - (health.up_s - up_s)`.
    pub up_s: u32,
    /// Whether redacted pictures follow: a small one on the topic `thumbnail/{id}`, a large one on `evidence/{id}`.
    pub evidence: bool,
}

impl AlertData {
    /// Cuts fractions to three places.
    fn round(&mut self) {
        self.confidence = self.confidence.map(three_places);
        self.bounds = self.bounds.map(|bounds| bounds.map(three_places));
    }
}

fn is_false(value: &bool) -> bool {
    !value
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
    /// Something crossed a line that it should not, or not that way.
    Crossing,
    /// A vehicle stands where it should not.
    StoppedVehicle,
    /// Fire or smoke.
    Hazard,
    /// Somebody has tampered with the camera, or something has: see [`AlertData::tampering`].
    Tampered,
    /// No pictures come from the camera.
    Offline,
}

impl AlertKind {
    /// Whether nobody need look after it once it is over.
    pub fn clears(self) -> bool {
        self == Self::Offline
    }
}

/// What was done to a camera.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Tampering {
    /// Most of the picture shows nothing: a cloth, a hand, paint.
    Covered,
    /// The picture has lost its fine detail.
    Defocused,
    /// The camera shows another place than usually. Rules about places rest meanwhile.
    TurnedAway,
    /// The picture stands still while the stream goes on, but for a clock in it.
    Frozen,
}

impl Tampering {
    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Covered => "covered",
            Self::Defocused => "defocused",
            Self::TurnedAway => "turned-away",
            Self::Frozen => "frozen",
        }
    }
}

impl fmt::Display for Tampering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Whether somebody answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AlertState {
    /// Nobody yet: it climbs.
    #[default]
    Open,
    /// Somebody is looking after it: it stays where it is.
    Acknowledged,
    /// It is over.
    Resolved,
    /// It was nothing; the audit log on the box says why.
    Dismissed,
    /// Nobody ever answered, and the box could keep it open no longer.
    Unanswered,
    /// It was over before anybody resolved it, and nobody need look after it any more.
    Cleared,
}

impl AlertState {
    /// Nobody answered yet.
    pub fn is_open(&self) -> bool {
        *self == Self::Open
    }

    /// Nothing more can happen to it.
    pub fn is_ended(self) -> bool {
        matches!(self, Self::Resolved | Self::Dismissed | Self::Unanswered | Self::Cleared)
    }

    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Acknowledged => "acknowledged",
            Self::Resolved => "resolved",
            Self::Dismissed => "dismissed",
            Self::Unanswered => "unanswered",
            Self::Cleared => "cleared",
        }
    }
}

impl fmt::Display for AlertState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
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
        serializer.collect_str(&format_args!("{value:016}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.len() != 16 {
            return Err(D::Error::custom(format_args!("sequence {text:?} has not 16 digits")));
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
            kind: AlertKind::StoppedVehicle,
            severity: Severity::Critical,
            level: Level::Village,
            state: AlertState::Open,
            respond_s: Some(86_400),
            over: false,
            count: None,
            tampering: None,
            cell: Some("H6".into()),
            class: Some(ObjectClass::Motorcycle),
            confidence: Some(0.98712),
            bounds: Some([0.12345, 0.12345, 0.12345, 0.12345]),
            model: Some(ModelName::new(name(), "x".repeat(VERSION_MAX)).unwrap()),
            clock: ClockTrust::Unsynced,
            boot: "0123abcd".into(),
            up_s: u32::MAX,
            evidence: false,
        };
        let time = "2026-11-23T20:31:01.123456Z".parse().unwrap();
        let subject = Subject { camera: name(), zone: Some(name()) };
        Alert::raised(&site, Uuid::nil(), 9_999_999_999_999_999, time, subject, data)
    }

    #[test]
    fn the_longest_alert_fits_and_comes_back_the_same_in_all_its_life() {
        let raised = longest();
        let within = Some(Duration::from_secs(86_400));
        let climbed = raised.escalated(raised.sequence, Level::Township, within);
        assert_eq!(climbed.data.respond_s, Some(86_400));
        let answered = |state| climbed.answered(raised.sequence, state);
        let over = climbed.over(raised.sequence, within);
        assert!(over.data.over && over.data.state.is_open() && over.data.respond_s.is_some());
        let digest = AlertData { bounds: None, count: Some(99_999), ..raised.data.clone() };
        for alert in [
            raised.clone(),
            climbed.clone(),
            answered(AlertState::Acknowledged),
            answered(AlertState::Resolved),
            answered(AlertState::Dismissed),
            answered(AlertState::Unanswered),
            over.clone(),
            over.escalated(raised.sequence, Level::District, within),
            over.answered(raised.sequence, AlertState::Acknowledged),
            raised.updated(raised.sequence, digest.clone()),
            raised.updated(raised.sequence, digest).answered(raised.sequence, AlertState::Acknowledged),
        ] {
            let json = alert.to_json();
            assert!(json.len() <= ALERT_MAX_BYTES, "{} bytes: {json}", json.len());
            assert_eq!(serde_json::from_str::<Alert>(&json).unwrap(), alert);
            assert_eq!((alert.id, alert.time, &alert.subject), (raised.id, raised.time, &raised.subject));
        }
    }

    #[test]
    fn an_alert_about_the_camera_itself_has_no_place_and_no_detector_and_may_clear() {
        let AlertData { severity, level, clock, boot, up_s, .. } = longest().data;
        let data = AlertData {
            kind: AlertKind::Offline,
            severity,
            level,
            state: AlertState::Open,
            respond_s: None,
            over: false,
            count: None,
            tampering: None,
            cell: None,
            class: None,
            confidence: None,
            bounds: None,
            model: None,
            clock,
            boot,
            up_s,
            evidence: false,
        };
        let alert = Alert { data, ..longest() };
        let json = alert.to_json();
        for absent in ["cell", "class", "confidence", "box", "model", "over", "count", "tampering"] {
            assert!(!json.contains(&format!("\"{absent}\"")), "{json}");
        }
        assert_eq!(serde_json::from_str::<Alert>(&json).unwrap(), alert);
        let over = alert.over(alert.sequence, Some(Duration::from_secs(60)));
        assert_eq!(
            (over.event, over.data.state, over.data.respond_s),
            (AlertEvent::Ended, AlertState::Cleared, None)
        );
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
