//! A plane at another size, by the triangle filter: every pixel of the source counts, so that a far person of a 1080p
//! picture is not lost between samples.
//!
//! Rows are blended first, then columns: what is left of the rows is less to go across. Both are plain loops that compilers
//! make SIMD of, within `pulp`'s choice of what this processor can do. The weights of the sizes that were last asked for are
//! kept: for the small pictures that models see, they are a fifth of the work.

use std::sync::Arc;

use pulp::{Arch, NullaryFnOnce};

use crate::frame::Plane;
use crate::packing::Area;

/// What the weights of a target are together: of rows so much that a sum of pixels fits into sixteen bits, of columns as
/// much as fits into them itself.
const ROWS: u16 = 256;
const COLUMNS: u16 = 16384;

/// Weights come in groups of this many, the last ones of which may be 0.
const GROUP: usize = 4;

/// Pairs of sizes whose weights are kept: both sides of luma and chroma, of whole pictures and of parts.
const SIDES_MAX: usize = 32;

/// Changes the size of planes, or of parts of them. Keeps its buffers.
#[derive(Default)]
pub(crate) struct Resampler {
    /// What was used last is at the end.
    sides: Vec<Arc<Side>>,
    /// A blended row, in 1/64, and one channel of it.
    row: Vec<i16>,
    channel: Vec<i16>,
}

impl Resampler {
    /// Brings a part of a plane, whose pixels have `C` interleaved channels, to `width` by `height`; each channel fills a
    /// plane of its own.
    pub(crate) fn resample<const C: usize>(
        &mut self,
        plane: Plane<'_>,
        part: Area,
        (width, height): (u32, u32),
        into: [&mut [u8]; C],
    ) {
        let across = self.side(part.width, width, COLUMNS);
        let down = self.side(part.height, height, ROWS);
        let columns = part.width as usize;
        // Groups of weights that end in zeros reach beyond the last pixel.
        self.row.resize(C * (columns + across.taps), 0);
        self.channel.resize(columns + across.taps, 0);
        let Self { row, channel, .. } = self;
        Arch::new().dispatch(Pass { across: &across, down: &down, plane, part, row, channel, into });
    }

    fn side(&mut self, from: u32, to: u32, one: u16) -> Arc<Side> {
        let known = self.sides.iter().position(|side| (side.from, side.to, side.one) == (from, to, one));
        let side = known.map_or_else(|| Arc::new(Side::new(from, to, one)), |index| self.sides.remove(index));
        if self.sides.len() == SIDES_MAX {
            self.sides.remove(0);
        }
        self.sides.push(side.clone());
        side
    }
}

/// One plane from one size to another. A structure, because what a closure does would not be inlined where SIMD is known.
struct Pass<'a, const C: usize> {
    across: &'a Side,
    down: &'a Side,
    plane: Plane<'a>,
    part: Area,
    row: &'a mut [i16],
    channel: &'a mut [i16],
    into: [&'a mut [u8]; C],
}

impl<const C: usize> NullaryFnOnce for Pass<'_, C> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { across, down, plane, part, row, channel, mut into } = self;
        let (columns, width) = (part.width as usize, across.to as usize);
        for target in 0..down.to as usize {
            down.blend(plane, part, target, &mut row[..C * columns]);
            for (index, into) in into.iter_mut().enumerate() {
                let into = &mut into[target * width..][..width];
                if C == 1 {
                    across.narrow(row, into);
                } else {
                    let of_pixel = row.as_chunks::<C>().0.iter().map(|pixel| pixel[index]);
                    channel[..columns].iter_mut().zip(of_pixel).for_each(|(to, from)| *to = from);
                    across.narrow(channel, into);
                }
            }
        }
    }
}

/// How so many pixels in a row, or rows, become so many others.
struct Side {
    from: u32,
    to: u32,
    one: u16,
    /// Weights for each target.
    taps: usize,
    /// The first pixel that counts, for each target.
    starts: Vec<usize>,
    /// One after the other.
    weights: Vec<i16>,
}

impl Side {
    fn new(from: u32, to: u32, one: u16) -> Self {
        let scale = f64::from(from) / f64::from(to);
        let support = scale.max(1.0);
        let taps = ((2.0 * support) as usize + 1).next_multiple_of(GROUP);
        let mut weights = vec![0; taps * to as usize];
        let targets = weights.chunks_exact_mut(taps).enumerate();
        let starts = targets.map(|(target, weights)| {
            let centre = (target as f64 + 0.5) * scale - 0.5;
            let first = (centre - support).ceil().max(0.0) as usize;
            let last = (centre + support).floor().min(f64::from(from) - 1.0) as usize;
            let shares = || (first..=last).map(|at| (1.0 - (at as f64 - centre).abs() / support).max(0.0));
            let all: f64 = shares().sum();
            // Sums are rounded, not weights: these add up to 1 whatever they are.
            let (mut sum, mut given) = (0.0, 0);
            for (weight, share) in weights.iter_mut().zip(shares()) {
                sum += share / all * f64::from(one);
                *weight = sum.round() as i16 - given;
                given += *weight;
            }
            first
        });
        Self { from, to, one, taps, starts: starts.collect(), weights }
    }

