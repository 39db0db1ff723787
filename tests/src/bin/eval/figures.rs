//! The table and the JSON.

use serde_json::json;
use sharp_eyes_tests::tracking::Tally;

/// Everything that was measured.
pub(crate) struct Figures {
    overlap: f32,
    pub(crate) rows: Vec<Row>,
}

/// One model at one rate.
pub(crate) struct Row {
    pub(crate) model: String,
    /// Analysed frames per second.
    pub(crate) fps: f64,
    pub(crate) tally: Tally,
}

impl Figures {
    pub(crate) fn new(overlap: f32) -> Self {
        Self { overlap, rows: Vec::new() }
    }

    pub(crate) fn print(&self) {
        println!(
            "\npeople followed, PETS09-S2L1, covered from an intersection over union of {} on\n",
            self.overlap
        );
        println!(
            "{:<34}{:>6}{:>8}{:>8}{:>10}{:>8}{:>8}{:>11}",
            "model", "fps", "MOTA", "IDF1", "switches", "boxes", "recall", "precision"
        );
        for Row { model, fps, tally } in &self.rows {
            println!(
                "{model:<34}{fps:>6}{:>8.3}{:>8.3}{:>10}{:>8}{:>8.3}{:>11.3}",
                tally.mota(),
                tally.idf1(),
                tally.switches,
                tally.objects,
                tally.recall(),
                tally.precision()
            );
        }
    }

    pub(crate) fn to_json(&self) -> String {
        let rows = self.rows.iter().map(|Row { model, fps, tally }| {
            json!({
                "model": model,
                "analysed_fps": fps,
                "mota": tally.mota(),
                "idf1": tally.idf1(),
                "recall": tally.recall(),
                "precision": tally.precision(),
                "counts": tally,
            })
        });
        let all = json!({ "footage": "PETS09-S2L1", "overlap": self.overlap, "tracking": rows.collect::<Vec<_>>() });
        format!("{all:#}\n")
    }
}
