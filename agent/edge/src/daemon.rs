//! The whole agent as one function: builds the parts, joins them in the order of the data, and takes them down in
//! the same order.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use sharp_eyes_protocol::report::{CameraState, Models};
use sharp_eyes_protocol::topic::Site;
use tokio::sync::watch;
use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::analysis::{Analysis, Slots, Snapshots, View};
use crate::board::Board;
use crate::camera::{self, Frame, FrameSink, InitError};
use crate::clock::Clock;
use crate::commands::Commands;
use crate::config::{BrokerConfig, CameraConfig, Config};
use crate::health::Examiner;
use crate::metrics::{self, ListenError};
use crate::outbox::{Outbox, OutboxError, OutboxOptions};
use crate::secret::{Secret, SecretError};
use crate::systemd;
use crate::uplink::{self, Delivery, Reports, TlsOptions, UplinkOptions, UplinkStats};

/// How long each part may take to finish what it has begun.
const GRACE: Duration = Duration::from_secs(5);

/// How long a frame from before its camera woke up waits for the one before it to be looked at.
const LATE_PATIENCE: Duration = Duration::from_millis(100);

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
    let cards = config.cameras.iter().map(|camera| (camera.stream.name.clone(), camera.gate));
    let board = Arc::new(Board::new(cards));
    let slots = Arc::new(Slots::new(config.cameras.len()));

    // The far end of the data first, so that every part finds the next one ready.
    let routes = routes(&config)?;
    let outbox_options = OutboxOptions {
        folder: config.state.folder.clone(),
        max_bytes: config.state.max_size,
        max_age: config.state.max_age,
        max_delivered: config.state.keep_delivered,
        routes: routes.iter().map(|(name, _)| name.clone()).collect(),
        pictures_on_request: config.delivery.pictures_on_request,
        escalation: config.escalation.clone(),
    };
    let outbox = {
        let clock = clock.clone();
        let wall: crate::outbox::WallClock = Arc::new(move || clock.now());
        Outbox::start(outbox_options, config.site.clone(), wall)?
    };
    let snapshots = Arc::new(Snapshots::new(board.clone()));
    let commands = Arc::new(Commands::new(config.site.clone(), outbox.clone(), snapshots.clone()));
    let stats: Vec<_> =
        routes.iter().map(|(_, brokers)| watch::channel(UplinkStats::new(brokers[0].name.clone()))).collect();
    let (models, models_seen) = watch::channel(Models { active: None, last_refusal: None });
    let examiner = Arc::new(Examiner {
        board: board.clone(),
        clock: clock.clone(),
        outbox: outbox.clone(),
        uplinks: stats.iter().map(|(_, seen)| seen.clone()).collect(),
        commands: commands.clone(),
    });
    let (health, health_seen) = watch::channel(examiner.health());
    if let Some(listen) = config.metrics {
        tokio::spawn(metrics::serve(listen, examiner.clone()).await?);
    }
    let uplink_stop = CancellationToken::new();
    let mut uplinks = JoinSet::new();
    for (route, ((_, brokers), (stats, _))) in routes.into_iter().zip(stats).enumerate() {
        let delivery = Delivery {
            route,
            evidence_rate: config.delivery.evidence_rate,
            evidence_expiry: config.delivery.evidence_expiry,
        };
        let reports = Reports { health: health_seen.clone(), models: models_seen.clone() };
        uplinks.spawn(uplink::run(
            brokers,
            delivery,
            commands.clone(),
            clock.clone(),
            config.site.clone(),
            outbox.clone(),
            reports,
            stats,
            uplink_stop.clone(),
        ));
    }
    let reporter = tokio::spawn(async move { examiner.report(&health).await });
    let analysis = start_analysis(&config, &slots, &board, &clock, &outbox, models, snapshots)?;
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
    finish("the uplinks", tokio::spawn(async move { uplinks.join_all().await })).await;
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

/// The ways out, by name: one for each broker where all get everything, else one over all of them.
fn routes(config: &Config) -> Result<Vec<(String, Vec<UplinkOptions>)>, SecretError> {
    let brokers: Vec<UplinkOptions> =
        config.brokers.iter().map(|broker| uplink_options(&config.site, broker)).collect::<Result<_, _>>()?;
    Ok(match config.delivery.all_brokers {
        true => brokers.into_iter().map(|broker| (broker.name.to_string(), vec![broker])).collect(),
        false => vec![("*".to_owned(), brokers)],
    })
}

fn uplink_options(site: &Site, broker: &BrokerConfig) -> Result<UplinkOptions, SecretError> {
    let BrokerConfig { name, host, port, user, password_file, keep_alive, tls } = broker.clone();
    let credentials = match (user, password_file) {
        (Some(user), Some(file)) => Some((user, Secret::read(&file)?)),
        (Some(user), None) => Some((user, Secret::new(""))),
        (None, _) => None,
    };
    Ok(UplinkOptions {
        name,
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
    snapshots: Arc<Snapshots>,
) -> Result<std::thread::JoinHandle<()>, RunError> {
    let view =
        |camera: &CameraConfig| View { masks: camera.stream.masks.clone(), rules: camera.rules.clone() };
    let analysis = Analysis {
        detector: config.detector.clone(),
        views: config.cameras.iter().map(view).collect(),
        time_zone: config.time_zone.clone(),
        slots: slots.clone(),
        board: board.clone(),
        clock: clock.clone(),
        outbox: outbox.clone(),
        models,
        snapshots,
        // What the link carries in four seconds; the encoder keeps it within its own limits.
        picture_bytes: usize::try_from(config.delivery.evidence_rate.saturating_mul(4)).unwrap_or(usize::MAX),
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
        card.failed(CameraState::Failed, "internal error; see the log");
        index_of.insert(tasks.spawn(run_one(index, GRACE)).id(), index);
    }
}
