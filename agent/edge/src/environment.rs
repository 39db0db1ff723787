//! What libraries read of the environment when they are loaded, and a running process cannot change safely any more.

use std::io;
use std::os::unix::process::CommandExt;
use std::{env, process};

use sharp_eyes_vision::TELEMETRY_OFF;

/// For glibc's `malloc` (mallopt(3)), unless somebody has set them already. A camera has several threads, which come and go;
/// left alone, each gets a part of the heap of its own, up to eight for each processor, and what was freed there stays there.
/// Once something large was freed, the like of it is taken from the heap, too, and the tables of a decoder that is long gone
/// leave holes there: so what is large stays what it is by default. `BENCH=gate BENCH_ONLY=sleepers` measures what that comes
/// to.
const MEMORY: [(&str, &str); 3] =
    [("MALLOC_ARENA_MAX", "2"), ("MALLOC_MMAP_THRESHOLD_", "131072"), ("MALLOC_TRIM_THRESHOLD_", "131072")];

/// Becomes this program again, in the same process, with what is missing in its environment; returns where nothing is.
pub(crate) fn complete() -> io::Result<()> {
    // ONNX Runtime reports to its maker unless this is there, whatever else is said to it.
    let (name, value) = TELEMETRY_OFF;
    let telemetry = (env::var_os(name).is_none_or(|set| set != value)).then_some(TELEMETRY_OFF);
    let memory = MEMORY.into_iter().filter(|(name, _)| env::var_os(name).is_none());
    let missing: Vec<_> = telemetry.into_iter().chain(memory).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(again(&missing))
}

/// Becomes this program again, in the same process, with more in its environment. Returns only where that fails.
pub(crate) fn again(more: &[(&str, &str)]) -> io::Error {
    let more = more.iter().copied();
    match env::current_exe() {
        Ok(program) => process::Command::new(program).args(env::args_os().skip(1)).envs(more).exec(),
        Err(error) => error,
    }
}
