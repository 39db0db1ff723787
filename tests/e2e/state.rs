//! Disks that are full, turn read-only or cannot be written at all.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Result, ensure};
use sharp_eyes_tests::agent::Agent;
use sharp_eyes_tests::broker::BrokerOptions;
use sharp_eyes_tests::console::Console;
use sharp_eyes_tests::village::{Village, VillageCamera};
use sharp_eyes_tests::{places, wait};

use crate::stage::{complete, goes_on, play, raised, says, skip, street, township, village};

#[test]
fn a_state_folder_that_cannot_be_made_is_named_and_used_when_it_can() {
    play(|folder| {
        let (broker, console) = township(folder, &BrokerOptions::default())?;
        let gate = street(folder, "gate", &[])?;
        let mut village = village(folder, &broker)?.with(VillageCamera::guarded("gate", gate.url("gate")));
        // A file in the way stops root, too.
        let way = folder.join("way");
        fs::write(&way, "")?;
        village.state = way.join("state");
        let mut agent = Agent::start(&village)?;
        let reason = agent.health_when("the outbox to fail", |health| health.outbox.failure.clone())?;
        says(&reason, &["way/state"])?;
        goes_on(&mut agent, "gate", 5)?;
        fs::remove_file(&way)?;
        works_again(&mut agent, &console)
    });
}

#[test]
fn a_disk_that_is_full_at_the_start_is_told_and_alerts_come_when_there_is_room() {
    play(|folder| {
        let Some(disk) = Disk::mount(&folder.join("disk"))? else {
            skip("a disk that is full at the start", NO_DISK);
            return Ok(());
        };
        disk.fill()?;
        let (broker, console) = township(folder, &BrokerOptions::default())?;
        let gate = street(folder, "gate", &[])?;
        let mut village = village(folder, &broker)?.with(VillageCamera::guarded("gate", gate.url("gate")));
        village.state = disk.folder.join("state");
        let mut agent = Agent::start(&village)?;
        let reason = agent.health_when("the outbox to fail", |health| health.outbox.failure.clone())?;
        says(&reason, &["disk/state", "full"])?;
        goes_on(&mut agent, "gate", 5)?;
        disk.empty()?;
        works_again(&mut agent, &console)
    });
}

#[test]
fn on_a_disk_that_fills_up_no_alert_is_lost_and_each_lost_picture_is_counted() {
    play(|folder| {
        let Some(disk) = Disk::mount(&folder.join("disk"))? else {
            skip("a disk that fills up", NO_DISK);
            return Ok(());
        };
        let persistent = BrokerOptions { persistent: true, ..BrokerOptions::default() };
        let (mut broker, console) = township(folder, &persistent)?;
        let gate = street(folder, "gate", &[])?;
        let mut village = village(folder, &broker)?.with(VillageCamera::guarded("gate", gate.url("gate")));
        village.state = disk.folder.join("state");
        let mut agent = Agent::start(&village)?;
        console.await_alerts(2)?;

        broker.kill()?;
        disk.fill()?;
        let before = raised(&agent.health()?);
        agent.health_when("5 more alerts, and a complaint", |health| {
            let complaint = health.outbox.failure.is_some() || health.outbox.evicted_evidence > 0;
            (raised(health) >= before + 5 && complaint).then_some(())
        })?;
        disk.empty()?;
        broker.restart()?;
        works_again(&mut agent, &console)?;
        let last = agent.health_when("everything to be delivered", |health| {
            let rest = health.outbox.alerts + health.outbox.evidence;
            (rest == 0).then(|| (raised(health), health.outbox.evicted_evidence))
        });
        let (alerts, lost) = last?;
        console.wait_for("every picture that is not counted as lost", wait::PATIENCE, |seen| {
            (seen.evidence.len() as u64 + lost >= alerts).then_some(())
        })
    });
}

#[test]
fn a_disk_that_is_read_only_is_told_and_alerts_come_when_it_is_not() {
    play(|folder| {
        let Some(disk) = Disk::mount(&folder.join("disk"))? else {
            skip("a read-only disk", NO_DISK);
            return Ok(());
        };
        let (broker, console) = township(folder, &BrokerOptions::default())?;
        let gate = street(folder, "gate", &[])?;
        let mut village = village(folder, &broker)?.with(VillageCamera::guarded("gate", gate.url("gate")));
        village.state = disk.folder.join("state");
        let agent = Agent::start(&village)?;
        console.await_alerts(1)?;
        ensure!(agent.stop()? == 0, "asked to end, the agent ended with an error");

        // As after a reboot with a file system that has an error. (It cannot happen under an agent that has the
        // database open: the kernel refuses that.)
        disk.remount("ro")?;
        let mut agent = Agent::start(&village)?;
        let reason = agent.health_when("the outbox to fail", |health| health.outbox.failure.clone())?;
        says(&reason, &["disk/state", "write"])?;
        goes_on(&mut agent, "gate", 5)?;
        disk.remount("rw")?;
        works_again(&mut agent, &console)
    });
}

#[test]
fn two_agents_do_not_share_a_state_folder() {
    play(|folder| {
        let (broker, console) = township(folder, &BrokerOptions::default())?;
        let gate = street(folder, "gate", &[])?;
        let village = village(folder, &broker)?.with(VillageCamera::guarded("gate", gate.url("gate")));
        let _first = Agent::start(&village)?;
        console.await_alerts(1)?;
        let other = folder.join("other");
        fs::create_dir_all(&other)?;
        let second = Village { folder: other, metrics_port: places::free_port()?, ..village };
        let mut second = Agent::start(&second)?;
        let code = second.process().wait(wait::PATIENCE)?.code();
        ensure!(code == Some(1), "the second agent ended with {code:?}");
        says(&second.process().log(), &["state"])?;
        console.await_alerts(2).map(drop)
    });
}

/// What was raised meanwhile arrives, too.
fn works_again(agent: &mut Agent, console: &Console) -> Result<()> {
    agent.health_when("the outbox to work", |health| health.outbox.failure.is_none().then_some(()))?;
    let last = raised(&agent.health()?) + 1;
    console.await_alerts(last as usize)?;
    complete(&console.seen(|seen| seen.sequences()), last)
}

const NO_DISK: &str = "no tmpfs can be mounted here (that takes root)";

/// A disk of 2 MB that is really full when it is full.
struct Disk {
    folder: PathBuf,
}

impl Disk {
    /// `None` where that is not allowed.
    fn mount(folder: &Path) -> Result<Option<Self>> {
        fs::create_dir_all(folder)?;
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"]).arg(folder).stderr(Stdio::null());
        let mounted = mount.status().is_ok_and(|status| status.success());
        Ok(mounted.then(|| Self { folder: folder.to_owned() }))
    }

    fn fill(&self) -> Result<()> {
        let mut file = File::create(self.folder.join("filler"))?;
        while file.write_all(&[0; 4096]).is_ok() {}
        while file.write_all(&[0]).is_ok() {}
        Ok(())
    }

    fn remount(&self, mode: &str) -> Result<()> {
        let mut mount = Command::new("mount");
        mount.arg("-o").arg(format!("remount,{mode}")).arg(&self.folder);
        ensure!(mount.status()?.success(), "mount -o remount,{mode} failed");
        Ok(())
    }

    fn empty(&self) -> Result<()> {
        Ok(fs::remove_file(self.folder.join("filler"))?)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.folder).status(); // the folder stays mounted otherwise
    }
}
