//! Whether a model that looks beside the active one sees what that one sees, from one frame to the next, as a plain value.

use std::time::Duration;

use sharp_eyes_vision::{Detection, Thresholds};

/// From this score on the active model is sure of what it sees.
const SURE: f32 = 0.6;

/// The same object: boxes of two models differ, and half of this is none of them.
const OVERLAP: f32 = 0.3;

/// So many sure objects have to be seen before anything is said of those that are missed: one person in ten frames is ten.
const SURE_MIN: u64 = 30;

/// More than one in so many is too many.
const MISSED_ONE_IN: u64 = 2;

/// Objects and alerts may be so many times those of the active model...
const SLACK: u64 = 5;

/// ...and so many more: alerts in all, objects in a frame.
const MORE: u64 = 10;

/// Frames in a row that it may fail at.
const FAILURES_MAX: u64 = 5;

/// It may take so many times its budget, or what the active model takes: both look at the same time.
const LATENCY_SLACK: f64 = 2.0;

/// So many frames before anything is said of latency.
const FRAMES_MIN: u64 = 20;

/// What one model made of one frame.
#[derive(Clone, Copy, Debug)]
pub struct Look<'a> {
    /// What it saw, faint objects too.
    pub detections: &'a [Detection],
    /// From which scores on that counts.
    pub thresholds: &'a Thresholds,
    /// The alerts that it raises, or would have.
    pub alerts: u64,
    /// The time that it took.
    pub took: Duration,
}

/// All that was compared so far; the active model first where there are two.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Comparison {
    /// Frames that both have looked at.
    pub frames: u64,
    sure: u64,
    missed: u64,
    objects: [u64; 2],
    alerts: [u64; 2],
    busy: [Duration; 2],
    failures: u64,
}

impl Comparison {
    /// Takes a frame that both have looked at. The error says why the new one is refused.
    pub fn look(&mut self, active: Look<'_>, new: Look<'_>, budget: Duration) -> Result<(), String> {
        self.frames += 1;
        self.failures = 0;
        for (index, look) in [active, new].into_iter().enumerate() {
            let counts = |d: &&Detection| d.score >= look.thresholds.of(d.class);
            self.objects[index] += look.detections.iter().filter(counts).count() as u64;
            self.alerts[index] += look.alerts;
            self.busy[index] += look.took;
        }
        for sure in active.detections.iter().filter(|d| d.score >= SURE) {
            let same = |d: &&Detection| d.class == sure.class && d.bounds.iou(&sure.bounds) >= OVERLAP;
            self.sure += 1;
            self.missed += u64::from(new.detections.iter().find(same).is_none());
        }
        self.judge(budget)
    }

    /// Takes a frame that the new one failed at.
    pub fn fail(&mut self, why: &str) -> Result<(), String> {
        self.failures += 1;
        match self.failures {
            FAILURES_MAX.. => Err(format!("it fails at {FAILURES_MAX} frames in a row: {why}")),
            _ => Ok(()),
        }
    }

    fn judge(&self, budget: Duration) -> Result<(), String> {
        let Self { frames, sure, missed, objects, alerts, .. } = *self;
        if sure >= SURE_MIN && missed * MISSED_ONE_IN > sure {
            return Err(format!("it misses {missed} of {sure} objects that the active model is sure of"));
        }
        if frames >= FAILURES_MAX && objects[1] > SLACK * objects[0] + MORE * frames {
            let [active, new] = objects;
            return Err(format!("it sees {new} objects in {frames} frames; the active model sees {active}"));
        }
        if alerts[1] > SLACK * alerts[0] + MORE {
            let [active, new] = alerts;
            return Err(format!(
                "it would have raised {new} alerts in {frames} frames; the active model {active}"
            ));
        }
        let [active, new] = self.means();
        let limit = LATENCY_SLACK * active.max(budget.as_secs_f64() * 1000.0);
        if frames >= FRAMES_MIN && new > limit {
            return Err(format!(
                "an inference takes {new:.1} ms beside the active model; {limit:.1} ms are the limit"
            ));
        }
        Ok(())
    }

    /// Milliseconds of an inference.
    fn means(&self) -> [f64; 2] {
        self.busy.map(|busy| busy.as_secs_f64() * 1000.0 / self.frames.max(1) as f64)
    }
}

