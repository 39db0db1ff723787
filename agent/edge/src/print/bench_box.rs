//! `bench box`: how many cameras this box carries with its model, and what limits it.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;
use sharp_eyes_vision::{DetectError, Polygon};

use crate::camera::{self, CameraError, Decoded, Frame, FrameError, InitError, Listening, Recording};
use crate::config::{CAMERAS_MAX, CameraConfig, Config, DetectorConfig};
use crate::sessions::{LoadError, Sessions};

/// How long cameras are listened to.
const LISTEN: Duration = Duration::from_secs(20);

/// How often the model and the disk are asked.
const RUNS: usize = 30;

/// What a box may be filled to: the rest is for alerts, pictures, reports and a hot day.
pub(super) const FILL: f64 = 0.8;

/// Share of the time in which somebody is in sight of a village's camera.
const VILLAGE: f64 = 0.15;

/// What was measured. Shares are of one core, of one camera unless said otherwise.
#[derive(Clone, Debug, Serialize)]
struct Report {
    cores: usize,
    memory_free_bytes: u64,
    model: String,
    cameras: Vec<CameraReport>,
    /// Receiving, parsing, and the gate's reading.
    received_cores: f64,
    /// Decoding all frames and comparing those that are looked at.
    decoded_cores: f64,
    inference_ms: f64,
    /// At the analysed rate.
    inference_cores: f64,
    /// Of the time of the sessions that all cameras share.
    inference_busy: f64,
    write_ms: f64,
    write_worst_ms: f64,
    carries: Vec<Load>,
}

#[derive(Clone, Debug, Serialize)]
struct CameraReport {
    name: String,
    stream: String,
    fps: f64,
    megabits_per_s: f64,
    keyframe_s: Option<f64>,
    failure: Option<String>,
}

/// So many cameras, and what one more would exceed.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Load {
    /// Share of the time in which a camera is awake.
    awake: f64,
    cameras: u32,
    limit: &'static str,
}

/// What one camera takes of what there is.
#[derive(Clone, Copy, Debug)]
struct Costs {
    cores: f64,
    received: f64,
    decoded: f64,
    inference: f64,
    inference_busy: f64,
}

/// Measures the box, prints what it carries. True if every configured camera could be measured.
pub fn bench_box(config: &Config, json: bool) -> Result<bool, BenchBoxError> {
    camera::init()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let report = runtime.block_on(measure(config))?;
    let mut text = if json { serde_json::to_string_pretty(&report)? } else { table(&report) };
    text.push('\n');
    match io::stdout().lock().write_all(text.as_bytes()) {
        // A reader that has seen enough (`| head`) is no error.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(report.cameras.iter().all(|camera| camera.failure.is_none())),
    }
}

async fn measure(config: &Config) -> Result<Report, BenchBoxError> {
    say(&format!("listening to {} cameras for {} s", config.cameras.len(), LISTEN.as_secs()));
    let mut cameras: Vec<_> = config.cameras.iter().map(CameraReport::of).collect();
    let (recordings, received) = record(&config.cameras, &mut cameras).await;
    if recordings.is_empty() {
        return Err(BenchBoxError::NoCamera(
            cameras
                .iter()
                .filter_map(|camera| Some(format!("{}: {}", camera.name, camera.failure.as_ref()?)))
                .collect(),
        ));
    }
    say("decoding what they sent");
    let (decoded, frame) = decode(&recordings, &mut cameras).await?;
    say("looking at a frame of theirs with the model");
    let DetectorConfig { model, cores, .. } = &config.detector;
    let mut sessions = Sessions::load(&config.detector, model)?;
    let masks = &config.cameras[recordings[0].0].stream.masks;
    let (inference, processor) = cores.within(|| infer(&mut sessions, &frame, masks))?;
    say("writing to the disk of the state folder");
    let writes = write(&config.state.folder)?;

    let fps = mean(config.cameras.iter().map(|camera| f64::from(camera.stream.analysed_fps)));
    let costs = Costs {
        cores: std::thread::available_parallelism().map_or(1.0, |cores| cores.get() as f64),
        received,
        decoded,
        inference: fps * processor.as_secs_f64(),
        inference_busy: fps * inference.as_secs_f64() / sessions.count() as f64,
    };
    Ok(Report {
        cores: costs.cores as usize,
        memory_free_bytes: memory_free()?,
        model: sessions.model().name.to_string(),
        cameras,
        received_cores: costs.received,
        decoded_cores: costs.decoded,
        inference_ms: milliseconds(inference),
        inference_cores: costs.inference,
        inference_busy: costs.inference_busy,
        write_ms: milliseconds(writes[writes.len() / 2]),
        write_worst_ms: milliseconds(writes[writes.len() - 1]),
        carries: [0.0, VILLAGE, 1.0].map(|awake| costs.carries(awake)).into(),
    })
}

