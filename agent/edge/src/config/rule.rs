//! Tables `[[camera.rule]]`, and the zones and lines that they name.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sharp_eyes_protocol::class::ObjectClass;
use sharp_eyes_protocol::level::Severity;
use sharp_eyes_protocol::topic::Name;
use sharp_eyes_vision::geometry::{Point, Polygon};
use sharp_eyes_vision::rules::{Direction, Rule, RuleKind, Tripwire};
use sharp_eyes_vision::schedule::Schedule;
use toml::de::DeValue;

use super::reader::{Section, Value};

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

pub(super) fn rule(section: Section<'_>, places: &Places, names: &mut BTreeSet<String>) -> Option<Rule> {
    let name = section.required::<Name>("name");
    if let Some(name) = &name
        && !names.insert(name.to_string())
    {
        section.problem("name", format!("another rule of this camera is called {name} already"));
    }
    let kind = section.required::<String>("kind");
    let what = match kind.as_deref() {
        Some("crossing") => crossing(&section, places),
        Some("stopped-vehicle") => stopped_vehicle(&section, places),
        Some("intrusion") | None => intrusion(&section, places),
        Some(kind) => {
            let known = "the rules are \"intrusion\", \"crossing\" and \"stopped-vehicle\"";
            section.problem("kind", format!("{kind:?} is no rule; {known}"));
            intrusion(&section, places); // so that its keys are not blamed too
            None
        }
    };
    let classes = match kind.as_deref() {
        Some("stopped-vehicle") => classes_among(&section, "vehicle", ObjectClass::is_vehicle),
        _ => section.required::<Vec<ObjectClass>>("classes"),
    };
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

fn stopped_vehicle(section: &Section<'_>, places: &Places) -> Option<(Name, RuleKind)> {
    let place = place(section, "zone", &places.zones);
    let time = section.or("time", Duration::from_secs(60));
    if time < Duration::from_secs(5) {
        section.problem("time", "expected at least \"5s\": every vehicle stands for a moment");
    }
    place.map(|(zone, polygon)| (zone, RuleKind::StoppedVehicle { polygon, time }))
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
    let classes = section.optional::<Vec<ObjectClass>>("classes")?;
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

