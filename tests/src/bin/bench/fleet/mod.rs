//! A thousand boxes, one repository behind one web server, one broker: who gets what, who asks when, who reports.
//!
//! # Layout
//!
//! - [`village_box`]: a box from its clock to its uplink, but for cameras and detector;
//! - [`district`]: whoever hears all of them, and can ask them all for something.
//!
//! The boxes share this process; the web server and mosquitto are what they would ask over a network.

mod district;
mod village_box;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value, json};
use sharp_eyes_agent::models::release::{Channel, Release, Rollout};
use sharp_eyes_agent::models::tuf::{Editor, Expiry, KeyFolders};
use sharp_eyes_protocol::alert::ModelName;
use sharp_eyes_tests::broker::{Broker, BrokerOptions};
use sharp_eyes_tests::maintainer::Maintainer;
use sharp_eyes_tests::mirror::{Asking, Mirror};
use sharp_eyes_tests::wait;
use tokio_util::sync::CancellationToken;

use crate::setting;
use district::District;
use village_box::VillageBox;

const EXPIRY: Expiry = Expiry { targets_days: 30, snapshot_days: 30, timestamp_days: 30 };

/// Bytes of the model that they get.
const MODEL_BYTES: usize = 64 << 10;

/// Longest time for all boxes to start and report, and for all to take what they are asked to take.
const PATIENCE: Duration = Duration::from_secs(600);

pub(crate) fn measure() -> Result<Map<String, Value>> {
    let number = usize::try_from(setting("BENCH_BOXES", 1000)?)?;
    let interval = Duration::from_secs(setting("BENCH_INTERVAL", 60)?);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build()?;
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    let office = Office::open(folder)?;
    let mirror = Mirror::start(&office.maintainer.repository)?;
    let broker = Broker::start(folder, &BrokerOptions::default())?;
    let district = District::connect(broker.port())?;
    let template = Template {
        folder: folder.to_owned(),
        broker_port: broker.port(),
        models: office.maintainer.section(&format!(
            "repository = {:?}\ninterval = \"{}s\"",
            mirror.url(),
            interval.as_secs()
        )),
        agent: office.agent.clone(),
    };
    let boxes = (0..number).map(|n| VillageBox::new(n, &template)).collect::<Result<Vec<_>>>()?;
    let mut table = Table::new(&boxes, &mirror, &district);
    println!(
        "\nfleet: {number} boxes, half of them of each channel, that ask every {} s, give or take a quarter",
        interval.as_secs()
    );

    office.rollout(Rollout { stable: 0, canary: 10 })?;
    mirror.take();
    let started = Instant::now();
    let shutdown = CancellationToken::new();
    let running = runtime.block_on(village_box::run_all(boxes.clone(), &shutdown))?;
    let all_report = wait::until("every box to report", PATIENCE, || {
        (district.reporting() == number).then(|| started.elapsed())
    });
    let all_report =
        all_report.with_context(|| format!("{} of {number} boxes report", district.reporting()))?;
    println!(
        "  all {number} had told status, health and model {:.1} s after the start",
        all_report.as_secs_f64()
    );
    // The first check comes within half an interval; what follows from it takes a moment.
    wait::pause((interval.mul_f64(1.5)).saturating_sub(started.elapsed()));
    table.phase("all start at once; canary 10 %", Rollout { stable: 0, canary: 10 })?;

    office.rollout(Rollout { stable: 10, canary: 25 })?;
    wait::pause(interval.mul_f64(1.5));
    table.phase("stable 10 %, canary 25 %", Rollout { stable: 10, canary: 25 })?;

    office.rollout(Rollout { stable: 100, canary: 100 })?;
    table.begin();
    district.ask_all(boxes.iter().map(|one| &one.site))?;
    let everyone = table.expected(Rollout { stable: 100, canary: 100 });
    wait::until("every box to take what it was asked to look for", PATIENCE, || {
        (district.running() == everyone).then_some(())
    })?;
    table.phase("all asked at once; 100 %", Rollout { stable: 100, canary: 100 })?;

    shutdown.cancel();
    runtime.block_on(village_box::end_all(running));
    let mut figures = table.figures;
    figures.insert("fleet_boxes".to_owned(), json!(number));
    figures.insert("fleet_all_report_s".to_owned(), json!(all_report.as_secs_f64()));
    Ok(figures)
}

/// What all boxes have in common.
pub(crate) struct Template {
    folder: PathBuf,
    broker_port: u16,
    /// Section `[models]`.
    models: String,
    /// Tries models for them.
    agent: PathBuf,
}

/// The maintainer, with a model that no detector has to run.
struct Office {
    maintainer: Maintainer,
    agent: PathBuf,
    release: std::cell::RefCell<Release>,
}

