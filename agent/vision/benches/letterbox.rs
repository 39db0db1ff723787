//! Milliseconds from a decoder's planes to a model's tensor, beside a plain conversion pixel by pixel.
//!
//! `cargo bench -p sharp-eyes-vision --bench letterbox`. Prints the median of many runs on one thread. The plain
//! conversion takes the nearest pixel and so does far less arithmetic per source pixel: it is what a first version
//! would do, not the same quality.

use std::hint::black_box;
use std::time::Instant;

use sharp_eyes_vision::letterbox::{Canvas, Fit, Letterbox, Normalisation};
use sharp_eyes_vision::{Colour, FrameView, PixelFormat, Plane};

const RUNS: usize = 201;

fn main() {
    let normalisation = Normalisation { bgr: false, mean: [0.0; 3], scale: [1.0; 3], padding: 114.0 };
    println!("{:<10} {:<5} {:<8} {:>9} {:>9}", "frame", "", "tensor", "letterbox", "plain");
    for frame in [(1920u32, 1080u32), (640, 360)] {
        for format in [PixelFormat::I420, PixelFormat::Nv12] {
            let planes = noise(frame, format);
            let planes: Vec<_> =
                planes.iter().map(|(data, stride)| Plane { data, stride: *stride }).collect();
            let view = FrameView::new(frame.0, frame.1, format, Colour::Bt709, false, &planes)
                .expect("planes of the sizes that the format asks for");
            for tensor in [(416u32, 416u32), (512, 320)] {
                let mut canvas = Canvas::new(tensor, normalisation, Fit::Letterbox);
                let letterbox = median(|| {
                    canvas.draw(black_box(&view), &[]);
                    black_box(canvas.tensor());
                });
                let mut buffer = vec![114.0f32; 3 * (tensor.0 * tensor.1) as usize];
                let plain = median(|| {
                    convert(black_box(&view), tensor, &mut buffer);
                    black_box(&buffer);
                });
                println!(
                    "{:<10} {:<5} {:<8} {letterbox:>6.3} ms {plain:>6.3} ms",
                    format!("{}x{}", frame.0, frame.1),
                    format!("{format:?}"),
                    format!("{}x{}", tensor.0, tensor.1),
                );
            }
        }
    }
}

/// One pixel of the tensor after the other, from the nearest pixel of the frame, in f32 and with a clamp each.
fn convert(frame: &FrameView<'_>, tensor: (u32, u32), buffer: &mut [f32]) {
    let Letterbox { width, height } = Letterbox::new((frame.width(), frame.height()), tensor);
    let plane = (tensor.0 * tensor.1) as usize;
    let planes = frame.planes();
    for row in 0..height {
        for column in 0..width {
            let (x, y) = (column * frame.width() / width, row * frame.height() / height);
            let (half_x, half_y) = ((x / 2) as usize, (y / 2) as usize);
            let luma = f32::from(planes[0].data[y as usize * planes[0].stride + x as usize]);
            let (u, v) = match frame.format() {
                PixelFormat::I420 => (
                    planes[1].data[half_y * planes[1].stride + half_x],
                    planes[2].data[half_y * planes[2].stride + half_x],
                ),
                PixelFormat::Nv12 => {
                    let pair = half_y * planes[1].stride + half_x * 2;
                    (planes[1].data[pair], planes[1].data[pair + 1])
                }
            };
            let (luma, u, v) = ((luma - 16.0) * 1.164, f32::from(u) - 128.0, f32::from(v) - 128.0);
            let pixel = (row * tensor.0 + column) as usize;
            buffer[pixel] = (luma + 1.793 * v).clamp(0.0, 255.0);
            buffer[plane + pixel] = (luma - 0.213 * u - 0.533 * v).clamp(0.0, 255.0);
            buffer[2 * plane + pixel] = (luma + 2.112 * u).clamp(0.0, 255.0);
        }
    }
}

/// Milliseconds.
fn median(mut run: impl FnMut()) -> f64 {
    let mut times: Vec<f64> = (0..RUNS)
        .map(|_| {
            let start = Instant::now();
            run();
            start.elapsed().as_secs_f64() * 1000.0
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[RUNS / 2]
}

fn noise(frame: (u32, u32), format: PixelFormat) -> Vec<(Vec<u8>, usize)> {
    let (width, height) = (frame.0 as usize, frame.1 as usize);
    let plane = |stride: usize, rows: usize| {
        let byte = |index: usize| (index.wrapping_mul(2_654_435_761) >> 13) as u8;
        ((0..stride * rows).map(byte).collect(), stride)
    };
    match format {
        PixelFormat::I420 => {
            vec![plane(width, height), plane(width / 2, height / 2), plane(width / 2, height / 2)]
        }
        PixelFormat::Nv12 => vec![plane(width, height), plane(width, height / 2)],
    }
}
