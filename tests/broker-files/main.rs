//! The broker files of `config/mosquitto` with real mosquitto processes and real certificates: what is allowed, and what
//! is refused.
//!
//! # Layout
//!
//! - [`office`]: the folder of a maintainer who issues certificates with the very script, and sets up brokers;
//! - [`client`]: somebody with a certificate, by mosquitto's own clients;
//! - [`rights`]: who may publish and read what;
//! - [`certificates`]: who gets in at all;
//! - [`bridge`]: a township and its district;
//! - [`agent`]: the agent itself with these files;
//! - [`script`]: what the script refuses.

mod agent;
mod bridge;
mod certificates;
mod client;
mod office;
mod rights;
mod script;
