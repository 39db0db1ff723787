//! Size and quality of a JPEG that must not be larger than a link allows, found in few tries.

use super::EvidenceError;

/// One way to encode a picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Step {
    /// Of each side, above 0 and at most 1.
    pub(super) scale: f32,
    /// 1 to 100, as libjpeg counts it.
    pub(super) quality: u8,
}

/// Nobody sees more.
const BEST: f32 = 80.0;
/// A try at full size within so much of `BEST` is not repeated.
const NEARLY: f32 = 8.0;
/// Below it a smaller picture of quality `SMALLER` shows more. Judged by eye, on street scenes in 6 KB and 64 KB:
/// writing on a bus can be read longer in a large picture of low quality than in a small one of high quality.
const WORST: f32 = 25.0;
const SMALLER: f32 = 30.0;

/// A try aims at this much of the limit, because the forecast is not exact; after a miss, at so much less again.
const AIM: f32 = 0.9;
/// A try that fills this much of the limit is good enough.
const ENOUGH: f32 = 0.75;
/// One or two are usual, and three where a first one turned out small; white noise takes four.
const TRIES: usize = 8;
const TRIES_FOR_MORE: usize = 3;

/// Bytes are about `detail * pixels^0.8 * coarseness^-0.55`, fitted to street and indoor scenes at qualities 20 to
/// 80: the smaller a picture of the same scene, the more detail in each pixel.
const BY_PIXELS: f32 = 0.8;
const BY_COARSENESS: f32 = -0.55;
/// `detail` of a usual scene.
const USUAL: f32 = 1.3;

/// Encodes a picture that has `pixels` pixels at full size until it has at most `max_bytes`.
pub(super) fn within(
    max_bytes: usize,
    pixels: f32,
    mut encode: impl FnMut(Step) -> Result<Vec<u8>, EvidenceError>,
) -> Result<Vec<u8>, EvidenceError> {
    let limit = max_bytes as f32;
    let mut aim = AIM * limit;
    let mut step = forecast(USUAL, pixels, aim);
    let mut kept: Option<Vec<u8>> = None;
    let mut smallest = usize::MAX;
    for tried in 1..=TRIES {
        let jpeg = encode(step)?;
        let bytes = jpeg.len() as f32;
        smallest = smallest.min(jpeg.len());
        if jpeg.len() <= max_bytes {
            let finest = step.scale >= 1.0 && f32::from(step.quality) >= BEST - NEARLY;
            if finest || bytes >= ENOUGH * limit {
                return Ok(jpeg);
            }
            if kept.as_ref().is_none_or(|kept| kept.len() < jpeg.len()) {
                kept = Some(jpeg);
            }
        } else {
            aim *= AIM;
        }
        if tried >= TRIES_FOR_MORE && kept.is_some() {
            break;
        }
        let detail = bytes / expected(1.0, pixels * step.scale.powi(2), f32::from(step.quality));
        step = forecast(detail, pixels, aim);
    }
    kept.ok_or(EvidenceError::TooLarge { bytes: smallest, max_bytes })
}

/// The step that is expected to take `aim` bytes.
fn forecast(detail: f32, pixels: f32, aim: f32) -> Step {
    let full = expected(detail, pixels, 50.0);
    let possible = quality((aim / full).powf(1.0 / BY_COARSENESS));
    if possible >= WORST {
        return Step { scale: 1.0, quality: possible.min(BEST) as u8 };
    }
    let fewer = (aim / expected(detail, pixels, SMALLER)).powf(1.0 / BY_PIXELS);
    Step { scale: fewer.sqrt().min(1.0), quality: SMALLER as u8 }
}

fn expected(detail: f32, pixels: f32, quality: f32) -> f32 {
    detail * pixels.powf(BY_PIXELS) * coarseness(quality).powf(BY_COARSENESS)
}

/// How coarsely a quality quantises, relative to the tables of the standard (ITU-T T.81, annex K), which are
/// quality 50: the scale of libjpeg and its heirs.
fn coarseness(quality: f32) -> f32 {
    if quality < 50.0 { 50.0 / quality } else { 2.0 - quality / 50.0 }
}

fn quality(coarseness: f32) -> f32 {
    if coarseness > 1.0 { 50.0 / coarseness } else { 100.0 - 50.0 * coarseness }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// A pretended encoder that follows the forecast's formula only roughly.
        #[test]
        fn few_tries_come_near_the_limit(
            max_bytes in 6_000usize..=65_536,
            pixels in 50_000f32..1_000_000.0,
            detail in 0.2f32..8.0,
            by_pixels in 0.7f32..1.0,
            by_coarseness in -0.75f32..-0.35,
        ) {
            let size = |step: Step| {
                let full = detail * pixels.powf(BY_PIXELS);
                let scaled = full * step.scale.powi(2).powf(by_pixels);
                (scaled * coarseness(f32::from(step.quality)).powf(by_coarseness)) as usize
            };
            let mut tries = Vec::new();
            let jpeg = within(max_bytes, pixels, |step| {
                tries.push(step);
                Ok(vec![0; size(step)])
            }).unwrap();
            prop_assert!(jpeg.len() <= max_bytes);
            prop_assert!(tries.len() <= 4, "{tries:?}");
            let finest = size(Step { scale: 1.0, quality: (BEST - NEARLY) as u8 });
            prop_assert!(jpeg.len() as f32 >= (0.4 * max_bytes as f32).min(finest as f32), "{} of {max_bytes}: {tries:?}", jpeg.len());
        }
    }

    #[test]
    fn what_never_fits_is_an_error_that_says_how_small_it_became() {
        let mut sizes = (70_000..).step_by(1000).take(TRIES).collect::<Vec<usize>>();
        let result = within(65_536, 500_000.0, |_| Ok(vec![0; sizes.pop().unwrap()]));
        let Err(EvidenceError::TooLarge { bytes, max_bytes }) = result else { panic!("{result:?}") };
        assert_eq!((bytes, max_bytes, sizes.len()), (70_000, 65_536, 0));
    }
}
