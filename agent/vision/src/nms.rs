//! Non-maximum suppression: many boxes of one object to one.

use crate::detection::Detection;

/// Boxes of one class that overlap more than this are one object. Lower merges people who walk side by side,
/// higher leaves two boxes on one.
pub const OVERLAP: f32 = 0.5;

/// Most detections that one frame can yield. Beyond it the faintest are left out: a model that sees a thousand
/// objects is broken, and suppression takes the square of their number.
pub const DETECTIONS_MAX: usize = 1000;

/// Keeps, class by class, the best of all boxes that overlap each other more than `overlap`. The result is sorted,
/// best first.
pub fn suppress(detections: Vec<Detection>, overlap: f32) -> Vec<Detection> {
    split(detections, overlap).0
}

/// The same, and the boxes that gave way to a better one.
pub fn split(mut detections: Vec<Detection>, overlap: f32) -> (Vec<Detection>, Vec<Detection>) {
    detections.sort_by(|a, b| b.score.total_cmp(&a.score));
    detections.truncate(DETECTIONS_MAX);
    let mut kept: Vec<Detection> = Vec::with_capacity(detections.len().min(64));
    let mut suppressed = Vec::new();
    for detection in detections {
        let same = |better: &Detection| {
            better.class == detection.class && better.bounds.iou(&detection.bounds) > overlap
        };
        let into = if kept.iter().any(same) { &mut suppressed } else { &mut kept };
        into.push(detection);
    }
    (kept, suppressed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sharp_eyes_protocol::class::ObjectClass;

    use super::*;
    use crate::geometry::Rect;

    fn detections() -> impl Strategy<Value = Vec<Detection>> {
        let detection = (0usize..3, 0.0f32..=1.0, 0.0f32..0.9, 0.0f32..0.9, 0.01f32..0.4, 0.01f32..0.4);
        prop::collection::vec(detection, 0..60).prop_map(|all| {
            all.into_iter()
                .map(|(class, score, left, top, width, height)| Detection {
                    class: ObjectClass::ALL[class],
                    score,
                    bounds: Rect { left, top, width, height },
                })
                .collect()
        })
    }

    proptest! {
        #[test]
        fn suppression_is_idempotent_and_leaves_only_what_is_apart(all in detections()) {
            let (kept, suppressed) = split(all.clone(), OVERLAP);
            prop_assert_eq!(kept.len() + suppressed.len(), all.len());
            prop_assert_eq!(&suppress(kept.clone(), OVERLAP), &kept);
            prop_assert!(kept.is_sorted_by(|a, b| a.score >= b.score));
            let one_object = |a: &Detection, b: &Detection| a.class == b.class && a.bounds.iou(&b.bounds) > OVERLAP;
            for (index, a) in kept.iter().enumerate() {
                prop_assert!(all.contains(a));
                prop_assert!(!kept[..index].iter().any(|b| one_object(a, b)));
            }
            for lost in &suppressed {
                prop_assert!(all.contains(lost));
                prop_assert!(kept.iter().any(|k| one_object(k, lost) && k.score >= lost.score));
            }
        }
    }
}
