//! `model inspect`: what a model file is, as a table for people to read or as JSON.

use std::fmt::Write as _;
use std::io::{ErrorKind, Write as _};
use std::path::PathBuf;
use std::time::Instant;

use serde::Serialize;
use sharp_eyes_vision::layout::Remark;
use sharp_eyes_vision::model::LabelsFound;
use sharp_eyes_vision::{Inspection, ModelError, OnnxError, Provider, Runtime, settings};

use crate::config::DEFAULT_RUNTIME;

/// Runs that are measured, after one that warms caches and allocations up.
const RUNS: usize = 9;

/// What `model inspect` is given.
#[derive(Clone, Debug, clap::Args)]
pub struct InspectOptions {
    /// An ONNX file, or a folder with manifest.toml and model.onnx.
    pub model: PathBuf,
    /// ONNX Runtime's library.
    #[arg(long, default_value = DEFAULT_RUNTIME)]
    pub runtime: PathBuf,
    /// Threads of one inference.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub threads: u16,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// The report as JSON has it.
#[derive(Serialize)]
struct Report<'a> {
    runs: bool,
    /// Without, pictures are coarse as a whole.
    knows_people: bool,
    #[serde(flatten)]
    inspection: &'a Inspection,
    onnx_runtime: &'a str,
    providers: &'a [Provider],
    threads: usize,
}

/// Prints what a model is. True if the agent can run it.
pub fn inspect(options: &InspectOptions) -> Result<bool, InspectError> {
    let runtime = Runtime::load(&options.runtime)?;
    let threads = usize::from(options.threads);
    let inspection = Inspection::of(&runtime, &options.model, threads, &mut median);
    let runs = inspection.refusal.is_none();
    let mut text = if options.json {
        let providers = runtime.providers();
        let knows_people = inspection.labels.as_ref().is_some_and(LabelsFound::knows_people);
        let (inspection, onnx_runtime) = (&inspection, runtime.version());
        let report = Report { runs, knows_people, inspection, onnx_runtime, providers, threads };
        serde_json::to_string_pretty(&report)?
    } else {
        table(&inspection, &runtime, threads)
    };
    text.push('\n');
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        // A reader that has seen enough (`| head`) is no error.
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(runs),
    }
}

/// The median of some runs, in milliseconds: a few of them meet other programs on the same cores.
fn median(run: &mut dyn FnMut() -> Result<(), ModelError>) -> Result<f64, ModelError> {
    run()?;
    let mut times = Vec::with_capacity(RUNS);
    for _ in 0..RUNS {
        let start = Instant::now();
        run()?;
        times.push(start.elapsed().as_secs_f64() * 1000.0);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[RUNS / 2])
}

fn table(inspection: &Inspection, runtime: &Runtime, threads: usize) -> String {
    let mut text = String::new();
    let mut row = |name: &str, value: &str, origin: &str| {
        // A String takes everything.
        let _ = match origin {
            "" => writeln!(text, "{name:<20} {value}"),
            origin => writeln!(text, "{name:<20} {value:<30} {origin}"),
        };
    };
    row("file", &inspection.file.display().to_string(), "");
    if let Some(manifest) = &inspection.manifest {
        row("manifest", &manifest.display().to_string(), "");
    }
    if !inspection.sha256.is_empty() {
        row("name", &inspection.name, "");
        row("SHA-256", &inspection.sha256, "");
        row("size", &format!("{:.2} MB", inspection.bytes as f64 / 1e6), "");
    }
    for (kind, tensors) in [("input", &inspection.inputs), ("output", &inspection.outputs)] {
        for tensor in tensors {
            row(kind, &tensor.to_string(), "");
        }
    }
    if let Some(layout) = inspection.layout {
        row("layout", layout.layout.name(), &layout.origin.to_string());
    }
    for Remark { subject, value, origin } in &inspection.remarks {
        row(subject, value, &origin.to_string());
    }
    if let Some(labels) = &inspection.labels {
        row("labels", &labels.count.to_string(), &format!("{}: {}", labels.origin, labels.place));
        for mapped in &labels.mapped {
            let name = format!("  {:>3}", mapped.index);
            row(&name, &format!("{} -> {}", mapped.label, mapped.class), "");
        }
        if !labels.dropped.is_empty() {
            row("  dropped", &shortened(&labels.dropped), "");
        }
    }
    if let Some(latency) = inspection.latency_ms {
        let machine = format!("median of {RUNS}, {threads} thread{}", if threads == 1 { "" } else { "s" });
        row("latency", &format!("{latency:.1} ms"), &machine);
    }
    row("ONNX Runtime", runtime.version(), &settings::listed(runtime.providers()));
    let assumed: Vec<_> = inspection
        .remarks
        .iter()
        .filter(|remark| remark.origin.assumed() && remark.subject != "input.other")
        .map(|remark| remark.subject)
        .collect();
    if !assumed.is_empty() {
        row(
            "",
            &format!("\nwhat is assumed is settled by these keys of a manifest: {}", assumed.join(", ")),
            "",
        );
    }
    text + &verdict(inspection)
}

/// Whether the agent can run it, and what that means for pictures.
fn verdict(inspection: &Inspection) -> String {
    match (&inspection.refusal, &inspection.labels) {
        (Some(refusal), _) => format!("\nthe agent does not run it: {refusal}"),
        (None, Some(labels)) if !labels.knows_people() => "\nthe agent can run it, but it knows no people, so that nobody's \
            head can be found: its pictures are pixelated as a whole; take a model that knows them, or, where a label means \
            people, map it to person in [class_map] of a manifest"
            .to_owned(),
        (None, _) => "\nthe agent can run it".to_owned(),
    }
}

/// The first of many.
fn shortened(labels: &[String]) -> String {
    const SHOWN: usize = 8;
    let shown = labels.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    match labels.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// There is nothing to say about the model.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum InspectError {
    #[error("{0}; or name another with --runtime")]
    Runtime(#[from] OnnxError),
    #[error("cannot print: {0}")]
    Print(#[from] std::io::Error),
    #[error("cannot print: {0}")]
    Json(#[from] serde_json::Error),
}

#[cfg(test)]
mod tests {
    use sharp_eyes_protocol::class::ObjectClass;
    use sharp_eyes_vision::layout::Origin;
    use sharp_eyes_vision::model::Mapped;

    use super::*;

    #[test]
    fn a_model_that_knows_no_people_is_told_apart_with_the_way_out() {
        let of = |label: &str, class| {
            let mapped = vec![Mapped { index: 0, label: label.to_owned(), class }];
            let (origin, place) = (Origin::Manifest, "labels".to_owned());
            let labels = Some(LabelsFound { count: 1, origin, place, mapped, dropped: Vec::new() });
            verdict(&Inspection { labels, ..Inspection::default() })
        };
        assert_eq!(of("person", ObjectClass::Person), "\nthe agent can run it");
        let fire = of("fire", ObjectClass::Fire);
        for part in ["can run it, but", "pixelated as a whole", "person in [class_map]"] {
            assert!(fire.contains(part), "{fire}");
        }
    }
}
