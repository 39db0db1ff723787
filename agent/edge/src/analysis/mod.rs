//! Frames to alerts: one thread that gives every camera's newest frame to the detector, in turn, as many at the same time as
//! there are sessions of the model.
//!
//! # Layout
//!
//! - [`slots`]: the frames that wait, and whose turn it is;
//! - [`round`]: a frame, or those of several cameras that share an inference, to alerts and pictures;
//! - [`lookout`]: one camera's frames to incidents, the same in a replay;
//! - [`storm`]: too many alerts to one that counts them;
//! - [`darkroom`]: redacted frames to pictures, on a second thread.

mod darkroom;
mod lookout;
mod round;
mod slots;
mod storm;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use jiff::tz::TimeZone;
use sharp_eyes_protocol::alert::{AlertData, AlertState, ModelName, Subject, grid_cell, seconds};
use sharp_eyes_protocol::topic::Name;
use sharp_eyes_vision::{Incident, Moment, Thresholds};
use uuid::Uuid;

use crate::board::Board;
use crate::camera::Frame;
use crate::clock::Clock;
use crate::config::{DetectorConfig, View};
use crate::models::desk::{Chosen, Desk};
use crate::outbox::{AlertChange, Change, NewAlert, Outbox};
use crate::sessions::{self, LoadError, Sessions};
use crate::snapshots::Snapshots;
pub use darkroom::Darkroom;
pub(crate) use lookout::Lookout;
pub use slots::{Slots, Taken};
use storm::{Fate, Storm};

/// How long the thread waits for a frame before it says that it is alive.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// What one camera's frames have led to so far.
struct Story {
    lookout: Lookout,
    storm: Storm,
    /// Alerts that are not over, by the number of their incident. Those that a digest stands for are not among them.
    /// Bounded by what a scene keeps in mind.
    lasting: HashMap<u64, Uuid>,
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
    /// Where pictures are made.
    pub darkroom: Darkroom,
    /// Where other models come from, and where it says which one looks at frames.
    pub desk: Arc<Desk>,
}

impl Analysis {
    /// Runs until the slots are closed and empty. A model that cannot be used is reported and tried again.
    pub fn run(&self) {
        self.detector.cores.within(|| self.run_there());
    }

