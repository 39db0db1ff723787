//! How well people are followed: the demo's footage, with who is where as somebody wrote it down.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use sharp_eyes_protocol::class::ObjectClass;
use sharp_eyes_tests::places;
use sharp_eyes_tests::tracking::{Sighting, compare, without_ignored};
use sharp_eyes_vision::geometry::Rect;
use sharp_eyes_vision::track::Tracker;
use sharp_eyes_vision::{Detection, Detector};

use crate::figures::Row;
use crate::truth::Truth;
use crate::{clip, load, setting};

/// Every how manieth frame is analysed: 10, 5 and 2.5 a second of footage with 10.
const STEPS: [usize; 3] = [1, 2, 4];

/// From which intersection over union on a track covers an object. The truth's boxes are loose sideways.
pub(crate) const OVERLAP: f32 = 0.4;

/// Follows people with each model at each rate.
pub(crate) fn measure(models: &[PathBuf]) -> Result<Vec<Row>> {
    let truth = Truth::read(&truth_file()?)?;
    let out = setting("EVAL_OUT").map(PathBuf::from);
    if let Some(folder) = &out {
        std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        write(&folder.join("truth.csv"), &truth.counted)?;
    }
    let mut rows = Vec::new();
    for folder in models {
        let (model, frames) = detect(load(folder)?)?;
        for step in STEPS {
            let (fps, found) = follow(&model, &frames, step);
            let analysed = |seen: &&Sighting| (seen.frame as usize - 1).is_multiple_of(step);
            let counted: Vec<_> = truth.counted.iter().filter(analysed).copied().collect();
            let ignored: Vec<_> = truth.ignored.iter().filter(analysed).copied().collect();
            let found: Vec<_> = found.into_iter().filter(|seen| truth.frames.contains(&seen.frame)).collect();
            let found = without_ignored(&counted, &ignored, &found, OVERLAP);
            if let Some(out) = &out {
                write(&out.join(format!("{}-{fps}fps.csv", model.name)), &found)?;
            }
            let tally = compare(&counted, &found, OVERLAP);
            rows.push(Row { model: model.name.clone(), fps, tally });
        }
    }
    Ok(rows)
}

/// Not in the repository: its licence forbids that.
pub(crate) fn truth_file() -> Result<PathBuf> {
    if let Some(file) = setting("EVAL_TRUTH") {
        return Ok(file.into());
    }
    let file = crate::data().map(|data| data.join("datasets/pets09/pets09_s2l1_gt.csv"));
    file.filter(|file| file.is_file()).context(
        "who is where in the footage is not part of this repository: get gt.txt of PETS09-S2L1 from MOTChallenge 2015 \
         (motchallenge.net, data/2DMOT2015, its training set), and name it: make eval EVAL_TRUTH=/path/to/gt.txt",
    )
}

/// What is needed of a model to follow what it sees.
struct Model {
    name: String,
    tracker: Tracker,
}

/// The time of a frame, and what a model found in it.
type Seen = (Duration, Vec<Detection>);

/// What a model sees in each frame, with the frame's time.
fn detect(mut detector: Detector) -> Result<(Model, Vec<Seen>)> {
    let name = detector.model().name.to_string();
    eprintln!("{name}: looking at every frame of the footage");
    let mut frames = Vec::new();
    clip::play(&places::footage()?, |time, frame| {
        let (width, height) = (frame.width(), frame.height());
        let (w, h) = clip::SIZE;
        ensure!((width, height) == (w, h), "the footage is {width}x{height}, the truth is about {w}x{h}");
        frames.push((time, detector.detect(frame, &[])?));
        Ok(())
    })?;
    ensure!(!frames.is_empty(), "the footage has no frames");
    Ok((Model { name, tracker: Tracker::new(detector.model().thresholds.clone()) }, frames))
}

/// The people in every `step`th frame, as the agent would follow them, in pixels; and the frames per second.
fn follow(model: &Model, frames: &[Seen], step: usize) -> (f64, Vec<Sighting>) {
    let mut tracker = model.tracker.clone();
    let mut found = Vec::new();
    for (index, (time, detections)) in frames.iter().enumerate().step_by(step) {
        tracker.observe(*time, detections);
        let now = tracker.tracks().iter().filter(|track| track.is_confirmed() && track.seen() == *time);
        found.extend(now.filter(|track| track.class() == ObjectClass::Person).map(|track| {
            let Rect { left, top, width, height } = track.bounds();
            let (w, h) = (clip::SIZE.0 as f32, clip::SIZE.1 as f32);
            let bounds = Rect { left: left * w, top: top * h, width: width * w, height: height * h };
            Sighting { frame: index as u32 + 1, id: track.id(), bounds }
        }));
    }
    let seconds = frames.last().map_or(0.0, |(time, _)| time.as_secs_f64());
    let fps = (frames.len() - 1) as f64 / seconds / step as f64;
    ((fps * 10.0).round() / 10.0, found)
}

/// A line per box: frame, id, left, top, width, height, and MOTChallenge's four numbers that say nothing here.
fn write(file: &Path, boxes: &[Sighting]) -> Result<()> {
    let mut out = Vec::new();
    for Sighting { frame, id, bounds: Rect { left, top, width, height } } in boxes {
        writeln!(out, "{frame},{id},{left:.2},{top:.2},{width:.2},{height:.2},1,-1,-1,-1")?;
    }
    std::fs::write(file, out).with_context(|| format!("writing {}", file.display()))
}
