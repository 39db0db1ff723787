//! A configuration that a maintainer signs for boxes: taken over and kept, taken back, or refused, by itself.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use sharp_eyes_agent::models::tuf::{Editor, Expiry, KeyFolders};
use sharp_eyes_agent::remote::state::State;
use sharp_eyes_protocol::report::{ConfigurationHealth, Health};
use sharp_eyes_tests::agent::Agent;
use sharp_eyes_tests::broker::BrokerOptions;
use sharp_eyes_tests::console::Console;
use sharp_eyes_tests::maintainer::Maintainer;
use sharp_eyes_tests::village::VillageCamera;
use sharp_eyes_tests::{places, wait};

use crate::stage::{play, read, says, township, village};

/// Without a broker for so long, a configuration goes back. With one for a tenth of it, it is kept.
const CONFIRM: &str = "20s";

const BOXES: &str = "lan-xi/yun-shan/*/*";

/// Cameras that do not exist, and more lines.
fn text(cameras: &[&str], lines: &str) -> String {
    let cameras = cameras
        .iter()
        .map(|name| format!("[[camera]]\nname = {name:?}\nurl = \"rtsp://127.0.0.1:1/{name}\"\n"));
    format!("{lines}\n{}", cameras.collect::<String>())
}

/// Publishes a configuration for all boxes of the township.
fn configure(maintainer: &Maintainer, text: &str) -> Result<String> {
    let file = file(maintainer);
    fs::write(&file, text)?;
    maintainer.repo("configure", &[file.as_ref(), OsStr::new("--box"), BOXES.as_ref()])
}

fn file(maintainer: &Maintainer) -> PathBuf {
    maintainer.folder.join("wang-cun.toml")
}

/// The same without what the command checks: no honest maintainer can publish it.
fn configure_unchecked(maintainer: &Maintainer, text: &str) -> Result<()> {
    let file = file(maintainer);
    fs::write(&file, text)?;
    let keys = KeyFolders::new([maintainer.keys.clone()]);
    let expiry = Expiry { targets_days: 30, snapshot_days: 30, timestamp_days: 30 };
    let boxes = BOXES.parse().map_err(anyhow::Error::msg)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        Editor::open(&maintainer.repository).await?.configure("wang-cun", boxes, &file, &keys, expiry).await
    })?;
    Ok(())
}

fn told(
    console: &Console,
    what: &str,
    fits: impl Fn(&ConfigurationHealth, &[String]) -> bool,
) -> Result<ConfigurationHealth> {
    console.wait_for(what, 2 * wait::PATIENCE, |seen| {
        let health = seen.health.as_ref()?;
        let configuration = health.configuration.clone()?;
        fits(&configuration, &cameras(health)).then_some(configuration)
    })
}

fn cameras(health: &Health) -> Vec<String> {
    health.cameras.iter().map(|camera| camera.name.to_string()).collect()
}

