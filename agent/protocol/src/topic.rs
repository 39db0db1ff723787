//! Where things are published: `sharp-eyes/1/{district}/{township}/{village}/{box}/...`.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::level::Level;

/// Version of the topic tree and of the payloads below it.
pub const PREFIX: &str = "sharp-eyes/1";

/// One step of the tree: 1 to 16 of `a-z`, `0-9` and `-`, so that it can be neither a wildcard nor a second
/// step, is safe in file names, and an alert stays within its 600 bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(extend("pattern" = "^[a-z0-9-]{1,16}$"))]
pub struct Name(String);

/// Longest [`Name`], in bytes.
pub const NAME_MAX: usize = 16;

/// The text cannot be a [`Name`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is no name: use 1 to 16 of a-z, 0-9 and \"-\"")]
pub struct BadName(pub String);

impl Name {
    /// Checks and wraps a text.
    pub fn new(text: impl Into<String>) -> Result<Self, BadName> {
        let text = text.into();
        let fits = (1..=NAME_MAX).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if fits { Ok(Self(text)) } else { Err(BadName(text)) }
    }

    /// The text itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for Name {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        Self::new(text)
    }
}

impl TryFrom<String> for Name {
    type Error = BadName;

    fn try_from(text: String) -> Result<Self, BadName> {
        Self::new(text)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> String {
        name.0
    }
}

/// A box's place in the tree. Prints as the root of its topics, which is also the `source` of its alerts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Site {
    /// The district that answers.
    pub district: Name,
    /// The township that is called.
    pub township: Name,
    /// The village that the box stands in.
    pub village: Name,
    /// The box itself, unique within the village.
    pub box_name: Name,
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}/{}/{}/{}/{}", self.district, self.township, self.village, self.box_name)
    }
}

impl Site {
    /// Alerts for one level. QoS 1, not retained.
    pub fn alert(&self, level: Level) -> String {
        format!("{self}/alert/{level}")
    }

    /// The small redacted picture of one alert. QoS 1, not retained.
    pub fn thumbnail(&self, alert: Uuid) -> String {
        format!("{self}/thumbnail/{alert}")
    }

    /// The large redacted picture of one alert, or of one snapshot. QoS 1, not retained.
    pub fn evidence(&self, alert: Uuid) -> String {
        format!("{self}/evidence/{alert}")
    }

    /// Where consoles ask the box to do something. QoS 1, not retained.
    pub fn command(&self) -> String {
        format!("{self}/command")
    }

    /// Where the box answers one console: the response topic of its commands. QoS 1, not retained.
    pub fn answer(&self, console: &Name) -> String {
        format!("{self}/answer/{console}")
    }

    /// Online or offline. QoS 1, retained, also the last will.
    pub fn status(&self) -> String {
        format!("{self}/status")
    }

    /// What the box says of its cameras and itself. QoS 1, retained.
    pub fn health(&self) -> String {
        format!("{self}/health")
    }

    /// The models on the box. QoS 1, retained.
    pub fn models(&self) -> String {
        format!("{self}/models")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_leave_its_place_in_the_tree() {
        for bad in ["", "a/b", "+", "#", "A", "wang cun", "王村", "x".repeat(17).as_str()] {
            assert_eq!(Name::new(bad), Err(BadName(bad.to_owned())));
        }
        assert_eq!(Name::new("wang-cun-2").unwrap().as_str(), "wang-cun-2");
    }

    #[test]
    fn topics_follow_the_tree() {
        let name = |text: &str| Name::new(text).unwrap();
        let site = Site {
            district: name("lan-xi"),
            township: name("yun-shan"),
            village: name("wang-cun"),
            box_name: name("box-1"),
        };
        assert_eq!(site.alert(Level::Township), "sharp-eyes/1/lan-xi/yun-shan/wang-cun/box-1/alert/township");
        assert_eq!(site.status(), "sharp-eyes/1/lan-xi/yun-shan/wang-cun/box-1/status");
    }
}
