//! A township and its district.

use anyhow::{Context, Result, ensure};
use sharp_eyes_protocol::level::Level;
use sharp_eyes_protocol::topic::Name;
use sharp_eyes_tests::broker::Broker;
use sharp_eyes_tests::wait;
use uuid::Uuid;

use crate::client::{Client, Listener, Message};
use crate::office::{BOXES, CONSOLES, play, site};

#[test]
fn alerts_go_up_commands_come_down_and_nothing_goes_astray() {
    play(|office| {
        let district = office.district()?;
        let whole = office.console("lan-xi")?;
        let at_district = district.listener(CONSOLES)?;
        let mut townships = Vec::new();
        for name in ["yun-shan", "qing-he"] {
            let broker = office.township(name, &district)?;
            await_bridge(&whole, &district, name)?;
            let own = site(name, "wang-cun", "box-1");
            let village_box = office.village_box(&own)?;
            let console = office.console(&format!("lan-xi/{name}"))?;
            let log = office.folder.join(format!("console-{name}.log"));
            let desk = console.listen(broker.listener(CONSOLES)?, "sharp-eyes/#", &log)?;
            townships.push((own, broker.listener(BOXES)?, broker, village_box, desk));
        }
        let desk = whole.listen(at_district, "sharp-eyes/#", &office.folder.join("console.log"))?;

        // A command from the district, to each of them; and the answer, with all that a request needs of MQTT 5.
        let name = Name::new("lan-xi-1")?;
        let mut expected = Vec::new();
        for (own, port, _, village_box, _) in &townships {
            let (command, answer) = (own.command(), own.answer(&name));
            let request =
                ["-D", "publish", "response-topic", &answer, "-D", "publish", "correlation-data", "c-1"];
            let expiry = ["-D", "publish", "message-expiry-interval", "60", "-m", "acknowledge"];
            // It listens and leaves before it publishes, because it is one client whatever it calls itself.
            let commands = village_box.listen(*port, &command, &office.folder.join("box.log"))?;
            ensure!(whole.publish_with(at_district, &command, &[&request[..], &expiry].concat())? == 0);
            let seen = commands.until(&command)?;
            drop(commands);
            let [Message { payload, about: [qos, _, left, response, correlation, _], .. }] = &seen[..] else {
                anyhow::bail!("the box has seen {seen:?}");
            };
            ensure!((payload.as_str(), qos.as_str()) == ("acknowledge", "1"), "{seen:?}");
            ensure!((response, correlation.as_str()) == (&answer, "c-1"), "{seen:?}");
            ensure!((1..=60).contains(&left.parse::<u32>()?), "{seen:?}");

            let reply = [
                "-D",
                "publish",
                "correlation-data",
                "c-1",
                "-D",
                "publish",
                "content-type",
                "application/json",
            ];
            village_box.publish_with(*port, &answer, &[&reply[..], &["-m", "done"]].concat())?;
            let reports = [own.alert(Level::District), own.thumbnail(Uuid::nil()), own.evidence(Uuid::nil())];
            for topic in
                reports.iter().chain(&[own.status(), own.health(), own.models(), own.alert(Level::Village)])
            {
                village_box.publish(*port, topic, "report")?;
                expected.push(topic.clone());
            }
            expected.extend([command, answer]);
        }

        // What went round in circles would come again before the answer to a second command.
        let last = Name::new("last")?;
        for (own, port, _, village_box, desk) in &townships {
            whole.publish(at_district, &own.command(), "last")?;
            let mut seen: Vec<Message> = Vec::new();
            while !seen.iter().any(|message| message.payload == "last") {
                seen.extend(desk.until(&own.command())?);
            }
            village_box.publish(*port, &own.answer(&last), "last")?;
            seen.extend(desk.until(&own.answer(&last))?);
            let astray = seen.iter().filter(|message| !message.topic.contains(own.township.as_str())).count();
            ensure!(astray == 0, "the console of {} has seen {seen:?}", own.township);
            ensure!(
                counted(&seen, |_| true) == 2 + 7 + 2,
                "the console of {} has seen {seen:?}",
                own.township
            );
        }
        let mut seen: Vec<Message> = Vec::new();
        for (own, ..) in &townships {
            let answer = own.answer(&last);
            while !seen.iter().any(|message| message.topic == answer) {
                seen.extend(desk.until(&answer)?);
            }
        }
        for topic in &expected {
            let times = counted(&seen, |message| message.topic == *topic && message.payload != "last");
            ensure!(times == 1, "{topic} came {times} times: {seen:?}");
        }
        ensure!(counted(&seen, |_| true) == expected.len() + 4, "the district has seen {seen:?}");
        let answers = seen.iter().filter(|message| message.payload == "done");
        for Message { about: [_, _, _, _, correlation, content], .. } in answers {
            ensure!((correlation.as_str(), content.as_str()) == ("c-1", "application/json"), "{seen:?}");
        }
        Ok(())
    });
}

