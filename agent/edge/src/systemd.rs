//! What systemd wants to hear. Without systemd, nothing happens here.

use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;

use crate::board::Board;

/// An inference, or the loading of a model, that takes longer than this hangs. Only a restart helps then: not even its
/// interruption did ([`crate::models`]).
const HANGS_AFTER: Duration = Duration::from_secs(60);

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

/// Feeds systemd's watchdog for as long as the analysis thread lives. If it hangs, systemd restarts the agent.
pub async fn watchdog(board: Arc<Board>) {
    let Some(limit) = sd_notify::watchdog_enabled() else { return };
    loop {
        let silence = board.detector.silence();
        if silence < HANGS_AFTER {
            tell(NotifyState::Watchdog);
        } else {
            tracing::error!(
                "the analysis has hung for {silence:?}: waiting for systemd to restart the agent"
            );
        }
        tokio::time::sleep(limit / 3).await;
    }
}
