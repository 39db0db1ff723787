//! `bench model`: how fast the configured model runs on this box, in which way, and which lines of the configuration are best.
//!
//! Each way is tried in a process of its own: a provider that crashes ends that one alone, and its memory is its own.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use sharp_eyes_vision::{
    Colour, DetectError, Detector, DetectorOptions, FrameView, PixelFormat, Plane, Provider, Runtime,
    settings,
};

use super::bench_box::{FILL, processor_time};
use crate::config::{Config, DetectorConfig};
use crate::cores::{self, Cores};
use crate::sessions::{LoadError, Sessions};

/// How long one way is measured, after some inferences that warm up.
const MEASURED: Duration = Duration::from_secs(3);
const WARM_UP: usize = 3;

/// A way that may hang, because what it drives is a chip of its own, gets no longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// What differs by less is the same within what such a measurement is good for.
const ALIKE: f64 = 1.1;

/// Sessions of what is no processor: a chip like the RK3588 has three cores for models.
const NPU_SESSIONS: [usize; 2] = [2, 3];

/// What is looked at: noise of this size, the same each time.
const PICTURE: (usize, usize) = (1920, 1080);

/// One way to run the model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Way {
    options: DetectorOptions,
    cores: Cores,
    /// Sessions beside each other.
    sessions: usize,
}

/// How well that went.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Measured {
    /// Of one frame: from the decoder's picture to objects.
    p50_ms: f64,
    p95_ms: f64,
    /// Frames a second, of all sessions together.
    throughput: f64,
    /// Processor time of one frame, on all cores together.
    processor_ms: f64,
    /// Memory that the process has because of the model.
    memory_bytes: u64,
    /// From the model's file to the first frame.
    load_ms: f64,
}

/// A way, and what came of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Row {
    #[serde(flatten)]
    way: Way,
    /// `Err`: why it cannot be used.
    result: Result<Measured, String>,
}

/// The whole answer.
#[derive(Clone, Debug, Serialize)]
struct Report {
    cores: usize,
    /// `None` where all cores are alike.
    big_cores: Option<usize>,
    model: PathBuf,
    onnx_runtime: String,
    offered: Vec<Provider>,
    /// Frames a second that the configured cameras want looked at when all are awake.
    wanted: f64,
    rows: Vec<Row>,
    /// Lines of the configuration; none where the model cannot be run at all.
    proposal: Option<String>,
}

/// What the hidden command gets that tries one way.
#[derive(Clone, Debug, clap::Args)]
pub struct WayOptions {
    #[arg(long)]
    runtime: PathBuf,
    #[arg(long)]
    model: PathBuf,
    /// A [`Way`] as JSON.
    #[arg(long)]
    way: String,
}

/// Measures the ways, and proposes the best. True if there is one.
pub fn bench_model(config: &Config, json: bool) -> Result<bool, BenchModelError> {
    let runtime = Runtime::load(&config.detector.runtime)?;
    let (cores, big_cores) = (std::thread::available_parallelism().map_or(1, usize::from), cores::big());
    let scratch = tempfile::tempdir()?;
    let mut rows = Vec::new();
    for way in ways(runtime.providers(), cores, big_cores, scratch.path().join("graphs")) {
        eprintln!("{} ...", way.words());
        let result = in_child(&config.detector, &way);
        rows.push(Row { way, result });
    }
    let wanted = config.cameras.iter().map(|camera| f64::from(camera.stream.analysed_fps)).sum();
    let report = Report {
        cores,
        big_cores,
        model: config.detector.model.clone(),
        onnx_runtime: runtime.version().to_owned(),
        offered: runtime.providers().to_vec(),
        wanted,
        proposal: best(&rows, wanted).map(|row| row.lines(&rows, &config.state.folder.join("graphs"))),
        rows,
    };
    let mut text = if json { serde_json::to_string_pretty(&report)? } else { table(&report) };
    text.push('\n');
    match io::stdout().lock().write_all(text.as_bytes()) {
        // A reader that has seen enough (`| head`) is no error.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(report.proposal.is_some()),
    }
}

