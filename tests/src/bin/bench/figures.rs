//! Medians, the table and the JSON.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::agent::AgentCost;
use crate::floor::Cost;
use crate::load::Load;

/// Everything that was measured.
pub(crate) struct Figures {
    span: Duration,
    rounds: u64,
    pub(crate) scenes: Vec<Scene>,
    pub(crate) loads: Vec<Load>,
}

/// One kind of stream, measured round by round.
pub(crate) struct Scene {
    name: &'static str,
    pub(crate) receive: Vec<Cost>,
    pub(crate) decode: Vec<Cost>,
    /// As often as the agent looks.
    pub(crate) inference: Vec<Cost>,
    /// One right after the other.
    pub(crate) in_a_row: Vec<Cost>,
    pub(crate) agent: Vec<AgentCost>,
}

impl Scene {
    pub(crate) fn new(name: &'static str) -> Self {
        let none = Vec::new;
        Self { name, receive: none(), decode: none(), inference: none(), in_a_row: none(), agent: Vec::new() }
    }

    /// The agent over its floor, round by round: decoding its frames and running its inferences, and nothing else.
    fn over_floor(&self, inference: &[Cost]) -> f64 {
        let rounds = self.agent.iter().zip(&self.decode).zip(inference);
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
        Self { span, rounds, scenes: Vec::new(), loads: Vec::new() }
    }

    /// Processor time in a second of what one camera of 768x576 at 10 fps takes, and of what sends its stream.
    pub(crate) fn cores_each(&self) -> f64 {
        let small = &self.scenes[0];
        let sent = median(small.receive.iter().map(Cost::per_thousand)); // as much as receiving, about
        (small.agent_per_thousand() + sent) / 1000.0 * 10.0
    }

    /// How long a round with many cameras takes: alerts are few.
    pub(crate) fn load_span(&self) -> Duration {
        4 * self.span
    }

    fn under_load(&self, pick: fn(&Load) -> f64) -> f64 {
        median(self.loads.iter().map(pick))
    }

    /// Of the rounds together: each has too few for a hundredth of them.
    fn milliseconds(&self, pick: fn(&Load) -> &[f64], percent: usize) -> f64 {
        let all: Vec<f64> = self.loads.iter().flat_map(|load| pick(load).iter().copied()).collect();
        percentile(&all, percent)
    }

    /// Many cameras, and how soon an alert of theirs is told, by the name of each figure.
    fn load(&self) -> [(&'static str, f64); 11] {
        let percent = |share: f64| 100.0 * share;
        [
            ("load_cameras", self.under_load(|load| load.cameras as f64)),
            ("load_machine_percent", percent(self.under_load(|load| load.busy))),
            ("load_agent_percent", percent(self.under_load(|load| load.agent))),
            ("load_looks_of_due_percent", percent(self.under_load(|load| load.looked_at))),
            ("load_memory_mb", self.under_load(|load| load.memory as f64 / f64::from(1 << 20))),
            ("load_alerts", self.loads.iter().map(|load| load.delivered_ms.len() as f64).sum()),
            ("load_pictures", self.loads.iter().map(|load| load.pictured_ms.len() as f64).sum()),
            ("publish_ms_p50", self.milliseconds(|load| &load.delivered_ms, 50)),
            ("publish_ms_p99", self.milliseconds(|load| &load.delivered_ms, 99)),
            ("picture_ms_p50", self.milliseconds(|load| &load.pictured_ms, 50)),
            ("picture_ms_p99", self.milliseconds(|load| &load.pictured_ms, 99)),
        ]
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
            let in_a_row = median(scene.in_a_row.iter().map(Cost::per_thousand));
            let share = scene.inferences_per_frame();
            println!("\n{}", scene.name);
            row("floor: received and parsed", median(scene.receive.iter().map(Cost::per_thousand)));
            row("floor: received, parsed, decoded to fakesink", decode);
            row(
                &format!("floor: inference alone, on {:.0} of 1000 frames", share * 1000.0),
                inference * share,
            );
            row("the same, one right after the other", in_a_row * share);
            row("the whole agent, gate = \"always\"", scene.agent_per_thousand());
            row("agent over (decode + inference)", scene.over_floor(&scene.inference));
            row("agent over (decode + inference in a row)", scene.over_floor(&scene.in_a_row));
            row("memory, one camera (PSS, MB)", scene.memory_mb());
            row("start to first inference (s)", scene.first_inference_s());
        }
        println!(
            "\nmany cameras, 768x576, 10 fps: from the arrival of a frame until the console has its alert and picture,\n\
             of all rounds of {} s together",
            self.load_span().as_secs()
        );
        self.load().into_iter().for_each(|(name, value)| row(name, value));
    }

    pub(crate) fn to_json(&self) -> Map<String, Value> {
        let scenes = self.scenes.iter().map(|scene| {
            json!({
                "scene": scene.name,
                "receive_cpu_s_per_1000": median(scene.receive.iter().map(Cost::per_thousand)),
                "decode_cpu_s_per_1000": median(scene.decode.iter().map(Cost::per_thousand)),
                "inference_cpu_s_per_1000": median(scene.inference.iter().map(Cost::per_thousand)),
                "inference_in_a_row_cpu_s_per_1000": median(scene.in_a_row.iter().map(Cost::per_thousand)),
                "inferences_per_frame": scene.inferences_per_frame(),
                "agent_cpu_s_per_1000": scene.agent_per_thousand(),
                "always_over_floor": scene.over_floor(&scene.inference),
                "always_over_floor_in_a_row": scene.over_floor(&scene.in_a_row),
                "memory_1_camera_mb": scene.memory_mb(),
                "start_to_first_inference_s": scene.first_inference_s(),
            })
        });
        let mut all = json!({
            "rounds": self.rounds,
            "seconds": self.span.as_secs(),
            "scenes": scenes.collect::<Vec<_>>(),
        });
        for (name, value) in self.load() {
            all[name] = json!(value);
        }
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

/// The value that so many of 100 do not exceed; NaN of none.
pub(crate) fn percentile(values: &[f64], percent: usize) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or(f64::NAN)
}
