//! Disks that refuse, databases that are damaged, newer or locked, and a box that has no file descriptors left.
//!
//! Disks that are really full and really read-only are in the end-to-end tests (`tests/e2e/state.rs`).

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use rusqlite::Connection;
use rustix::io::Errno;
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use sharp_eyes_protocol::level::Severity;
use sharp_eyes_tests::agent::Agent;
use sharp_eyes_tests::alert_source::AlertSource;
use sharp_eyes_tests::broker::{Broker, BrokerOptions};
use sharp_eyes_tests::console::Console;
use sharp_eyes_tests::disk::tree::Tree;
use sharp_eyes_tests::disk::{Fault, Until};
use sharp_eyes_tests::faulty_broker::{Direction, Fate, Kind, rule};
use sharp_eyes_tests::wait;

use crate::outbox;
use crate::power::{Story, in_memory, until_the_last};
use crate::scene::Scene;
use crate::stage::{play, says};

/// SQLite's, as the agent leaves it.
const PAGE: usize = 4096;

#[test]
fn a_disk_that_is_full_from_any_write_on() {
    fails_from_any_write_on(Errno::NOSPC);
}

#[test]
fn a_disk_with_an_error_from_any_write_on() {
    fails_from_any_write_on(Errno::IO);
}

#[test]
fn a_disk_that_turns_read_only_at_any_write() {
    fails_from_any_write_on(Errno::ROFS);
}

/// Each operation in turn is the first that fails, and all that follow do, until somebody mends the disk.
fn fails_from_any_write_on(error: Errno) {
    play(|folder| {
        let broker = Broker::start(folder, &BrokerOptions::default())?;
        let console = Console::connect(broker.port(), None)?;
        console.await_connection()?;
        let memory = in_memory()?;
        let faults = until_the_last(6, |n| {
            let folder = memory.path().join(n.to_string());
            let story = Story::new(&folder, broker.port())?;
            let mended = folder.join("mended");
            let fault = Fault::Fail { from: n + 1, error, until: Until::Exists(mended.clone()) };
            let last = survives(&story, &console, &fault, &mended).with_context(|| format!("{fault:?}"))?;
            fs::remove_dir_all(&folder)?;
            Ok(last)
        })?;
        ensure!(faults > 30, "the outbox wrote only {faults} times");
        Ok(())
    });
}

/// Whether no operation failed, because there were fewer. To make room on a full disk, messages are forgotten that were
/// delivered: those are with the console.
fn survives(story: &Story, console: &Console, fault: &Fault, mended: &Path) -> Result<bool> {
    let mut source = AlertSource::start_with(&story.village, |command| story.disk.prepare(command, fault))?;
    source.decide_with_pictures(4, Some(Severity::Critical), 3_000)?;
    // What is not on disk waits in memory, and health says why.
    wait::until("alerts to be stored, or a failure", wait::PATIENCE, || match source.health() {
        Err(error) => Some(Err(error)),
        Ok(health) => (health.outbox.failure.is_some() || source.stored().len() == 4).then_some(Ok(())),
    })??;
    fs::write(mended, "")?;
    source.await_stored(4)?;
    source.await_delivery()?;
    source.store(2, Some(Severity::Critical))?;
    let failed = story.disk.counts()?.failed;
    outbox::holds_or(&story.village.state, &source.stop()?, |forgotten| {
        let arrived =
            console.seen(|seen| seen.alerts.iter().any(|received| received.alert.id == forgotten.id));
        ensure!(arrived, "{forgotten:?} is forgotten and was not delivered");
        Ok(())
    })?;
    Ok(failed == 0)
}

/// A box that has so many alerts on its disk and no broker.
fn full_box(scene: &Scene, alerts: usize) -> Result<BTreeSet<uuid::Uuid>> {
    scene.between.set_rule(rule::each(Direction::ToBroker, Kind::Connect, 1, Fate::Cut));
    let mut source = AlertSource::start(&scene.village)?;
    source.store(alerts, None)?;
    Ok(source.stop()?.into_iter().map(|stored| stored.id).collect())
}

