//! A frame as far as tampering shows in it.

use crate::frame::{FrameView, PixelFormat};
use crate::motion::Miniature;

/// Cells of the miniature on a block's side.
pub(super) const BLOCK: usize = 8;

/// The least energy of coarse steps in a block, in squared steps of luma, for its sharpness to say anything.
const ENERGY_MIN: f32 = 36.0;

/// Mean distance of chroma from grey below which a picture is a monochrome one.
const MONOCHROME: f32 = 2.0;

/// The miniature of a frame, and what it does not show: fine detail and colour.
#[derive(Clone, Debug)]
pub struct Impression {
    pub(super) miniature: Miniature,
    /// By block, row by row: the energy of fine steps over that of coarse ones, along rows of pixels. Brenner's
    /// measure of focus, independent of exposure and contrast: 1/64 in the smoothest gradient, about 1/8 in sharp
    /// pictures, more in noise. `None` where there is nothing to see.
    pub(super) sharpness: Vec<Option<f32>>,
    /// By infrared light, say.
    pub(super) monochrome: bool,
}

impl Impression {
    /// Of a frame and the miniature of it.
    pub fn of(frame: &FrameView<'_>, miniature: Miniature) -> Self {
        let sharpness = sharpness(frame, &miniature);
        Self { sharpness, monochrome: is_monochrome(frame), miniature }
    }
}

/// Blocks in a row and in a column. What is left at the right and at the bottom belongs to none.
pub(super) fn blocks(miniature: &Miniature) -> (usize, usize) {
    let columns = miniature.columns();
    let rows = miniature.cells().len().checked_div(columns).unwrap_or(0);
    (columns / BLOCK, rows / BLOCK)
}

/// Indices of a block's cells, row by row.
pub(super) fn cells_of(
    miniature: &Miniature,
    column: usize,
    row: usize,
) -> impl Iterator<Item = usize> + use<> {
    let columns = miniature.columns();
    let first = row * BLOCK * columns + column * BLOCK;
    (0..BLOCK * BLOCK).map(move |at| first + at / BLOCK * columns + at % BLOCK)
}

fn sharpness(frame: &FrameView<'_>, miniature: &Miniature) -> Vec<Option<f32>> {
    let cell = Miniature::cell_side(frame.width() as usize);
    let fine = (cell / 4).max(1);
    let coarse = 8 * fine;
    let luma = frame.planes()[0];
    let (columns, rows) = blocks(miniature);
    let mut sharpness = Vec::with_capacity(columns * rows);
    for row in 0..rows {
        for column in 0..columns {
            // Where a mask covers a part, nothing of the block is looked at.
            if cells_of(miniature, column, row).any(|at| miniature.cells()[at].is_none()) {
                sharpness.push(None);
                continue;
            }
            let (left, width) = (column * BLOCK * cell, BLOCK * cell);
            let (mut fine_energy, mut coarse_energy) = (0_u64, 0_u64);
            // One row of pixels in each row of cells is enough.
            for y in (0..BLOCK).map(|at| (row * BLOCK + at) * cell + cell / 2) {
                let pixels = &luma.data[y * luma.stride..][left..left + width];
                for x in 0..width - coarse {
                    let step = |far: usize| u64::from(pixels[x].abs_diff(pixels[x + far])).pow(2);
                    fine_energy += step(fine);
                    coarse_energy += step(coarse);
                }
            }
            let samples = (BLOCK * (width - coarse)) as f32;
            let enough = coarse_energy as f32 >= ENERGY_MIN * samples;
            sharpness.push(enough.then(|| fine_energy as f32 / coarse_energy as f32));
        }
    }
    sharpness
}

/// Of every sixteenth pixel of every eighth row.
fn is_monochrome(frame: &FrameView<'_>) -> bool {
    let (columns, rows) = (frame.width().div_ceil(2) as usize, frame.height().div_ceil(2) as usize);
    let planes = frame.planes();
    let (chroma, bytes) = match frame.format() {
        PixelFormat::I420 => (&planes[1..3], columns),
        PixelFormat::Nv12 => (&planes[1..2], 2 * columns),
    };
    let (mut sum, mut count) = (0_u64, 0_u64);
    for plane in chroma {
        for y in (0..rows).step_by(8) {
            // An odd step, so that interleaved planes give both of their halves.
            for value in plane.data[y * plane.stride..][..bytes].iter().step_by(15) {
                sum += u64::from(value.abs_diff(128));
                count += 1;
            }
        }
    }
    sum as f32 <= MONOCHROME * count as f32
}
