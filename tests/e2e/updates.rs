//! Models that come from outside: signed, fetched, tried, switched to, watched and taken back, with the old one looking all
//! the while.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use sharp_eyes_agent::models::release::{Release, Rollout};
use sharp_eyes_agent::models::tuf::{Editor, Expiry, KeyFolders};
use sharp_eyes_protocol::alert::ModelName;
use sharp_eyes_protocol::command::{Answer, Done, Refusal, Request};
use sharp_eyes_protocol::report::{ModelStage, Models};
use sharp_eyes_tests::agent::Agent;
use sharp_eyes_tests::broker::{Broker, BrokerOptions};
use sharp_eyes_tests::console::Console;
use sharp_eyes_tests::disk::tree::Tree;
use sharp_eyes_tests::maintainer::{self, Maintainer};
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

/// A model that no honest maintainer could publish: the agent's own command refuses to pack it, so it is packed by tar and
/// signed without a check.
fn publish_unchecked(maintainer: &Maintainer, model: &Path, version: &str) -> Result<()> {
    let bundle = model.with_extension("tar");
    let mut tar = std::process::Command::new("tar");
    tar.arg("-C").arg(model).args(["--format=ustar", "-cf"]).arg(&bundle);
    tar.args(["manifest.toml", "model.onnx", "golden/street.jpg", "golden/street.json"]);
    ensure!(tar.status().context("running tar")?.success(), "tar failed");
    let mut release = Release {
        target: format!("village-detector-{version}.bundle"),
        length: 0,
        sha256: String::new(),
        model: ModelName::new("village-detector".parse()?, version)?,
        number: 0,
        attempt: 1,
        rollout: Rollout { stable: 100, canary: 100 },
        revoked: None,
    };
    let keys = KeyFolders(vec![maintainer.keys.clone()]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        Editor::open(&maintainer.repository).await?.add(&bundle, &mut release, &keys, EXPIRY).await
    })?;
    Ok(())
}

fn pixels(scale: &str) -> impl FnOnce(&str) -> String {
    let line = format!("scale = {scale}\n");
    move |manifest| manifest.replace("scale = 1.0 ", &format!("{line}# "))
}

#[test]
fn a_bad_model_is_refused_with_its_reason_and_the_old_one_stays() {
    play(|folder| {
        let maintainer = Maintainer::new(folder)?;
        let village = quiet(&folder.join("box"), &maintainer)?;
        let without_hash = |manifest: &str| {
            manifest
                .lines()
                .filter(|line| !line.starts_with("sha256"))
                .map(|line| format!("{line}\n"))
                .collect()
        };
        let blind = maintainer.model("2.0.1", pixels("0.0"))?;
        let eager = maintainer.model("2.0.2", |manifest| {
            let start = manifest.find("[thresholds]").unwrap_or(manifest.len());
            format!("{}[thresholds]\ndefault = 0.001\n", &manifest[..start])
        })?;
        let not_a_number = maintainer.model("2.0.3", pixels("1e38"))?;
        let truncated = maintainer.model("2.0.4", without_hash)?;
        let graph = fs::read(truncated.join("model.onnx"))?;
        fs::write(truncated.join("model.onnx"), &graph[..graph.len() / 2])?;
        let face = maintainer.model("2.0.5", |manifest| manifest.replace("\"smoke\"]", "\"face\"]"))?;
        let other = maintainer.model("2.0.6", |manifest| manifest.replace("2.0.6", "9.9.9"))?;
        for (version, model, words, packs) in [
            (
                "2.0.1",
                &blind,
                &["golden picture street.jpg", "a person with score", "is expected"][..],
                false,
            ),
            ("2.0.2", &eager, &["golden picture street.jpg", "that are not expected were seen"], false),
            ("2.0.3", &not_a_number, &["not finite"], false),
            ("2.0.4", &truncated, &["model.onnx", "damaged or no onnx file"], false),
            ("2.0.5", &face, &["face", "never identities"], false),
            ("2.0.6", &other, &["the bundle holds village-detector@9.9.9"], true),
        ] {
            let packed = maintainer.pack(model);
            ensure!(packed.is_ok() == packs, "{version}: {packed:?}");
            if let Err(error) = packed {
                says(&format!("{error:#}"), words).context("what model pack says")?;
            }
            publish_unchecked(&maintainer, model, version)?;
            let (taken, said) = maintainer::import(&village, &maintainer.repository)?;
            ensure!(!taken, "{version} was taken: {said}");
            says(&said, words).with_context(|| format!("what model import says of {version}"))?;
            let status = maintainer::status(&village)?;
            ensure!(status["active"].is_null(), "{version}: {status}");
            ensure!(status["update"]["stage"] == "refused", "{version}: {status}");
            let (_, again) = maintainer::import(&village, &maintainer.repository)?;
            says(&again, &["nothing for this box"]).context("a second try")?;
        }
        Ok(())
    });
}

