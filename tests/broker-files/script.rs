//! What `certificates.sh` refuses, and how it keeps what it made.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use sharp_eyes_tests::places;

use crate::office::play;

#[test]
fn nothing_is_overwritten() {
    play(|office| {
        let issue = ["box", "lan-xi/yun-shan/wang-cun/box-1"];
        office.script(&issue)?;
        let before = everything(&office.certificates())?;
        for again in [&issue[..], &["start"]] {
            let error = office.script(again).err().context("something was made twice")?;
            ensure!(format!("{error:#}").contains("already"), "{error:#}");
        }
        ensure!(everything(&office.certificates())? == before, "a refusal changed files");
        Ok(())
    });
}

#[test]
fn a_name_that_is_no_place_in_the_tree_is_refused() {
    play(|office| {
        let long = ["a-district-of-16b"; 4].join("/");
        let too_long = ["a-district-of-16"; 4].join("/");
        for wrong in [
            &["box", "lan-xi/yun-shan/wang-cun"][..],
            &["box", "lan-xi/yun-shan/wang-cun/box-1/more"],
            &["box", "lan-xi/yun-shan/wang-cun/+"],
            &["box", "lan-xi/yun-shan/#/box-1"],
            &["box", "lan-xi/yun-shan/Wang-Cun/box-1"],
            &["box", "lan-xi//wang-cun/box-1"],
            &["box", "lan-xi/yun-shan/wang-cun/box-1\nx"],
            &["box", &long],
            &["box", &too_long], // each name is short enough, and all together are not
            &["console", "lan-xi/yun-shan/wang-cun", "desk-1"],
            &["console", "lan-xi/yun-shan", "../desk"],
            &["bridge", "lan-xi"],
            &["broker", "mqtt.example,DNS:other.example"],
            &["broker", "*.example"],
        ] {
            ensure!(office.script(wrong).is_err(), "{wrong:?} was issued");
        }
        ensure!(office.script(&["list"])?.is_empty());
        Ok(())
    });
}

#[test]
fn only_certificates_of_the_folder_can_be_revoked() {
    play(|office| {
        office.script(&["broker", "127.0.0.1"])?;
        office.script(&["bridge", "lan-xi/yun-shan"])?;
        for wrong in ["bridge/lan-xi.yun-shan.key.pem", "broker/127.0.0.1.pem", "boxes.pem", "box/lan-xi.pem"]
        {
            ensure!(office.script(&["revoke", wrong]).is_err(), "{wrong} was revoked");
        }
        ensure!(!office.script(&["list"])?.contains("revoked"));
        // By its path from here, or within the folder.
        office.script(&["revoke", "certificates/bridge/lan-xi.yun-shan.pem"])?;
        office.script(&["bridge", "lan-xi/yun-shan"])?;
        office.script(&["revoke", "bridge/lan-xi.yun-shan.pem"])?;
        let list = office.script(&["list"])?;
        ensure!(list.matches("revoked").count() == 2 && list.contains("lan-xi/yun-shan"), "{list}");
        Ok(())
    });
}

#[test]
fn nobody_else_may_read_the_keys() {
    play(|office| {
        office.script(&["broker", "127.0.0.1"])?;
        office.script(&["console", "lan-xi", "desk-1"])?;
        let files = everything(&office.certificates())?;
        let keys = files.iter().filter(|(file, _)| file.ends_with("key.pem"));
        ensure!(keys.clone().count() == 4 + 2, "not all keys are where they should be: {files:?}");
        for (file, _) in keys {
            let mode = fs::metadata(file)?.permissions().mode() & 0o777;
            ensure!(mode == 0o600, "{file} has mode {mode:o}");
        }
        Ok(())
    });
}

#[test]
fn without_a_command_it_says_what_it_can_do() {
    let output =
        Command::new(places::repository().join("config/mosquitto/certificates.sh")).output().unwrap();
    assert_eq!(output.status.code(), Some(64));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        ["start", "broker", "box", "console", "bridge", "revoke", "list"]
            .iter()
            .all(|word| said.contains(word))
    );
}

/// All files below a folder with what is in them.
fn everything(folder: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(everything(&path)?);
        } else {
            found.push((path.to_string_lossy().into_owned(), fs::read(&path)?));
        }
    }
    found.sort();
    Ok(found)
}
