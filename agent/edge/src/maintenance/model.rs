//! `model pack`, `model import`, `model status`, and the trial that a box runs in a process of its own.

use std::fs::{self, File};
use std::io::BufWriter;
use std::os::unix::fs::{MetadataExt, lchown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sharp_eyes_protocol::report::{ModelStage, ModelUpdate};
use sharp_eyes_vision::DetectorOptions;

use super::{MaintenanceError, at, wait};
use crate::clock::Clock;
use crate::config::{Config, DEFAULT_RUNTIME};
use crate::models::ModelsOptions;
use crate::models::bundle;
use crate::models::install::{Check, Outcome};
use crate::models::shadow;
use crate::models::state::State;
use crate::models::trial::{self, TrialOptions};
use crate::remote::Remote;
use crate::remote::take::Taken;

/// What `model pack` is given.
#[derive(Clone, Debug, clap::Args)]
pub struct PackOptions {
    /// A folder with manifest.toml, model.onnx, and golden/ with NAME.jpg and NAME.json.
    pub folder: PathBuf,
    /// The bundle.
    #[arg(short, long)]
    pub output: PathBuf,
    /// Write what the model sees beside each golden picture that has no expectation yet, to be looked over.
    #[arg(long)]
    pub write_expected: bool,
    /// ONNX Runtime's library.
    #[arg(long, default_value = DEFAULT_RUNTIME)]
    pub runtime: PathBuf,
}

/// What `model try` is given.
#[derive(Clone, Debug, clap::Args)]
pub struct TryOptions {
    folder: PathBuf,
    #[arg(long)]
    runtime: PathBuf,
    #[arg(long, value_parser = detector_options)]
    options: DetectorOptions,
    #[arg(long)]
    budget_us: Option<u64>,
    #[arg(long)]
    beside: Option<PathBuf>,
}

/// As the process that waits for it writes them.
fn detector_options(json: &str) -> Result<DetectorOptions, String> {
    serde_json::from_str(json).map_err(|error| error.to_string())
}

/// What `model look` is given.
#[derive(Clone, Debug, clap::Args)]
pub struct LookOptions {
    folder: PathBuf,
    #[arg(long)]
    runtime: PathBuf,
    #[arg(long, value_parser = detector_options)]
    options: DetectorOptions,
}

/// What `model import` is given.
#[derive(Clone, Debug, clap::Args)]
pub struct ImportOptions {
    /// The folder of a repository, on a stick for example.
    pub repository: PathBuf,
    /// The configuration file.
    #[arg(long, default_value = "/etc/sharp-eyes/agent.toml")]
    pub config: PathBuf,
}

/// Checks a model as a box will, and packs it.
pub fn pack(options: &PackOptions) -> Result<bool, MaintenanceError> {
    let PackOptions { folder, output, write_expected, runtime } = options;
    let trial = TrialOptions {
        runtime: runtime.clone(),
        options: DetectorOptions::default(),
        budget: Some(Duration::MAX),
        beside: None,
    };
    if *write_expected {
        for file in trial::write_expected(folder, &trial).map_err(MaintenanceError::Other)? {
            println!("{}: written; look whether it is what there is to see", file.display());
        }
    }
    let passed = trial::run(folder, &trial, &mut |_| {})?;
    let unfinished = output.with_extension("unfinished");
    let mut writer = BufWriter::new(File::create(&unfinished).map_err(at(&unfinished))?);
    bundle::pack(folder, &mut writer)?;
    let written = writer.into_inner().map_err(|error| at(&unfinished)(error.into_error()))?;
    written.sync_all().map_err(at(&unfinished))?;
    fs::rename(&unfinished, output).map_err(at(output))?;
    let bytes = fs::metadata(output).map_err(at(output))?.len();
    println!(
        "{}: {}, {:.2} MB, {} golden pictures, {:.1} ms an inference here",
        output.display(),
        passed.model,
        bytes as f64 / 1e6,
        passed.pictures,
        passed.latency_ms.unwrap_or_default()
    );
    Ok(true)
}

/// Tries a model for the process that waits for it.
pub fn try_model(options: &TryOptions) {
    let TryOptions { folder, runtime, options, budget_us, beside } = options.clone();
    let budget = budget_us.map(Duration::from_micros);
    trial::for_parent(&folder, &TrialOptions { runtime, options, budget, beside });
}

/// Lets a model look at the frames of the process that waits for it.
pub fn look(options: &LookOptions) -> Result<bool, MaintenanceError> {
    let LookOptions { folder, runtime, options } = options;
    shadow::for_parent(folder, runtime, options).map_err(MaintenanceError::Other)?;
    Ok(true)
}

/// Installs what a repository in a folder has for this box. The agent may run meanwhile: it switches by itself.
pub fn import(config: &Config, options: &ImportOptions) -> Result<bool, MaintenanceError> {
    let models = models(config)?;
    let repository = options.repository.canonicalize().map_err(at(&options.repository))?;
    let clock = Arc::new(Clock::start(&config.state.folder));
    let tell = |update: ModelUpdate| {
        if update.bytes.is_none() {
            println!("{}: {}", update.model, stage(&update)); // a stick is fast: nobody counts bytes
        }
    };
    let repository = repository.to_string_lossy();
    let remote = Remote::look(config);
    let check = Check {
        options: &models,
        repository: &repository,
        rate: None,
        clock: &clock,
        tell: &tell,
        remote: remote.as_ref(),
        configured: &say_configuration,
        window: None,
    };
    let outcome = wait(check.run())?;
    give_back(&config.state.folder)?;
    let (good, text) = match outcome? {
        Outcome::Nothing => (true, "there is nothing for this box in the repository".to_owned()),
        Outcome::Activated(model) => (true, format!("{model} is the active model from now on, and on trial")),
        Outcome::Refused(model, reason) => (false, format!("{model} is refused: {reason}")),
        Outcome::RolledBack(reason) => (true, format!("the model is taken back: {reason}")),
        Outcome::Watching(model) => (false, format!("{model} is still on trial: try again when it is kept")),
        Outcome::Busy | Outcome::Stopped => {
            (false, busy(&State::read(&models.folder).unwrap_or_default(), &models))
        }
    };
    println!("{text}");
    Ok(good)
}

/// Prints which model is the active one, and what became of the last update.
pub fn status(config: &Config, json: bool) -> Result<bool, MaintenanceError> {
    // A box without updates runs the configured model.
    let state = match ModelsOptions::new(config) {
        Some(models) => State::read(&models.folder).map_err(at(&models.folder))?,
        None => State::default(),
    };
    if json {
        let text = serde_json::to_string_pretty(&state)
            .map_err(|error| MaintenanceError::Other(error.to_string()))?;
        println!("{text}");
        return Ok(true);
    }
    let name = |installed: &Option<crate::models::state::Installed>| match installed {
        Some(installed) => installed.release.model.to_string(),
        None => format!("of the configuration, {}", config.detector.model.display()),
    };
    println!("active      {}{}", name(&state.active), if state.trial.is_some() { ", on trial" } else { "" });
    if state.active.is_some() {
        println!("before      {}", name(&state.previous));
    }
    if let Some(update) = &state.update {
        println!("last update {}: {}", update.model, stage(update));
    }
    if let Some(reason) = &state.repository {
        println!("repository  {reason}");
    }
    for refused in &state.refused {
        println!("refused     {}: {}", refused.release.model, refused.reason);
    }
    Ok(true)
}

/// What is told to somebody who comes while the agent installs a model.
fn busy(state: &State, models: &ModelsOptions) -> String {
    let Some(update) = &state.update else {
        return "a model is being installed just now: try again".to_owned();
    };
    let shadow = match update.stage {
        ModelStage::Shadow => {
            format!(
                ", for up to {} s; with shadow = \"0s\" the agent does without",
                models.config.shadow.as_secs()
            )
        }
        _ => String::new(),
    };
    format!(
        "the agent is installing {} just now and is at the stage {}{shadow}: try again when `model status` says what came of it",
        update.model,
        stage(update)
    )
}

fn say_configuration(taken: &Taken) {
    match taken {
        Taken::Nothing => {}
        Taken::Taken(Some(offer)) => println!("configuration {offer}: in force from now on, and on trial"),
        Taken::Taken(None) => println!("the box's own file alone is in force from now on, and on trial"),
        Taken::Refused(offer, reason) => println!("configuration {offer} is refused: {reason}"),
        Taken::Waiting(why) => println!("a new configuration waits: {why}"),
    }
}

/// Whoever imports may be root; the agent has to be able to write what it owns.
fn give_back(state: &Path) -> Result<(), MaintenanceError> {
    let owner = fs::metadata(state).map_err(at(state))?;
    let mut files: Vec<_> = ["models", "configuration"]
        .iter()
        .map(|name| state.join(name))
        .filter(|file| file.exists())
        .collect();
    while let Some(file) = files.pop() {
        let found = fs::symlink_metadata(&file).map_err(at(&file))?;
        if found.uid() != owner.uid() {
            lchown(&file, Some(owner.uid()), Some(owner.gid())).map_err(at(&file))?;
        }
        if found.is_dir() {
            for entry in fs::read_dir(&file).map_err(at(&file))? {
                files.push(entry.map_err(at(&file))?.path());
            }
        }
    }
    Ok(())
}

fn models(config: &Config) -> Result<ModelsOptions, MaintenanceError> {
    ModelsOptions::new(config)
        .ok_or_else(|| MaintenanceError::Other("the configuration has no section [models]".into()))
}

fn stage(update: &ModelUpdate) -> String {
    let stage = serde_json::to_value(update.stage).unwrap_or_default();
    let stage = stage.as_str().unwrap_or_default().to_owned();
    update.reason.as_ref().map_or(stage.clone(), |reason| format!("{stage}: {reason}"))
}
