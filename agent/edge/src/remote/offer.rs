//! What a repository says how boxes are to be configured, and which of it is for this one: plain values.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sharp_eyes_protocol::topic::{Name, Site};

/// A configuration in a repository, as its signed metadata describe it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// What the maintainer calls it.
    pub name: String,
    /// Counts them: no two that were ever signed have the same.
    pub number: u64,
    /// Which boxes it is for.
    pub boxes: Boxes,
    /// The target's name.
    pub target: String,
    /// Bytes of the file.
    pub length: u64,
    /// SHA-256 of the file, in hexadecimal digits.
    pub sha256: String,
}

impl fmt::Display for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.number)
    }
}

/// Boxes: `DISTRICT/TOWNSHIP/VILLAGE/BOX`, each of them a name, or `*` for any.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Boxes([Option<Name>; 4]);

impl Boxes {
    /// Whether a box is one of them.
    pub fn hold(&self, site: &Site) -> bool {
        let steps = [&site.district, &site.township, &site.village, &site.box_name];
        self.0.iter().zip(steps).all(|(wanted, step)| wanted.as_ref().is_none_or(|wanted| wanted == step))
    }

    /// How narrow it is: the steps that are named.
    pub(super) fn named(&self) -> usize {
        self.0.iter().flatten().count()
    }
}

impl fmt::Display for Boxes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let steps = self.0.each_ref().map(|step| step.as_ref().map_or("*", Name::as_str));
        f.write_str(&steps.join("/"))
    }
}

impl FromStr for Boxes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| {
            format!("{text:?} names no boxes: {why}expected DISTRICT/TOWNSHIP/VILLAGE/BOX, each a name or *")
        };
        let steps: Vec<_> = text
            .split('/')
            .map(|step| match step {
                "*" => Ok(None),
                name => Name::new(name).map(Some).map_err(|error| wrong(&format!("{error}; "))),
            })
            .collect::<Result<_, _>>()?;
        steps.try_into().map(Self).map_err(|_| wrong(""))
    }
}

impl TryFrom<String> for Boxes {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Boxes> for String {
    fn from(boxes: Boxes) -> Self {
        boxes.to_string()
    }
}

#[cfg(test)]
pub(super) mod testing {
    use super::*;

    pub(in super::super) fn offer(number: u64, boxes: &str) -> Offer {
        Offer {
            name: "yard".into(),
            number,
            boxes: boxes.parse().unwrap(),
            target: format!("yard-{number}.toml"),
            length: 100,
            sha256: format!("{number:064x}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_are_named_by_the_steps_of_their_place() {
        let name = |text: &str| Name::new(text).unwrap();
        let site = Site {
            district: name("lan-xi"),
            township: name("yun-shan"),
            village: name("wang-cun"),
            box_name: name("box-1"),
        };
        for (text, holds) in [
            ("lan-xi/yun-shan/wang-cun/box-1", true),
            ("lan-xi/yun-shan/*/*", true),
            ("*/*/*/*", true),
            ("*/*/*/box-2", false),
            ("lan-xi/yun-shan/li-cun/*", false),
        ] {
            let boxes: Boxes = text.parse().unwrap();
            assert_eq!((boxes.hold(&site), boxes.to_string().as_str()), (holds, text));
        }
        for text in ["", "*", "lan-xi/yun-shan/*", "a/b/c/d/e", "a/b/c/D", "a/b//d", "a/b/c/box-*"] {
            let error = text.parse::<Boxes>().unwrap_err();
            assert!(error.contains("DISTRICT/TOWNSHIP/VILLAGE/BOX"), "{error}");
        }
    }
}
