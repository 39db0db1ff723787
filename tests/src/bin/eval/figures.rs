//! The tables and the JSON.

use std::fmt;

use serde_json::json;
use sharp_eyes_tests::tracking::Tally;

use crate::alerts::{Clip, Judged, Raised};
use crate::detection::Score;
use crate::tracking::OVERLAP;

/// Everything that was measured.
#[derive(Default)]
pub(crate) struct Figures {
    pub(crate) detection: Vec<Score>,
    pub(crate) tracking: Vec<Row>,
    pub(crate) alerts: Vec<Judged>,
    /// What was left out, because it is not here.
    missing: Vec<String>,
}

/// One model, one way to look, one rate.
pub(crate) struct Row {
    pub(crate) model: String,
    /// The picture: the footage's own size, or the footage in a larger one.
    pub(crate) shown: &'static str,
    /// At the whole picture each time, or closer every other time.
    pub(crate) look: &'static str,
    /// Analysed frames per second.
    pub(crate) fps: f64,
    pub(crate) tally: Tally,
}

/// Alerts of all clips together.
pub(crate) struct Sums {
    pub(crate) right: usize,
    pub(crate) missed: usize,
    pub(crate) wrong: usize,
    /// Clips that were here, of how many.
    pub(crate) clips: (usize, usize),
}

impl Sums {
    pub(crate) fn recall(&self) -> f64 {
        self.right as f64 / (self.right + self.missed) as f64
    }

    pub(crate) fn precision(&self) -> f64 {
        self.right as f64 / (self.right + self.wrong) as f64
    }
}

impl Judged {
    pub(crate) fn sums(&self) -> Sums {
        let here = || self.clips.iter().filter_map(|clip| clip.outcome.as_ref());
        Sums {
            right: here().map(|clip| clip.right.len()).sum(),
            missed: here().map(|clip| clip.missed.len()).sum(),
            wrong: here().map(|clip| clip.wrong.len()).sum(),
            clips: (here().count(), self.clips.len()),
        }
    }
}

impl Figures {
    /// Something is not here.
    pub(crate) fn missing(&mut self, what: &str) {
        self.missing.push(what.to_owned());
    }

    pub(crate) fn to_json(&self) -> String {
        let rows = self.tracking.iter().map(|Row { model, shown, look, fps, tally }| {
            json!({
                "model": model,
                "picture": shown,
                "look": look,
                "analysed_fps": fps,
                "mota": tally.mota(),
                "idf1": tally.idf1(),
                "recall": tally.recall(),
                "precision": tally.precision(),
                "counts": tally,
            })
        });
        let alerts = self.alerts.iter().map(|judged| {
            let sums = judged.sums();
            json!({
                "model": judged.model,
                "recall": sums.recall(),
                "precision": sums.precision(),
                "right": sums.right,
                "missed": sums.missed,
                "wrong": sums.wrong,
                "clips": judged.clips,
            })
        });
        let all = json!({
            "detection": self.detection,
            "footage": "PETS09-S2L1",
            "overlap": OVERLAP,
            "tracking": rows.collect::<Vec<_>>(),
            "alerts": alerts.collect::<Vec<_>>(),
            "left_out": self.missing,
        });
        format!("{all:#}\n")
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.detection.is_empty() {
            writeln!(
                f,
                "\naverage precision on labelled pictures, as COCO defines it (-: no such object)\n"
            )?;
            writeln!(
                f,
                "{:<30}{:<20}{:<12}{:>8}{:>7}{:>7}{:>7}{:>7}{:>7}{:>7}",
                "model", "set", "class", "objects", "AP", "AP50", "small", "medium", "large", "AR"
            )?;
        }
        for score in &self.detection {
            let p = &score.precision;
            write!(
                f,
                "{:<30}{:<20}{:<12}{:>8}",
                score.model,
                score.set,
                score.class.to_string(),
                score.objects
            )?;
            for value in [p.ap, p.ap50, p.small, p.medium, p.large, p.recall] {
                write!(f, "{:>7}", value.map_or("-".to_owned(), |value| format!("{value:.3}")))?;
            }
            writeln!(f)?;
        }
        if !self.tracking.is_empty() {
            let covered = "covered from an intersection over union of";
            writeln!(f, "\npeople followed, PETS09-S2L1, {covered} {OVERLAP} on\n")?;
            writeln!(
                f,
                "{:<30}{:<10}{:<8}{:>5}{:>8}{:>8}{:>10}{:>8}{:>8}{:>11}",
                "model", "picture", "look", "fps", "MOTA", "IDF1", "switches", "boxes", "recall", "precision"
            )?;
        }
        for Row { model, shown, look, fps, tally } in &self.tracking {
            writeln!(
                f,
                "{model:<30}{shown:<10}{look:<8}{fps:>5}{:>8.3}{:>8.3}{:>10}{:>8}{:>8.3}{:>11.3}",
                tally.mota(),
                tally.idf1(),
                tally.switches,
                tally.objects,
                tally.recall(),
                tally.precision()
            )?;
        }
        for judged in &self.alerts {
            write!(f, "{judged}")?;
        }
        for what in &self.missing {
            writeln!(f, "\nleft out: {what}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Judged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nalerts of {} on clips, against tests/expectations\n", self.model)?;
        writeln!(f, "{:<44}{:>8}{:>8}{:>8}", "clip", "right", "missed", "wrong")?;
        for Clip { clip, outcome } in &self.clips {
            let Some(outcome) = outcome else {
                writeln!(f, "{clip:<44}   not here")?;
                continue;
            };
            let (right, missed, wrong) = (outcome.right.len(), outcome.missed.len(), outcome.wrong.len());
            writeln!(f, "{clip:<44}{right:>8}{missed:>8}{wrong:>8}")?;
            for expected in &outcome.missed {
                writeln!(f, "    missed: {} from {} s to {} s", expected.rule, expected.from, expected.to)?;
            }
            for Raised { rule, at_s, class, score, bounds: [left, top, width, height] } in &outcome.wrong {
                writeln!(
                    f,
                    "    wrong: {rule} at {at_s:.1} s: {class} {score:.2} at {left:.2}, {top:.2}, {width:.2} x {height:.2}"
                )?;
            }
        }
        let sums = self.sums();
        writeln!(
            f,
            "\n{} of {} clips: recall {:.3} ({} of {}), precision {:.3} ({} wrong)",
            sums.clips.0,
            sums.clips.1,
            sums.recall(),
            sums.right,
            sums.right + sums.missed,
            sums.precision(),
            sums.wrong
        )
    }
}
