//! What happens to each frame of a clip: the detector, the tracker and the rules look at it, and it is filmed.

use std::path::Path;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use sharp_eyes_protocol::report::GateState;
use sharp_eyes_vision::{DetectError, Detector, Moment};

use super::film::{Filming, Sight};
use super::report::{Replayed, Told, clock};
use super::{ReplayError, name_of};
use crate::analysis::Lookout;
use crate::board::CameraCard;
use crate::camera::{ClipError, Frame};

/// Everything that frames meet, and what came of it.
pub(super) struct Stage {
    detector: Detector,
    lookout: Lookout,
    film: Option<Filming>,
    beginning: Instant,
    wall: Timestamp,
    incidents: Vec<Told>,
    /// How far the clip was played.
    passed: Duration,
    /// From when to when the camera slept; open at the end while it does.
    asleep: Vec<(Duration, Option<Duration>)>,
    failure: Option<ReplayError>,
}

impl Stage {
    pub(super) fn new(
        detector: Detector,
        lookout: Lookout,
        film: Option<Filming>,
        beginning: Instant,
        wall: Timestamp,
    ) -> Self {
        Self {
            detector,
            lookout,
            film,
            beginning,
            wall,
            incidents: Vec::new(),
            passed: Duration::ZERO,
            asleep: Vec::new(),
            failure: None,
        }
    }

    /// Looks at a frame as the analysis of live cameras does. The first failure is kept, and ends the clip.
    pub(super) fn frame(&mut self, frame: &Frame) {
        if self.failure.is_none() {
            let looked = self.look(frame);
            self.failure = looked.err();
        }
    }

    fn look(&mut self, frame: &Frame) -> Result<(), ReplayError> {
        let at = frame.arrived().saturating_duration_since(self.beginning);
        let failed = |reason: String| ReplayError::Frame { at: clock(at), reason };
        let now = self.moment(at);
        let Self { detector, lookout, film, incidents, .. } = self;
        let looked = frame.view(|planes| {
            let failed = |error: DetectError| failed(error.to_string());
            let wish = lookout.wish(frame, planes, now);
            let look = lookout.look(detector, planes, wish.as_deref()).map_err(failed)?;
            let seen = lookout.judge(frame, now, look);
            let rules = &lookout.view().rules;
            let broken = &seen.incidents;
            incidents.extend(broken.iter().map(|incident| Told::of(incident, &rules[incident.rule].name)));
            match film {
                // What an audit shows does not count, and its time may lie after that of what wakes the camera.
                Some(film) if !frame.is_audit() => {
                    let everybody = lookout.everybody(detector, planes, now, &seen).map_err(failed)?;
                    film.frame(planes, &Sight { lookout, now, everybody, broken })
                }
                _ => Ok(()),
            }
        });
        looked.map_err(|error| failed(error.to_string()))?
    }

    fn moment(&self, at: Duration) -> Moment {
        let elapsed = SignedDuration::try_from(at).unwrap_or(SignedDuration::MAX);
        Moment::new(at, self.wall.checked_add(elapsed).unwrap_or(Timestamp::MAX))
    }

    /// One more access unit has passed. False: no more of them are wanted.
    pub(super) fn pass(&mut self, at: Duration, gate: GateState) -> bool {
        self.passed = at;
        self.lookout.keep_awake(self.moment(at));
        let sleeps = self.asleep.last().is_some_and(|(_, until)| until.is_none());
        match (gate, self.asleep.last_mut()) {
            (GateState::Asleep, _) if !sleeps => self.asleep.push((at, None)),
            (GateState::Awake, Some((_, until))) if sleeps => *until = Some(at),
            _ => {}
        }
        if let (Some(film), Some((since, None))) = (&mut self.film, self.asleep.last())
            && self.failure.is_none()
        {
            self.failure = film.sleep(*since, at).err();
        }
        self.failure.is_none()
    }

    /// What came of it all. A clip that broke off after something was seen of it is a damaged clip.
    pub(super) fn end(
        &mut self,
        clip: &Path,
        card: &CameraCard,
        played: Result<Duration, ClipError>,
        took: Duration,
    ) -> Result<Replayed, ReplayError> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        let (duration, damage) = match played {
            Ok(duration) => (duration, None),
            Err(error) if card.analysed.get() == 0 => return Err(error.into()),
            Err(error) => (self.passed, Some(error.to_string())),
        };
        if let Some(film) = self.film.take() {
            film.finish()?;
        }
        let health = card.gate().health(self.beginning + duration);
        let asleep = self.asleep.iter().map(|(from, until)| (*from, until.unwrap_or(duration)));
        let asleep = asleep.filter(|(from, until)| from < until);
        Ok(Replayed {
            clip: name_of(clip),
            camera: card.name.clone(),
            model: self.detector.model().name.clone(),
            duration,
            took,
            received: card.received.get(),
            decoded: card.decoded.get(),
            analysed: card.analysed.get(),
            gate: health,
            asleep: asleep.collect(),
            incidents: std::mem::take(&mut self.incidents),
            damage,
        })
    }
}