/// What is worth trying on such a box: one thing after the other is changed, not all with each other.
fn ways(offered: &[Provider], cores: usize, big: Option<usize>, cache: PathBuf) -> Vec<Way> {
    let plain = Way { options: DetectorOptions::default(), cores: Cores::All, sessions: 1 };
    let with = |threads: usize, provider: Provider| DetectorOptions {
        threads,
        providers: vec![provider],
        ..DetectorOptions::default()
    };
    let powers = |most: usize| (0..7).map(|power| 1 << power).filter(move |threads| *threads <= most);
    let mut ways: Vec<Way> =
        powers(cores).map(|threads| Way { options: with(threads, Provider::Cpu), ..plain.clone() }).collect();
    for threads in big.into_iter().flat_map(powers) {
        let options = with(threads, Provider::Cpu);
        ways.push(Way { options, cores: Cores::Big, ..plain.clone() });
    }
    ways.push(Way { options: DetectorOptions { arena: false, ..with(1, Provider::Cpu) }, ..plain.clone() });
    let cached = DetectorOptions { cache: Some(cache), ..with(1, Provider::Cpu) };
    ways.push(Way { options: cached, ..plain.clone() });
    for provider in offered.iter().filter(|provider| **provider != Provider::Cpu) {
        ways.extend(powers(cores).map(|threads| Way { options: with(threads, *provider), ..plain.clone() }));
        let several =
            NPU_SESSIONS.map(|sessions| Way { options: with(1, *provider), sessions, ..plain.clone() });
        ways.extend(several);
    }
    ways.extend(powers(cores).skip(1).map(|sessions| Way { sessions, ..plain.clone() }));
    ways
}

/// The way that a box with these cameras should take: one of those that take the least of the processor and keep up with all
/// cameras awake; where none does, one of the quickest. Of what is alike, the one with the fewest threads.
fn best(rows: &[Row], wanted: f64) -> Option<&Row> {
    let usable: Vec<_> = rows
        .iter()
        .filter(|row| row.way.options.cache.is_none())
        .filter_map(|row| Some((row, row.result.as_ref().ok()?)))
        .collect();
    let slim = |(row, measured): &(&Row, &Measured)| (row.way.at_once(), measured.memory_bytes);

    let keeping_up = || usable.iter().filter(|(_, measured)| FILL * measured.throughput >= wanted);
    let least = keeping_up().map(|(_, measured)| measured.processor_ms).fold(f64::INFINITY, f64::min);
    let frugal = keeping_up().filter(|(_, measured)| measured.processor_ms <= ALIKE * least);

    let most = usable.iter().map(|(_, measured)| measured.throughput).fold(0.0, f64::max);
    let quickest = usable.iter().filter(|(_, measured)| ALIKE * measured.throughput >= most);
    frugal.min_by_key(|way| slim(way)).or_else(|| quickest.min_by_key(|way| slim(way))).map(|(row, _)| *row)
}

/// Runs a way in a process of its own.
fn in_child(detector: &DetectorConfig, way: &Way) -> Result<Measured, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    // Twice with a cache: the first one fills it.
    let runs = if way.options.cache.is_some() { 2 } else { 1 };
    let mut measured = Err(String::new());
    for _ in 0..runs {
        let mut command = Command::new(std::env::current_exe().map_err(|error| text(&error))?);
        command.args(["bench", "way", "--runtime"]).arg(&detector.runtime);
        command.arg("--model").arg(&detector.model);
        command.arg("--way").arg(serde_json::to_string(way).map_err(|error| text(&error))?);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| text(&error))?;
        let ended = wait(&mut child);
        if ended.is_none() {
            let _ = child.kill(); // it has just ended by itself then
        }
        let output = child.wait_with_output().map_err(|error| text(&error))?;
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        measured = match (ended, output.status.success()) {
            (None, _) => Err(format!("did not end within {} s", PATIENCE.as_secs())),
            (_, true) => serde_json::from_slice(&output.stdout).map_err(|error| text(&error)),
            (_, false) if said.is_empty() => Err(format!("ended with {}", output.status)),
            (_, false) => Err(said),
        };
    }
    measured
}