    fn run_there(&self) {
        let mut backoff = sessions::reloads();
        let sessions = loop {
            self.board.detector.beat();
            let chosen = self.desk.chosen();
            match self.load(&chosen) {
                Ok(sessions) => break sessions,
                Err(error) => {
                    tracing::error!("cannot use the model {}: {error}", chosen.path.display());
                    self.board.detector.failed(&error.to_string());
                    if self.desk.unusable(&chosen, &error) {
                        continue; // with the one before
                    }
                }
            }
            if self.wait_for_reload(backoff.next(fastrand::f64())) {
                return;
            }
        };
        self.watch(sessions);
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

    fn load(&self, chosen: &Chosen) -> Result<Sessions, LoadError> {
        let sessions = Sessions::load(&self.detector, &chosen.path)?;
        chosen.check(sessions.model())?;
        self.desk.looks(&sessions, chosen.installed.clone());
        self.board.detector.running();
        Ok(sessions)
    }

    fn watch(&self, mut sessions: Sessions) {
        let thresholds = &sessions.model().thresholds;
        let mut stories: Vec<Story> =
            (0..self.views.len()).map(|index| self.story(index, thresholds)).collect();
        let mut taken = None;
        loop {
            self.board.detector.beat();
            self.keep_up(&mut stories);
            let due = match taken.take() {
                Some(due) => due,
                None => match self.slots.take(HEARTBEAT) {
                    Taken::Frame(index, frame) => match self.due(&sessions, &mut stories, index, frame) {
                        Some(due) => due,
                        None => continue,
                    },
                    Taken::Nothing => continue,
                    Taken::Closed => return,
                },
            };
            self.switch(&mut sessions, &mut stories);
            taken = self.round(&mut sessions, &mut stories, due);
        }
    }

    /// Nothing has happened yet.
    fn story(&self, index: usize, thresholds: &Thresholds) -> Story {
        let (view, card) = (self.views[index].clone(), self.board.cameras[index].clone());
        Story {
            lookout: Lookout::new(view, thresholds.clone(), self.time_zone.clone(), card),
            storm: Storm::new(self.views[index].alerts_per_minute),
            lasting: HashMap::new(),
        }
    }

    /// Lets another model look, if one is to.
    fn switch(&self, sessions: &mut Sessions, stories: &mut [Story]) {
        let Some((next, installed)) = self.desk.take() else { return };
        let (before, model) = (sessions.model(), next.model());
        tracing::info!(before = %before.name, model = %model.name, "another model looks from this frame on");
        self.desk.looks(&next, installed);
        stories.iter_mut().for_each(|story| story.lookout.set_thresholds(&model.thresholds));
        self.desk.spare(std::mem::replace(sessions, next));
        self.board.cameras.iter().for_each(|card| card.overlooked.store(0, Ordering::Relaxed));
    }

    /// What time alone brings: wakes cameras whose rules want that by now, and tells what is over, also of those that sleep.
    fn keep_up(&self, stories: &mut [Story]) {
        let now = self.clock.at(Instant::now());
        for Story { lookout, storm, lasting } in stories {
            lookout.keep_awake(now);
            let over = lookout.over(now).into_iter().filter_map(|number| lasting.remove(&number));
            for change in
                over.map(|id| AlertChange { id, change: Change::Over }).chain(storm.tell(now.monotonic))
            {
                tracing::debug!(alert = %change.id, "{:?}", change.change);
                self.outbox.change(change);
            }
        }
    }

    /// Runs what may hang with a bad model.
    fn infer<T>(&self, run: impl FnOnce() -> T) -> T {
        self.board.detector.looking(Some(Instant::now()));
        let done = run();
        self.board.detector.looking(None);
        done
    }

    /// Hands an alert to the outbox, or counts it with others. Returns the alert that wants pictures of this frame.
    fn raise(
        &self,
        incident: &Incident,
        model: &ModelName,
        arrived: Instant,
        story: &mut Story,
    ) -> Option<Uuid> {
        let Story { lookout, storm, lasting } = story;
        let (view, card) = (lookout.view(), lookout.card());
        let foot = incident.bounds.foot();
        let bounds = incident.bounds.clamped();
        let data = AlertData {
            kind: incident.kind,
            severity: incident.severity,
            level: incident.severity.first_level(),
            state: AlertState::Open,
            respond_s: None,
            over: false,
            count: None,
            tampering: None,
            cell: Some(grid_cell(foot.x, foot.y)),
            class: Some(incident.class),
            confidence: Some(incident.confidence),
            bounds: Some([bounds.left, bounds.top, bounds.width, bounds.height]),
            model: Some(model.clone()),
            clock: incident.at.clock, // of the reading that `time` is of
            boot: self.clock.boot().to_owned(),
            up_s: seconds(self.clock.since_boot(arrived)),
            evidence: incident.evidence,
        };
        let id = uuid_of(&incident.at);
        let zone = incident.zone.as_ref().map_or("", Name::as_str);
        let confidence = format_args!("{:.2}", incident.confidence);
        tracing::info!(
            camera = %card.name, alert = %id, rule = %view.rules[incident.rule].name, zone,
            class = %incident.class, confidence, severity = %incident.severity, "incident"
        );
        let camera = card.name.clone();
        let (zone, data) = match storm.take(incident.at.monotonic, id, &data) {
            Fate::Alone => {
                lasting.insert(incident.number, id);
                (incident.zone.clone(), data)
            }
            Fate::Begins(data) => (None, *data),
            Fate::Joins => return None,
        };
        let subject = Subject { camera, zone };
        let alert = NewAlert { id, time: incident.at.wall, subject, data, arrived };
        match self.outbox.append(alert) {
            Ok(_) => card.alerts.increment(),
            Err(error) => {
                tracing::error!(camera = %card.name, alert = %id, "alert lost: {error}");
                storm.lost(id);
            }
        }
        incident.evidence.then_some(id)
    }
}

/// A UUIDv7 of the moment. A clock before 1970 gives the year 1970: the id stays valid, `clock` says the rest.
fn uuid_of(at: &Moment) -> Uuid {
    let milliseconds = u64::try_from(at.wall.as_millisecond()).unwrap_or(0);
    let nanoseconds = (milliseconds % 1000) as u32 * 1_000_000;
    Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, milliseconds / 1000, nanoseconds))
}
