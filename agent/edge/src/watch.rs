//! What is wrong with cameras themselves, to alerts: no pictures come, or somebody has tampered with them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::tz::TimeZone;
use sharp_eyes_protocol::alert::{AlertData, AlertKind, AlertState, Subject, Tampering, seconds};
use sharp_eyes_protocol::level::Severity;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::beat;
use crate::board::{Board, CameraCard};
use crate::clock::Clock;
use crate::condition::{Condition, News, Patience};
use crate::config::{CameraRule, CameraRuleKind};
use crate::outbox::{AlertChange, Change, NewAlert, NewEvidence, Outbox};
use crate::snapshots::Snapshots;

/// How often cameras are looked at.
const TICK: Duration = Duration::from_millis(500);

/// How long pictures have to come until an outage is over.
const STEADY: Duration = Duration::from_secs(10);

/// How long a camera may take to give a picture of what was done to it.
const PICTURE_TIMEOUT: Duration = Duration::from_secs(30);

impl CameraRuleKind {
    fn alert(self) -> AlertKind {
        match self {
            Self::Offline { .. } => AlertKind::Offline,
            Self::Tampered(_) => AlertKind::Tampered,
        }
    }
}

/// One rule of one camera, and how it stands.
struct Watched {
    camera: usize,
    rule: CameraRule,
    condition: Condition,
    alert: Option<Uuid>,
}

/// Watches all cameras until shutdown.
pub struct Watch {
    /// The rules, with the place of their camera on the board.
    pub rules: Vec<(usize, CameraRule)>,
    /// How cameras are.
    pub board: Arc<Board>,
    /// Both clocks.
    pub clock: Arc<Clock>,
    /// The zone that schedules are judged in.
    pub time_zone: TimeZone,
    /// Where alerts go.
    pub outbox: Outbox,
    /// Who takes pictures.
    pub snapshots: Arc<Snapshots>,
}

impl Watch {
    /// Runs until shutdown. An outage that an earlier agent told of goes on: it is not told twice.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut watched: Vec<Watched> =
            self.rules.iter().map(|(camera, rule)| Watched::new(*camera, rule.clone())).collect();
        for outage in self.outbox.lasting(AlertKind::Offline).await {
            let of_it = |one: &&mut Watched| {
                one.rule.kind.alert() == AlertKind::Offline
                    && one.alert.is_none()
                    && self.card(one.camera).name == outage.subject.camera
            };
            match watched.iter_mut().find(of_it) {
                Some(one) => {
                    one.condition = Condition::told(one.rule.patience());
                    one.alert = Some(outage.id);
                }
                // Nobody watches for it any more.
                None => self.outbox.change(AlertChange { id: outage.id, change: Change::Over }),
            }
        }
        while !shutdown.is_cancelled() {
            tokio::select! {
                () = beat::rest(TICK) => {}
                () = shutdown.cancelled() => break,
            }
            for one in &mut watched {
                self.look(one);
            }
        }
    }

    fn card(&self, camera: usize) -> &CameraCard {
        &self.board.cameras[camera]
    }

    fn look(&self, one: &mut Watched) {
        let card = self.card(one.camera);
        let tampering = card.tampering();
        let bad = match one.rule.kind {
            CameraRuleKind::Offline { .. } => card.is_blind(),
            CameraRuleKind::Tampered(_) => tampering.is_some(),
        };
        let arrived = Instant::now();
        let now = self.clock.at(arrived);
        let wanted = one.rule.schedule.contains(now.wall, &self.time_zone);
        match one.condition.look(now.monotonic, bad, wanted) {
            Some(News::Raised) => {
                one.alert = self.raise(one.camera, &one.rule, tampering, arrived);
                if one.alert.is_none() {
                    one.condition.untold(now.monotonic);
                }
            }
            Some(News::Over) => {
                if let Some(id) = one.alert.take() {
                    tracing::info!(camera = %card.name, alert = %id, rule = %one.rule.name, "over");
                    self.outbox.change(AlertChange { id, change: Change::Over });
                }
            }
            None => {}
        }
    }

    fn raise(
        &self,
        camera: usize,
        rule: &CameraRule,
        tampering: Option<Tampering>,
        arrived: Instant,
    ) -> Option<Uuid> {
        let card = self.card(camera);
        let (time, clock) = self.clock.now();
        let kind = rule.kind.alert();
        let evidence = rule.evidence && kind == AlertKind::Tampered;
        let data = AlertData {
            kind,
            severity: rule.severity,
            level: rule.severity.first_level(),
            state: AlertState::Open,
            respond_s: None,
            over: false,
            count: None,
            tampering: tampering.filter(|_| kind == AlertKind::Tampered),
            cell: None,
            class: None,
            confidence: None,
            bounds: None,
            model: None,
            clock,
            boot: self.clock.boot().to_owned(),
            up_s: seconds(self.clock.since_boot(arrived)),
            evidence,
        };
        let id = Uuid::now_v7();
        tracing::info!(
            camera = %card.name, alert = %id, rule = %rule.name, severity = %rule.severity,
            "{}", data.tampering.map_or("offline", Tampering::name)
        );
        let subject = Subject { camera: card.name.clone(), zone: None };
        if let Err(error) = self.outbox.append(NewAlert { id, time, subject, data, arrived }) {
            tracing::error!(camera = %card.name, alert = %id, "alert lost: {error}");
            return None;
        }
        card.alerts.increment();
        if evidence {
            self.picture(camera, id, rule.severity);
        }
        Some(id)
    }

    /// Takes a picture of what was done to the camera, and hands it over when it is there.
    fn picture(&self, camera: usize, alert: Uuid, severity: Severity) {
        let (snapshots, outbox) = (self.snapshots.clone(), self.outbox.clone());
        let card = self.board.cameras[camera].clone();
        // At most one for each alert, and each is given up after a while.
        tokio::spawn(async move {
            match tokio::time::timeout(PICTURE_TIMEOUT, snapshots.take(camera)).await {
                Ok(Some(snapshot)) => {
                    let (thumbnail, picture) = (snapshot.thumbnail, snapshot.picture);
                    outbox.attach(NewEvidence { alert, severity, thumbnail, picture });
                }
                _ => tracing::warn!(camera = %card.name, alert = %alert, "alert without pictures"),
            }
        });
    }
}

impl CameraRule {
    fn patience(&self) -> Patience {
        let cooldown = self.cooldown;
        match self.kind {
            CameraRuleKind::Offline { after } => Patience { after, steady: STEADY, cooldown },
            // What was found has lasted already, and what is over has been so for a while.
            CameraRuleKind::Tampered(_) => {
                Patience { after: Duration::ZERO, steady: Duration::ZERO, cooldown }
            }
        }
    }
}

impl Watched {
    fn new(camera: usize, rule: CameraRule) -> Self {
        Self { camera, condition: Condition::new(rule.patience()), rule, alert: None }
    }
}
