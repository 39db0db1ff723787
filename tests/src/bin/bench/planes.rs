//! From a decoder's planes to a model's tensor, beside what GStreamer takes to make as small an RGB picture of them.

use std::hint::black_box;
use std::time::Instant;

use anyhow::{Context, Result};
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as app;
use serde_json::{Map, Value};
use sharp_eyes_tests::pipeline;
use sharp_eyes_vision::letterbox::{Canvas, Fit, Normalisation};
use sharp_eyes_vision::{Colour, FrameView, PixelFormat, Plane};

use crate::figures::{Named, median};

/// How often each is done.
const RUNS: usize = 201;

/// Width and height of the tensor.
const TENSOR: (u32, u32) = (416, 416);

/// Milliseconds of each on one thread, by their names.
pub(crate) fn measure() -> Result<Map<String, Value>> {
    gst::init()?;
    println!("\nplanes to a tensor of {}x{}, and by videoconvertscale to RGB bytes, ms", TENSOR.0, TENSOR.1);
    let mut figures = Named::default();
    for (size, key) in [((1920, 1080), "1080p"), ((640, 360), "360p")] {
        for format in [PixelFormat::I420, PixelFormat::Nv12] {
            let noise = Noise::new(size, format);
            let key = format!("{key}_{}", noise.format_name().to_lowercase());
            let (ours, theirs) = (noise.to_tensor()?, noise.by_gstreamer()?);
            figures.note(&format!("planes_to_tensor_{key}_ms"), ours);
            figures.note(&format!("videoconvertscale_{key}_ms"), theirs);
            figures.note(&format!("videoconvertscale_over_planes_to_tensor_{key}"), theirs / ours);
        }
    }
    Ok(figures.0)
}

/// A picture of noise, as a decoder lays it out.
struct Noise {
    size: (u32, u32),
    format: PixelFormat,
    bytes: Vec<u8>,
}

impl Noise {
    fn new(size: (u32, u32), format: PixelFormat) -> Self {
        let mut random = fastrand::Rng::with_seed(1);
        let count = size.0 as usize * size.1 as usize * 3 / 2;
        Self { size, format, bytes: (0..count).map(|_| random.u8(..)).collect() }
    }

    fn format_name(&self) -> &'static str {
        match self.format {
            PixelFormat::I420 => "I420",
            PixelFormat::Nv12 => "NV12",
        }
    }

    /// The median of all runs.
    fn to_tensor(&self) -> Result<f64> {
        let width = self.size.0 as usize;
        let (luma, chroma) = self.bytes.split_at(width * self.size.1 as usize);
        let (first, second) = chroma.split_at(chroma.len() / 2);
        let plane = |data, stride| Plane { data, stride };
        let planes = match self.format {
            PixelFormat::I420 => {
                vec![plane(luma, width), plane(first, width / 2), plane(second, width / 2)]
            }
            PixelFormat::Nv12 => vec![plane(luma, width), plane(chroma, width)],
        };
        let frame = FrameView::new(self.size.0, self.size.1, self.format, Colour::Bt709, false, &planes)?;
        let normalisation = Normalisation { bgr: false, mean: [0.0; 3], scale: [1.0; 3], padding: 114.0 };
        let mut canvas = Canvas::new(TENSOR, normalisation, Fit::Letterbox);
        Ok(median((0..RUNS).map(|_| {
            let began = Instant::now();
            canvas.draw(black_box(&frame), &[]);
            black_box(canvas.tensor());
            began.elapsed().as_secs_f64() * 1000.0
        })))
    }

    /// The mean of all runs.
    fn by_gstreamer(&self) -> Result<f64> {
        let pipeline = gst::parse::launch(&format!(
            "appsrc name=noise format=time block=true caps=video/x-raw,format={},width={},height={},framerate=15/1 ! \
             videoconvertscale ! video/x-raw,format=RGB,width={},height={} ! fakesink sync=false",
            self.format_name(),
            self.size.0,
            self.size.1,
            TENSOR.0,
            TENSOR.1,
        ))?;
        let pipeline = pipeline.downcast::<gst::Pipeline>().ok().context("not a pipeline")?;
        let noise = pipeline.by_name("noise").and_downcast::<app::AppSrc>().context("no source")?;
        let buffer = gst::Buffer::from_slice(self.bytes.clone());
        pipeline.set_state(gst::State::Playing)?;
        noise.push_buffer(buffer.clone())?; // the first one sets everything up
        pipeline.state(gst::ClockTime::from_seconds(10)).0?;
        let began = Instant::now();
        for _ in 0..RUNS {
            noise.push_buffer(buffer.clone())?;
        }
        noise.end_of_stream()?;
        pipeline::to_its_end(&pipeline)?;
        Ok(began.elapsed().as_secs_f64() * 1000.0 / RUNS as f64)
    }
}
