//! A clip, encoded once into access units and kept in a cache file, so that the next start is instant.
//!
//! Cameras send streams that suit a network, files seldom do: so every clip is encoded anew, with a keyframe every
//! two seconds and nowhere else (scene cut detection off), no B frames, parameter sets before each keyframe.

use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as app;

/// Longer clips are cut: they are played for ever anyway, and live in memory.
const LONGEST_S: u64 = 120;
const SECONDS_BETWEEN_KEYFRAMES: i32 = 2;
/// Part of the name of a cache file: change it when the way of encoding changes.
const RECIPE: u32 = 1;

/// Compression of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Codec {
    H264,
    H265,
}

/// How a clip becomes a stream.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Encoding {
    pub(crate) codec: Codec,
    /// The clip's own where `None`.
    pub(crate) fps: Option<i32>,
    /// The clip's own where `None`.
    pub(crate) size: Option<(u32, u32)>,
    pub(crate) kbps: u32,
}

impl Default for Encoding {
    fn default() -> Self {
        Self { codec: Codec::H264, fps: None, size: None, kbps: 1500 }
    }
}

/// What a camera sends between two frames' times.
#[derive(Debug, PartialEq)]
pub(crate) struct AccessUnit {
    pub(crate) keyframe: bool,
    /// Byte stream format: each unit after a start code.
    pub(crate) bytes: Vec<u8>,
}

/// A clip as a camera sends it. Never empty; the first access unit is a keyframe.
#[derive(Debug)]
pub(crate) struct Footage {
    pub(crate) codec: Codec,
    pub(crate) frame_time: Duration,
    pub(crate) size: (u32, u32),
    pub(crate) access_units: Vec<AccessUnit>,
}

impl Footage {
    /// Out of the cache, or encoded now.
    pub(crate) fn open(clip: &Path, encoding: &Encoding, cache: &Path) -> Result<Self> {
        let reading = || format!("reading {}", clip.display());
        let file = cache.join(cache_name(clip, encoding).with_context(reading)?);
        if let Ok(footage) = read(&file, encoding.codec) {
            return Ok(footage);
        }
        let footage = encode(clip, encoding).with_context(|| format!("encoding {}", clip.display()))?;
        write(&footage, &file).with_context(|| format!("writing {}", file.display()))?;
        Ok(footage)
    }

    /// Index of the last keyframe at or before a time.
    pub(crate) fn keyframe_at(&self, seconds: u32) -> usize {
        let wanted = (f64::from(seconds) / self.frame_time.as_secs_f64()) as usize % self.access_units.len();
        (0..=wanted).rev().find(|&at| self.access_units[at].keyframe).unwrap_or(0)
    }
}

/// Unlike for another clip, another version of the clip, or another way of encoding it.
fn cache_name(clip: &Path, encoding: &Encoding) -> Result<PathBuf> {
    let about = clip.metadata()?;
    let mut hash = DefaultHasher::new();
    (RECIPE, clip.canonicalize()?, about.len(), about.modified()?, encoding).hash(&mut hash);
    let stem = clip.file_stem().unwrap_or_default().to_string_lossy();
    Ok(format!("{stem}-{:016x}.access-units", hash.finish()).into())
}

fn encode(clip: &Path, encoding: &Encoding) -> Result<Footage> {
    let (own_size, own_fps) = probe(clip)?;
    let fps = encoding.fps.map_or(own_fps, |fps| gst::Fraction::new(fps, 1));
    // Encoders want even sides.
    let (width, height) = encoding.size.unwrap_or(own_size);
    let size = (width & !1, height & !1);
    let gop = SECONDS_BETWEEN_KEYFRAMES * fps.numer() / fps.denom();
    let kbps = encoding.kbps;
    let encoder = match encoding.codec {
        Codec::H264 => format!(
            "x264enc speed-preset=superfast bitrate={kbps} key-int-max={gop} bframes=0 option-string=scenecut=0 \
             ! h264parse config-interval=-1 ! video/x-h264,stream-format=byte-stream,alignment=au"
        ),
        Codec::H265 => format!(
            "x265enc speed-preset=superfast bitrate={kbps} key-int-max={gop} \
             option-string=scenecut=0:bframes=0:open-gop=0:log-level=error \
             ! h265parse config-interval=-1 ! video/x-h265,stream-format=byte-stream,alignment=au"
        ),
    };
    let pipeline = pipeline(
        clip,
        &format!(
            "videorate ! videoconvert ! videoscale \
             ! video/x-raw,format=I420,width={},height={},framerate={}/{},pixel-aspect-ratio=1/1 ! {encoder}",
            size.0,
            size.1,
            fps.numer(),
            fps.denom()
        ),
    )?;
    let sink = sink_of(&pipeline)?;
    pipeline.set_state(gst::State::Playing)?;
    let most = LONGEST_S as usize * fps.numer() as usize / fps.denom() as usize;
    let mut access_units = Vec::new();
    while access_units.len() < most {
        let Ok(sample) = sink.pull_sample() else { break };
        let buffer = sample.buffer().context("a sample without data")?;
        let bytes = buffer.map_readable()?.as_slice().to_vec();
        access_units
            .push(AccessUnit { keyframe: !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT), bytes });
    }
    let failure = failure_of(&pipeline);
    pipeline.set_state(gst::State::Null)?;
    if let Some(failure) = failure {
        bail!("{failure}");
    }
    if !access_units.first().is_some_and(|unit| unit.keyframe) {
        bail!("the file holds no video");
    }
    let frame_time = Duration::from_secs_f64(f64::from(fps.denom()) / f64::from(fps.numer()));
    Ok(Footage { codec: encoding.codec, frame_time, size, access_units })
}

