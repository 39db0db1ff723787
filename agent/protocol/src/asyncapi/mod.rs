//! The wire as an AsyncAPI 3.0 document, generated from the types and the topics, and checked in as `asyncapi.json`.
//!
//! It speaks for the box: what it sends, and what it receives. A console does the opposite.
//!
//! AsyncAPI's own schemas are JSON Schema draft 07, so that the types are in the document in that draft; the files
//! below `schemas/` say the same in draft 2020-12.
//!
//! # Layout
//!
//! - [`document`] joins the parts: `address` has the topics, `servers` are brokers as clients see them, `examples`
//!   are messages.

mod address;
mod examples;
mod servers;

use schemars::JsonSchema;
use schemars::generate::{SchemaGenerator, SchemaSettings};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::alert::Alert;
use crate::command::{Answer, CORRELATION_MAX_BYTES, Command};
use crate::level::Level;
use crate::report::{Health, Models, Status};
use address::{ROOT, below, name, regex_of, stand_ins};

/// QoS of everything on the wire.
const QOS: u8 = 1;

/// How long a broker keeps a picture for a console that is away, in seconds, unless the box is configured otherwise.
const PICTURE_EXPIRY_S: u32 = 86_400;

/// Version of AsyncAPI's MQTT bindings.
const BINDING: &str = "0.2.0";

/// The document.
pub fn document() -> Value {
    let mut types = SchemaSettings::draft07()
        .with(|settings| settings.definitions_path = "/components/schemas".into())
        .into_generator();
    let channels = channels(&mut types);
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "Sharp Eyes: the wire between a box and the consoles",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "A box at a village centre tells the consoles of its township and its district about hazards \
                and intrusions, and they answer. MQTT 5, QoS 1. What is sent is delivered at least once: a reader drops \
                alerts that it has by `source` and `sequence`. `sequence` has no gaps; what is missing is asked for with \
                `resend`. Nothing here says who anybody is.",
            "license": { "name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0" },
            "tags": [{ "name": "mqtt" }, { "name": "cloudevents" }],
        },
        "defaultContentType": "application/json",
        "servers": servers::all(),
        "channels": collect(&channels, |channel| Some((channel.name.into(), channel.channel()))),
        "operations": collect(&channels, Channel::operation),
        "components": {
            "messages": collect(&channels, |channel| Some((channel.name.into(), channel.message.clone()))),
            "parameters": address::parameters(),
            "schemas": types.take_definitions(true),
            "securitySchemes": servers::security_schemes(),
        },
    })
}

/// A topic of a box, and the one kind of message on it.
struct Channel {
    name: &'static str,
    address: String,
    /// What the last step of the address stands for, where it varies.
    parameter: Option<&'static str>,
    description: &'static str,
    way: Way,
    message: Value,
}

/// Who publishes.
#[derive(Clone, Copy)]
enum Way {
    /// The box.
    Out { retained: bool, expiry_s: Option<u32> },
    /// A console; the box answers.
    In,
    /// The box, to a console that asked: the operation is that of the question.
    Back,
}

const JSON: &str = "application/json";

const PLAIN: Way = Way::Out { retained: false, expiry_s: None };
const PICTURE: Way = Way::Out { retained: false, expiry_s: Some(PICTURE_EXPIRY_S) };
const RETAINED: Way = Way::Out { retained: true, expiry_s: None };

