//! What every test stands on.

use std::fs::{self, File};
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow, ensure};
use sharp_eyes_protocol::report::{CameraState, Health};
use sharp_eyes_tests::agent::Agent;
use sharp_eyes_tests::bad_model::{self, Mood};
use sharp_eyes_tests::broker::{Broker, BrokerOptions};
use sharp_eyes_tests::camera::Camera;
use sharp_eyes_tests::console::Console;
use sharp_eyes_tests::places;
use sharp_eyes_tests::process::last_lines;
use sharp_eyes_tests::village::Village;

/// Runs a test in a folder of its own. When it fails, the folder stays and the logs in it are printed.
pub(crate) fn play(test: impl FnOnce(&Path) -> Result<()>) {
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let outcome = catch_unwind(AssertUnwindSafe(|| test(folder.path())));
    let Err(error) = outcome.unwrap_or_else(|_| Err(anyhow!("the test panicked"))) else { return };
    let folder = folder.keep();
    for log in ["agent.log", "camera.log", "mosquitto.log"] {
        if let Ok(text) = fs::read_to_string(folder.join(log)) {
            println!("---- {log}\n{}", last_lines(&text, 60));
        }
    }
    panic!("{error:#}\neverything is in {}", folder.display());
}

/// Notes that a machine cannot give what a test needs; `make test` prints the notes in the end.
pub(crate) fn skip(test: &str, why: &str) {
    println!("skipped: {test}: {why}");
    let file = File::options().create(true).append(true).open(places::cache().join("skipped"));
    if let Ok(mut file) = file {
        let _ = writeln!(file, "{test}: {why}"); // the line above says it, too
    }
}

/// The broker and the console that most tests need.
pub(crate) fn township(folder: &Path, options: &BrokerOptions) -> Result<(Broker, Console)> {
    let broker = Broker::start(folder, options)?;
    let login = options.login.as_ref().map(|(user, password)| (user.as_str(), password.as_str()));
    let console = Console::connect(broker.port(), login)?;
    Ok((broker, console))
}

/// A camera that looks at a street with pedestrians at any time.
pub(crate) fn street(folder: &Path, name: &str, arguments: &[&str]) -> Result<Camera> {
    let mount = format!("{name}={}", places::footage()?.display());
    Camera::start(folder, &[&["--mount", mount.as_str()], arguments].concat())
}

/// A camera in front of a white wall, which can be switched on.
pub(crate) fn wall(folder: &Path) -> Result<Camera> {
    let clip = folder.join("wall.avi");
    let mut command = Command::new("gst-launch-1.0");
    command
        .args("-q videotestsrc pattern=white num-buffers=50 ! video/x-raw,width=768,height=576".split(' '));
    command.args("! videorate ! video/x-raw,framerate=10/1 ! jpegenc ! avimux ! filesink".split(' '));
    command.arg(format!("location={}", clip.display()));
    ensure!(command.status().context("running gst-launch-1.0")?.success(), "no picture of a wall");
    let mut camera = Camera::start(folder, &["--mount", &format!("wall={}", clip.display())])?;
    camera.kill()?;
    Ok(camera)
}

/// The mean of that wall's pixels is among these, and that of the street's is not.
pub(crate) const IN_THE_LIGHT: (f32, f32) = (180.0, 256.0);

/// The mean of any picture's pixels is among these.
pub(crate) const ANY_LIGHT: (f32, f32) = (-1.0, 256.0);

/// A model's manifest for a graph that is not the one that it was written for.
pub(crate) fn without_hash(manifest: &str) -> String {
    manifest.lines().filter(|line| !line.starts_with("sha256")).map(|line| format!("{line}\n")).collect()
}

/// The built-in model, spoilt where the mean of a picture's pixels is within `when`.
pub(crate) fn bad_model(folder: &Path, mood: Mood, when: (f32, f32)) -> Result<PathBuf> {
    let model = folder.join("bad-model");
    copy_builtin(&model)?;
    edit_manifest(&model, without_hash)?;
    spoil(&model, mood, when)?;
    Ok(model)
}

/// The same of a model in a folder, whose manifest has to be [without the graph's hash](without_hash).
pub(crate) fn spoil(model: &Path, mood: Mood, when: (f32, f32)) -> Result<()> {
    let graph = model.join("model.onnx");
    let spoilt = bad_model::spoil(&fs::read(&graph)?, mood, when.0, when.1)?;
    Ok(fs::write(graph, spoilt)?)
}

/// Changes the manifest of a model.
pub(crate) fn edit_manifest(model: &Path, edit: impl FnOnce(&str) -> String) -> Result<()> {
    let file = model.join("manifest.toml");
    let text = read(&file)?;
    let edited = edit(&text);
    ensure!(edited != text, "the manifest of the built-in model has nothing to edit");
    Ok(fs::write(file, edited)?)
}

/// The built-in model in a folder that is not there yet.
pub(crate) fn copy_builtin(folder: &Path) -> Result<()> {
    // Under another name first: an agent may be waiting for it.
    let unfinished = folder.with_extension("new");
    fs::create_dir_all(&unfinished)?;
    for file in ["manifest.toml", "model.onnx"] {
        let from: PathBuf = places::builtin_model()?.join(file);
        fs::copy(&from, unfinished.join(file)).with_context(|| format!("copying {}", from.display()))?;
    }
    Ok(fs::rename(unfinished, folder)?)
}

/// A village without cameras yet.
pub(crate) fn village(folder: &Path, broker: &Broker) -> Result<Village> {
    Village::new(folder, broker.port())
}

/// Waits until a camera's frames have been looked at.
pub(crate) fn await_analysis(agent: &mut Agent, camera: &str) -> Result<()> {
    let what = format!("camera {camera} to be analysed");
    agent
        .camera_when(camera, &what, |entry| entry.state == CameraState::Streaming && entry.analysed > 0)
        .map(drop)
}

/// Waits until so many more frames of a camera have been looked at.
pub(crate) fn goes_on(agent: &mut Agent, camera: &str, frames: u64) -> Result<()> {
    let before = agent.camera_when(camera, "its health", |_| true)?.analysed;
    let what = format!("camera {camera} to go on");
    agent.camera_when(camera, &what, |entry| entry.analysed >= before + frames).map(drop)
}

/// Waits until a camera is in a state, and returns the reason that health gives, "" without one.
pub(crate) fn await_state(agent: &mut Agent, camera: &str, state: CameraState) -> Result<String> {
    let what = format!("camera {camera} to be {state:?}");
    let entry = agent.camera_when(camera, &what, |entry| entry.state == state)?;
    Ok(entry.reason.unwrap_or_default())
}

/// A reason has to name the thing.
pub(crate) fn says(text: &str, words: &[&str]) -> Result<()> {
    let lower = text.to_lowercase();
    for word in words {
        ensure!(lower.contains(&word.to_lowercase()), "{text:?} says nothing of {word:?}");
    }
    Ok(())
}

/// Everything that all cameras ever raised.
pub(crate) fn raised(health: &Health) -> u64 {
    health.cameras.iter().map(|camera| camera.alerts).sum()
}

/// 1, 2, 3, ... without a gap, at least up to `last`.
pub(crate) fn complete(sequences: &[u64], last: u64) -> Result<()> {
    let expected: Vec<u64> = (1..=last.max(sequences.len() as u64)).collect();
    ensure!(sequences == expected, "of the alerts up to {last}, these arrived: {sequences:?}");
    Ok(())
}

/// A text file; the error names it.
pub(crate) fn read(file: &Path) -> Result<String> {
    fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))
}
