//! What the agent costs, beside what it cannot cost less than, in one run.
//!
//! ```text
//! make bench                      # BENCH_SECONDS=15 a measurement, BENCH_ROUNDS=3 of each
//! BENCH_JSON=figures.json make bench
//! BENCH=delivery make bench       # that part alone; the others are agent, planes and gate, together cameras
//! ```
//!
//! # Layout
//!
//! - [`floor`]: receiving, decoding and inference alone, each as a process of its own;
//! - [`agent`]: the whole agent on the same camera;
//! - [`load`]: how soon an alert is told where many cameras keep the box busy;
//! - [`planes`]: a picture to a model's tensor;
//! - [`figures`]: medians, the table and the JSON;
//! - [`gate`]: cameras that mostly see nothing;
//! - [`delivery`]: from the decision to the broker;
//! - [`fleet`]: a thousand boxes, one repository, one broker;
//! - [`updates`]: what two hundred updates and rollbacks leave behind.
//!
//! A machine's speed drifts, so floor and agent are measured at the same time, round by round, and the medians compared.

mod agent;
mod delivery;
mod figures;
mod fleet;
mod floor;
mod gate;
mod load;
mod planes;
mod updates;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value};
use sharp_eyes_tests::broker::{Broker, BrokerOptions};
use sharp_eyes_tests::camera::Camera;
use sharp_eyes_tests::places;

use agent::ANALYSED_FPS;
use figures::{Figures, Scene};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.first().map(String::as_str) {
        None => run(),
        Some("driver") => delivery::driver::run(&arguments[1..]),
        Some(floor) => floor::run(floor, &arguments[1..]),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn setting(name: &str, default: u64) -> Result<u64> {
    match std::env::var(name) {
        Ok(text) => text.parse().with_context(|| format!("{name}={text} is no whole number")),
        Err(_) => Ok(default),
    }
}

fn run() -> Result<()> {
    let part = std::env::var("BENCH").unwrap_or_default();
    const PARTS: [&str; 6] = ["agent", "planes", "gate", "delivery", "updates", "fleet"];
    ensure!(
        ["", "cameras"].contains(&part.as_str()) || PARTS.contains(&part.as_str()),
        "BENCH={part}: it is agent, planes, gate, delivery, updates, fleet, or cameras for the first three"
    );
    let wanted = |name: &str| {
        ["", name].contains(&part.as_str())
            || (part == "cameras" && ["agent", "planes", "gate"].contains(&name))
    };
    let mut all = Map::new();
    if wanted("agent") {
        all.extend(measure()?);
    }
    if wanted("planes") {
        all.extend(planes::measure()?);
    }
    if wanted("gate") {
        all.extend(gate::measure()?);
    }
    if wanted("delivery") {
        all.extend(delivery::measure()?);
    }
    if wanted("updates") {
        all.extend(updates::measure()?);
    }
    if wanted("fleet") {
        all.extend(fleet::measure()?);
    }
    if let Some(file) = std::env::var_os("BENCH_JSON").filter(|file| !file.is_empty()) {
        std::fs::write(&file, format!("{:#}\n", Value::Object(all)))
            .with_context(|| format!("writing {}", file.display()))?;
    }
    Ok(())
}

fn measure() -> Result<Map<String, Value>> {
    let span = Duration::from_secs(setting("BENCH_SECONDS", 15)?);
    let rounds = setting("BENCH_ROUNDS", 3)?;
    let folder = tempfile::tempdir()?;
    let footage = places::footage()?;
    let mount = |name: &str, from: u64| format!("{name}={}@{from}", footage.display());
    let broker = Broker::start(folder.path(), &BrokerOptions::default())?;
    let mut figures = Figures::new(span, rounds);

    for (name, options) in [
        ("768x576, 10 fps", &[][..]),
        ("1920x1080, 15 fps", &["--size", "1920x1080", "--fps", "15", "--bitrate", "3000"]),
    ] {
        println!("encoding the footage as {name}, where that was not done before");
        let mounts = ["receive", "decode", "agent"].map(|client| mount(client, 0));
        let mut arguments: Vec<&str> = mounts.iter().flat_map(|mount| ["--mount", mount]).collect();
        arguments.extend_from_slice(options);
        let camera = Camera::start(folder.path(), &arguments)?;
        let mut scene = Scene::new(name);
        for round in 1..=rounds {
            println!("{name}: round {round} of {rounds}");
            // Together they take a third of a core.
            let stream = |floor: &str| floor::stream(floor, &camera.url(floor), span);
            let (receive, decode) = (stream("receive")?, stream("decode")?);
            // A processor that does something else in between, or nothing, takes longer for an inference.
            let pause = Duration::from_secs_f64(1.0 / ANALYSED_FPS);
            let inference = floor::inference((span.as_secs_f64() * ANALYSED_FPS) as u64, pause)?;
            scene.agent.push(agent::cost(folder.path(), broker.port(), &camera.url("agent"), span)?);
            scene.receive.push(receive.cost()?);
            scene.decode.push(decode.cost()?);
            scene.inference.push(inference.cost()?);
            scene.in_a_row.push(floor::inference(200, Duration::ZERO)?.cost()?);
        }
        figures.scenes.push(scene);
    }

    let cores_each = figures.cores_each();
    for round in 1..=rounds {
        println!("many cameras: round {round} of {rounds}");
        figures.loads.push(load::measure(folder.path(), &footage, cores_each, figures.load_span())?);
    }
    figures.print();
    Ok(figures.to_json())
}
