//! Cameras that break their promises: each of them is named while it does, comes back by itself, and harms no other.
//!
//! # Layout
//!
//! - [`scene`]: a box with cameras, each behind a man in the middle;
//! - [`start`]: from the first request to the first picture; [`login`]: cameras that refuse;
//! - [`sessions`]: sessions that end, hang, or want to be kept alive;
//! - [`stream`]: what is in the stream; [`clocks`]: the times on it;
//! - [`stop`]: the end of the agent while cameras hang; [`decoder`]: a decoder that hangs;
//! - [`leaks`]: what a thousand reconnections leave behind.

mod clocks;
mod decoder;
mod leaks;
mod login;
mod scene;
mod sessions;
mod start;
mod stop;
mod stream;