fn channels(types: &mut SchemaGenerator) -> [Channel; 8] {
    let site = stand_ins();
    let (level, id, console) = (Level::Village, Uuid::nil(), name("console"));
    let last = |topic: String, step: &str, parameter: &str| {
        let rest = topic.strip_suffix(step).expect("the last step is what varies");
        format!("{}{{{parameter}}}", below(&site, rest))
    };
    [
        Channel {
            name: "alert",
            address: last(site.alert(level), level.name(), "level"),
            parameter: Some("level"),
            description: "Alerts for one level: raised, climbed, answered, ended.",
            way: PLAIN,
            message: message::<Alert>(
                types,
                "An alert in CloudEvents 1.0 structured mode, of at most 600 bytes",
                "application/cloudevents+json",
                examples::alerts(),
            ),
        },
        Channel {
            name: "thumbnail",
            address: last(site.thumbnail(id), &id.to_string(), "alert-id"),
            parameter: Some("alert-id"),
            description: "The small picture of an alert with `evidence`. After all waiting alerts.",
            way: PICTURE,
            message: picture("A redacted JPEG of at most 6 KB of what happened"),
        },
        Channel {
            name: "evidence",
            address: last(site.evidence(id), &id.to_string(), "alert-id"),
            parameter: Some("alert-id"),
            description: "The large picture of an alert with `evidence`, or of a snapshot, whose id is in the answer. \
                After all waiting alerts and thumbnails, within a budget of bytes a second.",
            way: PICTURE,
            message: picture("A redacted JPEG of at most 64 KB"),
        },
        Channel {
            name: "status",
            address: below(&site, &site.status()),
            parameter: None,
            description: "Whether the box is there. `offline` is also its last will.",
            way: RETAINED,
            message: message::<Status>(types, "Online or offline", JSON, examples::statuses()),
        },
        Channel {
            name: "health",
            address: below(&site, &site.health()),
            parameter: None,
            description: "Cameras, detector, outbox and uplinks. On every change of state and each minute.",
            way: RETAINED,
            message: message::<Health>(types, "What the box says of itself", JSON, examples::health()),
        },
        Channel {
            name: "models",
            address: below(&site, &site.models()),
            parameter: None,
            description: "Which model looks at frames, and why the last one was refused.",
            way: RETAINED,
            message: message::<Models>(types, "The models on the box", JSON, examples::models()),
        },
        Channel {
            name: "command",
            address: below(&site, &site.command()),
            parameter: None,
            description: "What a console asks for. A command to a box that is away is lost: the console repeats it, with \
                the same correlation data, when `status` says `online`. A box does it once.",
            way: Way::In,
            message: {
                let mut command = message::<Command>(types, "A request", JSON, examples::commands());
                command["correlationId"] = correlation();
                command["bindings"]["mqtt"]["correlationData"] = correlation_data();
                command["bindings"]["mqtt"]["responseTopic"] = json!({
                    "type": "string",
                    "description": "The box's topic answer/{console}, of the console that asks. Anything else is ignored.",
                    "pattern": format!("^{}$", regex_of(&site, &site.answer(&console), "console")),
                });
                command
            },
        },
        Channel {
            name: "answer",
            address: last(site.answer(&console), console.as_str(), "console"),
            parameter: Some("console"),
            description: "Where the box answers one console: the response topic of its commands. QoS 1, not retained.",
            way: Way::Back,
            message: {
                let mut answer = message::<Answer>(types, "An answer", JSON, examples::answers());
                answer["correlationId"] = correlation();
                answer["bindings"]["mqtt"]["correlationData"] = correlation_data();
                answer
            },
        },
    ]
}

impl Channel {
    fn channel(&self) -> Value {
        let parameters = ROOT.iter().map(|(name, _)| *name).chain(self.parameter);
        json!({
            "address": self.address,
            "description": self.description,
            "parameters": parameters
                .map(|name| (name.to_owned(), reference("components/parameters", name)))
                .collect::<Map<_, _>>(),
            "messages": { self.name: reference("components/messages", self.name) },
        })
    }

