//! Tables `[[camera.rule]]`, and the zones and lines that they name.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sharp_eyes_protocol::class::ObjectClass;
use sharp_eyes_protocol::level::Severity;
use sharp_eyes_protocol::topic::Name;
use sharp_eyes_vision::TamperOptions;
use sharp_eyes_vision::geometry::{Point, Polygon};
use sharp_eyes_vision::rules::{Direction, Rule, RuleKind, Tripwire};
use sharp_eyes_vision::schedule::Schedule;
use toml::de::DeValue;

use super::reader::{Section, Value, WithinOrNever};

/// A rule about a camera itself.
#[derive(Clone, Debug)]
pub struct CameraRule {
    /// Its name.
    pub name: Name,
    /// What it watches for.
    pub kind: CameraRuleKind,
    /// How bad it is.
    pub severity: Severity,
    /// When the rule is awake.
    pub schedule: Schedule,
    /// How long nothing is told after the end of one.
    pub cooldown: Duration,
    /// Whether a picture is wanted.
    pub evidence: bool,
}

/// What is wrong with a camera.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CameraRuleKind {
    /// No pictures for so long.
    Offline {
        /// How long.
        after: Duration,
    },
    /// Pictures that are not what they usually are.
    Tampered(TamperOptions),
}

/// Zones and lines by name. One that is wrong is there as `None`, so that its rules are not blamed too.
#[derive(Default)]
pub(super) struct Places {
    zones: BTreeMap<String, Option<Polygon>>,
    lines: BTreeMap<String, Option<Tripwire>>,
}

