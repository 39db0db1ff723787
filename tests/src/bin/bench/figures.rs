//! Medians, the table and the JSON.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::agent::AgentCost;
use crate::floor::Cost;

/// Everything that was measured.
pub(crate) struct Figures {
    span: Duration,
    rounds: u64,
    pub(crate) scenes: Vec<Scene>,
    pub(crate) four_cameras: Vec<AgentCost>,
}

/// One kind of stream, measured round by round.
pub(crate) struct Scene {
    name: &'static str,
    pub(crate) receive: Vec<Cost>,
    pub(crate) decode: Vec<Cost>,
    pub(crate) inference: Vec<Cost>,
    pub(crate) agent: Vec<AgentCost>,
}

impl Scene {
    pub(crate) fn new(name: &'static str) -> Self {
        Self { name, receive: Vec::new(), decode: Vec::new(), inference: Vec::new(), agent: Vec::new() }
    }

    /// The agent over its floor, round by round: decoding its frames and running its inferences, and nothing else.
    fn over_floor(&self) -> f64 {
        let rounds = self.agent.iter().zip(&self.decode).zip(&self.inference);
        median(rounds.map(|((agent, decode), inference)| {
            let floor = decode.per_thousand() * agent.frames as f64
                + inference.per_thousand() * agent.inferences as f64;
            agent.cpu_s * 1000.0 / floor
        }))
    }

    fn inferences_per_frame(&self) -> f64 {
        median(self.agent.iter().map(|agent| agent.inferences as f64 / agent.frames.max(1) as f64))
    }

    fn agent_per_thousand(&self) -> f64 {
        median(self.agent.iter().map(|agent| agent.cpu_s * 1000.0 / agent.frames.max(1) as f64))
    }

    fn memory_mb(&self) -> f64 {
        median(self.agent.iter().map(|agent| agent.memory as f64 / f64::from(1 << 20)))
    }

    fn first_inference_s(&self) -> f64 {
        median(self.agent.iter().map(|agent| agent.first_inference.as_secs_f64()))
    }
}

impl Figures {
    pub(crate) fn new(span: Duration, rounds: u64) -> Self {
        Self { span, rounds, scenes: Vec::new(), four_cameras: Vec::new() }
    }

    fn publish_ms(&self, pick: fn(&AgentCost) -> Option<f64>) -> f64 {
        median(self.four_cameras.iter().filter_map(pick).map(|seconds| seconds * 1000.0))
    }

    fn four_memory_mb(&self) -> f64 {
        median(self.four_cameras.iter().map(|agent| agent.memory as f64 / f64::from(1 << 20)))
    }

    pub(crate) fn print(&self) {
        println!(
            "\nmedians of {} rounds of {} s, CPU seconds per 1000 frames",
            self.rounds,
            self.span.as_secs()
        );
        for scene in &self.scenes {
            let decode = median(scene.decode.iter().map(Cost::per_thousand));
            let inference = median(scene.inference.iter().map(Cost::per_thousand));
            let share = scene.inferences_per_frame();
            println!("\n{}", scene.name);
            row("floor: received and parsed", median(scene.receive.iter().map(Cost::per_thousand)));
            row("floor: received, parsed, decoded to fakesink", decode);
            row(
                &format!("floor: inference alone, on {:.0} of 1000 frames", share * 1000.0),
                inference * share,
            );
            row("the whole agent", scene.agent_per_thousand());
            row("agent over (decode + inference)", scene.over_floor());
            row("memory, one camera (PSS, MB)", scene.memory_mb());
            row("start to first inference (s)", scene.first_inference_s());
        }
        let frames = |agent: &AgentCost| agent.inferences as f64 / self.span.as_secs_f64();
        println!("\nfour cameras, 768x576, 10 fps, an alert with a picture a second each");
        row("memory (PSS, MB)", self.four_memory_mb());
        row("frames looked at per second, of 20 due", median(self.four_cameras.iter().map(frames)));
        row(
            "frames dropped for newer ones",
            median(self.four_cameras.iter().map(|agent| agent.dropped as f64)),
        );
        row("frame arrived to PUBLISH, p50 (ms)", self.publish_ms(|agent| agent.publish_p50));
        row("frame arrived to PUBLISH, p99 (ms)", self.publish_ms(|agent| agent.publish_p99));
    }

    pub(crate) fn to_json(&self) -> Map<String, Value> {
        let scenes = self.scenes.iter().map(|scene| {
            json!({
                "scene": scene.name,
                "receive_cpu_s_per_1000": median(scene.receive.iter().map(Cost::per_thousand)),
                "decode_cpu_s_per_1000": median(scene.decode.iter().map(Cost::per_thousand)),
                "inference_cpu_s_per_1000": median(scene.inference.iter().map(Cost::per_thousand)),
                "inferences_per_frame": scene.inferences_per_frame(),
                "agent_cpu_s_per_1000": scene.agent_per_thousand(),
                "always_over_floor": scene.over_floor(),
                "memory_1_camera_mb": scene.memory_mb(),
                "start_to_first_inference_s": scene.first_inference_s(),
            })
        });
        let all = json!({
            "rounds": self.rounds,
            "seconds": self.span.as_secs(),
            "scenes": scenes.collect::<Vec<_>>(),
            "memory_4_cameras_mb": self.four_memory_mb(),
            "publish_ms_p50": self.publish_ms(|agent| agent.publish_p50),
            "publish_ms_p99": self.publish_ms(|agent| agent.publish_p99),
        });
        all.as_object().cloned().unwrap_or_default()
    }
}

/// Figures by name, printed as they come.
#[derive(Default)]
pub(crate) struct Named(pub(crate) Map<String, Value>);

impl Named {
    pub(crate) fn note(&mut self, name: &str, value: f64) {
        row(name, value);
        self.0.insert(name.to_owned(), json!((value * 1000.0).round() / 1000.0));
    }
}

/// A line of the table.
pub(crate) fn row(what: &str, value: f64) {
    println!("  {what:<52} {value:>9.2}");
}

/// The middle value; NaN of none.
pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => f64::midpoint(values[n / 2 - 1], values[n / 2]),
    }
}
