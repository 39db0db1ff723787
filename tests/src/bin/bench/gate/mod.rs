//! What cameras cost that mostly see nothing, and what is missed by letting them sleep.
//!
//! ```text
//! BENCH=gate make bench           # of gate = "adaptive"; BENCH_GATE=always or keyframes: of another
//! BENCH=gate BENCH_ONLY=sleepers make bench   # or idle, busy, crowd, village-day, day: that alone
//! BENCH=gate BENCH_SESSIONS=2 make bench      # with two sessions of the model; one otherwise
//! BENCH=gate BENCH_ONLY=soak make bench       # half an hour, in which nothing may grow
//! BENCH=gate BENCH_ONLY=fast-forward make bench   # a day of one camera as a clip, in which memory may not grow
//! ```
//!
//! # Layout
//!
//! - [`workloads`]: what the cameras show: an empty room, a pavement, a day of six visits, a village day;
//! - [`watch`]: an agent on its cameras, what it uses and what it notices;
//! - [`soak`]: what hours leave behind; [`fast_forward`]: what a day does, as a clip;
//! - [`plot`]: the day as a picture.

mod fast_forward;
mod plot;
mod soak;
mod watch;
mod workloads;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value};
use sharp_eyes_tests::usage::Machine;
use sharp_eyes_tests::{places, wait};

use crate::figures::{Named, median};
use crate::{floor, setting};
use plot::Day;
use watch::{Used, Watch};
use workloads::{FPS, Stream, Workload, Workloads};

/// How long a camera that has fallen asleep compares every keyframe, because it knows its stream too little.
const LEARNS: Duration = Duration::from_secs(60);

/// How often everything but the days is measured.
const ROUNDS: usize = 3;

/// How long an empty scene is measured in a round.
const SPAN: Duration = Duration::from_secs(20);

/// Agents, and floors, that are measured at the same time.
const SIDE_BY_SIDE: usize = 4;

/// Measures everything, prints it, and returns it by the figures' names.
pub(crate) fn measure() -> Result<Map<String, Value>> {
    let gate = std::env::var("BENCH_GATE").unwrap_or_else(|_| "adaptive".into());
    let folder = tempfile::tempdir()?;
    let workloads = Workloads::at_hand()?;
    let mut figures = Named::default();
    warn_of_company()?;
    println!("\ncameras with gate = {gate:?}, {FPS} fps, a keyframe every 2 s, sensor noise");
    let only = std::env::var("BENCH_ONLY").unwrap_or_default();
    let wanted = |part: &str| ["", part].contains(&only.as_str());
    let parts = ["", "idle", "sleepers", "busy", "crowd", "village-day", "day", "soak", "fast-forward"];
    ensure!(parts.contains(&only.as_str()), "BENCH_ONLY={only}: it is one of{}", parts.join(" "));
    if wanted("idle") {
        for stream in [Stream::Rate1080p, Stream::Quality1080p, Stream::Rate360p] {
            idle(folder.path(), &workloads.idle, stream, &gate, &mut figures)?;
        }
    }
    if wanted("sleepers") {
        sleepers(folder.path(), &workloads.idle, &gate, &mut figures)?;
    }
    if wanted("busy") {
        busy(folder.path(), &workloads.busy, &gate, &mut figures)?;
    }
    if wanted("crowd") {
        crowd(folder.path(), &workloads.busy, &gate, &mut figures)?;
    }
    if wanted("village-day") {
        village_day(folder.path(), &workloads.village_day, &gate, &mut figures)?;
    }
    if wanted("day") {
        match &workloads.day {
            Some(day_clip) => day(folder.path(), day_clip, &gate, &mut figures)?,
            None => println!("the day of six visits: its clip is not there"),
        }
    }
    if only == "soak" {
        soak::soak(folder.path(), &workloads.village_day, &gate, &mut figures)?;
    }
    if only == "fast-forward" {
        fast_forward::fast_forward(folder.path(), &workloads.village_day, &mut figures)?;
    }
    Ok([("gate".to_owned(), gate.into()), ("cameras".to_owned(), Value::Object(figures.0))]
        .into_iter()
        .collect())
}

/// Processor time is counted, not wall time; but an agent that does not get the processor drops frames and misses visits.
fn warn_of_company() -> Result<()> {
    let before = Machine::now()?;
    wait::pause(Duration::from_secs(2));
    let busy = 100.0 * Machine::now()?.busy_since(&before);
    if busy > 10.0 {
        println!(
            "\nother work fills {busy:.0} % of this machine: what is dropped or missed below may be its doing"
        );
    }
    Ok(())
}

