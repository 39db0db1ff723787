//! What a console may ask of a box, and what the box answers: MQTT 5 request and response.
//!
//! A command is published on the box's topic `command` with correlation data of 1 to 64 bytes, and with the box's topic
//! `answer/{console}` as response topic. The box answers there with the same correlation data.
//!
//! A command is executed at most once: the same correlation data again gets the same answer, and a [`Command::counter`]
//! that does not rise is refused, so that nobody can play an old command again. Neither depends on any clock.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::alert::{AlertState, ClockTrust};
use crate::level::{Level, Severity};
use crate::topic::Name;

/// Longest command, in bytes.
pub const COMMAND_MAX_BYTES: usize = 2048;

/// Longest correlation data, in bytes.
pub const CORRELATION_MAX_BYTES: usize = 64;

/// Longest [`Command::by`] and note, in characters.
pub const TEXT_MAX: usize = 100;

/// Most entries of a list in an answer, so that every answer stays below 16 KB.
pub const LIST_MAX: usize = 64;

/// Topic `command`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// The console that asks. Its counter is its own.
    pub console: Name,
    /// Higher than in every earlier command of this console to this box; gaps are fine. A console that has lost its count
    /// finds the last one in the refusal.
    #[schemars(range(min = 1, max = 9_007_199_254_740_991_u64))]
    pub counter: u64,
    /// The operator, for the audit log: 1 to 100 characters.
    #[schemars(length(min = 1, max = 100))]
    pub by: String,
    /// What to do.
    pub request: Request,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// Somebody looks after an alert: it climbs no more, and stays open until it is resolved or dismissed.
    Acknowledge(OfAlert),
    /// An alert is over.
    Resolve(OfAlert),
    /// An alert was nothing.
    Dismiss(Dismissal),
    /// Send messages again, by their sequence numbers.
    Resend(Range),
    /// Send the large picture of an alert before all others.
    Picture(PictureOf),
    /// Send a redacted picture of what a camera sees now.
    Snapshot(SnapshotOf),
    /// Say what is open, and what the next counter must exceed.
    Status,
    /// Ask the repository of models soon, which the box does now and then by itself. What comes of it is on the topic
    /// `models`.
    CheckUpdates,
}

impl Request {
    /// The name on the wire.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Acknowledge(_) => "acknowledge",
            Self::Resolve(_) => "resolve",
            Self::Dismiss(_) => "dismiss",
            Self::Resend(_) => "resend",
            Self::Picture(_) => "picture",
            Self::Snapshot(_) => "snapshot",
            Self::Status => "status",
            Self::CheckUpdates => "check-updates",
        }
    }
}

/// About one alert.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OfAlert {
    /// Its id.
    pub alert: Uuid,
    /// For the audit log: at most 100 characters.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(length(max = 100))]
    pub note: Option<String>,
}

/// An alert was nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Dismissal {
    /// Its id.
    pub alert: Uuid,
    /// Why.
    pub reason: DismissReason,
    /// For the audit log: at most 100 characters.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(length(max = 100))]
    pub note: Option<String>,
}

/// Why an alert was nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DismissReason {
    /// There was nothing, or nothing wrong.
    FalseAlarm,
    /// Another alert tells of it.
    Duplicate,
    /// It was practised.
    Drill,
    /// The note says.
    Other,
}

/// Messages by their sequence numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Range {
    /// The first.
    #[schemars(range(min = 1, max = 9_007_199_254_740_991_u64))]
    pub from: u64,
    /// The last; without it, the last that there is.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub to: Option<u64>,
}

/// The large picture of an alert.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PictureOf {
    /// Its id.
    pub alert: Uuid,
}

/// What a camera sees now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SnapshotOf {
    /// Which camera.
    pub camera: Name,
}

/// Topic `answer/{console}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// It is done, and durable.
    Done(Done),
    /// Nothing was done.
    Refused(Refused),
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Done {
    /// How the alert stands now.
    Alert(OpenAlert),
    /// What is sent again.
    Resend(Resent),
    /// The picture of this alert is on its way, on the topic `evidence/{id}`.
    Picture(Uuid),
    /// The snapshot is on its way, on the topic `evidence/{id}`.
    Snapshot(Uuid),
    /// What is open.
    Status(BoxStatus),
    /// The repository is asked within seconds, or when the check that runs is over.
    #[serde(rename = "check-updates")]
    CheckUpdates,
}

