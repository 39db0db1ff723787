//! Models that come from outside: signed, fetched, tried, switched to, watched and taken back, with the old one looking all
//! the while.

mod bad;
mod hostile;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use sharp_eyes_agent::models::release::{Release, Rollout};
use sharp_eyes_agent::models::tuf::{Editor, Expiry, KeyFolders};
use sharp_eyes_protocol::alert::ModelName;
use sharp_eyes_protocol::command::{Answer, Done, Refusal, Request};
use sharp_eyes_protocol::report::{Health, ModelStage, Models};
use sharp_eyes_tests::agent::Agent;
use sharp_eyes_tests::bad_model::Mood;
use sharp_eyes_tests::broker::{Broker, BrokerOptions};
use sharp_eyes_tests::console::Console;
use sharp_eyes_tests::disk::tree::Tree;
use sharp_eyes_tests::maintainer::{self, Maintainer};
use sharp_eyes_tests::mirror::{Asking, Mirror};
use sharp_eyes_tests::village::{Village, VillageCamera};
use sharp_eyes_tests::wait;

use crate::stage::{await_analysis, goes_on, play, says, street, township, village};

const BOX: &str = "sharp-eyes/1/lan-xi/yun-shan/wang-cun/box-1";

const EXPIRY: Expiry = Expiry { targets_days: 30, snapshot_days: 30, timestamp_days: 30 };

/// A box of a village, with a camera, whose models come from a maintainer's repository.
fn watched(
    folder: &Path,
    broker: &Broker,
    url: &str,
    maintainer: &Maintainer,
    lines: &str,
) -> Result<Village> {
    let mut village = village(folder, broker)?.with(VillageCamera::guarded("gate", url));
    let repository = format!("repository = {:?}\n{lines}", maintainer.repository.display().to_string());
    village.tables = maintainer.section(&repository);
    Ok(village)
}

/// As if the model had been watched: a box without an agent never does that.
fn set_kept(village: &Village) -> Result<()> {
    let file = village.state.join("models/state.json");
    let mut state: serde_json::Value = serde_json::from_slice(&fs::read(&file)?)?;
    state["trial"] = serde_json::Value::Null;
    Ok(fs::write(file, serde_json::to_vec(&state)?)?)
}

/// A box without an agent that runs, for `model import`.
fn quiet(folder: &Path, maintainer: &Maintainer) -> Result<Village> {
    fs::create_dir_all(folder)?;
    let mut village = Village::new(folder, 1)?.with(VillageCamera::new("gate", "rtsp://127.0.0.1:1/gate"));
    village.tables = maintainer.section("budget = \"10s\"");
    Ok(village)
}

fn told<T>(console: &Console, what: &str, ask: impl Fn(&Models) -> Option<T>) -> Result<T> {
    console
        .wait_for(what, wait::PATIENCE, |seen| seen.models.as_ref().and_then(&ask))
        .with_context(|| format!("last told: {:?}", console.seen(|seen| seen.models.clone())))
}

fn active(console: &Console, version: &str) -> Result<()> {
    told(console, &format!("version {version} to look"), |models| {
        (models.active.as_ref()?.model.version == version).then_some(())
    })
}

fn stage(console: &Console, version: &str, stage: ModelStage) -> Result<String> {
    told(console, &format!("version {version} to be {stage:?}"), |models| {
        let update = models.update.as_ref()?;
        (update.model.version == version && update.stage == stage)
            .then(|| update.reason.clone().unwrap_or_default())
    })
}

fn alert_of(console: &Console, version: &str) -> Result<()> {
    console.wait_for(&format!("an alert of version {version}"), wait::PATIENCE, |seen| {
        seen.alerts
            .iter()
            .any(|received| received.alert.data.model.as_ref().is_some_and(|model| model.version == version))
            .then_some(())
    })
}

