//! A camera that is a file: an RTSP server that plays footage for ever, and fails on request.
//!
//! ```text
//! camera-simulator --port 0 --mount gate=street.avi --codec h265 --silent-after 100
//! ```
//!
//! Prints one JSON object a line on its standard output: `{"port":N}` once it serves, then `{"client":N}` for the
//! N-th connection that it accepted.
//!
//! # Layout
//!
//! - [`options`]: the command line;
//! - [`footage`]: a clip, encoded once into access units and kept in a cache file;
//! - [`fault`]: what a broken camera does to its access units;
//! - [`serve`]: the RTSP server that plays them, paced, for ever.

mod fault;
mod footage;
mod options;
mod serve;

use std::process::ExitCode;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("camera-simulator: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    let Some(options) = options::Options::from_arguments()? else {
        println!("{}", options::USAGE);
        return Ok(());
    };
    gstreamer::init()?;
    serve::serve(&options)
}
