//! What systemd and Prometheus see of the agent.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use sharp_eyes_tests::agent::Agent;
use sharp_eyes_tests::broker::BrokerOptions;
use sharp_eyes_tests::process::Process;
use sharp_eyes_tests::village::VillageCamera;
use sharp_eyes_tests::{places, wait};

use crate::stage::{await_analysis, play, says, street, township, village};

#[test]
fn systemd_is_told_of_start_life_and_end() {
    play(|folder| {
        let (broker, _console) = township(folder, &BrokerOptions::default())?;
        let manager = ServiceManager::listen(&folder.join("notify"))?;
        // Nobody is at the camera's address: a box whose cameras are all broken is ready to say so.
        let village = village(folder, &broker)?.with(VillageCamera::new("gate", "rtsp://127.0.0.1:1/gate"));
        let mut command = Command::new(places::binary("sharp-eyes-agent")?);
        command.arg("run").arg("--config").arg(village.write()?).stdin(Stdio::null());
        command.env("NOTIFY_SOCKET", folder.join("notify")).env("WATCHDOG_USEC", "1500000");
        let mut agent = Process::start("sharp-eyes-agent", command, &Agent::log_file(folder))?;
        manager.await_word("READY=1")?;
        for _ in 0..3 {
            manager.await_word("WATCHDOG=1")?;
        }
        agent.signal(rustix::process::Signal::TERM)?;
        manager.await_word("STOPPING=1")?;
        ensure!(agent.wait(wait::PATIENCE)?.success(), "asked to end, the agent ended with an error");
        Ok(())
    });
}

#[test]
fn a_changed_file_is_read_again_on_sighup_unless_it_is_wrong() {
    play(|folder| {
        let (broker, _console) = township(folder, &BrokerOptions::default())?;
        let manager = ServiceManager::listen(&folder.join("notify"))?;
        let village = village(folder, &broker)?.with(VillageCamera::new("gate", "rtsp://127.0.0.1:1/gate"));
        let socket = folder.join("notify");
        let mut agent = Agent::start_with(&village, |command| {
            command.env("NOTIFY_SOCKET", &socket);
        })?;
        manager.await_word("READY=1")?;
        let pid = agent.process().pid();

        let file = village.write()?;
        std::fs::write(&file, village.toml().replacen("[state]", "[stat]", 1))?;
        agent.process().signal(rustix::process::Signal::HUP)?;
        wait::until("it to refuse the file", wait::PATIENCE, || {
            agent.process().log().contains("not reloaded, the agent goes on as it was").then_some(())
        })?;
        says(&agent.process().log(), &["stat"])?;
        ensure!(agent.health()?.cameras.len() == 1, "it went on with something else");

        let village = village.with(VillageCamera::new("yard", "rtsp://127.0.0.1:1/yard"));
        village.write()?;
        agent.process().signal(rustix::process::Signal::HUP)?;
        manager.await_word("RELOADING=1")?;
        manager.await_word("READY=1")?;
        agent.health_when("the new camera", |health| (health.cameras.len() == 2).then_some(()))?;
        ensure!(agent.process().pid() == pid && agent.stop()? == 0, "it did not end as asked");
        Ok(())
    });
}

#[test]
fn a_box_says_how_many_cameras_it_carries() {
    play(|folder| {
        let camera = street(folder, "street", &[])?;
        let (broker, _console) = township(folder, &BrokerOptions::default())?;
        let village = village(folder, &broker)?
            .with(VillageCamera::new("gate", camera.url("street")))
            .with(VillageCamera::new("away", "rtsp://127.0.0.1:1/away"));
        std::fs::create_dir_all(&village.state)?;
        let mut command = Command::new(places::binary("sharp-eyes-agent")?);
        command.args(["bench", "box", "--json", "--config"]).arg(village.write()?);
        let output = command.stdin(Stdio::null()).output()?;
        ensure!(output.status.code() == Some(1), "a camera that is away, and {}", output.status);
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).context("its report")?;

        let [gate, away] = [&report["cameras"][0], &report["cameras"][1]];
        ensure!(gate["stream"] == "H.264 768x576" && gate["failure"].is_null(), "{gate}");
        let fps = gate["fps"].as_f64().context("fps")?;
        ensure!((5.0..15.0).contains(&fps), "{fps} fps instead of about 10");
        says(&away["failure"].to_string(), &["cannot be reached"])?;
        let costs = ["received_cores", "decoded_cores", "inference_cores", "inference_ms", "write_ms"];
        for cost in costs {
            ensure!(report[cost].as_f64().is_some_and(|cost| cost > 0.0), "{cost} is {}", report[cost]);
        }
        let carries = report["carries"].as_array().context("carries")?;
        let cameras: Vec<_> = carries.iter().filter_map(|load| load["cameras"].as_u64()).collect();
        ensure!(cameras.len() == 3 && cameras.is_sorted_by(|a, b| a >= b), "{cameras:?}");
        ensure!(cameras[0] > 0, "not even one that sleeps");
        ensure!(std::fs::read_dir(&village.state)?.count() == 0, "it left something in the state folder");
        Ok(())
    });
}

/// Stands in for systemd's end of `$NOTIFY_SOCKET`.
struct ServiceManager(UnixDatagram);

impl ServiceManager {
    fn listen(socket: &Path) -> Result<Self> {
        let socket = UnixDatagram::bind(socket)?;
        socket.set_read_timeout(Some(Duration::from_secs(60)))?;
        Ok(Self(socket))
    }

    /// Reads up to this word.
    fn await_word(&self, word: &str) -> Result<()> {
        let mut datagram = [0; 1024];
        loop {
            let length = self.0.recv(&mut datagram).with_context(|| format!("waiting for {word}"))?;
            if String::from_utf8_lossy(&datagram[..length]).lines().any(|line| line == word) {
                return Ok(());
            }
        }
    }
}

#[test]
fn prometheus_reads_what_health_says() {
    play(|folder| {
        let (broker, _console) = township(folder, &BrokerOptions::default())?;
        let gate = street(folder, "gate", &[])?;
        let village = village(folder, &broker)?.with(VillageCamera::new("gate", gate.url("gate")));
        let mut agent = Agent::start(&village)?;
        await_analysis(&mut agent, "gate")?;
        agent.health_when("the broker to be there", |health| health.uplinks[0].connected.then_some(()))?;
        let metrics = agent.metrics()?;
        says(
            &metrics,
            &[
                "sharp_eyes_camera_streaming{camera=\"gate\"} 1.0",
                "sharp_eyes_detector_running 1.0",
                "sharp_eyes_uplink_connected{broker=\"broker\"} 1.0",
                "sharp_eyes_outbox_evicted_alerts_total 0",
            ],
        )?;
        let decoded = metrics
            .lines()
            .find_map(|line| line.strip_prefix("sharp_eyes_camera_decoded_total{camera=\"gate\"} "));
        ensure!(decoded.context("no decoded frames in the metrics")?.parse::<u64>()? > 0);
        ensure!(metrics.ends_with("# EOF\n"), "OpenMetrics ends with # EOF");
        let mut names: Vec<_> = metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        ensure!(names.len() == count, "a metric is there twice: {metrics}");
        Ok(())
    });
}
