//! Alerts as they arrive, line by line, and one line at the bottom that says that everything is well.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use jiff::tz::TimeZone;
use sharp_eyes_protocol::alert::{Alert, AlertEvent};
use sharp_eyes_protocol::level::Severity;
use sharp_eyes_protocol::report::{CameraHealth, CameraState, Health};
use sharp_eyes_tests::console::Received;
use uuid::Uuid;

use crate::options::{Input, Options};
use crate::stage::{Measurement, Stage};
use crate::summary::Summary;
use crate::words;

/// Where lines cannot be overwritten, the status is a line of its own, this often.
const STATUS_EVERY: Duration = Duration::from_secs(10);

/// So long a detector may load and cameras may connect before that is worth a line.
const WARM_UP: Duration = Duration::from_secs(3);

/// A terminal, or a file that a terminal's output goes to.
pub(crate) struct View {
    terminal: bool,
    colours: bool,
    /// Messages that have been shown: there may be repetitions.
    shown: BTreeSet<u64>,
    raised: usize,
    /// File names without extension of pictures that are still to come.
    awaited: BTreeMap<Uuid, String>,
    alerts_seen: usize,
    complaints: BTreeSet<String>,
    status_shown: Option<Instant>,
}

impl View {
    pub(crate) fn new() -> Self {
        let terminal = std::io::stdout().is_terminal();
        Self {
            terminal,
            colours: terminal && std::env::var_os("NO_COLOR").is_none(),
            shown: BTreeSet::new(),
            raised: 0,
            awaited: BTreeMap::new(),
            alerts_seen: 0,
            complaints: BTreeSet::new(),
            status_shown: None,
        }
    }

    /// Says what is done before it is done, and how long it took after.
    pub(crate) fn step<T>(&self, what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        print!("demo: {what} ...");
        let _ = std::io::stdout().flush(); // a closed pipe is found out by the next line
        let began = Instant::now();
        let done = work();
        match &done {
            Ok(_) => println!(" {:.1} s", began.elapsed().as_secs_f64()),
            Err(_) => println!(" failed"),
        }
        done
    }

    pub(crate) fn explain(&self, options: &Options) {
        println!();
        match &options.input {
            Input::Footage(_) => {
                println!(
                    "  square  广场  nobody may stay on the street for 2 s    -> 重要 major, to the township"
                );
                println!(
                    "  gate    大门  nobody may stay on the lawn for 3 s      -> 紧急 critical, to the district"
                );
            }
            Input::Clip(_) | Input::Camera { .. } => {
                println!("  nobody may stay anywhere in the picture for 2 s  -> 重要 major, to the township");
            }
        }
        match options.length {
            Some(length) => println!("  for {} s (DEMO_SECONDS), or until Ctrl-C\n", length.as_secs()),
            None => println!("  until Ctrl-C\n"),
        }
    }

    /// Shows the alerts and saves the pictures that arrived since the last time.
    pub(crate) fn show_news(&mut self, stage: &Stage) -> Result<()> {
        let (alerts, pictures) = stage.console.seen(|seen| {
            let new = &seen.alerts[self.alerts_seen..];
            let ids = self.awaited.keys().copied().chain(new.iter().map(|received| received.alert.id));
            let pictures = ids.filter_map(|id| seen.evidence.get(&id).map(|(_, jpeg)| (id, jpeg.clone())));
            (new.to_vec(), pictures.collect::<Vec<_>>())
        });
        self.alerts_seen += alerts.len();
        for received in alerts {
            if self.shown.insert(received.alert.sequence) {
                match received.alert.event {
                    AlertEvent::Raised => self.show(&received),
                    _ => self.follow_up(&received.alert),
                }
            }
        }
        for (id, jpeg) in pictures {
            if let Some(name) = self.awaited.remove(&id) {
                let file = stage.folder.join(format!("{name}.jpg"));
                std::fs::write(&file, &jpeg).with_context(|| format!("writing {}", file.display()))?;
                self.line(&format!(
                    "          图像 picture  {} ({} kB)",
                    file.display(),
                    jpeg.len().div_ceil(1000)
                ));
            }
        }
        Ok(())
    }

    fn show(&mut self, received: &Received) {
        let alert = &received.alert;
        let data = &alert.data;
        self.raised += 1;
        if data.evidence {
            self.awaited.insert(alert.id, format!("{}-{:04}", alert.subject.camera, alert.sequence));
        }
        let severity = self.paint(data.severity, words::severity(data.severity));
        // What it is about: an object, or the camera itself.
        let what = match (data.class, data.confidence, data.tampering) {
            (Some(class), Some(confidence), _) => {
                format!("{} {:.0} %", words::class(class), confidence * 100.0)
            }
            (_, _, Some(tampering)) => tampering.to_string(),
            _ => String::new(),
        };
        let line = format!(
            "{}  {severity}  {}: {what}  @ {} / {}  -> {}  ({} ms)",
            time(alert),
            words::kind(data.kind),
            place(alert),
            data.cell.as_deref().unwrap_or("-"),
            words::level(data.level),
            received.delivery().as_millis(),
        );
        self.line(&line);
    }

