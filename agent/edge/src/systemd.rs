//! What systemd wants to hear. Without systemd, nothing happens here.

use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;

use crate::board::Board;
use crate::camera;

/// An inference, or the loading of a model, that takes longer than this hangs. Only a restart helps then: not even its
/// interruption did ([`crate::models`]).
const HANGS_AFTER: Duration = Duration::from_secs(60);

/// When so many decoders and connections of cameras hang for good, their memory is worth a restart.
const HUNG_MAX: usize = 16;

fn tell(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::debug!("cannot tell systemd: {error}");
    }
}

/// The parts are up. Cameras may still be connecting: a box with all cameras broken is ready to say so.
pub fn ready() {
    tell(NotifyState::Ready);
}

/// Shutdown has begun.
pub fn stopping() {
    tell(NotifyState::Stopping);
}

/// The agent starts anew, as the same process, and says when it is ready again.
pub fn reloading() {
    tell(NotifyState::Reloading);
}

/// Feeds systemd's watchdog for as long as the analysis thread lives and few cameras have left something behind that hangs.
/// Otherwise systemd restarts the agent.
pub async fn watchdog(board: Arc<Board>) {
    let Some(limit) = sd_notify::watchdog_enabled() else { return };
    loop {
        match reason_to_restart(board.detector.silence(), camera::left_behind()) {
            None => tell(NotifyState::Watchdog),
            Some(reason) => tracing::error!("{reason}: waiting for systemd to restart the agent"),
        }
        tokio::time::sleep(limit / 3).await;
    }
}

fn reason_to_restart(silence: Duration, hung: usize) -> Option<String> {
    if silence >= HANGS_AFTER {
        return Some(format!("the analysis has hung for {silence:?}"));
    }
    (hung >= HUNG_MAX).then(|| format!("{hung} decoders and connections of cameras hang for good"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_a_restart_helps_against_is_named() {
        let reason = |seconds, hung| reason_to_restart(Duration::from_secs(seconds), hung);
        assert_eq!(reason(59, 15), None);
        assert_eq!(reason(61, 0).unwrap(), "the analysis has hung for 61s");
        assert_eq!(reason(0, 16).unwrap(), "16 decoders and connections of cameras hang for good");
    }

    #[test]
    fn the_unit_says_what_the_agent_relies_on() {
        let unit = include_str!("../../../config/systemd/sharp-eyes-agent.service");
        for line in [
            "ExecReload=/bin/kill -HUP $MAINPID",
            "RestartPreventExitStatus=64", // of main.rs
            "OOMPolicy=continue",          // a model that is tried is what dies
            "CacheDirectory=sharp-eyes",
            "Environment=XDG_CACHE_HOME=/var/cache/sharp-eyes", // of GStreamer's registry
            "DeviceAllow=char-drm rw",
            "DeviceAllow=char-dma_heap rw",
            "DeviceAllow=char-mpp_service rw",
            "DeviceAllow=char-nvidia* rw",
            "DeviceAllow=/dev/nvmap rw",
            "DeviceAllow=/dev/rga rw",
            "DeviceAllow=/dev/galcore rw",
            "DeviceAllow=char-fastrpc rw",
        ] {
            assert!(unit.lines().any(|found| found == line), "{line}");
        }
        let seconds = |key: &str| {
            let value = unit.lines().find_map(|line| line.strip_prefix(key));
            Duration::from_secs(value.unwrap().trim_end_matches('s').parse().unwrap())
        };
        assert!(seconds("WatchdogSec=") > HANGS_AFTER, "it restarts an agent that could still help itself");
    }
}
