//! What it came to in the end.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;
use sharp_eyes_protocol::alert::AlertEvent;

use crate::stage::{Measurement, Stage};

/// The keys of `DEMO_SUMMARY`'s JSON.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    pub(crate) seconds: f64,
    pub(crate) alerts: usize,
    pub(crate) evidence: usize,
    /// From the agent's start.
    pub(crate) first_alert_s: Option<f64>,
    /// From the arrival of the frame to the console.
    pub(crate) delivery_ms_p50: Option<f64>,
    pub(crate) delivery_ms_p99: Option<f64>,
    pub(crate) frames_received: u64,
    pub(crate) frames_decoded: u64,
    pub(crate) frames_analysed: u64,
    pub(crate) frames_dropped: u64,
    pub(crate) detections: u64,
    pub(crate) agent_cpu_s: f64,
    /// Of one core.
    pub(crate) agent_cpu_percent: f64,
    pub(crate) agent_rss_mb: f64,
}

impl Summary {
    pub(crate) fn new(stage: &Stage, last: Option<&Measurement>) -> Self {
        let (mut deliveries, first, evidence) = stage.console.seen(|seen| {
            let raised = seen.alerts.iter().filter(|received| received.alert.event == AlertEvent::Raised);
            let deliveries: Vec<Duration> = raised.map(|received| received.delivery()).collect();
            (deliveries, seen.alerts.first().map(|received| received.at), seen.evidence.len())
        });
        deliveries.sort_unstable();
        let delivery = |share| percentile(&deliveries, share).map(|time| round(time.as_secs_f64() * 1000.0));
        let cameras = last.map_or(&[][..], |last| &last.health.cameras);
        let seconds = last.map_or(0.0, |last| last.at.as_secs_f64());
        let usage = last.map(|last| last.usage).unwrap_or_default();
        Self {
            seconds: round(seconds),
            alerts: deliveries.len(),
            evidence,
            first_alert_s: first.map(|first| round(first.duration_since(stage.began).as_secs_f64())),
            delivery_ms_p50: delivery(0.5),
            delivery_ms_p99: delivery(0.99),
            frames_received: cameras.iter().map(|camera| camera.received).sum(),
            frames_decoded: cameras.iter().map(|camera| camera.decoded).sum(),
            frames_analysed: cameras.iter().map(|camera| camera.analysed).sum(),
            frames_dropped: cameras.iter().map(|camera| camera.dropped).sum(),
            detections: cameras.iter().map(|camera| camera.detections).sum(),
            agent_cpu_s: round(usage.cpu.as_secs_f64()),
            agent_cpu_percent: round(100.0 * usage.cpu.as_secs_f64() / seconds.max(0.001)),
            agent_rss_mb: round(usage.memory as f64 / 1e6),
        }
    }

    pub(crate) fn write(&self, file: &Path) -> Result<()> {
        let json = serde_json::to_string_pretty(self)? + "\n";
        std::fs::write(file, json).with_context(|| format!("writing {}", file.display()))
    }
}

/// Nearest rank: the smallest value that at least this share of the values does not exceed.
fn percentile(sorted: &[Duration], share: f64) -> Option<Duration> {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied()
}

fn round(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_one_of_the_values() {
        let values: Vec<Duration> = (1..=10).map(Duration::from_secs).collect();
        for (share, seconds) in [(0.5, 5), (0.99, 10), (0.0, 1)] {
            assert_eq!(percentile(&values, share), Some(Duration::from_secs(seconds)), "{share}");
        }
        assert_eq!(percentile(&[], 0.5), None);
    }
}