    /// What became of an alert that was shown.
    fn follow_up(&self, alert: &Alert) {
        self.line(&format!(
            "          {}  {} of {}  @ {}  -> {}",
            words::event(alert.event),
            words::kind(alert.data.kind),
            time(alert),
            place(alert),
            words::level(alert.data.level),
        ));
    }

    /// The line at the bottom, and a line of its own for each new complaint.
    pub(crate) fn show_status(&mut self, now: Option<&Measurement>, length: Option<Duration>) {
        let Some(now) = now else { return };
        for complaint in complaints(&now.health) {
            if now.at > WARM_UP && self.complaints.insert(complaint.clone()) {
                self.line(&format!("          注意 note  {complaint}"));
            }
        }
        let every = if self.terminal { Duration::from_secs(1) } else { STATUS_EVERY };
        if self.status_shown.is_some_and(|shown| shown.elapsed() < every) {
            return;
        }
        self.status_shown = Some(Instant::now());
        let status = self.status(now, length);
        if self.terminal {
            print!("\r\x1b[K{status}");
            let _ = std::io::stdout().flush(); // a closed terminal ends the demo by a signal
        } else {
            println!("{status}");
        }
    }

    fn status(&self, now: &Measurement, length: Option<Duration>) -> String {
        let seconds = now.at.as_secs_f64();
        let of = length.map_or(String::new(), |length| format!("/{}", length.as_secs()));
        // Short enough for 80 columns: a line that wraps cannot be overwritten.
        let camera = |camera: &CameraHealth| match camera.state {
            CameraState::Streaming => {
                format!("{} {:.1}/s", camera.name, camera.analysed as f64 / seconds.max(1.0))
            }
            other => format!("{} {}", camera.name, words::camera_state(other)),
        };
        let cameras: Vec<String> = now.health.cameras.iter().map(camera).collect();
        let cpu = 100.0 * now.usage.cpu.as_secs_f64() / seconds.max(0.1);
        format!(
            "[{seconds:.0}{of} s] {} | alerts: {} | agent: {cpu:.0} % of a core, {:.0} MB",
            cameras.join(", "),
            self.raised,
            now.usage.memory as f64 / 1e6
        )
    }

    pub(crate) fn sum_up(&self, summary: &Summary, stage: &Stage) {
        let ms = |time: Option<f64>| time.map_or("-".to_owned(), |time| format!("{time:.0} ms"));
        self.line("");
        println!("After {:.0} s:", summary.seconds);
        println!(
            "  frames      {} received, {} decoded, {} analysed, {} dropped for newer ones",
            summary.frames_received, summary.frames_decoded, summary.frames_analysed, summary.frames_dropped
        );
        println!("  detections  {}", summary.detections);
        let first =
            summary.first_alert_s.map_or(String::new(), |first| format!(", the first after {first:.1} s"));
        println!("  alerts      {} with {} pictures{first}", summary.alerts, summary.evidence);
        println!(
            "  delivery    p50 {}, p99 {} (from the arrival of the frame to this console)",
            ms(summary.delivery_ms_p50),
            ms(summary.delivery_ms_p99)
        );
        println!(
            "  agent       {:.1} s of CPU ({:.0} % of one core), {:.0} MB",
            summary.agent_cpu_s, summary.agent_cpu_percent, summary.agent_rss_mb
        );
        println!("  pictures and logs in {}", stage.folder.display());
    }

    /// A line above the status line.
    fn line(&self, text: &str) {
        if self.terminal {
            print!("\r\x1b[K");
        }
        println!("{text}");
    }

    fn paint(&self, severity: Severity, text: &str) -> String {
        let colour = match severity {
            Severity::Minor => "36",
            Severity::Major => "33",
            Severity::Critical => "1;31",
        };
        if self.colours { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// When an alert was raised.
fn time(alert: &Alert) -> String {
    alert.time.to_zoned(TimeZone::system()).strftime("%H:%M:%S").to_string()
}

/// Camera and zone.
fn place(alert: &Alert) -> String {
    let zone = alert.subject.zone.as_ref().map_or("-", |zone| zone.as_str());
    format!("{} / {zone}", alert.subject.camera)
}

/// What is wrong, in the agent's own words.
fn complaints(health: &Health) -> Vec<String> {
    let cameras = health.cameras.iter().filter_map(|camera| {
        let reason = camera.reason.as_ref()?;
        Some(format!("camera {}: {reason}", camera.name))
    });
    let detector = health.detector.reason.iter().map(|reason| format!("detector: {reason}"));
    let uplink = health
        .uplinks
        .iter()
        .filter_map(|uplink| uplink.reason.as_ref())
        .map(|reason| format!("broker: {reason}"));
    let outbox = health.outbox.failure.iter().map(|reason| format!("outbox: {reason}"));
    cameras.chain(detector).chain(uplink).chain(outbox).collect()
}
