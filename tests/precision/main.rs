//! Average precision agrees with pycocotools, on boxes that `measure.py` made up and measured with it.

use anyhow::Result;
use serde::Deserialize;
use sharp_eyes_tests::places;
use sharp_eyes_tests::precision::{Found, Labelled, Precision, measure};

#[derive(Deserialize)]
struct Case {
    /// Picture, left, top, width, height, and 1 where it does not count.
    truth: Vec<[f64; 6]>,
    /// Picture, left, top, width, height, score.
    found: Vec<[f64; 6]>,
    expected: Precision,
}

#[test]
fn average_precision_is_that_of_pycocotools() -> Result<()> {
    let file = places::repository().join("tests/precision/pycocotools.json");
    let cases: Vec<Case> = serde_json::from_str(&std::fs::read_to_string(file)?)?;
    assert_eq!(cases.len(), 3);
    for (number, Case { truth, found, expected }) in cases.into_iter().enumerate() {
        let truth: Vec<_> = truth.into_iter().map(|row| labelled(row, row[5] == 1.0)).collect();
        let found: Vec<_> = found.into_iter().map(one).collect();
        let measured = measure(&truth, &found);
        type Value = fn(&Precision) -> Option<f64>;
        let values: [(&str, Value); 7] = [
            ("ap", |p| p.ap),
            ("ap50", |p| p.ap50),
            ("ap75", |p| p.ap75),
            ("small", |p| p.small),
            ("medium", |p| p.medium),
            ("large", |p| p.large),
            ("recall", |p| p.recall),
        ];
        for (name, value) in values {
            let (ours, theirs) = (value(&measured).unwrap(), value(&expected).unwrap());
            assert!((ours - theirs).abs() < 1e-9, "case {number}, {name}: {ours}, pycocotools says {theirs}");
        }
    }
    Ok(())
}

fn labelled([picture, left, top, width, height, _]: [f64; 6], ignored: bool) -> Labelled {
    Labelled { picture: picture as u32, bounds: [left, top, width, height], ignored }
}

fn one([picture, left, top, width, height, score]: [f64; 6]) -> Found {
    Found { picture: picture as u32, bounds: [left, top, width, height], score }
}

#[test]
fn what_can_be_computed_by_hand_is_right() {
    let truth = [
        labelled([1.0, 0.0, 0.0, 10.0, 10.0, 0.0], false),
        labelled([1.0, 50.0, 0.0, 10.0, 10.0, 0.0], false),
        labelled([2.0, 0.0, 0.0, 100.0, 100.0, 0.0], true),
    ];
    let hit = |score| one([1.0, 0.0, 0.0, 10.0, 10.0, score]);
    let ghost = |score| one([1.0, 200.0, 0.0, 10.0, 10.0, score]);
    let ignored = one([2.0, 20.0, 20.0, 10.0, 10.0, 0.99]);
    let ap50 = |found: &[Found]| measure(&truth, found).ap50.unwrap();
    // Half of the objects at full precision: recalls 0 to 0.5 are 51 of 101 points.
    assert!((ap50(&[hit(0.9)]) - 51.0 / 101.0).abs() < 1e-12);
    assert!((ap50(&[hit(0.9), ignored]) - 51.0 / 101.0).abs() < 1e-12);
    assert!(
        (ap50(&[hit(0.9), ghost(0.8)]) - 51.0 / 101.0).abs() < 1e-12,
        "below the last hit nothing counts"
    );
    assert!((ap50(&[ghost(0.95), hit(0.9)]) - 0.5 * 51.0 / 101.0).abs() < 1e-12);
    assert_eq!(ap50(&[]), 0.0);
    let nothing = measure(&truth[2..], &[hit(0.9)]);
    assert_eq!(nothing, Precision::default(), "without objects there is no precision");
}