/// An alert that the box keeps in mind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OpenAlert {
    /// Its id.
    pub id: Uuid,
    /// How it stands.
    pub state: AlertState,
    /// Who is called.
    pub level: Level,
    /// How bad it is.
    pub severity: Severity,
}

/// What the box has of the messages that were asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Resent {
    /// Messages that are sent again, or wait to be sent anyway.
    pub messages: u64,
    /// What the box has no more: first and last of each run of numbers, at most 64 runs.
    pub missing: Vec<(u64, u64)>,
    /// The last number that this answer speaks of: ask again from the next one.
    pub to: u64,
}

/// What a console needs to catch up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BoxStatus {
    /// When this was written, by the box's clock.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub time: Timestamp,
    /// How far that clock can be trusted.
    pub clock: ClockTrust,
    /// The last sequence number given.
    pub sequence: u64,
    /// Alerts that nobody has resolved or dismissed, the most severe and oldest first: at most 64 of them.
    pub open: Vec<OpenAlert>,
    /// How many there are.
    pub open_total: u64,
}

/// Why nothing was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Refused {
    /// For programs.
    pub code: Refusal,
    /// For people: what is wrong, and what to do.
    pub message: String,
    /// With [`Refusal::Stale`]: the highest counter of this console that the box has seen.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub counter: Option<u64>,
}

/// Why nothing was done, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Refusal {
    /// It is no command.
    Malformed,
    /// The counter has been used, or a higher one has: somebody plays an old command again, or the console lost its count.
    Stale,
    /// The box has no such alert, or has it no more.
    UnknownAlert,
    /// The alert is over already.
    AlreadyEnded,
    /// The box has no such camera.
    UnknownCamera,
    /// The camera gives no picture now.
    NoPicture,
    /// The box gets its models from a stick alone.
    NoRepository,
    /// The box takes no more commands of this kind for a moment.
    TooOften,
    /// The box cannot write its disk: nothing may be done that would be forgotten.
    Storage,
}

impl Refusal {
    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Stale => "stale",
            Self::UnknownAlert => "unknown-alert",
            Self::AlreadyEnded => "already-ended",
            Self::UnknownCamera => "unknown-camera",
            Self::NoPicture => "no-picture",
            Self::NoRepository => "no-repository",
            Self::TooOften => "too-often",
            Self::Storage => "storage",
        }
    }
}

impl Refused {
    /// A refusal with its words.
    pub fn new(code: Refusal, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), counter: None }
    }
}

impl Command {
    /// Reads a message of the topic `command`. Whatever is wrong with it is said at once; nothing in it is believed before.
    pub fn parse(payload: &[u8]) -> Result<Self, Refused> {
        let malformed = |why: String| Refused::new(Refusal::Malformed, excerpt(&why));
        if payload.len() > COMMAND_MAX_BYTES {
            return Err(malformed(format!("{} bytes, more than {COMMAND_MAX_BYTES}", payload.len())));
        }
        let command: Self =
            serde_json::from_slice(payload).map_err(|error| malformed(format!("no command: {error}")))?;
        let note = match &command.request {
            Request::Acknowledge(of) | Request::Resolve(of) => of.note.as_deref(),
            Request::Dismiss(dismissal) => dismissal.note.as_deref(),
            _ => None,
        };
        for (what, text, least) in [("by", command.by.as_str(), 1), ("note", note.unwrap_or_default(), 0)] {
            let length = text.chars().count();
            if !(least..=TEXT_MAX).contains(&length) || text.chars().any(char::is_control) {
                return Err(malformed(format!(
                    "{what}: expected {least} to {TEXT_MAX} characters without control characters, found {length}"
                )));
            }
        }
        if command.counter == 0 || command.counter > LARGEST_COUNTER {
            return Err(malformed(format!("counter: expected 1 to {LARGEST_COUNTER}")));
        }
        if let Request::Resend(Range { from, to }) = command.request
            && (from == 0 || to.is_some_and(|to| to < from))
        {
            return Err(malformed("resend: expected 1 <= from <= to".into()));
        }
        Ok(command)
    }
}

