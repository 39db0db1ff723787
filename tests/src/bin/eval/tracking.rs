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
use sharp_eyes_vision::{Attention, Detector, FrameView, Miniature, Plane};

use crate::figures::Row;
use crate::truth::Truth;
use crate::{clip, load, setting};

/// Every how manieth frame is analysed: 10, 5 and 2.5 a second of footage with 10.
const STEPS: [usize; 3] = [1, 2, 4];

/// From which intersection over union on a track covers an object. The truth's boxes are loose sideways.
pub(crate) const OVERLAP: f32 = 0.4;

/// What is shown to a model: the footage, or a picture of 1920x1080 that has it in its middle, pixel by pixel, as a camera
/// with a wider lens would show the same people.
#[derive(Clone, Copy, PartialEq)]
enum Shown {
    Footage,
    Wide,
}

/// One way to follow people.
#[derive(Clone, Copy)]
struct Way {
    shown: Shown,
    /// Whether every other look is a close one at what moves and is known.
    closer: bool,
    step: usize,
}

/// Follows people with each model at each rate.
pub(crate) fn measure(models: &[PathBuf]) -> Result<Vec<Row>> {
    let truth = Truth::read(&truth_file()?)?;
    let out = setting("EVAL_OUT").map(PathBuf::from);
    if let Some(folder) = &out {
        std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        write(&folder.join("truth.csv"), &truth.counted)?;
    }
    let both = [false, true];
    let ways =
        STEPS.into_iter().flat_map(|step| both.map(|closer| Way { shown: Shown::Footage, closer, step }));
    let wide = both.map(|closer| Way { shown: Shown::Wide, closer, step: 2 });
    let ways: Vec<Way> = ways.chain(wide).collect();
    let mut rows = Vec::new();
    for folder in models {
        let mut detector = load(folder)?;
        let model = detector.model().name.to_string();
        for &way in &ways {
            let (fps, found) = follow(&mut detector, way)?;
            let Way { shown, closer, step } = way;
            let shown = if shown == Shown::Wide { "in 1080p" } else { "768x576" };
            let look = if closer { "closer" } else { "whole" };
            eprintln!("{model}: {shown}, {look}, {fps} fps");
            let analysed = |seen: &&Sighting| (seen.frame as usize - 1).is_multiple_of(step);
            let counted: Vec<_> = truth.counted.iter().filter(analysed).copied().collect();
            let ignored: Vec<_> = truth.ignored.iter().filter(analysed).copied().collect();
            let found: Vec<_> = found.into_iter().filter(|seen| truth.frames.contains(&seen.frame)).collect();
            let found = without_ignored(&counted, &ignored, &found, OVERLAP);
            if let Some(out) = &out {
                let size = shown.replace(' ', "-");
                write(&out.join(format!("{model}-{size}-{look}-{fps}fps.csv")), &found)?;
            }
            let tally = compare(&counted, &found, OVERLAP);
            rows.push(Row { model: model.clone(), shown, look, fps, tally });
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

/// The people in every `step`th frame, as the agent would follow them, in pixels of the footage; and the frames per second.
fn follow(detector: &mut Detector, Way { shown, closer, step }: Way) -> Result<(f64, Vec<Sighting>)> {
    let mut tracker = Tracker::new(detector.model().thresholds.clone());
    let mut attention = Attention::new();
    let mut wide = Wide::new();
    let (mut found, mut last, mut count) = (Vec::new(), Duration::ZERO, 0_usize);
    clip::play(&places::footage()?, |time, frame| {
        let (width, height) = (frame.width(), frame.height());
        let (w, h) = clip::SIZE;
        ensure!((width, height) == (w, h), "the footage is {width}x{height}, the truth is about {w}x{h}");
        (last, count) = (time, count + 1);
        if !(count - 1).is_multiple_of(step) {
            return Ok(());
        }
        let frame = match shown {
            Shown::Footage => *frame,
            Shown::Wide => wide.around(frame)?,
        };
        let detections = if closer {
            let wish = attention.wish(&Miniature::of(&frame, &[]), time, tracker.tracks());
            attention.look(detector, &frame, &[], wish.as_deref())?.detections
        } else {
            detector.detect(&frame, &[])?
        };
        tracker.observe(time, &detections);
        let (w, h) = (frame.width() as f32, frame.height() as f32);
        let (x, y) = if shown == Shown::Wide { Wide::AT } else { (0, 0) };
        let now = tracker.tracks().iter().filter(|track| track.is_confirmed() && track.seen() == time);
        found.extend(now.filter(|track| track.class() == ObjectClass::Person).map(|track| {
            let Rect { left, top, width, height } = track.bounds();
            let (left, top) = (left * w - x as f32, top * h - y as f32);
            let bounds = Rect { left, top, width: width * w, height: height * h };
            Sighting { frame: count as u32, id: track.id(), bounds }
        }));
        Ok(())
    })?;
    ensure!(count > 0, "the footage has no frames");
    let fps = (count - 1) as f64 / last.as_secs_f64() / step as f64;
    Ok(((fps * 10.0).round() / 10.0, found))
}

/// A grey picture of 1920x1080 in I420 with another one in its middle.
struct Wide {
    planes: [Vec<u8>; 3],
}

impl Wide {
    const SIZE: (usize, usize) = (1920, 1080);
    /// Where the footage lies in it.
    const AT: (usize, usize) = (576, 252);

    fn new() -> Self {
        let (width, height) = Self::SIZE;
        Self { planes: [1, 2, 2].map(|part| vec![128; (width / part) * (height / part)]) }
    }

    fn around(&mut self, frame: &FrameView<'_>) -> Result<FrameView<'_>> {
        let ((width, height), (x, y)) = (Self::SIZE, Self::AT);
        for (index, plane) in self.planes.iter_mut().enumerate() {
            let part = if index == 0 { 1 } else { 2 };
            let (columns, rows, _) = frame.plane_size(index);
            let from = frame.planes()[index];
            for row in 0..rows as usize {
                let to = (y / part + row) * (width / part) + x / part;
                let columns = columns as usize;
                plane[to..to + columns].copy_from_slice(&from.data[row * from.stride..][..columns]);
            }
        }
        let strides = [width, width / 2, width / 2];
        let planes: Vec<_> =
            self.planes.iter().zip(strides).map(|(data, stride)| Plane { data, stride }).collect();
        let (width, height) = (width as u32, height as u32);
        Ok(FrameView::new(width, height, frame.format(), frame.colour(), frame.full_range(), &planes)?)
    }
}

/// A line per box: frame, id, left, top, width, height, and MOTChallenge's four numbers that say nothing here.
fn write(file: &Path, boxes: &[Sighting]) -> Result<()> {
    let mut out = Vec::new();
    for Sighting { frame, id, bounds: Rect { left, top, width, height } } in boxes {
        writeln!(out, "{frame},{id},{left:.2},{top:.2},{width:.2},{height:.2},1,-1,-1,-1")?;
    }
    std::fs::write(file, out).with_context(|| format!("writing {}", file.display()))
}
