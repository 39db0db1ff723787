//! The agent is killed at every operation by which the outbox changes its disk, and the power is cut there: whatever such
//! an end leaves is opened by the outbox itself, and everything that was promised is in it.

use std::collections::HashSet;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::SystemTime;

use anyhow::{Context, Result, bail, ensure};
use sharp_eyes_protocol::level::Severity;
use sharp_eyes_tests::alert_source::{AlertSource, Stored};
use sharp_eyes_tests::broker::{Broker, BrokerOptions};
use sharp_eyes_tests::disk::journal::Change;
use sharp_eyes_tests::disk::tree::Tree;
use sharp_eyes_tests::disk::volume::Volume;
use sharp_eyes_tests::disk::{Disk, Fault};
use sharp_eyes_tests::village::Village;

use crate::outbox;
use crate::stage::play;

/// A box on a disk that is watched: the folder above its state folder, because making that is a change, too.
pub(crate) struct Story {
    pub(crate) village: Village,
    pub(crate) disk: Disk,
}

impl Story {
    pub(crate) fn new(folder: &Path, broker_port: u16) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let mut village = AlertSource::village(folder, broker_port)?;
        let disk = Disk::recorded(&folder.join("disk"), &folder.join("notes"))?;
        village.state = disk.folder().join("state");
        village.delivery_lines = "evidence_rate = \"100MB\"\n".into();
        Ok(Self { village, disk })
    }

    /// Starts a box and lets it do all that an outbox does: take in alerts with pictures, be rid of them, take in more, and
    /// be closed. The fault may end it at any time. Returns what it promised, and whether it came to its end.
    fn tell(&self, fault: &Fault, alerts: usize, picture: usize) -> Result<(Vec<Stored>, bool)> {
        let mut source = AlertSource::start_with(&self.village, |command| self.disk.prepare(command, fault))?;
        let story = |source: &mut AlertSource| -> Result<()> {
            source.decide_with_pictures(alerts, Some(Severity::Critical), picture)?;
            source.await_stored(alerts)?;
            source.await_delivery()?;
            source.store(alerts, Some(Severity::Critical))
        };
        let told = story(&mut source);
        let (status, promised) = source.end()?;
        if status.signal() == Some(9) {
            return Ok((promised, false));
        }
        told?;
        ensure!(status.success(), "it ended with {status}");
        Ok((promised, true))
    }
}

/// A folder in memory where there is one: these tests write much, and it is they who say what a disk forgets.
pub(crate) fn in_memory() -> Result<tempfile::TempDir> {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).context("a folder for temporary files")
}

/// Does `work` with 0, 1, 2, ... beside each other, until one says that it was the last.
pub(crate) fn until_the_last(workers: usize, work: impl Fn(u64) -> Result<bool> + Sync) -> Result<u64> {
    let (next, last) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let one = || {
            while !last.load(Ordering::Relaxed) {
                let n = next.fetch_add(1, Ordering::Relaxed);
                match work(n) {
                    Ok(is_last) => last.fetch_or(is_last, Ordering::Relaxed),
                    Err(error) => {
                        last.store(true, Ordering::Relaxed);
                        return Err(error);
                    }
                };
            }
            Ok(())
        };
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(one)).collect();
        for worker in workers {
            worker.join().unwrap_or_else(|_| bail!("a worker panicked"))?;
        }
        Ok(next.load(Ordering::Relaxed))
    })
}

#[test]
fn a_box_that_is_killed_at_every_write_and_in_the_middle_of_it() {
    play(|folder| {
        let broker = Broker::start(folder, &BrokerOptions::default())?;
        let memory = in_memory()?;
        let kills = until_the_last(4, |n| {
            let (operation, torn) = (n / 2 + 1, n % 2 == 1);
            let fault = if torn { Fault::KillWithin(operation) } else { Fault::KillBefore(operation) };
            let folder = memory.path().join(n.to_string());
            let story = Story::new(&folder, broker.port())?;
            let (promised, complete) = story.tell(&fault, 3, 3_000)?;
            outbox::holds(&story.village.state, &promised).with_context(|| format!("{fault:?}"))?;
            fs::remove_dir_all(&folder)?;
            Ok(complete)
        })?;
        ensure!(kills > 100, "the outbox wrote only {kills} times");
        Ok(())
    });
}

#[test]
fn a_power_cut_at_any_moment() {
    play(|folder| {
        let broker = Broker::start(folder, &BrokerOptions::default())?;
        let memory = in_memory()?;
        let story = Story::new(&memory.path().join("box"), broker.port())?;
        let before = Tree::read(story.disk.folder())?;
        // Enough for the log to be emptied into the database while the agent runs.
        let (promised, complete) = story.tell(&Fault::None, 16, 50_000)?;
        ensure!(complete && promised.len() == 32, "{} alerts", promised.len());
        let operations = story.disk.journal()?;

        // A full queue waits for the openers.
        let (openings, queue) = mpsc::sync_channel::<(String, Tree, usize)>(4);
        let queue = Mutex::new(queue);
        let open = |n: usize| -> Result<()> {
            let place = memory.path().join(format!("opener-{n}"));
            let mut outcome = Ok(());
            loop {
                let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
                let Ok((when, tree, due)) = next else { return outcome };
                if outcome.is_err() {
                    continue; // so that the queue is never full for ever
                }
                outcome = tree
                    .write(&place)
                    .and_then(|()| outbox::holds(&place.join("state"), &promised[..due]))
                    .context(when);
            }
        };
        std::thread::scope(|scope| {
            let open = &open;
            let openers: Vec<_> = (0..2).map(|n| scope.spawn(move || open(n))).collect();
            let mut volume = Volume::new(before);
            let mut seen = HashSet::new();
            for n in 0..=operations.len() {
                let next = operations.get(n);
                // What a cut between two writes leaves, one after the second leaves too, since it may lose any of them.
                let telling = next.is_none_or(|next| !matches!(next.change, Change::Write(..))) || n % 8 == 0;
                // Until the next operation has ended, the power may go, with all that was promised until then.
                let until = next.map_or(SystemTime::now(), |next| next.at);
                let due = promised.iter().take_while(|stored| stored.since < until).count();
                let cuts = if telling { volume.after_power_cut(6, n as u64) } else { Vec::new() };
                for remains in cuts {
                    let mut hasher = DefaultHasher::new();
                    (&remains.tree, due).hash(&mut hasher);
                    let after = n.checked_sub(1).map_or("at the start".into(), |n| operations[n].to_string());
                    let when = format!("after {n} operations ({after}): {}", remains.choice);
                    if seen.insert(hasher.finish()) {
                        openings.send((when, remains.tree, due)).context("no opener is left")?;
                    }
                }
                if let Some(operation) = next {
                    volume.apply(operation)?;
                }
            }
            drop(openings);
            for opener in openers {
                opener.join().unwrap_or_else(|_| bail!("an opener panicked"))?;
            }
            // How many differ depends on how the writer happened to group its commits.
            ensure!(seen.len() > 500, "only {} states of {} operations", seen.len(), operations.len());
            Ok(())
        })
    });
}
