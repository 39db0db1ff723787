//! The start of the box: its name, and how long ago it was.

use std::time::{Duration, Instant};

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const UPTIME: &str = "/proc/uptime";

/// The start of the box, seen from the start of the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Boot {
    id: String,
    /// How long the box had been running when the agent started.
    before: Duration,
    started: Instant,
}

impl Boot {
    /// Asks the kernel. Where it does not answer, the start of the agent stands for the start of the box.
    pub(super) fn read(started: Instant) -> Self {
        let id = std::fs::read_to_string(BOOT_ID).unwrap_or_default();
        let uptime = std::fs::read_to_string(UPTIME).unwrap_or_default();
        Self::new(&id, &uptime, started)
    }

    /// Both or neither: the kernel's id with another start to count from would place alerts wrongly.
    fn new(id: &str, uptime: &str, started: Instant) -> Self {
        match (boot_id(id), running_for(uptime)) {
            (Some(id), Some(before)) => Self { id, before, started },
            _ => Self { id: format!("{:08x}", fastrand::u32(..)), before: Duration::ZERO, started },
        }
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// From the start of the box to a moment. A time that the box slept through is missing; boxes do not sleep.
    pub(super) fn since(&self, instant: Instant) -> Duration {
        match instant.checked_duration_since(self.started) {
            Some(after) => self.before.saturating_add(after),
            None => self.before.saturating_sub(self.started.saturating_duration_since(instant)),
        }
    }
}

/// `1be8d3d6-66aa-46a2-9957-dfa2adef7f01`: its first 8 digits tell the starts of a box apart.
fn boot_id(text: &str) -> Option<String> {
    let digits = text.get(..8)?;
    digits.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| digits.to_ascii_lowercase())
}

/// `13587.83 7771.57`: seconds since the start, and what all processors idled.
fn running_for(text: &str) -> Option<Duration> {
    let seconds = text.split_whitespace().next()?.parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "1be8d3d6-66aa-46a2-9957-dfa2adef7f01\n";

    #[test]
    fn a_moment_is_placed_from_the_start_of_the_box() {
        let started = Instant::now() + Duration::from_secs(1_000);
        let boot = Boot::new(ID, "600.25 7771.57\n", started);
        assert_eq!(boot.id(), "1be8d3d6");
        for (moment, since_s) in [
            (started, 600.25),
            (started + Duration::from_millis(1500), 601.75),
            (started - Duration::from_secs(600), 0.25),
            (started - Duration::from_secs(900), 0.0),
        ] {
            assert_eq!(boot.since(moment), Duration::from_secs_f64(since_s));
        }
    }

    #[test]
    fn a_kernel_that_does_not_say_is_replaced_by_the_start_of_the_agent() {
        let started = Instant::now();
        for (id, uptime) in [
            ("", "600.25 7771.57"),
            ("1be8d3d", "600.25 7771.57"),
            ("1be8d3dé-66aa", "600.25 7771.57"),
            ("../../..", "600.25 7771.57"),
            (ID, ""),
            (ID, "long"),
            (ID, "-3 1"),
            (ID, "NaN 1"),
            (ID, "1e300 1"),
        ] {
            let boot = Boot::new(id, uptime, started);
            assert_ne!(boot.id(), "1be8d3d6", "{id:?} {uptime:?}");
            assert_eq!(boot_id(boot.id()).as_deref(), Some(boot.id()));
            assert_eq!(boot.since(started + Duration::from_secs(5)), Duration::from_secs(5));
        }
    }

    #[test]
    fn this_machine_says() {
        assert!(boot_id(&std::fs::read_to_string(BOOT_ID).unwrap()).is_some());
        assert!(running_for(&std::fs::read_to_string(UPTIME).unwrap()).unwrap() > Duration::ZERO);
    }
}
