//! The measures of tracking agree with py-motmetrics, on numbers that `measure.py` made up and measured with it.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;
use sharp_eyes_tests::places;
use sharp_eyes_tests::tracking::{Sighting, Tally, compare, without_ignored};
use sharp_eyes_vision::geometry::Rect;

#[derive(Deserialize)]
struct Expected {
    overlap: f32,
    tallies: BTreeMap<String, Measured>,
}

#[derive(Deserialize)]
struct Measured {
    #[serde(flatten)]
    tally: Tally,
    mota: f64,
    idf1: f64,
}

#[test]
fn the_measures_are_those_of_py_motmetrics() -> Result<()> {
    let folder = places::repository().join("tests/tracking/motmetrics");
    let expected: Expected = serde_json::from_str(&std::fs::read_to_string(folder.join("expected.json"))?)?;
    let truth = read(&folder.join("truth.csv"))?;
    assert_eq!(expected.tallies.len(), 3);
    for (tracks, Measured { tally, mota, idf1 }) in expected.tallies {
        let found = compare(&truth, &read(&folder.join(format!("{tracks}.csv")))?, expected.overlap);
        assert_eq!(found, tally, "{tracks}");
        assert!((found.mota() - mota).abs() < 1e-12 && (found.idf1() - idf1).abs() < 1e-12, "{tracks}");
    }
    Ok(())
}

fn read(file: &Path) -> Result<Vec<Sighting>> {
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    Ok(text.lines().map(sighting).collect())
}

/// A box as `frame,id,left,top,width,height`.
fn sighting(line: &str) -> Sighting {
    let numbers: Vec<f32> = line.split(',').map(|number| number.trim().parse().expect("a number")).collect();
    let [frame, id, left, top, width, height] = numbers[..] else { panic!("{line:?} is no box") };
    Sighting { frame: frame as u32, id: id as u64, bounds: Rect { left, top, width, height } }
}

/// Compares two lists of boxes, with boxes that do not count as a third.
fn check(truth: &[&str], ignored: &[&str], found: &[&str], expected: Tally) {
    let all = |lines: &[&str]| lines.iter().map(|line| sighting(line)).collect::<Vec<_>>();
    let left = without_ignored(&all(truth), &all(ignored), &all(found), 0.5);
    assert_eq!(compare(&all(truth), &left, 0.5), expected, "{truth:?} {ignored:?} {found:?}");
}

#[test]
fn what_does_not_count_is_neither_right_nor_wrong() {
    let one = Tally { objects: 1, found: 1, own: 1, ..Tally::default() };
    check(&["1,1,0,0,9,9"], &[], &["1,7,0,0,9,9"], one);
    check(&["1,1,0,0,9,9"], &["1,2,50,0,9,9"], &["1,7,0,0,9,9", "1,8,50,1,9,9"], one);
    check(&["1,1,0,0,9,9"], &["1,2,50,0,9,9"], &["1,7,0,0,9,9"], one);
    // A box that covers both is the counted one's, where that fits better.
    check(&["1,1,0,0,9,9"], &["1,2,3,0,9,9"], &["1,7,1,0,9,9"], one);
    // The same box in another frame counts.
    let ghost = Tally { objects: 1, found: 2, own: 1, false_alarms: 1, ..Tally::default() };
    check(&["1,1,0,0,9,9"], &["1,2,50,0,9,9"], &["1,7,0,0,9,9", "2,8,50,1,9,9"], ghost);
}

#[test]
fn an_object_keeps_its_track_for_as_long_as_that_covers_it() {
    // In the second frame track 8 fits better, but 7 still covers the object.
    let truth = ["1,1,0,0,9,9", "2,1,0,0,9,9", "3,1,0,0,9,9"];
    let kept = Tally { objects: 3, found: 4, own: 2, false_alarms: 1, switches: 1, ..Tally::default() };
    check(&truth, &[], &["1,7,0,0,9,9", "2,7,2,0,9,9", "2,8,0,0,9,9", "3,8,0,0,9,9"], kept);
    // After a gap, another track is a switch too.
    let gap = Tally { objects: 3, found: 2, own: 1, misses: 1, switches: 1, ..Tally::default() };
    check(&truth, &[], &["1,7,0,0,9,9", "3,8,0,0,9,9"], gap);
}
