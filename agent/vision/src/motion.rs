//! Whether anything in the picture changed: a miniature of its luma, held against what the scene looks like when nothing
//! happens.
//!
//! It answers "look closer" and nothing else: the gate wakes a camera by it, and a scene without motion may sleep.

use crate::frame::FrameView;
use crate::geometry::{Polygon, Rect};
use crate::mask::spans_of_cells;

/// Columns that a miniature has at most.
const COLUMNS_MAX: usize = 160;

/// Pixels of a cell's side at least: the mean of sixteen pixels has a quarter of a sensor's noise.
const CELL_MIN: usize = 4;

/// The mean luma of square cells, at most 160 in a row, 0 to 255. Cells that a privacy mask touches show nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct Miniature {
    columns: usize,
    cells: Vec<Option<f32>>,
}

impl Miniature {
    /// Of a frame, without what is masked. Pixels right and below of the last whole cell are left out.
    pub fn of(frame: &FrameView<'_>, masks: &[Polygon]) -> Self {
        let (width, height) = (frame.width() as usize, frame.height() as usize);
        let cell = Self::cell_side(width);
        let (columns, rows) = (width / cell, height / cell);
        let luma = frame.planes()[0];
        // Of large cells every second row is enough.
        let step = if cell >= 8 { 2 } else { 1 };
        let samples = (cell * cell.div_ceil(step)) as f32;
        let mut cells = Vec::with_capacity(columns * rows);
        // Rows are added up first, many pixels at once, and cells cut out of their sum: no frame has cells of 257 rows.
        let mut sums = vec![0_u16; columns * cell];
        for row in 0..rows {
            sums.fill(0);
            for y in (row * cell..(row + 1) * cell).step_by(step) {
                let line = &luma.data[y * luma.stride..][..columns * cell];
                for (sum, &pixel) in sums.iter_mut().zip(line) {
                    *sum += u16::from(pixel);
                }
            }
            let of = |sums: &[u16]| sums.iter().map(|&sum| u32::from(sum)).sum::<u32>();
            cells.extend(sums.chunks_exact(cell).map(|sums| Some(of(sums) as f32 / samples)));
        }
        // Masks are parts of the picture, which can be wider and higher than all whole cells together.
        let sides = (width as f32 / cell as f32, height as f32 / cell as f32);
        for span in spans_of_cells(masks, sides, (columns as u32, rows as u32)) {
            cells[span.row * columns..][span.from..span.to].fill(None);
        }
        Self { columns, cells }
    }

    /// Pixels on a cell's side in a frame of this width.
    pub(crate) fn cell_side(width: usize) -> usize {
        width.div_ceil(COLUMNS_MAX).max(CELL_MIN)
    }

    /// Cells in a row.
    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    /// All cells, row by row. `None` is masked.
    pub(crate) fn cells(&self) -> &[Option<f32>] {
        &self.cells
    }

    /// Makes each cell more like that of another one of the same sides, by this share, 0 to 1.
    pub(crate) fn follow(&mut self, other: &Self, share: f32) {
        for (cell, other) in self.cells.iter_mut().zip(&other.cells) {
            if let (Some(cell), Some(other)) = (cell, other) {
                *cell += share * (other - *cell);
            }
        }
    }

    /// Whether another one has the same sides.
    pub(crate) fn fits(&self, other: &Self) -> bool {
        (self.columns, self.cells.len()) == (other.columns, other.cells.len())
    }
}

/// What the scene looks like when nothing happens, and how much that flickers.
#[derive(Clone, Debug)]
pub struct Background {
    columns: usize,
    cells: Vec<Usual>,
}

/// One cell. Masked cells keep a mean of 0 that nothing is ever compared with.
#[derive(Clone, Copy, Debug)]
struct Usual {
    mean: f32,
    deviation: f32,
}

/// Deviation that a cell is believed to have before it was watched.
const DEVIATION_FIRST: f32 = 2.0;

/// Changes below this many steps of luma, or below this many deviations, are none.
const LEAST_STEPS: f32 = 6.0;
const LEAST_DEVIATIONS: f32 = 5.0;

/// Cells that must change together. A person of 60 pixels in a picture 1920 wide covers ten.
const LEAST_CELLS: u32 = 3;

/// What differs from the background.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Changed cells that have a changed neighbour: single ones are noise, insects and rain.
    pub cells: u32,
}

impl Change {
    /// Whether somebody ought to look.
    pub fn is_motion(self) -> bool {
        self.cells >= LEAST_CELLS
    }
}

impl Background {
    /// As in this miniature.
    pub fn of(miniature: &Miniature) -> Self {
        let usual = |cell: &Option<f32>| Usual { mean: cell.unwrap_or(0.0), deviation: DEVIATION_FIRST };
        Self { columns: miniature.columns, cells: miniature.cells.iter().map(usual).collect() }
    }