/// An empty scene: the agent over what receives and parses the same stream and does nothing else. Several of both, because
/// the same work costs one process a fifth more than another for as long as both live.
fn idle(folder: &Path, workload: &Workload, stream: Stream, gate: &str, figures: &mut Named) -> Result<()> {
    let (_camera, urls) = workloads::play(folder, workload, stream, &[0; 2 * SIDE_BY_SIDE])?;
    // One after the other in the order in which the camera sends.
    let (floors, agents): (Vec<_>, Vec<_>) = urls.chunks(2).map(|pair| (&pair[0], &pair[1..])).unzip();
    let started = agents.iter().map(|url| Watch::start(folder, url, gate));
    let mut agents = started.collect::<Result<Vec<_>>>()?;
    agents.iter_mut().for_each(Watch::asleep);
    wait::pause(LEARNS);
    let (mut over, mut parse, mut rounds) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        // At the same time: all of them together do not fill a core, and a machine's speed drifts.
        let running = floors.iter().map(|url| floor::stream("receive", url, SPAN));
        let running = running.collect::<Result<Vec<_>>>()?;
        let used = watch::side_by_side(&mut agents, SPAN)?;
        let cores = |floor: floor::Running| Ok(floor.cost()?.per_thousand() / 1000.0 * FPS as f64);
        let floor_cores = running.into_iter().map(cores).collect::<Result<Vec<f64>>>()?;
        over.push(used.iter().map(Used::cores).sum::<f64>() / floor_cores.iter().sum::<f64>());
        parse.extend(floor_cores);
        rounds.extend(used);
    }
    agents.into_iter().try_for_each(Watch::stop)?;
    let key = |figure: &str| format!("idle_{}_{figure}", stream.key());
    let of = |figure: fn(&Used) -> f64| median(rounds.iter().map(figure));
    figures.note(&key("core_percent"), 100.0 * of(Used::cores));
    figures.note(&key("parse_floor_core_percent"), 100.0 * median(parse.into_iter()));
    figures.note(&key("over_parse_floor"), median(over.into_iter()));
    figures.note(&key("decoded_percent"), of(Used::decoded_percent));
    Ok(())
}

/// What one camera more costs, asleep and awake.
fn sleepers(folder: &Path, workload: &Workload, gate: &str, figures: &mut Named) -> Result<()> {
    let several = |count: usize, gate: &str| -> Result<Used> {
        let (_camera, urls) = workloads::play(folder, workload, Stream::Rate1080p, &vec![0; count])?;
        let mut watch = Watch::start(folder, &urls, gate)?;
        match gate {
            "always" => watch.awake()?,
            _ => watch.asleep(),
        }
        let used = watch::for_a_span(&mut watch, SPAN)?;
        watch.stop()?;
        Ok(used)
    };
    let mut alone = None;
    for count in [1, 4, 16] {
        let used = several(count, gate)?;
        figures.note(&format!("sleepers_{count}_core_percent_each"), 100.0 * used.cores() / count as f64);
        let first = *alone.get_or_insert(used.memory_mb());
        if count > 1 {
            let each = (used.memory_mb() - first) / (count - 1) as f64;
            figures.note(&format!("sleepers_{count}_memory_mb_each_more"), each);
        } else {
            figures.note("memory_mb_sleeping", first);
            figures.note("memory_mb_base", without_camera(folder)?);
        }
    }
    let (one, four) = (several(1, "always")?, several(4, "always")?);
    figures.note("awake_1080p_memory_mb_each_more", (four.memory_mb() - one.memory_mb()) / 3.0);
    Ok(())
}

/// The agent with its model, and a camera that is away: memory in MB.
fn without_camera(folder: &Path) -> Result<f64> {
    let nowhere = format!("rtsp://127.0.0.1:{}/", places::free_port()?);
    let mut watch = Watch::start_without_waiting(folder, &[nowhere], "always")?;
    watch.model_is_loaded()?;
    let used = watch::for_a_span(&mut watch, Duration::from_secs(3))?;
    watch.stop()?;
    Ok(used.memory_mb())
}

/// People all the time: the gate costs nothing of what is seen.
fn busy(folder: &Path, workload: &Workload, gate: &str, figures: &mut Named) -> Result<()> {
    let (_camera, urls) = workloads::play(folder, workload, Stream::Rate1080p, &[0])?;
    let mut watch = Watch::start(folder, &urls, gate)?;
    watch.awake()?;
    let used: Vec<Used> = (0..ROUNDS)
        .map(|_| watch::for_a_span(&mut watch, Duration::from_secs(workload.period_s)))
        .collect::<Result<_>>()?;
    watch.stop()?;
    let of = |figure: fn(&Used) -> f64| median(used.iter().map(figure));
    figures.note("busy_1080p_cpu_s_per_min", 60.0 * of(Used::cores));
    figures.note("busy_1080p_analysed_fps", of(|used| used.analysed as f64 / used.span_s));
    figures.note("busy_1080p_decoded_percent", of(Used::decoded_percent));
    figures.note("memory_mb_awake", of(Used::memory_mb));
    Ok(())
}

