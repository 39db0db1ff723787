//! Labelled pictures, as sets of YOLO's text files with a manifest each.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use sharp_eyes_protocol::class::ObjectClass;

use crate::setting;

/// The numbers of the label files.
const CLASSES: [ObjectClass; 12] = [
    ObjectClass::Person,
    ObjectClass::Bicycle,
    ObjectClass::Motorcycle,
    ObjectClass::Car,
    ObjectClass::Bus,
    ObjectClass::Truck,
    ObjectClass::Dog,
    ObjectClass::Horse,
    ObjectClass::Sheep,
    ObjectClass::Cow,
    ObjectClass::Fire,
    ObjectClass::Smoke,
];

/// Pictures that are labelled in one way.
pub(crate) struct Set {
    pub(crate) name: String,
    /// Others may be in the pictures, and are not labelled.
    pub(crate) labelled: Vec<ObjectClass>,
    pub(crate) pictures: Vec<Picture>,
}

/// One of them.
pub(crate) struct Picture {
    pub(crate) file: PathBuf,
    /// Objects, in 0..1 of the picture: left, top, width, height.
    pub(crate) objects: Vec<(ObjectClass, [f64; 4])>,
    /// Places in which nothing counts.
    pub(crate) ignored: Vec<[f64; 4]>,
}

#[derive(Deserialize)]
struct Manifest {
    set: String,
    labelled_classes: Vec<ObjectClass>,
    files: BTreeMap<String, File>,
}

#[derive(Deserialize)]
struct File {
    split: String,
}

/// The validation pictures of each set in a folder: no model that follows the rules was trained on them.
pub(crate) fn sets(folder: &Path) -> Result<Vec<Set>> {
    let most = match setting("EVAL_PICTURES") {
        Some(number) => number.parse().with_context(|| format!("EVAL_PICTURES={number} is no number"))?,
        None => usize::MAX,
    };
    let Ok(entries) = std::fs::read_dir(folder) else { return Ok(Vec::new()) };
    let mut folders: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    folders.sort();
    folders.retain(|folder| folder.join("manifest.json").is_file());
    folders.iter().map(|folder| set(folder, most)).collect()
}

fn set(folder: &Path, most: usize) -> Result<Set> {
    let file = folder.join("manifest.json");
    let text = std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    let Manifest { set, labelled_classes, files } =
        serde_json::from_str(&text).with_context(|| format!("reading {}", file.display()))?;
    let names: Vec<_> = files.iter().filter(|(_, file)| file.split == "val").map(|(name, _)| name).collect();
    // Evenly over the set, so that a part of it is like all of it.
    let step = names.len().div_ceil(most.max(1)).max(1);
    let picture = |name: &&String| -> Result<Picture> {
        let labels = |of: &str| boxes(&folder.join(of).join(format!("{name}.txt")));
        let ignored = labels("labels_ignore")?.into_iter().map(|(_, bounds)| bounds).collect();
        Ok(Picture {
            file: folder.join("images").join(format!("{name}.webp")),
            objects: labels("labels")?,
            ignored,
        })
    };
    let pictures = names.into_iter().step_by(step).map(|name| picture(&name)).collect::<Result<_>>()?;
    Ok(Set { name: set, labelled: labelled_classes, pictures })
}

/// Lines of class, middle and size. No file is no box.
fn boxes(file: &Path) -> Result<Vec<(ObjectClass, [f64; 4])>> {
    let Ok(text) = std::fs::read_to_string(file) else { return Ok(Vec::new()) };
    let line = |line: &str| {
        let numbers: Vec<f64> = line.split_whitespace().filter_map(|number| number.parse().ok()).collect();
        let [class, x, y, width, height] = numbers[..] else { bail!("{}: {line:?}", file.display()) };
        let class = CLASSES.get(class as usize).with_context(|| format!("{}: {line:?}", file.display()))?;
        Ok((*class, [x - width / 2.0, y - height / 2.0, width, height]))
    };
    text.lines().filter(|text| !text.trim().is_empty()).map(line).collect()
}