    /// The rows of a part of a plane that a target is made of, as one, in 1/64.
    #[inline(always)]
    fn blend(&self, plane: Plane<'_>, part: Area, target: usize, row: &mut [i16]) {
        let left = part.left as usize * (row.len() / part.width as usize);
        let length = row.len();
        let line = |index: usize| {
            let index = (self.starts[target] + index).min(part.height as usize - 1);
            &plane.data[(part.top as usize + index) * plane.stride + left..][..length]
        };
        row.fill(0);
        let weights = &self.weights[target * self.taps..][..self.taps];
        for (group, weights) in weights.as_chunks::<GROUP>().0.iter().enumerate() {
            if weights.iter().any(|&weight| weight != 0) {
                let first = GROUP * group;
                let weights = weights.map(|weight| weight as u16);
                add_rows(row, line(first), line(first + 1), line(first + 2), line(first + 3), weights);
            }
        }
    }

    /// A row of `from` pixels as one of `to`.
    #[inline(always)]
    fn narrow(&self, row: &[i16], into: &mut [u8]) {
        match self.taps {
            4 => self.narrow_by::<4>(row, into),
            8 => self.narrow_by::<8>(row, into),
            12 => self.narrow_by::<12>(row, into),
            taps => {
                let weights = self.weights.chunks_exact(taps);
                for ((&start, weights), into) in self.starts.iter().zip(weights).zip(into) {
                    *into = rounded(dot(&row[start..][..taps], weights));
                }
            }
        }
    }

    /// With a number of weights that the compiler knows.
    #[inline(always)]
    fn narrow_by<const TAPS: usize>(&self, row: &[i16], into: &mut [u8]) {
        let weights = self.weights.as_chunks::<TAPS>().0;
        for ((&start, weights), into) in self.starts.iter().zip(weights).zip(into) {
            *into = rounded(dot(&row[start..][..TAPS], weights));
        }
    }
}

/// Adds rows, each with a weight in 1/256. A function of its own, so that compilers know that none of them is another.
#[inline(always)]
fn add_rows(sum: &mut [i16], a: &[u8], b: &[u8], c: &[u8], d: &[u8], weights: [u16; GROUP]) {
    let [of_a, of_b, of_c, of_d] = weights;
    for index in 0..sum.len() {
        let [a, b, c, d] = [a[index], b[index], c[index], d[index]].map(u16::from);
        sum[index] += ((a * of_a + b * of_b + c * of_c + d * of_d) >> 2) as i16;
    }
}

#[inline(always)]
fn dot(pixels: &[i16], weights: &[i16]) -> i32 {
    pixels.iter().zip(weights).map(|(&pixel, &weight)| i32::from(pixel) * i32::from(weight)).sum()
}

/// 1/64 times 1/16384, to the nearest.
#[inline(always)]
fn rounded(sum: i32) -> u8 {
    ((sum + (1 << 19)) >> 20) as u8
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{noise, scaled};

    proptest! {
        #[test]
        fn a_part_of_a_plane_becomes_what_the_definition_says(
            part in (1_u32..90, 1_u32..90),
            at in (0_u32..5, 0_u32..5),
            to in (1_u32..90, 1_u32..90),
        ) {
            let (width, height) = (part.0 + at.0 + 2, part.1 + at.1);
            let pixel = |x: usize, y: usize, channel: usize| noise(x + 1000 * channel, y);
            let data: Vec<u8> = (0..height as usize)
                .flat_map(|y| (0..width as usize).flat_map(move |x| [0, 1].map(|channel| pixel(x, y, channel))))
                .collect();
            let plane = Plane { data: &data, stride: 2 * width as usize };
            let area = Area { left: at.0, top: at.1, width: part.0, height: part.1 };
            let [mut first, mut second] = [(); 2].map(|()| vec![0; to.0 as usize * to.1 as usize]);
            Resampler::default().resample(plane, area, to, [&mut first, &mut second]);

            // Both passes round, and each weight of a row is up to 1/512 off, in noise that is up to 128 off its mean.
            let allowed = 1.0 + 2.0 * f64::max(1.0, f64::from(part.1) / f64::from(to.1)) * 128.0 / 512.0;
            let size = |(width, height): (u32, u32)| (width as usize, height as usize);
            for (channel, found) in [first, second].into_iter().enumerate() {
                let of = |x: usize, y: usize| pixel(x + at.0 as usize, y + at.1 as usize, channel);
                for (found, expected) in found.into_iter().zip(scaled(&of, size(part), size(to))) {
                    prop_assert!((f64::from(found) - expected).abs() < allowed, "{found} for {expected}");
                }
            }
        }
    }

    #[test]
    fn what_is_of_one_brightness_stays_so() {
        for level in [0, 1, 16, 127, 235, 254, 255] {
            let data = vec![level; 480 * 270];
            let plane = Plane { data: &data, stride: 480 };
            for to in [(480, 270), (104, 59), (31, 17), (512, 288), (1, 1)] {
                let mut found = vec![7; (to.0 * to.1) as usize];
                Resampler::default().resample(plane, Area::all_of(480, 270), to, [&mut found]);
                assert!(found.iter().all(|&found| found == level), "{level} at {to:?}");
            }
        }
    }

    #[test]
    fn weights_are_kept_for_as_long_as_they_are_used() {
        let mut resampler = Resampler::default();
        let first = resampler.side(640, 416, COLUMNS);
        for to in 1..=3 * SIDES_MAX as u32 {
            resampler.side(100, to, ROWS);
            assert!(Arc::ptr_eq(&first, &resampler.side(640, 416, COLUMNS)));
        }
        assert_eq!(resampler.sides.len(), SIDES_MAX);
    }
}