#[test]
fn a_new_version_looks_from_one_frame_to_the_next_and_a_revoked_one_goes_back() {
    play(|folder| {
        let maintainer = Maintainer::new(folder)?;
        let (broker, console) = township(folder, &BrokerOptions::default())?;
        let gate = street(folder, "gate", &[])?;
        let lines = "interval = \"1s\"\nwatch = \"1s\"\nbudget = \"10s\"";
        let village = watched(folder, &broker, &gate.url("gate"), &maintainer, lines)?;
        let mut agent = Agent::start(&village)?;
        await_analysis(&mut agent, "gate")?;
        alert_of(&console, "1.0.0")?;
        let before = agent.camera_when("gate", "its health", |_| true)?;

        maintainer.publish("1.1.0")?;
        active(&console, "1.1.0")?;
        stage(&console, "1.1.0", ModelStage::Kept)?;
        alert_of(&console, "1.1.0")?;
        goes_on(&mut agent, "gate", 10)?;
        let after = agent.camera_when("gate", "its health", |_| true)?;
        ensure!(after.failures == before.failures, "the camera was connected anew: {after:?}");
        ensure!(after.blind_s == before.blind_s, "the camera was blind: {after:?}");
        ensure!(agent.health()?.detector.failures == 0, "frames were lost to the switch");

        // The next one is kept, too, and then revoked: back to the one before.
        maintainer.publish("1.2.0")?;
        stage(&console, "1.2.0", ModelStage::Kept)?;
        maintainer.repo(
            "revoke",
            &[OsStr::new("village-detector@1.2.0"), "--reason".as_ref(), "ghosts".as_ref()],
        )?;
        says(&stage(&console, "1.2.0", ModelStage::RolledBack)?, &["revoked", "ghosts"])?;
        active(&console, "1.1.0")?;
        agent.stop()?;

        // A box that starts anew runs what it kept.
        let mut agent = Agent::start(&village)?;
        await_analysis(&mut agent, "gate")?;
        active(&console, "1.1.0")?;
        ensure!(
            console.seen(|seen| seen.nonsense.is_empty()),
            "{:?}",
            console.seen(|seen| seen.nonsense.clone())
        );
        Ok(())
    });
}

#[test]
fn an_agent_that_ends_twice_with_a_model_on_trial_starts_with_the_one_before() {
    play(|folder| {
        let maintainer = Maintainer::new(folder)?;
        let (broker, console) = township(folder, &BrokerOptions::default())?;
        let gate = street(folder, "gate", &[])?;
        let lines = "interval = \"1s\"\nwatch = \"1h\"\nbudget = \"10s\"";
        let village = watched(folder, &broker, &gate.url("gate"), &maintainer, lines)?;
        let agent = Agent::start(&village)?;
        maintainer.publish("1.1.0")?;
        active(&console, "1.1.0")?;
        agent.kill()?;
        for _ in 0..2 {
            let mut agent = Agent::start(&village)?;
            await_analysis(&mut agent, "gate")?;
            active(&console, "1.1.0")?;
            agent.kill()?;
        }
        let mut agent = Agent::start(&village)?;
        await_analysis(&mut agent, "gate")?;
        active(&console, "1.0.0")?;
        says(&stage(&console, "1.1.0", ModelStage::RolledBack)?, &["ended 2 times"])?;

        // It is not tried again, however often the repository is asked, unless the maintainer says so.
        maintainer.repo("refresh", &[])?;
        goes_on(&mut agent, "gate", 20)?;
        active(&console, "1.0.0")?;
        maintainer.rollout("1.1.0", &["--again"])?;
        active(&console, "1.1.0")
    });
}