impl Office {
    fn open(folder: &Path) -> Result<Self> {
        let maintainer = Maintainer::new(folder)?;
        let model = ModelName::new("village-detector".parse()?, "1.1.0")?;
        // A box of this fleet needs no detector: what tries the model says that it passed.
        let agent = folder.join("agent");
        let says =
            r#"{\"passed\":{\"model\":\"MODEL\",\"sha256\":\"00\",\"pictures\":1,\"latency_ms\":1.0}}"#;
        std::fs::write(
            &agent,
            format!("#!/bin/sh\necho \"{}\"\n", says.replace("MODEL", &model.to_string())),
        )?;
        std::fs::set_permissions(&agent, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        let bundle = bundle(folder)?;
        let mut release = Release::new(model);
        let keys = KeyFolders::new([maintainer.keys.clone()]);
        block_on(async {
            Editor::open(&maintainer.repository).await?.add(&bundle, &mut release, &keys, EXPIRY).await
        })?;
        Ok(Self { maintainer, agent, release: release.into() })
    }

    /// Says who gets it.
    fn rollout(&self, rollout: Rollout) -> Result<()> {
        let mut release = self.release.borrow_mut();
        release.rollout = rollout;
        let keys = KeyFolders::new([self.maintainer.keys.clone()]);
        block_on(async {
            Editor::open(&self.maintainer.repository).await?.change(&release, &keys, EXPIRY).await
        })
    }
}

fn block_on(task: impl Future<Output = Result<(), sharp_eyes_agent::models::tuf::TufError>>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(task)?)
}

/// A bundle whose model is noise.
fn bundle(folder: &Path) -> Result<PathBuf> {
    let model = folder.join("model");
    std::fs::create_dir_all(model.join("golden"))?;
    let mut dice = fastrand::Rng::with_seed(7);
    let noise: Vec<u8> = std::iter::repeat_with(|| dice.u8(..)).take(MODEL_BYTES).collect();
    std::fs::write(model.join("model.onnx"), noise)?;
    std::fs::write(model.join("manifest.toml"), "")?;
    let bundle = folder.join("model.bundle");
    let mut file = std::fs::File::create(&bundle)?;
    sharp_eyes_agent::models::bundle::pack(&model, &mut file)?;
    Ok(bundle)
}

/// What happened, phase by phase.
struct Table<'a> {
    boxes: &'a [Arc<VillageBox>],
    mirror: &'a Mirror,
    district: &'a District,
    since: Instant,
    figures: Map<String, Value>,
}

impl<'a> Table<'a> {
    fn new(boxes: &'a [Arc<VillageBox>], mirror: &'a Mirror, district: &'a District) -> Self {
        Self { boxes, mirror, district, since: Instant::now(), figures: Map::new() }
    }

    /// Forgets what was asked until now.
    fn begin(&mut self) {
        self.mirror.take();
        self.since = Instant::now();
    }

    /// The boxes that a rollout is for.
    fn expected(&self, rollout: Rollout) -> BTreeSet<String> {
        let gets = |one: &&Arc<VillageBox>| {
            one.place
                < match one.channel {
                    Channel::Stable => rollout.stable,
                    Channel::Canary => rollout.canary,
                }
        };
        self.boxes.iter().filter(gets).map(|one| one.site.to_string()).collect()
    }

    /// Prints what a phase came to. Fails unless the boxes that got the model are those that it is for.
    fn phase(&mut self, name: &str, rollout: Rollout) -> Result<()> {
        let (running, expected) = (self.district.running(), self.expected(rollout));
        let seconds = self.since.elapsed().as_secs_f64();
        let asked = self.mirror.take();
        let checks = asked.iter().filter(|asking| asking.path.ends_with("/timestamp.json")).count();
        let busiest = |asked: &mut dyn Iterator<Item = &Asking>| {
            let mut of_second = std::collections::BTreeMap::<u64, usize>::new();
            for asking in asked {
                *of_second.entry(asking.at.saturating_duration_since(self.since).as_secs()).or_default() += 1;
            }
            of_second.into_values().max().unwrap_or_default()
        };
        let (most, most_checks) = (
            busiest(&mut asked.iter()),
            busiest(&mut asked.iter().filter(|asking| asking.path.ends_with("/timestamp.json"))),
        );
        let megabytes = asked.iter().map(|asking| asking.bytes).sum::<u64>() as f64 / 1e6;
        let per_second = asked.len() as f64 / seconds;
        println!("  {name}, {seconds:.0} s");
        let of = |channel| {
            let of_channel: Vec<_> = self.boxes.iter().filter(|one| one.channel == channel).collect();
            let run = of_channel.iter().filter(|one| running.contains(&one.site.to_string())).count();
            format!("{run} of {}", of_channel.len())
        };
        println!("    run it: stable {}, canary {}", of(Channel::Stable), of(Channel::Canary));
        println!(
            "    {checks} checks, {} requests, {megabytes:.1} MB; {per_second:.1} requests a second, {most} in the busiest ({most_checks} checks)",
            asked.len()
        );
        let key = |what: &str| format!("fleet_{what}_stable_{}_canary_{}", rollout.stable, rollout.canary);
        for (what, value) in [
            ("running", json!(running.len())),
            ("checks", json!(checks)),
            ("requests", json!(asked.len())),
            ("requests_a_second", json!(per_second)),
            ("requests_in_the_busiest_second", json!(most)),
            ("seconds", json!(seconds)),
        ] {
            self.figures.insert(key(what), value);
        }
        ensure!(
            running == expected,
            "{name}: {} boxes run it, it is for {}; too many: {:?}; too few: {:?}",
            running.len(),
            expected.len(),
            running.difference(&expected).take(5).collect::<Vec<_>>(),
            expected.difference(&running).take(5).collect::<Vec<_>>()
        );
        self.since = Instant::now();
        Ok(())
    }
}
