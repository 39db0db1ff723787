//! What a process costs, and how busy the machine is.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;

use crate::wait;

/// What a process has used so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Processor time, in user space and in the kernel, of all its threads.
    pub cpu: Duration,
    /// Memory that is its own, plus its share of what several processes share (PSS), in bytes.
    pub memory: u64,
}

impl Usage {
    /// Of a process that runs.
    pub fn of(pid: u32) -> Result<Self> {
        // To the nanosecond: /proc counts in hundredths of a second, and a camera that sleeps takes a dozen in 20 s.
        let clock = clock_getcpuclockid(Pid::from_raw(i32::try_from(pid)?));
        let cpu = clock.and_then(|clock| clock.now()).with_context(|| format!("processor time of {pid}"))?;
        let path = format!("/proc/{pid}/smaps_rollup");
        let rollup = std::fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        let pss =
            rollup.lines().find_map(|line| line.strip_prefix("Pss:")).context("no Pss in smaps_rollup")?;
        let kilobytes: u64 = pss.trim().trim_end_matches("kB").trim().parse()?;
        Ok(Self { cpu: cpu.into(), memory: kilobytes * 1024 })
    }
}

/// How busy the machine was up to a moment.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    all: f64,
    idle: f64,
}

impl Machine {
    /// Up to now.
    pub fn now() -> Result<Self> {
        // proc(5): the first line of stat sums up all processors; idle and iowait are the 4th and 5th number.
        let stat = std::fs::read_to_string("/proc/stat").context("reading /proc/stat")?;
        let first = stat.lines().next().unwrap_or_default();
        let ticks: Vec<f64> = first.split_whitespace().skip(1).filter_map(|n| n.parse().ok()).collect();
        Ok(Self { all: ticks.iter().sum(), idle: ticks.iter().skip(3).take(2).sum() })
    }

    /// Which part of its processors' time since then was used, 0 to 1.
    pub fn busy_since(&self, then: &Self) -> f64 {
        1.0 - (self.idle - then.idle) / (self.all - then.all)
    }
}

/// What a process holds now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Open files, sockets among them.
    pub descriptors: usize,
    /// Threads.
    pub threads: usize,
    /// Memory that is its own alone and in no file, in bytes (`RssAnon`): what a leak grows.
    pub memory: u64,
}

impl Held {
    /// The least of each in some seconds: what is under way comes on top.
    pub fn at_rest(pid: u32, seconds: u32) -> Result<Self> {
        let mut least = Self::by(pid)?;
        for _ in 0..10 * seconds {
            wait::pause(Duration::from_millis(100));
            let now = Self::by(pid)?;
            least.descriptors = least.descriptors.min(now.descriptors);
            least.threads = least.threads.min(now.threads);
            least.memory = least.memory.min(now.memory);
        }
        Ok(least)
    }

    /// By a process that runs.
    pub fn by(pid: u32) -> Result<Self> {
        let folder = PathBuf::from(format!("/proc/{pid}"));
        let count = |name: &str| -> Result<usize> {
            let path = folder.join(name);
            Ok(std::fs::read_dir(&path).with_context(|| format!("reading {}", path.display()))?.count())
        };
        let status = std::fs::read_to_string(folder.join("status")).context("reading a process's status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let kilobytes: u64 = line.context("no RssAnon in status")?.trim().trim_end_matches(" kB").parse()?;
        Ok(Self { descriptors: count("fd")?, threads: count("task")?, memory: kilobytes * 1024 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_something() {
        let usage = Usage::of(std::process::id()).unwrap();
        assert!(usage.memory > 100_000);
    }

    #[test]
    fn this_process_holds_something() {
        let before = Held::by(std::process::id()).unwrap();
        assert!(before.descriptors >= 3 && before.threads >= 1 && before.memory > 100_000, "{before:?}");
    }
}
