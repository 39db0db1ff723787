//! What crosses the wire between a box and the consoles: plain data, no I/O.
//!
//! # Layout
//!
//! - [`class`]: what may be seen, a closed list without identities;
//! - [`level`]: how bad it is, and who is called;
//! - [`alert`]: the CloudEvents message that an operator answers;
//! - [`command`]: what a console may ask of a box, and what the box answers;
//! - [`report`]: what a box says of itself (status, health, models);
//! - [`topic`]: where each of these is published;
//! - [`schema`]: the JSON Schemas of all of them, checked in below `schemas/`;
//! - [`asyncapi`]: all of that as one AsyncAPI document, checked in as `asyncapi.json`.
//!
//! Invariant: no type here can carry a face, a plate, an identity, a demographic attribute or a count of people.

#![forbid(unsafe_code)]

pub mod alert;
pub mod asyncapi;
pub mod class;
pub mod command;
pub mod level;
pub mod report;
pub mod schema;
pub mod topic;
