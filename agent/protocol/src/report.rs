//! What a box says of itself: three retained topics.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::alert::{ClockTrust, ModelName, Tampering};
use crate::topic::Name;

/// Topic `status`. The broker publishes the offline one for the box as its last will.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Status {
    /// Whether the box is there.
    pub state: BoxState,
    /// Version of the agent.
    pub agent: String,
}

/// Whether a box is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)] // the names say it
pub enum BoxState {
    Online,
    Offline,
}

/// Topic `health`: on change and every 60 s.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Health {
    /// When this was written, by the box's clock.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub time: Timestamp,
    /// How far that clock can be trusted.
    pub clock: ClockTrust,
    /// The box's start that `up_s` counts from: 8 hexadecimal digits of the kernel's boot id.
    #[schemars(regex(pattern = "^[0-9a-f]{8}$"))]
    pub boot: String,
    /// Seconds from that start to `time`: places alerts of the same `boot` that were made before the clock was right.
    pub up_s: u32,
    /// Since the agent started.
    pub uptime_s: u64,
    /// One entry a camera.
    pub cameras: Vec<CameraHealth>,
    /// The detector that all cameras share.
    pub detector: DetectorHealth,
    /// What waits for the broker.
    pub outbox: OutboxHealth,
    /// The ways to the brokers: one where they stand in for each other, one each where all get everything.
    pub uplinks: Vec<UplinkHealth>,
    /// What consoles asked for.
    pub commands: CommandsHealth,
    /// The configuration that came from outside; absent where the box takes none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub configuration: Option<ConfigurationHealth>,
}

/// One camera.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CameraHealth {
    /// As configured.
    pub name: Name,
    /// Whether pictures come.
    pub state: CameraState,
    /// Why not, where they do not.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
    /// What was done to it, where a rule watches for that. While it is turned away, its rules about places rest.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tampered: Option<Tampering>,
    /// `H.264 1920x1080`, once known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub stream: Option<String>,
    /// Access units received.
    pub received: u64,
    /// Access units that the gate kept from the decoder.
    pub skipped: u64,
    /// Frames decoded.
    pub decoded: u64,
    /// Frames that the detector looked at.
    pub analysed: u64,
    /// Frames that were replaced by a newer one before the detector came to them.
    pub dropped: u64,
    /// Seconds without a picture, or with none that was looked at because the detector failed or hung.
    pub blind_s: f64,
    /// Connections that ended in an error.
    pub failures: u64,
    /// Detections above their threshold.
    pub detections: u64,
    /// Detections above their threshold that were not tracked, because 128 were already.
    pub untracked: u64,
    /// Alerts raised.
    pub alerts: u64,
    /// How it sleeps; absent where the configuration says that it never does.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub gate: Option<GateHealth>,
}

/// How a camera sleeps while nothing happens in front of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GateHealth {
    /// Whether it sleeps now.
    pub state: GateState,
    /// Why it is watched more closely than configured, where it is.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub doubt: Option<String>,
    /// Seconds of sleep so far.
    pub asleep_s: u64,
    /// Times that it woke up because something had changed.
    pub wakes: u64,
    /// Times that access units looked as if something might have changed.
    pub checks: u64,
    /// Sleeping pictures that the detector was given at random.
    pub audits: u64,
    /// Those in which it found something new: what sleep hid.
    pub missed: u64,
    /// Frames of the awake camera that the detector was spared, because it was sure of all that it saw.
    pub spared: u64,
}

/// Whether a camera's pictures are decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum GateState {
    /// They are.
    Awake,
    /// They are received, and a keyframe is decoded now and then.
    Asleep,
}

/// Whether a camera's pictures come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CameraState {
    /// Never connected yet.
    Connecting,
    /// Frames arrive.
    Streaming,
    /// No frames; trying again.
    Failed,
    /// The camera refuses the password: tried again only rarely, because cameras lock accounts.
    Refused,
}

/// The detector that all cameras share.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DetectorHealth {
    /// Whether it looks at frames.
    pub state: DetectorState,
    /// Why not, where it does not.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
    /// Frames looked at.
    pub inferences: u64,
    /// Mean time of one look: letterbox, inference, decoding of the outputs.
    pub inference_ms: f64,
    /// Inferences that failed.
    pub failures: u64,
}

/// Whether the detector looks at frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DetectorState {
    /// Not yet: the model is being loaded.
    Loading,
    /// It does.
    Running,
    /// It does not: see the reason.
    Failed,
}

