//! What the commands print that only look at something.

mod audit;
mod bench_box;
mod inspect;

pub use audit::audit;
pub use bench_box::{BenchBoxError, bench_box};
pub use inspect::{InspectError, InspectOptions, inspect};
