//! How good the agent is: its detector on labelled pictures, its tracker on footage of which somebody wrote down who is
//! where, its alerts on clips of which somebody wrote down what must be raised when.
//!
//! ```text
//! make eval                             # all three parts; one of them: EVAL=detection, tracking or alerts
//! EVAL_MODEL="other.onnx another"       # files or folders of models, measured beside the built-in one
//! EVAL_TRUTH=gt.txt                     # of MOTChallenge 2015, PETS09-S2L1: who is where in the demo's footage
//! EVAL_DATA=folder                      # labelled pictures and clips: train/SET/{images,labels,manifest.json}, videos/
//! EVAL_PICTURES=50                      # at most so many pictures of each set; all of them unless given
//! EVAL_JSON=figures.json                # the figures as JSON, too
//! EVAL_OUT=folder                       # truth and tracks as files of MOTChallenge, for other tools; a film of each clip
//! ```
//!
//! # Layout
//!
//! - [`detection`]: average precision of each class, [`pictures`] on what;
//! - [`tracking`]: MOTA and IDF1; [`clip`] the footage, frame by frame, [`truth`] who is where in it;
//! - [`alerts`]: recall and precision of alerts on the clips of `tests/expectations`;
//! - [`figures`]: the tables and the JSON, [`page`]: the same as one page with plots.
//!
//! What is not there (pictures, truth, clips) is said, and left out.

mod alerts;
mod clip;
mod detection;
mod figures;
mod page;
mod pictures;
mod tracking;
mod truth;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use sharp_eyes_tests::places;
use sharp_eyes_vision::{Detector, DetectorOptions, Runtime};

use figures::Figures;

/// The parts, in their order.
const PARTS: [&str; 3] = ["detection", "tracking", "alerts"];

fn main() -> ExitCode {
    match evaluate() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("eval: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.trim().is_empty())
}

/// Labelled pictures and clips, where somebody has put them.
fn data() -> Option<PathBuf> {
    setting("EVAL_DATA").map(PathBuf::from).or_else(places::shared_data)
}

fn load(model: &Path) -> Result<Detector> {
    let runtime = Runtime::load(&places::onnx_runtime()?)?;
    Detector::load(&runtime, model, &DetectorOptions::default())
        .with_context(|| format!("loading the model {}", model.display()))
}

fn evaluate() -> Result<()> {
    let part = setting("EVAL");
    if let Some(part) = &part {
        ensure!(PARTS.contains(&part.as_str()), "EVAL={part} is no part; the parts are {}", PARTS.join(", "));
    }
    let wanted = |name: &str| part.as_deref().is_none_or(|part| part == name);
    let mut models = vec![places::builtin_model()?];
    models.extend(setting("EVAL_MODEL").iter().flat_map(|files| files.split_whitespace()).map(PathBuf::from));

    let mut figures = Figures::default();
    if wanted("detection") {
        match data().map(|data| pictures::sets(&data.join("train"))).transpose()? {
            Some(sets) if !sets.is_empty() => figures.detection = detection::measure(&models, &sets)?,
            _ => figures.missing("labelled pictures: EVAL_DATA names a folder with train/SET/manifest.json"),
        }
    }
    if wanted("tracking") {
        match tracking::truth_file() {
            Ok(_) => figures.tracking = tracking::measure(&models)?,
            Err(error) => figures.missing(&format!("{error:#}")),
        }
    }
    if wanted("alerts") {
        figures.alerts = alerts::measure(&models, &places::repository().join("tests/expectations"))?;
    }
    print!("{figures}");
    let page = places::cache().join("eval.html");
    std::fs::write(&page, page::html(&figures)).with_context(|| format!("writing {}", page.display()))?;
    println!("\nwith plots: {}", page.display());
    if let Some(file) = setting("EVAL_JSON") {
        std::fs::write(&file, figures.to_json()).with_context(|| format!("writing {file}"))?;
    }
    Ok(())
}
