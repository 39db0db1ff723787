//! The same picture again and again while the stream goes on: to the step, or encoded anew each time.
//!
//! A camera that encodes a picture anew each time makes something else of it each time, as it does of what is really there
//! and stands still: cells differ by a step or more in both. Only over a day are the two told apart: what is really there
//! changes, if only with the sun.

use std::ops::Range;
use std::time::Duration;

use super::impression::{BLOCK, blocks, cells_of};
use crate::motion::Miniature;

/// Steps of luma by which a cell of the same picture may differ: an encoder does not make exactly the same of it twice.
const SAME: f32 = 0.05;

/// Part of the picture's height, at the top and at the bottom, in which a clock may run.
const CLOCK: usize = 8;

/// Of so many cells, one may differ all the same.
const STRAY: usize = 1000;

/// Deviation within the picture, in steps of luma, below which nothing is said: black stays black.
const CONTRAST_MIN: f32 = 5.0;

/// Looks at one picture before it counts as frozen, however rare they are.
const LOOKS: u32 = 4;

/// Steps of luma by which the mean of a block may differ in a picture in which nothing has changed. With x264 at 256 kbit/s, far
/// too little for 640x360 and a keyframe each two seconds, a block of a still picture differed by 2.0 at most, and by 0.3 at
/// 1 Mbit/s.
const UNCHANGED: f32 = 2.5;

/// Of so many blocks, one may differ all the same.
const STRAY_BLOCKS: usize = 50;

/// Watches for it. A sensor's noise makes every cell of every live picture differ, if only by a fraction of a step.
#[derive(Clone, Debug, Default)]
pub(super) struct Frozen {
    first: Option<First>,
    unchanged: Option<Unchanged>,
}

#[derive(Clone, Debug)]
struct First {
    picture: Miniature,
    at: Duration,
    looks: u32,
}

/// Since when nothing has changed, and the means of the blocks then.
#[derive(Clone, Debug)]
struct Unchanged {
    means: Vec<Option<f32>>,
    since: Duration,
}

impl Frozen {
    /// Takes a picture, and says whether all have been the same for so long, or nothing in them has changed for the longer
    /// time, if that counts.
    pub(super) fn observe(
        &mut self,
        now: Duration,
        picture: &Miniature,
        same_after: Duration,
        unchanged_after: Option<Duration>,
    ) -> bool {
        let same = self.is_same(now, picture, same_after);
        same || unchanged_after.is_some_and(|after| self.is_unchanged(now, picture, after))
    }

    fn is_unchanged(&mut self, now: Duration, picture: &Miniature, after: Duration) -> bool {
        let means = block_means(picture);
        match &self.unchanged {
            Some(unchanged) if !has_changed(&unchanged.means, &means) => {
                now.saturating_sub(unchanged.since) >= after && has_contrast(picture)
            }
            _ => {
                self.unchanged = Some(Unchanged { means, since: now });
                false
            }
        }
    }

    fn is_same(&mut self, now: Duration, picture: &Miniature, after: Duration) -> bool {
        match &mut self.first {
            Some(first) if is_same(&first.picture, picture) => {
                first.looks += 1;
                first.looks >= LOOKS && now.saturating_sub(first.at) >= after
            }
            _ => {
                self.first = Some(First { picture: picture.clone(), at: now, looks: 1 });
                false
            }
        }
    }

    /// Pictures were missing: what comes next begins anew.
    pub(super) fn gap(&mut self) {
        (self.first, self.unchanged) = (None, None);
    }
}

fn is_same(first: &Miniature, picture: &Miniature) -> bool {
    let columns = picture.columns();
    if !first.fits(picture) || columns == 0 {
        return false;
    }
    let inside = inside(picture);
    let inside = inside.start * columns..inside.end * columns;
    let pairs = first.cells()[inside.clone()].iter().zip(&picture.cells()[inside]);
    let (mut count, mut stray) = (0_usize, 0_usize);
    for (a, b) in pairs {
        let (Some(a), Some(b)) = (a, b) else { continue };
        count += 1;
        stray += usize::from((a - b).abs() > SAME);
    }
    stray * STRAY <= count && has_contrast(picture)
}

/// The means of the blocks in which no clock may run; none where a mask covers a part.
fn block_means(picture: &Miniature) -> Vec<Option<f32>> {
    let ((columns, rows), inside) = (blocks(picture), inside(picture));
    let rows = (0..rows).filter(|row| inside.start <= row * BLOCK && (row + 1) * BLOCK <= inside.end);
    let places = rows.flat_map(|row| (0..columns).map(move |column| (column, row)));
    let mean = |(column, row)| -> Option<f32> {
        let sum: Option<f32> = cells_of(picture, column, row).map(|cell| picture.cells()[cell]).sum();
        Some(sum? / (BLOCK * BLOCK) as f32)
    };
    places.map(mean).collect()
}

fn has_changed(before: &[Option<f32>], now: &[Option<f32>]) -> bool {
    let pairs = before.iter().zip(now).filter_map(|(before, now)| before.zip(*now));
    let (mut count, mut stray) = (0_usize, 0_usize);
    for (before, now) in pairs {
        count += 1;
        stray += usize::from((before - now).abs() > UNCHANGED);
    }
    before.len() != now.len() || stray * STRAY_BLOCKS > count
}

/// The rows of cells in which no clock may run.
fn inside(picture: &Miniature) -> Range<usize> {
    let rows = picture.cells().len().checked_div(picture.columns()).unwrap_or(0);
    let clock = rows.div_ceil(CLOCK);
    clock..rows.saturating_sub(clock).max(clock)
}

/// Whether there is anything to see in it.
fn has_contrast(picture: &Miniature) -> bool {
    let columns = picture.columns();
    let inside = inside(picture);
    let cells = picture.cells().get(inside.start * columns..inside.end * columns).unwrap_or_default();
    let (mut count, mut sum, mut squares) = (0_usize, 0.0, 0.0);
    for cell in cells.iter().flatten() {
        count += 1;
        (sum, squares) = (sum + f64::from(*cell), squares + f64::from(*cell).powi(2));
    }
    let mean = sum / count.max(1) as f64;
    let deviation = (squares / count.max(1) as f64 - mean * mean).max(0.0).sqrt();
    deviation >= f64::from(CONTRAST_MIN)
}
