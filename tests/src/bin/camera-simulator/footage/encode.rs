//! Clip to access units, by GStreamer.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as app;
use gstreamer_video as video;
use gstreamer_video::prelude::*;

use super::noise::Noise;
use super::{AccessUnit, Codec, Encoding, Footage, Lens, Rate, Reel};

/// Longer clips are cut, unless a reel says what to play: they are played for ever anyway, and live in memory.
const LONGEST_S: u64 = 180;
const SECONDS_BETWEEN_KEYFRAMES: i32 = 2;

/// The frames of a clip, one after the other, at a constant rate.
struct Raw {
    pipeline: gst::Pipeline,
    sink: app::AppSink,
    /// Width and height.
    size: (u32, u32),
    /// Frames a second.
    fps: gst::Fraction,
}

/// A frame as I420.
struct RawFrame {
    buffer: gst::Buffer,
    info: video::VideoInfo,
}

impl Raw {
    /// From the beginning of a clip; at its own rate unless given. A variable rate counts as 25.
    fn open(clip: &Path, fps: Option<i32>) -> Result<Self> {
        let (size, own_fps) = probe(clip)?;
        let fps = fps.map_or(own_fps, |fps| gst::Fraction::new(fps, 1));
        let line = format!(
            "videorate ! videoconvert ! video/x-raw,format=I420,framerate={}/{}",
            fps.numer(),
            fps.denom()
        );
        let (pipeline, sink) = decode(clip, &line)?;
        pipeline.set_state(gst::State::Playing)?;
        Ok(Self { pipeline, sink, size, fps })
    }

    /// The next frame; `None` at the end.
    fn next_frame(&mut self) -> Result<Option<RawFrame>> {
        let Ok(sample) = self.sink.pull_sample() else {
            return match failure_of(&self.pipeline) {
                Some(failure) => bail!("{failure}"),
                None => Ok(None),
            };
        };
        let info = video::VideoInfo::from_caps(sample.caps().context("a frame without format")?)?;
        let buffer = sample.buffer_owned().context("a sample without data")?;
        Ok(Some(RawFrame { buffer, info }))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = self.pipeline.set_state(gst::State::Null); // it only read a file
    }
}

pub(super) fn encode(clip: &Path, reel: &Reel, encoding: &Encoding) -> Result<Footage> {
    let mut raw = Raw::open(clip, encoding.fps)?;
    let fps = raw.fps;
    let first = raw.next_frame()?.context("the file holds no video")?;
    // Encoders want even sides.
    let (width, height) = encoding.size.unwrap_or(raw.size);
    let size = (width & !1, height & !1);
    let line = format!(
        "appsrc name=source format=time block=true max-bytes=0 max-buffers=8 ! videoscale \
         ! video/x-raw,format=I420,width={},height={},pixel-aspect-ratio=1/1 ! {} ! {} ! appsink name=sink sync=false max-buffers=16",
        size.0,
        size.1,
        lens(encoding.lens, size),
        encoder(encoding, fps)
    );
    let pipeline = launch(&line)?;
    if encoding.noise > 0.0 {
        add_noise(&pipeline, encoding.noise)?;
    }
    let source = element::<app::AppSrc>(&pipeline, "source")?;
    source.set_caps(Some(&first.info.to_caps()?));
    let sink = element::<app::AppSink>(&pipeline, "sink")?;
    pipeline.set_state(gst::State::Playing)?;

    let (mut access_units, mut times) = (Vec::new(), Vec::new());
    std::thread::scope(|scope| -> Result<()> {
        let shown = scope.spawn(|| {
            let shown = show(clip, encoding.fps, reel, &source);
            let _ = source.end_of_stream(); // the pipeline may have failed: then there is nothing to end
            shown
        });
        while let Ok(sample) = sink.pull_sample() {
            let buffer = sample.buffer().context("a sample without data")?;
            let bytes = buffer.map_readable()?.as_slice().to_vec();
            let keyframe = !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
            access_units.push(AccessUnit { keyframe, delay: 0, bytes });
            times.push(buffer.pts().context("an access unit without a time")?);
        }
        let failure = failure_of(&pipeline);
        pipeline.set_state(gst::State::Null)?; // wakes whoever waits to show more
        if let Some(failure) = failure {
            bail!("{failure}");
        }
        shown.join().map_err(|_| anyhow::anyhow!("showing the clip panicked"))?
    })?;
    ensure!(access_units.first().is_some_and(|unit| unit.keyframe), "no keyframe at the beginning");
    let frame_time = Duration::from_secs_f64(f64::from(fps.denom()) / f64::from(fps.numer()));
    if encoding.codec == Codec::H264Reordered {
        delay(&mut access_units, &times, frame_time);
    }
    Ok(Footage { codec: encoding.codec, frame_time, size, access_units })
}

