//! A file to access units, with times out of the file: where a camera would be.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;

use super::film::{NoEncoder, h264_encoder};
use super::ingest::AccessUnit;
use super::{CameraError, bus};

/// A clip cannot be played, or no further.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum ClipError {
    #[error("cannot read the clip {}: {source}", file.display())]
    Unreadable { file: PathBuf, source: std::io::Error },
    #[error("cannot play {}: {reason}", file.display())]
    Unplayable { file: PathBuf, reason: String },
    #[error("{} holds no video that GStreamer knows", file.display())]
    NoVideo { file: PathBuf },
    #[error("cannot play {}: {source}", file.display())]
    Camera { file: PathBuf, source: CameraError },
}

/// What a clip in another encoding than H.264 and H.265 is encoded anew with: a camera's usual time between keyframes.
const SECONDS_BETWEEN_KEYFRAMES: i32 = 2;

/// How long an access unit without a time stamp lasts.
const UNIT_LASTS: gst::ClockTime = gst::ClockTime::from_mseconds(40);

/// How long to wait for an access unit before looking for errors.
const LOOK: gst::ClockTime = gst::ClockTime::from_mseconds(100);

/// How long GStreamer may look for video in a file: of some kinds, letters say, it never says that there is none.
const FINDING: Duration = Duration::from_secs(10);

/// The first video of a file, as the access units that a camera would send: `filesrc ! parsebin ! parser ! appsink`.
pub(super) struct Clip {
    file: PathBuf,
    pipeline: gst::Pipeline,
    sink: gst_app::AppSink,
    /// Set when video was found, and when the file is known to hold none.
    found: Arc<AtomicBool>,
    no_video: Arc<AtomicBool>,
    opened: Instant,
    start: Instant,
    first: Option<gst::ClockTime>,
    last: Option<gst::ClockTime>,
}

impl Drop for Clip {
    fn drop(&mut self) {
        let _ = self.pipeline.set_state(gst::State::Null); // it only read a file
    }
}

impl Clip {
    /// Opens a file; its first access unit arrives at `start`, the others by their time stamps after it.
    pub(super) fn open(file: &Path, start: Instant) -> Result<Self, ClipError> {
        // GStreamer would say "resource not found" of a folder, too.
        let unreadable = |source| ClipError::Unreadable { file: file.to_owned(), source };
        if std::fs::File::open(file).and_then(|opened| opened.metadata()).map_err(unreadable)?.is_dir() {
            return Err(unreadable(std::io::ErrorKind::IsADirectory.into()));
        }
        Self::play(file, start)
            .map_err(|error| ClipError::Unplayable { file: file.to_owned(), reason: error.to_string() })
    }

    fn play(file: &Path, start: Instant) -> Result<Self, Box<dyn std::error::Error>> {
        let pipeline = gst::Pipeline::builder().name("clip").build();
        let source = gst::ElementFactory::make("filesrc").property("location", file).build()?;
        let parse = gst::ElementFactory::make("parsebin").build()?;
        let units = |media: &str| {
            gst::Structure::builder(media)
                .field("stream-format", "byte-stream")
                .field("alignment", "au")
                .build()
        };
        let caps = gst::Caps::builder_full()
            .structure(units("video/x-h264"))
            .structure(units("video/x-h265"))
            .build();
        // Full: the file is read on when somebody has taken one.
        let sink = gst_app::AppSink::builder().caps(&caps).sync(false).max_buffers(8).build();
        pipeline.add_many([&source, &parse, sink.upcast_ref()])?;
        source.link(&parse)?;

        let no_video = Arc::new(AtomicBool::new(false));
        let taken = Arc::new(AtomicBool::new(false));
        let (weak, entry) = (pipeline.downgrade(), sink.clone());
        let (first, found) = (taken.clone(), taken.clone());
        parse.connect_pad_added(move |_, pad| {
            let Some(pipeline) = weak.upgrade() else { return };
            let caps = pad.current_caps().unwrap_or_else(|| pad.query_caps(None));
            let media = caps.structure(0).map(|structure| structure.name().to_string()).unwrap_or_default();
            let is_video = media.starts_with("video/") || media.starts_with("image/");
            if !is_video || first.swap(true, Ordering::Relaxed) {
                return;
            }
            if let Err(error) = attach(&pipeline, pad, &media, entry.upcast_ref()) {
                gst::element_error!(entry, gst::StreamError::Failed, ["{error}"]);
            }
        });
        let none = no_video.clone();
        parse.connect_no_more_pads(move |_| none.store(!taken.load(Ordering::Relaxed), Ordering::Relaxed));
        let file = file.to_owned();
        let opened = Instant::now();
        let clip = Self { file, pipeline, sink, found, no_video, opened, start, first: None, last: None };
        clip.pipeline.set_state(gst::State::Playing)?;
        Ok(clip)
    }

