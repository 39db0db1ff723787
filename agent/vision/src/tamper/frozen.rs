//! The same picture again and again while the stream goes on.

use std::time::Duration;

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

/// Watches for it. A sensor's noise makes every cell of every live picture differ, if only by a fraction of a step.
#[derive(Clone, Debug, Default)]
pub(super) struct Frozen {
    first: Option<First>,
}

#[derive(Clone, Debug)]
struct First {
    picture: Miniature,
    at: Duration,
    looks: u32,
}

impl Frozen {
    /// Takes a picture, and says whether all have been the same for so long.
    pub(super) fn observe(&mut self, now: Duration, picture: &Miniature, after: Duration) -> bool {
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
        self.first = None;
    }
}

fn is_same(first: &Miniature, picture: &Miniature) -> bool {
    let columns = picture.columns();
    if !first.fits(picture) || columns == 0 {
        return false;
    }
    let rows = picture.cells().len() / columns;
    let (top, bottom) = (rows.div_ceil(CLOCK), rows - rows.div_ceil(CLOCK));
    let inside = top * columns..bottom.max(top) * columns;
    let pairs = first.cells()[inside.clone()].iter().zip(&picture.cells()[inside]);
    let (mut count, mut stray, mut sum, mut squares) = (0_usize, 0_usize, 0.0, 0.0);
    for (a, b) in pairs {
        let (Some(a), Some(b)) = (a, b) else { continue };
        count += 1;
        stray += usize::from((a - b).abs() > SAME);
        (sum, squares) = (sum + f64::from(*b), squares + f64::from(*b).powi(2));
    }
    let mean = sum / count.max(1) as f64;
    let deviation = (squares / count.max(1) as f64 - mean * mean).max(0.0).sqrt();
    deviation >= f64::from(CONTRAST_MIN) && stray * STRAY <= count
}
