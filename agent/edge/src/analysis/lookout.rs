//! One camera's frames to incidents, the same for a live camera and for a clip.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use jiff::tz::TimeZone;
use sharp_eyes_vision::{
    Attention, DetectError, Detection, Detector, FrameView, Incident, Look, Miniature, Moment, Object, Scene,
    SceneOptions, Thresholds,
};

use crate::board::CameraCard;
use crate::camera::{Frame, Sight};
use crate::config::View;

/// Tracks and rules of one camera, with what its gate must know of them.
pub(crate) struct Lookout {
    view: View,
    thresholds: Thresholds,
    attention: Attention,
    scene: Scene,
    card: Arc<CameraCard>,
    /// How often the camera had woken up when the last frame came.
    wakes: u64,
}

/// What one frame showed.
pub(crate) struct Seen {
    /// Everything that the detector saw, faint ones too.
    look: Look,
    /// The rules that it broke; none in an audit.
    pub(crate) incidents: Vec<Incident>,
    /// Whether something is in sight that may soon break a rule.
    pub(crate) undecided: bool,
    /// When what woke the camera had arrived, if this is the first look since.
    pub(crate) woken: Option<Instant>,
}

impl Seen {
    /// What the detector saw, if it looked at the whole picture.
    pub(crate) fn of_all(&self) -> Option<&[Detection]> {
        self.look.whole.then_some(&self.look.detections)
    }
}

impl Lookout {
    /// Nothing was seen yet.
    pub(crate) fn new(
        view: View,
        thresholds: Thresholds,
        time_zone: TimeZone,
        card: Arc<CameraCard>,
    ) -> Self {
        let options = SceneOptions { thresholds: thresholds.clone(), rules: view.rules.clone(), time_zone };
        let (attention, scene) = (Attention::new(), Scene::new(options));
        Self { view, thresholds, attention, scene, card, wakes: 0 }
    }

    /// Another model looks from now on.
    pub(crate) fn set_thresholds(&mut self, thresholds: &Thresholds) {
        self.thresholds = thresholds.clone();
        self.scene.set_thresholds(thresholds.clone());
    }

    /// What the camera's frames are judged by.
    pub(crate) fn view(&self) -> &View {
        &self.view
    }

    /// Whose frames these are.
    pub(crate) fn card(&self) -> &CameraCard {
        &self.card
    }

    /// Tracker and rules.
    pub(crate) fn scene(&self) -> &Scene {
        &self.scene
    }

    /// Keeps the camera awake while one of its rules wants that. Asked every second or so, also of one that sleeps.
    pub(crate) fn keep_awake(&self, now: Moment) {
        if self.view.rules.iter().any(|rule| rule.wakeful) {
            self.card.gate().keep_awake(self.scene.is_wakeful(now));
        }
    }

    /// The numbers of the incidents that are over by now.
    pub(crate) fn over(&mut self, now: Moment) -> Vec<u64> {
        self.scene.over(now)
    }

    /// Where a frame that arrived `now` is worth a close look; `None` where the whole picture is due. Before each
    /// [`Lookout::look`] or [`Lookout::judge`].
    pub(crate) fn wish(&mut self, frame: &Frame, planes: &FrameView<'_>, now: Moment) -> Option<Vec<Object>> {
        let woken = self.card.gate().wakes();
        if std::mem::replace(&mut self.wakes, woken) != woken {
            self.scene.resume(now);
        }
        if !self.view.look_closer || frame.is_audit() {
            return None;
        }
        let made = || Cow::Owned(Miniature::of(planes, &self.view.masks));
        let miniature = frame.miniature().map_or_else(made, Cow::Borrowed);
        self.attention.wish(&miniature, now.monotonic, self.scene.tracks())
    }

    /// Whether the next frame is worth a close look, if anything in it is.
    pub(crate) fn is_close_next(&self) -> bool {
        self.view.look_closer && self.attention.is_close_next()
    }

    /// Looks at a frame as it was wished for.
    pub(crate) fn look(
        &mut self,
        detector: &mut Detector,
        planes: &FrameView<'_>,
        wish: Option<&[Object]>,
    ) -> Result<Look, DetectError> {
        self.attention.look(detector, planes, &self.view.masks, wish)
    }

    /// Shows tracker and rules what a look at a frame that arrived `now` has shown, and tells the gate.
    pub(crate) fn judge(&mut self, frame: &Frame, now: Moment, look: Look) -> Seen {
        let detections = &look.detections;
        self.card.analysed.increment();
        let counts = |d: &&Detection| d.score >= self.thresholds.of(d.class);
        self.card.detections.add(detections.iter().filter(counts).count() as u64);
        if frame.is_audit() {
            let missed = self.scene.would_learn(now, detections);
            self.card.gate().audited(frame.arrived(), missed);
            return Seen { look, incidents: Vec::new(), undecided: false, woken: None };
        }
        // Of a camera that was turned away, places in the picture are not where its rules say.
        let mut incidents = Vec::new();
        if !self.card.is_displaced() {
            let untracked = self.scene.overflow();
            incidents = self.scene.observe(now, detections);
            self.card.untracked.add(self.scene.overflow() - untracked);
        }
        let undecided = self.scene.is_undecided(now);
        let sight = match () {
            () if undecided => Sight::Stirring,
            () if !self.scene.is_sure(now, detections) => Sight::Unsure,
            () => Sight::Calm,
        };
        let mut gate = self.card.gate();
        gate.analysed(frame.arrived(), sight);
        let woken = gate.take_woken();
        drop(gate);
        Seen { look, incidents, undecided, woken }
    }

    /// Everybody whose head a picture of this frame could show, the doubtful ones and the half hidden ones too: whoever is found
    /// by a look at all of it or by a close one, and those who were there before and are overlooked now. `None` where the model
    /// knows no people, or there are too many to know all.
    pub(crate) fn everybody(
        &self,
        detector: &mut Detector,
        planes: &FrameView<'_>,
        now: Moment,
        seen: &Seen,
    ) -> Result<Option<Vec<Detection>>, DetectError> {
        if !detector.model().knows_people() {
            return Ok(None);
        }
        let Some(mut everybody) = seen.look.everybody() else { return Ok(None) };
        if self.view.look_closer {
            let (masks, tracks) = (&self.view.masks, self.scene.tracks());
            let again = self.attention.look_again(detector, planes, masks, tracks)?;
            if let Some(again) = again {
                let Some(others) = again.everybody() else { return Ok(None) };
                everybody.extend(others);
            }
        }
        let overlooked = self.scene.tracks().iter().filter(|track| track.seen() != now.monotonic);
        everybody.extend(overlooked.map(|track| Detection {
            class: track.class(),
            score: track.score(),
            bounds: track.bounds(),
        }));
        Ok(Some(everybody))
    }
}
