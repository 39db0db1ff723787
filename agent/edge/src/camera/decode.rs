//! Access units to frames: `appsrc ! decoder ! appsink`, in the decoder's own planes.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use gstreamer_video as gst_video;
use tokio::sync::mpsc;

use super::frame::Frame;
use super::ingest::AccessUnit;
use super::{CameraError, FrameSink, bus};
use crate::board::CameraCard;

/// How frames are made.
#[derive(Clone, Debug)]
pub(super) struct DecodeOptions {
    /// GStreamer's name of the decoder; the best by rank otherwise.
    pub(super) decoder: Option<String>,
    /// Frames per second that somebody looks at; the others leave the decoder and are dropped unmapped.
    pub(super) analysed_fps: f32,
}

/// A running decode pipeline. Ends when dropped.
pub(super) struct Decoder {
    pipeline: gst::Pipeline,
    source: gst_app::AppSrc,
    name: String,
    caps: gst::Caps,
    arrivals: Arc<Mutex<Arrivals>>,
}

impl Drop for Decoder {
    fn drop(&mut self) {
        bus::stop(self.pipeline.clone());
    }
}

impl Decoder {
    pub(super) fn start(
        options: &DecodeOptions,
        caps: &gst::CapsRef,
        frames: FrameSink,
        card: Arc<CameraCard>,
        failed: mpsc::Sender<CameraError>,
    ) -> Result<Self, CameraError> {
        let caps = caps.to_owned();
        let decoder = choose(options.decoder.as_deref(), &caps)?;
        let name = decoder.factory().map(|factory| factory.name().to_string()).unwrap_or_default();
        if decoder.find_property("max-threads").is_some() {
            // Frame threads add a frame of delay each, and the box has a camera per core to keep busy.
            decoder.set_property_from_str("max-threads", "1");
        }
        let pipeline = gst::Pipeline::builder().name(format!("decode-{}", card.name)).build();
        bus::forward(&pipeline, failed, |error, detail| CameraError::Decode(bus::text(error, detail)));
        // Bounded by the gate, which admits nothing while `backlog` is at its limit; never blocks the receiving thread.
        let source = gst_app::AppSrc::builder()
            .caps(&caps)
            .format(gst::Format::Time)
            .block(false)
            .max_bytes(0)
            .build();
        // Does nothing (passthrough) for the two formats that are read as they are; ten bits and others pass here.
        let convert = gst::ElementFactory::make("videoconvert").build()?;
        let wanted = gst_video::VideoCapsBuilder::new()
            .format_list([gst_video::VideoFormat::I420, gst_video::VideoFormat::Nv12])
            .build();
        // The callback takes each frame at once, so that the one buffer allowed here never waits.
        let sink = gst_app::AppSink::builder().caps(&wanted).sync(false).max_buffers(1).build();
        let arrivals = Arc::new(Mutex::new(Arrivals::default()));
        sink.set_callbacks(take_frames(options, &caps, &name, arrivals.clone(), frames, card));

        let chain = [source.upcast_ref::<gst::Element>(), &decoder, &convert, sink.upcast_ref()];
        pipeline.add_many(chain)?;
        gst::Element::link_many(chain)?;
        let decoder = Self { pipeline, source, name, caps, arrivals };
        decoder
            .pipeline
            .set_state(gst::State::Playing)
            .map_err(|error| CameraError::Decode(error.to_string()))?;
        Ok(decoder)
    }

    /// GStreamer's name of the decoder.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Access units that wait for the decoder.
    pub(super) fn backlog(&self) -> u64 {
        self.source.current_level_buffers()
    }

    /// Hands an access unit to the decoder.
    pub(super) fn push(&mut self, unit: AccessUnit) -> Result<(), CameraError> {
        if unit.caps() != self.caps.as_ref() {
            // The resolution changed in mid-stream: the decoder adapts at this keyframe.
            self.caps = unit.caps().to_owned();
            self.source.set_caps(Some(&self.caps));
        }
        let arrived = unit.arrived();
        let sample = unit.into_sample();
        let Some(buffer) = sample.buffer_owned() else { return Ok(()) };
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner).note(buffer.pts(), arrived);
        self.source.push_buffer(buffer).map(drop).map_err(|error| CameraError::Decode(error.to_string()))
    }
}

fn take_frames(
    options: &DecodeOptions,
    caps: &gst::Caps,
    decoder: &str,
    arrivals: Arc<Mutex<Arrivals>>,
    frames: FrameSink,
    card: Arc<CameraCard>,
) -> gst_app::AppSinkCallbacks {
    let codec = match caps.structure(0).map(|structure| structure.name().as_str()) {
        Some("video/x-h265") => "H.265",
        _ => "H.264",
    };
    let decoder = decoder.to_owned();
    let mut sampler = Sampler::new(options.analysed_fps);
    let mut format: Option<(gst::Caps, gst_video::VideoInfo)> = None;
    gst_app::AppSinkCallbacks::builder()
        .new_sample(move |sink| {
            let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
            card.decoded.increment();
            let (Some(buffer), Some(caps)) = (sample.buffer_owned(), sample.caps()) else {
                return Ok(gst::FlowSuccess::Ok);
            };
            if !sampler.takes(buffer.pts()) {
                return Ok(gst::FlowSuccess::Ok);
            }
            let info = match &format {
                Some((known, info)) if known.as_ref() == caps => info.clone(),
                _ => {
                    let info =
                        gst_video::VideoInfo::from_caps(caps).map_err(|_| gst::FlowError::NotNegotiated)?;
                    card.stream(format!("{codec} {}x{} by {decoder}", info.width(), info.height()));
                    format = Some((caps.to_owned(), info.clone()));
                    info
                }
            };
            let arrived = arrivals.lock().unwrap_or_else(PoisonError::into_inner).of(buffer.pts());
            frames(Frame::new(buffer, info, arrived));
            Ok(gst::FlowSuccess::Ok)
        })
        .build()
}

