//! Pictures to an MP4 file: `appsrc ! encoder ! mp4mux ! filesink`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;

use super::bus;

/// A film cannot be written.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum FilmError {
    #[error("cannot write {}: {NoEncoder}", file.display())]
    NoEncoder { file: PathBuf },
    #[error("cannot write {}: {reason}", file.display())]
    Write { file: PathBuf, reason: String },
}

/// GStreamer has nothing that makes H.264.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error(
    "no H.264 encoder: install gstreamer1.0-plugins-ugly (x264enc) or gstreamer1.0-plugins-bad (openh264enc)"
)]
pub(super) struct NoEncoder;

/// Pictures that may wait for the encoder. Full: whoever shows one more waits.
const WAITING_MAX: u64 = 4;

/// How long to wait for the encoder before looking again, and for the end of the file.
const LOOK: gst::ClockTime = gst::ClockTime::from_mseconds(5);
const ENDING: gst::ClockTime = gst::ClockTime::from_seconds(60);

/// How long the last picture stays.
const LAST_STAYS: gst::ClockTime = gst::ClockTime::from_mseconds(200);

/// An MP4 file with H.264 that is being written.
pub struct Film {
    file: PathBuf,
    pipeline: gst::Pipeline,
    source: gst_app::AppSrc,
}

impl Drop for Film {
    fn drop(&mut self) {
        let _ = self.pipeline.set_state(gst::State::Null); // what is not finished is of no use
    }
}

impl Film {
    /// Begins a file of pictures of this size, whose sides are even.
    pub fn create(file: &Path, width: u32, height: u32) -> Result<Self, FilmError> {
        let encoder = h264_encoder(50).map_err(|NoEncoder| FilmError::NoEncoder { file: file.to_owned() })?;
        let failed = |reason| FilmError::Write { file: file.to_owned(), reason };
        std::fs::File::create(file).map_err(|error| failed(error.to_string()))?; // says best what is wrong with it
        Self::start(file, width, height, &encoder).map_err(|error| failed(error.to_string()))
    }

    fn start(
        file: &Path,
        width: u32,
        height: u32,
        encoder: &gst::Element,
    ) -> Result<Self, Box<dyn std::error::Error>> {
        let side = |side: u32| i32::try_from(side);
        let caps = gst::Caps::builder("video/x-raw")
            .field("format", "RGBA")
            .field("width", side(width)?)
            .field("height", side(height)?)
            .field("framerate", gst::Fraction::new(25, 1)) // the time stamps say when each is shown
            .build();
        let source = gst_app::AppSrc::builder().caps(&caps).format(gst::Format::Time).max_bytes(0).build();
        let convert = gst::ElementFactory::make("videoconvert").build()?;
        let planes = gst::Caps::builder("video/x-raw").field("format", "I420").build();
        let filter = gst::ElementFactory::make("capsfilter").property("caps", &planes).build()?;
        let parser = gst::ElementFactory::make("h264parse").build()?;
        let muxer = gst::ElementFactory::make("mp4mux").property("faststart", true).build()?;
        let sink = gst::ElementFactory::make("filesink").property("location", file).build()?;
        let pipeline = gst::Pipeline::builder().name("film").build();
        let chain = [source.upcast_ref(), &convert, &filter, encoder, &parser, &muxer, &sink];
        pipeline.add_many(chain)?;
        gst::Element::link_many(chain)?;
        let film = Self { file: file.to_owned(), pipeline, source };
        if let Err(error) = film.pipeline.set_state(gst::State::Playing) {
            return Err(bus::failure(&film.pipeline).unwrap_or_else(|| error.to_string()).into());
        }
        Ok(film)
    }

    /// Appends a picture, rows of RGBA, that is shown from a time after the last one's on.
    pub fn show(&mut self, rgba: &[u8], at: Duration) -> Result<(), FilmError> {
        while self.source.current_level_buffers() >= WAITING_MAX {
            if let Some(reason) = bus::failure_within(&self.pipeline, LOOK) {
                return Err(self.failed(reason));
            }
        }
        let mut buffer = gst::Buffer::from_slice(rgba.to_vec());
        if let Some(timed) = buffer.get_mut() {
            timed.set_pts(gst::ClockTime::from_nseconds(u64::try_from(at.as_nanos()).unwrap_or(u64::MAX)));
            timed.set_duration(LAST_STAYS);
        }
        self.source
            .push_buffer(buffer)
            .map(drop)
            .map_err(|error| self.failed(bus::failure(&self.pipeline).unwrap_or_else(|| error.to_string())))
    }

    /// Writes what waits, and closes the file.
    pub fn finish(self) -> Result<(), FilmError> {
        self.source.end_of_stream().map_err(|error| self.failed(error.to_string()))?;
        let ended = self.pipeline.bus().and_then(|bus| {
            bus.timed_pop_filtered(ENDING, &[gst::MessageType::Eos, gst::MessageType::Error])
        });
        match ended.as_ref().map(|message| message.view()) {
            Some(gst::MessageView::Eos(_)) => Ok(()),
            Some(gst::MessageView::Error(error)) => Err(self.failed(bus::Failure(error).text())),
            _ => Err(self.failed("the encoder does not come to an end".to_owned())),
        }
    }

    fn failed(&self, reason: String) -> FilmError {
        FilmError::Write { file: self.file.clone(), reason }
    }
}

/// The first encoder that is there: those in software first, which are the same on every machine. `keyframes` is the most
/// pictures from one keyframe to the next; 0 leaves that to [`key_interval`].
pub(super) fn h264_encoder(keyframes: i32) -> Result<gst::Element, NoEncoder> {
    const SOFTWARE: [&str; 2] = ["x264enc", "openh264enc"];
    let wanted = gst::Caps::builder("video/x-h264").build();
    let encoders =
        gst::ElementFactory::factories_with_type(gst::ElementFactoryType::VIDEO_ENCODER, gst::Rank::NONE);
    let mut fitting: Vec<_> =
        encoders.into_iter().filter(|factory| factory.can_src_any_caps(&wanted)).collect();
    let place = |name: &str| SOFTWARE.iter().position(|software| *software == name).unwrap_or(SOFTWARE.len());
    fitting.sort_by_key(|factory| (place(&factory.name()), std::cmp::Reverse(factory.rank())));
    for factory in fitting {
        let Ok(encoder) = factory.create().build() else { continue };
        // An encoder of a board that is not this one exists as a plugin, but opens no device.
        let opens = encoder.set_state(gst::State::Ready).is_ok();
        if encoder.set_state(gst::State::Null).is_err() || !opens {
            continue;
        }
        match factory.name().as_str() {
            // Of constant quality; without B frames, as cameras send it; with several threads it yields other bits each time.
            "x264enc" => {
                encoder.set_property_from_str("threads", "1");
                encoder.set_property_from_str("pass", "qual");
                encoder.set_property_from_str("quantizer", "20");
                encoder.set_property_from_str("speed-preset", "veryfast");
            }
            "openh264enc" => encoder.set_property_from_str("bitrate", "6000000"),
            _ => {}
        }
        if keyframes > 0 {
            key_interval(&encoder, keyframes);
        }
        return Ok(encoder);
    }
    Err(NoEncoder)
}

/// Sets the most pictures from one keyframe to the next, as far as the encoder lets itself be told.
pub(super) fn key_interval(encoder: &gst::Element, keyframes: i32) {
    for name in ["key-int-max", "gop-size"] {
        if encoder.find_property(name).is_some() {
            encoder.set_property_from_str(name, &keyframes.to_string());
        }
    }
}