/// More and more cameras that all see people all the time, up to far more than the machine can decode: how often each is
/// looked at, and the one that is looked at least often.
fn crowd(folder: &Path, workload: &Workload, gate: &str, figures: &mut Named) -> Result<()> {
    for count in [1, 4, 16, 64] {
        let starts: Vec<u64> = (0..count).map(|index| index % workload.period_s).collect();
        let (_camera, urls) = workloads::play(folder, workload, Stream::Rate360p, &starts)?;
        let mut watch = Watch::start(folder, &urls, gate)?;
        if watch.awake().is_err() {
            println!("  of {count} cameras, not each was looked at within a minute");
        }
        let used = watch::for_a_span(&mut watch, SPAN)?;
        watch.stop()?;
        let mut note = |figure: &str, value: f64| figures.note(&format!("crowd_{count}_{figure}"), value);
        let fps = |frames: f64| frames / used.span_s;
        note("cpu_s_per_min_each", 60.0 * used.cores() / count as f64);
        note("analysed_fps_mean", fps(used.analysed as f64 / count as f64));
        note("analysed_fps_least", fps(used.analysed_least as f64));
        note("inferences_per_frame", used.inferences as f64 / used.analysed.max(1) as f64);
    }
    Ok(())
}

/// Four cameras that see somebody for 15 % of the time, each at another moment.
fn village_day(folder: &Path, workload: &Workload, gate: &str, figures: &mut Named) -> Result<()> {
    let starts: Vec<u64> = (0..4).map(|index| index * workload.period_s / 4).collect();
    let (_camera, urls) = workloads::play(folder, workload, Stream::Rate1080p, &starts)?;
    let mut watch = Watch::start(folder, &urls, gate)?;
    wait::pause(Duration::from_secs(30)); // a gate that has just begun knows nothing yet
    let used = watch::for_a_span(&mut watch, Duration::from_secs(workload.period_s))?;
    for (quantile, name) in [("0.5", "wakeup_ms_p50"), ("0.99", "wakeup_ms_p99")] {
        if let Some(ms) = watch.wakeup_ms(quantile)? {
            figures.note(&format!("village_day_1080p_{name}"), ms);
        }
    }
    watch.stop()?;
    figures.note("village_day_1080p_cameras_per_core", starts.len() as f64 / used.cores());
    figures.note("village_day_1080p_decoded_percent", used.decoded_percent());
    figures.note("village_day_1080p_dropped", used.dropped as f64);
    Ok(())
}

/// The day of six visits, with the gate and without at the same time, and with it at a smaller size.
fn day(folder: &Path, workload: &Workload, gate: &str, figures: &mut Named) -> Result<()> {
    let (_large, large) = workloads::play(folder, workload, Stream::Rate1080p, &[0, 0])?;
    let (_small, small) = workloads::play(folder, workload, Stream::Rate360p, &[0])?;
    println!(
        "the day of {} visits: {} s",
        workload.visits.len(),
        workload.period_s + u64::from(workload.prelude_s)
    );
    let mut days = [
        Day::start("1080p", gate, folder, &large[..1])?,
        Day::start("1080p_always", "always", folder, &large[1..])?,
        Day::start("360p", gate, folder, &small)?,
    ];
    while days.iter().any(|day| !day.is_over(workload)) {
        wait::pause(Duration::from_millis(500));
        days.iter_mut().try_for_each(|day| day.look(workload))?;
    }
    let mut alerted = Vec::new();
    for day in &mut days {
        let used = day.used.context("a day without an end")?;
        let delays = watch::delays(&day.watch.alerts(), workload.visits, f64::from(workload.prelude_s));
        let caught = delays.iter().flatten().count();
        let key = |figure: &str| format!("day_clip_{}_{figure}", day.name);
        figures.note(&key("cpu_s_per_min"), 60.0 * used.cores());
        figures.note(&key("decoded_percent"), used.decoded_percent());
        figures.note(&key("dropped"), used.dropped as f64);
        figures.note(&key("visits_alerted"), caught as f64);
        figures.note(&key("alert_delay_s"), median(delays.into_iter().flatten()));
        alerted.push(caught as f64);
    }
    figures.note("alert_recall_adaptive_over_always", alerted[0] / alerted[1]);
    let file = places::cache().join("bench-day.svg");
    std::fs::write(&file, plot::svg(&days, workload))
        .with_context(|| format!("writing {}", file.display()))?;
    println!("the day as a picture: {}", file.display());
    for day in days {
        day.watch.stop()?;
    }
    Ok(())
}
