//! What hours of falling asleep and waking up leave behind.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use sharp_eyes_tests::usage::Held;

use super::setting;
use super::watch::Watch;
use super::workloads::{self, Stream, Workload};
use crate::figures::Named;

/// Cameras that live their days at once.
const CAMERAS: u64 = 8;

/// How long each measurement waits for the least of everything, in seconds.
const REST: u32 = 20;

/// Village days of several cameras for some time (`BENCH_SOAK_MINUTES`, 30): descriptors, threads and memory over it, and
/// how much memory grows, by least squares, without the first fifth, in which caches fill.
pub(super) fn soak(folder: &Path, workload: &Workload, gate: &str, figures: &mut Named) -> Result<()> {
    let minutes = setting("BENCH_SOAK_MINUTES", 30)?;
    let starts: Vec<u64> = (0..CAMERAS).map(|index| index * workload.period_s / CAMERAS).collect();
    let (_camera, urls) = workloads::play(folder, workload, Stream::Rate360p, &starts)?;
    let mut watch = Watch::start(folder, &urls, gate)?;
    println!("minutes  descriptors  threads  memory (RssAnon)  wakes");
    let (began, mut points) = (Instant::now(), Vec::new());
    while began.elapsed() < Duration::from_secs(60 * minutes) {
        let held = Held::at_rest(watch.pid(), REST)?;
        let (passed, megabytes) = (began.elapsed().as_secs_f64() / 60.0, held.memory as f64 / 1e6);
        let Held { descriptors, threads, .. } = held;
        println!(
            "{passed:>7.1}  {descriptors:>11}  {threads:>7}  {megabytes:>13.1} MB  {:>5}",
            watch.wakes()?
        );
        points.push((passed / 60.0, megabytes));
    }
    watch.stop()?;
    let settled = &points[points.len() / 5..];
    figures.note("soak_camera_hours", CAMERAS as f64 * minutes as f64 / 60.0);
    figures.note("soak_memory_mb_per_hour", slope(settled));
    Ok(())
}

/// How much the second numbers grow with the first ones, by least squares.
pub(super) fn slope(points: &[(f64, f64)]) -> f64 {
    let count = points.len() as f64;
    let mean = |read: fn(&(f64, f64)) -> f64| points.iter().map(read).sum::<f64>() / count;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let covariance: f64 = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
    covariance / points.iter().map(|point| (point.0 - x).powi(2)).sum::<f64>()
}
