//! One round of the analysis: a frame whose turn it is, or the frames of several cameras that share an inference because a
//! close look is due at each and all fit into one tensor.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use sharp_eyes_protocol::topic::Name;
use sharp_eyes_vision::{DetectError, Detector, FrameView, Glance, Look, Moment, Rect, Redacted};

use super::{Analysis, Snapshot, Story};
use crate::camera::{Frame, FrameError, Picture};
use crate::models::shadow::Glimpse;
use crate::outbox::{AlertChange, Change, NewEvidence};

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
    wish: Option<Vec<Rect>>,
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
        detector: &mut Detector,
        stories: &mut [Story],
        index: usize,
        frame: Frame,
    ) -> Option<Due> {
        let started = Instant::now();
        let due = self.guarded(&[index], detector, stories, |_, stories| {
            let (picture, now) = (frame.map()?, self.clock.at(frame.arrived()));
            let wish = stories[index].lookout.wish(&frame, &picture.view(), now);
            Ok(Due { index, frame, picture, now, wish })
        });
        if due.is_none() {
            self.board.cameras[index].looked(started, true);
        }
        due
    }

    /// Looks at a frame, and at what waits and fits in with it. Returns a frame that was taken and did not fit.
    pub(super) fn round(&self, detector: &mut Detector, stories: &mut [Story], first: Due) -> Option<Due> {
        let started = Instant::now();
        let (round, left) = self.gather(detector, stories, first);
        let cameras: Vec<usize> = round.iter().map(|due| due.index).collect();
        let looks = self.guarded(&cameras, detector, stories, |detector, stories| {
            self.infer(|| look(detector, stories, &round)).map_err(LookError::from)
        });
        let inferred = looks.is_some().then(|| started.elapsed());
        inferred.inspect(|took| self.board.detector.inferred(*took));
        let mut looks = looks.into_iter().flatten();
        let mut blind = vec![true; stories.len()]; // while it lasts, if it lasts long
        for due in &round {
            let told = looks.next().and_then(|look| {
                self.guarded(&[due.index], detector, stories, |detector, stories| {
                    self.tell(detector, &mut stories[due.index], due, look, inferred.unwrap_or_default())
                })
            });
            if told.is_some() {
                self.board.detector.running();
            }
            blind[due.index] = !self.board.cameras[due.index].looked(started, told.is_none());
        }
        let (least, usual) = LONG_LOOK;
        let took = started.elapsed();
        if took > least.max(self.board.detector.mean() * usual) {
            let others = self.board.cameras.iter().zip(blind).filter(|(_, blind)| *blind);
            others.for_each(|(card, _)| card.waited(took));
        }
        left
    }

    /// What shares an inference with a frame, and a frame that was taken for that and does not fit.
    fn gather(&self, detector: &mut Detector, stories: &mut [Story], first: Due) -> (Vec<Due>, Option<Due>) {
        let fits = |stories: &[Story], round: &[Due], detector: &Detector| {
            with_glances(stories, round, |glances| detector.fit_together(glances)).unwrap_or(false)
        };
        let mut round = vec![first];
        if !fits(stories, &round, detector) {
            return (round, None);
        }
        while round.len() < CAMERAS_MAX {
            let close_next = |index: usize| {
                stories[index].lookout.is_close_next() && round.iter().all(|due| due.index != index)
            };
            let Some((index, frame)) = self.slots.take_another(close_next) else { break };
            let Some(due) = self.due(detector, stories, index, frame) else { continue };
            round.push(due);
            if !fits(stories, &round, detector) {
                let left = round.pop();
                return (round, left);
            }
        }
        (round, None)
    }

    /// Runs a step for some cameras. A failure or a panic is told; then nothing comes of it.
    fn guarded<T>(
        &self,
        cameras: &[usize],
        detector: &mut Detector,
        stories: &mut [Story],
        step: impl FnOnce(&mut Detector, &mut [Story]) -> Result<T, LookError>,
    ) -> Option<T> {
        let done = catch_unwind(AssertUnwindSafe(|| step(detector, stories)));
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
                    stories[index].lookout = self.story(index, detector).lookout;
                    for (_, id) in stories[index].lasting.drain() {
                        self.outbox.change(AlertChange { id, change: Change::Over });
                    }
                }
            }
        }
        None
    }

    /// Tells what a look at a frame has shown: alerts, then their pictures.
    fn tell(
        &self,
        detector: &mut Detector,
        story: &mut Story,
        due: &Due,
        look: Look,
        took: Duration,
    ) -> Result<(), LookError> {
        let Due { index, frame, picture, now, .. } = due;
        let (index, now, planes) = (*index, *now, &picture.view());
        let seen = story.lookout.judge(frame, planes, now, look);
        if let Some(woken) = seen.woken {
            self.board.detector.woke(woken.elapsed());
        }
        if frame.is_audit() {
            return Ok(());
        }
        if let Some(detections) = seen.of_all() {
            self.desk.window.offer(|| Glimpse {
                camera: index,
                frame: frame.clone(),
                at: now,
                detections: detections.to_vec(),
                thresholds: detector.model().thresholds.clone(),
                took,
            });
        }
        let mut wanting = Vec::new();
        for incident in &seen.incidents {
            let alert = self.raise(incident, &detector.model().name, frame.arrived(), story);
            wanting.extend(alert.map(|id| (id, incident)));
        }
        self.slots.press(index, seen.undecided || !story.lasting.is_empty());
        if wanting.is_empty() && !self.snapshots.are_wanted(index) {
            return Ok(());
        }
        // Only now: an alert never waits for its pictures.
        let lookout = &story.lookout;
        let (masks, camera) = (&lookout.view().masks, &lookout.card().name);
        let everybody =
            self.infer(|| lookout.everybody(detector, planes, now, &seen)).inspect_err(|error| {
                for (alert, _) in &wanting {
                    tracing::warn!(%camera, %alert, "alert without pictures: {error}");
                }
                lookout.card().gate().call(); // whoever asked for a picture gets one of a later frame
            })?;
        for (alert, incident) in wanting {
            let label = incident.zone.as_ref().map_or("hazard", Name::as_str);
            let label = format!("{label} {} {:.2}", incident.class, incident.confidence);
            let redacted = Redacted::of(planes, masks, &everybody, Some(incident), &label);
            match self.pictures(&redacted) {
                Ok((thumbnail, picture)) => {
                    let severity = incident.severity;
                    self.outbox.attach(NewEvidence { alert, severity, thumbnail, picture });
                }
                Err(error) => tracing::warn!(%camera, %alert, "alert without pictures: {error}"),
            }
        }
        self.snapshots.serve(index, || {
            let redacted = Redacted::of(planes, masks, &everybody, None, camera.as_str());
            let pictures =
                self.pictures(&redacted).map(|(thumbnail, picture)| Snapshot { thumbnail, picture });
            pictures.inspect_err(|error| tracing::warn!(%camera, "no snapshot: {error}")).ok()
        });
        Ok(())
    }
}

/// Looks at all of them at once, or at one after the other.
fn look(detector: &mut Detector, stories: &mut [Story], round: &[Due]) -> Result<Vec<Look>, DetectError> {
    if round.len() > 1
        && let Some(found) = with_glances(stories, round, |glances| detector.detect_closely(glances))
        && let Some(found) = found?
    {
        return Ok(found.into_iter().map(|detections| Look { detections, whole: false }).collect());
    }
    let alone =
        |due: &Due| stories[due.index].lookout.look(detector, &due.picture.view(), due.wish.as_deref());
    round.iter().map(alone).collect()
}

/// What of these frames is worth a close look. `None` where the whole picture of one is due.
fn with_glances<T>(stories: &[Story], round: &[Due], then: impl FnOnce(&[Glance<'_>]) -> T) -> Option<T> {
    let views: Vec<FrameView<'_>> = round.iter().map(|due| due.picture.view()).collect();
    let glances = round.iter().zip(&views).map(|(due, frame)| {
        let masks = &stories[due.index].lookout.view().masks[..];
        due.wish.as_deref().map(|objects| Glance { frame, masks, objects })
    });
    glances.collect::<Option<Vec<_>>>().map(|glances| then(&glances))
}
