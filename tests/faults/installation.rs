//! A model is installed, and the process is killed at every operation by which that changes the disk, and the power is cut
//! there: what is left always names one model, whole, and a second try succeeds.

use std::collections::HashSet;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use sharp_eyes_agent::config::Config;
use sharp_eyes_agent::models::state::{Installed, State};
use sharp_eyes_agent::remote::{self, Remote};
use sharp_eyes_tests::disk::journal::Change;
use sharp_eyes_tests::disk::tree::Tree;
use sharp_eyes_tests::disk::volume::Volume;
use sharp_eyes_tests::disk::{Disk, Fault};
use sharp_eyes_tests::maintainer::{self, Maintainer};
use sharp_eyes_tests::places;
use sharp_eyes_tests::switching::Switching;
use sharp_eyes_tests::village::{Village, VillageCamera};
use sharp_eyes_tests::wait;

use crate::power::{in_memory, until_the_last};
use crate::stage::play;

/// A box whose state folder is watched, with two models installed one after the other, so that the third has to take a
/// place that was pointed to.
struct Story {
    village: Village,
    disk: Disk,
}

impl Story {
    fn new(folder: &Path, maintainer: &Maintainer, before: Option<&Tree>) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let mut village =
            Village::new(folder, 1)?.with(VillageCamera::new("gate", "rtsp://127.0.0.1:1/gate"));
        let disk = Disk::recorded(&folder.join("disk"), &folder.join("notes"))?;
        village.state = disk.folder().join("state");
        village.tables = maintainer.section("budget = \"10s\"");
        if let Some(before) = before {
            before.write(disk.folder())?;
        }
        Ok(Self { village, disk })
    }

    /// Installs what the repository has. The fault may end it at any time; whether it came to its end.
    fn install(&self, repository: &Path, fault: &Fault) -> Result<bool> {
        let mut command = maintainer::import_command(&self.village, repository)?;
        command.stdout(std::process::Stdio::null());
        Ok(self.disk.run(command, fault)?.success())
    }

    /// What remains of the disk, which held `before`, after a power cut at any moment of what was done to it: each different
    /// state is written to a folder and judged, with whether all was done by then. How many there were.
    fn after_power_cuts(
        &self,
        before: Tree,
        place: &Path,
        mut judge: impl FnMut(bool) -> Result<()>,
    ) -> Result<usize> {
        let operations = self.disk.journal()?;
        let mut volume = Volume::new(before);
        let mut seen = HashSet::new();
        for n in 0..=operations.len() {
            for remains in volume.after_power_cut(4, n as u64) {
                let mut hasher = DefaultHasher::new();
                remains.tree.hash(&mut hasher);
                if seen.insert(hasher.finish()) {
                    remains.tree.write(place)?;
                    judge(n == operations.len())
                        .with_context(|| format!("after {n} operations: {}", remains.choice))?;
                }
            }
            if let Some(operation) = operations.get(n) {
                volume.apply(operation)?;
            }
        }
        ensure!(volume.written() == Tree::read(self.disk.folder())?, "the shim missed something");
        Ok(seen.len())
    }
}

/// The versions that a box may be left with, and what else has to be true of what is left.
fn one_whole_model(models: &Path, versions: &[&str]) -> Result<()> {
    let state = State::read(models)?;
    let version = state.active.as_ref().map_or("none", |active| active.release.model.version.as_str());
    ensure!(versions.contains(&version), "the active model is {version}; expected one of {versions:?}");
    for installed in [&state.active, &state.previous].into_iter().flatten() {
        let Installed { slot, release, .. } = installed;
        let folder = slot.folder(models);
        let manifest = fs::read_to_string(folder.join("manifest.toml"))
            .with_context(|| format!("{} of {}", folder.display(), release.model))?;
        let version = format!("version = {:?}", release.model.version);
        ensure!(manifest.contains(&version), "{} does not hold {}", folder.display(), release.model);
        let builtin = fs::read(places::builtin_model()?.join("model.onnx"))?;
        ensure!(
            fs::read(folder.join("model.onnx"))? == builtin,
            "the graph of {} is not whole",
            release.model
        );
    }
    Ok(())
}

/// A maintainer with three versions, and a box that runs the second one and keeps the first one to fall back to.
fn two_installed(folder: &Path, memory: &Path) -> Result<(Maintainer, Tree)> {
    let maintainer = Maintainer::new(folder)?;
    let first = Story::new(&memory.join("first"), &maintainer, None)?;
    for version in ["1.1.0", "1.2.0"] {
        maintainer.publish(version)?;
        ensure!(first.install(&maintainer.repository, &Fault::None)?, "{version} was not installed");
        State::change(&first.village.state.join("models"), State::keep)?;
    }
    maintainer.publish("1.3.0")?;
    let before = Tree::read(first.disk.folder())?;
    one_whole_model(&first.village.state.join("models"), &["1.2.0"])?;
    Ok((maintainer, before))
}

