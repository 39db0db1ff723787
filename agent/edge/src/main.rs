//! `sharp-eyes-agent`: environment, logging, arguments, configuration, runtime, exit code.

#![forbid(unsafe_code)]

mod environment;

use std::path::{Path, PathBuf};
use std::process::{self, ExitCode};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, Subcommand};
use sharp_eyes_agent::config::{Config, ConfigError};
use sharp_eyes_agent::daemon::{self, Ended};
use sharp_eyes_agent::log;
use sharp_eyes_agent::maintenance::{
    ImportOptions, LookOptions, PackOptions, RepoCommand, TryOptions, import, look, pack, status, try_model,
};
use sharp_eyes_agent::print::{
    InspectOptions, WayOptions, audit, bench_box, bench_model, bench_way, check, inspect,
};
use sharp_eyes_agent::replay::{ReplayOptions, replay};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Exit status for a configuration that cannot be used (`EX_USAGE` of sysexits.h).
const BAD_CONFIGURATION: u8 = 64;

/// Where the package puts the configuration.
const DEFAULT_CONFIGURATION: &str = "/etc/sharp-eyes/agent.toml";

/// How long what still runs when all parts have ended may take.
const LAST_GRACE: Duration = Duration::from_secs(1);

/// Watches village cameras for hazards and intrusions: events, never identities.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Watch the cameras until told to stop.
    Run {
        /// The configuration file.
        #[arg(long, default_value = DEFAULT_CONFIGURATION)]
        config: PathBuf,
    },
    /// Print who asked this box for what, when, and what became of it: one JSON object a line, oldest first.
    Audit {
        /// The configuration file.
        #[arg(long, default_value = DEFAULT_CONFIGURATION)]
        config: PathBuf,
    },
    /// Say everything that is wrong with a configuration file, and try nothing else.
    Check {
        /// The configuration file.
        #[arg(default_value = DEFAULT_CONFIGURATION)]
        file: PathBuf,
    },
    /// Measure this box.
    Bench {
        #[command(subcommand)]
        command: BenchCommand,
    },
    /// Run a clip through one camera's gate, detector and rules, faster than real time, and say what it would have raised.
    Replay {
        #[command(flatten)]
        options: ReplayOptions,
        /// The configuration file.
        #[arg(long, default_value = DEFAULT_CONFIGURATION)]
        config: PathBuf,
    },
    /// Look at detection models, pack them, install them from a stick.
    Model {
        #[command(subcommand)]
        command: ModelCommand,
    },
    /// Make and change a repository of signed models.
    Repo {
        #[command(subcommand)]
        command: RepoCommand,
    },
}

#[derive(Subcommand)]
enum BenchCommand {
    /// Say how many cameras like the configured ones this box carries with its model, and what limits it. Takes half a
    /// minute. Fails if a camera cannot be measured.
    Box {
        /// The configuration file: its cameras, its model, its state folder.
        #[arg(long, default_value = DEFAULT_CONFIGURATION)]
        config: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Compare the ways in which the configured model can be run here, and say which lines of the configuration are best.
    /// Takes half a minute or more.
    Model {
        /// The configuration file: its model, its ONNX Runtime, and how many frames a second its cameras want looked at.
        #[arg(long, default_value = DEFAULT_CONFIGURATION)]
        config: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Measure one way to run a model, for the process that compares them.
    #[command(hide = true)]
    Way(WayOptions),
}

#[derive(Subcommand)]
enum ModelCommand {
    /// Say what a model is, what the agent makes of it, and how long it takes here. Fails if it cannot be run.
    Inspect(InspectOptions),
    /// Check a model as a box will, and pack it into one file.
    Pack(PackOptions),
    /// Install what a repository on a stick has for this box, with all checks.
    Import(ImportOptions),
    /// Say which model looks, and what became of the last update.
    Status {
        /// The configuration file.
        #[arg(long, default_value = DEFAULT_CONFIGURATION)]
        config: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Try a model for the agent that waits for it.
    #[command(hide = true)]
    Try(TryOptions),
    /// Let a model look beside the active one, for the agent that shows it frames.
    #[command(hide = true)]
    Look(LookOptions),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Err(error) = environment::complete() {
        eprintln!("cannot restart with a complete environment: {error}");
        return ExitCode::FAILURE;
    }
    match arguments.command {
        Command::Run { config: file } => with_config(&file, |config| {
            log::start();
            run(config, &file).map_or_else(
                |error| {
                    tracing::error!("{error:#}");
                    ExitCode::FAILURE
                },
                |()| ExitCode::SUCCESS,
            )
        }),
        Command::Audit { config } => with_config(&config, |config| exit(audit(&config.state.folder))),
        Command::Check { file } => with_config(&file, |config| {
            check(&file, &config);
            ExitCode::SUCCESS
        }),
        Command::Bench { command } => match command {
            BenchCommand::Box { config, json } => {
                with_config(&config, |config| exit(bench_box(&config, json)))
            }
            BenchCommand::Model { config, json } => {
                with_config(&config, |config| exit(bench_model(&config, json)))
            }
            BenchCommand::Way(options) => exit(bench_way(&options)),
        },
        Command::Replay { options, config } => with_config(&config, |config| exit(replay(&options, &config))),
        Command::Repo { command } => exit(command.run()),
        Command::Model { command } => match command {
            ModelCommand::Inspect(options) => exit(inspect(&options)),
            ModelCommand::Pack(options) => exit(pack(&options)),
            ModelCommand::Import(options) => {
                with_config(&options.config, |config| exit(import(&config, &options)))
            }
            ModelCommand::Status { config, json } => {
                with_config(&config, |config| exit(status(&config, json)))
            }
            ModelCommand::Look(options) => exit(look(&options)),
            ModelCommand::Try(options) => {
                try_model(&options);
                ExitCode::SUCCESS
            }
        },
    }
}

fn with_config(file: &Path, then: impl FnOnce(Config) -> ExitCode) -> ExitCode {
    match Config::load(file) {
        Ok(config) => then(config),
        Err(error) => {
            eprintln!("{error}");
            match error {
                ConfigError::Invalid { .. } => ExitCode::from(BAD_CONFIGURATION),
                // A disk that fails may well read it the next time.
                ConfigError::Unreadable { .. } => ExitCode::FAILURE,
            }
        }
    }
}

/// What a command that only prints ends with: whether the answer is a good one.
fn exit(result: Result<bool, impl std::fmt::Display>) -> ExitCode {
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Two threads: cameras, analysis and outbox have their own, these only wait for the network.
fn run(config: Config, file: &Path) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let ended = runtime.block_on(async {
        let shutdown = CancellationToken::new();
        let reload = Arc::new(Notify::new());
        tokio::spawn(heed_signals(shutdown.clone(), reload.clone())?);
        match daemon::run(config, file, &reload, shutdown).await? {
            Ended::AsAsked => Ok(()),
            Ended::Reconfigured => {
                Err(environment::again(&[])).context("cannot start anew with another configuration")
            }
        }
    });
    // Not dropped, which would wait for an inference that hangs, and for a model that is tried.
    runtime.shutdown_timeout(LAST_GRACE);
    ended
}

/// The first signal asks for an orderly end, a second one does not wait for it. SIGHUP asks for a new start.
fn heed_signals(
    shutdown: CancellationToken,
    reload: Arc<Notify>,
) -> std::io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                _ = hangup.recv() => {
                    reload.notify_one();
                    continue;
                }
            }
            if shutdown.is_cancelled() {
                tracing::warn!("second signal: exiting at once");
                process::exit(1);
            }
            shutdown.cancel();
        }
    })
}
