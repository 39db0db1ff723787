//! What the commands print that only look at something.

mod audit;
mod inspect;

pub use audit::audit;
pub use inspect::{InspectError, InspectOptions, inspect};