/// The start of a text that may repeat what somebody has sent, without control characters: JSON takes six bytes for each.
fn excerpt(text: &str) -> String {
    text.chars().take(REASON_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Longest reason that may repeat what somebody has sent, in characters.
const REASON_MAX: usize = 200;

/// The largest number that every language counts with exactly.
const LARGEST_COUNTER: u64 = (1 << 53) - 1;

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "01a20a8e-3cf1-7e11-8f3a-5b0c8f6a2b11";

    fn with(request: &str) -> String {
        format!(r#"{{"console":"yun-shan-1","counter":42,"by":"李伟","request":{request}}}"#)
    }

    #[test]
    fn commands_read_as_they_are_written() {
        let of = |note: Option<&str>| OfAlert { alert: ID.parse().unwrap(), note: note.map(str::to_owned) };
        for (json, request) in [
            (format!(r#"{{"acknowledge":{{"alert":"{ID}"}}}}"#), Request::Acknowledge(of(None))),
            (
                format!(r#"{{"resolve":{{"alert":"{ID}","note":"去过了"}}}}"#),
                Request::Resolve(of(Some("去过了"))),
            ),
            (
                format!(r#"{{"dismiss":{{"alert":"{ID}","reason":"false-alarm"}}}}"#),
                Request::Dismiss(Dismissal {
                    alert: ID.parse().unwrap(),
                    reason: DismissReason::FalseAlarm,
                    note: None,
                }),
            ),
            (r#"{"resend":{"from":7}}"#.into(), Request::Resend(Range { from: 7, to: None })),
            (r#""status""#.into(), Request::Status),
            (r#""check-updates""#.into(), Request::CheckUpdates),
        ] {
            let command = Command::parse(with(&json).as_bytes()).unwrap();
            assert_eq!(command.request, request);
            assert_eq!(serde_json::to_string(&command).unwrap(), with(&json));
            assert!(json.contains(command.request.name()));
        }
    }

    #[test]
    fn what_is_no_command_is_refused_with_what_is_wrong() {
        let long = "x".repeat(TEXT_MAX + 1);
        for (json, said) in [
            ("{}".to_owned(), "console"),
            ("[1".to_owned(), "no command"),
            (with(r#""status""#).replace("42", "0"), "counter"),
            (with(r#""status""#).replace("42", "9007199254740993"), "counter"),
            (with(r#""status""#).replace("李伟", ""), "by"),
            (with(r#""status""#).replace("李伟", &long), "by"),
            (with(r#""status""#).replace("李伟", "a\\u0007b"), "by"),
            (with(&format!(r#"{{"resolve":{{"alert":"{ID}","note":"{long}"}}}}"#)), "note"),
            (with(&format!(r#"{{"resolve":{{"alert":"{ID}","face":"x"}}}}"#)), "face"),
            (with(r#"{"resend":{"from":7,"to":6}}"#), "from <= to"),
            (with(r#"{"identify":{}}"#), "identify"),
            (" ".repeat(COMMAND_MAX_BYTES + 1), "bytes"),
        ] {
            let refused = Command::parse(json.as_bytes()).unwrap_err();
            assert_eq!(refused.code, Refusal::Malformed);
            assert!(refused.message.contains(said), "{json}: {}", refused.message);
        }
    }

    #[test]
    fn a_refusal_stays_short_whatever_it_is_about() {
        for character in ["\u{7f}", "\\u0001", "\\\"", "\\\\", "😀"] {
            let text = character.repeat(1900 / character.len());
            for json in [
                with(r#""status""#).replace("yun-shan-1", &text),
                with(&format!(r#"{{"resolve":{{"alert":"{ID}","{text}":1}}}}"#)),
                with(&format!(r#""{text}""#)),
            ] {
                let refused = Command::parse(json.as_bytes()).unwrap_err();
                let answer = serde_json::to_string(&Answer::Refused(refused)).unwrap();
                assert!(answer.len() <= 1024, "{} bytes: {answer}", answer.len());
            }
        }
    }

    #[test]
    fn answers_read_as_they_are_written() {
        let refused = Refused { counter: Some(41), ..Refused::new(Refusal::Stale, "41 was used") };
        for (answer, json) in [
            (
                Answer::Refused(refused),
                r#"{"refused":{"code":"stale","message":"41 was used","counter":41}}"#.to_owned(),
            ),
            (
                Answer::Done(Done::Snapshot(ID.parse().unwrap())),
                format!(r#"{{"done":{{"snapshot":"{ID}"}}}}"#),
            ),
            (Answer::Done(Done::CheckUpdates), r#"{"done":"check-updates"}"#.to_owned()),
            (
                Answer::Done(Done::Resend(Resent { messages: 2, missing: vec![(1, 7)], to: 9 })),
                r#"{"done":{"resend":{"messages":2,"missing":[[1,7]],"to":9}}}"#.to_owned(),
            ),
        ] {
            assert_eq!(serde_json::to_string(&answer).unwrap(), json);
            assert_eq!(serde_json::from_str::<Answer>(&json).unwrap(), answer);
        }
    }
}
