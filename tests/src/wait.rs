//! Waiting for a condition: tests wait for what they need and never for an amount of time.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How long anything may take before a test says that it never happens. Generous, because it is reached only by
/// failures, and machines that run tests are slow and shared.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Asks again and again until there is an answer, at first after a millisecond, in the end ten times a second. The error
/// names `what` was waited for.
pub fn until<T>(what: &str, patience: Duration, mut ask: impl FnMut() -> Option<T>) -> Result<T> {
    let deadline = Instant::now() + patience;
    let mut rest = Duration::from_millis(1);
    loop {
        if let Some(answer) = ask() {
            return Ok(answer);
        }
        if Instant::now() >= deadline {
            bail!("waited {} s in vain for {what}", patience.as_secs());
        }
        pause(rest);
        rest = (2 * rest).min(Duration::from_millis(100));
    }
}

/// Lets some time pass. For the steps of a loop that looks at something else each time.
pub fn pause(time: Duration) {
    let (_open, never) = mpsc::channel::<()>();
    let _ = never.recv_timeout(time); // always the timeout: nobody sends
}