#[test]
fn an_installation_that_is_killed_at_every_write_and_in_the_middle_of_it() {
    play(|folder| {
        let memory = in_memory()?;
        let (maintainer, before) = two_installed(folder, memory.path())?;
        let whole = Story::new(&memory.path().join("whole"), &maintainer, Some(&before))?;
        ensure!(whole.install(&maintainer.repository, &Fault::None)?, "1.3.0 was not installed");
        let faults: Vec<Fault> = whole
            .disk
            .journal()?
            .iter()
            .flat_map(|operation| {
                let torn = matches!(operation.change, Change::Write(..));
                let within = torn.then_some(Fault::KillWithin(operation.number));
                [Some(Fault::KillBefore(operation.number)), within].into_iter().flatten()
            })
            .collect();
        ensure!(faults.len() > 60, "the installation changed the disk only {} times", faults.len());
        until_the_last(2, |n| {
            let Some(fault) = faults.get(n as usize) else { return Ok(true) };
            let folder = memory.path().join(n.to_string());
            let story = Story::new(&folder, &maintainer, Some(&before))?;
            ensure!(!story.install(&maintainer.repository, fault)?, "{fault:?} did not end it");
            let models = story.village.state.join("models");
            one_whole_model(&models, &["1.2.0", "1.3.0"]).with_context(|| format!("{fault:?}"))?;
            story.install(&maintainer.repository, &Fault::None)?;
            one_whole_model(&models, &["1.3.0"]).with_context(|| format!("a second try after {fault:?}"))?;
            fs::remove_dir_all(&folder)?;
            Ok(false)
        })?;
        Ok(())
    });
}

#[test]
fn a_power_cut_at_any_moment_of_an_installation() {
    play(|folder| {
        let memory = in_memory()?;
        let (maintainer, before) = two_installed(folder, memory.path())?;
        let story = Story::new(&memory.path().join("box"), &maintainer, Some(&before))?;
        ensure!(story.install(&maintainer.repository, &Fault::None)?, "1.3.0 was not installed");
        let place = memory.path().join("opened");
        let states = story.after_power_cuts(before, &place, |done| {
            let versions: &[&str] = if done { &["1.3.0"] } else { &["1.2.0", "1.3.0"] };
            one_whole_model(&place.join("state/models"), versions)
        })?;
        ensure!(states > 20, "only {states} states");
        Ok(())
    });
}

/// The camera that the next start of the box would look at: each configuration has another one.
fn next_start(village: &Village, state: &Path) -> Result<String> {
    let mut config = Config::load(&village.write()?)?;
    config.state.folder = state.to_owned();
    let remote = Remote::look(&config).context("the box takes no configurations")?;
    Ok(remote.in_force.cameras[0].stream.name.to_string())
}

#[test]
fn a_power_cut_at_any_moment_while_a_configuration_is_taken_over() {
    play(|folder| {
        let memory = in_memory()?;
        let maintainer = Maintainer::new(folder)?;
        let story = |name: &str, before: Option<&Tree>| -> Result<Story> {
            let mut story = Story::new(&memory.path().join(name), &maintainer, before)?;
            story.village.tables += "[remote]\n";
            Ok(story)
        };
        let configure = |camera: &str| -> Result<()> {
            let file = folder.join("village.toml");
            fs::write(&file, format!("[[camera]]\nname = {camera:?}\nurl = \"rtsp://127.0.0.1:1/c\"\n"))?;
            maintainer.repo("configure", &[file.as_ref(), "--box".as_ref(), "*/*/*/*".as_ref()]).map(drop)
        };
        configure("first")?;
        let first = story("first", None)?;
        ensure!(first.install(&maintainer.repository, &Fault::None)?, "the first was not taken");
        remote::state::State::change(&first.village.state.join("configuration"), remote::state::State::keep)?;
        let before = Tree::read(first.disk.folder())?;
        configure("second")?;
        let second = story("second", Some(&before))?;
        ensure!(second.install(&maintainer.repository, &Fault::None)?, "the second was not taken");
        let place = memory.path().join("opened");
        let mut found = HashSet::new();
        let states = second.after_power_cuts(before, &place, |done| {
            let camera = next_start(&second.village, &place.join("state"))?;
            ensure!(camera == "second" || (camera == "first" && !done), "{camera}");
            found.insert(camera);
            Ok(())
        })?;
        ensure!(found.len() == 2 && states > 5, "{states} states, {found:?}");
        Ok(())
    });
}

/// Bytes of memory that are a leak when they come on top: six models that are not let go have 34 MB of weights alone. What
/// was measured after two hundred updates and rollbacks is 0.9 MB (`BENCH=updates make bench`).
const LEAK: u64 = 20_000_000;

#[test]
fn updates_and_rollbacks_leave_nothing_behind() {
    play(|folder| {
        let mut switching = Switching::start(folder)?;
        switching.switch(2)?;
        let before = switching.held()?;
        switching.switch(6)?;
        let mut now = before;
        let what = "descriptors and threads to be as before";
        wait::until(what, wait::PATIENCE, || {
            now = switching.held().ok()?;
            (now.descriptors <= before.descriptors && now.threads <= before.threads).then_some(())
        })
        .with_context(|| format!("before {before:?}, now {now:?}"))?;
        let grown = now.memory.saturating_sub(before.memory);
        ensure!(grown < LEAK, "{grown} bytes stay: before {before:?}, now {now:?}");
        Ok(())
    });
}
