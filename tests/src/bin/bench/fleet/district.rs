//! The district's console: hears every box, and asks all of them for something at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Result;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, PublishProperties};
use rumqttc::v5::{Client, Connection, Event, MqttOptions};
use sharp_eyes_protocol::command::{Command, Request};
use sharp_eyes_protocol::report::{ModelStage, Models};
use sharp_eyes_protocol::topic::{self, Site};
use sharp_eyes_tests::wait;

/// A console that is subscribed to all boxes.
pub(super) struct District {
    client: Client,
    heard: Arc<Mutex<Heard>>,
}

/// By box.
#[derive(Default)]
struct Heard {
    subscribed: bool,
    /// The last steps of the topics that it told something on.
    topics: BTreeMap<String, BTreeSet<String>>,
    models: BTreeMap<String, Models>,
}

impl District {
    /// Returns once it is subscribed.
    pub(super) fn connect(port: u16) -> Result<Self> {
        let mut options = MqttOptions::new("district", "127.0.0.1", port);
        options.set_keep_alive(Duration::from_secs(60));
        options.set_max_packet_size(Some(1 << 20));
        let (client, connection) = Client::new(options, 2048);
        client.subscribe(format!("{}/#", topic::PREFIX), QoS::AtLeastOnce)?;
        let heard = Arc::new(Mutex::new(Heard::default()));
        let hearing = heard.clone();
        std::thread::spawn(move || hear(connection, &hearing));
        let district = Self { client, heard };
        wait::until("the district to be subscribed", wait::PATIENCE, || {
            district.lock().subscribed.then_some(())
        })?;
        Ok(district)
    }

    /// How many boxes have told all that a box tells of itself.
    pub(super) fn reporting(&self) -> usize {
        let all = |told: &&BTreeSet<String>| {
            ["status", "health", "models"].iter().all(|topic| told.contains(*topic))
        };
        self.lock().topics.values().filter(all).count()
    }

    /// The boxes that say that the model looks.
    pub(super) fn running(&self) -> BTreeSet<String> {
        let runs =
            |models: &Models| models.update.as_ref().is_some_and(|update| update.stage == ModelStage::Active);
        let heard = self.lock();
        heard.models.iter().filter(|(_, models)| runs(models)).map(|(site, _)| site.clone()).collect()
    }

    /// Asks boxes to check for updates, without waiting for an answer.
    pub(super) fn ask_all<'a>(&self, sites: impl Iterator<Item = &'a Site>) -> Result<()> {
        for site in sites {
            let request = Request::CheckUpdates;
            let command = Command { console: "district".parse()?, counter: 1, by: "Li Wei".into(), request };
            let properties = PublishProperties {
                response_topic: Some(format!("{site}/answer/district")),
                correlation_data: Some(b"1"[..].into()),
                ..PublishProperties::default()
            };
            let payload = serde_json::to_vec(&command)?;
            self.client.publish_with_properties(
                site.command(),
                QoS::AtLeastOnce,
                false,
                payload,
                properties,
            )?;
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Until the connection ends.
fn hear(mut connection: Connection, heard: &Mutex<Heard>) {
    for event in connection.iter() {
        let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Ok(Event::Incoming(Packet::SubAck(_))) => heard.subscribed = true,
            Ok(Event::Incoming(Packet::Publish(message))) => {
                let topic = String::from_utf8_lossy(&message.topic);
                let Some((site, last)) = topic.rsplit_once('/') else { continue };
                if let ("models", Ok(models)) = (last, serde_json::from_slice(&message.payload)) {
                    heard.models.insert(site.to_owned(), models);
                }
                heard.topics.entry(site.to_owned()).or_default().insert(last.to_owned());
            }
            Ok(_) => {}
            Err(_) => return, // the broker ended; whoever waits for something says what is missing
        }
    }
}
