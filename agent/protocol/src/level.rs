//! How bad something is, and who is called about it.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Severity of an alert, with the names of ITU-T X.733 (perceived severity).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Somebody should look today.
    Minor,
    /// Somebody should look now.
    Major,
    /// Life or property is at risk.
    Critical,
}

impl Severity {
    /// Every severity, mildest first.
    pub const ALL: [Severity; 3] = [Self::Minor, Self::Major, Self::Critical];

    /// The level that an alert of this severity is first sent to.
    pub fn first_level(self) -> Level {
        match self {
            Self::Minor => Level::Village,
            Self::Major => Level::Township,
            Self::Critical => Level::District,
        }
    }

    /// The name on the wire and in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Minor => "minor",
            Self::Major => "major",
            Self::Critical => "critical",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The text is none of [`Severity::ALL`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is no severity; the severities are minor, major, critical")]
pub struct UnknownSeverity(pub String);

impl FromStr for Severity {
    type Err = UnknownSeverity;

    fn from_str(text: &str) -> Result<Self, UnknownSeverity> {
        Self::ALL.into_iter().find(|s| s.name() == text).ok_or_else(|| UnknownSeverity(text.to_owned()))
    }
}

/// Who is called. The village reports, the township is called, the district's departments answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)] // the names say it
pub enum Level {
    Village,
    Township,
    District,
}

impl Level {
    /// Every level, lowest first.
    pub const ALL: [Level; 3] = [Self::Village, Self::Township, Self::District];

    /// Who is called where this one does not answer. Nobody is above the district.
    pub fn above(self) -> Option<Self> {
        match self {
            Self::Village => Some(Self::Township),
            Self::Township => Some(Self::District),
            Self::District => None,
        }
    }

    /// The name in topics and on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Village => "village",
            Self::Township => "township",
            Self::District => "district",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
