//! What two hundred updates and two hundred rollbacks leave behind in the agent.

use anyhow::Result;
use serde_json::{Map, Value, json};
use sharp_eyes_tests::switching::Switching;

use crate::setting;

/// Updates and rollbacks before the first measurement: allocator and runtime take what they keep.
const WARM_UP: u32 = 10;

/// Measurements, evenly apart.
const POINTS: u32 = 8;

pub(crate) fn measure() -> Result<Map<String, Value>> {
    let rounds = u32::try_from(setting("BENCH_UPDATES", 200)?)?;
    let folder = tempfile::tempdir()?;
    let mut switching = Switching::start(folder.path())?;
    switching.switch(WARM_UP)?;
    println!("\nupdates and rollbacks  descriptors  threads  memory (RssAnon)");
    let mut points = Vec::new();
    for point in 0..=POINTS {
        let done = rounds * point / POINTS;
        if point > 0 {
            switching.switch(done - rounds * (point - 1) / POINTS)?;
        }
        let held = switching.held()?;
        let megabytes = held.memory as f64 / 1e6;
        println!("{done:>21}  {:>11}  {:>7}  {megabytes:>13.1} MB", held.descriptors, held.threads);
        points.push(json!({
            "updates": done, "rollbacks": done, "descriptors": held.descriptors, "threads": held.threads,
            "memory_bytes": held.memory,
        }));
    }
    Ok(Map::from_iter([("updates".to_owned(), Value::from(points))]))
}
