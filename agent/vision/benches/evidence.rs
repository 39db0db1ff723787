//! Milliseconds and bytes of the pictures that leave the box.
//!
//! `cargo bench -p sharp-eyes-vision --bench evidence`. Prints medians on one thread. The frames are made of noise of
//! every size, coarse stronger than fine, as pictures of streets are: their JPEGs are about as large as those of a
//! shopping street, the worst that a camera in its right mind sends.

use std::hint::black_box;
use std::time::Instant;

use sharp_eyes_protocol::class::ObjectClass;
use sharp_eyes_vision::{
    Colour, Detection, EVIDENCE_MAX_BYTES, EVIDENCE_MIN_BYTES, FrameView, PixelFormat, Plane, Rect, Redacted,
};

const RUNS: usize = 31;

fn main() {
    let people: Vec<_> = (0..8)
        .map(|index| Rect { left: 0.1 + 0.1 * index as f32, top: 0.5, width: 0.04, height: 0.2 })
        .map(|bounds| Detection { class: ObjectClass::Person, score: 0.5, bounds })
        .collect();
    let name = |bytes: usize| format!("{} kB", bytes / 1024);
    println!(
        "{:<10} {:>9} {:>18} {:>18} {:>18}",
        "frame",
        "redact",
        "thumbnail",
        name(EVIDENCE_MIN_BYTES),
        name(EVIDENCE_MAX_BYTES)
    );
    for (width, height) in [(1920u32, 1080u32), (1280, 720), (768, 576), (640, 360)] {
        let (luma, chroma) = (scene(width, height), scene(width / 2, height / 2));
        let half = Plane { data: &chroma, stride: width as usize / 2 };
        let planes = [Plane { data: &luma, stride: width as usize }, half, half];
        let frame = FrameView::new(width, height, PixelFormat::I420, Colour::Bt709, false, &planes)
            .expect("planes of the sizes that the format asks for");
        let redact = || Redacted::of(black_box(&frame), &[], Some(&people), None, "gate");
        let redacted = redact();
        let made = |make: &dyn Fn() -> Vec<u8>| {
            let milliseconds = median(|| {
                black_box(make());
            });
            format!("{milliseconds:>6.2} ms {:>6} B", make().len())
        };
        let picture = |bytes| redacted.picture(bytes).expect("it becomes small enough");
        println!(
            "{:<10} {:>6.2} ms {:>18} {:>18} {:>18}",
            format!("{width}x{height}"),
            median(|| {
                black_box(redact());
            }),
            made(&|| redacted.thumbnail().expect("it becomes small enough")),
            made(&|| picture(EVIDENCE_MIN_BYTES)),
            made(&|| picture(EVIDENCE_MAX_BYTES)),
        );
    }
}

/// One plane: the sum of noise in cells of 1 to 128 pixels, the larger the stronger.
fn scene(width: u32, height: u32) -> Vec<u8> {
    let noise = |x: u32, y: u32| {
        let hash = (x.wrapping_mul(0x9E37_79B1) ^ y.wrapping_mul(0x85EB_CA77)).wrapping_mul(0x2C1B_3C6D);
        f32::from((hash >> 24) as u8) / 255.0 - 0.5
    };
    let pixel = |x: u32, y: u32| {
        let sum: f32 = (0..8).map(|octave| noise(x >> octave, y >> octave) * 6.0 * (octave + 1) as f32).sum();
        (128.0 + sum).clamp(16.0, 235.0) as u8
    };
    (0..height).flat_map(|y| (0..width).map(move |x| (x, y))).map(|(x, y)| pixel(x, y)).collect()
}

/// Milliseconds.
fn median(mut run: impl FnMut()) -> f64 {
    let mut times: Vec<f64> = (0..RUNS)
        .map(|_| {
            let start = Instant::now();
            run();
            start.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[RUNS / 2]
}
