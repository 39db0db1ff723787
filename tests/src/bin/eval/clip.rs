//! A clip, or a still picture, frame by frame.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as app;
use gstreamer_video as gst_video;
use gstreamer_video::prelude::*;
use sharp_eyes_vision::{Colour, FrameView, PixelFormat, Plane};

/// Width and height of the footage in pixels, which the truth is written in.
pub(crate) const SIZE: (u32, u32) = (768, 576);

/// Decodes a clip, or a picture, as fast as it goes, and shows each frame with its time.
pub(crate) fn play(clip: &Path, mut look: impl FnMut(Duration, &FrameView<'_>) -> Result<()>) -> Result<()> {
    gst::init()?;
    let line = "filesrc name=source ! decodebin ! videoconvert ! video/x-raw,format=I420 \
                ! appsink name=sink sync=false max-buffers=4"; // when full, the decoder waits
    let pipeline = gst::parse::launch(line)?.downcast::<gst::Pipeline>().ok().context("no pipeline")?;
    pipeline.by_name("source").context("no source")?.set_property("location", clip);
    let sink =
        pipeline.by_name("sink").and_then(|sink| sink.downcast::<app::AppSink>().ok()).context("no sink")?;
    pipeline.set_state(gst::State::Playing)?;
    let mut played = Ok(());
    while played.is_ok()
        && let Ok(sample) = sink.pull_sample()
    {
        played = show(&sample, &mut look);
    }
    let failure = pipeline.bus().and_then(|bus| bus.pop_filtered(&[gst::MessageType::Error]));
    pipeline.set_state(gst::State::Null)?;
    if let Some(gst::MessageView::Error(error)) = failure.as_ref().map(|message| message.view()) {
        bail!("decoding {}: {}", clip.display(), error.error());
    }
    played
}

fn show(sample: &gst::Sample, look: &mut impl FnMut(Duration, &FrameView<'_>) -> Result<()>) -> Result<()> {
    let info = gst_video::VideoInfo::from_caps(sample.caps().context("a frame without format")?)?;
    let buffer = sample.buffer().context("a sample without data")?;
    let time = buffer.pts().unwrap_or(gst::ClockTime::ZERO); // a still picture has none
    let mapped = gst_video::VideoFrameRef::from_buffer_ref_readable(buffer, &info)?;
    let (width, height) = (mapped.width(), mapped.height());
    let mut planes = [Plane { data: &[], stride: 0 }; 3];
    for (index, plane) in planes.iter_mut().enumerate() {
        let stride = usize::try_from(mapped.plane_stride()[index])?;
        *plane = Plane { data: mapped.plane_data(index as u32)?, stride };
    }
    let frame = FrameView::new(width, height, PixelFormat::I420, Colour::Bt601, false, &planes)?;
    look(Duration::from_nanos(time.nseconds()), &frame)
}
