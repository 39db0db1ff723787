//! Configurations that cannot be used: every mistake is told at once, with its place.

use std::fs;

use anyhow::{Context, Result, ensure};
use sharp_eyes_tests::agent::Agent;
use sharp_eyes_tests::process::Process;
use sharp_eyes_tests::village::{Village, VillageCamera};
use sharp_eyes_tests::{places, wait};

use crate::stage::{play, says};

/// `EX_USAGE` of sysexits.h.
const BAD_CONFIGURATION: i32 = 64;

/// A text of the village's configuration, and what a typing error makes of it.
const MISTAKES: [(&str, &str, &str); 5] = [
    ("max_age = \"30d\"", "max_age = \"30\"", "max_age"),
    ("port = 1883", "port = 1883\nprot = 1", "prot"),
    ("rtsp://127.0.0.1:8554", "rtsp://viewer:s3cret@127.0.0.1:8554", "password"),
    ("zone = \"anywhere\"", "zone = \"anwhere\"", "anwhere"),
    ("severity = \"major\"", "severity = \"grave\"", "grave"),
];

fn village(folder: &std::path::Path) -> Result<Village> {
    let village = Village::new(folder, 1883)?;
    Ok(village.with(VillageCamera::guarded("gate", "rtsp://127.0.0.1:8554/gate")))
}

#[test]
fn five_mistakes_are_told_at_once_with_their_lines() {
    play(|folder| {
        let mut text = village(folder)?.toml();
        for (right, wrong, _) in MISTAKES {
            ensure!(text.contains(right), "{right} is not in the configuration");
            text = text.replacen(right, wrong, 1);
        }
        let file = folder.join("mistaken.toml");
        std::fs::write(&file, &text)?;
        let checked = Agent::check(&file)?;
        ensure!(checked.status.code() == Some(BAD_CONFIGURATION), "{:?}", checked.status);
        let told =
            String::from_utf8_lossy(&checked.stderr).into_owned() + &String::from_utf8_lossy(&checked.stdout);
        for (_, wrong, word) in MISTAKES {
            says(&told, &[word])?;
            let line = wrong.lines().last().unwrap_or_default();
            let number = text.lines().position(|found| found.contains(line)).unwrap_or_default() + 1;
            let named = told.lines().any(|told| {
                told.split(|c: char| !c.is_ascii_digit()).any(|digits| digits == number.to_string())
            });
            ensure!(named, "line {number} ({line}) is not named in\n{told}");
        }
        ensure!(!told.contains("s3cret"), "the password is told: {told}");

        let mut command = std::process::Command::new(places::binary("sharp-eyes-agent")?);
        command.arg("run").arg("--config").arg(&file).stdout(std::process::Stdio::null());
        let mut process = Process::start("sharp-eyes-agent", command, &Agent::log_file(folder))?;
        let code = process.wait(wait::PATIENCE)?.code();
        ensure!(code == Some(BAD_CONFIGURATION), "run ended with {code:?}");
        Ok(())
    });
}

#[test]
fn a_configuration_without_mistakes_passes() {
    play(|folder| {
        let file = village(folder)?.write()?;
        let checked = Agent::check(&file)?;
        ensure!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
        // What else it needs is said, and no problem where it is checked.
        let text = fs::read_to_string(&file)?;
        let model = text.lines().find(|line| line.starts_with("model = ")).context("no model")?;
        fs::write(&file, text.replace(model, "model = \"no-such-model\""))?;
        let checked = Agent::check(&file)?;
        ensure!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
        says(
            &String::from_utf8_lossy(&checked.stdout),
            &[
                "the model no-such-model is looked for from where the agent is started",
                "the model no-such-model is not on this machine",
            ],
        )
    });
}

#[test]
fn a_file_that_is_missing_is_named() {
    play(|folder| {
        let checked = Agent::check(&folder.join("no-such.toml"))?;
        ensure!(!checked.status.success());
        says(&String::from_utf8_lossy(&checked.stderr), &["no-such.toml"])
    });
}
