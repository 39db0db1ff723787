//! What one look at a picture showed: what counts, and whoever else may be in it.

use crate::detection::{Detection, has_head};
use crate::nms::{OVERLAP, Split, split};

/// What one look showed.
#[derive(Clone, Debug, PartialEq)]
pub struct Look {
    /// Best score first.
    pub detections: Vec<Detection>,
    /// Boxes with a head that overlap a better one of their class too much to count as another object: most show the same
    /// person once more, some whoever stands behind. Best score first.
    pub hidden: Vec<Detection>,
    /// There were more people than a look can name: some of them are in neither list.
    pub crowded: bool,
    /// Whether it was at the whole picture. Otherwise nothing is known of what lies outside of what moved or was known.
    pub whole: bool,
}

impl Look {
    /// Of all boxes that a model answered.
    pub(crate) fn of(all: Vec<Detection>, whole: bool) -> Self {
        let Split { kept: detections, suppressed: mut hidden, lost_heads: crowded } = split(all, OVERLAP);
        hidden.retain(|detection| has_head(detection.class));
        Self { detections, hidden, crowded, whole }
    }

    /// Whoever may be in the picture, for redaction. `None` where some of them are not known: then nobody's head can be
    /// told from the rest.
    pub fn everybody(&self) -> Option<Vec<Detection>> {
        (!self.crowded).then(|| self.detections.iter().chain(&self.hidden).copied().collect())
    }
}

#[cfg(test)]
mod tests {
    use sharp_eyes_protocol::class::ObjectClass;

    use super::*;
    use crate::geometry::Rect;
    use crate::nms::DETECTIONS_MAX;

    fn person(left: f32, top: f32, height: f32, score: f32) -> Detection {
        let bounds = Rect { left, top, width: 0.1, height };
        Detection { class: ObjectClass::Person, score, bounds }
    }

    #[test]
    fn whoever_stands_behind_is_somebody_and_no_object() {
        let (front, faint) = (person(0.4, 0.3, 0.4, 0.9), person(0.8, 0.3, 0.4, 0.06));
        let behind = person(0.4, 0.22, 0.48, 0.1);
        let sheep = Detection { class: ObjectClass::Sheep, ..person(0.1, 0.3, 0.4, 0.5) };
        let again = Detection { score: 0.4, ..sheep };
        let look = Look::of(vec![behind, sheep, again, front, faint], true);
        assert_eq!(look.detections, [front, sheep, faint]);
        assert_eq!(look.hidden, [behind]);
        assert_eq!(look.everybody().unwrap(), [front, sheep, faint, behind]);
    }

    #[test]
    fn nobody_is_forgotten_for_a_crowd_and_too_large_a_crowd_is_known_as_one() {
        // Fifty boxes on each of thirty clear people, and somebody far away.
        let of_crowd = |at: usize| person((at % 30) as f32 * 0.2, 0.3, 0.4 + at as f32 * 1e-5, 0.9);
        let lone = person(0.1, 0.9, 0.05, 0.06);
        let look = Look::of((0..1500).map(of_crowd).chain([lone]).collect(), true);
        assert_eq!(look.detections.len(), 31);
        let everybody = look.everybody().unwrap();
        assert_eq!(everybody.len(), 1501);
        assert!(everybody.contains(&lone));
        let apart = |at: usize| person(at as f32, 0.3, 0.4, 0.9);
        let crowd = |people: usize| Look::of((0..people).map(apart).collect(), true);
        assert!(crowd(DETECTIONS_MAX).everybody().is_some());
        assert_eq!(crowd(DETECTIONS_MAX + 1).everybody(), None);
    }
}
