//! What one look at a picture showed: what counts, and whoever else may be in it.

use crate::detection::Detection;
use crate::nms;

/// Boxes that overlap more than this have their heads at one place, to a twentieth of their height: what is redacted of one
/// covers the other's.
const ONE_HEAD: f32 = 0.95;

/// Most hidden people of one look whose heads are redacted; beyond it the faintest are left out.
const HIDDEN_MAX: usize = 256;

/// What one look showed.
#[derive(Clone, Debug, PartialEq)]
pub struct Look {
    /// Best score first.
    pub detections: Vec<Detection>,
    /// Boxes with a head that overlap a better one of their class too much to count as another object: most show the same
    /// person once more, some whoever stands behind. Best score first.
    pub hidden: Vec<Detection>,
    /// Whether it was at the whole picture. Otherwise nothing is known of what lies outside of what moved or was known.
    pub whole: bool,
}

impl Look {
    /// Whoever may be in the picture, for redaction: all detections, and the hidden ones whose heads may lie elsewhere.
    pub fn everybody(&self) -> Vec<Detection> {
        let all = self.detections.iter().chain(&self.hidden).copied().collect();
        let apart = nms::suppress(all, ONE_HEAD);
        let hidden = apart.into_iter().filter(|found| !self.detections.contains(found));
        self.detections.iter().copied().chain(hidden.take(HIDDEN_MAX)).collect()
    }
}

#[cfg(test)]
mod tests {
    use sharp_eyes_protocol::class::ObjectClass;

    use super::*;
    use crate::geometry::Rect;

    fn person(left: f32, top: f32, height: f32, score: f32) -> Detection {
        let bounds = Rect { left, top, width: 0.1, height };
        Detection { class: ObjectClass::Person, score, bounds }
    }

    #[test]
    fn whoever_stands_behind_is_somebody_and_a_second_box_of_the_same_is_not() {
        let (front, faint) = (person(0.4, 0.3, 0.4, 0.9), person(0.8, 0.3, 0.4, 0.06));
        let (again, taller) = (person(0.4005, 0.3, 0.4, 0.8), person(0.4, 0.22, 0.48, 0.1));
        let look = Look { detections: vec![front, faint], hidden: vec![again, taller], whole: true };
        assert_eq!(look.everybody(), [front, faint, taller]);
        // What is there is there, however much better what it hides is seen.
        let (side, between) = (person(0.434, 0.3, 0.4, 0.3), person(0.433, 0.3, 0.4, 0.6));
        let look = Look { detections: vec![front, side], hidden: vec![between], whole: false };
        assert_eq!(look.everybody(), [front, side, between]);
    }

    #[test]
    fn a_crowd_of_hidden_people_is_bounded_and_keeps_those_seen_best() {
        let at = |index: usize| person(index as f32, 0.3, 0.4, 1.0 - index as f32 / 1000.0);
        let look = Look { detections: Vec::new(), hidden: (0..500).map(at).collect(), whole: true };
        let everybody = look.everybody();
        assert_eq!((everybody.len(), everybody.last()), (HIDDEN_MAX, Some(&at(HIDDEN_MAX - 1))));
    }
}
