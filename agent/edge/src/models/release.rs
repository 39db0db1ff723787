//! What a repository offers, and which of it a box takes: plain values.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use sharp_eyes_protocol::alert::ModelName;
use sharp_eyes_protocol::topic::Site;

use super::state::State;

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

/// What a box does about what is offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Nothing.
    Stay,
    /// Takes it.
    Install(Release),
    /// Runs the model before, because nobody vouches for this one any more.
    RollBack {
        /// Why.
        reason: String,
    },
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

/// Why nobody vouches for a release any more, if so. No maintainer takes one out of a repository: what is not there was
/// signed with keys that were stolen, and replaced since. What is `unreadable` (SHA-256 of bundles) is there.
pub fn withdrawn(releases: &[Release], unreadable: &[String], release: &Release) -> Option<String> {
    match releases.iter().find(|offered| offered.sha256 == release.sha256) {
        Some(offered) => offered.revoked.as_ref().map(|reason| format!("revoked: {reason}")),
        None if unreadable.contains(&release.sha256) => None,
        None => Some("the repository does not know it any more".to_owned()),
    }
}

/// The highest release for this box that it has not refused. Never one below the active one: that is what revoking is
/// for.
pub fn choose(
    releases: &[Release],
    unreadable: &[String],
    channel: Channel,
    place: u8,
    state: &State,
) -> Choice {
    if let Some(active) = &state.active
        && let Some(reason) = withdrawn(releases, unreadable, &active.release)
    {
        return Choice::RollBack { reason };
    }
    let above = state.active.as_ref().map_or(0, |active| active.release.number);
    let share = |release: &Release| match channel {
        Channel::Stable => release.rollout.stable,
        Channel::Canary => release.rollout.canary,
    };
    let candidate = releases
        .iter()
        .filter(|release| release.revoked.is_none() && release.number > above)
        .filter(|release| place < share(release) && !state.has_refused(release))
        .max_by_key(|release| release.number);
    candidate.map_or(Choice::Stay, |release| Choice::Install(release.clone()))
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
    use super::super::state::{Installed, Slot};
    use super::testing::release;
    use super::*;

    fn running(number: u64) -> State {
        let installed = Installed { slot: Slot::A, release: release(number), sha256: "00".into() };
        State { active: Some(installed), ..State::default() }
    }

    #[test]
    fn the_highest_release_for_this_box_is_taken() {
        let for_some =
            |number, stable, canary| Release { rollout: Rollout { stable, canary }, ..release(number) };
        let with_first = |other: Release| vec![release(1), other];
        let revoked = |number| Release { revoked: Some("it sees ghosts".into()), ..release(number) };
        let mut refused = running(1);
        refused.refuse(&release(3), "slow");
        use Channel::{Canary, Stable};
        let roll_back = Choice::RollBack { reason: "revoked: it sees ghosts".into() };
        let stolen = Choice::RollBack { reason: "the repository does not know it any more".into() };
        let install = |release: Release| Choice::Install(release);
        for (offered, channel, place, state, choice) in [
            (vec![], Stable, 0, State::default(), Choice::Stay),
            (vec![], Stable, 0, running(1), stolen.clone()),
            (vec![release(1)], Stable, 0, running(2), stolen),
            (vec![release(1), release(3), release(2)], Stable, 99, State::default(), install(release(3))),
            (vec![release(1)], Stable, 0, running(1), Choice::Stay),
            (vec![release(1), release(2)], Stable, 0, running(2), Choice::Stay), // no downgrade
            (with_first(for_some(2, 10, 100)), Stable, 9, running(1), install(for_some(2, 10, 100))),
            (with_first(for_some(2, 10, 100)), Stable, 10, running(1), Choice::Stay),
            (with_first(for_some(2, 10, 100)), Canary, 10, running(1), install(for_some(2, 10, 100))),
            (with_first(for_some(2, 0, 0)), Canary, 0, running(1), Choice::Stay),
            (vec![release(1), release(2), release(3)], Stable, 0, refused.clone(), install(release(2))),
            (
                with_first(Release { attempt: 2, ..release(3) }),
                Stable,
                0,
                refused,
                install(Release { attempt: 2, ..release(3) }),
            ),
            (with_first(revoked(2)), Stable, 0, running(1), Choice::Stay),
            (vec![revoked(2), release(3)], Stable, 0, running(2), roll_back), // first back, then on
            (vec![release(1), revoked(2), release(3)], Stable, 0, running(1), install(release(3))),
        ] {
            let chosen = choose(&offered, &[], channel, place, &state);
            assert_eq!(chosen, choice, "{offered:?} {channel:?} {place}");
        }
        // One whose description is of a later agent's is there all the same.
        let unreadable = [release(1).sha256];
        assert_eq!(choose(&[], &unreadable, Stable, 0, &running(1)), Choice::Stay);
    }

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
