//! Messages as they are on the wire: values of the types, serialised.

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use crate::alert::{
    Alert, AlertData, AlertKind, AlertState, ClockTrust, ModelName, Subject, Tampering, grid_cell,
};
use crate::class::ObjectClass;
use crate::command::{
    Answer, BoxStatus, Command, DismissReason, Dismissal, Done, OfAlert, OpenAlert, PictureOf, Range,
    Refusal, Refused, Request, Resent, SnapshotOf,
};
use crate::level::{Level, Severity};
use crate::report::{
    ActiveConfiguration, ActiveModel, BoxState, CameraHealth, CameraState, CommandsHealth,
    ConfigurationHealth, DetectorHealth, DetectorState, GateHealth, GateState, Health, ModelStage,
    ModelUpdate, Models, OutboxHealth, Status, UplinkHealth,
};
use crate::topic::{Name, Site};

/// An alert.
pub(super) const ID: &str = "01a20a8e-3cf1-7e11-8f3a-5b0c8f6a2b11";

/// A console.
pub(super) const CONSOLE: &str = "yun-shan-1";

type Examples = Vec<(&'static str, Value)>;

/// A box.
pub(super) fn site() -> Site {
    Site {
        district: name("lan-xi"),
        township: name("yun-shan"),
        village: name("wang-cun"),
        box_name: name("box-1"),
    }
}

/// The life of an alert that nobody answered at first.
pub(super) fn alerts() -> Examples {
    let (center_x, foot_y) = (0.526, 0.511);
    let data = AlertData {
        kind: AlertKind::Intrusion,
        severity: Severity::Major,
        level: Level::Township,
        state: AlertState::Open,
        respond_s: Some(600),
        over: false,
        count: None,
        tampering: None,
        cell: Some(grid_cell(center_x, foot_y)),
        class: Some(ObjectClass::Person),
        confidence: Some(0.66),
        bounds: Some([0.475, 0.245, 0.102, 0.266]),
        model: Some(model()),
        clock: ClockTrust::Synced,
        boot: "5c1d8e0f".into(),
        up_s: 8112,
        evidence: true,
    };
    // About the camera itself: nothing of a detector.
    let of_camera = AlertData {
        severity: Severity::Minor,
        level: Level::Village,
        respond_s: Some(1800),
        cell: None,
        class: None,
        confidence: None,
        bounds: None,
        model: None,
        evidence: false,
        ..data.clone()
    };
    let tampered =
        AlertData { kind: AlertKind::Tampered, tampering: Some(Tampering::Covered), ..of_camera.clone() };
    let offline = AlertData { kind: AlertKind::Offline, ..of_camera };
    let digest = AlertData { severity: Severity::Critical, count: Some(23), bounds: None, ..data.clone() };
    let gate = Subject { camera: name("gate"), zone: None };
    let subject = Subject { camera: name("gate"), zone: Some(name("yard")) };
    let raised = Alert::raised(&site(), id(), 1, time(), subject, data);
    let climbed = raised.escalated(2, Level::District, Some(Duration::from_secs(3600)));
    let acknowledged = climbed.answered(3, AlertState::Acknowledged);
    let over = acknowledged.over(4, None);
    let resolved = over.answered(5, AlertState::Resolved);
    let about_gate = |number, data| Alert::raised(&site(), id(), number, time(), gate.clone(), data);
    let (tampered, offline) = (about_gate(6, tampered), about_gate(7, offline));
    let cleared = offline.over(8, None);
    let digest = about_gate(9, AlertData { count: Some(1), ..digest.clone() }).updated(10, digest);
    [
        ("raised", raised),
        ("escalated", climbed),
        ("acknowledged", acknowledged),
        ("over", over),
        ("resolved", resolved),
        ("tampered", tampered),
        ("offline", offline),
        ("cleared", cleared),
        ("a storm", digest),
    ]
    .map(|(name, alert)| (name, on_the_wire(&alert)))
    .into()
}

pub(super) fn statuses() -> Examples {
    [("online", BoxState::Online), ("offline", BoxState::Offline)]
        .map(|(name, state)| (name, on_the_wire(&Status { state, agent: env!("CARGO_PKG_VERSION").into() })))
        .into()
}

pub(super) fn health() -> Examples {
    let camera = CameraHealth {
        name: name("gate"),
        state: CameraState::Failed,
        reason: Some("no RTP for 4.25s".into()),
        tampered: None,
        stream: Some("H.264 1920x1080".into()),
        received: 121_680,
        skipped: 103_428,
        decoded: 18_792,
        analysed: 4_176,
        dropped: 3,
        blind_s: 4.5,
        failures: 1,
        detections: 512,
        untracked: 0,
        alerts: 1,
        gate: Some(GateHealth {
            state: GateState::Asleep,
            doubt: None,
            asleep_s: 6895,
            wakes: 17,
            checks: 31,
            audits: 112,
            missed: 0,
            spared: 2088,
        }),
    };
    let health = Health {
        time: time(),
        clock: ClockTrust::Synced,
        boot: "5c1d8e0f".into(),
        up_s: 8113,
        uptime_s: 8100,
        cameras: vec![camera],
        detector: DetectorHealth {
            state: DetectorState::Running,
            reason: None,
            inferences: 40_560,
            inference_ms: 16.5,
            failures: 0,
        },
        outbox: OutboxHealth {
            alerts: 1,
            evidence: 2,
            bytes: 61_440,
            sequence: 1,
            open: 1,
            ..OutboxHealth::default()
        },
        uplinks: vec![UplinkHealth {
            broker: name("township"),
            connected: true,
            reason: None,
            acknowledged: 141,
            failures: 0,
            refused: 0,
        }],
        commands: CommandsHealth { done: 2, refused: 0, ignored: 0 },
        configuration: Some(ConfigurationHealth {
            active: Some(ActiveConfiguration { name: "wang-cun".into(), number: 17 }),
            on_trial: false,
            last_refusal: Some("wang-cun 16: no broker for 300 s".into()),
            unmasked: vec![name("gate")],
        }),
    };
    vec![("a camera that hangs", on_the_wire(&health))]
}

pub(super) fn models() -> Examples {
    let sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08".into();
    let active = Some(ActiveModel { model: model(), sha256 });
    let update = ModelUpdate {
        model: model(),
        stage: ModelStage::RolledBack,
        reason: Some("31 alerts in 600 s; the model before raised 2 an hour".into()),
        bytes: None,
        of: 5_662_720,
    };
    vec![
        ("looking", on_the_wire(&Models { active: active.clone(), ..Models::default() })),
        (
            "refused",
            on_the_wire(&Models {
                last_refusal: Some("model.onnx: no such file".into()),
                ..Models::default()
            }),
        ),
        ("rolled back", on_the_wire(&Models { active, update: Some(update), ..Models::default() })),
    ]
}

/// Each request once.
pub(super) fn commands() -> Examples {
    let of = |note: Option<&str>| OfAlert { alert: id(), note: note.map(str::to_owned) };
    let dismissal = Dismissal { alert: id(), reason: DismissReason::FalseAlarm, note: None };
    let requests = [
        Request::Acknowledge(of(None)),
        Request::Resolve(of(Some("gate closed"))),
        Request::Dismiss(dismissal),
        Request::Resend(Range { from: 17, to: Some(40) }),
        Request::Picture(PictureOf { alert: id() }),
        Request::Snapshot(SnapshotOf { camera: name("gate") }),
        Request::Status,
        Request::CheckUpdates,
    ];
    let numbered = (42..).zip(requests);
    numbered
        .map(|(counter, request)| {
            let name_of_request = request.name();
            let command = Command { console: name(CONSOLE), counter, by: "Li Wei".into(), request };
            (name_of_request, on_the_wire(&command))
        })
        .collect()
}

/// One answer of each kind.
pub(super) fn answers() -> Examples {
    let open = OpenAlert {
        id: id(),
        state: AlertState::Acknowledged,
        level: Level::Township,
        severity: Severity::Major,
    };
    let status = BoxStatus {
        time: time(),
        clock: ClockTrust::Synced,
        sequence: 3,
        open: vec![open.clone()],
        open_total: 1,
    };
    let stale = Refused {
        counter: Some(42),
        ..Refused::new(Refusal::Stale, "counter 42 was used: use one above 42")
    };
    [
        ("alert", Answer::Done(Done::Alert(open))),
        ("resend", Answer::Done(Done::Resend(Resent { messages: 23, missing: vec![(17, 17)], to: 40 }))),
        ("picture", Answer::Done(Done::Picture(id()))),
        ("snapshot", Answer::Done(Done::Snapshot(id()))),
        ("status", Answer::Done(Done::Status(status))),
        ("check-updates", Answer::Done(Done::CheckUpdates)),
        ("refused", Answer::Refused(stale)),
    ]
    .map(|(name, answer)| (name, on_the_wire(&answer)))
    .into()
}

/// By way of the text, because that is where a `f32` gets its digits.
fn on_the_wire(message: &impl Serialize) -> Value {
    let text = serde_json::to_string(message).expect("a message is JSON");
    serde_json::from_str(&text).expect("JSON is read as it was written")
}

fn id() -> Uuid {
    ID.parse().expect("an id")
}

fn time() -> Timestamp {
    "2026-11-23T22:34:31.217Z".parse().expect("a time")
}

fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

fn model() -> ModelName {
    ModelName::new(name("village-detector"), "1.0.0").expect("a model")
}