/// Fills one page of a database, from 0, with nonsense.
fn damage(database: &Path, page: usize) -> Result<()> {
    let mut bytes = fs::read(database)?;
    bytes[page * PAGE..][..PAGE].fill(0xa5);
    Ok(fs::write(database, bytes)?)
}

/// A page of messages that has others before and behind it: what it takes away is found in no time. The root of their table
/// is an interior page (SQLite file format, 1.6): so many cells, and each begins with the number of a page below.
fn among_messages(database: &Path) -> Result<usize> {
    let sql = "SELECT rootpage FROM sqlite_schema WHERE name = 'message'";
    let root: u32 = Connection::open(database)?.query_row(sql, [], |row| row.get(0))?;
    let bytes = fs::read(database)?;
    let root = &bytes[(root as usize - 1) * PAGE..][..PAGE];
    let number = |at: usize, width: usize| {
        root[at..at + width].iter().fold(0, |number, byte| number << 8 | usize::from(*byte))
    };
    const INTERIOR_OF_A_TABLE: u8 = 5;
    ensure!(root[0] == INTERIOR_OF_A_TABLE && number(3, 2) > 4, "too few pages of messages");
    let cell = number(12 + 2 * 3, 2); // the fourth
    Ok(number(cell, 4) - 1)
}

#[test]
fn of_a_database_whose_last_page_is_damaged_everything_else_is_delivered() {
    play(|folder| {
        let scene = Scene::set(folder)?;
        let promised = full_box(&scene, 300)?;
        let database = scene.village.state.join("outbox.db");
        let pages = usize::try_from(fs::metadata(&database)?.len())? / PAGE;
        damage(&database, pages - 1)?;
        scene.between.heal();
        let mut source = AlertSource::start(&scene.village)?;
        source.store(1, Some(Severity::Critical))?;
        source.health_when("a working outbox that is empty", 2 * wait::PATIENCE, |health| {
            let outbox = &health.outbox;
            (outbox.failure.is_none() && outbox.alerts == 0 && outbox.sequence > 300).then_some(())
        })?;
        let new = source.stored()[0];
        ensure!(new.sequence > 300, "{new:?} has the number of another alert");
        says(&source.process().log(), &["is damaged", "took over what could be read"])?;
        scene.console.wait_for("the new alert", wait::PATIENCE, |seen| {
            seen.alerts.iter().any(|received| received.alert.id == new.id).then_some(())
        })?;
        let arrived: BTreeSet<_> =
            scene.console.seen(|seen| seen.alerts.iter().map(|received| received.alert.id).collect());
        let lost = promised.difference(&arrived).count();
        ensure!(lost <= 20, "{lost} of 300 alerts are lost with one page");
        source.stop().map(drop)
    });
}

#[test]
fn a_box_that_is_killed_at_every_write_of_a_recovery_recovers_afterwards() {
    play(|folder| {
        let scene = Scene::set(folder)?;
        full_box(&scene, 60)?;
        let database = scene.village.state.join("outbox.db");
        damage(&database, among_messages(&database)?)?;
        let damaged = Tree::read(&scene.village.state)?;
        let memory = in_memory()?;
        // Delivered messages stay: what a recovery without a kill has saved is what every other one has to save.
        let recover = |name: &str, fault: &Fault| -> Result<(BTreeSet<uuid::Uuid>, bool)> {
            let folder = memory.path().join(name);
            let story = Story::new(&folder, scene.broker.port())?;
            damaged.write(&story.village.state)?;
            let mut killed =
                AlertSource::start_with(&story.village, |command| story.disk.prepare(command, fault))?;
            let recovered = recovery(&mut killed);
            let (status, _) = killed.end()?;
            let complete = status.signal() != Some(9);
            if complete {
                recovered?;
            } else {
                let mut again = AlertSource::start(&story.village)?;
                recovery(&mut again)?;
                again.stop()?;
            }
            ensure!(story.village.state.join("outbox.corrupt-1.read").exists(), "there was no recovery");
            let saved = outbox::readable(&story.village.state)?;
            fs::remove_dir_all(&folder)?;
            Ok((saved, complete))
        };
        let (expected, _) = recover("whole", &Fault::None)?;
        ensure!(expected.len() > 40, "only {} of 60 alerts were saved", expected.len());
        let kills = until_the_last(4, |n| {
            let fault = Fault::KillWithin(n + 1);
            let (saved, complete) = recover(&n.to_string(), &fault).with_context(|| format!("{fault:?}"))?;
            let lost = expected.difference(&saved).count();
            ensure!(lost <= 1, "{fault:?}: {lost} alerts fewer than a recovery without a kill"); // the one that each stores
            Ok(complete)
        })?;
        ensure!(kills > 50, "a recovery wrote only {kills} times");
        Ok(())
    });
}

