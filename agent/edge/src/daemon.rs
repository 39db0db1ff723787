//! The whole agent as one function: builds the parts, joins them in the order of the data, and takes them down in
//! the same order.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use sharp_eyes_protocol::report::CameraState;
use tokio::sync::Notify;
use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::analysis::{Analysis, Darkroom, Slots};
use crate::board::Board;
use crate::camera::{self, Frame, FrameSink, InitError};
use crate::clock::Clock;
use crate::config::{CameraConfig, Config, View};
use crate::dispatch::{Dispatch, DispatchError, GRACE, finish};
use crate::models::ModelsOptions;
use crate::models::desk::Desk;
use crate::models::updater::{Hangs, Updater};
use crate::remote::Remote;
use crate::remote::keeper::Reconfigured;
use crate::systemd;
use crate::watch::Watch;

/// How long a frame from before its camera woke up waits for the one before it to be looked at.
const LATE_PATIENCE: Duration = Duration::from_millis(100);

/// The agent cannot start.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // each says what it is
pub enum RunError {
    #[error(transparent)]
    GStreamer(#[from] InitError),
    #[error(transparent)]
    Dispatch(#[from] DispatchError),
    #[error("cannot start a thread of the analysis: {0}")]
    Thread(std::io::Error),
    #[error(transparent)]
    Hangs(#[from] Hangs),
}

/// Why it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was asked to.
    AsAsked,
    /// Another configuration is in force, or its own file is to be read again: it has to be started anew.
    Reconfigured,
}

/// Runs with the configuration of a file until `shutdown`, until that is to be read again, or until another configuration is
/// in force. Whatever fails after the start is reported in health and tried again.
pub async fn run(
    own: Config,
    own_file: &Path,
    reload: &Notify,
    shutdown: CancellationToken,
) -> Result<Ended, RunError> {
    camera::init()?;
    let mut remote = Remote::start(&own);
    let config = remote.as_ref().map_or(own, |remote| remote.in_force.clone());
    let clock = Arc::new(Clock::start(&config.state.folder));
    let card = |camera: &CameraConfig| (camera.stream.name.clone(), camera.gate, camera.tamper());
    let cards = config.cameras.iter().map(card);
    let board = Arc::new(Board::new(cards));
    let slots = Arc::new(Slots::new(config.cameras.iter().map(|camera| camera.stream.analysed_fps)));

    // The far end of the data first, so that every part finds the next one ready.
    let dispatch = Dispatch::start(&config, &clock, &board).await?;
    let models = ModelsOptions::new(&config);
    let folder = models.as_ref().map(|models| models.folder.clone());
    let desk = Arc::new(Desk::new(config.detector.model.clone(), folder, dispatch.models.clone()));
    desk.start();
    if let Some(remote) = &mut remote {
        remote.uplinks.clone_from(&dispatch.examiner.uplinks);
    }
    let remote = remote.map(Arc::new);
    let updater = models.map(|options| {
        let (desk, board, clock) = (desk.clone(), board.clone(), clock.clone());
        let (hasten, remote) = (dispatch.updates.clone().unwrap_or_default(), remote.clone());
        tokio::spawn(Updater { options, desk, board, clock, hasten, remote }.run(shutdown.clone()))
    });
    let keeper = remote
        .clone()
        .map(|remote| tokio::spawn(remote.keep(own_file.to_owned(), board.clone(), shutdown.clone())));
    let (analysis, darkroom) = start_analysis(&config, &slots, &board, &clock, &dispatch, &desk)?;
    let rules = config.cameras.iter().map(|camera| camera.own_rules.clone());
    let watch = Watch {
        rules: rules
            .enumerate()
            .flat_map(|(at, rules)| rules.into_iter().map(move |rule| (at, rule)))
            .collect(),
        views: config.cameras.iter().map(View::of).collect(),
        board: board.clone(),
        clock: clock.clone(),
        time_zone: config.time_zone.clone(),
        outbox: dispatch.outbox.clone(),
        snapshots: dispatch.snapshots.clone(),
    };
    let watch = tokio::spawn(watch.run(shutdown.clone()));
    let cameras = tokio::spawn(run_cameras(config.cameras, slots.clone(), board.clone(), shutdown.clone()));
    systemd::ready();
    let watchdog = tokio::spawn(systemd::watchdog(board.clone()));
    let timekeeper = tokio::spawn(clock.clone().keep(shutdown.clone()));
    tracing::info!(site = %config.site, cameras = board.cameras.len(), "running");

    // Whatever else may end the two, only a model that hangs and another configuration end the agent by themselves.
    let (hangs, reconfigured) = (only(updater, Result::err), only(keeper, |ended| ended));
    let ended = tokio::select! {
        () = shutdown.cancelled() => Ended::AsAsked,
        Reconfigured = reconfigured => Ended::Reconfigured,
        () = can_reload(own_file, reload) => Ended::Reconfigured,
        hangs = hangs => {
            // The analysis hangs, and nothing else: what waits in memory gets to the disk.
            dispatch.outbox.close(GRACE).await;
            return Err(hangs.into());
        }
    };
    match ended {
        Ended::AsAsked => systemd::stopping(),
        Ended::Reconfigured => systemd::reloading(),
    }
    shutdown.cancel();
    desk.window.close();
    tracing::info!("stopping: cameras, analysis, broker, outbox");
    finish("the cameras", cameras).await;
    slots.close();
    finish("the analysis", tokio::task::spawn_blocking(move || analysis.join())).await;
    finish("the darkroom", tokio::task::spawn_blocking(move || darkroom.join())).await;
    finish("the watch on cameras", watch).await;
    finish("the clock", timekeeper).await;
    desk.stop();
    if let Some(remote) = &remote {
        remote.stop(); // one that is in force from now on only has not been started yet, and nothing changes for it
    }
    dispatch.stop().await;
    watchdog.abort();
    tracing::info!("stopped");
    Ok(ended)
}

/// Waits until somebody asks for a file to be read again that can be. One that cannot would end the agent for good.
async fn can_reload(own_file: &Path, reload: &Notify) {
    loop {
        reload.notified().await;
        match Config::load(own_file) {
            Ok(_) => {
                tracing::info!("starting anew with {}, as asked", own_file.display());
                return;
            }
            Err(error) => tracing::error!("not reloaded, the agent goes on as it was: {error}"),
        }
    }
}

/// What a task ends with, if that counts; for ever otherwise.
async fn only<T, U>(task: Option<tokio::task::JoinHandle<T>>, counts: impl FnOnce(T) -> Option<U>) -> U {
    if let Some(task) = task
        && let Ok(ended) = task.await
        && let Some(ended) = counts(ended)
    {
        return ended;
    }
    std::future::pending().await
}

/// Starts the threads that look at frames, and that make pictures of them.
fn start_analysis(
    config: &Config,
    slots: &Arc<Slots<Frame>>,
    board: &Arc<Board>,
    clock: &Arc<Clock>,
    dispatch: &Dispatch,
    desk: &Arc<Desk>,
) -> Result<(JoinHandle<()>, JoinHandle<()>), RunError> {
    // What the link carries in four seconds; the encoder keeps it within its own limits.
    let picture_bytes =
        usize::try_from(config.delivery.evidence_rate.saturating_mul(4)).unwrap_or(usize::MAX);
    let (darkroom, making) =
        Darkroom::open(dispatch.outbox.clone(), picture_bytes).map_err(RunError::Thread)?;
    let analysis = Analysis {
        detector: config.detector.clone(),
        views: config.cameras.iter().map(View::of).collect(),
        time_zone: config.time_zone.clone(),
        slots: slots.clone(),
        board: board.clone(),
        clock: clock.clone(),
        outbox: dispatch.outbox.clone(),
        desk: desk.clone(),
        snapshots: dispatch.snapshots.clone(),
        darkroom,
    };
    let looking = std::thread::Builder::new().name("analysis".into()).spawn(move || analysis.run());
    Ok((looking.map_err(RunError::Thread)?, making))
}

/// Keeps a task per camera. One that panics is started again, after a rest, and the others never notice.
async fn run_cameras(
    cameras: Vec<CameraConfig>,
    slots: Arc<Slots<Frame>>,
    board: Arc<Board>,
    shutdown: CancellationToken,
) {
    let run_one = |index: usize, rest: Duration| {
        let card = board.cameras[index].clone();
        let sink: FrameSink = {
            let (slots, card) = (slots.clone(), card.clone());
            Arc::new(move |frame| {
                let replaced = match frame.is_late() {
                    true => slots.offer_in_turn(index, frame, LATE_PATIENCE),
                    false => slots.offer(index, frame),
                };
                if replaced {
                    card.dropped.increment();
                }
            })
        };
        let stream = cameras[index].stream.clone();
        let shutdown = shutdown.clone();
        async move {
            tokio::select! {
                () = tokio::time::sleep(rest) => camera::run(stream, sink, card, shutdown).await,
                () = shutdown.cancelled() => {}
            }
        }
    };
    let mut tasks = JoinSet::new();
    let mut index_of: HashMap<Id, usize> =
        (0..cameras.len()).map(|index| (tasks.spawn(run_one(index, Duration::ZERO)).id(), index)).collect();
    while let Some(ended) = tasks.join_next_with_id().await {
        let Err(error) = ended else { continue };
        let Some(index) = index_of.remove(&error.id()) else { continue };
        let card = &board.cameras[index];
        tracing::error!(camera = %card.name, "the camera's task failed and starts anew: {error}");
        card.failed(CameraState::Failed, "internal error; see the log", Instant::now());
        index_of.insert(tasks.spawn(run_one(index, GRACE)).id(), index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_a_file_that_can_be_read_is_reloaded() {
        let place = tempfile::tempdir().unwrap();
        let (file, reload) = (place.path().join("agent.toml"), Notify::new());
        let asked = async || {
            reload.notify_one();
            tokio::time::timeout(Duration::from_millis(100), can_reload(&file, &reload)).await.is_ok()
        };
        assert!(!asked().await, "there is none");
        std::fs::write(&file, "[site]").unwrap();
        assert!(!asked().await, "it says nothing of cameras");
        std::fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/../../config/agent.toml"), &file).unwrap();
        assert!(asked().await);
        let nobody = tokio::time::timeout(Duration::from_millis(100), can_reload(&file, &reload));
        assert!(nobody.await.is_err(), "nobody asks any more");
    }
}
