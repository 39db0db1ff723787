//! `GET /metrics` for Prometheus and `GET /health` for people, on loopback. Both are made from one health snapshot,
//! so that they cannot disagree; only of brokers that stand in for each other the metrics tell each one's own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use axum::Router;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use sharp_eyes_protocol::report::{CameraState, DetectorState, GateHealth, Health, UplinkHealth};

use crate::camera;
use crate::health::Examiner;

/// Metrics cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("cannot serve metrics on {listen}; choose another port in [metrics]")]
pub struct ListenError {
    listen: SocketAddr,
    source: std::io::Error,
}

/// Opens the port. The returned future serves until it is dropped.
pub async fn serve(
    listen: SocketAddr,
    examiner: Arc<Examiner>,
) -> Result<impl Future<Output = std::io::Result<()>> + Send, ListenError> {
    let failed = |source| ListenError { listen, source };
    let listener = tokio::net::TcpListener::bind(listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    tracing::info!("metrics on http://{address}/metrics, health on http://{address}/health");
    let routes = Router::new()
        .route("/metrics", get(|State(examiner): State<Arc<Examiner>>| async move { text(&examiner) }))
        .route("/health", get(|State(examiner): State<Arc<Examiner>>| async move { json(&examiner) }))
        .with_state(examiner);
    Ok(async move { axum::serve(listener, routes).await })
}

fn json(examiner: &Examiner) -> impl IntoResponse + use<> {
    let health =
        serde_json::to_string_pretty(&examiner.health()).expect("health holds nothing that JSON cannot say");
    ([(CONTENT_TYPE, "application/json")], health)
}

fn text(examiner: &Examiner) -> impl IntoResponse + use<> {
    let mut text = String::new();
    encode(&mut text, &registry(examiner)).expect("writing to a String does not fail");
    ([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text)
}

type Labels = [(&'static str, String); 1];
type Number = Gauge<f64, AtomicU64>;

/// A registry of this one moment.
fn registry(examiner: &Examiner) -> Registry {
    let health = &examiner.health();
    let mut registry = Registry::with_prefix("sharp_eyes");
    cameras(&mut registry, health);
    counter(
        &mut registry,
        "inferences",
        "Looks of the detector; several cameras may share one",
        health.detector.inferences,
    );
    counter(&mut registry, "inference_failures", "Inferences that failed", health.detector.failures);
    gauge(
        &mut registry,
        "inference_mean_milliseconds",
        "Mean time of one look",
        health.detector.inference_ms,
    );
    gauge(
        &mut registry,
        "camera_pipelines_hung",
        "Decoders and connections that hang for good; at 16, the systemd watchdog restarts the agent",
        camera::left_behind() as f64,
    );
    let running = f64::from(u8::from(health.detector.state == DetectorState::Running));
    gauge(&mut registry, "detector_running", "1 while the detector looks at frames", running);
    let outbox = &health.outbox;
    gauge(&mut registry, "outbox_alerts", "Alerts that wait for the broker", outbox.alerts as f64);
    gauge(&mut registry, "outbox_evidence", "Pictures that wait for the broker", outbox.evidence as f64);
    gauge(
        &mut registry,
        "outbox_bytes",
        "Bytes of alerts and pictures that are kept: those that wait, and delivered ones to be sent again",
        outbox.bytes as f64,
    );
    gauge(
        &mut registry,
        "outbox_failing",
        "1 while the outbox cannot be written",
        f64::from(u8::from(outbox.failure.is_some())),
    );
    counter(
        &mut registry,
        "outbox_evicted_evidence",
        "Pictures given up for want of space",
        outbox.evicted_evidence,
    );
    counter(
        &mut registry,
        "outbox_evicted_alerts",
        "Alerts given up for want of space",
        outbox.evicted_alerts,
    );
    uplinks(&mut registry, &examiner.brokers());
    for (name, help, value) in [
        ("outbox_open", "Alerts that nobody has resolved or dismissed", outbox.open),
        ("outbox_parked", "Messages and pictures that a broker refused", outbox.parked),
        ("outbox_delivered", "Delivered messages that are kept to be sent again", outbox.delivered),
    ] {
        gauge(&mut registry, name, help, value as f64);
    }
    for (name, help, value) in [
        ("outbox_escalated", "Alerts that climbed because nobody answered", outbox.escalated),
        ("outbox_unanswered", "Open alerts that could be kept no longer", outbox.unanswered),
        ("commands_done", "Commands of consoles that were executed", health.commands.done),
        ("commands_refused", "Commands of consoles that were refused", health.commands.refused),
        ("commands_ignored", "Commands that could not be answered", health.commands.ignored),
    ] {
        counter(&mut registry, name, help, value);
    }
    for (name, help, latency) in [
        (
            "alert_latency_seconds",
            "From the arrival of the frame to PUBLISH, of the newest alerts that were not resent",
            examiner.latency(),
        ),
        (
            "wakeup_seconds",
            "From the arrival of what woke a camera until the detector has looked at it, of the newest awakenings",
            examiner.wakeups(),
        ),
    ] {
        let quantiles = Family::<Labels, Number>::default();
        for (quantile, value) in [("0.5", latency.p50), ("0.99", latency.p99)] {
            let label = [("quantile", quantile.to_owned())];
            quantiles.get_or_create(&label).set(value.map_or(f64::NAN, |value| value.as_secs_f64()));
        }
        registry.register(name, help, quantiles);
    }
    gauge(&mut registry, "uptime_seconds", "Since the agent started", health.uptime_s as f64);
    registry
}

fn uplinks(registry: &mut Registry, brokers: &[UplinkHealth]) {
    let label = |uplink: &UplinkHealth| [("broker", uplink.broker.to_string())];
    let connected = Family::<Labels, Number>::default();
    for uplink in brokers {
        connected.get_or_create(&label(uplink)).set(f64::from(u8::from(uplink.connected)));
    }
    registry.register("uplink_connected", "1 while the broker is there", connected);
    type Read = fn(&UplinkHealth) -> u64;
    let counters: [(&str, &str, Read); 3] = [
        ("uplink_acknowledged", "Messages acknowledged by the broker", |uplink| uplink.acknowledged),
        ("uplink_refused", "Messages refused by the broker", |uplink| uplink.refused),
        ("uplink_failures", "Connections to the broker that ended in an error", |uplink| uplink.failures),
    ];
    for (name, help, read) in counters {
        let family = Family::<Labels, Counter>::default();
        for uplink in brokers {
            family.get_or_create(&label(uplink)).inc_by(read(uplink));
        }
        registry.register(name, help, family);
    }
}

fn cameras(registry: &mut Registry, health: &Health) {
    type Read = fn(&sharp_eyes_protocol::report::CameraHealth) -> u64;
    let counters: [(&str, &str, Read); 9] = [
        ("camera_received", "Access units received", |camera| camera.received),
        ("camera_skipped", "Access units that the gate kept from the decoder", |camera| camera.skipped),
        ("camera_decoded", "Frames decoded", |camera| camera.decoded),
        ("camera_analysed", "Frames looked at by the detector", |camera| camera.analysed),
        ("camera_dropped", "Frames replaced by a newer one before the detector came to them", |camera| {
            camera.dropped
        }),
        ("camera_failures", "Connections that ended in an error", |camera| camera.failures),
        ("camera_detections", "Detections above their threshold", |camera| camera.detections),
        ("camera_untracked", "Detections that were not tracked: too many at once", |camera| camera.untracked),
        ("camera_alerts", "Alerts raised", |camera| camera.alerts),
    ];
    for (name, help, read) in counters {
        let family = Family::<Labels, Counter>::default();
        for camera in &health.cameras {
            family.get_or_create(&[("camera", camera.name.to_string())]).inc_by(read(camera));
        }
        registry.register(name, help, family);
    }
    gates(registry, health);
    let (blind, streaming) = (Family::<Labels, Number>::default(), Family::<Labels, Number>::default());
    for camera in &health.cameras {
        let label = [("camera", camera.name.to_string())];
        blind.get_or_create(&label).set(camera.blind_s);
        let comes = camera.state == CameraState::Streaming;
        streaming.get_or_create(&label).set(f64::from(u8::from(comes)));
    }
    registry.register("camera_blind_seconds", "Time without pictures since the agent started", blind);
    let tampered = Family::<Labels, Number>::default();
    for camera in &health.cameras {
        let label = [("camera", camera.name.to_string())];
        tampered.get_or_create(&label).set(f64::from(u8::from(camera.tampered.is_some())));
    }
    registry.register(
        "camera_tampered",
        "1 while the camera is covered, turned away, blurred or frozen",
        tampered,
    );
    registry.register("camera_streaming", "1 while pictures come", streaming);
}

fn gates(registry: &mut Registry, health: &Health) {
    type Read = fn(&GateHealth) -> u64;
    let counters: [(&str, &str, Read); 6] = [
        ("camera_asleep_seconds", "Time in which nothing happened and nothing was decoded", |gate| {
            gate.asleep_s
        }),
        ("camera_wakes", "Times that a sleeping camera woke up because something had changed", |gate| {
            gate.wakes
        }),
        ("camera_checks", "Times that a sleeping camera looked whether something had changed", |gate| {
            gate.checks
        }),
        ("camera_audits", "Sleeping pictures that the detector was given at random", |gate| gate.audits),
        ("camera_audits_missed", "Those in which it found something that sleep had hidden", |gate| {
            gate.missed
        }),
        (
            "camera_spared",
            "Frames that the detector was spared, because it was sure of all that it saw",
            |gate| gate.spared,
        ),
    ];
    for (name, help, read) in counters {
        let family = Family::<Labels, Counter>::default();
        for camera in &health.cameras {
            let Some(gate) = &camera.gate else { continue };
            family.get_or_create(&[("camera", camera.name.to_string())]).inc_by(read(gate));
        }
        registry.register(name, help, family);
    }
}

fn counter(registry: &mut Registry, name: &str, help: &str, value: u64) {
    let counter = Counter::<u64>::default();
    counter.inc_by(value);
    registry.register(name, help, counter);
}

fn gauge(registry: &mut Registry, name: &str, help: &str, value: f64) {
    let gauge = Number::default();
    gauge.set(value);
    registry.register(name, help, gauge);
}
