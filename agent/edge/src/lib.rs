//! The daemon of a village box: cameras in, alerts out.
//!
//! # Layout
//!
//! In the order in which data flows:
//!
//! - [`config`]: the one file, read strictly into the options of each part;
//! - [`camera`]: RTSP to frames, with a gate between ingest and decode; the only folder that names GStreamer;
//! - [`analysis`]: the newest frame of each camera to detections, tracks, incidents and alerts (`sharp-eyes-vision`
//!   does the looking, in one or more [`sessions`]);
//! - [`outbox`]: alerts on disk until the brokers have them, open until somebody answers; the only folder that names the
//!   database; [`escalation`] says when they climb;
//! - [`models`]: what looks at frames, fetched, verified, tried, switched to and taken back; one folder of it names the TUF
//!   client, and [`maintenance`] is the commands around it;
//! - [`remote`]: a configuration that comes the same way, tried, confirmed and taken back;
//! - [`uplink`]: outbox to broker, retained reports, and commands in; one file of it names the MQTT client;
//! - [`commands`]: what consoles ask for, judged and handed to the outbox;
//! - [`snapshots`]: who asks for a picture of a camera;
//! - [`board`]: what is known of cameras and detector; [`health`] makes the report of it, for broker and [`metrics`];
//! - [`watch`]: what is wrong with cameras themselves, to alerts; [`condition`] says when it counts;
//! - [`dispatch`]: joins all that happens to an alert once it is decided;
//! - [`daemon`]: joins the cameras to it, and takes them down in the order of the data.
//!
//! Beside the path: [`backoff`], [`beat`], [`budget`], [`clock`], [`cores`], [`durable`], [`latency`], [`log`], [`print`],
//! [`secret`], [`systemd`], and [`replay`], which shows a clip to [`camera`] and [`analysis`] as if it were a camera.
//!
//! # Invariants
//!
//! - A slow detector never slows a camera (`analysis::Slots`); a dead broker never slows a detector (`outbox`).
//! - An alert is on disk before anyone is told of it, and leaves the disk only after the broker acknowledged it or by
//!   the counted, reported size limit.
//! - One camera's failure stops that camera alone, and it comes back by itself.
//! - No password is ever logged, published or shown ([`secret`]).
//! - Every queue is bounded; where it is made, a comment says what happens when it is full.

#![forbid(unsafe_code)]

pub mod analysis;
pub mod backoff;
pub mod beat;
pub mod board;
pub mod budget;
pub mod camera;
pub mod clock;
pub mod commands;
pub mod condition;
pub mod config;
pub mod cores;
pub mod daemon;
pub mod dispatch;
pub mod durable;
pub mod escalation;
pub mod health;
pub mod latency;
pub mod log;
pub mod maintenance;
pub mod metrics;
pub mod models;
pub mod outbox;
pub mod print;
pub mod remote;
pub mod replay;
pub mod secret;
pub mod sessions;
pub mod snapshots;
pub mod systemd;
pub mod uplink;
pub mod watch;
