//! Which of what a repository offers a box takes, and what it gives up: plain values.

use super::release::{Channel, Release};
use super::state::State;

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
mod tests {
    use super::super::release::Rollout;
    use super::super::release::testing::release;
    use super::super::state::{Installed, Slot};
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
}
