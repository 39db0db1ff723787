//! The fault suite.
//!
//! # Layout
//!
//! - [`delivery`]: brokers and links that break their promises, between a real agent and a real mosquitto;
//! - [`tools`]: the suite's own tools (weak link, faulty broker, faulty disk) against programs whose answer is known.

mod delivery;
#[path = "../e2e/stage.rs"]
#[allow(dead_code)] // the end-to-end tests use more of it
mod stage;
mod tools;
