//! Frames to alerts: one thread that gives every camera's newest frame to the detector, in turn.

mod slots;
mod snapshots;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::tz::TimeZone;
use sharp_eyes_protocol::alert::{AlertData, AlertState, ModelName, Subject, grid_cell, seconds};
use sharp_eyes_vision::{
    DetectError, Detection, Detector, DetectorOptions, FrameView, Incident, Moment, Polygon, Redacted, Rule,
    Runtime, Scene, SceneOptions, Thresholds,
};
use uuid::Uuid;

use crate::backoff::Backoff;
use crate::board::{Board, CameraCard};
use crate::camera::{Frame, Sight};
use crate::clock::Clock;
use crate::config::DetectorConfig;
use crate::models::desk::{Chosen, Desk};
use crate::outbox::{NewAlert, NewEvidence, Outbox};
pub use slots::{Slots, Taken};
pub use snapshots::Snapshots;

/// How long the thread waits for a frame before it says that it is alive.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// Waits before a model that could not be loaded is tried again: somebody may have mended the file.
const RELOAD: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));

/// What one camera's frames are judged by.
#[derive(Clone, Debug)]
pub struct View {
    /// What nobody may look at.
    pub masks: Vec<Polygon>,
    /// What is an incident.
    pub rules: Vec<Rule>,
}

/// Everything that the analysis thread needs.
pub struct Analysis {
    /// The model and its runtime.
    pub detector: DetectorConfig,
    /// One a camera, in the order of the board's.
    pub views: Vec<View>,
    /// The zone that schedules are judged in.
    pub time_zone: TimeZone,
    /// Where frames come from.
    pub slots: Arc<Slots<Frame>>,
    /// Where it says how it goes.
    pub board: Arc<Board>,
    /// Both clocks.
    pub clock: Arc<Clock>,
    /// Where alerts go.
    pub outbox: Outbox,
    /// Who asks for a picture of which camera.
    pub snapshots: Arc<Snapshots>,
    /// Most bytes of a large picture, so that it does not take a slow link for long.
    pub picture_bytes: usize,
    /// Where other models come from, and where it says which one looks at frames.
    pub desk: Arc<Desk>,
}

impl Analysis {
    /// Runs until the slots are closed and empty. A model that cannot be used is reported and tried again.
    pub fn run(&self) {
        let (min, max) = RELOAD;
        let mut backoff = Backoff::new(min, max, 0.0).expect("constant limits are in order");
        let detector = loop {
            self.board.detector.beat();
            let chosen = self.desk.chosen();
            match self.load(&chosen) {
                Ok(detector) => break detector,
                Err(error) => {
                    tracing::error!("cannot use the model {}: {error}", chosen.path.display());
                    self.board.detector.failed(&error.to_string());
                    if self.desk.unusable(&chosen, &error.to_string()) {
                        continue; // with the one before
                    }
                }
            }
            if self.wait_for_reload(backoff.next(fastrand::f64())) {
                return;
            }
        };
        self.watch(detector);
    }

    /// True where there is nothing more to wait for.
    fn wait_for_reload(&self, wait: Duration) -> bool {
        let until = Instant::now() + wait;
        loop {
            self.board.detector.beat();
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            if self.slots.wait_closed(left.min(HEARTBEAT)) {
                return true;
            }
        }
    }

    fn load(&self, chosen: &Chosen) -> Result<Detector, LoadError> {
        let runtime = Runtime::load(&self.detector.runtime)?;
        let options = DetectorOptions { threads: self.detector.threads };
        let detector = Detector::load(&runtime, &chosen.path, options)?;
        chosen.check(&detector).map_err(LoadError::Changed)?;
        let model = detector.model();
        tracing::info!(
            model = %model.name,
            sha256 = %model.sha256,
            classes = ?model.classes,
            onnx_runtime = runtime.version(),
            providers = ?runtime.providers(),
            "model loaded"
        );
        self.desk.looks(model, chosen.installed.clone());
        self.board.detector.running();
        Ok(detector)
    }

    fn watch(&self, mut detector: Detector) {
        let mut thresholds = detector.model().thresholds.clone();
        let mut model = detector.model().name.clone();
        let mut scenes: Vec<Scene> = self.views.iter().map(|view| self.scene(view, &thresholds)).collect();
        let mut wakes = vec![0; scenes.len()];
        loop {
            self.board.detector.beat();
            let (index, frame) = match self.slots.take(HEARTBEAT) {
                Taken::Frame(index, frame) => (index, frame),
                Taken::Nothing => continue,
                Taken::Closed => return,
            };
            if let Some((next, installed)) = self.desk.take() {
                tracing::info!(before = %model, model = %next.model().name, "another model looks from this frame on");
                self.desk.looks(next.model(), installed);
                (thresholds, model) = (next.model().thresholds.clone(), next.model().name.clone());
                detector = next;
                scenes.iter_mut().for_each(|scene| scene.set_thresholds(thresholds.clone()));
            }
            let (view, card) = (&self.views[index], &self.board.cameras[index]);
            let woken = card.gate().wakes();
            if std::mem::replace(&mut wakes[index], woken) != woken {
                scenes[index].resume(self.clock.at(frame.arrived()));
            }
            let looked = catch_unwind(AssertUnwindSafe(|| {
                self.look(index, &mut detector, &thresholds, &model, view, &mut scenes[index], card, &frame)
            }));
            match looked {
                Ok(Ok(())) => self.board.detector.running(),
                Ok(Err(error)) => {
                    tracing::warn!(camera = %card.name, "cannot analyse a frame: {error}");
                    self.board.detector.failed(&error.to_string());
                }
                Err(_) => {
                    // The panic itself is logged by the hook; this camera forgets its tracks, the others keep theirs.
                    tracing::error!(camera = %card.name, "analysing a frame panicked; its tracks start anew");
                    self.board
                        .detector
                        .failed(&format!("analysing a frame of camera {} panicked", card.name));
                    scenes[index] = self.scene(view, &thresholds);
                }
            }
        }
    }

