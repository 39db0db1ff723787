//! Which of the configurations that a repository offers a box takes: plain values.

use sharp_eyes_protocol::topic::Site;

use super::offer::Offer;
use super::state::State;

/// What a box does about what is offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Nothing.
    Stay,
    /// Tries it.
    Take(Offer),
    /// Runs its own file alone: nothing in the repository is for this box any more.
    Own,
}

/// Of the configurations for this box that it has not refused, the narrowest; of those the newest.
pub fn choose(offers: &[Offer], site: &Site, state: &State) -> Choice {
    let fitting = offers.iter().filter(|offer| offer.boxes.hold(site) && !state.has_refused(Some(offer)));
    let best = fitting.max_by_key(|offer| (offer.boxes.named(), offer.number));
    match (best, &state.active) {
        (Some(best), Some(active)) if active.offer == *best => Choice::Stay,
        (Some(best), _) => Choice::Take(best.clone()),
        (None, Some(_)) if !state.has_refused(None) => Choice::Own,
        (None, _) => Choice::Stay,
    }
}

#[cfg(test)]
mod tests {
    use sharp_eyes_protocol::topic::Name;

    use super::super::offer::testing::offer;
    use super::super::state::Accepted;
    use super::*;

    #[test]
    fn the_narrowest_configuration_that_was_not_refused_is_taken_and_of_those_the_newest() {
        let name = |text: &str| Name::new(text).unwrap();
        let site = Site { district: name("d"), township: name("t"), village: name("v"), box_name: name("b") };
        let (all, village, own) = ("*/*/*/*", "d/t/v/*", "d/t/v/b");
        let runs = |number, boxes| {
            let accepted = Accepted { offer: offer(number, boxes), unmasked: Vec::new() };
            State { active: Some(accepted), ..State::default() }
        };
        let refusing = |refused: Option<Offer>, mut state: State| {
            state.refuse(refused.as_ref(), "no");
            state
        };
        let take = |number, boxes| Choice::Take(offer(number, boxes));
        for (offers, state, choice) in [
            (vec![], State::default(), Choice::Stay),
            (vec![offer(1, "x/*/*/*")], State::default(), Choice::Stay),
            (vec![offer(1, all)], State::default(), take(1, all)),
            (vec![offer(1, own), offer(2, village), offer(3, all)], State::default(), take(1, own)),
            (vec![offer(1, village), offer(2, village)], State::default(), take(2, village)),
            (vec![offer(1, village), offer(2, all)], runs(1, village), Choice::Stay),
            (vec![offer(1, own), offer(2, own)], refusing(Some(offer(2, own)), runs(1, own)), Choice::Stay),
            (vec![offer(2, own)], refusing(Some(offer(2, own)), State::default()), Choice::Stay),
            // What was withdrawn: the next best, or the box's own file.
            (vec![offer(3, all)], runs(2, own), take(3, all)),
            (vec![], runs(2, own), Choice::Own),
            (vec![], refusing(None, runs(2, own)), Choice::Stay),
        ] {
            assert_eq!(choose(&offers, &site, &state), choice, "{offers:?} {state:?}");
        }
    }
}
