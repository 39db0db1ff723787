//! What a replay ends with: a table for people, and JSON for programs.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;
use sharp_eyes_protocol::alert::{AlertKind, ModelName};
use sharp_eyes_protocol::class::ObjectClass;
use sharp_eyes_protocol::level::Severity;
use sharp_eyes_protocol::report::GateHealth;
use sharp_eyes_protocol::topic::Name;
use sharp_eyes_vision::Incident;

/// What became of a clip.
#[derive(Clone, Debug, Serialize)]
pub struct Replayed {
    /// The file's name.
    pub clip: String,
    /// The camera that it was taken for.
    pub camera: Name,
    /// What looked at it.
    pub model: ModelName,
    /// How much of it was played.
    #[serde(rename = "duration_s", serialize_with = "seconds")]
    pub duration: Duration,
    /// How long that took.
    #[serde(rename = "took_s", serialize_with = "seconds")]
    pub took: Duration,
    /// Access units in it, those that were decoded, and frames that the detector saw.
    pub received: u64,
    #[allow(missing_docs)]
    pub decoded: u64,
    #[allow(missing_docs)]
    pub analysed: u64,
    /// What the gate did.
    pub gate: GateHealth,
    /// From when to when the camera slept.
    #[serde(rename = "asleep_s", serialize_with = "stretches")]
    pub asleep: Vec<(Duration, Duration)>,
    /// The rules that were broken, in the order of time.
    pub incidents: Vec<Told>,
    /// Why it could not be played to its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub damage: Option<String>,
}

/// A rule was broken.
#[derive(Clone, Debug, Serialize)]
pub struct Told {
    /// Since the beginning of the clip.
    #[serde(rename = "at_s", serialize_with = "seconds")]
    pub at: Duration,
    /// The rule's name.
    pub rule: Name,
    /// What kind of rule it is.
    pub kind: AlertKind,
    /// The zone's or the line's name; none where it is about the whole picture.
    pub place: Option<Name>,
    /// How bad it is.
    pub severity: Severity,
    /// What was seen.
    pub class: ObjectClass,
    /// Its mean score.
    pub confidence: f32,
    /// Left, top, width and height, in 0..1 of the picture.
    #[serde(rename = "box")]
    pub bounds: [f32; 4],
    /// Which track, counted from 1.
    pub track: u64,
}

impl Told {
    pub(super) fn of(incident: &Incident, rule: &Name) -> Self {
        let bounds = incident.bounds.clamped();
        Self {
            at: incident.at.monotonic,
            rule: rule.clone(),
            kind: incident.kind,
            place: incident.zone.clone(),
            severity: incident.severity,
            class: incident.class,
            confidence: (incident.confidence * 1000.0).round() / 1000.0,
            bounds: [bounds.left, bounds.top, bounds.width, bounds.height],
            track: incident.track,
        }
    }
}

impl Replayed {
    /// For a terminal: a line for each incident, and the sums.
    pub fn table(&self) -> String {
        let mut text = String::new();
        if !self.incidents.is_empty() {
            let _ = writeln!(
                text,
                "{:>8}  {:<16}  {:<15}  {:<16}  {:<8}  {:<10}  {:>5}  {:>5}",
                "time", "rule", "kind", "place", "severity", "class", "score", "track"
            );
        }
        for told in &self.incidents {
            let _ = writeln!(
                text,
                "{:>8}  {:<16}  {:<15}  {:<16}  {:<8}  {:<10}  {:>5.2}  {:>5}",
                clock(told.at),
                told.rule.as_str(),
                word(&told.kind),
                told.place.as_ref().map_or("", Name::as_str),
                told.severity.to_string(),
                told.class.to_string(),
                told.confidence,
                told.track
            );
        }
        let count = self.incidents.len();
        let noun = if count == 1 { "incident" } else { "incidents" };
        let (duration, took) = (self.duration.as_secs_f64(), self.took.as_secs_f64());
        let _ = writeln!(
            text,
            "{count} {noun} in {} of {}, camera {}; {} frames analysed by {} in {took:.1} s ({:.1} times real time)",
            clock(self.duration),
            self.clip,
            self.camera,
            self.analysed,
            self.model,
            duration / took.max(1e-3),
        );
        if !self.asleep.is_empty() {
            let slept: Duration = self.asleep.iter().map(|(from, until)| *until - *from).sum();
            let stretches: Vec<_> = self
                .asleep
                .iter()
                .map(|(from, until)| format!("{}-{}", clock(*from), clock(*until)))
                .collect();
            let _ = writeln!(text, "asleep for {}: {}", clock(slept), stretches.join(", "));
        }
        if let Some(doubt) = &self.gate.doubt {
            let _ = writeln!(text, "gate: {doubt}");
        }
        text
    }

    /// For a program.
    pub fn to_json(&self) -> String {
        let text = serde_json::to_string_pretty(self).expect("names and numbers are JSON");
        text + "\n"
    }
}

/// What it is called on the wire.
fn word(value: &impl Serialize) -> String {
    let value = serde_json::to_value(value).unwrap_or_default();
    value.as_str().unwrap_or_default().to_owned()
}

/// Minutes, seconds and tenths.
pub(super) fn clock(time: Duration) -> String {
    let tenths = (time.as_secs_f64() * 10.0).round() as u64;
    format!("{}:{:02}.{}", tenths / 600, tenths / 10 % 60, tenths % 10)
}

fn rounded(time: Duration) -> f64 {
    (time.as_secs_f64() * 1000.0).round() / 1000.0
}

fn seconds<S: serde::Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(rounded(*time))
}

fn stretches<S: serde::Serializer>(times: &[(Duration, Duration)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(times.iter().map(|(from, until)| [rounded(*from), rounded(*until)]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_minutes_seconds_and_tenths() {
        for (seconds, text) in [(0.0, "0:00.0"), (9.96, "0:10.0"), (59.94, "0:59.9"), (3725.25, "62:05.3")] {
            assert_eq!(clock(Duration::from_secs_f64(seconds)), text);
        }
    }
}
