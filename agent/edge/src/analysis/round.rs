//! One round of the analysis: a look for each session of the model, at a frame whose turn it is, or at the frames of several
//! cameras that share an inference because a close look is due at each and all fit into one tensor.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::{Duration, Instant};

use sharp_eyes_protocol::topic::Name;
use sharp_eyes_vision::{DetectError, Detector, Glance, Incident, Look, ModelInfo, Moment, Object, Redacted};
use uuid::Uuid;

use super::darkroom::{Order, Wanted};
use super::lookout::Seen;
use super::{Analysis, Lookout, Story};
use crate::camera::{Frame, FrameError, Picture};
use crate::models::shadow::Glimpse;
use crate::outbox::{AlertChange, Change};
use crate::sessions::Sessions;

/// Cameras that share an inference at most.
const CAMERAS_MAX: usize = 4;

/// While one round takes longer than that, and than so many looks usually take, the other cameras count as blind.
const LONG_LOOK: (Duration, u32) = (Duration::from_secs(1), 5);

/// A frame whose turn it is.
pub(super) struct Due {
    index: usize,
    frame: Frame,
    picture: Picture,
    now: Moment,
    /// Where it is worth a close look; `None` where the whole picture is due.
    wish: Option<Vec<Object>>,
}

/// The frames of one inference: one, or several that share it.
type Group = Vec<Due>;

/// What a look has shown, after its alerts are on their way.
struct Told {
    seen: Seen,
    /// The alerts that want pictures, with the place of each one's incident among the seen ones.
    alerts: Vec<(Uuid, usize)>,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum LookError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Detect(#[from] DetectError),
}

impl Analysis {
    /// Maps a frame and asks its camera's story what is wanted of it. `None` where that failed, which is told.
    pub(super) fn due(
        &self,
        sessions: &Sessions,
        stories: &mut [Story],
        index: usize,
        frame: Frame,
    ) -> Option<Due> {
        let started = Instant::now();
        let done = guarded(|| {
            let (picture, now) = (frame.map()?, self.clock.at(frame.arrived()));
            let wish = stories[index].lookout.wish(&frame, &picture.view(), now);
            Ok(Due { index, frame, picture, now, wish })
        });
        let due = self.settle(&[index], done, sessions, stories);
        if due.is_none() {
            self.board.cameras[index].looked(started, true);
        }
        due
    }

    /// Looks at a frame, and at what waits and fits in with it. Returns a frame that was taken and did not fit.
    pub(super) fn round(&self, sessions: &mut Sessions, stories: &mut [Story], first: Due) -> Option<Due> {
        let started = Instant::now();
        let (groups, left) = self.gather(sessions, stories, first);
        let looks = self.look(sessions, stories, &groups);
        let inferred = started.elapsed();
        let mut told = Vec::new();
        for (group, looks) in groups.iter().zip(looks) {
            if looks.is_some() {
                self.board.detector.inferred(inferred);
            }
            let mut looks = looks.into_iter().flatten();
            for due in group {
                let done = looks.next().and_then(|look| {
                    let (model, story) = (sessions.model(), &mut stories[due.index]);
                    let done = guarded(|| Ok(self.tell(model, story, due, look, inferred)));
                    self.settle(&[due.index], done, sessions, stories)
                });
                told.push((due, done));
            }
        }
        let mut blind = vec![true; stories.len()]; // while it lasts, if it lasts long
        // Only now: no alert of this round waits for pictures.
        for (due, told) in told {
            let done = told.and_then(|told| {
                let done = guarded(|| self.show(sessions.one(), &stories[due.index], due, told));
                self.settle(&[due.index], done, sessions, stories)
            });
            if done.is_some() {
                self.board.detector.running();
            }
            blind[due.index] = !self.board.cameras[due.index].looked(started, done.is_none());
        }
        let (least, usual) = LONG_LOOK;
        let took = started.elapsed();
        if took > least.max(self.board.detector.mean() * usual) {
            let others = self.board.cameras.iter().zip(blind).filter(|(_, blind)| *blind);
            others.for_each(|(card, _)| card.waited(took));
        }
        left
    }