impl std::fmt::Display for Comparison {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { frames, sure, missed, objects, alerts, .. } = self;
        let [active, new] = self.means();
        write!(
            f,
            "{frames} frames, {missed} of {sure} sure objects missed, {} objects for {}, {} alerts for {}, {new:.1} ms for {active:.1} ms",
            objects[1], objects[0], alerts[1], alerts[0]
        )
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use sharp_eyes_protocol::class::ObjectClass;
    use sharp_eyes_vision::Rect;

    use super::*;

    fn seen(class: ObjectClass, score: f32, left: f32) -> Detection {
        Detection { class, score, bounds: Rect { left, top: 0.2, width: 0.1, height: 0.3 } }
    }

    /// Shows the same to both, so many times, with alerts and milliseconds of the new one.
    fn after(frames: u64, active: &[Detection], new: &[Detection], alerts: u64, ms: u64) -> String {
        let thresholds = Thresholds { default: 0.3, classes: BTreeMap::new() };
        let look = |detections, alerts, ms| Look {
            detections,
            thresholds: &thresholds,
            alerts,
            took: Duration::from_millis(ms),
        };
        let mut comparison = Comparison::default();
        for frame in 1..=frames {
            let alerts = if frame <= alerts { 1 } else { 0 };
            let judged =
                comparison.look(look(active, 0, 25), look(new, alerts, ms), Duration::from_millis(40));
            if let Err(why) = judged {
                return format!("{frame}: {why}");
            }
        }
        String::new()
    }

    #[test]
    fn a_model_is_refused_for_what_it_misses_and_for_what_it_makes_up() {
        use ObjectClass::{Dog, Person};
        let person = seen(Person, 0.8, 0.5);
        let near = seen(Person, 0.1, 0.53); // faint, and a little aside
        let crowd: Vec<_> = (0..30).map(|n| seen(Person, 0.9, n as f32 / 30.0)).collect();
        let faint: Vec<_> = crowd.iter().map(|d| Detection { score: 0.2, ..*d }).collect();
        for (frames, active, new, alerts, ms, said) in [
            (200, &[person][..], &[person][..], 0, 25, ""),
            (200, &[person], &[near], 0, 25, ""),
            (200, &[], &[person], 10, 79, ""), // it sees more: not ten times more
            (200, &[seen(Person, 0.5, 0.5)], &[], 0, 25, ""), // nobody is sure
            (29, &[person], &[], 0, 25, ""),   // too few to say anything
            (200, &[person], &[], 0, 25, "30: it misses 30 of 30 objects"),
            (200, &[person], &[seen(Dog, 0.9, 0.5)], 0, 25, "30: it misses 30 of 30"),
            (200, &[person], &[seen(Person, 0.9, 0.1)], 0, 25, "30: it misses"),
            (200, &[person, seen(Person, 0.9, 0.1)], &[person], 0, 25, ""), // every second one
            (200, &[person], &crowd, 0, 25, "5: it sees 150 objects in 5 frames; the active model sees 5"),
            (200, &[person], &faint, 0, 25, ""),
            (
                200,
                &[],
                &[person],
                11,
                25,
                "11: it would have raised 11 alerts in 11 frames; the active model 0",
            ),
            (200, &[], &[], 0, 81, "20: an inference takes 81.0 ms beside the active model; 80.0 ms"),
        ] {
            let text = after(frames, active, new, alerts, ms);
            assert!(text.starts_with(said) && text.is_empty() == said.is_empty(), "{text:?} is not {said:?}");
        }
    }

    #[test]
    fn a_model_that_fails_now_and_then_is_not_refused() {
        let mut comparison = Comparison::default();
        for _ in 0..4 {
            comparison.fail("not finite").unwrap();
        }
        let thresholds = Thresholds { default: 0.3, classes: BTreeMap::new() };
        let look = Look { detections: &[], thresholds: &thresholds, alerts: 0, took: Duration::ZERO };
        comparison.look(look, look, Duration::ZERO).unwrap();
        for _ in 0..4 {
            comparison.fail("not finite").unwrap();
        }
        let why = comparison.fail("not finite").unwrap_err();
        assert_eq!(why, "it fails at 5 frames in a row: not finite");
    }
}