#[test]
fn a_model_that_cannot_be_loaded_for_a_while_looks_again_when_it_can() {
    play(|folder| {
        let maintainer = Maintainer::new(folder)?;
        maintainer.publish("1.1.0")?;
        let (broker, console) = township(folder, &BrokerOptions::default())?;
        let gate = street(folder, "gate", &[])?;
        let mut village =
            watched(folder, &broker, &gate.url("gate"), &maintainer, "watch = \"1h\"\nbudget = \"10s\"")?;
        maintainer::take(&village, &maintainer.repository)?;
        let unharmed = |village: &Village| {
            let status = maintainer::status(village)?;
            let active = &status["active"]["release"]["model"];
            ensure!(
                active == "village-detector@1.1.0" && status["refused"] == serde_json::json!([]),
                "{status}"
            );
            Ok::<_, anyhow::Error>(())
        };
        // Its library is being replaced while the agent starts.
        let library = std::mem::replace(&mut village.runtime, folder.join("libonnxruntime.so"));
        let mut agent = Agent::start(&village)?;
        let failed = |health: &Health| health.detector.reason.clone();
        says(&agent.health_when("the detector to fail", failed)?, &["libonnxruntime.so"])?;
        unharmed(&village)?;
        symlink(&library, &village.runtime)?;
        active(&console, "1.1.0")?;
        goes_on(&mut agent, "gate", 5)?;
        agent.stop()?;

        // It cannot be read: the model before looks meanwhile.
        let graph = village.state.join("models/slot-a/model.onnx");
        fs::rename(&graph, graph.with_extension("aside"))?;
        symlink(&graph, &graph)?;
        let mut agent = Agent::start(&village)?;
        await_analysis(&mut agent, "gate")?;
        active(&console, "1.0.0")?;
        let why = told(&console, "why it does not look", |models| models.last_refusal.clone())?;
        says(&why, &["village-detector@1.1.0", "slot-a/model.onnx"])?;
        unharmed(&village)?;
        fs::rename(graph.with_extension("aside"), &graph)?;
        active(&console, "1.1.0")?;
        told(&console, "nothing to complain of", |models| models.last_refusal.is_none().then_some(()))?;
        goes_on(&mut agent, "gate", 5)
    });
}

#[test]
fn a_disk_that_cannot_be_written_keeps_no_box_with_a_model_on_trial_from_looking() {
    play(|folder| {
        let maintainer = Maintainer::new(folder)?;
        maintainer.publish("1.1.0")?;
        let (broker, console) = township(folder, &BrokerOptions::default())?;
        let gate = street(folder, "gate", &[])?;
        let lines = "watch = \"1h\"\nbudget = \"10s\"";
        let village = watched(folder, &broker, &gate.url("gate"), &maintainer, lines)?;
        maintainer::take(&village, &maintainer.repository)?;
        let way = village.state.join("models/state.new"); // a folder in the way stops root, too
        fs::create_dir(&way)?;
        let mut agent = Agent::start(&village)?;
        await_analysis(&mut agent, "gate")?;
        active(&console, "1.0.0")?;
        let why = told(&console, "why it does not look", |models| models.last_refusal.clone())?;
        says(&why, &["village-detector@1.1.0: its trial cannot be written down"])?;
        goes_on(&mut agent, "gate", 20)?;
        active(&console, "1.0.0")?;
        fs::remove_dir(&way)?;
        active(&console, "1.1.0")?;
        goes_on(&mut agent, "gate", 5)?;
        let status = maintainer::status(&village)?;
        ensure!(status["trial"]["starts"] == 1, "{status}");
        Ok(())
    });
}

#[test]
fn a_console_hastens_the_next_check() {
    play(|folder| {
        let maintainer = Maintainer::new(folder)?;
        maintainer.publish("1.1.0")?;
        let (broker, console) = township(folder, &BrokerOptions::default())?;
        // By itself the first check would come after minutes.
        let mut village =
            watched(folder, &broker, "rtsp://127.0.0.1:1/gate", &maintainer, "budget = \"10s\"")?;
        let agent = Agent::start(&village)?;
        active(&console, "1.0.0")?;
        let ask = |counter| console.ask(BOX, "yun-shan-1", counter, Request::CheckUpdates);
        let answer = ask(1)?;
        ensure!(answer == Answer::Done(Done::CheckUpdates), "{answer:?}");
        stage(&console, "1.1.0", ModelStage::Active)?; // it looks from the next frame on, and there is none
        ensure!(ask(1)? == answer, "the same question");
        // More than there is room for: nobody can make boxes hammer a server.
        let refused =
            (2..9).map(ask).collect::<Result<Vec<_>>>()?.into_iter().find_map(|answer| match answer {
                Answer::Refused(refused) => Some(refused),
                Answer::Done(_) => None,
            });
        ensure!(refused.as_ref().is_some_and(|refused| refused.code == Refusal::TooOften), "{refused:?}");
        agent.stop()?;

        // With a stick alone there is nothing to check.
        village.tables = maintainer.section("");
        let mut agent = Agent::start(&village)?;
        agent.health_when("its broker", |health| health.uplinks[0].connected.then_some(()))?;
        let Answer::Refused(refused) = ask(10)? else { bail!("what was checked?") };
        ensure!(refused.code == Refusal::NoRepository, "{refused:?}");
        let audit = maintainer.does([OsStr::new("audit"), "--config".as_ref(), village.write()?.as_ref()])?;
        says(&audit, &["check-updates", "no-repository", "too-often"])
    });
}