    /// A group of frames for each session, as far as frames wait, and a frame that was taken for one and did not fit.
    fn gather(&self, sessions: &Sessions, stories: &mut [Story], first: Due) -> (Vec<Group>, Option<Due>) {
        let mut cameras = vec![first.index];
        let (mut groups, mut next) = (Vec::new(), Some(first));
        while let Some(first) = next.take() {
            let (group, left) = self.share(sessions, stories, &mut cameras, first);
            groups.push(group);
            if groups.len() == sessions.count() {
                return (groups, left);
            }
            next = left.or_else(|| self.another(sessions, stories, &mut cameras, |_| true));
        }
        (groups, None)
    }

    /// What shares an inference with a frame, and a frame that was taken for that and does not fit.
    fn share(
        &self,
        sessions: &Sessions,
        stories: &mut [Story],
        cameras: &mut Vec<usize>,
        first: Due,
    ) -> (Group, Option<Due>) {
        let fits = |stories: &[Story], group: &[Due]| {
            let frames = group.iter().map(|due| (due, &stories[due.index].lookout));
            with_glances(frames, |glances| sessions.fit_together(glances)).unwrap_or(false)
        };
        let mut group = vec![first];
        if !fits(stories, &group) {
            return (group, None);
        }
        while group.len() < CAMERAS_MAX {
            let another = self.another(sessions, stories, cameras, |story| story.lookout.is_close_next());
            let Some(due) = another else { break };
            group.push(due);
            if !fits(stories, &group) {
                let left = group.pop();
                return (group, left);
            }
        }
        (group, None)
    }

    /// A frame that waits, of none of these cameras and of one that may.
    fn another(
        &self,
        sessions: &Sessions,
        stories: &mut [Story],
        cameras: &mut Vec<usize>,
        may: impl Fn(&Story) -> bool,
    ) -> Option<Due> {
        loop {
            let free = |index: usize| !cameras.contains(&index) && may(&stories[index]);
            let (index, frame) = self.slots.take_another(free)?;
            cameras.push(index);
            if let Some(due) = self.due(sessions, stories, index, frame) {
                return Some(due);
            }
        }
    }

    /// Looks at all groups at the same time. What each look showed, in their order; `None` where it failed, which is told.
    fn look(
        &self,
        sessions: &mut Sessions,
        stories: &mut [Story],
        groups: &[Group],
    ) -> Vec<Option<Vec<Look>>> {
        let mut lookouts: Vec<_> = stories.iter_mut().map(|story| Some(&mut story.lookout)).collect();
        let mut of = |due: &Due| lookouts[due.index].take().expect("one frame of each camera");
        let jobs = groups.iter().map(|group| group.iter().map(|due| (due, of(due))).collect()).collect();
        let done = self.infer(|| sessions.each(jobs, look));
        let settle = |(group, done): (&Group, thread::Result<Result<_, DetectError>>)| {
            let cameras: Vec<usize> = group.iter().map(|due| due.index).collect();
            self.settle(&cameras, done.map(|looks| looks.map_err(LookError::from)), sessions, stories)
        };
        groups.iter().zip(done).map(settle).collect()
    }

    /// What came of a step for some cameras. A failure or a panic is told; then nothing comes of it.
    fn settle<T>(
        &self,
        cameras: &[usize],
        done: thread::Result<Result<T, LookError>>,
        sessions: &Sessions,
        stories: &mut [Story],
    ) -> Option<T> {
        self.board.detector.looking(None);
        let names = || -> Vec<&str> {
            cameras.iter().map(|index| self.board.cameras[*index].name.as_str()).collect()
        };
        match done {
            Ok(Ok(done)) => return Some(done),
            Ok(Err(error)) => {
                tracing::warn!(cameras = ?names(), "cannot analyse a frame: {error}");
                self.board.detector.failed(&error.to_string());
            }
            Err(_) => {
                // The panic itself is logged by the hook; these cameras forget their tracks, the others keep theirs.
                tracing::error!(cameras = ?names(), "analysing a frame panicked; its tracks start anew");
                let names = names().join(", ");
                self.board.detector.failed(&format!("analysing a frame of camera {names} panicked"));
                for &index in cameras {
                    stories[index].lookout = self.story(index, &sessions.model().thresholds).lookout;
                    for (_, id) in stories[index].lasting.drain() {
                        self.outbox.change(AlertChange { id, change: Change::Over });
                    }
                }
            }
        }
        None
    }