pub(super) fn places(camera: &Section<'_>) -> Places {
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

/// What a rule is about.
pub(super) enum Ruled {
    /// What is seen.
    Picture(Rule),
    /// The camera itself.
    Camera(CameraRule),
}

const KINDS: &str = "the rules are \"intrusion\", \"crossing\", \"stopped-vehicle\", \"hazard\", \"tampered\" and \"offline\"";

pub(super) fn rule(
    section: Section<'_>,
    places: &Places,
    others: &[CameraRule],
    names: &mut BTreeSet<String>,
) -> Option<Ruled> {
    let name = section.required::<Name>("name");
    if let Some(name) = &name
        && !names.insert(name.to_string())
    {
        section.problem("name", format!("another rule of this camera is called {name} already"));
    }
    let ruled = match section.required::<String>("kind").as_deref() {
        Some("tampered") => own_rule(&section, name, tampered(&section), others).map(Ruled::Camera),
        Some("offline") => own_rule(&section, name, offline(&section), others).map(Ruled::Camera),
        Some("crossing") => picture_rule(&section, name, crossing(&section, places)),
        Some("stopped-vehicle") => picture_rule(&section, name, stopped_vehicle(&section, places)),
        Some("hazard") => picture_rule(&section, name, hazard(&section, places)),
        Some("intrusion") | None => picture_rule(&section, name, intrusion(&section, places)),
        Some(kind) => {
            section.problem("kind", format!("{kind:?} is no rule; {KINDS}"));
            picture_rule(&section, name, intrusion(&section, places)); // so that its keys are not blamed too
            None
        }
    };
    section.finish();
    ruled
}

/// What a rule about the picture watches for, where, and whom.
struct What {
    zone: Option<Name>,
    kind: RuleKind,
    classes: Vec<ObjectClass>,
}

fn picture_rule(section: &Section<'_>, name: Option<Name>, what: Option<What>) -> Option<Ruled> {
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
    let wakeful = section.or("wakeful", false);
    let What { zone, kind, classes } = what?;
    Some(Ruled::Picture(Rule {
        name: name?,
        zone,
        kind,
        classes,
        cooldown,
        severity: severity?,
        schedule,
        min_score,
        min_height,
        evidence,
        wakeful,
    }))
}

fn own_rule(
    section: &Section<'_>,
    name: Option<Name>,
    kind: CameraRuleKind,
    others: &[CameraRule],
) -> Option<CameraRule> {
    let same = |other: &&CameraRule| std::mem::discriminant(&other.kind) == std::mem::discriminant(&kind);
    if let Some(other) = others.iter().find(same) {
        section.problem("kind", format!("the rule {} of this camera is of this kind already", other.name));
    }
    let cooldown = section.or("cooldown", Duration::from_secs(600));
    let severity = section.required::<Severity>("severity");
    let schedule = section.or("schedule", Schedule::always());
    let evidence = matches!(kind, CameraRuleKind::Tampered(_)) && section.or("evidence", true);
    Some(CameraRule { name: name?, kind, severity: severity?, schedule, cooldown, evidence })
}

fn tampered(section: &Section<'_>) -> CameraRuleKind {
    let after = section.or("after", Duration::from_secs(10));
    if after < Duration::from_secs(2) {
        section
            .problem("after", "expected at least \"2s\": every van that passes covers a camera for a moment");
    }
    let frozen_after = section.or("frozen_after", Duration::from_secs(60));
    if frozen_after < Duration::from_secs(10) {
        section.problem("frozen_after", "expected at least \"10s\"");
    }
    let unchanged_after = match section.optional::<WithinOrNever>("unchanged_after") {
        Some(WithinOrNever(after)) => after,
        None => Some(Duration::from_secs(86_400)),
    };
    if unchanged_after.is_some_and(|after| after < Duration::from_secs(3600)) {
        section.problem(
            "unchanged_after",
            "expected at least \"1h\", or \"never\": in what is there, nothing changes for a while",
        );
    }
    CameraRuleKind::Tampered(TamperOptions { after, frozen_after, unchanged_after })
}

fn offline(section: &Section<'_>) -> CameraRuleKind {
    let after = section.or("after", Duration::from_secs(60));
    if after < Duration::from_secs(1) {
        section.problem("after", "expected at least \"1s\"");
    }
    CameraRuleKind::Offline { after }
}

fn intrusion(section: &Section<'_>, places: &Places) -> Option<What> {
    let place = place(section, "zone", &places.zones);
    let dwell = section.or("dwell", Duration::from_secs(2));
    let classes = classes(section);
    let (zone, polygon) = place?;
    Some(What { zone: Some(zone), kind: RuleKind::Intrusion { polygon, dwell }, classes: classes? })
}

fn crossing(section: &Section<'_>, places: &Places) -> Option<What> {
    let place = place(section, "line", &places.lines);
    let direction = section.required::<Direction>("direction");
    let classes = classes(section);
    let (zone, line) = place?;
    let kind = RuleKind::Crossing { line, direction: direction? };
    Some(What { zone: Some(zone), kind, classes: classes? })
}

fn stopped_vehicle(section: &Section<'_>, places: &Places) -> Option<What> {
    let place = place(section, "zone", &places.zones);
    let time = section.or("time", Duration::from_secs(60));
    if time < Duration::from_secs(5) {
        section.problem("time", "expected at least \"5s\": every vehicle stands for a moment");
    }
    let classes = classes_among(section, "vehicle", ObjectClass::is_vehicle);
    let (zone, polygon) = place?;
    Some(What { zone: Some(zone), kind: RuleKind::StoppedVehicle { polygon, time }, classes: classes? })
}

fn hazard(section: &Section<'_>, places: &Places) -> Option<What> {
    let somewhere = section.has("zone");
    let place = if somewhere { place(section, "zone", &places.zones) } else { None };
    let frames = section.or::<u16>("frames", 10);
    if !(1..=100).contains(&frames) {
        section.problem("frames", "expected 1 to 100");
    }
    let seen = section.or::<u16>("seen", frames.min(100).div_ceil(2));
    if !(1..=frames).contains(&seen) {
        section.problem("seen", format!("expected 1 to {frames}, the number of frames"));
    }
    let classes = classes_among(section, "hazard", ObjectClass::is_hazard);
    if somewhere && place.is_none() {
        return None;
    }
    let (zone, polygon) = place.unzip();
    let kind = RuleKind::Hazard { polygon, seen: seen.into(), frames: frames.into() };
    Some(What { zone, kind, classes: classes? })
}

/// The classes of a rule that may be about any.
fn classes(section: &Section<'_>) -> Option<Vec<ObjectClass>> {
    let classes = section.required::<Vec<ObjectClass>>("classes");
    not_empty(section, classes)
}

fn not_empty(section: &Section<'_>, classes: Option<Vec<ObjectClass>>) -> Option<Vec<ObjectClass>> {
    if classes.as_ref().is_some_and(Vec::is_empty) {
        section.problem("classes", "is empty: the rule could never alarm; expected such as [\"person\"]");
    }
    classes
}

/// The classes of a rule that is about some only: all of these unless given.
fn classes_among(
    section: &Section<'_>,
    what: &str,
    is_one: fn(ObjectClass) -> bool,
) -> Option<Vec<ObjectClass>> {
    let all: Vec<_> = ObjectClass::ALL.into_iter().filter(|class| is_one(*class)).collect();
    if !section.has("classes") {
        return Some(all);
    }
    let classes = not_empty(section, section.optional::<Vec<ObjectClass>>("classes"))?;
    if let Some(other) = classes.iter().find(|class| !is_one(**class)) {
        let names: Vec<_> = all.iter().map(|class| class.name()).collect();
        section.problem("classes", format!("{other} is no {what}; expected some of {}", names.join(", ")));
    }
    Some(classes)
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
