//! On which of a chip's cores a model runs, and who gives way to it.
//!
//! Chips of boards often have a few large cores beside small ones, and an inference that is spread over both waits for the
//! small ones.

use std::path::Path;
use std::str::FromStr;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde::{Deserialize, Serialize};

/// Where Linux says how much each core can do, in parts of the largest: 1024. Absent where all are alike.
const CPUS: &str = "/sys/devices/system/cpu";

/// Which cores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cores {
    /// Those that the kernel chooses.
    #[default]
    All,
    /// The largest ones; all where they are alike.
    Big,
}

impl FromStr for Cores {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "all" => Ok(Self::All),
            "big" => Ok(Self::Big),
            _ => Err(format!("expected \"all\" or \"big\", found {text:?}")),
        }
    }
}

impl Cores {
    /// Runs something on these cores, and with it every thread and process that it starts. Where the kernel does not allow
    /// that, it runs on all of them.
    pub fn within<T>(self, run: impl FnOnce() -> T) -> T {
        let (Self::Big, Ok(before)) = (self, sched_getaffinity(None)) else { return run() };
        if let Some(set) = big_of(Path::new(CPUS), &before) {
            let _ = sched_setaffinity(None, &set); // as documented
        }
        let done = run();
        let _ = sched_setaffinity(None, &before);
        done
    }
}

/// As `nice` counts: each step is a claim smaller by a fifth. 64 decoders claim twice as much as one other thread.
pub const NICENESS: i32 = 15;

/// Lets this thread come after everything else in the process where the processor has too much to do. A thread that is not
/// privileged never gets back what it gave up.
pub fn give_way() {
    if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
        tracing::debug!("this thread does not give way: {error}");
    }
}

/// How many big cores this box has, where it has others, too.
pub fn big() -> Option<usize> {
    let allowed = sched_getaffinity(None).ok()?;
    big_of(Path::new(CPUS), &allowed).map(|set| set.count() as usize)
}

/// The largest ones of the cores that may be used, where these differ.
fn big_of(folder: &Path, allowed: &CpuSet) -> Option<CpuSet> {
    let capacity = |core: usize| -> Option<u32> {
        let text = std::fs::read_to_string(folder.join(format!("cpu{core}/cpu_capacity"))).ok()?;
        text.trim().parse().ok()
    };
    let cores = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
    let capacities: Vec<_> = cores.filter_map(|core| Some((core, capacity(core)?))).collect();
    let largest = capacities.iter().map(|(_, capacity)| *capacity).max()?;
    // Chips of three kinds of cores have one or two that are hardly larger than the next.
    let is_big = |capacity: u32| f64::from(capacity) >= BIG * f64::from(largest);
    let mut set = CpuSet::new();
    capacities.iter().filter(|(_, capacity)| is_big(*capacity)).for_each(|(core, _)| set.set(*core));
    ((set.count() as usize) < capacities.len()).then_some(set)
}

/// Of the largest core's capacity.
const BIG: f64 = 0.75;

#[cfg(test)]
mod tests {
    use super::*;

    /// The big ones of a box whose cores have these capacities.
    fn found(capacities: &[&str], allowed: &[usize]) -> Vec<usize> {
        let folder = tempfile::tempdir().unwrap();
        for (core, capacity) in capacities.iter().enumerate() {
            let core = folder.path().join(format!("cpu{core}"));
            std::fs::create_dir(&core).unwrap();
            std::fs::write(core.join("cpu_capacity"), capacity).unwrap();
        }
        let mut set = CpuSet::new();
        allowed.iter().for_each(|core| set.set(*core));
        let big = big_of(folder.path(), &set);
        big.map_or(Vec::new(), |big| (0..CpuSet::MAX_CPU).filter(|core| big.is_set(*core)).collect())
    }

    #[test]
    fn the_big_cores_are_those_of_the_largest_capacity_where_others_are_smaller() {
        let all: Vec<usize> = (0..8).collect();
        // An RK3588, an RK3399, a chip of three kinds, a Raspberry Pi 4, and a PC, which says nothing.
        let three = ["250", "250", "250", "620", "620", "620", "890", "1024"];
        assert_eq!(found(&["414", "414", "414", "414", "1024", "1024", "1024", "1024"], &all), [4, 5, 6, 7]);
        assert_eq!(found(&["485\n", "485\n", "485\n", "485\n", "1024\n", "1024\n"], &all), [4, 5]);
        assert_eq!(found(&three, &all), [6, 7]);
        assert_eq!(found(&["1024", "1024", "1024", "1024"], &all), [] as [usize; 0]);
        assert_eq!(found(&[], &all), [] as [usize; 0]);
        // In a container that has the small ones only.
        assert_eq!(found(&three, &[0, 1, 2]), [] as [usize; 0]);
    }

    #[test]
    fn what_runs_on_them_starts_its_threads_there_and_nothing_stays() {
        let allowed = || (0..CpuSet::MAX_CPU).filter(|c| sched_getaffinity(None).unwrap().is_set(*c)).count();
        let before = allowed();
        let within = Cores::Big.within(|| std::thread::spawn(allowed).join().unwrap());
        assert_eq!(within, big().unwrap_or(before));
        assert_eq!(allowed(), before);
    }
}
