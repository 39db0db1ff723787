//! The shim and the model of a power cut, on programs that write a known pattern.

use std::fs::{self, File};
use std::io::{Seek, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use rustix::io::Errno;
use sharp_eyes_tests::disk::journal::Operation;
use sharp_eyes_tests::disk::tree::Tree;
use sharp_eyes_tests::disk::volume::Volume;
use sharp_eyes_tests::disk::{self, Counts, Disk, Fault, Until};
use tempfile::TempDir;

/// Where [`writer`] writes; without it, it does nothing.
const FOLDER: &str = "SHARP_EYES_TEST_FOLDER";

/// Not a test: the program under the shim, which is this binary started again. It goes on after errors, and prints them.
#[test]
fn writer() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let folder = Path::new(&folder);
    let path = |name: &str| folder.join(name);
    let steps: [(&str, &dyn Fn() -> std::io::Result<()>); 6] = [
        ("append", &|| {
            let mut file = File::options().create(true).append(true).open(path("log"))?;
            file.write_all(b"one line\n")?;
            file.write_all(b"another\n")?;
            file.sync_data()
        }),
        ("pages", &|| {
            let mut file = File::options().create(true).truncate(false).write(true).open(path("pages"))?;
            file.write_all_at(&[b'x'; 1000], 0)?;
            file.write_all_at(&[b'y'; 10], 500)?;
            file.seek(std::io::SeekFrom::Start(990))?;
            file.write_all(&[b'z'; 20])?;
            file.set_len(1005)?;
            file.sync_all()
        }),
        ("replace", &|| {
            let mut file = File::create(path("sequence.new"))?;
            file.write_all(b"2048")?;
            file.sync_all()?;
            fs::rename(path("sequence.new"), path("sequence"))?;
            File::open(folder)?.sync_all()
        }),
        ("folder", &|| {
            fs::create_dir(path("aside"))?;
            fs::copy(path("log"), path("aside/log"))?;
            fs::rename(path("pages"), path("aside/pages"))
        }),
        ("unseen", &|| {
            fs::write(path("outbox.db-shm"), b"mapped")?;
            fs::write(folder.with_extension("elsewhere"), b"not below the folder")
        }),
        ("tidy", &|| {
            fs::remove_file(path("aside/log"))?;
            fs::remove_file(path("aside/pages"))?;
            fs::remove_dir(path("aside"))
        }),
    ];
    for (name, step) in steps {
        if let Err(error) = step() {
            println!("{name}: {:?}", error.kind());
        }
    }
}

/// What it does.
const OPERATIONS: &str = "create log, write log 0+9, write log 9+8, sync log, \
    create pages, write pages 0+1000, write pages 500+10, write pages 990+20, truncate pages 1005, sync pages, \
    create sequence.new, write sequence.new 0+4, sync sequence.new, rename sequence.new sequence, sync ., \
    mkdir aside, create aside/log, write aside/log 0+17, rename pages aside/pages, \
    unlink aside/log, unlink aside/pages, rmdir aside";

/// A folder with a file in it, a disk for it, and the program.
struct Stage {
    _temporary: TempDir,
    disk: Disk,
    before: Tree,
}

impl Stage {
    fn new() -> Result<Self> {
        let temporary = tempfile::tempdir()?;
        let folder = temporary.path().join("state");
        let disk = Disk::recorded(&folder, &temporary.path().join("notes"))?;
        fs::write(folder.join("sequence"), "1024")?;
        let before = Tree::read(&folder)?;
        Ok(Self { _temporary: temporary, disk, before })
    }

    /// From the beginning. Returns the signal that ended it, and what it printed.
    fn play(&self, fault: &Fault) -> Result<(Option<i32>, Vec<String>)> {
        self.before.write(self.disk.folder())?;
        self.disk.reset()?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--exact", "tools::disk::writer", "--nocapture", "--test-threads=1"]);
        command.env(FOLDER, self.disk.folder()).stderr(Stdio::null());
        self.disk.prepare(&mut command, fault);
        let output = command.output()?;
        let text = String::from_utf8(output.stdout)?;
        let names = ["append", "pages", "replace", "folder", "unseen", "tidy"];
        // The harness begins the first line with the name of the test.
        let lines = text
            .lines()
            .filter_map(|line| names.iter().find_map(|name| Some(&line[line.find(&format!("{name}: "))?..])));
        Ok((output.status.signal(), lines.map(str::to_owned).collect()))
    }

    fn now(&self) -> Result<Tree> {
        Tree::read(self.disk.folder())
    }
}