    /// The next access unit; `None` at the end of the file.
    pub(super) fn next(&mut self) -> Result<Option<AccessUnit>, ClipError> {
        loop {
            if let Some(sample) = self.sink.try_pull_sample(LOOK) {
                if let Some(unit) = self.unit(sample) {
                    return Ok(Some(unit));
                }
                continue;
            }
            if let Some(reason) = bus::failure(&self.pipeline) {
                return Err(ClipError::Unplayable { file: self.file.clone(), reason });
            }
            let found = self.found.load(Ordering::Relaxed);
            if self.no_video.load(Ordering::Relaxed) || (!found && self.opened.elapsed() > FINDING) {
                return Err(ClipError::NoVideo { file: self.file.clone() });
            }
            if self.sink.is_eos() {
                return Ok(None);
            }
        }
    }

    /// How long the file says that it is.
    pub(super) fn duration(&self) -> Option<Duration> {
        self.pipeline.query_duration::<gst::ClockTime>().map(Duration::from)
    }

    /// Gives an access unit its time: what no time stamp says, the one before does.
    fn unit(&mut self, sample: gst::Sample) -> Option<AccessUnit> {
        let (buffer, caps) = (sample.buffer()?, sample.caps()?);
        let pts = buffer.pts();
        let at = pts.unwrap_or_else(|| self.last.map_or(gst::ClockTime::ZERO, |last| last + UNIT_LASTS));
        let sample = if pts.is_some() {
            sample
        } else {
            let mut timed = buffer.copy();
            timed.get_mut()?.set_pts(at);
            gst::Sample::builder().buffer(&timed).caps(&caps.to_owned()).build()
        };
        self.last = Some(at);
        let first = *self.first.get_or_insert(at);
        Some(AccessUnit::new(sample, self.start + Duration::from(at.saturating_sub(first))))
    }
}

/// Puts a parser behind the pad that carries the video; where it is no H.264 or H.265, it is encoded anew before.
fn attach(
    pipeline: &gst::Pipeline,
    pad: &gst::Pad,
    media: &str,
    sink: &gst::Element,
) -> Result<(), Box<dyn std::error::Error>> {
    let parser = match media {
        "video/x-h265" => "h265parse",
        _ => "h264parse",
    };
    // Parameter sets before every keyframe: whoever starts there needs nothing from before.
    let parser = gst::ElementFactory::make(parser).property("config-interval", -1).build()?;
    pipeline.add(&parser)?;
    parser.link(sink)?;
    parser.sync_state_with_parent()?;
    let entry = match media {
        "video/x-h264" | "video/x-h265" => parser,
        _ => encode_anew(pipeline, &parser)?,
    };
    pad.link(&entry.static_pad("sink").ok_or("no way into the parser")?)?;
    Ok(())
}

/// `decodebin ! videoconvert ! encoder` before the parser. Returns the decodebin.
fn encode_anew(
    pipeline: &gst::Pipeline,
    parser: &gst::Element,
) -> Result<gst::Element, Box<dyn std::error::Error>> {
    let decode = gst::ElementFactory::make("decodebin").build()?;
    let convert = gst::ElementFactory::make("videoconvert").build()?;
    let planes = gst::Caps::builder("video/x-raw").field("format", "I420").build();
    let filter = gst::ElementFactory::make("capsfilter").property("caps", &planes).build()?;
    let encoder = h264_encoder(0).map_err(|NoEncoder| {
        "its video is neither H.264 nor H.265, and there is no encoder to make it so: install gstreamer1.0-plugins-ugly"
    })?;
    let chain = [&convert, &filter, &encoder];
    pipeline.add(&decode)?;
    pipeline.add_many(chain)?;
    gst::Element::link_many([&convert, &filter, &encoder, parser])?;
    let entry = convert.static_pad("sink").ok_or("no way into the converter")?;
    let keyed = encoder.clone();
    decode.connect_pad_added(move |_, pad| {
        let caps = pad.current_caps().unwrap_or_else(|| pad.query_caps(None));
        let fps = caps.structure(0).and_then(|structure| structure.get::<gst::Fraction>("framerate").ok());
        let fps = fps.filter(|fps| fps.numer() > 0).map_or(25, |fps| fps.numer() / fps.denom().max(1));
        super::film::key_interval(&keyed, fps.max(1) * SECONDS_BETWEEN_KEYFRAMES);
        if let Err(error) = pad.link(&entry) {
            gst::element_error!(keyed, gst::StreamError::Failed, ["cannot encode it anew: {error}"]);
        }
    });
    for element in [&encoder, &filter, &convert, &decode] {
        element.sync_state_with_parent()?;
    }
    Ok(decode)
}