    /// Raises the alerts that a look at a frame gives cause for.
    fn tell(&self, model: &ModelInfo, story: &mut Story, due: &Due, look: Look, took: Duration) -> Told {
        let Due { index, frame, now, .. } = due;
        let seen = story.lookout.judge(frame, *now, look);
        if let Some(woken) = seen.woken {
            self.board.detector.woke(woken.elapsed());
        }
        let mut alerts = Vec::new();
        if frame.is_audit() {
            return Told { seen, alerts };
        }
        if let Some(detections) = seen.of_all() {
            self.desk.window.offer(|| Glimpse {
                camera: *index,
                frame: frame.clone(),
                at: *now,
                detections: detections.to_vec(),
                thresholds: model.thresholds.clone(),
                took,
            });
        }
        for (place, incident) in seen.incidents.iter().enumerate() {
            let alert = self.raise(incident, &model.name, frame.arrived(), story);
            alerts.extend(alert.map(|id| (id, place)));
        }
        self.slots.press(*index, seen.undecided || !story.lasting.is_empty());
        Told { seen, alerts }
    }

    /// Redacts a frame for whoever wants pictures of it: alerts, and operators.
    fn show(&self, detector: &mut Detector, story: &Story, due: &Due, told: Told) -> Result<(), LookError> {
        let Due { index, frame, picture, now, .. } = due;
        let Told { seen, alerts } = told;
        if frame.is_audit() || (alerts.is_empty() && !self.snapshots.are_wanted(*index)) {
            return Ok(());
        }
        let (lookout, planes) = (&story.lookout, &picture.view());
        let (masks, camera) = (&lookout.view().masks, &lookout.card().name);
        let everybody =
            self.infer(|| lookout.everybody(detector, planes, *now, &seen)).inspect_err(|error| {
                for (alert, _) in &alerts {
                    tracing::warn!(%camera, %alert, "alert without pictures: {error}");
                }
                lookout.card().gate().call(); // whoever asked for a picture gets one of a later frame
            })?;
        let bring = |incident: Option<&Incident>, label: &str, wanted: Wanted| {
            let redacted = Redacted::of(planes, masks, everybody.as_deref(), incident, label);
            self.darkroom.bring(Order { camera: camera.clone(), redacted, wanted });
        };
        for (alert, place) in alerts {
            let incident = &seen.incidents[place];
            let zone = incident.zone.as_ref().map_or("hazard", Name::as_str);
            let label = format!("{zone} {} {:.2}", incident.class, incident.confidence);
            bring(Some(incident), &label, Wanted::Evidence { alert, severity: incident.severity });
        }
        let askers = self.snapshots.take_askers(*index);
        if !askers.is_empty() {
            bring(None, camera.as_str(), Wanted::Snapshot(askers));
        }
        Ok(())
    }
}

/// Runs a step that may fail or panic.
fn guarded<T>(step: impl FnOnce() -> Result<T, LookError>) -> thread::Result<Result<T, LookError>> {
    catch_unwind(AssertUnwindSafe(step))
}

/// Looks at a group's frames at once, or at one after the other.
fn look(detector: &mut Detector, group: Vec<(&Due, &mut Lookout)>) -> Result<Vec<Look>, DetectError> {
    let frames = || group.iter().map(|(due, lookout)| (*due, &**lookout));
    if group.len() > 1
        && let Some(found) = with_glances(frames(), |glances| detector.detect_closely(glances))
        && let Some(found) = found?
    {
        return Ok(found);
    }
    let alone = |(due, lookout): (&Due, &mut Lookout)| {
        lookout.look(detector, &due.picture.view(), due.wish.as_deref())
    };
    group.into_iter().map(alone).collect()
}

/// What of these frames is worth a close look. `None` where the whole picture of one is due.
fn with_glances<'a, T>(
    frames: impl Iterator<Item = (&'a Due, &'a Lookout)>,
    then: impl FnOnce(&[Glance<'_>]) -> T,
) -> Option<T> {
    let frames: Vec<_> = frames.map(|(due, lookout)| (due, lookout, due.picture.view())).collect();
    let glances = frames.iter().map(|(due, lookout, frame)| {
        let masks = &lookout.view().masks[..];
        due.wish.as_deref().map(|objects| Glance { frame, masks, objects })
    });
    glances.collect::<Option<Vec<_>>>().map(|glances| then(&glances))
}