fn words(operations: &[Operation]) -> String {
    operations.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// The folder after each of the first operations, none included.
fn history(before: &Tree, operations: &[Operation]) -> Result<Vec<Volume>> {
    let mut volume = Volume::new(before.clone());
    let mut all = vec![volume.clone()];
    for operation in operations {
        volume.apply(operation)?;
        all.push(volume.clone());
    }
    Ok(all)
}

fn same(expected: &Tree, found: &Tree, when: &str) -> Result<()> {
    let difference = expected.difference(found);
    ensure!(difference.is_none(), "{when}: {}", difference.unwrap_or_default());
    Ok(())
}

#[test]
fn every_operation_is_counted_and_told_and_makes_the_folder_again() -> Result<()> {
    let stage = Stage::new()?;
    assert_eq!(stage.play(&Fault::None)?, (None, Vec::new()));
    let operations = stage.disk.journal()?;
    assert_eq!(words(&operations), OPERATIONS);
    assert!(operations.iter().map(|operation| operation.number).eq(1..=22));
    assert!(operations.is_sorted_by_key(|operation| operation.at));
    assert!(operations[0].at.elapsed()?.as_secs() < 60);
    let counts = Counts { operations: 22, fsyncs: 4, bytes: 9 + 8 + 1000 + 10 + 20 + 4 + 17, failed: 0 };
    assert_eq!(stage.disk.counts()?, counts);
    let volumes = history(&stage.before, &operations)?;
    same(&volumes[22].written(), &stage.now()?, "in the end")
}

#[test]
fn killed_before_each_operation_and_in_the_middle_of_each_write() -> Result<()> {
    let stage = Stage::new()?;
    stage.play(&Fault::None)?;
    let operations = stage.disk.journal()?;
    let volumes = history(&stage.before, &operations)?;
    for (n, operation) in operations.iter().enumerate() {
        let number = n as u64 + 1;
        assert_eq!(stage.play(&Fault::KillBefore(number))?.0, Some(9), "{operation}");
        same(&volumes[n].written(), &stage.now()?, &format!("killed before {operation}"))?;
        assert_eq!(stage.disk.journal()?.len(), n);

        assert_eq!(stage.play(&Fault::KillWithin(number))?.0, Some(9), "{operation}");
        let is_write = operation.to_string().starts_with("write");
        let torn = stage.disk.journal()?;
        assert_eq!(torn.len(), n + usize::from(is_write), "{operation}");
        same(
            &history(&stage.before, &torn)?[torn.len()].written(),
            &stage.now()?,
            &format!("within {operation}"),
        )?;
        ensure!(!is_write || stage.now()? != volumes[n + 1].written(), "{operation} was not torn");
    }
    Ok(())
}

#[test]
fn operations_fail_as_a_full_a_broken_and_a_read_only_disk_lets_them() -> Result<()> {
    let stage = Stage::new()?;
    let fail = |from, error, until| Fault::Fail { from, error, until };
    for (fault, printed) in [
        // From the write of the second line on. There is nothing to rename or remove then.
        (
            fail(3, Errno::NOSPC, Until::Never),
            "append: StorageFull, pages: StorageFull, replace: StorageFull, folder: StorageFull, tidy: NotFound",
        ),
        // The replacement's rename needs no space, its file does.
        (fail(12, Errno::NOSPC, Until::After(1)), "replace: StorageFull"),
        (fail(4, Errno::IO, Until::After(1)), "append: Uncategorized"),
        (
            fail(14, Errno::ROFS, Until::Never),
            "replace: ReadOnlyFilesystem, folder: ReadOnlyFilesystem, tidy: NotFound",
        ),
    ] {
        let (signal, lines) = stage.play(&fault)?;
        assert_eq!((signal, lines.join(", ").as_str()), (None, printed), "{fault:?}");
        let operations = stage.disk.journal()?;
        let failed = operations.iter().filter(|operation| operation.error.is_some()).count();
        let Counts { operations: counted, failed: by_fault, .. } = stage.disk.counts()?;
        assert_eq!(counted, operations.len() as u64);
        assert!(by_fault > 0 && by_fault <= failed as u64, "{fault:?}");
        let volumes = history(&stage.before, &operations)?;
        same(&volumes[operations.len()].written(), &stage.now()?, &format!("{fault:?}"))?;
    }
    Ok(())
}

#[test]
fn a_disk_heals_when_a_file_appears() -> Result<()> {
    let stage = Stage::new()?;
    let sign = stage.disk.folder().with_extension("healed");
    let fault = Fault::Fail { from: 1, error: Errno::NOSPC, until: Until::Exists(sign.clone()) };
    let script =
        format!("cd {}; echo 1 >a || touch {} && echo 2 >b", stage.disk.folder().display(), sign.display());
    let mut command = Command::new("sh");
    command.args(["-c", &script]).stderr(Stdio::null());
    ensure!(stage.disk.run(command, &fault)?.success(), "the second file is made");
    assert_eq!(
        words(&stage.disk.journal()?),
        "create a: No space left on device (os error 28), create b, write b 0+2"
    );
    Ok(())
}

#[test]
fn a_shell_script_is_counted_too() -> Result<()> {
    let temporary = tempfile::tempdir()?;
    let mut script = Command::new("sh");
    let commands = "mkdir d; printf hello >d/a; sync -d d/a; mv d/a d/b; truncate -s 2 d/b; sync d; rm -r d";
    script.args(["-c", commands]).current_dir(temporary.path());
    let (status, counts) = disk::count(temporary.path(), script)?;
    assert!(status.success());
    assert_eq!(counts, Counts { operations: 9, fsyncs: 2, bytes: 5, failed: 0 });
    Ok(())
}

/// The replacement of a file in one step is never seen half done, whenever the power goes; without its fsync it is.
#[test]
fn a_power_cut_spares_what_is_replaced_in_order_and_nothing_else() -> Result<()> {
    let stage = Stage::new()?;
    stage.play(&Fault::None)?;
    let operations = stage.disk.journal()?;
    let seen = |operations: &[Operation]| -> Result<Vec<String>> {
        let mut contents: Vec<String> = Vec::new();
        for (n, volume) in history(&stage.before, operations)?.iter().enumerate() {
            for remains in volume.after_power_cut(20, n as u64) {
                let sequence = remains.tree.files.get(Path::new("sequence"));
                let sequence = sequence.with_context(|| format!("gone: {}", remains.choice))?;
                contents.push(String::from_utf8_lossy(sequence).into_owned());
            }
        }
        contents.sort();
        contents.dedup();
        Ok(contents)
    };
    assert_eq!(seen(&operations)?, ["1024", "2048"]);
    let careless: Vec<_> =
        operations.into_iter().filter(|operation| operation.to_string() != "sync sequence.new").collect();
    assert_eq!(seen(&careless)?, ["", "\x00\x0048", "1024", "20", "2048"]);
    Ok(())
}
