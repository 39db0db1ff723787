//! The agent as a process.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use sharp_eyes_protocol::report::{CameraHealth, Health};

use crate::process::Process;
use crate::village::Village;
use crate::{places, wait};

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    process: Process,
    metrics_port: u16,
}

impl Agent {
    /// Starts `sharp-eyes-agent run` with the configuration of a village. Returns at once.
    pub fn start(village: &Village) -> Result<Self> {
        Self::start_with_log_level(village, "info")
    }

    /// The same with another configuration than the village writes, in its place.
    pub fn start_with_configuration(village: &Village, toml: &str) -> Result<Self> {
        std::fs::write(village.write()?, toml)?;
        Self::launch(village, &village.folder.join("agent.toml"), "info", |_| {})
    }

    /// The same where the command is prepared further: by a disk, or a clock.
    pub fn start_with(village: &Village, prepare: impl FnOnce(&mut Command)) -> Result<Self> {
        Self::launch(village, &village.write()?, "info", prepare)
    }

    /// The same with another value of `RUST_LOG`.
    pub fn start_with_log_level(village: &Village, level: &str) -> Result<Self> {
        Self::launch(village, &village.write()?, level, |_| {})
    }

    fn launch(
        village: &Village,
        file: &Path,
        level: &str,
        prepare: impl FnOnce(&mut Command),
    ) -> Result<Self> {
        let mut command = Command::new(places::binary("sharp-eyes-agent")?);
        command.arg("run").arg("--config").arg(file);
        command.env("RUST_LOG", level).stdin(Stdio::null()).stdout(Stdio::null());
        prepare(&mut command);
        let process = Process::start("sharp-eyes-agent", command, &Self::log_file(&village.folder))?;
        Ok(Self { process, metrics_port: village.metrics_port })
    }

    /// Runs `sharp-eyes-agent check` on a file.
    pub fn check(file: &Path) -> Result<Output> {
        let mut command = Command::new(places::binary("sharp-eyes-agent")?);
        command.arg("check").arg(file).output().context("running sharp-eyes-agent check")
    }

    /// Where an agent of a village logs to.
    pub fn log_file(folder: &Path) -> PathBuf {
        folder.join("agent.log")
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Asks it to end and returns its exit code; -1 when a signal ended it.
    pub fn stop(self) -> Result<i32> {
        self.stop_within(wait::PATIENCE)
    }

    /// The same with another patience.
    pub fn stop_within(self, patience: Duration) -> Result<i32> {
        Ok(self.process.stop(patience)?.code().unwrap_or(-1))
    }

    /// Pulls the plug.
    pub fn kill(self) -> Result<()> {
        self.process.kill()
    }

    /// What it says of itself on loopback, whether or not a broker is there.
    pub fn health(&self) -> Result<Health> {
        serde_json::from_str(&self.get("/health")?).context("reading /health")
    }

    /// What it tells Prometheus.
    pub fn metrics(&self) -> Result<String> {
        self.get("/metrics")
    }

    /// A quantile that its metrics report of the newest times something took, in seconds; none before it happened.
    pub fn quantile(&self, metric: &str, quantile: &str) -> Result<Option<f64>> {
        let key = format!("sharp_eyes_{metric}{{quantile=\"{quantile}\"}} ");
        let metrics = self.metrics()?;
        let line = metrics.lines().find_map(|line| line.strip_prefix(&key));
        let value: f64 = line.with_context(|| format!("no metric {metric}"))?.parse()?;
        Ok(Some(value).filter(|value| value.is_finite()))
    }

    /// Waits until its health has something. The error names `what`, and the last health.
    pub fn health_when<T>(&mut self, what: &str, mut ask: impl FnMut(&Health) -> Option<T>) -> Result<T> {
        let mut last = None;
        let found = wait::until(what, wait::PATIENCE, || {
            if self.process.ended().is_some() {
                return Some(None);
            }
            last = self.health().ok();
            last.as_ref().and_then(&mut ask).map(Some)
        });
        match found {
            Ok(Some(found)) => Ok(found),
            Ok(None) => anyhow::bail!("the agent ended before {what}"),
            Err(error) => Err(error.context(format!("last health: {last:?}"))),
        }
    }

    /// Waits until one camera's health has something.
    pub fn camera_when(
        &mut self,
        camera: &str,
        what: &str,
        ask: impl Fn(&CameraHealth) -> bool,
    ) -> Result<CameraHealth> {
        self.health_when(what, |health| {
            health.cameras.iter().find(|entry| entry.name.as_str() == camera && ask(entry)).cloned()
        })
    }

    /// HTTP/1.0 needs no more than this, and the answer ends when the connection does.
    fn get(&self, path: &str) -> Result<String> {
        let mut stream =
            TcpStream::connect(("127.0.0.1", self.metrics_port)).context("connecting to the agent")?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).with_context(|| format!("reading {path}"))?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
        let status = head.split_whitespace().nth(1).unwrap_or_default();
        ensure!(status == "200", "{path} answers {status}");
        Ok(body.to_owned())
    }
}
