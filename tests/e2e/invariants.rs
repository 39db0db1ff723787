//! What the source itself must keep to.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use sharp_eyes_tests::places;

/// Foreign interfaces, and the one module that may name each (invariant 1).
const FENCES: [(&str, &str); 5] = [
    ("gstreamer", "agent/edge/src/camera/"),
    ("ort", "agent/vision/src/onnx.rs"),
    ("rumqttc", "agent/edge/src/uplink/broker.rs"),
    ("rusqlite", "agent/edge/src/outbox/store/"),
    ("tough", "agent/edge/src/models/tuf/"),
];

#[test]
fn each_foreign_interface_is_named_in_one_module() {
    let root = places::repository();
    let mut trespassers = Vec::new();
    for (name, module) in FENCES {
        let mut named_at_home = false;
        each_source(&root.join("agent"), &mut |file, text| {
            if !names_crate(text, name) {
                return;
            }
            let file = file.strip_prefix(&root).unwrap_or(file).to_string_lossy().into_owned();
            if file.starts_with(module) {
                named_at_home = true;
            } else {
                trespassers.push(format!("{file} names {name}, which belongs into {module}"));
            }
        })
        .unwrap();
        assert!(named_at_home, "{module} does not name {name}: is it elsewhere now?");
    }
    assert!(trespassers.is_empty(), "{trespassers:#?}");
}

#[test]
fn nothing_of_the_agent_is_unsafe() {
    let root = places::repository();
    each_source(&root.join("agent"), &mut |file, text| {
        let unsafe_line = code(text)
            .find(|line| line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|w| w == "unsafe"));
        assert_eq!(unsafe_line, None, "{}", file.display());
    })
    .unwrap();
}

/// ONNX Runtime's own builds write down the machine and its models, and send that to their maker. An environment variable
/// says no, and must do so before the library is loaded.
#[test]
fn onnx_runtime_reports_nothing_to_anybody() {
    let home = tempfile::tempdir().unwrap();
    for told in [None, Some("0")] {
        let mut command = Command::new(places::binary("sharp-eyes-agent").unwrap());
        command.args(["model", "inspect", "--runtime"]).arg(places::onnx_runtime().unwrap());
        command.arg(places::builtin_model().unwrap().join("model.onnx"));
        command.env_clear().env("HOME", home.path());
        command.envs(told.map(|value| ("ORT_DISABLE_TELEMETRY", value)));
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let written: Vec<_> = fs::read_dir(home.path()).unwrap().collect();
        assert!(written.is_empty(), "with {told:?} the runtime wrote {written:?}");
    }
}

/// Whether code, not comments, uses a crate: `name::` as a whole word.
fn names_crate(text: &str, name: &str) -> bool {
    let path = format!("{name}::");
    code(text).any(|line| {
        line.match_indices(&path).any(|(at, _)| {
            let before = line[..at].chars().next_back();
            !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
        }) || line.starts_with(&format!("use {name} as"))
            || line.starts_with(&format!("use {name}_"))
    })
}

fn code(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim_start).filter(|line| !line.starts_with("//"))
}

fn each_source(folder: &Path, look: &mut impl FnMut(&Path, &str)) -> Result<()> {
    ensure!(folder.is_dir(), "{} is no folder", folder.display());
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            each_source(&path, look)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            look(&path, &fs::read_to_string(&path)?);
        }
    }
    Ok(())
}

#[test]
fn a_comment_is_no_use_and_a_longer_name_is_another_crate() {
    for (text, named) in [
        ("use ort::session;", true),
        ("    let x = ort::init();", true),
        ("use ort as onnx;", true),
        ("// ort::init", false),
        ("support::init()", false),
        ("crate::ort::x", false),
    ] {
        assert_eq!(names_crate(text, "ort"), named, "{text}");
    }
}
