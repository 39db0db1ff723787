//! What no agent can cost less than: the same stream received, the same stream decoded, the same model run.
//!
//! Each is a process of its own, which prints what it used: nothing of the harness is counted.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use gstreamer as gst;
use gstreamer::prelude::*;
use serde::{Deserialize, Serialize};
use sharp_eyes_tests::usage::Usage;
use sharp_eyes_tests::{places, wait};
use sharp_eyes_vision::onnx::{Feed, Numbers};
use sharp_eyes_vision::{DetectorOptions, Provider, Runtime};

/// Processor time for a number of frames or inferences.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Cost {
    pub(crate) cpu_s: f64,
    pub(crate) count: u64,
}

impl Cost {
    /// CPU seconds per 1000.
    pub(crate) fn per_thousand(&self) -> f64 {
        self.cpu_s * 1000.0 / self.count.max(1) as f64
    }
}

/// A floor that is being measured, in a process of its own.
pub(crate) struct Running {
    arguments: Vec<String>,
    child: Child,
}

impl Running {
    fn start(arguments: &[&str]) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?);
        let child = child.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        Ok(Self { arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(), child })
    }

    /// What it used. Waits for its end.
    pub(crate) fn cost(self) -> Result<Cost> {
        let Self { arguments, child } = self;
        let output = child.wait_with_output()?;
        ensure!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
        serde_json::from_slice(&output.stdout).with_context(|| format!("reading what {arguments:?} printed"))
    }
}

/// Receives (`receive`) or receives and decodes (`decode`) a stream.
pub(crate) fn stream(floor: &str, url: &str, span: Duration) -> Result<Running> {
    Running::start(&[floor, url, &span.as_secs().to_string()])
}

/// Runs the built-in model so many times on one tensor, with such a pause after each, with one thread.
pub(crate) fn inference(count: u64, pause: Duration) -> Result<Running> {
    Running::start(&["inference", &count.to_string(), &pause.as_millis().to_string()])
}

/// What the processes do.
pub(crate) fn run(floor: &str, arguments: &[String]) -> Result<()> {
    let argument = |index: usize| arguments.get(index).map(String::as_str).context("too few arguments");
    let cost = match floor {
        "receive" => play(argument(0)?, argument(1)?.parse()?, ""),
        "decode" => play(argument(0)?, argument(1)?.parse()?, "! avdec_h264 max-threads=1"),
        "inference" => infer(argument(0)?.parse()?, Duration::from_millis(argument(1)?.parse()?)),
        other => bail!("{other:?} is no floor; they are receive, decode, inference"),
    }?;
    println!("{}", serde_json::to_string(&cost)?);
    Ok(())
}

fn play(url: &str, seconds: u64, decoder: &str) -> Result<Cost> {
    gst::init()?;
    let pipeline = gst::parse::launch(&format!(
        "rtspsrc protocols=tcp latency=200 location={url} ! rtph264depay ! h264parse {decoder} ! \
         fakesink name=sink sync=false"
    ))?;
    let pipeline = pipeline.downcast::<gst::Pipeline>().ok().context("not a pipeline")?;
    let sink = pipeline.by_name("sink").and_then(|sink| sink.static_pad("sink")).context("no sink")?;
    let frames = Arc::new(AtomicU64::new(0));
    let counter = frames.clone();
    sink.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
        counter.fetch_add(1, Ordering::Relaxed);
        gst::PadProbeReturn::Ok
    });
    pipeline.set_state(gst::State::Playing)?;
    // Not the start: only what goes on for ever is compared.
    wait::until("the first frame", wait::PATIENCE, || (frames.load(Ordering::Relaxed) > 5).then_some(()))?;
    let (cpu, count) = (Usage::of(std::process::id())?.cpu, frames.load(Ordering::Relaxed));
    wait::pause(Duration::from_secs(seconds));
    let used = Usage::of(std::process::id())?.cpu - cpu;
    let count = frames.load(Ordering::Relaxed) - count;
    pipeline.set_state(gst::State::Null)?;
    Ok(Cost { cpu_s: used.as_secs_f64(), count })
}

fn infer(count: u64, pause: Duration) -> Result<Cost> {
    let runtime = Runtime::load(&places::onnx_runtime()?)?;
    let model = std::fs::read(places::builtin_model()?.join("model.onnx"))?;
    let mut session = runtime.session(&model, Provider::Cpu, &DetectorOptions::default())?;
    let name = session.inputs()[0].name.clone();
    let fixed: Vec<usize> =
        session.inputs()[0].shape.iter().filter_map(|side| usize::try_from(*side).ok()).collect();
    let shape: [usize; 4] = fixed.try_into().ok().context("the model's input is not of a fixed size")?;
    // Noise, because zeros behave better than pictures do.
    let input: Vec<f32> =
        (0..shape.iter().product::<usize>()).map(|i| ((i * 2_654_435_761) >> 8 & 255) as f32).collect();
    let feed = [Feed { name: &name, shape: &shape, numbers: Numbers::F32(&input) }];
    for _ in 0..10 {
        session.run(&feed)?;
    }
    let cpu = Usage::of(std::process::id())?.cpu;
    for _ in 0..count {
        session.run(&feed)?;
        wait::pause(pause);
    }
    let used = Usage::of(std::process::id())?.cpu - cpu;
    Ok(Cost { cpu_s: used.as_secs_f64(), count })
}
