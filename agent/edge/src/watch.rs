//! What is wrong with cameras themselves, to alerts: no pictures come, or somebody has tampered with them. And the end of what
//! an earlier agent told of.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::tz::TimeZone;
use sharp_eyes_protocol::alert::{Alert, AlertData, AlertKind, AlertState, Subject, Tampering, seconds};
use sharp_eyes_protocol::level::Severity;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::beat;
use crate::board::{Board, CameraCard};
use crate::clock::Clock;
use crate::condition::{Condition, News, Patience};
use crate::config::{CameraRule, CameraRuleKind, View};
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

/// An alert of an earlier agent, that nobody of this one will say is over: whoever is still there is raised anew.
struct Earlier {
    alert: Uuid,
    kind: AlertKind,
    camera: usize,
    /// How long its camera has to be looked at.
    wait: Duration,
    /// Since when it is.
    since: Option<Duration>,
}

/// Watches all cameras until shutdown.
pub struct Watch {
    /// The rules, with the place of their camera on the board.
    pub rules: Vec<(usize, CameraRule)>,
    /// What frames are judged by, in the order of the board's cameras.
    pub views: Vec<View>,
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
        let mut earlier = Vec::new();
        for alert in self.outbox.lasting().await {
            let of_it = |one: &&mut Watched| {
                one.rule.kind.alert() == AlertKind::Offline
                    && one.alert.is_none()
                    && self.card(one.camera).name == alert.subject.camera
            };
            let outage = watched.iter_mut().find(of_it).filter(|_| alert.data.kind == AlertKind::Offline);
            match (outage, self.earlier(&alert)) {
                (Some(one), _) => {
                    one.condition = Condition::told(one.rule.patience());
                    one.alert = Some(alert.id);
                }
                (None, Some(one)) => earlier.push(one),
                // Nobody watches for it any more.
                (None, None) => self.outbox.change(AlertChange { id: alert.id, change: Change::Over }),
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
            earlier.retain_mut(|one| !self.end(one));
        }
    }

    /// What has to be waited for until an alert is over that was told by an earlier agent. `None`: nobody watches for it.
    fn earlier(&self, alert: &Alert) -> Option<Earlier> {
        let kind = alert.data.kind;
        let camera = self.board.cameras.iter().position(|card| card.name == alert.subject.camera)?;
        let seen = self.views[camera].rules.iter().map(|rule| (rule.kind.alert(), rule.kind.settles_after()));
        let own = self.rules.iter().filter(|(of, _)| *of == camera).filter_map(|(_, rule)| match rule.kind {
            CameraRuleKind::Tampered(options) => Some((AlertKind::Tampered, options.settles_after())),
            CameraRuleKind::Offline { .. } => None, // goes on as the same alert
        });
        let waits = seen.chain(own).filter(|(of, _)| *of == kind).map(|(_, wait)| wait);
        Some(Earlier { alert: alert.id, kind, camera, wait: waits.max()?, since: None })
    }