    /// `None`: it is the second half of another one.
    fn operation(&self) -> Option<(String, Value)> {
        let of = |name: &str| json!([reference(&format!("channels/{name}/messages"), name)]);
        let channel = reference("channels", self.name);
        match self.way {
            Way::Out { retained, expiry_s } => {
                let mut mqtt = json!({ "qos": QOS, "retain": retained, "bindingVersion": BINDING });
                if let Some(expiry_s) = expiry_s {
                    mqtt["messageExpiryInterval"] = json!(expiry_s);
                }
                let operation = json!({
                    "action": "send",
                    "channel": channel,
                    "messages": of(self.name),
                    "bindings": { "mqtt": mqtt },
                });
                Some((format!("send-{}", self.name), operation))
            }
            Way::In => {
                let operation = json!({
                    "action": "receive",
                    "description": "MQTT 5 request and response: a command names its answer's topic as response topic, \
                        and the answer repeats its correlation data. Without either it is ignored.",
                    "channel": channel,
                    "messages": of(self.name),
                    "reply": { "channel": reference("channels", "answer"), "messages": of("answer") },
                    "bindings": { "mqtt": { "qos": QOS, "retain": false, "bindingVersion": BINDING } },
                });
                Some((format!("receive-{}", self.name), operation))
            }
            Way::Back => None,
        }
    }
}

fn message<T: JsonSchema>(
    types: &mut SchemaGenerator,
    title: &str,
    content_type: &str,
    examples: Vec<(&str, Value)>,
) -> Value {
    let examples: Vec<Value> =
        examples.into_iter().map(|(name, payload)| json!({ "name": name, "payload": payload })).collect();
    json!({
        "title": title,
        "contentType": content_type,
        "payload": types.subschema_for::<T>(),
        "examples": examples,
        "bindings": { "mqtt": { "contentType": content_type, "bindingVersion": BINDING } },
    })
}

fn picture(title: &str) -> Value {
    let jpeg = "image/jpeg";
    json!({
        "title": title,
        "contentType": jpeg,
        "payload": { "type": "string", "format": "binary", "contentMediaType": jpeg },
        "bindings": { "mqtt": { "contentType": jpeg, "bindingVersion": BINDING } },
    })
}

fn correlation() -> Value {
    json!({
        "description": "The property Correlation Data of MQTT 5.",
        "location": "$message.header#/correlationData",
    })
}

fn correlation_data() -> Value {
    json!({
        "type": "string",
        "format": "binary",
        "minLength": 1,
        "maxLength": CORRELATION_MAX_BYTES,
        "description": "Bytes of the console's choice. The same again is the same question: it gets the same answer.",
    })
}

fn reference(folder: &str, name: &str) -> Value {
    json!({ "$ref": format!("#/{folder}/{name}") })
}

fn collect(channels: &[Channel], each: impl Fn(&Channel) -> Option<(String, Value)>) -> Value {
    Value::Object(channels.iter().filter_map(each).collect())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// `UPDATE_SCHEMAS=1 cargo test -p sharp-eyes-protocol` writes it anew.
    #[test]
    fn the_document_checked_in_is_that_of_the_types() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("asyncapi.json");
        let fresh = format!("{:#}\n", document());
        if std::env::var_os("UPDATE_SCHEMAS").is_some() {
            std::fs::write(&file, &fresh).unwrap();
        }
        let checked_in = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(checked_in == fresh, "{} is stale: run with UPDATE_SCHEMAS=1", file.display());
    }

    #[test]
    fn addresses_are_those_of_the_topics() {
        let document = document();
        let site = examples::site();
        let steps = [
            ("{district}", site.district.as_str()),
            ("{township}", site.township.as_str()),
            ("{village}", site.village.as_str()),
            ("{box}", site.box_name.as_str()),
            ("{level}", "district"),
            ("{alert-id}", examples::ID),
            ("{console}", examples::CONSOLE),
        ];
        let id = examples::ID.parse().unwrap();
        for (channel, topic) in [
            ("alert", site.alert(Level::District)),
            ("thumbnail", site.thumbnail(id)),
            ("evidence", site.evidence(id)),
            ("status", site.status()),
            ("health", site.health()),
            ("models", site.models()),
            ("command", site.command()),
            ("answer", site.answer(&name(examples::CONSOLE))),
        ] {
            let address = document["channels"][channel]["address"].as_str().unwrap().to_owned();
            let filled = steps.iter().fold(address, |text, (step, value)| text.replace(step, value));
            assert_eq!(filled, topic);
        }
    }
}
