//! The agent's configuration file, for a village that exists on this machine only.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::places;

/// A polygon that covers everything.
pub const WHOLE_PICTURE: &[(f32, f32)] = &[(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)];

/// A box with its cameras. The fields are what tests vary; [`Village::toml`] is all that the agent reads.
#[derive(Clone, Debug)]
pub struct Village {
    /// Where the configuration, the state and the logs go.
    pub folder: PathBuf,
    /// Where the agent keeps its state.
    pub state: PathBuf,
    /// More lines of the table `state`.
    pub state_lines: String,
    /// A broker on 127.0.0.1.
    pub broker_port: u16,
    /// More lines of the table `broker`.
    pub broker_lines: String,
    /// Lines of the table `delivery`.
    pub delivery_lines: String,
    /// Lines of the table `escalation`.
    pub escalation_lines: String,
    /// The bundle of the model.
    pub model: PathBuf,
    /// More lines of the table `detector`.
    pub detector_lines: String,
    /// More tables after `[detector]`, such as `[models]`.
    pub tables: String,
    /// ONNX Runtime's library.
    pub runtime: PathBuf,
    /// Where the agent answers `/health` and `/metrics`, on 127.0.0.1.
    pub metrics_port: u16,
    /// The cameras.
    pub cameras: Vec<VillageCamera>,
}

/// A camera and what is forbidden in front of it.
#[derive(Clone, Debug)]
pub struct VillageCamera {
    /// Its name.
    pub name: String,
    /// Its RTSP address.
    pub url: String,
    /// More lines of the table, such as `transport = "udp"`.
    pub lines: String,
    /// Places in the picture.
    pub zones: Vec<Zone>,
    /// What is forbidden there.
    pub rules: Vec<Rule>,
    /// More tables, after these.
    pub tables: String,
}

/// A place in the picture.
#[derive(Clone, Debug)]
pub struct Zone {
    /// Its name.
    pub name: String,
    /// Corners, 0 to 1.
    pub polygon: Vec<(f32, f32)>,
}

/// Nobody may be there for longer than that.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Its name.
    pub name: String,
    /// A [`Zone`] of the same camera.
    pub zone: String,
    /// Classes that break it.
    pub classes: Vec<String>,
    /// How long something has to stay, as "2s".
    pub dwell: String,
    /// How long the rule is quiet after an alert, as "30s".
    pub cooldown: String,
    /// "minor", "major" or "critical".
    pub severity: String,
    /// Mean score of a stay that breaks it; the model's threshold unless given.
    pub min_score: Option<f32>,
    /// Whether a picture goes with the alert.
    pub evidence: bool,
}

impl Village {
    /// With the built-in model and without cameras. `folder` has to exist.
    pub fn new(folder: &Path, broker_port: u16) -> Result<Self> {
        Ok(Self {
            folder: folder.to_owned(),
            state: folder.join("state"),
            state_lines: String::new(),
            broker_port,
            broker_lines: String::new(),
            delivery_lines: String::new(),
            escalation_lines: String::new(),
            model: places::builtin_model()?,
            detector_lines: String::new(),
            tables: String::new(),
            runtime: places::onnx_runtime()?,
            metrics_port: places::free_port()?,
            cameras: Vec::new(),
        })
    }

    /// The same with one more camera.
    pub fn with(mut self, camera: VillageCamera) -> Self {
        self.cameras.push(camera);
        self
    }

    /// Writes the configuration file and returns its path.
    pub fn write(&self) -> Result<PathBuf> {
        let file = self.folder.join("agent.toml");
        std::fs::write(&file, self.toml())?;
        Ok(file)
    }

    /// The configuration file.
    pub fn toml(&self) -> String {
        let mut text = format!(
            r#"[site]
district = "lan-xi"
township = "yun-shan"
village = "wang-cun"
box = "box-1"
time_zone = "Asia/Shanghai"

[state]
folder = {state}
max_size = "512MB"
max_age = "30d"
{state_lines}
[broker]
host = "127.0.0.1"
port = {port}
{broker_lines}
[delivery]
{delivery_lines}
[escalation]
{escalation_lines}
[detector]
model = {model}
runtime = {runtime}
{detector_lines}
{tables}
[metrics]
listen = "127.0.0.1:{metrics}"
"#,
            state = quote(&self.state.to_string_lossy()),
            state_lines = self.state_lines,
            port = self.broker_port,
            broker_lines = self.broker_lines,
            delivery_lines = self.delivery_lines,
            escalation_lines = self.escalation_lines,
            model = quote(&self.model.to_string_lossy()),
            runtime = quote(&self.runtime.to_string_lossy()),
            detector_lines = self.detector_lines,
            tables = self.tables,
            metrics = self.metrics_port,
        );
        for camera in &self.cameras {
            camera.append_to(&mut text);
        }
        text
    }
}

