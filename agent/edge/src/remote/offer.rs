//! What a repository says how boxes are to be configured, and which of it is for this one: plain values.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sharp_eyes_protocol::topic::{Name, Site};

use super::state::State;

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
    fn named(&self) -> usize {
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
    use super::super::state::Accepted;
    use super::testing::offer;
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