/// The power goes while a bundle is on its way over a slow link: what is there of it is not fetched again.
#[test]
fn a_download_goes_on_after_a_restart() {
    play(|folder| {
        let maintainer = Maintainer::new(folder)?;
        let mirror = Mirror::start(&maintainer.repository)?;
        let (broker, console) = township(folder, &BrokerOptions::default())?;
        let mut village =
            village(folder, &broker)?.with(VillageCamera::new("gate", "rtsp://127.0.0.1:1/gate"));
        let lines = "interval = \"1s\"\nbudget = \"10s\"\nrate = \"512KB\"";
        village.tables = maintainer.section(&format!("repository = {:?}\n{lines}", mirror.url()));
        maintainer.publish("1.1.0")?;
        let agent = Agent::start(&village)?;
        let here = told(&console, "a third of the bundle", |models| {
            let update = models.update.as_ref()?;
            let bytes = update.bytes.filter(|bytes| 3 * bytes > update.of)?;
            (update.stage == ModelStage::Downloading).then_some(bytes)
        })?;
        agent.kill()?;
        let length = |asking: &Asking| asking.path.ends_with(".bundle").then_some(asking.from);
        mirror.take();
        let agent = Agent::start(&village)?;
        active(&console, "1.0.0")?;
        stage(&console, "1.1.0", ModelStage::Active)?;
        let from: Vec<u64> = mirror.take().iter().filter_map(length).collect();
        let [from] = from[..] else { bail!("the bundle was asked for from {from:?}") };
        // What was written and not flushed yet is lost: a megabyte at most.
        ensure!(from + (1 << 20) > here && from > 0, "{here} bytes were there, and it went on from {from}");
        agent.stop()?;

        // What is there may be anything: it is judged as a part of the whole, and begun anew at the next check.
        maintainer.publish("1.2.0")?;
        let release = fs::read_dir(maintainer.repository.join("targets"))?
            .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
            .find(|name| name.ends_with("1.2.0.bundle"))
            .context("no bundle of 1.2.0")?;
        let sha256 = release.split('.').next().unwrap_or_default();
        set_kept(&village)?;
        let patches =
            fs::read_dir(maintainer.repository.join("targets"))?.filter_map(|entry| Some(entry.ok()?.path()));
        for patch in patches.filter(|file| file.extension().is_some_and(|extension| extension == "patch")) {
            fs::remove_file(patch)?; // it would be the shorter way
        }
        fs::write(village.state.join(format!("models/incoming-{sha256}")), vec![0; 1 << 20])?;
        let agent = Agent::start(&village)?;
        stage(&console, "1.2.0", ModelStage::Active)?;
        let from: Vec<u64> = mirror.take().iter().filter_map(length).collect();
        ensure!(from == [1 << 20, 0], "it was asked for from {from:?}");
        agent.stop().map(drop)
    });
}

/// A model that no honest maintainer could publish: the agent's own command refuses to pack it, so it is packed by tar and
/// signed without a check.
fn publish_unchecked(maintainer: &Maintainer, model: &Path, version: &str) -> Result<()> {
    let bundle = model.with_extension("tar");
    let mut tar = Command::new("tar");
    tar.arg("-C").arg(model).args(["--format=ustar", "-cf"]).arg(&bundle);
    tar.args(["manifest.toml", "model.onnx", "golden/street.jpg", "golden/street.json"]);
    ensure!(tar.status().context("running tar")?.success(), "tar failed");
    let mut release = Release {
        rollout: Rollout { stable: 100, canary: 100 },
        ..Release::new(ModelName::new("village-detector".parse()?, version)?)
    };
    let keys = KeyFolders::new([maintainer.keys.clone()]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        Editor::open(&maintainer.repository).await?.add(&bundle, &mut release, &keys, EXPIRY).await
    })?;
    Ok(())
}
