//! What a model has to pass before it looks at frames: contract, golden pictures, budget.
//!
//! A box lets a child process do it ([`in_child`]): a graph that crashes ONNX Runtime, hangs, or eats memory takes the
//! child with it and nothing else, and the cameras are watched by the old model meanwhile.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Signal, set_parent_process_death_signal};
use serde::{Deserialize, Serialize};
use sharp_eyes_protocol::alert::ModelName;
use sharp_eyes_protocol::report::ModelStage;
use sharp_eyes_vision::golden::{Expected, Picture};
use sharp_eyes_vision::{Detector, DetectorOptions, Runtime};

use super::bundle::{self, BundleError, GoldenFiles};
use crate::sessions::is_of_the_model;

/// A child that says nothing for this long hangs. The slowest board takes a tenth of it to load the largest model.
const PATIENCE: Duration = Duration::from_secs(120);

/// The same while it is shown pictures, and says so after each: so many budgets, and at least this long.
const PATIENCE_WITH_A_PICTURE: (u32, Duration) = (100, Duration::from_secs(10));

/// Inferences that are measured, after one that warms up.
const RUNS: usize = 9;

/// A model may be so much slower than the one before, where that one is itself beyond the budget.
const SLACK: f64 = 1.1;

/// How a trial is run.
#[derive(Clone, Debug, PartialEq)]
pub struct TrialOptions {
    /// ONNX Runtime's library.
    pub runtime: PathBuf,
    /// How it is run.
    pub options: DetectorOptions,
    /// The longest inference; nothing is measured without it.
    pub budget: Option<Duration>,
    /// The model that looks at frames now: what is as fast as it is fast enough.
    pub beside: Option<PathBuf>,
}

impl TrialOptions {
    /// How long a child may say nothing.
    pub fn patience(&self, stage: ModelStage) -> Duration {
        let (budgets, least) = PATIENCE_WITH_A_PICTURE;
        match self.budget {
            // The model beside is loaded in the middle of the stage.
            Some(_) if stage == ModelStage::Budget && self.beside.is_some() => PATIENCE,
            Some(budget) if stage != ModelStage::Contract => {
                budget.saturating_mul(budgets).clamp(least, PATIENCE)
            }
            _ => PATIENCE,
        }
    }
}

/// A model that has passed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Passed {
    /// Name and version out of its manifest.
    pub model: ModelName,
    /// SHA-256 of `model.onnx`.
    pub sha256: String,
    /// Golden pictures that it was shown.
    pub pictures: usize,
    /// Median time of one inference, where it was measured.
    pub latency_ms: Option<f64>,
}

/// A model that has not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[error("{reason}")]
pub struct Failed {
    /// Where it failed.
    pub stage: ModelStage,
    /// Why.
    pub reason: String,
}

/// Why a model has not passed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum TrialError {
    #[error(transparent)]
    Failed(#[from] Failed),
    /// Nothing can be said of the model: it is this box that could not, just now.
    #[error("it could not be tried to the end: {0}")]
    Untried(String),
}

/// What a child says on its standard output, a line each.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Line {
    Stage(ModelStage),
    Passed(Passed),
    Failed(Failed),
    Untried(String),
}

/// Tries the model of a folder. `reached` hears of each stage when it begins, and again after each picture.
pub fn run(
    folder: &Path,
    options: &TrialOptions,
    reached: &mut dyn FnMut(ModelStage),
) -> Result<Passed, TrialError> {
    let at = |stage: ModelStage| move |reason: String| TrialError::Failed(Failed { stage, reason });
    reached(ModelStage::Contract);
    let runtime = Runtime::load(&options.runtime).map_err(|error| TrialError::Untried(error.to_string()))?;
    let load = |path: &Path| Detector::load(&runtime, path, &options.options);
    let mut detector = load(folder).map_err(|error| match is_of_the_model(&error) {
        true => at(ModelStage::Contract)(error.to_string()),
        false => TrialError::Untried(error.to_string()),
    })?;
    reached(ModelStage::Golden);
    let golden = at(ModelStage::Golden);
    let files = bundle::golden_files(folder).map_err(|error| of_bundle(ModelStage::Golden, &error))?;
    let mut expected = 0;
    for files in &files {
        let bytes = |file| bundle::read(file, u64::MAX - 1);
        let (expectation, picture) = bytes(&files.expected)
            .and_then(|json| Ok((json, bytes(&files.picture)?)))
            .map_err(|error| of_bundle(ModelStage::Golden, &error))?;
        expected += compare(&mut detector, &expectation, &picture)
            .map_err(|reason| golden(format!("golden picture {}: {reason}", files.name())))?;
        reached(ModelStage::Golden);
    }
    if expected == 0 {
        return Err(golden(
            "nothing is expected in any golden picture, so a blind model would pass: add one with something in it"
                .to_owned(),
        ));
    }
    let mut latency_ms = None;
    if let (Some(budget), Some(files)) = (options.budget, files.first()) {
        reached(ModelStage::Budget);
        let over = at(ModelStage::Budget);
        let mut alive = || reached(ModelStage::Budget);
        let took = latency(&mut detector, files, &mut alive).map_err(over)?;
        let mut limit = budget.as_secs_f64() * 1000.0;
        if took > limit
            && let Some(path) = &options.beside
        {
            // A model that cannot be measured sets no limit.
            let now = load(path).map_err(|error| error.to_string());
            let now = now.and_then(|mut detector| latency(&mut detector, files, &mut alive));
            limit = now.map_or(limit, |now| limit.max(now * SLACK));
        }
        if took > limit {
            return Err(over(format!(
                "one inference takes {took:.1} ms; {limit:.1} ms are left for it on this box"
            )));
        }
        latency_ms = Some(took);
    }
    let model = detector.model();
    Ok(Passed { model: model.name.clone(), sha256: model.sha256.clone(), pictures: files.len(), latency_ms })
}

