//! Where to look in the next frame: at the whole picture now and then, and in between closely at what is known and at what
//! moves.
//!
//! A model sees the whole picture shrunk, and nobody of whom ten pixels are left. What matters of a village square lies in
//! a few places, and those fit into the same tensor much larger ([`crate::packing`]).

use std::time::Duration;

use crate::detection::{DetectError, Detection, Thresholds};
use crate::detector::{Detector, Glance};
use crate::frame::FrameView;
use crate::geometry::{Polygon, Rect};
use crate::look::Look;
use crate::motion::{Background, Miniature};
use crate::packing::Object;
use crate::track::Track;

/// How long what moves takes to belong to the background once it stands still.
const SETTLE: Duration = Duration::from_secs(1);

/// What decides, for one camera.
#[derive(Clone, Debug, Default)]
pub struct Attention {
    background: Option<Background>,
    compared: Duration,
    /// Where something moved in the last frame.
    moved: Vec<Rect>,
    /// What the last look showed, if it was at the whole picture. Every other one is: it finds what stands still, and what a
    /// close look cuts off.
    seen: Option<Vec<Object>>,
}

impl Attention {
    /// Nothing was seen yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Where the frame of this moment is worth a close look: at what moves in its miniature, what the last look showed, and
    /// the tracks as they were before it. `None` where the whole picture is due.
    pub fn wish(&mut self, miniature: &Miniature, now: Duration, tracks: &[Track]) -> Option<Vec<Object>> {
        let elapsed = now.saturating_sub(self.compared);
        let background = self.background.get_or_insert_with(|| Background::of(miniature));
        self.moved = background.areas(miniature);
        background.learn(miniature, 1.0 - (-elapsed.as_secs_f32() / SETTLE.as_secs_f32()).exp());
        self.compared = now;
        let seen = self.seen.take()?;
        Some(self.worth(seen, tracks))
    }

    /// Whether the next frame is worth a close look, if anything in it is.
    pub fn is_close_next(&self) -> bool {
        self.seen.is_some()
    }

    /// Looks at a frame closely where that was wished for and shows more, and else at all of it. Either costs one inference.
    pub fn look(
        &mut self,
        detector: &mut Detector,
        frame: &FrameView<'_>,
        masks: &[Polygon],
        wish: Option<&[Object]>,
    ) -> Result<Look, DetectError> {
        if let Some(objects) = wish
            && let Some(look) = closely(detector, frame, masks, objects)?
        {
            return Ok(look);
        }
        let look = detector.look(frame, masks)?;
        self.looked_at_all(&look.detections, &detector.model().thresholds);
        Ok(look)
    }

    /// The other kind of look at the frame of the last one: at all of the picture after a close look, at what is worth a close
    /// one after a look at all of it. `None` where a close one would not show more.
    pub fn look_again(
        &self,
        detector: &mut Detector,
        frame: &FrameView<'_>,
        masks: &[Polygon],
        tracks: &[Track],
    ) -> Result<Option<Look>, DetectError> {
        match &self.seen {
            None => detector.look(frame, masks).map(Some),
            Some(seen) => closely(detector, frame, masks, &self.worth(seen.clone(), tracks)),
        }
    }

    /// What was seen, what moves, and the tracks.
    fn worth(&self, mut objects: Vec<Object>, tracks: &[Track]) -> Vec<Object> {
        objects.extend(self.moved.iter().map(|&bounds| Object { bounds, hazard: false }));
        let of = |track: &Track| Object { bounds: track.bounds(), hazard: track.class().is_hazard() };
        objects.extend(tracks.iter().map(of));
        objects
    }

    /// What is faint counts, too: of something large, a close look at what moves would show a part.
    fn looked_at_all(&mut self, detections: &[Detection], thresholds: &Thresholds) {
        let counts = |d: &&Detection| d.score >= thresholds.of(d.class) / 2.0;
        let of = |d: &Detection| Object { bounds: d.bounds, hazard: d.class.is_hazard() };
        self.seen = Some(detections.iter().filter(counts).map(of).collect());
    }
}

/// A close look at one frame alone.
fn closely(
    detector: &mut Detector,
    frame: &FrameView<'_>,
    masks: &[Polygon],
    objects: &[Object],
) -> Result<Option<Look>, DetectError> {
    let found = detector.detect_closely(&[Glance { frame, masks, objects }])?;
    Ok(found.map(|mut of_each| of_each.swap_remove(0)))
}

#[cfg(test)]
mod tests {
    use sharp_eyes_protocol::class::ObjectClass;

    use super::*;
    use crate::frame::PixelFormat;
    use crate::testing::TestFrame;

    /// A street of 640x360 with somebody of 16x40 pixels, if he is there.
    fn street(somebody: Option<(usize, usize)>) -> Miniature {
        let frame = TestFrame::new(640, 360, PixelFormat::I420, |x, y| {
            let he = somebody
                .is_some_and(|(left, top)| (left..left + 16).contains(&x) && (top..top + 40).contains(&y));
            [if he { 200 } else { 80 }, 128, 128]
        });
        Miniature::of(&frame.view(), &[])
    }

    #[test]
    fn every_other_look_is_a_close_one_at_what_moves_and_what_was_seen() {
        let thresholds = Thresholds::default();
        let detection = |left: f32, score: f32| Detection {
            class: ObjectClass::Person,
            score,
            bounds: Rect { left, top: 0.2, width: 0.1, height: 0.3 },
        };
        let mut attention = Attention::new();
        let mut now = Duration::ZERO;
        let mut objects = |attention: &mut Attention, somebody| {
            now += Duration::from_millis(200);
            attention.wish(&street(somebody), now, &[])
        };
        assert_eq!(objects(&mut attention, None), None, "the first look is at everything");
        attention.looked_at_all(&[], &thresholds);
        assert_eq!(objects(&mut attention, None), Some(Vec::new()), "nothing is worth a close look");
        attention.looked_at_all(&[detection(0.1, 0.3), detection(0.5, 0.02)], &thresholds);
        let moved =
            Rect { left: 320.0 / 640.0, top: 120.0 / 360.0, width: 16.0 / 640.0, height: 40.0 / 360.0 };
        let found = objects(&mut attention, Some((320, 120))).unwrap();
        assert_eq!(found[0].bounds, detection(0.1, 0.3).bounds, "faint, but there");
        assert_eq!(found.len(), 2, "what is no more than noise does not count");
        assert!(found[1].bounds.iou(&moved) > 0.6, "{:?}", found[1]);
        assert_eq!(objects(&mut attention, Some((324, 120))), None, "after a close look");
    }
}
