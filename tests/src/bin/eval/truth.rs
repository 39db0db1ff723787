//! Who is where in the footage, as somebody wrote it down.

use std::ops::RangeInclusive;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use sharp_eyes_tests::tracking::Sighting;
use sharp_eyes_vision::geometry::Rect;

/// Lower boxes, in pixels, do not count: MOTChallenge marks them so in this clip.
const LOWEST: f32 = 59.0;

/// Everybody in all frames, in pixels.
pub(crate) struct Truth {
    /// Who has to be found.
    pub(crate) counted: Vec<Sighting>,
    /// Who may be found, or not.
    pub(crate) ignored: Vec<Sighting>,
    /// The frames that it is about.
    pub(crate) frames: RangeInclusive<u32>,
}

impl Truth {
    /// Reads lines `frame,id,left,top,width,height,...`.
    ///
    /// A `gt.txt` of MOTChallenge has no heading, and a 7th number which is 0 for boxes that do not count. A file with
    /// a heading lacks such boxes: there a file `visits.csv` beside it may have lines `id,first_frame,last_frame`, and
    /// whoever is there without a box does not count, where he should be by his last two boxes.
    pub(crate) fn read(file: &Path) -> Result<Self> {
        let reading = || format!("reading {}", file.display());
        let text = std::fs::read_to_string(file).with_context(reading)?;
        let heading = text.starts_with(|first: char| first.is_alphabetic());
        let (mut counted, mut ignored) = (Vec::new(), Vec::new());
        for row in rows(&text, heading).with_context(reading)? {
            let [frame, id, left, top, width, height, ref more @ ..] = row[..] else {
                bail!("{}: a line with {} numbers", file.display(), row.len())
            };
            let seen =
                Sighting { frame: frame as u32, id: id as u64, bounds: Rect { left, top, width, height } };
            let counts = height >= LOWEST && (heading || more.first() != Some(&0.0));
            if counts { counted.push(seen) } else { ignored.push(seen) }
        }
        let numbers = || counted.iter().chain(&ignored).map(|seen| seen.frame);
        let (first, last) =
            numbers().min().zip(numbers().max()).context("it is empty").with_context(reading)?;
        let visits = file.with_file_name("visits.csv");
        if heading && visits.is_file() {
            let text = std::fs::read_to_string(&visits)?;
            let boxes: Vec<_> = counted.iter().chain(&ignored).copied().collect();
            for visit in rows(&text, true).with_context(|| format!("reading {}", visits.display()))? {
                ensure!(visit.len() == 3, "{}: a line with {} numbers", visits.display(), visit.len());
                ignored.extend(unwritten(&boxes, visit[0] as u64, visit[1] as u32..=visit[2] as u32));
            }
        }
        Ok(Self { counted, ignored, frames: first..=last })
    }
}

/// The numbers of each line.
fn rows(text: &str, heading: bool) -> Result<Vec<Vec<f32>>> {
    let number = |text: &str| text.trim().parse().with_context(|| format!("{text:?} is no number"));
    let lines = text.lines().skip(usize::from(heading)).filter(|line| !line.trim().is_empty());
    lines.map(|line| line.split(',').map(number).collect()).collect()
}

/// Where somebody should be in the frames of a visit before the first box and after the last: straight on, as between
/// the two nearest boxes.
fn unwritten(boxes: &[Sighting], id: u64, visit: RangeInclusive<u32>) -> Vec<Sighting> {
    let mut written: Vec<_> = boxes.iter().filter(|seen| seen.id == id).collect();
    written.sort_by_key(|seen| seen.frame);
    let [first, second, .., before, last] = written[..] else { return Vec::new() };
    visit
        .filter_map(|frame| match frame {
            _ if frame < first.frame => Some(straight_on(first, second, frame)),
            _ if frame > last.frame => Some(straight_on(before, last, frame)),
            _ => None,
        })
        .collect()
}

fn straight_on(a: &Sighting, b: &Sighting, frame: u32) -> Sighting {
    let part = (frame as f32 - a.frame as f32) / (b.frame as f32 - a.frame as f32);
    let on = |a: f32, b: f32| a + part * (b - a);
    let bounds = Rect {
        left: on(a.bounds.left, b.bounds.left),
        top: on(a.bounds.top, b.bounds.top),
        width: on(a.bounds.width, b.bounds.width),
        height: on(a.bounds.height, b.bounds.height),
    };
    Sighting { frame, bounds, ..*a }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(files: &[(&str, &str)]) -> Truth {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        Truth::read(&folder.path().join(files[0].0)).unwrap()
    }

    fn places(seen: &[Sighting]) -> Vec<(u32, u64, f32)> {
        seen.iter().map(|seen| (seen.frame, seen.id, seen.bounds.left)).collect()
    }

    #[test]
    fn boxes_that_are_flagged_or_low_do_not_count() {
        let truth = read(&[(
            "gt.txt",
            "1,1,10,0,30,70,1,-1,-1,-1\n1,2,20,0,30,70,0,-1,-1,-1\n9,1,30,0,20,58,1,-1,-1,-1\n",
        )]);
        assert_eq!(places(&truth.counted), [(1, 1, 10.0)]);
        assert_eq!(places(&truth.ignored), [(1, 2, 20.0), (9, 1, 30.0)]);
        assert_eq!(truth.frames, 1..=9);
    }

    #[test]
    fn whoever_is_there_without_a_box_does_not_count() {
        let heading = "frame,id,left,top,width,height,interpolated\n";
        let boxes: String = (3..=6).map(|frame| format!("{frame},1,{},0,30,70,0\n", frame * 10)).collect();
        let truth = read(&[
            ("truth.csv", &format!("{heading}{boxes}")),
            ("visits.csv", "id,first_frame,last_frame\n1,2,8\n"),
        ]);
        assert_eq!(truth.counted.len(), 4, "the flag of another file is none");
        assert_eq!(places(&truth.ignored), [(2, 1, 20.0), (7, 1, 70.0), (8, 1, 80.0)]);
    }
}
