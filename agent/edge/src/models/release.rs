//! What a repository offers, and to whom: plain values.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use sharp_eyes_protocol::alert::ModelName;
use sharp_eyes_protocol::topic::Site;

/// A bundle in a repository, as its signed metadata describe it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// The target's name.
    pub target: String,
    /// Bytes of the bundle.
    pub length: u64,
    /// SHA-256 of the bundle, in hexadecimal digits.
    pub sha256: String,
    /// What it holds.
    pub model: ModelName,
    /// Counts the releases of a repository: a box takes higher ones only.
    pub number: u64,
    /// Raised by a maintainer to have it tried again where it failed.
    pub attempt: u32,
    /// Who gets it.
    pub rollout: Rollout,
    /// Why nobody may run it any more.
    pub revoked: Option<String>,
    /// Shorter ways to it.
    #[serde(default)]
    pub patches: Vec<Patch>,
}

impl Release {
    /// One that is to be added to a repository, which nobody gets yet: what it knows of the bundle, it fills in.
    pub fn new(model: ModelName) -> Self {
        Self {
            target: format!("{}-{}.bundle", model.name, model.version),
            length: 0,
            sha256: String::new(),
            model,
            number: 0,
            attempt: 1,
            rollout: Rollout::default(),
            revoked: None,
            patches: Vec::new(),
        }
    }
}

/// What leads from one bundle to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Patch {
    /// SHA-256 of the bundle that it starts from, in hexadecimal digits.
    pub from: String,
    /// The target's name.
    pub target: String,
    /// Bytes.
    pub length: u64,
}

/// Of how many in a hundred boxes, by channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rollout {
    /// Of those that take what others have tried.
    pub stable: u8,
    /// Of those that try first.
    pub canary: u8,
}

/// Who tries a release first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Channel {
    /// The others.
    #[default]
    Stable,
    /// These.
    Canary,
}

impl Release {
    /// Whether it is the same bundle, offered by the same attempt.
    pub fn is_same_attempt(&self, other: &Self) -> bool {
        self.sha256 == other.sha256 && self.attempt == other.attempt
    }
}

/// A box's place among a hundred, 0 to 99, by the SHA-256 of its name. With a rollout of 10 percent the places 0 to 9
/// take a release; with 20 these and ten more.
pub fn place_of(site: &Site) -> u8 {
    let digest = Sha256::digest(site.to_string());
    let number = digest.iter().take(8).fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    (number % 100) as u8
}

#[cfg(test)]
pub(super) mod testing {
    use super::*;

    /// For all boxes.
    pub(in super::super) fn release(number: u64) -> Release {
        Release {
            target: format!("detector-{number}.bundle"),
            length: 1000,
            sha256: format!("{number:064x}"),
            model: ModelName::try_from(format!("detector@{number}")).unwrap(),
            number,
            attempt: 1,
            rollout: Rollout { stable: 100, canary: 100 },
            revoked: None,
            patches: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A thousand villages: as many as the percentage says take it, within what chance allows, and whoever takes it at 10
    /// percent takes it at 20.
    #[test]
    fn percentages_hold_over_a_thousand_boxes() {
        let name = |text: String| text.parse().unwrap();
        let sites = (0..1000).map(|n| Site {
            district: name("lan-xi".into()),
            township: name(format!("township-{}", n / 100)),
            village: name(format!("village-{}", n / 2)),
            box_name: name(format!("box-{}", n % 2 + 1)),
        });
        let places: Vec<u8> = sites.map(|site| place_of(&site)).collect();
        for percent in [1_u8, 10, 25, 50, 90, 100] {
            let taking = places.iter().filter(|place| **place < percent).count() as f64;
            let share = f64::from(percent) / 100.0;
            let four_sigma = 4.0 * (1000.0 * share * (1.0 - share)).sqrt();
            assert!((taking - 1000.0 * share).abs() <= four_sigma, "{percent} %: {taking} of 1000");
        }
    }
}
