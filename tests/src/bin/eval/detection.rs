//! Average precision of each class on labelled pictures, as COCO defines it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::Serialize;
use sharp_eyes_protocol::class::ObjectClass;
use sharp_eyes_tests::precision::{Found, Labelled, Precision, curve, measure as precision};

use crate::pictures::Set;
use crate::{clip, load};

/// One class of one model.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Score {
    pub(crate) model: String,
    /// The set of pictures, or "all".
    pub(crate) set: String,
    pub(crate) class: ObjectClass,
    /// Pictures in which the class is labelled, and objects of it.
    pub(crate) pictures: usize,
    pub(crate) objects: usize,
    #[serde(flatten)]
    pub(crate) precision: Precision,
    /// Precision at each percent of recall, from an overlap of 0.5 on.
    pub(crate) curve: Vec<f64>,
}

/// Truth and findings of one class.
#[derive(Default)]
struct Case {
    pictures: usize,
    truth: Vec<Labelled>,
    found: Vec<Found>,
}

/// Measures each model on the validation pictures of each set, and on all of them together. A class is measured where it
/// is labelled, and only where the model knows it.
pub(crate) fn measure(models: &[PathBuf], sets: &[Set]) -> Result<Vec<Score>> {
    let mut scores = Vec::new();
    for file in models {
        let mut detector = load(file)?;
        let model = detector.model().name.to_string();
        let known: Vec<_> = detector.model().classes.clone();
        let mut cases: BTreeMap<(String, ObjectClass), Case> = BTreeMap::new();
        let mut number = 0;
        for set in sets {
            eprintln!("{model}: looking at {} pictures of {}", set.pictures.len(), set.name);
            for picture in &set.pictures {
                number += 1;
                let mut seen = None;
                let looked = clip::play(&picture.file, |_, frame| {
                    let size = (f64::from(frame.width()), f64::from(frame.height()));
                    seen = Some((size, detector.detect(frame, &[])?));
                    Ok(())
                });
                looked.with_context(|| format!("looking at {}", picture.file.display()))?;
                let ((width, height), detections) =
                    seen.with_context(|| format!("{} shows nothing", picture.file.display()))?;
                let pixels = |[x, y, w, h]: [f64; 4]| [x * width, y * height, w * width, h * height];
                for class in set.labelled.iter().filter(|class| known.contains(class)) {
                    let objects =
                        picture.objects.iter().filter(|(of, _)| of == class).map(|(_, b)| (*b, false));
                    let ignored = picture.ignored.iter().map(|bounds| (*bounds, true));
                    let truth: Vec<_> = objects
                        .chain(ignored)
                        .map(|(bounds, ignored)| Labelled {
                            picture: number,
                            bounds: pixels(bounds),
                            ignored,
                        })
                        .collect();
                    let found = detections.iter().filter(|seen| seen.class == *class).map(|seen| Found {
                        picture: number,
                        bounds: pixels(
                            [seen.bounds.left, seen.bounds.top, seen.bounds.width, seen.bounds.height]
                                .map(f64::from),
                        ),
                        score: f64::from(seen.score),
                    });
                    let found: Vec<_> = found.collect();
                    for name in [set.name.as_str(), "all"] {
                        let case = cases.entry((name.to_owned(), *class)).or_default();
                        case.pictures += 1;
                        case.truth.extend(&truth);
                        case.found.extend(&found);
                    }
                }
            }
        }
        scores.extend(cases.into_iter().map(|((set, class), Case { pictures, truth, found })| Score {
            model: model.clone(),
            set,
            class,
            pictures,
            objects: truth.iter().filter(|object| !object.ignored).count(),
            precision: precision(&truth, &found),
            curve: curve(&truth, &found),
        }));
    }
    Ok(scores)
}
