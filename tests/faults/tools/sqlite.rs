//! The shim and the model of a power cut on SQLite, which promises to survive one. Were the shim blind to something that
//! SQLite does, or the model too harsh, this would fail; and with its syncs switched off, SQLite has to fail.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use rusqlite::Connection;
use sharp_eyes_tests::disk::tree::Tree;
use sharp_eyes_tests::disk::volume::Volume;
use sharp_eyes_tests::disk::{Disk, Fault};

/// Where [`writer`] writes, and with which `PRAGMA synchronous`; without them, it does nothing.
const FOLDER: &str = "SHARP_EYES_TEST_DATABASE";
const SYNCHRONOUS: &str = "SHARP_EYES_TEST_SYNCHRONOUS";

const ROWS: i64 = 12;

/// Not a test: the program under the shim, which is this binary started again. It says after which operation each of its
/// transactions was durable, as it was told.
#[test]
fn writer() {
    let (Some(folder), Ok(synchronous)) = (std::env::var_os(FOLDER), std::env::var(SYNCHRONOUS)) else {
        return;
    };
    let operations = || {
        let counts = std::fs::read(std::env::var_os("SHARP_EYES_DISK_COUNTS").unwrap()).unwrap();
        u64::from_ne_bytes(counts[..8].try_into().unwrap())
    };
    let db = Connection::open(Path::new(&folder).join("a.db")).unwrap();
    // The log goes into the database after every few transactions.
    let set = "PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 6;";
    db.execute_batch(&format!(
        "{set} PRAGMA synchronous = {synchronous}; CREATE TABLE row (n INTEGER PRIMARY KEY, b BLOB)"
    ))
    .unwrap();
    for n in 1..=ROWS {
        db.execute("INSERT INTO row VALUES (?, ?)", (n, vec![n as u8; 2_000])).unwrap();
        println!("\ndurable {n} {}", operations());
    }
}

/// The rows that are left, if the database is whole.
fn rows(folder: &Path) -> Result<i64> {
    let db = Connection::open(folder.join("a.db"))?;
    db.pragma_update(None, "synchronous", "OFF")?; // nobody needs this copy for long
    let verdict: String = db.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
    ensure!(verdict == "ok", "{verdict}");
    let there: i64 = db.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if there == 0 {
        return Ok(0);
    }
    // Only the first rows, each as it was.
    let sum = "SELECT count(*), coalesce(max(n), 0), total(length(b)) / 2000 FROM row";
    let (count, last, whole): (i64, i64, f64) =
        db.query_row(sum, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    ensure!(count == last && count as f64 == whole, "{count} rows up to {last}, {whole} of them whole");
    Ok(count)
}

/// Tries what each moment may leave: the number of states, and of those in which something promised was gone.
fn play(synchronous: &str) -> Result<(usize, Vec<String>)> {
    let temporary = tempfile::tempdir()?;
    let disk = Disk::recorded(&temporary.path().join("state"), &temporary.path().join("notes"))?;
    let before = Tree::read(disk.folder())?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--exact", "tools::sqlite::writer", "--nocapture", "--test-threads=1"]);
    command.env(FOLDER, disk.folder()).env(SYNCHRONOUS, synchronous).stderr(Stdio::null());
    disk.prepare(&mut command, &Fault::None);
    let output = String::from_utf8(command.output()?.stdout)?;
    let promises: Vec<u64> = output
        .lines()
        .filter_map(|line| line.strip_prefix("durable ")?.split_once(' ')?.1.parse().ok())
        .collect();
    ensure!(promises.len() == ROWS as usize, "{output}");

    let mut volume = Volume::new(before);
    let (mut states, mut broken) = (0, Vec::new());
    let place = temporary.path().join("after");
    for operation in disk.journal()? {
        volume.apply(&operation)?;
        let promised = promises.iter().filter(|at| **at <= operation.number).count() as i64;
        for remains in volume.after_power_cut(3, operation.number) {
            states += 1;
            remains.tree.write(&place)?;
            match rows(&place) {
                Ok(rows) if rows >= promised => {}
                other => broken.push(format!(
                    "after {operation}: {promised} rows promised, {other:?} of {}",
                    remains.choice
                )),
            }
        }
    }
    let difference = volume.written().difference(&Tree::read(disk.folder())?);
    ensure!(difference.is_none(), "the shim has missed something: {difference:?}");
    Ok((states, broken))
}

#[test]
fn sqlite_keeps_its_promise_and_breaks_it_without_syncs() -> Result<()> {
    let (states, broken) = play("FULL")?;
    ensure!(states > 200 && broken.is_empty(), "{} of {states}: {:#?}", broken.len(), broken.first());
    println!("{states} states with syncs, all whole");
    let (states, broken) = play("OFF").context("without syncs")?;
    println!("{states} states without syncs, {} broken", broken.len());
    ensure!(broken.len() > 10, "only {} of {states} states are broken without syncs", broken.len());
    Ok(())
}