    /// Tells that an earlier agent's alert is over, where it is: nobody may say so of a fire before anyone has looked.
    fn end(&self, one: &mut Earlier) -> bool {
        let card = self.card(one.camera);
        let judged = one.kind == AlertKind::Tampered || (card.analysed.get() > 0 && !card.is_displaced());
        let over = one.is_over(self.clock.uptime(), judged && !card.is_blind());
        if over {
            tracing::info!(camera = %card.name, alert = %one.alert, "over, or raised anew since the start");
            self.outbox.change(AlertChange { id: one.alert, change: Change::Over });
        }
        over
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
        let wanted = one.rule.schedule.is_on(now, &self.time_zone);
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

impl Earlier {
    /// Takes whether its camera is looked at now.
    fn is_over(&mut self, now: Duration, looked_at: bool) -> bool {
        self.since = looked_at.then(|| self.since.unwrap_or(now));
        self.since.is_some_and(|since| now.saturating_sub(since) >= self.wait)
    }
}

impl Watched {
    fn new(camera: usize, rule: CameraRule) -> Self {
        Self { camera, condition: Condition::new(rule.patience()), rule, alert: None }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use sharp_eyes_protocol::alert::ClockTrust;
    use sharp_eyes_protocol::topic::Name;
    use sharp_eyes_vision::{Rule, RuleKind};

    use super::*;
    use crate::camera::gate::GateOptions;
    use crate::outbox::WallClock;
    use crate::outbox::tests::{alert, options, site};

    /// A camera with one rule, about fire, and alerts of an earlier agent about it and about what nobody watches any more.
    #[tokio::test]
    async fn what_lasts_over_a_restart_ends_at_once_where_nobody_watches_and_elsewhere_after_a_look() {
        let folder = tempfile::tempdir().unwrap();
        let wall: WallClock = Arc::new(|| (Timestamp::now(), ClockTrust::Unsynced));
        let outbox = Outbox::start(options(folder.path()), site(), wall).unwrap();
        let (mut fire, intrusion, mut gone) =
            (alert(Severity::Minor), alert(Severity::Minor), alert(Severity::Minor));
        fire.data.kind = AlertKind::Hazard;
        gone.subject.camera = Name::new("gone").unwrap();
        let burning = fire.id;
        for alert in [fire, intrusion, gone] {
            outbox.append(alert).unwrap().stored().await.unwrap();
        }
        let gate = (Name::new("gate").unwrap(), GateOptions::default(), None);
        let board = Arc::new(Board::new([gate]));
        let rule = Rule {
            name: Name::new("fire").unwrap(),
            zone: None,
            kind: RuleKind::Hazard { polygon: None, seen: 5, frames: 8 },
            classes: Vec::new(),
            cooldown: Duration::ZERO,
            severity: Severity::Critical,
            schedule: "always".parse().unwrap(),
            min_score: None,
            min_height: 0.0,
            evidence: false,
            wakeful: false,
        };
        let view = View { masks: Vec::new(), rules: vec![rule], alerts_per_minute: 5, look_closer: false };
        let watch = Watch {
            rules: Vec::new(),
            views: vec![view],
            board: board.clone(),
            clock: Arc::new(Clock::start(folder.path())),
            time_zone: TimeZone::UTC,
            outbox: outbox.clone(),
            snapshots: Arc::new(Snapshots::new(board.clone())),
        };
        let _watch = tokio::spawn(watch.run(CancellationToken::new()));
        let lasting = |count: usize| {
            let outbox = outbox.clone();
            async move {
                for _ in 0..200 {
                    let lasting: Vec<Uuid> = outbox.lasting().await.iter().map(|alert| alert.id).collect();
                    if lasting.len() == count {
                        return lasting;
                    }
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                panic!("{count} never lasted");
            }
        };
        assert_eq!(lasting(1).await, [burning]);
        tokio::time::sleep(2 * TICK).await;
        assert_eq!(lasting(1).await, [burning], "nobody has looked");
        board.cameras[0].streaming();
        board.cameras[0].analysed.increment();
        let looked = Instant::now();
        lasting(0).await;
        assert!(looked.elapsed() >= Duration::from_secs(9), "{:?}", looked.elapsed());
    }

    #[test]
    fn what_an_earlier_agent_told_is_over_once_its_camera_was_looked_at_for_long_enough() {
        let wait = Duration::from_secs(10);
        let mut one = Earlier { alert: Uuid::nil(), kind: AlertKind::Hazard, camera: 0, wait, since: None };
        for (second, looked_at, over) in [
            (0, false, false),
            (30, false, false),
            (31, true, false),
            (40, true, false),
            (40, false, false),
            (45, true, false),
            (54, true, false),
            (55, true, true),
        ] {
            assert_eq!(one.is_over(Duration::from_secs(second), looked_at), over, "at second {second}");
        }
    }
}
