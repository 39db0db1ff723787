//! What the commands print that only look at something.

mod audit;
mod bench_box;
mod bench_model;
mod check;
mod inspect;

pub use audit::audit;
pub use bench_box::{BenchBoxError, bench_box};
pub use bench_model::{BenchModelError, WayOptions, bench_model, bench_way};
pub use check::check;
pub use inspect::{InspectError, InspectOptions, inspect};