impl VillageCamera {
    /// A camera without rules.
    pub fn new(name: &str, url: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            url: url.into(),
            lines: String::new(),
            zones: Vec::new(),
            rules: Vec::new(),
            tables: String::new(),
        }
    }

    /// Nobody may be anywhere for longer than a second: the rule that any person breaks at once. Each alert is told, however
    /// many there are.
    pub fn guarded(name: &str, url: impl Into<String>) -> Self {
        Self::new(name, url)
            .rule("anywhere", WHOLE_PICTURE, "1s", "2s", "major")
            .line("alerts_per_minute = 1000")
    }

    /// The same with one more rule about persons, in a zone of its own of the same name.
    pub fn rule(
        mut self,
        name: &str,
        polygon: &[(f32, f32)],
        dwell: &str,
        cooldown: &str,
        severity: &str,
    ) -> Self {
        self.zones.push(Zone { name: name.into(), polygon: polygon.to_vec() });
        self.rules.push(Rule {
            name: name.into(),
            zone: name.into(),
            classes: vec!["person".into()],
            dwell: dwell.into(),
            cooldown: cooldown.into(),
            severity: severity.into(),
            min_score: None,
            evidence: true,
        });
        self
    }

    /// The same with a mean score of its own for the last rule.
    pub fn min_score(mut self, score: f32) -> Self {
        if let Some(rule) = self.rules.last_mut() {
            rule.min_score = Some(score);
        }
        self
    }

    /// The same with a line that no person may cross in a direction, "to-left" say.
    pub fn tripwire(mut self, name: &str, ends: [(f32, f32); 2], direction: &str) -> Self {
        let [(x1, y1), (x2, y2)] = ends;
        self.tables += &format!(
            "\n[[camera.line]]\nname = {name:?}\npoints = [[{x1:?}, {y1:?}], [{x2:?}, {y2:?}]]\n\n[[camera.rule]]\n\
             name = {name:?}\nkind = \"crossing\"\nline = {name:?}\ndirection = {direction:?}\n\
             classes = [\"person\"]\ncooldown = \"1s\"\nseverity = \"minor\"\n"
        );
        self
    }

    /// The same with a rule of another kind about a zone of its own, with these lines more.
    pub fn zone_rule(mut self, name: &str, kind: &str, polygon: &[(f32, f32)], lines: &str) -> Self {
        self.zones.push(Zone { name: name.into(), polygon: polygon.to_vec() });
        self.tables +=
            &format!("\n[[camera.rule]]\nname = {name:?}\nkind = {kind:?}\nzone = {name:?}\n{lines}\n");
        self
    }

    /// The same with a rule about the camera itself, with these lines more.
    pub fn own_rule(mut self, kind: &str, lines: &str) -> Self {
        self.tables +=
            &format!("\n[[camera.rule]]\nname = {kind:?}\nkind = {kind:?}\nseverity = \"minor\"\n{lines}\n");
        self
    }

    /// The same with one more line in its table.
    pub fn line(mut self, line: &str) -> Self {
        self.lines.push_str(line);
        self.lines.push('\n');
        self
    }

    fn append_to(&self, text: &mut String) {
        *text += &format!(
            "\n[[camera]]\nname = {}\nurl = {}\n{}",
            quote(&self.name),
            quote(&self.url),
            self.lines
        );
        for zone in &self.zones {
            let corners: Vec<String> = zone.polygon.iter().map(|(x, y)| format!("[{x:?}, {y:?}]")).collect();
            let name = quote(&zone.name);
            *text += &format!("\n[[camera.zone]]\nname = {name}\npolygon = [{}]\n", corners.join(", "));
        }
        for rule in &self.rules {
            let classes: Vec<String> = rule.classes.iter().map(|class| quote(class)).collect();
            let _ = writeln!(
                text,
                "\n[[camera.rule]]\nname = {}\nkind = \"intrusion\"\nzone = {}\nclasses = [{}]\ndwell = {}\n\
                 cooldown = {}\nseverity = {}\nschedule = \"always\"\nevidence = {}",
                quote(&rule.name),
                quote(&rule.zone),
                classes.join(", "),
                quote(&rule.dwell),
                quote(&rule.cooldown),
                quote(&rule.severity),
                rule.evidence,
            );
            if let Some(score) = rule.min_score {
                let _ = writeln!(text, "min_score = {score:?}"); // a String takes everything
            }
        }
        *text += &self.tables;
    }
}

/// A TOML basic string: JSON's strings are among them.
fn quote(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
