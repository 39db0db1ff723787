//! The fault suite: alerts are never lost.
//!
//! In every fault here, the ids that reach a console are those that the agent promised to have stored, once each when
//! repetitions are dropped, `sequence` has no gap, and nothing else stops. README.md beside this file says which fault of
//! the field is tested where.
//!
//! # Layout
//!
//! - [`delivery`]: brokers and links that break their promises, between an agent with a camera and a real mosquitto;
//! - [`brokers`]: brokers that are killed in the middle of a message, or fall silent;
//! - [`answers`]: the broker's answers lost, doubled, refusing;
//! - [`backlog`]: an hour without a broker, and more messages than there are packet ids;
//! - [`certificates`]: revoked and expired ones; [`clock`]: wall clocks that are wrong and jump;
//! - [`cameras`]: cameras that hang, reboot, refuse, and send damage;
//! - [`installation`]: a model is installed, and the process is killed, or the power cut, at every write;
//! - [`kill`]: the agent killed at random moments; [`power`]: at every write, and the power with it;
//! - [`storage`]: disks that refuse, databases that are damaged, newer or locked;
//! - [`tools`]: the suite's own tools (weak link, faulty broker, faulty disk) against programs whose answer is known.
//!
//! [`scene`] is what most of them stand on, [`outbox`] opens what an agent left.

mod answers;
mod backlog;
mod brokers;
mod cameras;
mod certificates;
mod clock;
mod delivery;
mod installation;
mod kill;
mod outbox;
mod power;
mod scene;
#[path = "../e2e/stage.rs"]
#[allow(dead_code)] // the end-to-end tests use more of it
mod stage;
mod storage;
mod tools;