/// Whether a child ended in time. What it says fits into a pipe.
fn wait(child: &mut std::process::Child) -> Option<()> {
    let started = Instant::now();
    while started.elapsed() < PATIENCE {
        if child.try_wait().ok()?.is_some() {
            return Some(());
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
    None
}

/// Measures one way here and prints it, for the process that waits for it.
pub fn bench_way(options: &WayOptions) -> Result<bool, BenchModelError> {
    let way: Way = serde_json::from_str(&options.way)?;
    let measured = way.cores.within(|| measure(options, &way))?;
    println!("{}", serde_json::to_string(&measured)?);
    Ok(true)
}

fn measure(options: &WayOptions, way: &Way) -> Result<Measured, BenchModelError> {
    let before = memory()?;
    let started = Instant::now();
    let config = DetectorConfig {
        model: options.model.clone(),
        runtime: options.runtime.clone(),
        options: way.options.clone(),
        sessions: way.sessions,
        cores: way.cores,
    };
    let mut sessions = Sessions::load(&config, &config.model)?;
    let load = started.elapsed();
    let picture = picture();
    let mut look = || -> Result<Vec<Duration>, BenchModelError> {
        let looks = sessions.each(vec![(); way.sessions], |detector, ()| {
            let begun = Instant::now();
            picture.show(detector).map(|()| begun.elapsed())
        });
        looks.into_iter().map(|look| Ok(look.map_err(|_| BenchModelError::Panicked)??)).collect()
    };
    (0..WARM_UP).try_for_each(|_| look().map(drop))?;
    let (processor, started, mut times) = (processor_time(), Instant::now(), Vec::new());
    while started.elapsed() < MEASURED {
        times.extend(look()?);
    }
    let (took, processor) = (started.elapsed(), processor_time() - processor);
    times.sort_unstable();
    let milliseconds = |time: Duration| time.as_secs_f64() * 1000.0;
    let percentile = |percent: usize| milliseconds(times[(times.len() - 1) * percent / 100]);
    Ok(Measured {
        p50_ms: percentile(50),
        p95_ms: percentile(95),
        throughput: times.len() as f64 / took.as_secs_f64(),
        processor_ms: milliseconds(processor) / times.len() as f64,
        memory_bytes: memory()?.saturating_sub(before),
        load_ms: milliseconds(load) / way.sessions as f64,
    })
}

/// A picture as a decoder has it.
struct Picture {
    luma: Vec<u8>,
    chroma: Vec<u8>,
}

fn picture() -> Picture {
    let mut random = fastrand::Rng::with_seed(1);
    let (width, height) = PICTURE;
    let mut plane = |bytes: usize| (0..bytes).map(|_| random.u8(..)).collect();
    Picture { luma: plane(width * height), chroma: plane(width * height / 2) }
}

impl Picture {
    fn show(&self, detector: &mut Detector) -> Result<(), DetectError> {
        let (width, height) = PICTURE;
        let planes = [&self.luma, &self.chroma].map(|data| Plane { data: &data[..], stride: width });
        let frame =
            FrameView::new(width as u32, height as u32, PixelFormat::Nv12, Colour::Bt709, false, &planes)
                .expect("planes of its size");
        detector.detect(&frame, &[]).map(drop)
    }
}

/// Memory that is this process' own, in bytes.
fn memory() -> io::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap_or_default();
    let kilobytes: u64 = line.trim().trim_end_matches("kB").trim().parse().unwrap_or(0);
    Ok(kilobytes * 1024)
}

impl Way {
    /// How many threads it takes.
    fn at_once(&self) -> usize {
        self.sessions * self.options.threads
    }

    fn words(&self) -> String {
        let Self { options, cores, sessions } = self;
        let many = |count: usize, noun: &str| format!("{count} {noun}{}", if count == 1 { "" } else { "s" });
        let mut words = format!("{}, {}", options.providers[0], many(options.threads, "thread"));
        if *sessions > 1 {
            let _ = write!(words, ", {} beside each other", many(*sessions, "session"));
        }
        for (is, what) in [
            (*cores == Cores::Big, ", big cores"),
            (!options.arena, ", no arena"),
            (options.cache.is_some(), ", graph cached"),
        ] {
            words += if is { what } else { "" };
        }
        words
    }
}

impl Row {
    /// The lines of the configuration that ask for this way.
    fn lines(&self, rows: &[Self], graphs: &std::path::Path) -> String {
        let Way { options, cores, .. } = &self.way;
        let mut providers: Vec<_> =
            options.providers.iter().map(|provider| format!("\"{provider}\"")).collect();
        if !options.providers.contains(&Provider::Cpu) {
            providers.push("\"cpu\"".to_owned()); // for a model that the other one cannot run
        }
        let cores = if *cores == Cores::Big { "big" } else { "all" };
        let mut lines = format!(
            "[detector]\nproviders = [{}]\nthreads = {}\nsessions = {}\ncores = \"{cores}\"\narena = {}",
            providers.join(", "),
            options.threads,
            self.way.sessions,
            options.arena
        );
        // What a start takes matters where the model is switched, or a box restarts often.
        let load = |cached: bool| {
            let plain = rows.iter().find(|row| {
                let of_cpu = row.way.options.providers == [Provider::Cpu] && row.way.options.threads == 1;
                of_cpu && row.way.sessions == 1 && row.way.options.cache.is_some() == cached
            });
            plain.and_then(|row| Some(row.result.as_ref().ok()?.load_ms))
        };
        if options.providers == [Provider::Cpu]
            && load(false).zip(load(true)).is_some_and(|(plain, cached)| plain - cached > SAVES_MS)
        {
            let _ = write!(lines, "\ncache = {:?}", graphs.display().to_string());
        }
        lines
    }
}

/// From how much shorter a start on a cached graph is proposed, in milliseconds.
const SAVES_MS: f64 = 250.0;

fn table(report: &Report) -> String {
    let mut text = String::new();
    let cores = match report.big_cores {
        Some(big) => format!("{} cores, {big} of them big", report.cores),
        None => format!("{} cores, all alike", report.cores),
    };
    let _ = writeln!(text, "box     {cores}");
    let _ = writeln!(text, "model   {}", report.model.display());
    let _ = writeln!(
        text,
        "runtime ONNX Runtime {} with {}\n",
        report.onnx_runtime,
        settings::listed(&report.offered)
    );
    let _ = writeln!(
        text,
        "{:<44}{:>9}{:>9}{:>10}{:>11}{:>9}{:>9}",
        "", "p50", "p95", "frames/s", "processor", "memory", "load"
    );
    for Row { way, result } in &report.rows {
        let _ = match result {
            Ok(m) => writeln!(
                text,
                "{:<44}{:>6.1} ms{:>6.1} ms{:>10.1}{:>8.1} ms{:>6.0} MB{:>6.0} ms",
                way.words(),
                m.p50_ms,
                m.p95_ms,
                m.throughput,
                m.processor_ms,
                m.memory_bytes as f64 / 1e6,
                m.load_ms
            ),
            Err(why) => {
                writeln!(text, "{:<44}  {}", way.words(), why.lines().next_back().unwrap_or_default())
            }
        };
    }
    match &report.proposal {
        Some(lines) => {
            let wanted = report.wanted;
            let _ = write!(text, "\nbest here for {wanted} frames a second (all cameras awake)\n\n{lines}");
        }
        None => text += "\nthe model cannot be run in any way",
    }
    text
}

/// The model cannot be measured.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum BenchModelError {
    #[error(transparent)]
    Runtime(#[from] sharp_eyes_vision::OnnxError),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Detect(#[from] DetectError),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("cannot read or print: {0}")]
    Json(#[from] serde_json::Error),
    #[error("a thread that looked at pictures panicked")]
    Panicked,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(threads: usize, sessions: usize, processor_ms: f64, throughput: f64) -> Row {
        let options = DetectorOptions { threads, ..DetectorOptions::default() };
        let (p50_ms, p95_ms, load_ms) = (1000.0 / throughput, 1000.0 / throughput, 100.0);
        let measured = Measured { p50_ms, p95_ms, throughput, processor_ms, memory_bytes: 50 << 20, load_ms };
        Row { way: Way { options, cores: Cores::All, sessions }, result: Ok(measured) }
    }

    #[test]
    fn the_best_way_takes_the_least_of_the_processor_and_keeps_up_with_the_cameras() {
        let rows =
            [row(1, 1, 20.0, 50.0), row(2, 1, 26.0, 80.0), row(4, 1, 40.0, 100.0), row(1, 4, 22.0, 180.0)];
        let way = |wanted| best(&rows, wanted).map(|row| (row.way.options.threads, row.way.sessions));
        assert_eq!(way(15.0), Some((1, 1)));
        assert_eq!(way(45.0), Some((1, 4)), "the rest is for a hot day");
        assert_eq!(way(500.0), Some((1, 4)), "none keeps up: the quickest");
        let way = |wanted| best(&rows[..3], wanted).map(|row| (row.way.options.threads, row.way.sessions));
        assert_eq!(way(45.0), Some((2, 1)));
        assert_eq!(way(500.0), Some((4, 1)));
        let same = [row(2, 1, 20.2, 50.0), row(1, 1, 20.0, 49.0)];
        assert_eq!(best(&same, 5.0).unwrap().way.options.threads, 1, "within what a measurement is good for");
        let broken = [Row { result: Err("no such chip".into()), ..row(1, 1, 1.0, 1.0) }];
        assert_eq!(best(&broken, 5.0), None);
    }

    #[test]
    fn what_a_box_has_is_tried() {
        let count = |offered: &[Provider], cores, big| ways(offered, cores, big, PathBuf::new()).len();
        // One thread, without arena, cached.
        assert_eq!(count(&[Provider::Cpu], 1, None), 3);
        // Threads 1, 2, 4, 8; two more; sessions 2, 4, 8.
        assert_eq!(count(&[Provider::Cpu], 8, None), 9);
        assert_eq!(count(&[Provider::Cpu], 8, Some(4)), 12);
        // Threads 1, 2, 4, 8 and sessions 2, 3 of the chip beside.
        assert_eq!(count(&[Provider::Rknpu, Provider::Cpu], 8, Some(4)), 18);
    }

    #[test]
    fn what_is_proposed_is_a_configuration() {
        let rows = [row(2, 1, 20.0, 50.0)];
        let npu = Row {
            way: Way {
                options: DetectorOptions { providers: vec![Provider::Rknpu], ..DetectorOptions::default() },
                cores: Cores::Big,
                sessions: 3,
            },
            ..rows[0].clone()
        };
        for (row, expected) in [
            (
                &rows[0],
                "[detector]\nproviders = [\"cpu\"]\nthreads = 2\nsessions = 1\ncores = \"all\"\narena = true",
            ),
            (
                &npu,
                "[detector]\nproviders = [\"rknpu\", \"cpu\"]\nthreads = 1\nsessions = 3\ncores = \"big\"\narena = true",
            ),
        ] {
            let lines = row.lines(&rows, std::path::Path::new("/var/lib/sharp-eyes/graphs"));
            assert_eq!(lines, expected);
        }
    }
}
