//! The model of a power cut, on scripts of operations.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::SystemTime;

use super::journal::{Change, Operation};
use super::tree::Tree;
use super::volume::Volume;

/// Operations out of lines like those of their display, with the bytes of a write in place of its length.
fn operations(script: &str) -> Vec<Operation> {
    let lines = script.split(';').map(|line| line.split_whitespace().collect::<Vec<_>>());
    let parse = |(n, words): (usize, Vec<&str>)| {
        let change = match words[..] {
            ["create", _] => Change::Create,
            ["mkdir", _] => Change::MakeFolder,
            ["rmdir", _] => Change::RemoveFolder,
            ["unlink", _] => Change::Unlink,
            ["sync", _] => Change::Sync,
            ["truncate", _, size] => Change::Truncate(size.parse().unwrap()),
            ["write", _, offset, bytes] => Change::Write(offset.parse().unwrap(), bytes.into()),
            ["rename", _, to] => Change::Rename(to.into()),
            _ => panic!("{words:?}"),
        };
        let path = if words[1] == "." { "" } else { words[1] }.into();
        Operation { number: n as u64 + 1, at: SystemTime::UNIX_EPOCH, path, change, error: None }
    };
    lines.enumerate().map(parse).collect()
}

/// `a=text b/c=text d/`
fn text(tree: &Tree) -> String {
    let folders = tree.folders.iter().map(|path| format!("{}/", path.display()));
    let files = tree.files.iter();
    let files = files.map(|(path, bytes)| {
        format!("{}={}", path.display(), String::from_utf8_lossy(bytes).replace('\0', "."))
    });
    folders.chain(files).collect::<Vec<_>>().join(" ")
}

fn run(script: &str) -> Volume {
    let files = [("old".into(), b"was".to_vec())].into();
    let mut volume = Volume::new(Tree { folders: BTreeSet::new(), files });
    for operation in operations(script) {
        volume.apply(&operation).unwrap();
    }
    volume
}

fn remains(script: &str) -> BTreeSet<String> {
    run(script).after_power_cut(300, 1).iter().map(|remains| text(&remains.tree)).collect()
}

#[test]
fn what_a_power_cut_leaves() {
    let new = "create a; write a 0 hell";
    for (script, expected) in [
        // Bytes.
        ("write old 0 new", "old=was|old=new|old=nas|old=wew"),
        ("write old 0 new; sync old", "old=new"),
        (
            "write old 3 XY; write old 5 Z",
            "old=was|old=wasX|old=was.Y|old=wasXY|old=was..Z|old=wasX.Z|old=was.YZ|old=wasXYZ",
        ),
        ("truncate old 0; sync old; write old 0 me", "old=|old=m|old=.e|old=me"),
        ("truncate old 0; write old 0 is", "old=was|old=|old=is|old=i|old=.s|old=iss|old=ias|old=wss"),
        // Entries.
        (new, "old=was|a= old=was|a=he old=was|a=..ll old=was|a=hell old=was"),
        (&format!("{new}; sync a"), "old=was|a=hell old=was"),
        (&format!("{new}; sync ."), "a= old=was|a=he old=was|a=..ll old=was|a=hell old=was"),
        (&format!("{new}; sync a; sync ."), "a=hell old=was"),
        ("unlink old", "old=was|"),
        ("unlink old; sync .", ""),
        // Replaced in one step: with both syncs, without the second, and without the first.
        (&format!("{new}; sync a; rename a old; sync ."), "old=hell"),
        (&format!("{new}; sync a; rename a old"), "old=was|a=hell old=was|old=hell"),
        (&format!("{new}; rename a old; sync ."), "old=|old=he|old=..ll|old=hell"),
        // Entries stay in their order.
        ("create a; create b", "old=was|a= old=was|a= b= old=was"),
        ("create a; sync .; unlink a; create b", "a= old=was|old=was|b= old=was"),
        // Folders.
        ("mkdir d; create d/a; sync d/a; sync d", "old=was|d/ d/a= old=was"),
        ("mkdir d; sync .; create d/a", "d/ old=was|d/ d/a= old=was"),
        ("mkdir d; sync .; rename old d/x; sync .", "d/ old=was|d/ d/x=was"),
        ("mkdir d; sync .; rename old d/x; sync .; sync d", "d/ d/x=was"),
        ("mkdir d; create d/a; sync d; sync .; rename d e", "d/ d/a= old=was|e/ e/a= old=was"),
    ] {
        let expected: BTreeSet<String> = expected.split('|').map(str::to_owned).collect();
        assert_eq!(remains(script), expected, "{script}");
    }
}

#[test]
fn a_killed_process_leaves_all_that_it_wrote() {
    for (script, expected) in [
        ("write old 5 x", "old=was..x"),
        ("create a; write a 0 x; rename a old; write old 1 y", "old=xy"),
        ("mkdir d; rename old d/old; truncate d/old 1", "d/ d/old=w"),
        ("mkdir d; rmdir d; unlink old", ""),
    ] {
        assert_eq!(text(&run(script).written()), expected, "{script}");
    }
}

#[test]
fn large_writes_tear_at_sectors_and_seeds_repeat() {
    // From byte 100 on: the borders are at 512 and 1024.
    let volume = run(&format!("truncate old 0; sync old; write old 100 {}", "x".repeat(1000)));
    let written = |tree: &Tree| {
        let bytes = &tree.files[Path::new("old")];
        let first = bytes.iter().position(|byte| *byte == b'x');
        first.map(|first| (first, bytes.len()))
    };
    let parts: BTreeSet<_> =
        volume.after_power_cut(200, 3).iter().filter_map(|remains| written(&remains.tree)).collect();
    assert_eq!(parts, [(100, 512), (100, 1024), (100, 1100), (512, 1100), (1024, 1100)].into());
    let play = |seed| -> Vec<String> {
        volume.after_power_cut(4, seed).into_iter().map(|remains| remains.choice).collect()
    };
    assert_eq!(play(5), play(5));
}

#[test]
fn an_operation_that_the_shim_missed_is_noticed() {
    for script in ["write a 0 x", "unlink a", "rename a b", "truncate a 0"] {
        let error = run("create b").apply(&operations(script)[0]).unwrap_err();
        assert!(format!("{error:#}").contains("not there"), "{script}: {error:#}");
    }
    let mut failed = operations("write a 0 x").remove(0);
    failed.error = Some(rustix::io::Errno::NOSPC);
    run("create b").apply(&failed).unwrap();
}