#[test]
fn a_model_that_is_too_slow_for_the_box_is_refused_there() {
    play(|folder| {
        let maintainer = Maintainer::new(folder)?;
        maintainer.publish("1.1.0")?;
        let mut village = quiet(&folder.join("box"), &maintainer)?;
        village.tables = maintainer.section("budget = \"1ms\"");
        let (taken, said) = maintainer::import(&village, &maintainer.repository)?;
        ensure!(!taken, "{said}");
        says(&said, &["one inference takes", "1.0 ms are left for it on this box"])?;

        // What is as fast as the model that looks now is fast enough, whatever the frames would leave.
        village.tables = maintainer.section("");
        village.state = folder.join("box/second");
        village.cameras = (0..32)
            .map(|n| VillageCamera::new(&format!("c{n}"), "rtsp://127.0.0.1:1/c").line("analysed_fps = 30"))
            .collect();
        let (taken, said) = maintainer::import(&village, &maintainer.repository)?;
        ensure!(taken, "{said}");
        Ok(())
    });
}

/// What an attacker does to a copy of the repository, and what the box says to it.
type Attack<'a> = (&'a str, &'a dyn Fn(&Path) -> Result<()>, &'a [&'a str]);

#[test]
fn what_a_hostile_mirror_does_is_noticed_and_changes_nothing() {
    play(|folder| {
        let maintainer = Maintainer::new(folder)?;
        maintainer.publish("1.1.0")?;
        let old = Tree::read(&maintainer.repository)?;
        let village = quiet(&folder.join("box"), &maintainer)?;
        let (taken, said) = maintainer::import(&village, &maintainer.repository)?;
        ensure!(taken, "{said}");
        set_kept(&village)?;
        // The box has seen newer metadata since, and so knows what yesterday's are.
        maintainer.repo("refresh", &[])?;
        says(&maintainer::import(&village, &maintainer.repository)?.1, &["nothing for this box"])?;
        maintainer.publish("1.2.0")?;
        let metadata = |mirror: &Path, name: &str| mirror.join("metadata").join(name);
        let flip = |file: PathBuf| -> Result<()> {
            let mut bytes = fs::read(&file)?;
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            Ok(fs::write(file, bytes)?)
        };
        let newest_bundle = |mirror: &Path| -> Result<PathBuf> {
            let mut files =
                fs::read_dir(mirror.join("targets"))?.filter_map(|entry| Some(entry.ok()?.path()));
            files.find(|file| file.to_string_lossy().ends_with("-1.2.0.bundle")).context("no bundle of 1.2.0")
        };
        let attacks: [Attack; 11] = [
            ("a forged timestamp", &|m| flip(metadata(m, "timestamp.json")), &["timestamp"]),
            (
                "another maintainer's repository",
                &|m| {
                    fs::remove_dir_all(m)?;
                    let place = m.with_extension("theirs");
                    fs::create_dir(&place)?;
                    Ok(fs::rename(Maintainer::new(&place)?.repository, m)?)
                },
                &["refused", "timestamp", "signature threshold"],
            ),
            (
                "a thief with one key of three",
                &|m| {
                    let place = m.with_extension("loot");
                    fs::create_dir(&place)?;
                    for key in ["targets-2.key", "snapshot.key", "timestamp.key"] {
                        fs::copy(maintainer.keys.join(key), place.join(key))?;
                    }
                    steal(m, &place, &maintainer)
                },
                &["refused", "targets", "signature threshold"],
            ),
            (
                "an expired timestamp",
                &|m| {
                    let theirs = Maintainer { repository: m.to_owned(), ..maintainer.clone() };
                    theirs.repo("refresh", &["--timestamp-days".as_ref(), "0".as_ref()]).map(drop)
                },
                &["its timestamp expired on", "this box's clock says", "repo refresh"],
            ),
            ("metadata from yesterday", &|m| old.write(m), &["refused", "timestamp", "version"]),
            (
                "targets from yesterday with a snapshot from today",
                &|m| {
                    let names = names(m, ".targets.json")?;
                    let [.., before, last] = &names[..] else { anyhow::bail!("{names:?}") };
                    Ok(fs::copy(metadata(m, before), metadata(m, last)).map(drop)?)
                },
                &["refused", "targets.json", "hash"],
            ),
            ("a bundle with another bit", &|m| flip(newest_bundle(m)?), &["refused", "1.2.0.bundle", "hash"]),
            (
                "a bundle without its end",
                &|m| {
                    let file = newest_bundle(m)?;
                    let bytes = fs::read(&file)?;
                    Ok(fs::write(file, &bytes[..bytes.len() - 512])?)
                },
                &["refused", "1.2.0.bundle"],
            ),
            (
                "a bundle without an end",
                &|m| {
                    let file = newest_bundle(m)?;
                    fs::remove_file(&file)?;
                    Ok(std::os::unix::fs::symlink("/dev/zero", file)?)
                },
                &["refused", "Maximum size", "exceeded"],
            ),
            (
                "a timestamp without an end",
                &|m| {
                    let file = metadata(m, "timestamp.json");
                    fs::remove_file(&file)?;
                    Ok(std::os::unix::fs::symlink("/dev/zero", file)?)
                },
                &["refused", "max_timestamp_size"],
            ),
            ("no bundle", &|m| Ok(fs::remove_file(newest_bundle(m)?)?), &["1.2.0.bundle", "file not found"]),
        ];
        for (n, (attack, does, words)) in attacks.iter().enumerate() {
            let mirror = folder.join(format!("mirror-{n}"));
            Tree::read(&maintainer.repository)?.write(&mirror)?;
            does(&mirror).context(attack.to_string())?;
            let (taken, said) = maintainer::import(&village, &mirror)?;
            ensure!(!taken, "{attack}: {said}");
            says(&said, words).context(attack.to_string())?;
            let status = maintainer::status(&village)?;
            ensure!(status["active"]["release"]["model"] == "village-detector@1.1.0", "{attack}: {status}");
            ensure!(status["repository"].is_string(), "{attack} is not reported: {status}");
            ensure!(
                status["refused"].as_array().is_some_and(Vec::is_empty),
                "{attack} is no fault of the model"
            );
        }
        let (taken, said) = maintainer::import(&village, &maintainer.repository)?;
        ensure!(taken, "the honest repository after all that: {said}");
        Ok(())
    });
}

/// Two of three keys of targets, and those of snapshot and timestamp, are stolen: the thief's model is one like any other
/// until the keys are replaced. Then every box goes back to what the maintainer vouches for, and hears no more of the thief,
/// however high he raised his versions.
#[test]
fn a_box_recovers_from_stolen_keys_when_the_maintainer_replaces_them() {
    play(|folder| {
        let maintainer = Maintainer::new(folder)?;
        maintainer.publish("1.1.0")?;
        let village = quiet(&folder.join("box"), &maintainer)?;
        let takes = |repository: &Path| maintainer::import(&village, repository);
        ensure!(takes(&maintainer.repository)?.0, "1.1.0");
        set_kept(&village)?;

        let place = folder.join("thief");
        let thief =
            Maintainer { repository: place.join("mirror"), keys: place.join("loot"), folder: place.clone() };
        fs::create_dir_all(&thief.keys)?;
        for key in ["targets-1.key", "targets-2.key", "snapshot.key", "timestamp.key"] {
            fs::copy(maintainer.keys.join(key), thief.keys.join(key))?;
        }
        Tree::read(&maintainer.repository)?.write(&thief.repository)?;
        publish_unchecked(&thief, &thief.model("6.6.6", str::to_owned)?, "6.6.6")?;
        for _ in 0..9 {
            thief.repo("refresh", &[])?;
        }
        let (taken, said) = takes(&thief.repository)?;
        ensure!(taken && said.contains("6.6.6 is the active model"), "{said}");
        set_kept(&village)?;
        says(&takes(&maintainer.repository)?.1, &["refused", "timestamp", "version"])?;

        for (role, key) in [
            ("targets", "targets-1"),
            ("targets", "targets-2"),
            ("snapshot", "snapshot"),
            ("timestamp", "timestamp"),
        ] {
            let old = maintainer.keys.join(format!("{key}.key"));
            let new = maintainer.keys.join(format!("{key}-2026.key"));
            let arguments: [&OsStr; 5] =
                [role.as_ref(), "--old".as_ref(), old.as_ref(), "--new".as_ref(), new.as_ref()];
            says(&maintainer.repo("rotate-key", &arguments)?, &["signs no more"])?;
            fs::remove_file(old)?;
        }
        let (taken, said) = takes(&maintainer.repository)?;
        ensure!(taken, "{said}");
        says(&said, &["taken back", "does not know it any more"])?;
        ensure!(maintainer::status(&village)?["active"]["release"]["model"] == "village-detector@1.1.0");
        maintainer.repo("refresh", &[])?;
        says(&takes(&maintainer.repository)?.1, &["nothing for this box"])?;
        thief.repo("refresh", &[])?;
        says(&takes(&thief.repository)?.1, &["refused", "threshold"])?;
        // A box that knows nothing but the first root.
        let verified = maintainer.does([
            OsStr::new("repo"),
            "verify".as_ref(),
            maintainer.repository.as_ref(),
            "--root".as_ref(),
            maintainer.root().as_ref(),
        ])?;
        says(&verified, &["1 releases, all as signed"])
    });
}

/// The files of a repository's metadata with an ending, by their version.
fn names(repository: &Path, ending: &str) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(repository.join("metadata"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.ends_with(ending) {
            names.push(name);
        }
    }
    names.sort_by_key(|name| name.split('.').next().and_then(|version| version.parse::<u64>().ok()));
    Ok(names)
}

/// A thief has one of the keys of targets, and those of snapshot and timestamp. He makes a repository of his own whose root
/// is content with one signature, in the place of the true one, and raises its versions above those of the true one.
fn steal(mirror: &Path, loot: &Path, victim: &Maintainer) -> Result<()> {
    fs::remove_dir_all(mirror)?;
    let all = loot.join("all");
    fs::create_dir(&all)?;
    for entry in fs::read_dir(&victim.keys)? {
        let file = entry?.path();
        fs::copy(&file, all.join(file.file_name().context("a key without a name")?))?;
    }
    let thief = Maintainer { repository: mirror.to_owned(), keys: loot.to_owned(), ..victim.clone() };
    let init: [&OsStr; 7] = [
        "repo".as_ref(),
        "init".as_ref(),
        mirror.as_ref(),
        "--threshold".as_ref(),
        "1".as_ref(),
        "--keys".as_ref(),
        all.as_ref(),
    ];
    thief.does(init)?;
    let model = thief.model("6.6.6", str::to_owned)?;
    publish_unchecked(&thief, &model, "6.6.6")?;
    for _ in 0..8 {
        thief.rollout("6.6.6", &["--stable", "100"])?;
    }
    Ok(())
}

/// As if the model had been watched: a box without an agent never does that.
fn set_kept(village: &Village) -> Result<()> {
    let file = village.state.join("models/state.json");
    let mut state: serde_json::Value = serde_json::from_slice(&fs::read(&file)?)?;
    state["trial"] = serde_json::Value::Null;
    Ok(fs::write(file, serde_json::to_vec(&state)?)?)
}
