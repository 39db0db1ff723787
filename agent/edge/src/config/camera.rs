//! Section `[[camera]]`, but for its rules.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use sharp_eyes_protocol::topic::Name;
use sharp_eyes_vision::rules::Rule;
use sharp_eyes_vision::{Polygon, TamperOptions};
use toml::de::DeValue;

use super::reader::{Section, Value};
use super::rule::{CameraRule, CameraRuleKind, Ruled, places, rule};
use crate::camera::{CameraOptions, GateMode, GateOptions, Transport};

/// Most cameras of one box. Each has buffers of its own; see README for what a box carries.
pub(crate) const CAMERAS_MAX: usize = 64;

/// One `[[camera]]`.
#[derive(Clone, Debug)]
pub struct CameraConfig {
    /// How its stream is fetched and decoded.
    pub stream: CameraOptions,
    /// When it sleeps.
    pub gate: GateOptions,
    /// What is an incident in its picture.
    pub rules: Vec<Rule>,
    /// So many alerts about what is seen are told one by one in a minute; more become one that says how many.
    pub alerts_per_minute: usize,
    /// Whether what is small is looked at closely.
    pub look_closer: bool,
    /// What may be wrong with it itself. At most one rule of each kind.
    pub own_rules: Vec<CameraRule>,
}

impl CameraConfig {
    /// When something counts as tampering, where a rule watches for it.
    pub fn tamper(&self) -> Option<TamperOptions> {
        self.own_rules.iter().find_map(|rule| match rule.kind {
            CameraRuleKind::Tampered(options) => Some(options),
            CameraRuleKind::Offline { .. } => None,
        })
    }
}

/// What its frames are judged by.
#[derive(Clone, Debug)]
pub struct View {
    /// What nobody may look at.
    pub masks: Vec<Polygon>,
    /// What is an incident.
    pub rules: Vec<Rule>,
    /// So many alerts within a minute are told one by one.
    pub alerts_per_minute: usize,
    /// Whether what is small is looked at closely.
    pub look_closer: bool,
}

impl View {
    /// What the configuration says of a camera.
    pub fn of(camera: &CameraConfig) -> Self {
        Self {
            masks: camera.stream.masks.clone(),
            rules: camera.rules.clone(),
            alerts_per_minute: camera.alerts_per_minute,
            look_closer: camera.look_closer,
        }
    }
}

/// The cameras, if each could be read.
pub(super) fn cameras(root: &Section<'_>) -> Option<Vec<CameraConfig>> {
    let sections = root.sections("camera");
    if root.lacks("camera") {
        root.problem("camera", "missing; expected at least one [[camera]]");
    }
    if sections.len() > CAMERAS_MAX {
        root.problem("camera", format!("{} cameras; a box carries at most {CAMERAS_MAX}", sections.len()));
    }
    let mut names = BTreeSet::new();
    let cameras: Vec<_> = sections.into_iter().map(|section| camera(section, &mut names)).collect();
    cameras.into_iter().collect()
}

fn camera(section: Section<'_>, names: &mut BTreeSet<String>) -> Option<CameraConfig> {
    let name = section.required::<Name>("name");
    if let Some(name) = &name
        && !names.insert(name.to_string())
    {
        section.problem("name", format!("another camera is called {name} already"));
    }
    let url = section.required::<String>("url").filter(|url| url_fits(&section, url));
    let user = section.optional::<String>("user");
    let password_file = section.optional::<PathBuf>("password_file");
    if section.has("user") != section.has("password_file") {
        section.problem("user", "user and password_file belong together; set both or neither");
    }
    let ca = section.optional::<PathBuf>("ca");
    if ca.is_some() && url.as_ref().is_some_and(|url| !url.starts_with("rtsps://")) {
        section.problem("ca", "vouches for nothing where the url does not begin with rtsps://");
    }
    let transport = section.or("transport", Transport::Tcp);
    let latency = section.or("latency", Duration::from_millis(200));
    if latency > Duration::from_secs(10) {
        section.problem("latency", "expected at most \"10s\"");
    }
    let decoder = section.optional::<String>("decoder");
    let usual = GateOptions::default();
    let gate = GateOptions {
        mode: section.or("gate", usual.mode),
        hold: section.or("hold", usual.hold),
        audit: section.or("audit", usual.audit),
    };
    if gate.hold < Duration::from_secs(1) {
        section
            .problem("hold", "expected at least \"1s\": a camera that falls asleep at once wakes up at once");
    }
    if gate.audit < Duration::from_secs(1) {
        section.problem("audit", "expected at least \"1s\"");
    }
    let analysed_fps = section.or::<f32>("analysed_fps", 5.0);
    if !(0.1..=30.0).contains(&analysed_fps) {
        section.problem("analysed_fps", "expected 0.1 to 30");
    }
    let alerts_per_minute = section.or::<u16>("alerts_per_minute", 5);
    if !(1..=1000).contains(&alerts_per_minute) {
        section.problem("alerts_per_minute", "expected 1 to 1000");
    }
    let look_closer = section.or("look_closer", true);
    let masks = section.or("masks", Vec::new());
    let places = places(&section);
    let mut rule_names = BTreeSet::new();
    let (mut rules, mut own_rules, mut complete) = (Vec::new(), Vec::new(), true);
    for section in section.sections("rule") {
        match rule(section, &places, &own_rules, &mut rule_names) {
            Some(Ruled::Picture(rule)) => rules.push(rule),
            Some(Ruled::Camera(rule)) => own_rules.push(rule),
            None => complete = false,
        }
    }
    section.finish();
    let stream = CameraOptions {
        name: name?,
        url: url?,
        login: user.zip(password_file),
        ca,
        transport,
        latency,
        decoder,
        analysed_fps,
        masks,
    };
    let alerts_per_minute = alerts_per_minute.into();
    complete.then_some(CameraConfig { stream, gate, rules, alerts_per_minute, look_closer, own_rules })
}

fn url_fits(section: &Section<'_>, url: &str) -> bool {
    // Never repeat the URL in the message: this is where people put passwords.
    let Some(rest) = url.strip_prefix("rtsp://").or_else(|| url.strip_prefix("rtsps://")) else {
        section.problem("url", "expected rtsp://HOST/PATH or rtsps://HOST/PATH");
        return false;
    };
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    if rest.contains('@') {
        section.problem("url", "holds a user or password; use the keys user and password_file instead");
        return false;
    }
    if authority.is_empty() || authority.starts_with(':') || url.contains(char::is_whitespace) {
        section.problem("url", "names no host; expected rtsp://HOST/PATH");
        return false;
    }
    true
}

impl Value for Transport {
    const EXPECTED: &'static str = "\"tcp\" or \"udp\"";

    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        match value.as_str() {
            Some("tcp") => Ok(Self::Tcp),
            Some("udp") => Ok(Self::Udp),
            _ => Err(Self::unexpected(value)),
        }
    }
}

impl Value for GateMode {
    const EXPECTED: &'static str = "\"adaptive\", \"keyframes\" or \"always\"";

    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        match value.as_str() {
            Some("adaptive") => Ok(Self::Adaptive),
            Some("keyframes") => Ok(Self::Keyframes),
            Some("always") => Ok(Self::Always),
            _ => Err(Self::unexpected(value)),
        }
    }
}
