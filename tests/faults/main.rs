//! The fault suite.
//!
//! # Layout
//!
//! - [`tools`]: the suite's own tools (weak link, faulty broker, faulty disk) against programs whose answer is known.

mod tools;