/// Progress, beside the answer.
fn say(text: &str) {
    eprintln!("{text} ...");
}

/// All cameras at once, as the daemon has them: what each sent, and the share of a core that one takes asleep.
async fn record(configured: &[CameraConfig], reports: &mut [CameraReport]) -> (Vec<(usize, Recording)>, f64) {
    let mut connecting = tokio::task::JoinSet::new();
    for (index, camera) in configured.iter().enumerate() {
        let stream = camera.stream.clone();
        connecting.spawn(async move { (index, Listening::to(&stream).await) });
    }
    let mut listening = Vec::new();
    for (index, outcome) in connecting.join_all().await {
        match outcome {
            Ok(camera) => listening.push((index, camera)),
            Err(error) => reports[index].failure = Some(error.to_string()),
        }
    }
    let (count, before) = (listening.len().max(1), processor_time());
    let mut recording = tokio::task::JoinSet::new();
    for (index, camera) in listening {
        recording.spawn(async move { (index, camera.record(LISTEN).await) });
    }
    let outcomes = recording.join_all().await;
    let used = (processor_time() - before).as_secs_f64() / LISTEN.as_secs_f64() / count as f64;
    let mut recordings = Vec::new();
    for (index, outcome) in outcomes {
        match outcome {
            Ok(recording) => {
                reports[index].describe(&recording);
                recordings.push((index, recording));
            }
            Err(error) => reports[index].failure = Some(error.to_string()),
        }
    }
    recordings.sort_by_key(|(index, _)| *index);
    (recordings, used)
}

/// One recording after the other: the share of a core that decoding one takes at its own rate, and a frame of them.
async fn decode(
    recordings: &[(usize, Recording)],
    reports: &mut [CameraReport],
) -> Result<(f64, Frame), BenchBoxError> {
    let (mut shares, mut frame) = (Vec::new(), None);
    for (index, recording) in recordings {
        let before = processor_time();
        match recording.decode().await {
            Ok(Decoded { span, last: Some(last), .. }) => {
                shares.push((processor_time() - before).as_secs_f64() / span.as_secs_f64());
                frame.get_or_insert(last);
            }
            Ok(_) => reports[*index].failure = Some("no picture came out of the decoder".into()),
            Err(error) => reports[*index].failure = Some(error.to_string()),
        }
    }
    let frame = frame.ok_or_else(|| {
        BenchBoxError::NoCamera(reports.iter().filter_map(|camera| camera.failure.clone()).collect())
    })?;
    Ok((mean(shares.into_iter()), frame))
}

/// Median time in which each session looks at a frame, all at the same time, and the processor time of one look.
fn infer(
    sessions: &mut Sessions,
    frame: &Frame,
    masks: &[Polygon],
) -> Result<(Duration, Duration), BenchBoxError> {
    let mut times = Vec::with_capacity(RUNS);
    let (before, picture) = (processor_time(), frame.map()?);
    for _ in 0..RUNS {
        let start = Instant::now();
        let looks = vec![picture.view(); sessions.count()];
        for look in sessions.each(looks, |detector, planes| detector.detect(&planes, masks)) {
            look.map_err(|_| BenchBoxError::Panicked)??;
        }
        times.push(start.elapsed());
    }
    let processor = (processor_time() - before) / (RUNS * sessions.count()) as u32;
    times.sort();
    Ok((times[RUNS / 2], processor))
}

/// How long a write takes until it outlives a power cut, sorted.
fn write(folder: &Path) -> Result<Vec<Duration>, BenchBoxError> {
    // Before the first start there is none, but the disk is there.
    let folder = folder.ancestors().find(|folder| folder.is_dir()).unwrap_or(folder);
    let failed = |source| BenchBoxError::Disk { folder: folder.to_owned(), source };
    let name = folder.join(format!(".bench-{}", std::process::id()));
    let mut file = File::create_new(&name).map_err(failed)?;
    let write = || -> io::Result<Vec<Duration>> {
        let mut times = Vec::with_capacity(RUNS);
        for _ in 0..RUNS {
            let start = Instant::now();
            file.write_all(&[0x5e; 4096])?; // as the outbox does for an alert
            file.sync_data()?;
            times.push(start.elapsed());
        }
        Ok(times)
    };
    let times = { write }();
    std::fs::remove_file(&name).map_err(failed)?;
    let mut times = times.map_err(failed)?;
    times.sort();
    Ok(times)
}

impl Costs {
    /// How many cameras fit that are awake for this share of the time.
    fn carries(&self, awake: f64) -> Load {
        let limits = [
            ("the processor", FILL * self.cores / (self.received + awake * (self.decoded + self.inference))),
            ("the detector's sessions", FILL / (awake * self.inference_busy)),
            ("what a configuration may have", CAMERAS_MAX as f64),
        ];
        let (limit, cameras) =
            limits.into_iter().min_by(|(_, a), (_, b)| a.total_cmp(b)).expect("three limits");
        Load { awake, cameras: cameras as u32, limit }
    }
}

