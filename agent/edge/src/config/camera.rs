//! Section `[[camera]]` with its zones, lines, masks and rules.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use sharp_eyes_protocol::class::ObjectClass;
use sharp_eyes_protocol::level::Severity;
use sharp_eyes_protocol::topic::Name;
use sharp_eyes_vision::geometry::{Point, Polygon};
use sharp_eyes_vision::rules::{Direction, Rule, RuleKind, Tripwire};
use sharp_eyes_vision::schedule::Schedule;
use toml::de::DeValue;

use super::reader::{Section, Value};
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
    /// What is an incident.
    pub rules: Vec<Rule>,
}

/// The cameras, if each could be read.
pub(super) fn cameras(root: &Section<'_>) -> Option<Vec<CameraConfig>> {
    let sections = root.sections("camera");
    if sections.is_empty() && !root.has("camera") {
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
    let masks = section.or("masks", Vec::new());
    let places = places(&section);
    let mut rule_names = BTreeSet::new();
    let rules: Vec<_> =
        section.sections("rule").into_iter().map(|section| rule(section, &places, &mut rule_names)).collect();
    section.finish();
    let stream = CameraOptions {
        name: name?,
        url: url?,
        login: user.zip(password_file),
        transport,
        latency,
        decoder,
        analysed_fps,
        masks,
    };
    Some(CameraConfig { stream, gate, rules: rules.into_iter().collect::<Option<_>>()? })
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

/// Zones and lines by name. One that is wrong is there as `None`, so that its rules are not blamed too.
#[derive(Default)]
struct Places {
    zones: BTreeMap<String, Option<Polygon>>,
    lines: BTreeMap<String, Option<Tripwire>>,
}

fn places(camera: &Section<'_>) -> Places {
    let mut places = Places::default();
    let mut names = BTreeSet::new();
    for section in camera.sections("zone") {
        let name = place_name(&section, &mut names);
        let polygon = section.required::<Polygon>("polygon");
        places.zones.extend(name.map(|name| (name, polygon)));
        section.finish();
    }
    for section in camera.sections("line") {
        let name = place_name(&section, &mut names);
        let points = section.required::<Tripwire>("points");
        places.lines.extend(name.map(|name| (name, points)));
        section.finish();
    }
    places
}

/// An alert says where by this name: no zone and no line of a camera may share it.
fn place_name(section: &Section<'_>, names: &mut BTreeSet<String>) -> Option<String> {
    let name = section.required::<Name>("name")?.to_string();
    if !names.insert(name.clone()) {
        section.problem("name", format!("another zone or line of this camera is called {name} already"));
    }
    Some(name)
}

fn rule(section: Section<'_>, places: &Places, names: &mut BTreeSet<String>) -> Option<Rule> {
    let name = section.required::<Name>("name");
    if let Some(name) = &name
        && !names.insert(name.to_string())
    {
        section.problem("name", format!("another rule of this camera is called {name} already"));
    }
    let what = match section.required::<String>("kind").as_deref() {
        Some("crossing") => crossing(&section, places),
        Some("intrusion") | None => intrusion(&section, places),
        Some(kind) => {
            let known = "the rules are \"intrusion\" and \"crossing\"";
            section.problem("kind", format!("{kind:?} is no rule; {known}"));
            intrusion(&section, places); // so that its keys are not blamed too
            None
        }
    };
    let classes = section.required::<Vec<ObjectClass>>("classes");
    if classes.as_ref().is_some_and(Vec::is_empty) {
        section.problem("classes", "is empty: the rule could never alarm; expected such as [\"person\"]");
    }
    let cooldown = section.or("cooldown", Duration::from_secs(60));
    let severity = section.required::<Severity>("severity");
    let schedule = section.or("schedule", Schedule::always());
    let min_score = section.optional::<f32>("min_score");
    if min_score.is_some_and(|score| !(0.01..=1.0).contains(&score)) {
        section.problem("min_score", "expected 0.01 to 1");
    }
    let min_height = section.or("min_height", 0.0);
    if !(0.0..1.0).contains(&min_height) {
        section.problem("min_height", "expected a part of the picture's height, such as 0.05");
    }
    let evidence = section.or("evidence", true);
    section.finish();
    let (zone, kind) = what?;
    Some(Rule {
        name: name?,
        zone,
        kind,
        classes: classes?,
        cooldown,
        severity: severity?,
        schedule,
        min_score,
        min_height,
        evidence,
    })
}

fn intrusion(section: &Section<'_>, places: &Places) -> Option<(Name, RuleKind)> {
    let place = place(section, "zone", &places.zones);
    let dwell = section.or("dwell", Duration::from_secs(2));
    place.map(|(zone, polygon)| (zone, RuleKind::Intrusion { polygon, dwell }))
}

fn crossing(section: &Section<'_>, places: &Places) -> Option<(Name, RuleKind)> {
    let place = place(section, "line", &places.lines);
    let direction = section.required::<Direction>("direction");
    let (name, line) = place?;
    Some((name, RuleKind::Crossing { line, direction: direction? }))
}

/// The zone or line that a rule names by `key`.
fn place<T: Clone>(
    section: &Section<'_>,
    key: &'static str,
    places: &BTreeMap<String, Option<T>>,
) -> Option<(Name, T)> {
    let name = section.required::<Name>(key)?;
    let Some(place) = places.get(name.as_str()) else {
        let known: Vec<_> = places.keys().map(String::as_str).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        section.problem(key, format!("\"{name}\" is no {key} of this camera; its {key}s: {known}"));
        return None;
    };
    place.clone().map(|place| (name, place))
}

impl Value for Polygon {
    const EXPECTED: &'static str =
        "3 to 32 points in fractions of the picture, such as [[0.1, 0.5], [0.9, 0.5], [0.5, 1.0]]";

    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        Polygon::new(points::<Self>(value)?).map_err(|error| error.to_string())
    }
}

impl Value for Tripwire {
    const EXPECTED: &'static str = "two points in fractions of the picture, such as [[0.2, 0.6], [0.8, 0.7]]";

    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        match points::<Self>(value)?[..] {
            [from, to] => Self::new(from, to).map_err(|error| error.to_string()),
            ref points => Err(format!("expected {}, found {} points", Self::EXPECTED, points.len())),
        }
    }
}

fn points<T: Value>(value: &DeValue<'_>) -> Result<Vec<Point>, String> {
    let points = Vec::<Vec<f32>>::read(value).map_err(|_| T::unexpected(value))?;
    let points = points.into_iter().map(|point| match point[..] {
        [x, y] => Ok(Point { x, y }),
        _ => Err(format!("a point has two numbers, found {}; expected {}", point.len(), T::EXPECTED)),
    });
    points.collect()
}

impl Value for Direction {
    const EXPECTED: &'static str = "\"to-left\", \"to-right\" or \"both\"";

    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        match value.as_str() {
            Some("to-left") => Ok(Self::ToLeft),
            Some("to-right") => Ok(Self::ToRight),
            Some("both") => Ok(Self::Both),
            _ => Err(Self::unexpected(value)),
        }
    }
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
