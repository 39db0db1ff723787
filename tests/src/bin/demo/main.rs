//! A village on one machine, live: footage as cameras, the agent, a broker, and what an operator sees, in a terminal.
//!
//! # Layout
//!
//! - [`options`]: what the environment asks for;
//! - [`stage`]: cameras, broker, console and agent, started in that order;
//! - [`view`]: alerts as they arrive, [`words`]: in Chinese and English;
//! - [`summary`]: what it came to in the end.

mod options;
mod stage;
mod summary;
mod view;
mod words;

use std::process::ExitCode;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tokio::signal::unix::{SignalKind, signal};

use crate::options::Options;
use crate::stage::Stage;
use crate::summary::Summary;
use crate::view::View;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\ndemo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    ensure!(
        std::env::args().len() == 1,
        "it takes no arguments: `make help` says what the environment may hold"
    );
    let options = Options::from_environment()?;
    let interrupted = interrupted()?;
    let mut view = View::new();
    let mut stage = Stage::set_up(&options, &view)?;
    view.explain(&options);

    let began = Instant::now();
    let mut last = None;
    loop {
        view.show_news(&stage)?;
        stage.still_plays()?;
        last = stage.measure(began.elapsed()).or(last);
        view.show_status(last.as_ref(), options.length);
        if options.length.is_some_and(|length| began.elapsed() >= length) {
            break;
        }
        match interrupted.recv_timeout(Duration::from_millis(200)) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => break,
        }
    }

    let last = stage.measure(began.elapsed()).or(last);
    stage.close()?;
    view.show_news(&stage)?;
    let summary = Summary::new(&stage, last.as_ref());
    view.sum_up(&summary, &stage);
    if let Some(file) = &options.summary {
        summary.write(file)?;
    }
    Ok(())
}

/// Hears of Ctrl-C and of being asked to end.
fn interrupted() -> Result<Receiver<()>> {
    let (tell, interrupted) = mpsc::channel();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let (mut interrupt, mut terminate) = {
        let _inside = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    std::thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
        });
        let _ = tell.send(()); // the demo may be over by itself
    });
    Ok(interrupted)
}