    fn scene(&self, view: &View, thresholds: &Thresholds) -> Scene {
        Scene::new(SceneOptions {
            thresholds: thresholds.clone(),
            rules: view.rules.clone(),
            time_zone: self.time_zone.clone(),
        })
    }

    #[allow(clippy::too_many_arguments)] // the parts of one camera, which `watch` keeps apart to borrow them
    fn look(
        &self,
        index: usize,
        detector: &mut Detector,
        thresholds: &Thresholds,
        model: &ModelName,
        view: &View,
        scene: &mut Scene,
        card: &CameraCard,
        frame: &Frame,
    ) -> Result<(), LookError> {
        frame.view(|planes| {
            let started = Instant::now();
            let detections = detector.detect(planes, &view.masks)?;
            self.board.detector.inferred(started.elapsed());
            card.analysed.increment();
            card.detections
                .add(detections.iter().filter(|d| d.score >= thresholds.of(d.class)).count() as u64);
            let now = self.clock.at(frame.arrived());
            if frame.is_audit() {
                let missed = scene.would_learn(now, &detections);
                card.gate().audited(Instant::now(), missed);
                return Ok(());
            }
            let untracked = scene.overflow();
            let incidents = scene.observe(now, &detections);
            card.untracked.add(scene.overflow() - untracked);
            for incident in incidents {
                self.raise(planes, view, &detections, &incident, model, card, frame.arrived());
            }
            let sight = match () {
                () if scene.is_undecided(now) => Sight::Stirring,
                () if !scene.is_sure(now) => Sight::Unsure,
                () => Sight::Calm,
            };
            card.gate().analysed(Instant::now(), sight);
            self.snapshots.serve(index, || {
                let redacted = Redacted::of(planes, &view.masks, &detections, None, card.name.as_str());
                let picture = redacted.picture(self.picture_bytes);
                picture.inspect_err(|error| tracing::warn!(camera = %card.name, "no snapshot: {error}")).ok()
            });
            Ok(())
        })?
    }

    #[allow(clippy::too_many_arguments)] // all that an alert says
    fn raise(
        &self,
        planes: &FrameView<'_>,
        view: &View,
        detections: &[Detection],
        incident: &Incident,
        model: &ModelName,
        card: &CameraCard,
        arrived: Instant,
    ) {
        let foot = incident.bounds.foot();
        let bounds = incident.bounds.clamped();
        let data = AlertData {
            kind: incident.kind,
            severity: incident.severity,
            level: incident.severity.first_level(),
            state: AlertState::Open,
            respond_s: None,
            cell: grid_cell(foot.x, foot.y),
            class: Some(incident.class),
            confidence: incident.confidence,
            bounds: [bounds.left, bounds.top, bounds.width, bounds.height],
            model: model.clone(),
            clock: self.clock.trust(),
            boot: self.clock.boot().to_owned(),
            up_s: seconds(self.clock.since_boot(arrived)),
            evidence: incident.evidence,
        };
        let subject = Subject { camera: card.name.clone(), zone: Some(incident.zone.clone()) };
        let id = uuid_of(&incident.at);
        tracing::info!(
            camera = %card.name, alert = %id, rule = %view.rules[incident.rule].name, zone = %incident.zone,
            class = %incident.class, confidence = incident.confidence, severity = %incident.severity, "incident"
        );
        card.alerts.increment();
        let alert = NewAlert { id, time: incident.at.wall, subject, data, arrived };
        if let Err(error) = self.outbox.append(alert) {
            tracing::error!(camera = %card.name, alert = %id, "alert lost: {error}");
        }
        if !incident.evidence {
            return;
        }
        // Only now: an alert never waits for its pictures.
        let label = format!("{} {} {:.2}", incident.zone, incident.class, incident.confidence);
        let redacted = Redacted::of(planes, &view.masks, detections, Some(incident), &label);
        let severity = incident.severity;
        let pictures = redacted.thumbnail().and_then(|thumbnail| {
            let picture = redacted.picture(self.picture_bytes)?;
            Ok(NewEvidence { alert: id, severity, thumbnail, picture })
        });
        match pictures {
            Ok(evidence) => self.outbox.attach(evidence),
            Err(error) => tracing::warn!(camera = %card.name, alert = %id, "alert without pictures: {error}"),
        }
    }
}

/// A UUIDv7 of the moment. A clock before 1970 gives the year 1970: the id stays valid, `clock` says the rest.
fn uuid_of(at: &Moment) -> Uuid {
    let milliseconds = u64::try_from(at.wall.as_millisecond()).unwrap_or(0);
    let nanoseconds = (milliseconds % 1000) as u32 * 1_000_000;
    Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, milliseconds / 1000, nanoseconds))
}

#[derive(Debug, thiserror::Error)]
enum LoadError {
    #[error(transparent)]
    Runtime(#[from] sharp_eyes_vision::OnnxError),
    #[error(transparent)]
    Model(#[from] sharp_eyes_vision::ModelError),
    #[error("{0}")]
    Changed(String),
}

#[derive(Debug, thiserror::Error)]
enum LookError {
    #[error(transparent)]
    Frame(#[from] crate::camera::FrameError),
    #[error(transparent)]
    Detect(#[from] DetectError),
}
