//! Brokers, as boxes and consoles see them.

use serde_json::{Value, json};

use super::address::{ROOT, below, stand_ins};
use super::{BINDING, QOS, reference};
use crate::report::{BoxState, Status};

/// What CONNECT announces, in seconds, unless the box is configured otherwise.
const KEEP_ALIVE_S: u32 = 10;

/// Bytes of the largest packet that a box takes.
const LARGEST_PACKET: u32 = 16 << 10;

/// The brokers' listeners.
pub(super) fn all() -> Value {
    let broker = json!({ "description": "Host name of the broker.", "examples": ["mqtt.yun-shan.example"] });
    let offline = Status { state: BoxState::Offline, agent: env!("CARGO_PKG_VERSION").into() };
    let site = stand_ins();
    let security = |name: &str| reference("components/securitySchemes", name);
    json!({
        "boxes": {
            "host": "{broker}:8883",
            "protocol": "secure-mqtt",
            "protocolVersion": "5.0",
            "title": "A township's broker, for boxes",
            "description": "Started clean at each connection: what was not acknowledged comes again from the box itself.",
            "variables": { "broker": broker },
            "security": [security("boxCertificate"), security("password")],
            "bindings": { "mqtt": {
                "clientId": ROOT.map(|(name, _)| format!("{{{name}}}")).join("."),
                "cleanSession": true,
                "keepAlive": KEEP_ALIVE_S,
                "maximumPacketSize": LARGEST_PACKET,
                "lastWill": {
                    "topic": below(&site, &site.status()),
                    "qos": QOS,
                    "retain": true,
                    "message": serde_json::to_string(&offline).expect("a status is JSON"),
                },
                "bindingVersion": BINDING,
            } },
        },
        "consoles": {
            "host": "{broker}:8884",
            "protocol": "secure-mqtt",
            "protocolVersion": "5.0",
            "title": "The same broker, for consoles",
            "description": "A console reads all of its branch, and writes commands in it.",
            "variables": { "broker": broker },
            "security": [security("consoleCertificate")],
        },
    })
}

/// What they ask for.
pub(super) fn security_schemes() -> Value {
    json!({
        "boxCertificate": {
            "type": "X509",
            "description": "A client certificate whose common name is {district}/{township}/{village}/{box}.",
        },
        "consoleCertificate": {
            "type": "X509",
            "description": "A client certificate whose common name is the branch: {district}/{township}, or {district}.",
        },
        "password": {
            "type": "userPassword",
            "description": "Where a broker asks for it, instead of a certificate or beside it.",
        },
    })
}
