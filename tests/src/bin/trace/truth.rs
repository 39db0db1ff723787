//! What a detector sees in each second of a clip: nothing, something that stands, something that moves.

use std::io::{ErrorKind, Read, Write};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use sharp_eyes_tests::places;
use sharp_eyes_vision::{
    Colour, Detection, Detector, DetectorOptions, FrameView, PixelFormat, Plane, Runtime,
};

/// Looks in each second.
const LOOKS: usize = 4;

/// What has moved less far from look to look, in parts of the picture's width and height, stands: boxes tremble that much.
const MOVED: f32 = 0.02;

/// For each second: its number, `-` nothing, `v` something visible, `m` something that moves, came or went; then the
/// best score and the largest number of objects seen at once.
pub(super) fn print(
    mut frames: impl Read,
    (width, height): (u32, u32),
    model: &Path,
    out: &mut impl Write,
) -> Result<()> {
    let runtime = Runtime::load(&places::onnx_runtime()?)?;
    let mut detector = Detector::load(&runtime, model, &DetectorOptions::default())?;
    let (luma, chroma) = ((width * height) as usize, (width * height / 4) as usize);
    let mut frame = vec![0; luma + 2 * chroma];
    let mut before: Vec<Detection> = Vec::new();
    for second in 0.. {
        let (mut best, mut most, mut moved) = (0.0_f32, 0, false);
        for look in 0..LOOKS {
            match frames.read_exact(&mut frame) {
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
                done => done.context("reading frames")?,
            }
            let plane = |data, stride: u32| Plane { data, stride: stride as usize };
            let planes = [
                plane(&frame[..luma], width),
                plane(&frame[luma..luma + chroma], width / 2),
                plane(&frame[luma + chroma..], width / 2),
            ];
            let view = FrameView::new(width, height, PixelFormat::I420, Colour::Bt601, false, &planes)?;
            let mut seen = detector.detect(&view, &[])?;
            let thresholds = &detector.model().thresholds;
            seen.retain(|detection| detection.score >= thresholds.of(detection.class));
            best = seen.iter().map(|detection| detection.score).fold(best, f32::max);
            most = most.max(seen.len());
            moved |= (second, look) > (0, 0)
                && (seen.len() != before.len() || !seen.iter().all(|one| stood(one, &before)));
            before = seen;
        }
        let letter = match (most, moved) {
            (_, true) => 'm',
            (0, false) => '-',
            (_, false) => 'v',
        };
        writeln!(out, "{second} {letter} {best:.2} {most}").context("writing")?;
    }
    Ok(())
}

fn stood(one: &Detection, before: &[Detection]) -> bool {
    let centre = |detection: &Detection| {
        let bounds = detection.bounds;
        (f32::midpoint(bounds.left, bounds.right()), f32::midpoint(bounds.top, bounds.bottom()))
    };
    let (x, y) = centre(one);
    before.iter().map(centre).any(|(was_x, was_y)| (x - was_x).abs() < MOVED && (y - was_y).abs() < MOVED)
}

/// Even sides, as "768x432".
pub(super) fn size(text: &str) -> Result<(u32, u32)> {
    let (width, height) = text.split_once('x').context("expected WIDTHxHEIGHT")?;
    let size = (width.parse()?, height.parse()?);
    ensure!(size.0 % 2 == 0 && size.1 % 2 == 0, "{text}: expected even sides");
    Ok(size)
}