impl CameraReport {
    fn of(camera: &CameraConfig) -> Self {
        Self {
            name: camera.stream.name.to_string(),
            stream: String::new(),
            fps: 0.0,
            megabits_per_s: 0.0,
            keyframe_s: None,
            failure: None,
        }
    }

    fn describe(&mut self, recording: &Recording) {
        self.stream = recording.kind();
        self.fps = recording.fps();
        self.megabits_per_s = recording.bitrate() / 1e6;
        self.keyframe_s = recording.keyframe_interval().map(|interval| interval.as_secs_f64());
    }
}

fn table(report: &Report) -> String {
    let mut text = String::new();
    let mut row = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<12} {value}"); // a String takes everything
    };
    let free = report.memory_free_bytes as f64 / 1e9;
    row("box", format!("{} cores, {free:.1} GB of memory free", report.cores));
    for camera in &report.cameras {
        let value = match (&camera.failure, camera.keyframe_s) {
            (Some(failure), _) => failure.clone(),
            (None, keyframe) => format!(
                "{}, {:.1} fps, {:.1} Mbit/s, {}",
                camera.stream,
                camera.fps,
                camera.megabits_per_s,
                keyframe.map_or("no keyframe".into(), |s| format!("a keyframe every {s:.1} s"))
            ),
        };
        row("camera", format!("{}: {value}", camera.name));
    }
    let percent = |share: f64| 100.0 * share;
    row("asleep", format!("{:.1} % of a core for each camera", percent(report.received_cores)));
    row("awake", format!("{:.1} % more for decoding", percent(report.decoded_cores)));
    row(
        "",
        format!(
            "{:.1} % more for looking at frames with {}: {:.1} ms each",
            percent(report.inference_cores),
            report.model,
            report.inference_ms
        ),
    );
    row(
        "disk",
        format!(
            "a write is safe in {:.1} ms (median of {RUNS}), {:.1} ms (worst)",
            report.write_ms, report.write_worst_ms
        ),
    );
    let _ = writeln!(text, "\nfilled to {:.0} %, this box carries", percent(FILL));
    for load in &report.carries {
        let awake = match load.awake {
            0.0 => "that all sleep".to_owned(),
            1.0 => "that are all awake".to_owned(),
            share => format!("that are awake {:.0} % of the time", percent(share)),
        };
        let _ = writeln!(text, "{:>6} cameras {awake:<36} limited by {}", load.cameras, load.limit);
    }
    text.pop();
    text
}

/// Processor time of all threads of this process so far.
pub(super) fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Memory that programs may still have, in bytes.
fn memory_free() -> Result<u64, BenchBoxError> {
    let file = std::fs::read_to_string("/proc/meminfo")?;
    let line = file.lines().find_map(|line| line.strip_prefix("MemAvailable:")).unwrap_or_default();
    let kilobytes: u64 = line.trim().trim_end_matches("kB").trim().parse().unwrap_or(0);
    Ok(kilobytes * 1024)
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0), |(sum, count), value| (sum + value, count + 1));
    if count == 0 { 0.0 } else { sum / f64::from(count) }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// The box cannot be measured.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum BenchBoxError {
    #[error(transparent)]
    GStreamer(#[from] InitError),
    #[error("no camera can be measured:\n  {}", .0.join("\n  "))]
    NoCamera(Vec<String>),
    #[error(transparent)]
    Model(#[from] LoadError),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Detect(#[from] DetectError),
    #[error("a thread that looked at a picture panicked")]
    Panicked,
    #[error("cannot write to the state folder {}: {source}", folder.display())]
    Disk { folder: PathBuf, source: io::Error },
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("cannot print: {0}")]
    Json(#[from] serde_json::Error),
    #[error(transparent)]
    Camera(#[from] CameraError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_scarce_limits() {
        let costs = Costs { cores: 4.0, received: 0.01, decoded: 0.1, inference: 0.1, inference_busy: 0.1 };
        // 3.2 cores; at 15 % awake a camera takes 0.04; awake 0.21, but the detector's sessions are full with 8.
        assert_eq!(costs.carries(0.0).limit, "what a configuration may have");
        assert_eq!(costs.carries(0.15), Load { awake: 0.15, cameras: 53, limit: "the detector's sessions" });
        assert_eq!(costs.carries(1.0), Load { awake: 1.0, cameras: 8, limit: "the detector's sessions" });
        let slow = Costs { cores: 1.0, ..costs };
        assert_eq!(slow.carries(1.0), Load { awake: 1.0, cameras: 3, limit: "the processor" });
    }
}
