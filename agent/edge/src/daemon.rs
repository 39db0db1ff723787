//! The whole agent as one function: builds the parts, joins them in the order of the data, and takes them down in
//! the same order.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use sharp_eyes_protocol::report::{CameraState, Models};
use tokio::sync::watch;
use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::analysis::{Analysis, Slots, View};
use crate::board::Board;
use crate::camera::{self, Frame, FrameSink, InitError};
use crate::clock::Clock;
use crate::config::{BrokerConfig, CameraConfig, Config};
use crate::health::Examiner;
use crate::metrics::{self, ListenError};
use crate::outbox::{Outbox, OutboxError, OutboxOptions};
use crate::secret::{Secret, SecretError};
use crate::systemd;
use crate::uplink::{self, Reports, TlsOptions, UplinkOptions, UplinkStats};

/// How long each part may take to finish what it has begun.
const GRACE: Duration = Duration::from_secs(5);

/// Messages in flight to the broker.
const WINDOW: usize = 16;

/// The agent cannot start.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // each says what it is
pub enum RunError {
    #[error(transparent)]
    GStreamer(#[from] InitError),
    #[error(transparent)]
    Outbox(#[from] OutboxError),
    #[error("the broker's login: {0}")]
    Login(#[from] SecretError),
    #[error(transparent)]
    Metrics(#[from] ListenError),
    #[error("cannot start the analysis thread: {0}")]
    Thread(std::io::Error),
}

/// Runs until `shutdown`. Whatever fails after the start is reported in health and tried again.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), RunError> {
    camera::init()?;
    let clock = Arc::new(Clock::start(&config.state.folder));
    let board = Arc::new(Board::new(config.cameras.iter().map(|camera| camera.stream.name.clone())));
    let slots = Arc::new(Slots::new(config.cameras.len()));

    // The far end of the data first, so that every part finds the next one ready.
    let uplink_options = uplink_options(&config)?;
    let outbox_options = OutboxOptions {
        folder: config.state.folder.clone(),
        max_bytes: config.state.max_size,
        max_age: config.state.max_age,
        max_delivered: 10_000,
        routes: vec!["*".to_owned()],
        pictures_on_request: false,
        escalation: crate::escalation::Escalation::default(),
    };
    let outbox = {
        let clock = clock.clone();
        let wall: crate::outbox::WallClock = Arc::new(move || clock.now());
        Outbox::start(outbox_options, config.site.clone(), wall)?
    };
    let (stats, stats_seen) =
        watch::channel(UplinkStats::new(sharp_eyes_protocol::topic::Name::new("broker").expect("a name")));
    let (models, models_seen) = watch::channel(Models { active: None, last_refusal: None });
    let examiner = Arc::new(Examiner {
        board: board.clone(),
        clock: clock.clone(),
        outbox: outbox.clone(),
        uplink: stats_seen,
    });
    let (health, health_seen) = watch::channel(examiner.health());
    if let Some(listen) = config.metrics {
        tokio::spawn(metrics::serve(listen, examiner.clone()).await?);
    }
    let reports = Reports { health: health_seen, models: models_seen };
    let uplink_stop = CancellationToken::new();
    let uplink = tokio::spawn(uplink::run(
        uplink_options,
        clock.clone(),
        config.site.clone(),
        outbox.clone(),
        reports,
        stats,
        uplink_stop.clone(),
    ));
    let reporter = tokio::spawn(async move { examiner.report(&health).await });
    let analysis = start_analysis(&config, &slots, &board, &clock, &outbox, models)?;
    let cameras = tokio::spawn(run_cameras(config.cameras, slots.clone(), board.clone(), shutdown.clone()));
    systemd::ready();
    let watchdog = tokio::spawn(systemd::watchdog(board.clone()));
    let timekeeper = tokio::spawn(clock.clone().keep(shutdown.clone()));
    tracing::info!(site = %config.site, cameras = board.cameras.len(), "running");

    shutdown.cancelled().await;
    systemd::stopping();
    tracing::info!("stopping: cameras, analysis, broker, outbox");
    finish("the cameras", cameras).await;
    slots.close();
    finish("the analysis", tokio::task::spawn_blocking(move || analysis.join())).await;
    reporter.abort();
    finish("the clock", timekeeper).await;
    uplink_stop.cancel();
    finish("the uplink", uplink).await;
    let lost = outbox.close(GRACE).await;
    if lost > 0 {
        tracing::error!(lost, "alerts that the disk never took are lost");
    }
    watchdog.abort();
    tracing::info!("stopped");
    Ok(())
}

/// Waits for a part, but not for ever.
async fn finish<T>(part: &str, task: tokio::task::JoinHandle<T>) {
    match tokio::time::timeout(GRACE, task).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::error!("{part} failed: {error}"),
        Err(_) => tracing::warn!("{part} did not stop within {GRACE:?}: left behind"),
    }
}

fn uplink_options(config: &Config) -> Result<UplinkOptions, SecretError> {
    let BrokerConfig { host, port, user, password_file, keep_alive, tls } = config.broker.clone();
    let credentials = match (user, password_file) {
        (Some(user), Some(file)) => Some((user, Secret::read(&file)?)),
        (Some(user), None) => Some((user, Secret::new(""))),
        (None, _) => None,
    };
    let site = &config.site;
    Ok(UplinkOptions {
        route: 0,
        host,
        port,
        tls: tls.map(|tls| TlsOptions { ca: tls.ca, client: tls.client }),
        credentials,
        // Unique below one broker, as the tree is.
        client_id: format!("{}.{}.{}.{}", site.district, site.township, site.village, site.box_name),
        keep_alive,
        window: WINDOW,
    })
}

fn start_analysis(
    config: &Config,
    slots: &Arc<Slots<Frame>>,
    board: &Arc<Board>,
    clock: &Arc<Clock>,
    outbox: &Outbox,
    models: watch::Sender<Models>,
) -> Result<std::thread::JoinHandle<()>, RunError> {
    let view = |camera: &CameraConfig| View { masks: camera.masks.clone(), rules: camera.rules.clone() };
    let analysis = Analysis {
        detector: config.detector.clone(),
        views: config.cameras.iter().map(view).collect(),
        time_zone: config.time_zone.clone(),
        slots: slots.clone(),
        board: board.clone(),
        clock: clock.clone(),
        outbox: outbox.clone(),
        models,
    };
    std::thread::Builder::new()
        .name("analysis".into())
        .spawn(move || analysis.run())
        .map_err(RunError::Thread)
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
                if slots.offer(index, frame) {
                    card.dropped.increment();
                }
            })
        };
        let CameraConfig { stream, analysed_fps, .. } = cameras[index].clone();
        let shutdown = shutdown.clone();
        async move {
            tokio::select! {
                () = tokio::time::sleep(rest) => camera::run(stream, analysed_fps, sink, card, shutdown).await,
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
        card.failed(CameraState::Failed, "internal error; see the log");
        index_of.insert(tasks.spawn(run_one(index, GRACE)).id(), index);
    }
}