/// Notes how much later each access unit is shown than it is sent, so that none is shown before.
fn delay(access_units: &mut [AccessUnit], times: &[gst::ClockTime], frame_time: Duration) {
    let shown =
        |time: &gst::ClockTime| (time.nseconds() as f64 / frame_time.as_nanos() as f64).round() as i64;
    let ahead = || times.iter().zip(0..).map(|(time, sent)| shown(time) - sent);
    let least = ahead().min().unwrap_or(0);
    for (unit, ahead) in access_units.iter_mut().zip(ahead()) {
        unit.delay = u8::try_from(ahead - least).unwrap_or(0);
    }
}

/// Pushes a reel's frames, each with the time of its showing.
fn show(clip: &Path, fps: Option<i32>, reel: &Reel, source: &app::AppSrc) -> Result<()> {
    let mut raw = Raw::open(clip, fps)?;
    let rate = f64::from(raw.fps.numer()) / f64::from(raw.fps.denom());
    let time = |frames: u64| gst::ClockTime::from_nseconds((frames as f64 * 1e9 / rate) as u64);
    let mut shown = 0;
    let mut push = |frame: &RawFrame| {
        let mut buffer = frame.buffer.copy();
        let timed = buffer.get_mut().context("a copy is writable")?;
        timed.set_pts(time(shown));
        timed.set_duration(time(1));
        shown += 1;
        source.push_buffer(buffer).map(drop).context("the encoder takes no more")
    };
    if reel.is_whole() {
        let most = (LONGEST_S as f64 * rate) as usize;
        for _ in 0..most {
            let Some(frame) = raw.next_frame()? else { break };
            push(&frame)?;
        }
        return Ok(());
    }
    for part in reel.parts(rate) {
        let mut raw = Raw::open(clip, fps)?;
        let mut kept = Vec::new();
        for index in 0..part.frames.1 {
            let frame = raw.next_frame()?.with_context(|| format!("the clip ends before {part:?}"))?;
            if index < part.frames.0 {
                continue;
            }
            if part.times == 1 && !part.there_and_back {
                push(&frame)?;
            } else {
                // Deep, because a decoder has only so many frames.
                kept.push(RawFrame { buffer: frame.buffer.copy_deep()?, info: frame.info });
            }
        }
        for _ in 0..if kept.is_empty() { 0 } else { part.times } {
            kept.iter().try_for_each(&mut push)?;
            if part.there_and_back {
                kept.iter().rev().try_for_each(&mut push)?;
            }
        }
    }
    Ok(())
}

/// What is in front of the sensor as a launch line.
fn lens(lens: Lens, (width, height): (u32, u32)) -> String {
    match lens {
        Lens::Clear => "identity".into(),
        Lens::Covered => "videobalance contrast=0 ! videoconvert ! video/x-raw,format=I420".into(),
        Lens::Blurred => format!(
            "videoscale ! video/x-raw,width={},height={} ! videoscale ! video/x-raw,width={width},height={height}",
            width / 8,
            height / 8
        ),
        Lens::Turned => "videoflip video-direction=180".into(),
    }
}

