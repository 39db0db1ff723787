//! What a camera usually shows, and how far a picture is from it.

use std::time::Duration;

use super::impression::{BLOCK, Impression, blocks, cells_of};

/// Until this much was seen, a memory says nothing.
pub(super) const LEARNS: Duration = Duration::from_secs(30);

/// In what time it follows what changes slowly: dusk, fog, shadows, snow on the ground.
const FOLLOWS: Duration = Duration::from_secs(600);

/// The longest time between two pictures that counts as seen: a sleeping camera is looked at every 15 s.
const STEP_MAX: Duration = Duration::from_secs(30);

/// Deviation within a block, in steps of luma, from which on it shows something that can be recognised.
const CONTRAST_MIN: f32 = 3.0;

/// Correlation from which on a block shows the same.
const SAME: f32 = 0.5;

/// A block is flat with less than this part of its usual contrast.
const FLAT: f32 = 0.25;

/// Cells by which a camera may sway.
const SWAY: isize = 2;

/// Below this share of blocks that show the same, it is worth looking whether the camera sways.
const CLEAR: f32 = 0.6;

/// What was seen over some time.
#[derive(Clone, Debug)]
pub(super) struct Memory {
    usual: Impression,
    learned: Duration,
}

/// How a picture differs from a memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Comparison {
    /// Share of the blocks that can be recognised, 0 to 1, that show what they do usually.
    pub(super) same: f32,
    /// Share of those that show nothing any more.
    pub(super) flat: f32,
    /// Median over the blocks of their sharpness, and of it in parts of the usual one; without enough blocks, `None`.
    pub(super) sharpness: Option<(f32, f32)>,
}

impl Memory {
    pub(super) fn of(first: &Impression) -> Self {
        Self { usual: first.clone(), learned: Duration::ZERO }
    }

    /// Whether enough was seen to judge by it.
    pub(super) fn is_ready(&self) -> bool {
        self.learned >= LEARNS
    }

    /// Whether pictures of this size can be compared with it.
    pub(super) fn fits(&self, seen: &Impression) -> bool {
        self.usual.miniature.fits(&seen.miniature)
    }

    /// Takes a picture for usual that comes `passed` after the one before.
    pub(super) fn learn(&mut self, seen: &Impression, passed: Duration) {
        let passed = passed.min(STEP_MAX);
        self.learned = (self.learned + passed).min(FOLLOWS);
        // As much as any other at first, then as a low pass.
        let share = passed.as_secs_f32() / self.learned.as_secs_f32().max(f32::MIN_POSITIVE);
        self.usual.miniature.follow(&seen.miniature, share);
        for (usual, seen) in self.usual.sharpness.iter_mut().zip(&seen.sharpness) {
            if let Some(seen) = seen {
                let known = usual.get_or_insert(*seen);
                *known += share * (seen - *known);
            }
        }
    }

    /// `None` where too little can be recognised: at night without light, say.
    pub(super) fn compare(&self, seen: &Impression) -> Option<Comparison> {
        let (columns, rows) = blocks(&self.usual.miniature);
        let least = (columns * rows / 10).max(4);
        let known: Vec<_> = (0..columns * rows)
            .map(|block| (block % columns, block / columns))
            .filter_map(|(column, row)| self.block(column, row).map(|block| (column, row, block)))
            .collect();
        if known.len() < least {
            return None;
        }
        let shares = |dx: isize, dy: isize| {
            let (mut same, mut flat) = (0, 0);
            for (column, row, block) in &known {
                let offset = dy * self.usual.miniature.columns() as isize + dx;
                match block.resembles(self.pixels(seen, *column, *row, offset)) {
                    Resemblance::Same => same += 1,
                    Resemblance::Flat => flat += 1,
                    Resemblance::Other => {}
                }
            }
            let share = |count: u32| count as f32 / known.len() as f32;
            (share(same), share(flat))
        };
        let mut best = shares(0, 0);
        if best.0 < CLEAR {
            let steps = -SWAY..=SWAY;
            let swayed = steps.clone().flat_map(|dy| steps.clone().map(move |dx| shares(dx, dy)));
            best = swayed.fold(best, |best, found| if found.0 > best.0 { found } else { best });
        }
        let mut pairs: Vec<_> = self
            .usual
            .sharpness
            .iter()
            .zip(&seen.sharpness)
            .filter_map(|(usual, seen)| Some((seen.as_ref()?, usual.as_ref()?)))
            .map(|(seen, usual)| (*seen, seen / usual.max(f32::MIN_POSITIVE)))
            .collect();
        let median = |pairs: &mut Vec<(f32, f32)>, of: fn(&(f32, f32)) -> f32| {
            let middle = pairs.len() / 2;
            of(pairs.select_nth_unstable_by(middle, |a, b| of(a).total_cmp(&of(b))).1)
        };
        let sharpness = (pairs.len() >= least)
            .then(|| (median(&mut pairs, |pair| pair.0), median(&mut pairs, |pair| pair.1)));
        Some(Comparison { same: best.0, flat: best.1, sharpness })
    }

    /// What a block usually shows, where it can be recognised.
    fn block(&self, column: usize, row: usize) -> Option<Block> {
        let cells = cells_of(&self.usual.miniature, column, row);
        let values: Option<Vec<f32>> = cells.map(|at| self.usual.miniature.cells()[at]).collect();
        let block = Block::of(&values?);
        (block.deviation >= CONTRAST_MIN).then_some(block)
    }

    /// A block of another picture, moved by so many cells; beyond the picture's edge its nearest rows.
    fn pixels<'a>(
        &self,
        seen: &'a Impression,
        column: usize,
        row: usize,
        offset: isize,
    ) -> impl Iterator<Item = f32> + use<'a> {
        let cells = seen.miniature.cells();
        cells_of(&seen.miniature, column, row).map(move |at| {
            let moved = at.checked_add_signed(offset).filter(|at| *at < cells.len()).unwrap_or(at);
            cells[moved].or(cells[at]).unwrap_or(0.0)
        })
    }
}

/// A block's cells less their mean.
struct Block {
    cells: Vec<f32>,
    deviation: f32,
}

enum Resemblance {
    Same,
    Flat,
    Other,
}

impl Block {
    fn of(cells: &[f32]) -> Self {
        let count = cells.len() as f32;
        let mean = cells.iter().sum::<f32>() / count;
        let cells: Vec<f32> = cells.iter().map(|cell| cell - mean).collect();
        let deviation = (cells.iter().map(|cell| cell * cell).sum::<f32>() / count).sqrt();
        Self { cells, deviation }
    }

    fn resembles(&self, seen: impl Iterator<Item = f32>) -> Resemblance {
        let seen = Self::of(&seen.take(BLOCK * BLOCK).collect::<Vec<_>>());
        let common =
            self.cells.iter().zip(&seen.cells).map(|(a, b)| a * b).sum::<f32>() / self.cells.len() as f32;
        if common >= SAME * self.deviation * seen.deviation && seen.deviation > 0.0 {
            Resemblance::Same
        } else if seen.deviation < FLAT * self.deviation {
            Resemblance::Flat
        } else {
            Resemblance::Other
        }
    }
}
