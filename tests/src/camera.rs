//! A camera simulator as a process.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::process::Process;
use crate::{places, wait};

/// Encoding a clip for the first time takes a while; H.265 takes longest.
const ENCODING: Duration = Duration::from_secs(300);

/// One simulator: a server with a path (a camera) for each mount.
#[derive(Debug)]
pub struct Camera {
    port: u16,
    arguments: Vec<String>,
    log: PathBuf,
    running: Option<Running>,
    clients: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Running {
    process: Process,
    // The simulator ends when this closes: by dropping it, or because this process died.
    leash: Option<ChildStdin>,
}

impl Camera {
    /// Starts `camera-simulator` with these arguments (see its `--help`) and returns once it serves.
    pub fn start(folder: &Path, arguments: &[&str]) -> Result<Self> {
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let log = folder.join("camera.log");
        let mut camera = Self { port: 0, arguments, log, running: None, clients: Arc::default() };
        camera.restart()?;
        Ok(camera)
    }

    /// Where a mount is.
    pub fn url(&self, mount: &str) -> String {
        format!("rtsp://127.0.0.1:{}/{mount}", self.port)
    }

    /// Its port, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Tells it something (see `camera-simulator --help`) while it runs.
    pub fn tell(&mut self, order: &str) -> Result<()> {
        let running = self.running.as_mut().context("the camera was killed")?;
        let leash = running.leash.as_mut().context("the camera does not listen")?;
        writeln!(leash, "{order}").context("telling the camera")
    }

    /// How many connections it ever accepted, over all restarts.
    pub fn clients(&self) -> u64 {
        self.clients.load(Ordering::Relaxed)
    }

    /// Its process.
    pub fn process(&self) -> Result<&Process> {
        Ok(&self.running.as_ref().context("the camera was killed")?.process)
    }

    /// Pulls the plug.
    pub fn kill(&mut self) -> Result<()> {
        match self.running.take() {
            Some(running) => running.process.kill(),
            None => Ok(()),
        }
    }

    /// Starts it again on the port that it had, with the arguments that it had.
    pub fn restart(&mut self) -> Result<()> {
        self.kill()?;
        let mut command = Command::new(places::binary("camera-simulator")?);
        command.args(&self.arguments).args(["--port", &self.port.to_string(), "--until-stdin-closes"]);
        command.arg("--cache").arg(places::cache().join("encoded"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Process::start("camera-simulator", command, &self.log)?;
        let (leash, output) = process.take_pipes();
        let output = BufReader::new(output.context("no output to read")?);
        let (send_port, port) = mpsc::channel();
        let clients = Arc::clone(&self.clients);
        std::thread::spawn(move || {
            for event in output.lines().map_while(Result::ok) {
                let event: serde_json::Value = serde_json::from_str(&event).unwrap_or_default();
                if let Some(port) = event["port"].as_u64() {
                    let _ = send_port.send(port as u16); // whoever started it may have given up
                } else if event["client"].is_u64() {
                    clients.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        let deadline = std::time::Instant::now() + ENCODING;
        self.port = loop {
            match port.recv_timeout(Duration::from_millis(200)) {
                Ok(port) => break port,
                Err(mpsc::RecvTimeoutError::Timeout) if std::time::Instant::now() < deadline => {}
                Err(_) => {
                    let _ = process.wait(wait::PATIENCE.min(Duration::from_secs(2)));
                    anyhow::bail!("the camera does not start: {}", process.last_words(5));
                }
            }
        };
        self.running = Some(Running { process, leash });
        Ok(())
    }
}
