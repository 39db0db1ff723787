//! What a model calls the things that it sees: out of its metadata, or out of a file beside it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Keys under which exporters keep labels in a file's metadata: ultralytics, this project, PaddlePaddle and others.
const KEYS: [&str; 8] =
    ["sharp_eyes.labels", "names", "labels", "classes", "class_names", "label_list", "character", "id2label"];

/// The labels in a file's metadata, and their key.
pub(super) fn of_metadata(metadata: &BTreeMap<String, String>) -> Option<(Vec<String>, &'static str)> {
    KEYS.iter().find_map(|key| Some((parse(metadata.get(*key)?)?, *key)))
}

/// The names that a file of labels can have beside `model.onnx`, the first that exists counts.
pub(super) fn files_beside(model: &Path) -> Vec<PathBuf> {
    let own = ["labels", "names", "txt"].map(|extension| model.with_extension(extension));
    let folder = ["labels.txt", "classes.txt", "config.json"].map(|name| model.with_file_name(name));
    own.into_iter().chain(folder).collect()
}

/// Labels out of a text: a dictionary or list as JSON or Python write it, one a line, or with commas between.
/// `None` if there are none, or a dictionary's numbers have a gap that nothing fills.
pub(super) fn parse(text: &str) -> Option<Vec<String>> {
    let text = text.trim().trim_start_matches('\u{feff}');
    if let Ok(document) = serde_json::from_str::<serde_json::Value>(text) {
        return of_json(&document);
    }
    let labels = match text.chars().next()? {
        '{' => numbered(&literals(text)?)?,
        '[' | '(' => literals(text)?.into_iter().filter(|item| item.quoted).map(|item| item.text).collect(),
        _ => {
            let separator = if text.contains('\n') { '\n' } else { ',' };
            text.split(separator).map(|label| label.trim().to_owned()).collect()
        }
    };
    checked(labels)
}

fn of_json(document: &serde_json::Value) -> Option<Vec<String>> {
    use serde_json::Value;
    match document {
        Value::Array(items) => {
            checked(items.iter().map(|item| item.as_str().map(str::to_owned)).collect::<Option<_>>()?)
        }
        // A configuration of Hugging Face holds the dictionary below this key.
        Value::Object(keys) => match keys.get("id2label") {
            Some(labels) => of_json(labels),
            None => {
                let pair =
                    |(key, label): (&String, &Value)| Some((key.parse().ok()?, label.as_str()?.to_owned()));
                checked(in_order(&keys.iter().map(pair).collect::<Option<_>>()?)?)
            }
        },
        _ => None,
    }
}

fn checked(mut labels: Vec<String>) -> Option<Vec<String>> {
    while labels.last().is_some_and(|label| label.is_empty()) {
        labels.pop();
    }
    (!labels.is_empty()).then_some(labels)
}

/// A number or text of a Python literal.
struct Literal {
    text: String,
    quoted: bool,
}

/// The numbers and texts of a Python literal, in order.
fn literals(text: &str) -> Option<Vec<Literal>> {
    let mut found = Vec::new();
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\'' | '"' => {
                let mut text = String::new();
                loop {
                    match characters.next()? {
                        '\\' => text.push(characters.next()?),
                        end if end == character => break,
                        other => text.push(other),
                    }
                }
                found.push(Literal { text, quoted: true });
            }
            digit if digit.is_ascii_digit() => {
                let mut text = String::from(digit);
                while let Some(digit) = characters.next_if(char::is_ascii_digit) {
                    text.push(digit);
                }
                found.push(Literal { text, quoted: false });
            }
            _ => {}
        }
    }
    Some(found)
}

/// A dictionary's labels in the order of its numbers.
fn numbered(literals: &[Literal]) -> Option<Vec<String>> {
    let pair = |pair: &[Literal]| match pair {
        [number, label] if label.quoted => Some((number.text.parse().ok()?, label.text.clone())),
        _ => None,
    };
    in_order(&literals.chunks(2).map(pair).collect::<Option<_>>()?)
}

/// Labels by number. COCO's numbers have gaps: what is missing has no name, and is none of our classes.
fn in_order(labels: &BTreeMap<usize, String>) -> Option<Vec<String>> {
    const LABELS_MAX: usize = 100_000;
    let (last, _) = labels.last_key_value()?;
    (*last < LABELS_MAX).then(|| {
        (0..=*last).map(|number| labels.get(&number).cloned().unwrap_or_else(|| "N/A".to_owned())).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_read_in_every_way_that_exporters_write_them() {
        for (text, expected) in [
            ("{0: 'person', 1: 'bicycle'}", Some(&["person", "bicycle"][..])),
            ("{1: \"driver's seat\", 0: 'a, b: {c}'}", Some(&["a, b: {c}", "driver's seat"])),
            ("{0: 'it\\'s'}", Some(&["it's"])),
            ("['person', \"car\"]", Some(&["person", "car"])),
            ("('fire', 'smoke',)", Some(&["fire", "smoke"])),
            ("[\"person\", \"car\"]", Some(&["person", "car"])),
            ("{\"0\": \"person\", \"1\": \"car\"}", Some(&["person", "car"])),
            (
                "{\"model_type\": \"detr\", \"id2label\": {\"0\": \"N/A\", \"2\": \"car\"}}",
                Some(&["N/A", "N/A", "car"]),
            ),
            ("person, traffic light,car", Some(&["person", "traffic light", "car"])),
            ("person\r\ntraffic light\n\n", Some(&["person", "traffic light"])),
            ("person", Some(&["person"])),
            ("", None),
            ("{}", None),
            ("{0: 'person', 'car'}", None),
            ("{0: 'person", None),
            ("{99999999999: 'person'}", None),
            ("17", None),
        ] {
            assert_eq!(
                parse(text),
                expected.map(|all| all.iter().map(|l| (*l).to_owned()).collect()),
                "{text}"
            );
        }
    }

    #[test]
    fn metadata_are_searched_by_key() {
        let metadata = |key: &str| {
            BTreeMap::from([(key.to_owned(), "a\nb".to_owned()), ("task".into(), "detect".into())])
        };
        assert_eq!(of_metadata(&metadata("character")), Some((vec!["a".into(), "b".into()], "character")));
        assert_eq!(of_metadata(&metadata("comment")), None);
    }
}