/// The decoder: the named one, or the first by rank that takes these caps and whose device is there.
fn choose(named: Option<&str>, caps: &gst::Caps) -> Result<gst::Element, CameraError> {
    if let Some(name) = named {
        let usable = |factory: &gst::ElementFactory| factory.can_sink_any_caps(caps);
        let factory = gst::ElementFactory::find(name).filter(usable);
        let element = factory.and_then(|factory| factory.create().build().ok());
        return element.ok_or_else(|| CameraError::DecoderMissing(name.to_owned()));
    }
    let decoders = gst::ElementFactory::factories_with_type(
        gst::ElementFactoryType::DECODER | gst::ElementFactoryType::MEDIA_VIDEO,
        gst::Rank::MARGINAL,
    );
    let mut fitting: Vec<_> =
        decoders.into_iter().filter(|factory| factory.can_sink_any_caps(caps)).collect();
    fitting.sort_by_key(|factory| std::cmp::Reverse(factory.rank()));
    for factory in fitting {
        let Ok(element) = factory.create().build() else { continue };
        // A hardware decoder of a board that is not this one exists as a plugin, but opens no device.
        let opens = element.set_state(gst::State::Ready).is_ok();
        if element.set_state(gst::State::Null).is_ok() && opens {
            return Ok(element);
        }
    }
    let media = caps.structure(0).map(|structure| structure.name().to_string()).unwrap_or_default();
    Err(CameraError::NoDecoder(media))
}

/// When the access units that are being decoded arrived, by presentation time stamp.
///
/// Bounded: a decoder holds at most 16 reference pictures (H.264 and H.265 alike), the gate 30 access units before it;
/// the oldest of more than 64 is forgotten, and its frame counts as arrived when it was decoded.
#[derive(Default)]
struct Arrivals(VecDeque<(Option<gst::ClockTime>, Instant)>);

impl Arrivals {
    fn note(&mut self, pts: Option<gst::ClockTime>, arrived: Instant) {
        if self.0.len() == 64 {
            self.0.pop_front();
        }
        self.0.push_back((pts, arrived));
    }

    fn of(&self, pts: Option<gst::ClockTime>) -> Instant {
        let newest = self.0.iter().rev().find(|(known, _)| *known == pts && pts.is_some());
        newest.map_or_else(Instant::now, |(_, arrived)| *arrived)
    }
}

/// Takes frames at the analysed rate by their time stamps, evenly, whatever the camera's rate is.
#[derive(Clone, Debug)]
struct Sampler {
    interval: u64,
    due: Option<u64>,
}

impl Sampler {
    fn new(fps: f32) -> Self {
        Self { interval: (1e9 / f64::from(fps)) as u64, due: None }
    }

    fn takes(&mut self, pts: Option<gst::ClockTime>) -> bool {
        let Some(pts) = pts.map(gst::ClockTime::nseconds) else { return true };
        let tolerance = self.interval / 10;
        match self.due {
            // Time stamps that go back by more than two intervals start a new count: a camera's clock was set.
            Some(due) if pts + tolerance < due && pts + 2 * self.interval >= due => false,
            Some(due) if pts < due + self.interval => {
                self.due = Some(due.min(pts + tolerance) + self.interval);
                true
            }
            _ => {
                self.due = Some(pts + self.interval);
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sampler_keeps_the_analysed_rate() {
        for (camera_fps, analysed_fps, expected) in [
            (15.0, 5.0, 50..=51),
            (25.0, 5.0, 50..=51),
            (12.5, 5.0, 48..=51),
            (30.0, 10.0, 100..=101),
            (4.0, 5.0, 40..=40),
        ] {
            let mut sampler = Sampler::new(analysed_fps);
            let frames = (10.0 * camera_fps) as u64;
            let taken = (0..frames)
                .filter(|i| {
                    sampler.takes(Some(gst::ClockTime::from_nseconds((*i as f64 * 1e9 / camera_fps) as u64)))
                })
                .count();
            assert!(expected.contains(&taken), "{camera_fps} -> {analysed_fps}: {taken} frames in 10 s");
        }
    }

    #[test]
    fn a_clock_that_was_set_back_starts_anew() {
        let mut sampler = Sampler::new(5.0);
        let seconds = gst::ClockTime::from_seconds;
        assert!(sampler.takes(Some(seconds(1000))));
        assert!(sampler.takes(Some(seconds(1))));
        assert!(!sampler.takes(Some(seconds(1) + gst::ClockTime::from_mseconds(40))));
        assert!(sampler.takes(None));
    }
}