/// A box goes through what it has and stores one alert.
fn recovery(source: &mut AlertSource) -> Result<()> {
    source.store(1, Some(Severity::Critical))?;
    source.health_when("a working outbox that is empty", wait::PATIENCE, |health| {
        (health.outbox.failure.is_none() && health.outbox.alerts == 0).then_some(())
    })
}

#[test]
fn a_database_of_a_newer_agent_is_named_and_left_alone() {
    play(|folder| {
        let scene = Scene::set(folder)?;
        full_box(&scene, 3)?;
        let database = scene.village.state.join("outbox.db");
        Connection::open(&database)?.pragma_update(None, "user_version", 99)?;
        let before = fs::read(&database)?;
        let mut agent = Agent::start(&scene.village)?;
        let code = agent.process().wait(wait::PATIENCE)?.code();
        ensure!(code == Some(1), "the agent ended with {code:?}");
        says(&agent.process().log(), &["outbox.db", "newer agent", "schema 99", "install that agent again"])?;
        ensure!(fs::read(&database)? == before, "the database was changed");
        Ok(())
    });
}

#[test]
fn a_database_that_somebody_else_has_locked_is_used_again_when_he_is_gone() {
    play(|folder| {
        let scene = Scene::set(folder)?;
        let mut source = scene.box_at_rest()?;
        source.store(3, None)?;
        let backup = Connection::open(scene.village.state.join("outbox.db"))?;
        backup.execute_batch("BEGIN IMMEDIATE")?;
        source.decide(6, None)?;
        let failure =
            source.health_when("a failure", wait::PATIENCE, |health| health.outbox.failure.clone())?;
        says(&failure, &["locked"])?;
        backup.execute_batch("ROLLBACK")?;
        source.await_stored(9)?;
        scene.everything_arrives(source)
    });
}

#[test]
fn a_box_without_file_descriptors_keeps_alerts_and_delivers_them_later() {
    play(|folder| {
        let mut scene = Scene::set(folder)?;
        let mut source = scene.box_at_rest()?;
        let pid = Pid::from_raw(source.process().pid() as i32);
        let open = fs::read_dir(format!("/proc/{}/fd", source.process().pid()))?.count() as u64;
        let few = Rlimit { current: Some(open / 2), ..rustix::process::getrlimit(Resource::Nofile) };
        let usual = prlimit(pid, Resource::Nofile, few)?;
        scene.broker.kill()?;
        let reason = source.health_when("a reason", wait::PATIENCE, |health| {
            let uplink = &health.uplinks[0];
            uplink.reason.clone().filter(|reason| !uplink.connected && reason.contains("open files"))
        })?;
        says(&reason, &["too many open files"])?;
        source.decide(6, None)?;
        prlimit(pid, Resource::Nofile, usual)?;
        source.await_stored(6)?;
        scene.restart_broker()?;
        scene.everything_arrives(source)
    });
}
