//! The AsyncAPI document and the JSON Schemas, as a judge of packets.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow, bail, ensure};
use jsonschema::{Draft, Validator};
use rumqttc::v5::mqttbytes::v5::{Connect, LastWill, Packet, Publish};
use serde_json::{Value, json};
use sharp_eyes_tests::faulty_broker::Direction;
use sharp_eyes_tests::places;

use crate::stage::read;

/// What is checked in.
pub(super) struct Contract {
    pub(super) document: Value,
    /// By file name.
    pub(super) schemas: BTreeMap<String, Value>,
    /// By the name of the channel: the payload as the document has it, and as the schema beside it has it.
    validators: BTreeMap<String, [Validator; 2]>,
}

/// The document.
pub(super) fn document_file() -> PathBuf {
    places::repository().join("agent/protocol/asyncapi.json")
}

impl Contract {
    pub(super) fn read() -> Result<Self> {
        let document: Value = serde_json::from_str(&read(&document_file())?)?;
        let mut schemas = BTreeMap::new();
        for entry in std::fs::read_dir(places::repository().join("agent/protocol/schemas"))? {
            let file = entry?.path();
            let name = file.file_name().context("a file without a name")?.to_string_lossy().into_owned();
            schemas.insert(name, serde_json::from_str(&read(&file)?)?);
        }
        let mut validators = BTreeMap::new();
        for (name, schema) in &schemas {
            let channel = name.trim_end_matches(".json");
            let message = &document["components"]["messages"][channel];
            ensure!(message["payload"].is_object(), "the document has no message {channel}");
            // References in it start at the root of the document.
            let mut payload = message["payload"].clone();
            payload["components"] = document["components"].clone();
            let strict = |draft: Draft, schema: &Value| {
                let options = jsonschema::options().with_draft(draft).should_validate_formats(true);
                options.build(schema).map_err(|error| anyhow!("{name}: {error}"))
            };
            let both = [strict(Draft::Draft7, &payload)?, strict(Draft::Draft202012, schema)?];
            validators.insert(channel.to_owned(), both);
        }
        Ok(Self { document, schemas, validators })
    }

    /// Channel and payload of every example.
    pub(super) fn examples(&self) -> Vec<(String, Value)> {
        let messages = self.document["components"]["messages"].as_object().into_iter().flatten();
        let examples = messages.flat_map(|(name, message)| {
            let examples = message["examples"].as_array().into_iter().flatten();
            examples.map(|example| (name.clone(), example["payload"].clone()))
        });
        examples.collect()
    }

    /// A JSON payload, by the document and by the schema.
    pub(super) fn judge_payload(&self, channel: &str, payload: &Value) -> Result<()> {
        let validators = self.validators.get(channel).with_context(|| format!("no schema of {channel}"))?;
        for validator in validators {
            validator.validate(payload).map_err(|error| anyhow!("{}: {error}", error.instance_path()))?;
        }
        Ok(())
    }

    pub(super) fn judge(&self) -> Judge<'_> {
        Judge { contract: self, seen: BTreeSet::new(), asked: BTreeMap::new() }
    }

    fn at(&self, pointer: &str) -> Result<&Value> {
        self.document.pointer(pointer).with_context(|| format!("nothing at {pointer} of the document"))
    }

    /// The channel of a topic, and what its parameters stand for.
    fn channel(&self, topic: &str) -> Result<(&str, BTreeMap<String, String>)> {
        let channels = self.at("/channels")?.as_object().context("no channels")?;
        let mut found = channels.iter().filter_map(|(name, channel)| {
            let parameters = fill(channel["address"].as_str()?, topic, '/')?;
            let described = parameters.keys().all(|parameter| channel["parameters"][parameter].is_object());
            described.then_some((name.as_str(), parameters))
        });
        found.next().with_context(|| format!("{topic} is no channel's"))
    }
}

/// What parameters such as `{box}` stand for in a text, step by step; `None` where it is another text.
fn fill(template: &str, text: &str, between: char) -> Option<BTreeMap<String, String>> {
    let (steps, words): (Vec<_>, Vec<_>) = (template.split(between).collect(), text.split(between).collect());
    if steps.len() != words.len() {
        return None;
    }
    let mut parameters = BTreeMap::new();
    for (step, word) in steps.into_iter().zip(words) {
        match step.strip_prefix('{').and_then(|step| step.strip_suffix('}')) {
            Some(parameter) => drop(parameters.insert(parameter.to_owned(), word.to_owned())),
            None if step == word => {}
            None => return None,
        }
    }
    Some(parameters)
}

/// Sees one packet after the other.
pub(super) struct Judge<'a> {
    contract: &'a Contract,
    /// Channels with kinds of messages.
    seen: BTreeSet<String>,
    /// Correlation data of commands, and the topics that wait for the answers.
    asked: BTreeMap<Vec<u8>, String>,
}