/// What the model of a folder sees in its golden pictures, for those that have no expectation yet.
pub fn write_expected(folder: &Path, options: &TrialOptions) -> Result<Vec<PathBuf>, String> {
    let runtime = Runtime::load(&options.runtime).map_err(|error| error.to_string())?;
    let mut detector =
        Detector::load(&runtime, folder, &options.options).map_err(|error| error.to_string())?;
    let mut written = Vec::new();
    for files in bundle::golden_files(folder).map_err(|error| error.to_string())? {
        if files.expected.exists() {
            continue;
        }
        let picture = picture(&files)?;
        let found = detector
            .detect(&picture.view().map_err(|error| error.to_string())?, &[])
            .map_err(|error| error.to_string())?;
        let expected = Expected::of(&found, &detector.model().thresholds);
        let text = serde_json::to_string_pretty(&expected).map_err(|error| error.to_string())? + "\n";
        std::fs::write(&files.expected, text)
            .map_err(|error| format!("{}: {error}", files.expected.display()))?;
        written.push(files.expected);
    }
    Ok(written)
}

/// What went wrong with a bundle's files, at this stage.
pub(super) fn of_bundle(stage: ModelStage, error: &BundleError) -> TrialError {
    match error.is_of_the_bundle() {
        true => TrialError::Failed(Failed { stage, reason: error.to_string() }),
        false => TrialError::Untried(error.to_string()),
    }
}

/// How many detections were expected, all of which were found; or what differs.
fn compare(detector: &mut Detector, expected: &[u8], jpeg: &[u8]) -> Result<usize, String> {
    let expected = Expected::parse(expected).map_err(|error| error.to_string())?;
    let picture = Picture::decode(jpeg).map_err(|error| error.to_string())?;
    let view = picture.view().map_err(|error| error.to_string())?;
    let found = detector.detect(&view, &[]).map_err(|error| error.to_string())?;
    expected.compare(&found, &detector.model().thresholds)?;
    Ok(expected.detections.len())
}

fn picture(files: &GoldenFiles) -> Result<Picture, String> {
    let jpeg = bundle::read(&files.picture, u64::MAX - 1).map_err(|error| error.to_string())?;
    Picture::decode(&jpeg).map_err(|error| error.to_string())
}

/// The median of some inferences in milliseconds: a few of them meet other programs on the same cores.
fn latency(detector: &mut Detector, files: &GoldenFiles, alive: &mut dyn FnMut()) -> Result<f64, String> {
    let picture = picture(files)?;
    let view = picture.view().map_err(|error| error.to_string())?;
    let mut times = Vec::with_capacity(RUNS);
    for _ in 0..=RUNS {
        let start = Instant::now();
        detector.detect(&view, &[]).map_err(|error| error.to_string())?;
        times.push(start.elapsed().as_secs_f64() * 1000.0);
        alive();
    }
    times.remove(0);
    times.sort_by(f64::total_cmp);
    Ok(times[RUNS / 2])
}

/// Makes this process one that only serves the thread that waits for it: it ends with that, also when the agent is killed or
/// starts anew, and when memory runs out, it goes first.
pub(super) fn be_expendable() {
    // Where either cannot be had, the model is tried all the same.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
}

/// Tries a model and prints what happens for the process that waits for it: the other end of [`in_child`].
pub fn for_parent(folder: &Path, options: &TrialOptions) {
    be_expendable();
    let say = |line: &Line| {
        let mut out = std::io::stdout().lock();
        let text = serde_json::to_string(line).unwrap_or_default();
        let _ = writeln!(out, "{text}").and_then(|()| out.flush()); // nobody listens any more: fine
    };
    let result = run(folder, options, &mut |stage| say(&Line::Stage(stage)));
    say(&match result {
        Ok(passed) => Line::Passed(passed),
        Err(TrialError::Failed(why)) => Line::Failed(why),
        Err(TrialError::Untried(why)) => Line::Untried(why),
    });
}