/// What waits for the brokers, and what is open.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OutboxHealth {
    /// Messages about alerts that not every broker has acknowledged yet.
    pub alerts: u64,
    /// Pictures that not every broker has acknowledged yet.
    pub evidence: u64,
    /// Bytes of all that is kept.
    pub bytes: u64,
    /// Messages and pictures that a broker refused, kept with its reason.
    pub parked: u64,
    /// The reason of the last of them.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub parked_reason: Option<String>,
    /// Delivered messages that are kept to be sent again on request.
    pub delivered: u64,
    /// The last sequence number given.
    pub sequence: u64,
    /// Alerts that nobody has resolved or dismissed.
    pub open: u64,
    /// Alerts that were raised by a level because nobody answered, since the outbox was made.
    pub escalated: u64,
    /// Open alerts that the box could keep no longer, since the outbox was made.
    pub unanswered: u64,
    /// Pictures given up for want of space, since the outbox was made.
    pub evicted_evidence: u64,
    /// Alerts given up for want of space, since the outbox was made. More than 0 is an emergency.
    pub evicted_alerts: u64,
    /// Why the outbox cannot be written, where it cannot.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub failure: Option<String>,
}

/// The way to a broker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UplinkHealth {
    /// The broker that is spoken to, or was last tried: its name in the configuration.
    pub broker: Name,
    /// Whether it is there.
    pub connected: bool,
    /// Why not, where it is not; or what it does not let this box do.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
    /// Messages that it acknowledged.
    pub acknowledged: u64,
    /// Connections that ended in an error.
    pub failures: u64,
    /// Messages that it refused.
    pub refused: u64,
}

/// What consoles asked for, since the agent started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CommandsHealth {
    /// Commands that were executed.
    pub done: u64,
    /// Commands that were refused.
    pub refused: u64,
    /// Messages on the topic of commands that could not even be answered: no response topic of this box.
    pub ignored: u64,
}

/// What came from outside over the box's own file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConfigurationHealth {
    /// What is in force; the box's own file alone where there is none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub active: Option<ActiveConfiguration>,
    /// It has not proved yet that it keeps the way to a broker.
    pub on_trial: bool,
    /// Why the last one was refused or taken back.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last_refusal: Option<String>,
    /// Cameras of which it removed or changed privacy masks.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub unmasked: Vec<Name>,
}

/// A configuration of the repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ActiveConfiguration {
    /// What the maintainer calls it.
    pub name: String,
    /// Rises with each that was signed.
    pub number: u64,
}

/// Topic `models`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Models {
    /// The model that looks at frames, if any does.
    pub active: Option<ActiveModel>,
    /// Why the installed model does not look just now, or why the last one was refused or rolled back.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last_refusal: Option<String>,
    /// How far the last update that was offered came.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub update: Option<ModelUpdate>,
    /// Why the repository could not be asked the last time, where it could not.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub repository: Option<String>,
}

/// The model that looks at frames.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ActiveModel {
    /// Which one.
    pub model: ModelName,
    /// SHA-256 of the ONNX file, in hexadecimal.
    pub sha256: String,
}

/// A model on its way to look at frames.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelUpdate {
    /// Which one.
    pub model: ModelName,
    /// Where it is.
    pub stage: ModelStage,
    /// Why it was refused or rolled back, where it was; while it is active, what speaks against it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
    /// Bytes of its bundle that are here, while it is fetched.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub bytes: Option<u64>,
    /// Bytes of its bundle.
    pub of: u64,
}

/// The stages that a model passes, in their order, and the three ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ModelStage {
    /// The repository has it for this box.
    Offered,
    /// Its bundle is being fetched.
    Downloading,
    /// Signatures, length and hash are right.
    Verified,
    /// It is a detector of the agent's classes that can be run here.
    Contract,
    /// It sees in its golden pictures what it should.
    Golden,
    /// It is fast enough on this box.
    Budget,
    /// It looks beside the active one, and is compared with it.
    Shadow,
    /// It looks at frames from the next start or the next frame on.
    Active,
    /// It looks at frames, and is compared with the one before.
    Watched,
    /// It stays.
    Kept,
    /// It never looked at frames; the reason says why.
    Refused,
    /// It looked at frames, and the one before does again; the reason says why.
    RolledBack,
}