#[test]
fn a_configuration_is_taken_over_and_kept_taken_back_or_refused_by_itself() {
    play(|folder| {
        let maintainer = Maintainer::new(folder)?;
        let (mut broker, console) = township(folder, &BrokerOptions::default())?;
        let masked = VillageCamera::new("gate", "rtsp://127.0.0.1:1/gate")
            .line("masks = [[[0.8, 0.0], [1.0, 0.0], [1.0, 0.2]]]");
        let mut village = village(folder, &broker)?.with(masked);
        let repository = format!("repository = {:?}", maintainer.repository.display().to_string());
        village.tables = maintainer.section(&format!("{repository}\ninterval = \"1s\""))
            + &format!("[remote]\nconfirm = {CONFIRM:?}\n");
        let mut agent = Agent::start(&village)?;
        told(&console, "the box's own file", |told, cameras| told.active.is_none() && cameras == ["gate"])?;

        // A good one, which shows what was masked. It waits while somebody is editing the box's own file: the agent could not
        // start with that.
        let own_file = village.write()?;
        fs::write(&own_file, village.toml().replacen("[state]", "[stat]", 1))?;
        says(&configure(&maintainer, &text(&["gate", "yard"], ""))?, &["wang-cun", BOXES])?;
        told(&console, "it to wait for the box's own file", |told, cameras| {
            let why = told.last_refusal.as_deref().unwrap_or_default();
            why.starts_with("the box's own file: ")
                && why.contains("stat")
                && told.active.is_none()
                && cameras == ["gate"]
        })?;
        village.write()?;
        let kept = told(&console, "the good configuration to be kept", |told, cameras| {
            told.active.is_some() && !told.on_trial && cameras == ["gate", "yard"]
        })?;
        let good = kept.active.context("nothing is in force")?;
        ensure!(good.name == "wang-cun", "{good:?}");
        ensure!(kept.unmasked.iter().map(ToString::to_string).eq(["gate"]), "{:?}", kept.unmasked);
        says(&read(&Agent::log_file(folder))?, &["privacy masks are removed or changed: gate"])?;
        agent.stop()?;
        agent = Agent::start(&village)?;
        told(&console, "it after a restart", |told, cameras| {
            told.active.as_ref() == Some(&good) && !told.on_trial && cameras == ["gate", "yard"]
        })?;

        // One that leads to a broker that is not there, and a power cut while it is tried.
        let nobody = format!("[broker]\nhost = \"127.0.0.1\"\nport = {}", places::free_port()?);
        configure(&maintainer, &text(&["gate"], &nobody))?;
        let on_trial = |agent: &mut Agent| {
            agent.health_when("it to be tried", |health| {
                (health.configuration.as_ref()?.on_trial && cameras(health) == ["gate"]).then_some(())
            })
        };
        on_trial(&mut agent)?;
        agent.kill()?;
        agent = Agent::start(&village)?;
        on_trial(&mut agent)?;
        let back = told(&console, "the good one to come back", |told, cameras| {
            told.active.as_ref() == Some(&good)
                && told.last_refusal.as_ref().is_some_and(|why| why.contains("no broker for 20 s"))
                && cameras == ["gate", "yard"]
        })?;
        ensure!(!back.on_trial, "{back:?}");

        // Those that cannot be used.
        let error = configure(&maintainer, &text(&["gate"], "[state]\nfolder = \"/tmp\""))
            .err()
            .context("the command signs a configuration that no box can use")?;
        says(&format!("{error:#}"), &["wang-cun.toml", "line 1: state: is the box's own"])?;
        for (bad, words) in [
            (text(&["gate", "gate"], ""), &["another camera is called gate already"][..]),
            (text(&["gate"], "[models]\nroot = \"/tmp/root.json\""), &["models: is the box's own"]),
            (
                text(&["gate"], "") + "user = \"viewer\"\npassword_file = \"/etc/shadow\"\n",
                &["camera gate: its user and password_file belong to no camera"],
            ),
        ] {
            configure_unchecked(&maintainer, &bad)?;
            let refused = told(&console, &format!("{words:?}"), |told, _| {
                told.last_refusal.as_ref().is_some_and(|why| words.iter().all(|word| why.contains(word)))
            })?;
            ensure!(refused.active.as_ref() == Some(&good) && !refused.on_trial, "{refused:?}");
        }

        // Without any, the box's own file; not while there is no broker that it could prove itself with.
        broker.kill()?;
        agent.health_when("no broker", |health| (!health.uplinks[0].connected).then_some(()))?;
        let file = file(&maintainer);
        maintainer.repo("configure", &[file.as_ref(), OsStr::new("--remove")])?;
        wait::until("it to wait", wait::PATIENCE, || {
            let log = read(&Agent::log_file(folder)).unwrap_or_default();
            log.contains("a new configuration waits: there is no broker now").then_some(())
        })?;
        ensure!(
            agent.health()?.configuration.is_some_and(|told| told.active.as_ref() == Some(&good)),
            "it went"
        );
        // Nor does it wait for ever where it was tried in vain before.
        agent.stop()?;
        refuse_own_file(&village.state)?;
        agent = Agent::start(&village)?;
        broker.restart()?;
        told(&console, "the box's own file to be kept again", |told, cameras| {
            told.active.is_none() && !told.on_trial && cameras == ["gate"]
        })?;
        ensure!(agent.stop()? == 0, "it did not end as asked");
        listed(&maintainer, &village.folder)
    });
}

/// As if the box's own file had been on trial when the broker went.
fn refuse_own_file(state: &Path) -> Result<()> {
    let file = state.join("configuration/state.json");
    let mut state: State = serde_json::from_slice(&fs::read(&file)?)?;
    state.refuse(None, "no broker for 20 s");
    Ok(fs::write(file, serde_json::to_vec(&state)?)?)
}

/// `repo verify` names what boxes are told, `model import` takes it from a stick.
fn listed(maintainer: &Maintainer, folder: &Path) -> Result<()> {
    configure(maintainer, &text(&["gate"], ""))?;
    let (repository, root) = (maintainer.repository.clone(), maintainer.root());
    let verified = maintainer.does([
        OsStr::new("repo"),
        "verify".as_ref(),
        repository.as_ref(),
        "--root".as_ref(),
        root.as_ref(),
    ])?;
    says(&verified, &["wang-cun: configuration", BOXES])?;
    let config = folder.join("agent.toml");
    let import: [&OsStr; 5] =
        ["model".as_ref(), "import".as_ref(), repository.as_ref(), "--config".as_ref(), config.as_ref()];
    says(&maintainer.does(import)?, &["configuration wang-cun", "on trial"])
}
