//! What delivery cannot cost less than: the same bytes written and synced, the same messages published without an outbox.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::driver::WINDOW;

/// Appends so many bytes to a file and syncs them, again and again at an even pace. Milliseconds of each.
pub(super) fn synced_writes(folder: &Path, bytes: usize, per_second: f64, count: u64) -> Result<Vec<f64>> {
    let mut file = File::create(folder.join("floor")).context("making a file for the floor")?;
    let (payload, rest) = (vec![b'x'; bytes], Duration::from_secs_f64(1.0 / per_second));
    let started = Instant::now();
    (0..count)
        .map(|n| {
            let due = started + rest * u32::try_from(n)?;
            sharp_eyes_tests::wait::pause(due.saturating_duration_since(Instant::now()));
            let begun = Instant::now();
            file.write_all(&payload)?;
            file.sync_data()?;
            Ok(begun.elapsed().as_secs_f64() * 1000.0)
        })
        .collect()
}

/// Messages a second that mosquitto's own publisher delivers with QoS 1 and the agent's window.
pub(super) fn published_per_second(folder: &Path, port: u16, bytes: usize, count: u64) -> Result<f64> {
    let lines = folder.join("lines");
    let line = format!("{}\n", "x".repeat(bytes));
    std::fs::write(&lines, line.repeat(usize::try_from(count)?)).context("writing what is published")?;
    let mut publisher = Command::new("mosquitto_pub");
    publisher.args(["-V", "5", "-q", "1", "-l", "-h", "127.0.0.1", "-t", "bench"]);
    publisher.args(["-p", &port.to_string(), "-M", &WINDOW.to_string()]);
    publisher.stdin(Stdio::from(File::open(&lines)?));
    let started = Instant::now();
    let status = publisher.status().context("running mosquitto_pub (Debian: mosquitto-clients)")?;
    ensure!(status.success(), "mosquitto_pub: {status}");
    Ok(count as f64 / started.elapsed().as_secs_f64())
}
