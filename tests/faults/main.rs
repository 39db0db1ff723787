//! The fault suite.
//!
//! # Layout
//!
//! - [`tools`]: the suite's own tools against programs whose answer is known.

mod tools;
