//! Which rows show something that is wanted. Scores come first: a box is computed for few rows in a thousand.

use super::Scores;
use crate::tensor::Rows;

/// The labels that are wanted, and from which score on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wanted {
    /// Ordered by label. A model may score hundreds; these are the few that are classes of ours.
    pub labels: Vec<WantedLabel>,
}

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WantedLabel {
    /// Index of the model's label.
    pub label: usize,
    /// The least score that is found.
    pub floor: f32,
    /// Whether it means a person.
    pub person: bool,
}

impl Wanted {
    /// The least floor; what scores less shows nothing.
    pub(super) fn least(&self) -> f32 {
        self.labels.iter().map(|wanted| wanted.floor).fold(f32::INFINITY, f32::min)
    }

    /// The floor of a label, if it is wanted.
    pub(super) fn floor(&self, label: usize) -> Option<f32> {
        self.labels.iter().find(|wanted| wanted.label == label).map(|wanted| wanted.floor)
    }

    /// What one row shows: the best label above its floor; and a person, where another label has won, because the
    /// head of whoever sits on the motorcycle must be found for redaction.
    pub(super) fn pick(&self, score: impl Fn(usize) -> f32, mut found: impl FnMut(usize, f32)) {
        let best_of = |people_only: bool| {
            let mut best: Option<(WantedLabel, f32)> = None;
            for &wanted in self.labels.iter().filter(|wanted| wanted.person || !people_only) {
                let score = score(wanted.label);
                if score >= wanted.floor && best.is_none_or(|(_, better)| score > better) {
                    best = Some((wanted, score));
                }
            }
            best
        };
        let Some((best, score)) = best_of(false) else { return };
        found(best.label, score);
        if !best.person
            && let Some((person, score)) = best_of(true)
        {
            found(person.label, score);
        }
    }

    /// The same labels, `by` columns further right.
    pub(super) fn shifted(&self, by: usize) -> Self {
        Self { labels: self.labels.iter().map(|w| WantedLabel { label: w.label + by, ..*w }).collect() }
    }

    /// The same labels with floors as a logit's sigmoid would reach them.
    fn as_logits(&self) -> Self {
        let logit = |p: f32| (p / (1.0 - p)).ln();
        Self { labels: self.labels.iter().map(|w| WantedLabel { floor: logit(w.floor), ..*w }).collect() }
    }
}

pub(super) fn sigmoid(logit: f32) -> f32 {
    1.0 / (1.0 + (-logit).exp())
}

/// Calls `found` with row, label and score for whatever rows of class scores show.
pub(super) fn scan(
    scores: Rows<'_>,
    coding: Scores,
    wanted: &Wanted,
    mut found: impl FnMut(usize, usize, f32),
) {
    match coding {
        Scores::Probabilities => search(scores, wanted, found),
        Scores::Sigmoid => {
            search(scores, &wanted.as_logits(), |row, label, logit| found(row, label, sigmoid(logit)));
        }
        Scores::Softmax => {
            let least = wanted.least().ln();
            for row in 0..scores.count {
                let logits = || (0..scores.columns).map(|column| scores.at(row, column));
                let largest = logits().fold(f32::NEG_INFINITY, f32::max);
                // A probability is at most exp(logit - largest): most rows show the background and end here.
                if !wanted.labels.iter().any(|w| scores.at(row, w.label) - largest >= least) {
                    continue;
                }
                let sum: f32 = logits().map(|logit| (logit - largest).exp()).sum();
                wanted.pick(
                    |label| (scores.at(row, label) - largest).exp() / sum,
                    |label, score| found(row, label, score),
                );
            }
        }
    }
}

/// Row by row, or label by label where a label's scores lie side by side: both walk through memory in its order.
fn search(scores: Rows<'_>, wanted: &Wanted, mut found: impl FnMut(usize, usize, f32)) {
    for (index, this) in wanted.labels.iter().enumerate() {
        let Some(column) = scores.column(this.label) else {
            for row in 0..scores.count {
                wanted.pick(|label| scores.at(row, label), |label, score| found(row, label, score));
            }
            return;
        };
        for (row, &score) in column.iter().enumerate() {
            // The rare row that shows something is looked at as a whole.
            if score >= this.floor {
                let loses = |(other, rival): (usize, &WantedLabel)| {
                    let better = scores.at(row, rival.label);
                    (rival.person || !this.person)
                        && better >= rival.floor
                        && (better > score || (better == score && other < index))
                };
                if !wanted.labels.iter().enumerate().any(loses) {
                    found(row, this.label, score);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wanted(labels: &[(usize, f32, bool)]) -> Wanted {
        let label = |&(label, floor, person)| WantedLabel { label, floor, person };
        Wanted { labels: labels.iter().map(label).collect() }
    }

    #[test]
    fn a_person_is_found_under_the_motorcycle_that_wins() {
        let rider = wanted(&[(0, 0.1, true), (1, 0.3, false), (3, 0.2, true)]);
        for (scores, expected) in [
            ([0.2, 0.9, 1.0, 0.0], &[(1, 0.9), (0, 0.2)][..]),
            ([0.2, 0.9, 1.0, 0.3], &[(1, 0.9), (3, 0.3)]), // the better of two kinds of labels for people
            ([0.9, 0.4, 0.0, 0.5], &[(0, 0.9)]),
            ([0.0, 0.2, 1.0, 0.1], &[]),
            ([f32::NAN, 0.4, 0.0, 0.0], &[(1, 0.4)]),
        ] {
            let mut found = Vec::new();
            rider.pick(|label| scores[label], |label, score| found.push((label, score)));
            assert_eq!(found, expected, "{scores:?}");
        }
    }

    fn found(scores: Rows<'_>, coding: Scores, wanted: &Wanted) -> Vec<(usize, usize, f32)> {
        let mut all = Vec::new();
        scan(scores, coding, wanted, |row, label, score| all.push((row, label, score)));
        all.sort_by_key(|found| (found.0, found.1));
        all
    }

    #[test]
    fn logits_become_probabilities() {
        let all = wanted(&[(0, 0.25, true), (1, 0.25, false)]);
        let logits = [2.0, 0.0, -9.0, -1.0, -2.0, 9.0];
        let sigmoids = found(Rows::new(&logits, 3, false), Scores::Sigmoid, &all);
        assert!(
            matches!(sigmoids[..], [(0, 0, first), (1, 0, second)]
            if (first - 0.880_797).abs() < 1e-5 && (second - 0.268_941).abs() < 1e-5),
            "{sigmoids:?}"
        );
        let softmax = found(Rows::new(&logits, 3, false), Scores::Softmax, &all);
        assert!(matches!(softmax[..], [(0, 0, score)] if (score - 0.880_782).abs() < 1e-5), "{softmax:?}");
    }

    proptest! {
        #[test]
        fn the_order_in_memory_makes_no_difference(
            numbers in prop::collection::vec(prop::sample::select(vec![0.0f32, 0.1, 0.3, 0.5, 0.7, 0.9]), 5 * 12),
        ) {
            let wanted = wanted(&[(0, 0.2, true), (1, 0.4, false), (3, 0.4, false), (4, 0.1, true)]);
            let transposed: Vec<f32> =
                (0..5).flat_map(|column| (0..12).map(move |row| row * 5 + column)).map(|at| numbers[at]).collect();
            for coding in [Scores::Probabilities, Scores::Sigmoid, Scores::Softmax] {
                prop_assert_eq!(
                    found(Rows::new(&numbers, 5, false), coding, &wanted),
                    found(Rows::new(&transposed, 5, true), coding, &wanted)
                );
            }
        }
    }
}
