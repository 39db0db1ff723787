//! What a graph yields, as layouts read it: named, shaped numbers. The joint between inference and layout decoding.

use std::borrow::Cow;
use std::fmt;

/// One output of one run. Whatever the graph's type of number, here it is f32: half precision fits, and so do labels
/// up to 2^24.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor<'a> {
    /// The graph's name for it.
    pub name: &'a str,
    /// Its sides.
    pub shape: Vec<usize>,
    /// Its numbers, the last side fastest.
    pub numbers: Cow<'a, [f32]>,
}

/// A tensor that a layout expects, by its place among the outputs.
#[derive(Clone, Debug, PartialEq)]
pub struct Slot {
    /// Which of the graph's outputs it is.
    pub output: usize,
    /// Its name, for errors.
    pub name: String,
    /// Its sides; `None` for one that may differ from frame to frame.
    pub shape: Vec<Option<usize>>,
    /// Numbers in a row.
    pub columns: usize,
    /// Whether the columns are the tensor's first side (`[1, columns, rows]`) and not its last.
    pub transposed: bool,
}

impl Slot {
    /// The tensor as rows, if it has the expected shape.
    pub fn rows<'t>(&self, outputs: &'t [Tensor<'_>]) -> Result<Rows<'t>, UnexpectedShape> {
        let unexpected = |found: String| UnexpectedShape {
            name: self.name.clone(),
            expected: Sides(self.shape.clone()),
            found,
        };
        let tensor = outputs.get(self.output).ok_or_else(|| unexpected("no such output".into()))?;
        let fits = tensor.shape.len() == self.shape.len()
            && self
                .shape
                .iter()
                .zip(&tensor.shape)
                .all(|(expected, &found)| expected.is_none_or(|e| e == found))
            && tensor.shape.iter().product::<usize>() == tensor.numbers.len()
            && tensor.numbers.len().is_multiple_of(self.columns);
        if !fits {
            return Err(unexpected(format!("{:?}", tensor.shape)));
        }
        Ok(Rows::new(&tensor.numbers, self.columns, self.transposed))
    }
}

/// Numbers in rows and columns, whichever of both lies side by side in memory.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    numbers: &'a [f32],
    /// How many rows there are.
    pub count: usize,
    /// Numbers in a row.
    pub columns: usize,
    row_step: usize,
    column_step: usize,
}

impl<'a> Rows<'a> {
    /// Looks at `numbers` as rows of `columns`; `transposed` if all numbers of a column lie side by side.
    pub fn new(numbers: &'a [f32], columns: usize, transposed: bool) -> Self {
        let count = numbers.len() / columns.max(1);
        let (row_step, column_step) = if transposed { (1, count) } else { (columns, 1) };
        Self { numbers, count, columns, row_step, column_step }
    }

    /// One number.
    pub fn at(&self, row: usize, column: usize) -> f32 {
        self.numbers[row * self.row_step + column * self.column_step]
    }

    /// Four numbers of a row from a column on: most often a box.
    pub fn four(&self, row: usize, column: usize) -> [f32; 4] {
        std::array::from_fn(|index| self.at(row, column + index))
    }

    /// Some of the columns.
    pub fn columns(&self, columns: std::ops::Range<usize>) -> Self {
        let from = (columns.start * self.column_step).min(self.numbers.len());
        Self { numbers: &self.numbers[from..], columns: columns.len(), ..*self }
    }

    /// The first rows.
    pub fn first(&self, count: usize) -> Self {
        Self { count: count.min(self.count), ..*self }
    }

    /// All numbers of a column, if they lie side by side.
    pub fn column(&self, column: usize) -> Option<&'a [f32]> {
        (self.row_step == 1 && self.columns > 0)
            .then(|| &self.numbers[column * self.column_step..][..self.count])
    }

    /// All numbers, row by row.
    pub fn iter(self) -> impl Iterator<Item = f32> + use<'a> {
        (0..self.count).flat_map(move |row| (0..self.columns).map(move |column| self.at(row, column)))
    }
}

/// An output does not have the shape that its layout expects.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("output {name:?}: expected {expected}, found {found}")]
pub struct UnexpectedShape {
    /// The output.
    pub name: String,
    /// The sides that the layout expects.
    pub expected: Sides,
    /// What there is.
    pub found: String,
}

/// Sides of a tensor; `None` prints as `?`.
#[derive(Clone, Debug, PartialEq)]
pub struct Sides(pub Vec<Option<usize>>);

impl fmt::Display for Sides {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sides: Vec<_> =
            self.0.iter().map(|side| side.map_or_else(|| "?".to_owned(), |side| side.to_string())).collect();
        write!(f, "[{}]", sides.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_the_same_whichever_side_comes_first() {
        let plain = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0];
        let transposed = [0.0, 3.0, 1.0, 4.0, 2.0, 5.0];
        for rows in [Rows::new(&plain, 3, false), Rows::new(&transposed, 3, true)] {
            assert_eq!((rows.count, rows.iter().collect::<Vec<_>>()), (2, plain.to_vec()));
            let tail = rows.columns(1..3);
            assert_eq!(tail.iter().collect::<Vec<_>>(), [1.0, 2.0, 4.0, 5.0]);
            assert_eq!(rows.first(1).iter().collect::<Vec<_>>(), [0.0, 1.0, 2.0]);
        }
        assert_eq!(Rows::new(&transposed, 3, true).column(1), Some(&[1.0, 4.0][..]));
        assert_eq!(Rows::new(&plain, 3, false).column(1), None);
        assert_eq!(Rows::new(&[], 4, false).count, 0);
    }

    #[test]
    fn a_shape_that_differs_is_an_error_with_what_was_expected_and_found() {
        let slot = Slot {
            output: 0,
            name: "boxes".into(),
            shape: vec![Some(1), None, Some(4)],
            columns: 4,
            transposed: false,
        };
        let tensor = |shape: &[usize]| Tensor {
            name: "boxes",
            shape: shape.to_vec(),
            numbers: vec![0.0; shape.iter().product()].into(),
        };
        assert_eq!(slot.rows(&[tensor(&[1, 7, 4])]).unwrap().count, 7);
        assert_eq!(slot.rows(&[tensor(&[1, 0, 4])]).unwrap().count, 0);
        for (outputs, found) in [
            (vec![tensor(&[1, 7, 5])], "[1, 7, 5]"),
            (vec![tensor(&[7, 4])], "[7, 4]"),
            (vec![], "no such output"),
        ] {
            let error = slot.rows(&outputs).unwrap_err().to_string();
            assert_eq!(error, format!("output \"boxes\": expected [1, ?, 4], found {found}"));
        }
    }
}
