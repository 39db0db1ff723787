//! The daemon of a village box: cameras in, alerts out.

#![forbid(unsafe_code)]

pub mod backoff;