    /// What is different. Brighter or darker by one factor everywhere is the exposure, and no difference. A picture of
    /// another size differs everywhere.
    pub fn compare(&self, miniature: &Miniature) -> Change {
        if !self.fits(miniature) {
            return Change { cells: miniature.cells.len() as u32 };
        }
        let changed = self.changed(miniature);
        Change { cells: changed.into_iter().filter(|changed| *changed).count() as u32 }
    }

    /// Where it is different, in 0..1 of the picture: a rectangle around each patch of changed cells. Everywhere is nowhere.
    pub fn areas(&self, miniature: &Miniature) -> Vec<Rect> {
        if !self.fits(miniature) || self.columns == 0 {
            return Vec::new();
        }
        let mut changed = self.changed(miniature);
        let (columns, rows) = (self.columns, changed.len() / self.columns);
        let mut areas = Vec::new();
        let mut edge = Vec::new();
        for start in 0..changed.len() {
            edge.extend(std::mem::take(&mut changed[start]).then_some(start));
            let (mut left, mut top, mut right, mut bottom) = (columns, rows, 0, 0);
            while let Some(at) = edge.pop() {
                let (column, row) = (at % columns, at / columns);
                (left, top) = (left.min(column), top.min(row));
                (right, bottom) = (right.max(column + 1), bottom.max(row + 1));
                for row in row.saturating_sub(1)..(row + 2).min(rows) {
                    for column in column.saturating_sub(1)..(column + 2).min(columns) {
                        let next = row * columns + column;
                        edge.extend(std::mem::take(&mut changed[next]).then_some(next));
                    }
                }
            }
            if left < right {
                let (across, down) = (columns as f32, rows as f32);
                areas.push(Rect::from_sides(
                    left as f32 / across,
                    top as f32 / down,
                    right as f32 / across,
                    bottom as f32 / down,
                ));
            }
        }
        areas
    }

    /// Changed cells that have a changed neighbour. The miniature has the background's sides.
    fn changed(&self, miniature: &Miniature) -> Vec<bool> {
        let exposure = self.exposure(miniature);
        let changed: Vec<bool> = self
            .cells
            .iter()
            .zip(&miniature.cells)
            .map(|(usual, cell)| {
                let least = LEAST_STEPS.max(LEAST_DEVIATIONS * usual.deviation);
                cell.is_some_and(|cell| (cell - usual.mean * exposure).abs() > least)
            })
            .collect();
        let has_neighbour = |at: usize| {
            let column = at % self.columns;
            (column > 0 && changed[at - 1])
                || (column + 1 < self.columns && changed[at + 1])
                || (at >= self.columns && changed[at - self.columns])
                || changed.get(at + self.columns) == Some(&true)
        };
        (0..changed.len()).map(|at| changed[at] && has_neighbour(at)).collect()
    }

    /// Takes a miniature for usual to this share, 0 to 1: 1 forgets what was.
    pub fn learn(&mut self, miniature: &Miniature, share: f32) {
        if !self.fits(miniature) {
            *self = Self::of(miniature);
            return;
        }
        for (usual, cell) in self.cells.iter_mut().zip(&miniature.cells) {
            let Some(cell) = cell else { continue };
            let off = cell - usual.mean;
            usual.mean += share * off;
            // A cell that something walked through is no cell that flickers: what is far off teaches the mean only.
            let flicker = off.abs() * 1.25; // mean absolute deviation to standard deviation
            if flicker < LEAST_DEVIATIONS * usual.deviation {
                usual.deviation += share.min(0.1) * (flicker - usual.deviation);
            }
        }
    }

    fn fits(&self, miniature: &Miniature) -> bool {
        (self.columns, self.cells.len()) == (miniature.columns, miniature.cells.len())
    }

