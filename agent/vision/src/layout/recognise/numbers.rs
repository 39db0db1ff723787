//! What the numbers of a trial run show.

use super::Output;
use crate::layout::grid::{STRIDES, cell};
use crate::tensor::Rows;

/// Between which limits numbers lie, those that are not finite left out.
#[derive(Clone, Copy)]
pub(super) struct Range {
    pub(super) least: f32,
    pub(super) largest: f32,
    /// Whether there is a number other than 0.
    pub(super) any: bool,
}

impl Range {
    pub(super) fn of(numbers: impl Iterator<Item = f32>) -> Self {
        let start = Self { least: 0.0, largest: 0.0, any: false };
        numbers.filter(|number| number.is_finite() && *number != 0.0).fold(start, |range, number| Self {
            least: range.least.min(number),
            largest: range.largest.max(number),
            any: true,
        })
    }

    /// Whether scores are logits; `None` where all are 0. Rounding takes a sigmoid a little beyond its limits.
    pub(super) fn is_logit(self) -> Option<bool> {
        self.any.then_some(self.least < -0.01 || self.largest > 1.01)
    }

    /// Whether boxes are fractions of the picture: pixels go further.
    pub(super) fn is_normalised(self) -> bool {
        self.largest.max(-self.least) <= 2.0
    }

    pub(super) fn is_probability(self) -> bool {
        self.is_logit() == Some(false)
    }
}

/// Whether the second corner of every box lies right of and below the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ordering {
    Ordered,
    Unordered,
    /// Too few boxes to tell.
    Unknown,
}

impl Ordering {
    pub(super) fn of(boxes: &Output, transposed: bool) -> Self {
        Self::of_rows(Rows::new(&boxes.numbers, 4, transposed))
    }

    pub(super) fn of_rows(rows: Rows<'_>) -> Self {
        let (mut seen, mut ordered) = (0, 0);
        for row in 0..rows.count {
            let [a, b, c, d] = rows.four(row, 0);
            if [a, b, c, d].iter().all(|number| number.is_finite()) && [a, b, c, d] != [0.0; 4] {
                seen += 1;
                ordered += usize::from(c >= a && d >= b);
            }
        }
        match (seen, ordered) {
            (seen, ordered) if ordered < seen => Self::Unordered,
            // A few boxes by their middle can look ordered by chance, many cannot.
            (8.., _) => Self::Ordered,
            _ => Self::Unknown,
        }
    }
}

/// Whether a column holds whole numbers only.
pub(super) fn is_whole(rows: Rows<'_>, column: usize) -> bool {
    rows.columns(column..column + 1).iter().all(|number| number.fract() == 0.0)
}

/// What four numbers for each cell of a grid are, where they are no corners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PerCell {
    /// The middle of a box, its width and its height.
    Middles,
    /// Distances to the four sides, in strides.
    Distances,
    /// Neither for sure.
    Unclear,
}

impl PerCell {
    /// The middle of a box is about where its cell is, and no distance reaches out of the picture.
    pub(super) fn of(rows: Rows<'_>, size: (u32, u32)) -> Self {
        let (width, height) = (size.0 as f32, size.1 as f32);
        let (across, down) =
            if Range::of(rows.iter()).is_normalised() { (width, height) } else { (1.0, 1.0) };
        let is_middle = |row: &usize| {
            let Some(cell) = cell(*row, size, &STRIDES) else { return false };
            let [x, y, ..] = rows.four(*row, 0);
            let near = |place: f32, cell_at: f32| (place / cell.stride - cell_at - 0.5).abs() <= 2.0;
            let beyond = x > width / cell.stride + 1.0 || y > height / cell.stride + 1.0;
            beyond || (near(x * across, cell.column) && near(y * down, cell.row))
        };
        match (0..rows.count).filter(is_middle).count() {
            most if most * 4 >= rows.count * 3 => Self::Middles,
            few if few * 3 <= rows.count => Self::Distances,
            _ => Self::Unclear,
        }
    }
}