/// Size and frame rate of a clip. A variable rate counts as 25.
fn probe(clip: &Path) -> Result<((u32, u32), gst::Fraction)> {
    let pipeline = pipeline(clip, "identity")?;
    let sink = sink_of(&pipeline)?;
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

fn pipeline(clip: &Path, middle: &str) -> Result<gst::Pipeline> {
    let line = format!(
        "filesrc name=source ! decodebin caps=video/x-raw(ANY) expose-all-streams=false ! {middle} \
         ! appsink name=sink sync=false max-buffers=16"
    );
    let pipeline = gst::parse::launch(&line)?
        .downcast::<gst::Pipeline>()
        .ok()
        .context("a launch line makes a pipeline")?;
    pipeline.by_name("source").context("no source")?.set_property("location", clip);
    Ok(pipeline)
}

fn sink_of(pipeline: &gst::Pipeline) -> Result<app::AppSink> {
    let sink = pipeline.by_name("sink").context("no sink")?;
    sink.downcast().ok().context("the sink is an appsink")
}

fn failure_of(pipeline: &gst::Pipeline) -> Option<String> {
    let message = pipeline.bus()?.pop_filtered(&[gst::MessageType::Error])?;
    match message.view() {
        gst::MessageView::Error(error) => Some(error.error().to_string()),
        _ => None,
    }
}

// The cache file: one line of JSON, then for each access unit its length (4 bytes, little endian), whether it is a
// keyframe (1 byte), and its bytes.

fn write(footage: &Footage, file: &Path) -> Result<()> {
    let folder = file.parent().context("a cache file lies in a folder")?;
    std::fs::create_dir_all(folder)?;
    let mut out = BufWriter::new(tempfile::NamedTempFile::new_in(folder)?);
    let head = serde_json::json!({
        "frame_time_ns": footage.frame_time.as_nanos() as u64, "width": footage.size.0, "height": footage.size.1,
        "access_units": footage.access_units.len(),
    });
    writeln!(out, "{head}")?;
    for unit in &footage.access_units {
        out.write_all(&(unit.bytes.len() as u32).to_le_bytes())?;
        out.write_all(&[u8::from(unit.keyframe)])?;
        out.write_all(&unit.bytes)?;
    }
    // Several cameras may encode the same clip at once: the last one wins, and no reader sees half a file.
    out.into_inner()?.persist(file)?;
    Ok(())
}

fn read(file: &Path, codec: Codec) -> Result<Footage> {
    let mut input = BufReader::new(File::open(file)?);
    let head: serde_json::Value = {
        let mut line = String::new();
        std::io::BufRead::read_line(&mut input, &mut line)?;
        serde_json::from_str(&line)?
    };
    let number = |key: &str| head[key].as_u64().with_context(|| format!("no {key}"));
    let mut access_units = Vec::new();
    for _ in 0..number("access_units")? {
        let mut about = [0; 5];
        input.read_exact(&mut about)?;
        let [a, b, c, d, keyframe] = about;
        let mut bytes = vec![0; u32::from_le_bytes([a, b, c, d]) as usize];
        input.read_exact(&mut bytes)?;
        access_units.push(AccessUnit { keyframe: keyframe == 1, bytes });
    }
    let size = (number("width")? as u32, number("height")? as u32);
    Ok(Footage { codec, frame_time: Duration::from_nanos(number("frame_time_ns")?), size, access_units })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn footage() -> Footage {
        let unit = |n: u8| AccessUnit { keyframe: n.is_multiple_of(4), bytes: vec![n; usize::from(n)] };
        let access_units = (0..10).map(unit).collect();
        Footage { codec: Codec::H265, frame_time: Duration::from_millis(100), size: (4, 2), access_units }
    }

    #[test]
    fn the_cache_gives_back_what_it_got() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("deeper/x.access-units");
        write(&footage(), &file).unwrap();
        let read = read(&file, Codec::H265).unwrap();
        assert_eq!(read.access_units, footage().access_units);
        assert_eq!((read.frame_time, read.size), (footage().frame_time, footage().size));
    }

    #[test]
    fn play_begins_at_a_keyframe() {
        let footage = Footage { frame_time: Duration::from_millis(500), ..footage() };
        for (seconds, at) in [(0, 0), (1, 0), (2, 4), (4, 8), (5, 0)] {
            assert_eq!(footage.keyframe_at(seconds), at, "at {seconds} s");
        }
    }
}
