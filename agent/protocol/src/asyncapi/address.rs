//! Topics with parameters in place of names.

use serde_json::{Map, Value, json};

use super::examples;
use crate::level::Level;
use crate::topic::{Name, PREFIX, Site};

/// The steps of a box's root, in the order of its topics.
pub(super) const ROOT: [(&str, &str); 4] = [
    ("district", "The district that answers."),
    ("township", "The township that is called."),
    ("village", "The village that the box stands in."),
    ("box", "The box, unique within its village."),
];

/// What may stand in an address.
pub(super) fn parameters() -> Value {
    let named = |what: &str, example: &str| {
        let text = format!("{what} 1 to 16 of a-z, 0-9 and \"-\".");
        json!({ "description": text, "examples": [example] })
    };
    let mut all = Map::new();
    let site = examples::site();
    let steps = [&site.district, &site.township, &site.village, &site.box_name];
    for ((name, what), example) in ROOT.into_iter().zip(steps) {
        all.insert(name.into(), named(what, example.as_str()));
    }
    let level = json!({
        "description": "Who is called.",
        "enum": Level::ALL.map(Level::name),
        "location": "$message.payload#/data/level",
    });
    let id =
        json!({ "description": "The `id` of the alert, or of the snapshot.", "examples": [examples::ID] });
    let console = named("The console that asked: `console` of its command.", examples::CONSOLE);
    all.extend([("level".into(), level), ("alert-id".into(), id), ("console".into(), console)]);
    Value::Object(all)
}

/// A box whose names are those of the parameters that stand for them.
pub(super) fn stand_ins() -> Site {
    let [district, township, village, box_name] = ROOT.map(|(step, _)| name(step));
    Site { district, township, village, box_name }
}

pub(super) fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

/// A topic of [`stand_ins`] with parameters in place of the names.
pub(super) fn below(site: &Site, topic: &str) -> String {
    with_names(site, topic, |name| format!("{{{name}}}"))
}

/// The same as a regular expression, the last step being any name too.
pub(super) fn regex_of(site: &Site, topic: &str, last: &str) -> String {
    let any = "[a-z0-9-]{1,16}";
    let rest = topic.strip_suffix(last).expect("the last step is what varies");
    format!("{}{any}", with_names(site, rest, |_| any.to_owned()))
}

fn with_names(site: &Site, topic: &str, replace: impl Fn(&str) -> String) -> String {
    let root = site.to_string();
    let names = root.strip_prefix(PREFIX).expect("every box is in the tree");
    let below = topic.strip_prefix(&root).expect("every topic is below its box");
    let names: String = names.split('/').skip(1).map(|name| format!("/{}", replace(name))).collect();
    format!("{PREFIX}{names}{below}")
}
