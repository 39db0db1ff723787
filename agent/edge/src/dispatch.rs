//! What happens to an alert once it is decided, whoever decides: outbox, uplinks, commands, and the report of them.
//!
//! Apart from [`crate::daemon`], so that the tests of faults run all of it without cameras.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use sharp_eyes_protocol::report::Models;
use sharp_eyes_protocol::topic::Site;
use tokio::sync::{Notify, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::board::Board;
use crate::clock::Clock;
use crate::commands::Commands;
use crate::config::{BrokerConfig, Config};
use crate::health::Examiner;
use crate::metrics::{self, ListenError};
use crate::outbox::{Outbox, OutboxError, OutboxOptions, WallClock};
use crate::secret::{Secret, SecretError};
use crate::snapshots::Snapshots;
use crate::uplink::{self, Delivery, Reports, TlsOptions, UplinkOptions, UplinkStats};

/// How long each part may take to finish what it has begun.
pub(crate) const GRACE: Duration = Duration::from_secs(5);

/// Messages in flight to the broker.
const WINDOW: usize = 16;

/// What cannot be started, and waiting would not help.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // each says what it is
pub enum DispatchError {
    #[error(transparent)]
    Outbox(#[from] OutboxError),
    #[error("the broker's login: {0}")]
    Login(#[from] SecretError),
    #[error(transparent)]
    Metrics(#[from] ListenError),
}

/// Running. Dropped without [`Dispatch::stop`], it says no goodbye to the broker.
#[derive(Debug)]
pub struct Dispatch {
    /// Takes what is decided.
    pub outbox: Outbox,
    /// Takes the pictures that consoles ask for.
    pub snapshots: Arc<Snapshots>,
    /// Takes what is to be said of the model.
    pub models: watch::Sender<Models>,
    /// Says that a console wants the repository of models to be asked now; nobody does where there is none.
    pub updates: Option<Arc<Notify>>,
    /// Knows how everything is.
    pub examiner: Arc<Examiner>,
    reporter: JoinHandle<()>,
    uplinks: JoinSet<()>,
    stop: CancellationToken,
}

impl Dispatch {
    /// Opens the outbox and connects to the brokers. Whatever fails after that is reported in health and tried again.
    pub async fn start(
        config: &Config,
        clock: &Arc<Clock>,
        board: &Arc<Board>,
    ) -> Result<Self, DispatchError> {
        let routes = routes(config)?;
        let options = OutboxOptions {
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
            let wall: WallClock = Arc::new(move || clock.now());
            Outbox::start(options, config.site.clone(), wall)?
        };
        let snapshots = Arc::new(Snapshots::new(board.clone()));
        let repository = config.models.as_ref().and_then(|models| models.repository.as_ref());
        let updates = repository.map(|_| Arc::new(Notify::new()));
        let commands = Commands::new(config.site.clone(), outbox.clone(), snapshots.clone(), updates.clone());
        let commands = Arc::new(commands);
        let stats: Vec<_> = routes
            .iter()
            .map(|(_, brokers)| watch::channel(UplinkStats::new(brokers[0].name.clone())))
            .collect();
        let (models, models_seen) = watch::channel(Models::default());
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
        let stop = CancellationToken::new();
        let mut uplinks = JoinSet::new();
        for (route, ((_, brokers), (stats, _))) in routes.into_iter().zip(stats).enumerate() {
            let delivery = Delivery {
                route,
                evidence_rate: config.delivery.evidence_rate,
                evidence_expiry: config.delivery.evidence_expiry,
            };
            let reports = Reports { health: health_seen.clone(), models: models_seen.clone() };
            let (commands, clock, site) = (commands.clone(), clock.clone(), config.site.clone());
            let (outbox, stop) = (outbox.clone(), stop.clone());
            uplinks.spawn(again(move || {
                uplink::run(
                    brokers.clone(),
                    delivery.clone(),
                    commands.clone(),
                    clock.clone(),
                    site.clone(),
                    outbox.clone(),
                    reports.clone(),
                    stats.clone(),
                    stop.clone(),
                )
            }));
        }
        let reporter = {
            let examiner = examiner.clone();
            tokio::spawn(async move { examiner.report(&health).await })
        };
        Ok(Self { outbox, snapshots, models, updates, examiner, reporter, uplinks, stop })
    }

    /// Ends it in the order of the data: what waits goes out for a moment, the goodbye is said, the outbox is closed.
    pub async fn stop(self) {
        self.reporter.abort();
        self.stop.cancel();
        let uplinks = self.uplinks;
        finish("the uplinks", tokio::spawn(async move { uplinks.join_all().await })).await;
        let lost = self.outbox.close(GRACE).await;
        if lost > 0 {
            tracing::error!(lost, "alerts that the disk never took are lost");
        }
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

/// Starts a part anew where it panics: without its uplink a box says nothing any more.
async fn again<F: Future<Output = ()>>(part: impl Fn() -> F) {
    while AssertUnwindSafe(part()).catch_unwind().await.is_err() {
        tracing::error!("an uplink failed: it is started anew");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Waits for a part, but not for ever.
pub(crate) async fn finish<T>(part: &str, task: tokio::task::JoinHandle<T>) {
    match tokio::time::timeout(GRACE, task).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::error!("{part} failed: {error}"),
        Err(_) => tracing::warn!("{part} did not stop within {GRACE:?}: left behind"),
    }
}
