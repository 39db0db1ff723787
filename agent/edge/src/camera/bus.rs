//! What GStreamer's message bus says, in our words.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer::prelude::*;
use tokio::sync::{mpsc, oneshot};

use super::CameraError;

/// An error of one of a pipeline's elements.
pub(super) struct Failure<'a>(pub(super) &'a gst::message::Error);

impl Failure<'_> {
    /// The message, or the detail where that says more.
    pub(super) fn text(&self) -> String {
        let debug = self.0.debug().map(|text| text.to_string()).unwrap_or_default();
        // The last line of the debug text is the specific one; the ones before are places in C files.
        let detail = debug.lines().last().unwrap_or_default().trim();
        if detail.is_empty() || detail.starts_with("../") {
            self.0.error().message().to_owned()
        } else {
            detail.to_owned()
        }
    }

    /// What kind of error, if it is of that domain.
    pub(super) fn kind<E: gst::glib::error::ErrorDomain>(&self) -> Option<E> {
        self.0.error().kind()
    }

    /// The status of the answer that `rtspsrc` gave up at. That of a SETUP is told in words only.
    pub(super) fn rtsp_status(&self) -> Option<u32> {
        let told = self.0.details().and_then(|details| details.get("rtsp-status-code").ok());
        told.or_else(|| self.text().strip_prefix("Error (")?.split_once(')')?.0.parse().ok())
    }
}

/// Forwards what ends a connection to `failed`. Everything else on the bus is of no use to us.
/// `seen` is shown every message, on the thread that sends it.
pub(super) fn forward(
    pipeline: &gst::Pipeline,
    seen: fn(&gst::MessageRef),
    failed: mpsc::Sender<CameraError>,
    describe: fn(&Failure<'_>) -> CameraError,
) {
    let Some(bus) = pipeline.bus() else { return };
    bus.set_sync_handler(move |_, message| {
        seen(message);
        let event = match message.view() {
            gst::MessageView::Eos(_) => Some(CameraError::Ended),
            gst::MessageView::Error(error) => Some(describe(&Failure(error))),
            _ => None,
        };
        if let Some(event) = event {
            let _ = failed.try_send(event); // full: an earlier error ends the connection already
        }
        gst::BusSyncReply::Drop
    });
}

/// Calls back once, when the pipeline has played everything or has failed. `seen` is shown every message.
pub(super) fn ended(
    pipeline: &gst::Pipeline,
    seen: fn(&gst::MessageRef),
    then: impl FnOnce() + Send + 'static,
) {
    let Some(bus) = pipeline.bus() else { return };
    let then = std::sync::Mutex::new(Some(then));
    bus.set_sync_handler(move |_, message| {
        seen(message);
        if matches!(message.view(), gst::MessageView::Eos(_) | gst::MessageView::Error(_))
            && let Some(then) = then.lock().ok().and_then(|mut then| then.take())
        {
            then();
        }
        gst::BusSyncReply::Drop
    });
}

/// Why a pipeline failed whose bus nobody forwards, if it did.
pub(super) fn failure(pipeline: &gst::Pipeline) -> Option<String> {
    failure_within(pipeline, gst::ClockTime::ZERO)
}

/// The same, after it waited for a failure for some time.
pub(super) fn failure_within(pipeline: &gst::Pipeline, time: gst::ClockTime) -> Option<String> {
    let message = pipeline.bus()?.timed_pop_filtered(time, &[gst::MessageType::Error])?;
    let gst::MessageView::Error(error) = message.view() else { return None };
    Some(Failure(error).text())
}

/// Stops a pipeline on a thread of its own, because a hung camera can hold `set_state` for seconds, and a hung decoder for
/// ever. The receiver learns when it is done.
pub(super) fn stop(pipeline: gst::Pipeline) -> oneshot::Receiver<()> {
    stop_after(|_| {}, pipeline)
}

/// The same of a pipeline whose source pushes what it receives on the very thread that it waits for when it pauses, as
/// `rtspsrc` does. Sinks pause first, and what reaches one then, the end of the stream too, waits there until it plays
/// again, which is never: nothing may wait in them any more.
pub(super) fn flush_and_stop(pipeline: gst::Pipeline) -> oneshot::Receiver<()> {
    let flush = |pipeline: &gst::Pipeline| {
        for sink in pipeline.iterate_sinks().into_iter().flatten() {
            if let Some(entry) = sink.static_pad("sink") {
                entry.send_event(gst::event::FlushStart::new());
            }
        }
    };
    stop_after(flush, pipeline)
}

fn stop_after(before: fn(&gst::Pipeline), pipeline: gst::Pipeline) -> oneshot::Receiver<()> {
    let (done, stopped) = oneshot::channel();
    let stopping = Stopping::begin();
    let left = pipeline.clone();
    let spawned = std::thread::Builder::new().name("camera-stop".into()).spawn(move || {
        before(&pipeline);
        if pipeline.set_state(gst::State::Null).is_err() {
            tracing::warn!(pipeline = %pipeline.name(), "did not stop cleanly");
        }
        drop(stopping);
        let _ = done.send(()); // nobody waits any more: fine
    });
    if let Err(error) = spawned {
        tracing::error!("cannot start a thread to stop a camera: {error}");
        // It is left as it is, and counted: stopped here it could hold up whoever asks, and to let go of one that plays is
        // an error.
        before(&left);
        std::mem::forget((left, Stopping::begin()));
    }
    stopped
}

/// When the pipelines that have not stopped yet began to.
static STOPPING: Mutex<Vec<Instant>> = Mutex::new(Vec::new());

/// A pipeline that takes longer will never stop.
const STOPS_WITHIN: Duration = Duration::from_secs(10);

/// A pipeline on its way to stop.
struct Stopping(Instant);

impl Stopping {
    fn begin() -> Self {
        let began = Instant::now();
        STOPPING.lock().unwrap_or_else(PoisonError::into_inner).push(began);
        Self(began)
    }
}

impl Drop for Stopping {
    fn drop(&mut self) {
        let mut stopping = STOPPING.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = stopping.iter().position(|began| *began == self.0) {
            stopping.swap_remove(at);
        }
    }
}

/// How many pipelines never stopped: each keeps its threads and its decoder's memory until the process ends.
pub(super) fn left_behind() -> usize {
    let stopping = STOPPING.lock().unwrap_or_else(PoisonError::into_inner);
    stopping.iter().filter(|began| began.elapsed() > STOPS_WITHIN).count()
}