#[test]
fn what_happens_while_the_district_is_away_is_told_when_it_is_back() {
    play(|office| {
        // More than the 1000 that mosquitto would keep by itself.
        const ALERTS: u32 = 1250;
        let mut district = office.district()?;
        let mut township = office.township("yun-shan", &district)?;
        let whole = office.console("lan-xi")?;
        await_bridge(&whole, &district, "yun-shan")?;
        let at_district = district.listener(CONSOLES)?;
        let own = site("yun-shan", "wang-cun", "box-1");
        let village_box = office.village_box(&own)?;
        let desk = |name: &str| -> Result<Listener> {
            let log = office.folder.join(format!("{name}.log"));
            whole.listen_with(at_district, "sharp-eyes/1/lan-xi/#", &log, &["-c", "-i", "lan-xi-1"])
        };
        let port = township.listener(BOXES)?;
        let report = |topic: &str, text: &str| village_box.publish_with(port, topic, &["-r", "-m", text]);
        report(&own.status(), "online")?;
        report(&own.health(), "old")?;
        desk("before")?.until(&own.health())?;

        district.save()?;
        district.kill()?;
        let alert = own.alert(Level::Township);
        village_box.publish_numbers(port, &alert, ALERTS)?;
        report(&own.health(), "new")?;
        report(&own.status(), "offline")?;
        village_box.publish(port, &own.evidence(Uuid::nil()), "large")?;
        // A power cut at the township, after a save.
        township.save()?;
        township.restart()?;
        for number in ALERTS + 1..=ALERTS + 3 {
            village_box.publish(port, &alert, &number.to_string())?;
        }
        district.restart()?;
        let desk = desk("after")?;
        let mut seen: Vec<Message> = Vec::new();
        let last = (ALERTS + 3).to_string();
        while !seen.iter().any(|message| message.payload == last) {
            seen.extend(desk.until(&alert)?);
        }
        village_box.publish(port, &own.thumbnail(Uuid::nil()), "end")?;
        seen.extend(desk.until(&own.thumbnail(Uuid::nil()))?);

        let told: Vec<String> = seen
            .iter()
            .filter(|message| message.topic == alert)
            .map(|message| message.payload.clone())
            .collect();
        let expected: Vec<String> = (1..=ALERTS + 3).map(|number| number.to_string()).collect();
        ensure!(told == expected, "{} alerts instead of {}", told.len(), expected.len());
        for (topic, text) in [(own.health(), "new"), (own.status(), "offline")] {
            let latest = seen.iter().rfind(|message| message.topic == topic).context("nothing retained")?;
            ensure!(latest.payload == text, "{latest:?}");
        }
        ensure!(counted(&seen, |message| message.payload == "large") == 0, "a large picture was queued");
        Ok(())
    });
}

#[test]
fn the_district_sees_that_a_township_is_away_and_repeats_its_command() {
    // mosquitto 2.0.11 asks for no session when its bridge speaks MQTT 5: what comes for it meanwhile is lost.
    play(|office| {
        let district = office.district()?;
        let mut township = office.township("yun-shan", &district)?;
        let whole = office.console("lan-xi")?;
        await_bridge(&whole, &district, "yun-shan")?;
        let own = site("yun-shan", "wang-cun", "box-1");
        let (at_district, at_township) = (district.listener(CONSOLES)?, township.listener(BOXES)?);
        let state = "sharp-eyes/1/lan-xi/yun-shan/bridge";
        let states = whole.listen(at_district, state, &office.folder.join("states.log"))?;
        let await_state = |wanted: &str| -> Result<()> {
            while states.next()?.payload != wanted {}
            Ok(())
        };
        await_state("1")?;
        township.kill()?;
        await_state("0")?;
        township.restart()?;
        await_state("1")?;
        await_bridge(&whole, &district, "yun-shan")?;
        let commands =
            office.village_box(&own)?.listen(at_township, &own.command(), &office.folder.join("box.log"))?;
        whole.publish(at_district, &own.command(), "resolve")?;
        ensure!(commands.next()?.payload == "resolve");
        Ok(())
    });
}

/// Waits until a township's broker has subscribed to commands at the district's.
pub(crate) fn await_bridge(console: &Client, district: &Broker, township: &str) -> Result<()> {
    let (port, nobody) = (district.listener(CONSOLES)?, site(township, "no-village", "no-box").command());
    wait::until("the bridge", wait::PATIENCE, || {
        // 0x10 is a success that nobody listened to.
        console.publish(port, &nobody, "is there a bridge?").is_ok_and(|reason| reason == 0).then_some(())
    })
}

/// How many messages of boxes are such ones: without the state of bridges.
fn counted(seen: &[Message], such: impl Fn(&Message) -> bool) -> usize {
    seen.iter().filter(|message| !message.topic.ends_with("/bridge") && such(message)).count()
}