    /// By what factor the miniature is brighter: the median over all cells that are not dark.
    fn exposure(&self, miniature: &Miniature) -> f32 {
        let mut factors: Vec<f32> = self
            .cells
            .iter()
            .zip(&miniature.cells)
            .filter_map(|(usual, cell)| cell.filter(|_| usual.mean >= 24.0).map(|cell| cell / usual.mean))
            .collect();
        if factors.is_empty() || factors.len() < self.cells.len() / 8 {
            return 1.0;
        }
        let middle = factors.len() / 2;
        *factors.select_nth_unstable_by(middle, f32::total_cmp).1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::PixelFormat;
    use crate::geometry::Point;
    use crate::testing::{TestFrame, noise};

    /// A street of 1280x720 with sensor noise of about five steps that differs from frame to frame, and what is in it.
    fn street(frame: usize, put: impl Fn(usize, usize) -> Option<u8>) -> Miniature {
        let picture = TestFrame::new(1280, 720, PixelFormat::I420, |x, y| {
            let ground = 60 + (y / 8) as u8;
            let noise = noise(x + 1280 * frame, y) % 20;
            [put(x, y).unwrap_or(ground) + noise, 128, 128]
        });
        Miniature::of(&picture.view(), &[])
    }

    fn empty(frame: usize) -> Miniature {
        street(frame, |_, _| None)
    }

    fn watched() -> Background {
        let mut background = Background::of(&empty(0));
        for frame in 1..20 {
            background.learn(&empty(frame), 0.1);
        }
        background
    }

    /// A dark figure of so many pixels in height, a third as wide.
    fn figure(left: usize, height: usize) -> impl Fn(usize, usize) -> Option<u8> {
        move |x, y| ((left..left + height / 3).contains(&x) && (400..400 + height).contains(&y)).then_some(40)
    }

    #[test]
    fn noise_is_no_motion_and_a_small_figure_is() {
        let background = watched();
        for frame in 20..40 {
            assert_eq!(background.compare(&empty(frame)).cells, 0, "frame {frame}");
        }
        let change = background.compare(&street(40, figure(600, 48)));
        assert!(change.is_motion(), "{change:?}");
    }

    #[test]
    fn another_exposure_is_no_motion_but_hides_none() {
        let background = watched();
        let brighter = |cell: &Option<f32>| cell.map(|cell| cell * 1.2);
        let exposed = |mut miniature: Miniature| {
            miniature.cells = miniature.cells.iter().map(brighter).collect();
            miniature
        };
        assert!(!background.compare(&exposed(empty(40))).is_motion());
        assert!(background.compare(&exposed(street(40, figure(600, 48)))).is_motion());
    }

    #[test]
    fn what_stays_becomes_usual_at_once_or_by_and_by() {
        let parked = |frame| street(frame, figure(300, 120));
        let mut at_once = watched();
        at_once.learn(&parked(30), 1.0);
        assert!(!at_once.compare(&parked(31)).is_motion());
        assert!(at_once.compare(&empty(32)).is_motion(), "that it is gone is a change");
        let mut by_and_by = watched();
        for frame in 30..60 {
            by_and_by.learn(&parked(frame), 0.2);
        }
        assert!(!by_and_by.compare(&parked(61)).is_motion());
    }

    #[test]
    fn nothing_is_seen_behind_a_mask() {
        let corner = |x, y| Point { x, y };
        let mask = Polygon::new(vec![corner(0.4, 0.5), corner(0.6, 0.5), corner(0.6, 0.8), corner(0.4, 0.8)])
            .unwrap();
        let masked = |frame, height| {
            let picture = TestFrame::new(1280, 720, PixelFormat::Nv12, |x, y| {
                [figure(600, height)(x, y).unwrap_or(90) + noise(x + frame, y) % 20, 128, 128]
            });
            Miniature::of(&picture.view(), std::slice::from_ref(&mask))
        };
        let background = Background::of(&masked(0, 0));
        assert_eq!(background.compare(&masked(1, 48)).cells, 0);
        assert!(background.compare(&masked(1, 250)).is_motion(), "what sticks out is seen");
    }

    #[test]
    fn no_cell_shows_what_is_masked_also_where_cells_are_no_whole_part_of_the_picture() {
        let corner = |x, y| Point { x, y };
        for (width, height) in [(704, 576), (2688, 1520), (1280, 720), (641, 361)] {
            for (left, right) in [(0.0, 0.93), (0.41, 0.877), (0.9, 1.0)] {
                let corners =
                    vec![corner(left, 0.3), corner(right, 0.3), corner(right, 0.94), corner(left, 0.94)];
                let mask = Polygon::new(corners).unwrap();
                let inside = |x: usize, y: usize| {
                    let (x, y) = (x as f32 / width as f32, y as f32 / height as f32);
                    (left..right).contains(&x) && (0.3..0.94).contains(&y)
                };
                let picture = TestFrame::new(width, height, PixelFormat::I420, |x, y| {
                    [if inside(x, y) { 255 } else { 80 }, 128, 128]
                });
                let miniature = Miniature::of(&picture.view(), std::slice::from_ref(&mask));
                let open = miniature.cells.iter().flatten();
                assert!(open.clone().all(|cell| *cell == 80.0), "{width}x{height} {left} to {right}");
                let all = miniature.cells.len() as f32;
                let least = (1.0 - (right - left + 0.02) * 0.66) * all;
                assert!(
                    open.count() as f32 > least,
                    "{width}x{height} {left} to {right}: no more than needed"
                );
            }
        }
    }

    #[test]
    fn pictures_of_any_size_have_a_miniature() {
        for (width, height, columns, cells) in
            [(1920, 1080, 160, 160 * 90), (178, 100, 44, 44 * 25), (3, 3, 0, 0), (641, 361, 128, 128 * 72)]
        {
            let picture = TestFrame::new(width, height, PixelFormat::I420, |_, _| [77, 128, 128]);
            let miniature = Miniature::of(&picture.view(), &[]);
            assert_eq!((miniature.columns, miniature.cells.len()), (columns, cells), "{width}x{height}");
            assert!(miniature.cells.iter().all(|cell| *cell == Some(77.0)));
            assert!(!Background::of(&miniature).compare(&miniature).is_motion());
        }
        let (small, large) = (empty(0), street(0, |_, _| None));
        assert!(!Background::of(&small).compare(&large).is_motion());
        let other = Miniature { columns: 10, cells: vec![Some(1.0); 100] };
        assert!(Background::of(&small).compare(&other).is_motion(), "another size differs everywhere");
    }
}