/// Encoder and parser as a launch line. Superfast, because a camera's chip has neither time nor look-ahead.
fn encoder(encoding: &Encoding, fps: gst::Fraction) -> String {
    let keyframes = SECONDS_BETWEEN_KEYFRAMES * fps.numer() / fps.denom();
    match encoding.codec {
        Codec::H264 | Codec::H264Reordered => {
            let frames = match encoding.codec {
                Codec::H264Reordered => "bframes=2 b-adapt=false b-pyramid=false",
                _ => "bframes=0",
            };
            let rate = match encoding.rate {
                Rate::Kilobits(kbps) => format!("bitrate={kbps}"),
                Rate::Quality(factor) => format!("pass=qual quantizer={factor}"),
            };
            format!(
                "x264enc name=encoder speed-preset=superfast {rate} key-int-max={keyframes} {frames} option-string=scenecut=0 \
                 ! h264parse config-interval=-1 ! video/x-h264,stream-format=byte-stream,alignment=au"
            )
        }
        Codec::H265 => {
            let (rate, factor) = match encoding.rate {
                Rate::Kilobits(kbps) => (format!("bitrate={kbps}"), String::new()),
                Rate::Quality(factor) => (String::new(), format!("crf={factor}:")),
            };
            format!(
                "x265enc name=encoder speed-preset=superfast {rate} key-int-max={keyframes} \
                 option-string={factor}scenecut=0:bframes=0:open-gop=0:log-level=error \
                 ! h265parse config-interval=-1 ! video/x-h265,stream-format=byte-stream,alignment=au"
            )
        }
    }
}

/// Lays noise over every frame that reaches the encoder.
fn add_noise(pipeline: &gst::Pipeline, deviation: f32) -> Result<()> {
    let encoder = pipeline.by_name("encoder").and_then(|encoder| encoder.static_pad("sink"));
    let noise = std::sync::Mutex::new(Noise::new(deviation)); // a probe may be called from any thread
    encoder.context("no encoder")?.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
        let format = pad.current_caps().and_then(|caps| video::VideoInfo::from_caps(&caps).ok());
        if let (Some(buffer), Some(format), Ok(mut noise)) = (info.buffer_mut(), format, noise.lock())
            && let Ok(mut frame) = video::VideoFrameRef::from_buffer_ref_writable(buffer.make_mut(), &format)
        {
            let stride = frame.plane_stride()[0] as usize;
            if let Ok(luma) = frame.plane_data_mut(0) {
                noise.add(luma, stride);
            }
        }
        gst::PadProbeReturn::Ok
    });
    Ok(())
}

/// Size and frame rate of a clip. A variable rate counts as 25.
fn probe(clip: &Path) -> Result<((u32, u32), gst::Fraction)> {
    let (pipeline, sink) = decode(clip, "identity")?;
    pipeline.set_state(gst::State::Paused)?;
    let sample = sink.pull_preroll();
    let failure = failure_of(&pipeline);
    pipeline.set_state(gst::State::Null)?;
    if let Some(failure) = failure {
        bail!("{failure}");
    }
    let sample = sample.context("the file holds no video")?;
    let caps = sample.caps().and_then(|caps| caps.structure(0)).context("a frame without format")?;
    let size = (caps.get::<i32>("width")? as u32, caps.get::<i32>("height")? as u32);
    let fps = caps.get::<gst::Fraction>("framerate").ok().filter(|fps| fps.numer() > 0);
    Ok((size, fps.unwrap_or(gst::Fraction::new(25, 1))))
}

/// A pipeline that decodes a clip, and its sink. The sink waits while 4 frames wait in it.
fn decode(clip: &Path, middle: &str) -> Result<(gst::Pipeline, app::AppSink)> {
    let pipeline = launch(&format!(
        "filesrc name=source ! decodebin caps=video/x-raw(ANY) expose-all-streams=false ! {middle} \
         ! appsink name=sink sync=false max-buffers=4"
    ))?;
    pipeline.by_name("source").context("no source")?.set_property("location", clip);
    let sink = element(&pipeline, "sink")?;
    Ok((pipeline, sink))
}

fn launch(line: &str) -> Result<gst::Pipeline> {
    gst::parse::launch(line)?.downcast().ok().context("a launch line makes a pipeline")
}

fn element<T: IsA<gst::Element>>(pipeline: &gst::Pipeline, name: &str) -> Result<T> {
    let element = pipeline.by_name(name).and_then(|element| element.downcast().ok());
    element.with_context(|| format!("no {name} of the expected kind"))
}

fn failure_of(pipeline: &gst::Pipeline) -> Option<String> {
    let message = pipeline.bus()?.pop_filtered(&[gst::MessageType::Error])?;
    match message.view() {
        gst::MessageView::Error(error) => Some(error.error().to_string()),
        _ => None,
    }
}
