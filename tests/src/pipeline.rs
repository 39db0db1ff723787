//! GStreamer pipelines that make something and end.

use anyhow::{Context, Result, bail};
use gstreamer as gst;
use gstreamer::prelude::*;

/// Waits until a pipeline that plays has played everything, and stops it. The error is what it failed with.
pub fn to_its_end(pipeline: &impl IsA<gst::Element>) -> Result<()> {
    let bus = pipeline.bus().context("a pipeline without a bus")?;
    let ended = bus.timed_pop_filtered(None, &[gst::MessageType::Eos, gst::MessageType::Error]);
    pipeline.set_state(gst::State::Null)?;
    match ended.context("the bus ended")?.view() {
        gst::MessageView::Error(error) => bail!("{}", error.error()),
        _ => Ok(()),
    }
}
