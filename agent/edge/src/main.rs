//! `sharp-eyes-agent`: logging, arguments, configuration, runtime, exit code.

#![forbid(unsafe_code)]

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use sharp_eyes_agent::config::Config;
use sharp_eyes_agent::outbox::{AuditError, Outbox};
use sharp_eyes_agent::{daemon, log};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Exit status for a configuration that cannot be used (`EX_USAGE` of sysexits.h).
const BAD_CONFIGURATION: u8 = 64;

/// Where the package puts the configuration.
const DEFAULT_CONFIGURATION: &str = "/etc/sharp-eyes/agent.toml";

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
}

fn main() -> ExitCode {
    let command = Arguments::parse().command;
    let (Command::Run { config: file } | Command::Audit { config: file } | Command::Check { file }) =
        &command;
    let config = match Config::load(file) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(BAD_CONFIGURATION);
        }
    };
    match command {
        Command::Check { file } => {
            println!("{}: no problems; {} for {} cameras", file.display(), config.site, config.cameras.len());
            ExitCode::SUCCESS
        }
        Command::Audit { .. } => match audit(&config.state.folder) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error}");
                ExitCode::FAILURE
            }
        },
        Command::Run { .. } => {
            log::start();
            match run(config) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    tracing::error!("{error:#}");
                    ExitCode::FAILURE
                }
            }
        }
    }
}

/// A reader that has seen enough (`| head`) is no error.
fn audit(folder: &Path) -> Result<(), AuditError> {
    let mut out = std::io::stdout().lock();
    let printed = Outbox::audit(folder, |entry| {
        serde_json::to_writer(&mut out, &entry)?;
        out.write_all(b"\n")
    });
    match printed {
        Err(AuditError::Taken(error)) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        printed => printed,
    }
}

/// Two threads: cameras, analysis and outbox have their own, these only wait for the network.
fn run(config: Config) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let shutdown = CancellationToken::new();
        tokio::spawn(stop_on_signal(shutdown.clone())?);
        Ok(daemon::run(config, shutdown).await?)
    })
}

/// The first signal asks for an orderly end, a second one does not wait for it.
fn stop_on_signal(shutdown: CancellationToken) -> std::io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if shutdown.is_cancelled() {
                tracing::warn!("second signal: exiting at once");
                std::process::exit(1);
            }
            shutdown.cancel();
        }
    })
}
