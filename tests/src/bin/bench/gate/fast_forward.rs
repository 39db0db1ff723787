//! A day in fast motion: what it leaves behind in the memory that a camera's gate, decoder, tracker and rules take.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as app;
use sharp_eyes_tests::usage::Held;
use sharp_eyes_tests::village::{Village, VillageCamera, WHOLE_PICTURE};
use sharp_eyes_tests::{pipeline, places, wait};

use super::setting;
use super::soak::slope;
use super::workloads::{self, FPS, Stream, Workload};
use crate::figures::Named;

/// Time between two looks at the memory.
const REST: Duration = Duration::from_secs(1);

/// One village day after the other in one clip of `BENCH_HOURS` (24), replayed by one process: how much its memory grows, by
/// least squares, without the first fifth, in which caches fill.
pub(super) fn fast_forward(folder: &Path, workload: &Workload, figures: &mut Named) -> Result<()> {
    let hours = setting("BENCH_HOURS", 24)?;
    let (clip, told) = (folder.join("day.mkv"), folder.join("told.json"));
    let units = record(folder, workload)?;
    println!("writing {hours} hours of it");
    repeat(&units, hours * 3600 * FPS, &clip)?;

    let camera =
        VillageCamera::new("view", "rtsp://127.0.0.1/").rule("anywhere", WHOLE_PICTURE, "1s", "5s", "major");
    let config = Village::new(folder, 1883)?.with(camera).write()?;
    let mut replay = Command::new(places::binary("sharp-eyes-agent")?);
    replay.arg("replay").arg(&clip).arg("--config").arg(config).arg("--json").arg(&told);
    let (began, mut points) = (Instant::now(), Vec::new());
    let mut replay = replay.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let ended = loop {
        if let Some(ended) = replay.try_wait()? {
            break ended;
        }
        // It may end at this moment.
        if let Ok(held) = Held::by(replay.id()) {
            points.push((began.elapsed().as_secs_f64(), held.memory as f64 / 1e6));
        }
        wait::pause(REST);
    };
    ensure!(ended.success(), "the replay ended with {ended}");
    let took = began.elapsed().as_secs_f64();
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(&told)?)?;
    let played = report["duration_s"].as_f64().context("no duration")? / 3600.0;
    points.iter_mut().for_each(|(at, _)| *at *= played / took);
    let settled = &points[points.len() / 5..];
    let memory = || settled.iter().map(|(_, memory)| *memory);
    figures.note("fast_forward_hours", played);
    figures.note("fast_forward_times_real_time", 3600.0 * played / took);
    figures.note("fast_forward_incidents", report["incidents"].as_array().map_or(0, Vec::len) as f64);
    figures.note("fast_forward_memory_mb_least", memory().fold(f64::INFINITY, f64::min));
    figures.note("fast_forward_memory_mb_most", memory().fold(0.0, f64::max));
    figures.note("fast_forward_memory_mb_per_hour", slope(settled));
    Ok(())
}

/// The access units of one period, as a camera sends them.
fn record(folder: &Path, workload: &Workload) -> Result<Vec<gst::Buffer>> {
    let (_camera, urls) = workloads::play(folder, workload, Stream::Rate360p, &[0])?;
    println!("recording it for {} s", workload.period_s);
    gst::init()?;
    let pipeline = gst::parse::launch(&format!(
        "rtspsrc protocols=tcp location={} ! rtph264depay ! h264parse config-interval=-1 ! {UNITS} ! \
         appsink name=units sync=false",
        urls[0]
    ))?;
    let sink = pipeline.downcast_ref::<gst::Bin>().and_then(|bin| bin.by_name("units"));
    let sink = sink.and_then(|sink| sink.downcast::<app::AppSink>().ok()).context("no sink")?;
    pipeline.set_state(gst::State::Playing)?;
    let mut units = Vec::new();
    while units.len() < usize::try_from(workload.period_s * FPS)? {
        let sample = sink.try_pull_sample(gst::ClockTime::from_seconds(wait::PATIENCE.as_secs()));
        let unit = sample.and_then(|sample| sample.buffer_owned()).context("the recording broke off")?;
        if !units.is_empty() || !unit.flags().contains(gst::BufferFlags::DELTA_UNIT) {
            units.push(unit);
        }
    }
    pipeline.set_state(gst::State::Null)?;
    Ok(units)
}

const UNITS: &str = "video/x-h264,stream-format=byte-stream,alignment=au";

/// So many access units, over and over, as a file.
fn repeat(units: &[gst::Buffer], count: u64, clip: &Path) -> Result<()> {
    let pipeline = gst::parse::launch(&format!(
        "appsrc name=units format=time block=true max-bytes=1000000 caps={UNITS} ! h264parse ! matroskamux ! \
         filesink location={}",
        clip.display()
    ))?;
    let source = pipeline.downcast_ref::<gst::Bin>().and_then(|bin| bin.by_name("units"));
    let source = source.and_then(|source| source.downcast::<app::AppSrc>().ok()).context("no source")?;
    pipeline.set_state(gst::State::Playing)?;
    for (number, unit) in (0..count).zip(units.iter().cycle()) {
        let mut unit = unit.copy();
        let at = gst::ClockTime::from_nseconds(number * 1_000_000_000 / FPS);
        let timed = unit.make_mut();
        timed.set_pts(at);
        timed.set_dts(at);
        source.push_buffer(unit)?;
    }
    source.end_of_stream()?;
    pipeline::to_its_end(&pipeline).with_context(|| format!("writing {}", clip.display()))
}