/// The same as [`run`], in a process of its own: `agent` is the agent's binary.
pub fn in_child(
    agent: &Path,
    folder: &Path,
    options: &TrialOptions,
    reached: &mut dyn FnMut(ModelStage),
) -> Result<Passed, TrialError> {
    let mut command = Command::new(agent);
    command.args(["model", "try"]).arg(folder).arg("--runtime").arg(&options.runtime);
    command
        .arg("--options")
        .arg(serde_json::to_string(&options.options).expect("a path that TOML had is text"));
    if let Some(budget) = options.budget {
        command.arg("--budget-us").arg(budget.as_micros().to_string());
    }
    if let Some(beside) = &options.beside {
        command.arg("--beside").arg(beside);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut stage = ModelStage::Contract;
    let failed = |stage, reason: String| TrialError::Failed(Failed { stage, reason });
    let mut child = command
        .spawn()
        .map_err(|error| TrialError::Untried(format!("cannot start {}: {error}", agent.display())))?;
    // Bounded by the child, which says a line for each picture.
    let (lines, heard) = mpsc::channel();
    if let Some(output) = child.stdout.take() {
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let Ok(line) = serde_json::from_str::<Line>(&line) else { continue };
                if lines.send(line).is_err() {
                    return;
                }
            }
        });
    }
    loop {
        let patience = options.patience(stage);
        match heard.recv_timeout(patience) {
            Ok(Line::Stage(next)) if next == stage => {}
            Ok(Line::Stage(next)) => {
                stage = next;
                reached(stage);
            }
            Ok(Line::Passed(passed)) => {
                end(&mut child);
                return Ok(passed);
            }
            Ok(Line::Failed(why)) => {
                end(&mut child);
                return Err(why.into());
            }
            Ok(Line::Untried(why)) => {
                end(&mut child);
                return Err(TrialError::Untried(why));
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {
                end(&mut child);
                return Err(failed(stage, format!("it hangs: nothing for {} s", patience.as_secs())));
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                return Err(match child.wait() {
                    Ok(how) if is_interruption(how) => {
                        TrialError::Untried(format!("the process that tries it was ended: {how}"))
                    }
                    Ok(how) => failed(stage, format!("it ends the process that tries it: {how}")),
                    Err(error) => TrialError::Untried(error.to_string()),
                });
            }
        }
    }
}

/// Whether somebody ended a process in which a model is looked at, as everybody does who stops the agent. SIGKILL comes of
/// memory that runs out, too, and is the model's fault.
pub(super) fn is_interruption(how: ExitStatus) -> bool {
    [Signal::TERM, Signal::INT, Signal::HUP].iter().any(|signal| how.signal() == Some(signal.as_raw()))
}

/// It has said all that there is to say, or nothing for too long.
fn end(child: &mut Child) {
    let _ = child.kill(); // it may have ended by itself
    let _ = child.wait();
}

#[cfg(test)]
pub(super) mod testing {
    use super::*;

    /// An agent's binary that does this instead. A process of its own writes it: what this one has open for writing while
    /// another test starts a process cannot be run.
    pub(in super::super) fn agent(folder: &Path, does: &str) -> PathBuf {
        let (agent, write) =
            (folder.join("agent"), r#"printf '#!/bin/sh\n%s\n' "$1" >"$0" && chmod +x "$0""#);
        assert!(Command::new("sh").args(["-c", write]).arg(&agent).arg(does).status().unwrap().success());
        agent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> TrialOptions {
        let (runtime, options) = (PathBuf::from("/nowhere"), DetectorOptions::default());
        TrialOptions { runtime, options, budget: None, beside: None }
    }

    /// What comes of a trial in a process that does this.
    fn tried(does: &str) -> TrialError {
        let (folder, options) = (tempfile::tempdir().unwrap(), options());
        let agent = testing::agent(folder.path(), does);
        in_child(&agent, folder.path(), &options, &mut |_| {}).unwrap_err()
    }

    #[test]
    fn what_ends_the_process_speaks_against_the_model_unless_somebody_stops_the_agent() {
        // Where tests run in the background, what they start would ignore some of these.
        for signal in ["TERM", "INT", "HUP"] {
            let error = tried(&format!("exec env --default-signal sh -c 'kill -{signal} $$'"));
            assert!(matches!(error, TrialError::Untried(_)), "{signal}: {error}");
        }
        for does in ["kill -KILL $$", "kill -SEGV $$", "kill -ABRT $$", "exit 1", "exit 0"] {
            let error = tried(does);
            assert!(error.to_string().starts_with("it ends the process that tries it"), "{does}: {error}");
        }
    }

    #[test]
    fn what_this_box_cannot_do_just_now_does_not_speak_against_the_model() {
        let nowhere = Path::new("/nowhere");
        for error in [
            tried(r#"echo '{"untried":"no memory"}'"#),
            run(nowhere, &options(), &mut |_| {}).unwrap_err(), // without a runtime
            in_child(nowhere, nowhere, &options(), &mut |_| {}).unwrap_err(),
        ] {
            assert!(matches!(error, TrialError::Untried(_)), "{error}");
        }
        assert!(matches!(
            tried(r#"echo '{"failed":{"stage":"golden","reason":"blind"}}'"#),
            TrialError::Failed(_)
        ));
    }
}
