//! One box of a thousand: the agent's own clock, outbox, uplink and updater, as its daemon joins them, without cameras and
//! without a detector.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use sharp_eyes_agent::board::Board;
use sharp_eyes_agent::clock::Clock;
use sharp_eyes_agent::config::Config;
use sharp_eyes_agent::dispatch::Dispatch;
use sharp_eyes_agent::models::ModelsOptions;
use sharp_eyes_agent::models::desk::Desk;
use sharp_eyes_agent::models::release::{Channel, place_of};
use sharp_eyes_agent::models::updater::Updater;
use sharp_eyes_protocol::topic::Site;
use sharp_eyes_tests::village::{Village, VillageCamera};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Template;

/// A box that is not started yet.
#[derive(Debug)]
pub(super) struct VillageBox {
    pub(super) site: Site,
    pub(super) channel: Channel,
    pub(super) place: u8,
    config: Config,
    agent: PathBuf,
}

impl VillageBox {
    /// The n-th: two in a village, one of each channel.
    pub(super) fn new(n: usize, template: &Template) -> Result<Arc<Self>> {
        let mut village = Village::new(&template.folder, template.broker_port)?
            .with(VillageCamera::new("gate", "rtsp://127.0.0.1:9/none"));
        village.state = template.folder.join(format!("box-{n}"));
        let channel = if n.is_multiple_of(2) { Channel::Stable } else { Channel::Canary };
        let name = if channel == Channel::Stable { "stable" } else { "canary" };
        village.tables = format!("{}channel = {name:?}\n", template.models);
        let text = village
            .toml()
            .replace("\"wang-cun\"", &format!("\"village-{}\"", n / 2))
            .replace("\"box-1\"", &format!("\"box-{}\"", n % 2 + 1));
        let mut config = Config::parse(&text).map_err(|problems| anyhow::anyhow!("{problems:?}"))?;
        config.metrics = None;
        let (site, place) = (config.site.clone(), place_of(&config.site));
        Ok(Arc::new(Self { site, channel, place, config, agent: template.agent.clone() }))
    }

    async fn start(&self, shutdown: CancellationToken) -> Result<(Dispatch, Updater)> {
        let config = &self.config;
        let clock = Arc::new(Clock::start(&config.state.folder));
        tokio::spawn(clock.clone().keep(shutdown));
        let cameras = config.cameras.iter().map(|camera| (camera.stream.name.clone(), camera.gate, None));
        let board = Arc::new(Board::new(cameras));
        let dispatch = Dispatch::start(config, &clock, &board).await?;
        let mut options = ModelsOptions::new(config).context("no section [models]")?;
        options.agent.clone_from(&self.agent);
        let model = config.detector.model.clone();
        let desk = Arc::new(Desk::new(model, Some(options.folder.clone()), dispatch.models.clone()));
        desk.start();
        let hasten = dispatch.updates.clone().context("nobody to hasten")?;
        Ok((dispatch, Updater { options, desk, board, clock, hasten, remote: None }))
    }
}

/// Starts all at once, and keeps them until `shutdown`.
pub(super) async fn run_all(
    boxes: Vec<Arc<VillageBox>>,
    shutdown: &CancellationToken,
) -> Result<JoinSet<()>> {
    let mut starting = JoinSet::new();
    for one in boxes {
        let shutdown = shutdown.clone();
        starting.spawn(async move { one.start(shutdown).await });
    }
    let mut running = JoinSet::new();
    while let Some(started) = starting.join_next().await {
        let (dispatch, updater) = started.context("a box failed to start")??;
        let shutdown = shutdown.clone();
        running.spawn(async move {
            let _ = updater.run(shutdown).await; // no model hangs: none looks
            dispatch.stop().await;
        });
    }
    Ok(running)
}

/// Waits for their end.
pub(super) async fn end_all(mut running: JoinSet<()>) {
    while running.join_next().await.is_some() {}
}