impl Judge<'_> {
    /// An error where the document says something else.
    pub(super) fn judge(&mut self, direction: Direction, packet: &Packet) -> Result<()> {
        match packet {
            Packet::Connect(connect, will, _) => self.connect(connect, will.as_ref()).context("CONNECT"),
            Packet::Publish(publish) => {
                let topic = String::from_utf8_lossy(&publish.topic);
                self.publish(direction, publish, &topic).with_context(|| format!("a message on {topic}"))
            }
            _ => Ok(()),
        }
    }

    /// Kinds of messages that the document gives examples of, or has channels for, and that never came.
    pub(super) fn missing(&self) -> Vec<String> {
        let examples =
            self.contract.examples().into_iter().map(|(channel, payload)| kind(&channel, &payload));
        let channels = self.contract.document["channels"].as_object().into_iter().flatten();
        let pictures =
            channels.map(|(name, _)| name).filter(|name| !self.contract.validators.contains_key(*name));
        examples.chain(pictures.cloned()).filter(|kind| !self.seen.contains(kind)).collect()
    }

    fn connect(&mut self, connect: &Connect, will: Option<&LastWill>) -> Result<()> {
        let binding = self.contract.at("/servers/boxes/bindings/mqtt")?;
        let will = will.context("no last will")?;
        let topic = String::from_utf8_lossy(&will.topic).into_owned();
        let told = json!({
            "clientId": binding["clientId"],
            "cleanSession": connect.clean_start,
            "keepAlive": connect.keep_alive,
            "maximumPacketSize": connect.properties.as_ref().and_then(|properties| properties.max_packet_size),
            "lastWill": {
                "topic": binding["lastWill"]["topic"],
                "qos": will.qos as u8,
                "retain": will.retain,
                "message": String::from_utf8_lossy(&will.message),
            },
            "bindingVersion": binding["bindingVersion"],
        });
        ensure!(told == *binding, "{told:#}");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let id = fill(&text(&binding["clientId"]), &connect.client_id, '.');
        let place = fill(&text(&binding["lastWill"]["topic"]), &topic, '/');
        ensure!(id.is_some() && id == place, "{} with a last will on {topic}", connect.client_id);
        let (channel, _) = self.contract.channel(&topic)?;
        let payload = serde_json::from_slice(&will.message)?;
        self.contract.judge_payload(channel, &payload)?;
        self.seen.insert(kind(channel, &payload));
        Ok(())
    }

    fn publish(&mut self, direction: Direction, publish: &Publish, topic: &str) -> Result<()> {
        let (channel, parameters) = self.contract.channel(topic)?;
        let message = self.contract.at(&format!("/components/messages/{channel}"))?;
        let properties = publish.properties.clone().unwrap_or_default();
        let operations = self.contract.at("/operations")?;
        let (action, operation) = match direction {
            Direction::ToBroker if channel == "answer" => ("receive", &operations["receive-command"]),
            Direction::ToBroker => ("send", &operations[format!("send-{channel}")]),
            Direction::ToClient => ("receive", &operations[format!("receive-{channel}")]),
        };
        ensure!(operation["action"] == action, "a box does not {action} it");
        let binding = &operation["bindings"]["mqtt"];
        ensure!(binding["qos"] == publish.qos as u8, "QoS {:?}", publish.qos);
        ensure!(binding["retain"] == publish.retain, "retain: {}", publish.retain);
        let expiry = properties.message_expiry_interval;
        ensure!(
            binding.get("messageExpiryInterval").and_then(Value::as_u64) == expiry.map(u64::from),
            "{expiry:?}"
        );
        if direction == Direction::ToBroker {
            let content_type = properties.content_type.unwrap_or_default();
            ensure!(message["contentType"] == content_type.as_str(), "content type {content_type}");
        }
        if message["contentType"] == "image/jpeg" {
            image::load_from_memory_with_format(&publish.payload, image::ImageFormat::Jpeg)?;
            self.seen.insert(channel.to_owned());
            return Ok(());
        }
        let payload: Value = serde_json::from_slice(&publish.payload)?;
        self.contract.judge_payload(channel, &payload).with_context(|| payload.to_string())?;
        self.seen.insert(kind(channel, &payload));
        for (name, word) in parameters {
            let parameter = self.contract.at(&format!("/components/parameters/{name}"))?;
            if let Some(words) = parameter["enum"].as_array() {
                ensure!(words.contains(&json!(word)), "{word} is no {name}");
            }
            if let Some(location) = parameter["location"].as_str() {
                let place = location.strip_prefix("$message.payload#").context("another place")?;
                ensure!(payload.pointer(place) == Some(&json!(word)), "{name} is not {word} at {place}");
            }
        }
        let correlation = properties.correlation_data.map(Vec::from);
        match (channel, correlation) {
            ("command", Some(correlation)) => {
                let response_topic = properties.response_topic.context("no response topic")?;
                let schema = &message["bindings"]["mqtt"]["responseTopic"];
                let asked = json!(response_topic);
                jsonschema::draft7::validate(schema, &asked).map_err(|error| anyhow!("{error}"))?;
                self.asked.insert(correlation, response_topic);
            }
            ("answer", Some(correlation)) => {
                let expected = self.asked.get(&correlation).context("an answer to no command")?;
                ensure!(expected == topic, "the answer was wanted on {expected}");
            }
            ("command" | "answer", None) => bail!("no correlation data"),
            (_, correlation) => ensure!(correlation.is_none(), "correlation data"),
        }
        Ok(())
    }
}

/// The channel, and what of it: requests, answers, events.
fn kind(channel: &str, payload: &Value) -> String {
    let name = |value: &Value| match value {
        Value::String(name) => name.clone(),
        Value::Object(fields) => fields.keys().next().cloned().unwrap_or_default(),
        other => other.to_string(),
    };
    let of = match channel {
        "alert" => name(&payload["type"]),
        "status" => name(&payload["state"]),
        "command" => name(&payload["request"]),
        "answer" => payload.get("done").map_or_else(|| name(payload), name),
        _ => return channel.to_owned(),
    };
    format!("{channel} {of}")
}
