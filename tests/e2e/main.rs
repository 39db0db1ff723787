//! End-to-end tests: the agent as a process among real cameras, a real broker and a real console.
//!
//! # Layout
//!
//! - [`stage`]: what every test stands on: a folder, cameras, broker, console; logs are shown when a test fails;
//! - [`path`]: the path of a frame, from RTSP to an alert with a picture, and over restarts;
//! - [`answering`]: an alert climbs until somebody answers, and what a console may ask;
//! - [`rules`]: what each rule alarms for, and how an alert ends; [`tampering`]: what is done to cameras;
//! - [`replay`]: a clip instead of a camera;
//! - [`gate`]: cameras that sleep while nothing happens;
//! - [`wire`]: what crosses the wire is what the schemas and the AsyncAPI document say;
//! - [`operation`]: what systemd and Prometheus see;
//! - [`cameras`], [`broker`], [`detector`], [`state`], [`configuration`]: what goes wrong, one test each;
//! - [`updates`]: models from a maintainer's repository, good and bad ones, and what a hostile mirror does;
//! - [`remote`]: configurations that a maintainer signs for boxes;
//! - [`invariants`]: what the source itself must keep to.
//!
//! Tests wait for conditions. A test that needs what a machine cannot give says so in `.cache/skipped`.

mod answering;
mod broker;
mod cameras;
mod configuration;
mod detector;
mod gate;
mod invariants;
mod operation;
mod path;
mod remote;
mod replay;
mod rules;
mod stage;
mod state;
mod tampering;
mod updates;
mod wire;
