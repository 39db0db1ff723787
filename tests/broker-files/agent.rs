//! The agent itself with these files: everything that it publishes is allowed, up to the district and back.

use anyhow::ensure;
use sharp_eyes_protocol::topic::Name;
use sharp_eyes_tests::agent::Agent;
use sharp_eyes_tests::camera::Camera;
use sharp_eyes_tests::places;
use sharp_eyes_tests::village::{Village, VillageCamera};

use crate::bridge::await_bridge;
use crate::client::Message;
use crate::office::{BOXES, CONSOLES, play, site};

#[test]
fn an_alert_reaches_the_district_and_the_district_is_answered() {
    play(|office| {
        let district = office.district()?;
        let township = office.township("yun-shan", &district)?;
        let whole = office.console("lan-xi")?;
        await_bridge(&whole, &district, "yun-shan")?;
        let at_district = district.listener(CONSOLES)?;
        let own = site("yun-shan", "wang-cun", "box-1");
        let branch = format!("{own}/#");
        let desk = whole.listen(at_district, &branch, &office.folder.join("console.log"))?;

        office.village_box(&own)?;
        let mount = format!("gate={}", places::footage()?.display());
        let gate = Camera::start(&office.folder, &["--mount", &mount])?;
        let mut village = Village::new(&office.folder, township.listener(BOXES)?)?
            .with(VillageCamera::guarded("gate", gate.url("gate")));
        let issued = office.certificates();
        village.broker_lines = format!(
            "[broker.tls]\nca = \"{0}/brokers.pem\"\ncertificate = \"{0}/box/{1}.pem\"\nkey = \"{0}/box/{1}.key.pem\"\n",
            issued.display(),
            "lan-xi.yun-shan.wang-cun.box-1"
        );
        let mut agent = Agent::start(&village)?;
        let kinds = ["alert", "thumbnail", "evidence", "status", "health", "models"];
        let mut seen: Vec<Message> = Vec::new();
        while !kinds.iter().all(|kind| seen.iter().any(|m| m.topic.starts_with(&format!("{own}/{kind}")))) {
            seen.push(desk.next()?);
        }

        let answer = own.answer(&Name::new("lan-xi-1")?);
        let question = r#"{"console":"lan-xi-1","counter":1,"by":"Li Wei","request":"status"}"#;
        let request =
            ["-D", "publish", "response-topic", &answer, "-D", "publish", "correlation-data", "c-1"];
        whole.publish_with(at_district, &own.command(), &[&request[..], &["-m", question]].concat())?;
        let answers = desk.until(&answer)?;
        let Message { payload, about: [.., correlation, _], .. } = &answers[answers.len() - 1];
        ensure!(payload.contains("done") && correlation == "c-1", "{payload} for {correlation:?}");

        let health = agent.health_when("everything to be acknowledged", |health| {
            (health.uplinks[0].acknowledged > 0).then(|| health.clone())
        })?;
        ensure!(health.uplinks[0].refused == 0 && health.outbox.parked == 0, "{health:?}");
        agent.kill()?;
        // The last will, which the township's broker publishes and its bridge passes on.
        let last = desk.until(&own.status())?;
        ensure!(last[last.len() - 1].payload.contains("offline"), "{last:?}");
        Ok(())
    });
}
