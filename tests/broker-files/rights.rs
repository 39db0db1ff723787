//! Who may publish and read what. At the district's broker, where everybody meets.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use sharp_eyes_protocol::level::Level;
use sharp_eyes_protocol::topic::{Name, Site};
use sharp_eyes_tests::broker::Broker;
use uuid::Uuid;

use crate::client::{Client, Listener, NOT_AUTHORIZED};
use crate::office::{BOXES, BRIDGES, CONSOLES, play, site};

/// Everything that a box publishes.
fn reports(site: &Site) -> Vec<String> {
    let mut topics: Vec<String> =
        [Level::Village, Level::Township, Level::District].map(|level| site.alert(level)).into();
    topics.extend([site.thumbnail(Uuid::nil()), site.evidence(Uuid::nil())]);
    topics.extend([site.status(), site.health(), site.models()]);
    topics.push(site.answer(&Name::new("lan-xi-1").expect("a name")));
    topics
}

fn expect(who: &str, client: &Client, port: u16, topic: &str, allowed: bool) -> Result<()> {
    let reason = client.publish(port, topic, who)?;
    // 0x10 is success without anybody who listens.
    let right = if allowed { [0, 0x10].contains(&reason) } else { reason == NOT_AUTHORIZED };
    ensure!(right, "{who} at {topic}: reason code {reason:#x}");
    Ok(())
}

#[test]
fn everybody_publishes_only_what_is_theirs() {
    play(|office| {
        let district = office.district()?;
        let [boxes, consoles, bridges] = ports(&district)?;
        let (own, beside) = (site("yun-shan", "wang-cun", "box-1"), site("yun-shan", "wang-cun", "box-2"));
        let (village, neighbour) =
            (site("yun-shan", "li-cun", "box-1"), site("qing-he", "wang-cun", "box-1"));
        let all = [&own, &beside, &village, &neighbour];

        let village_box = office.village_box(&own)?;
        for topic in reports(&own) {
            expect("a box", &village_box, boxes, &topic, true)?;
        }
        let mut forbidden: Vec<String> = [&beside, &village, &neighbour].map(reports).concat();
        forbidden.extend(all.map(Site::command));
        forbidden.extend(
            ["", "/alert", "/alert/township/more", "/command/more", "/answer", "/else"]
                .map(|end| format!("{own}{end}")),
        );
        forbidden.extend(
            ["sharp-eyes/1/lan-xi/yun-shan/bridge", "elsewhere", "$SYS/broker/version"].map(str::to_owned),
        );
        for topic in &forbidden {
            expect("a box", &village_box, boxes, topic, false)?;
        }

        let (township, whole) = (office.console("lan-xi/yun-shan")?, office.console("lan-xi")?);
        for to in all {
            expect("the district's console", &whole, consoles, &to.command(), true)?;
            let in_branch = to.township == own.township;
            expect("the township's console", &township, consoles, &to.command(), in_branch)?;
            for topic in reports(to) {
                expect("the district's console", &whole, consoles, &topic, false)?;
                expect("the township's console", &township, consoles, &topic, false)?;
            }
            // One step more or less than a command has.
            let pretended = to.answer(&Name::new("command")?);
            for topic in [
                pretended.as_str(),
                "sharp-eyes/1/lan-xi/yun-shan/command",
                "sharp-eyes/1/lan-xi/yun-shan/bridge",
            ] {
                expect("the district's console", &whole, consoles, topic, false)?;
                expect("the township's console", &township, consoles, topic, false)?;
            }
        }

        office.script(&["bridge", "lan-xi/yun-shan"])?;
        let bridge = office.client("bridge", "lan-xi.yun-shan");
        for from in all {
            let in_branch = from.township == own.township;
            for topic in reports(from) {
                expect("a township's broker", &bridge, bridges, &topic, in_branch)?;
            }
            expect("a township's broker", &bridge, bridges, &from.command(), false)?;
        }
        expect("a township's broker", &bridge, bridges, "sharp-eyes/1/lan-xi/yun-shan/bridge", true)?;
        expect("a township's broker", &bridge, bridges, "sharp-eyes/1/lan-xi/qing-he/bridge", false)
    });
}

#[test]
fn everybody_reads_only_what_is_theirs() {
    play(|office| {
        let district = office.district()?;
        let [boxes, consoles, bridges] = ports(&district)?;
        let sites = [
            ("yun-shan", "wang-cun", "box-1"),
            ("yun-shan", "wang-cun", "box-2"),
            ("qing-he", "wang-cun", "box-1"),
        ]
        .map(|(township, village, name)| site(township, village, name));
        let village_boxes =
            sites.iter().map(|site| office.village_box(site)).collect::<Result<Vec<Client>>>()?;
        let whole = office.console("lan-xi")?;
        office.script(&["bridge", "lan-xi/yun-shan"])?;

        // What is retained comes before everything else: it must not leak either.
        for (site, client) in sites.iter().zip(&village_boxes) {
            client.publish_with(boxes, &site.status(), &["-r", "-m", "retained"])?;
        }
        let everybody = [
            ("a box", village_boxes[0].clone(), boxes),
            ("the township's console", office.console("lan-xi/yun-shan")?, consoles),
            ("the district's console", whole.clone(), consoles),
            ("a township's broker", office.client("bridge", "lan-xi.yun-shan"), bridges),
        ];
        let mut listeners: BTreeMap<&str, Listener> = BTreeMap::new();
        for (who, client, port) in everybody {
            let log = office.folder.join(format!("{who}.log"));
            listeners.insert(who, client.listen(port, "#", &log)?);
        }
        for (site, client) in sites.iter().zip(&village_boxes).skip(1) {
            for topic in reports(site) {
                client.publish(boxes, &topic, "report")?;
            }
            whole.publish(consoles, &site.command(), "command")?;
        }
        // Last what all of them may read, and with it everything has come that was to come.
        let last = sites[0].command();
        whole.publish(consoles, &last, "command")?;

        let count = reports(&sites[1]).len();
        for (who, listener) in listeners {
            let seen = listener.until(&last)?;
            let of = |site: &Site| seen.iter().filter(|m| m.topic.starts_with(&format!("{site}/"))).count();
            let found: Vec<usize> = sites.iter().map(of).collect();
            // The retained one, the reports, the command.
            let expected = match who {
                "a box" => [1, 0, 0],
                "the township's console" => [2, 1 + count + 1, 0],
                "the district's console" => [2, 1 + count + 1, 1 + count + 1],
                _ => [1, 1, 0],
            };
            ensure!(found == expected, "{who} has seen {seen:?}");
            ensure!(found.iter().sum::<usize>() == seen.len(), "{who} has seen more: {seen:?}");
        }
        Ok(())
    });
}

#[test]
fn a_last_will_is_no_way_to_speak_for_another_box() {
    play(|office| {
        let district = office.district()?;
        let [boxes, consoles, _] = ports(&district)?;
        let (own, other) = (site("yun-shan", "wang-cun", "box-1"), site("yun-shan", "wang-cun", "box-2"));
        let (client, beside) = (office.village_box(&own)?, office.village_box(&other)?);
        let console = office.console("lan-xi/yun-shan")?;
        let listener =
            console.listen(consoles, "sharp-eyes/1/lan-xi/yun-shan/#", &office.folder.join("console.log"))?;

        for (number, topic) in [other.status(), own.status()].into_iter().enumerate() {
            let log = office.folder.join(format!("box-{number}.log"));
            let will = ["--will-topic", &topic, "--will-payload", "offline", "--will-qos", "1"];
            client.listen_with(boxes, &own.command(), &log, &will)?.vanish()?;
        }
        let seen = listener.until(&own.status())?;
        ensure!(seen.len() == 1 && seen[0].payload == "offline", "the console has seen {seen:?}");
        beside.publish(boxes, &other.status(), "online")?;
        ensure!(listener.until(&other.status())?.len() == 1, "a will came late");
        Ok(())
    });
}

#[test]
fn a_client_id_of_somebody_else_is_worth_nothing() {
    play(|office| {
        let mut district = office.district()?;
        let [boxes, consoles, _] = ports(&district)?;
        let own = site("yun-shan", "wang-cun", "box-1");
        let other = site("qing-he", "wang-cun", "box-1");
        let (client, neighbour) = (office.village_box(&own)?, office.village_box(&other)?);
        let whole = office.console("lan-xi")?;

        // A box is called by its certificate, whatever it says: nobody can push it off.
        let log = |name: &str| office.folder.join(format!("{name}.log"));
        let listener = client.listen_with(boxes, &own.command(), &log("box"), &["-i", "same"])?;
        let _other = neighbour.listen_with(boxes, &other.command(), &log("neighbour"), &["-i", "same"])?;
        whole.publish(consoles, &own.command(), "still there?")?;
        ensure!(listener.until(&own.command())?.len() == 1);

        // A console chooses its own; who takes it over gets none of what waits there, before and after a restart.
        let (console, thief) = (office.console("lan-xi/yun-shan")?, office.console("lan-xi/qing-he")?);
        let all = "sharp-eyes/1/lan-xi/#";
        let session = ["-c", "-i", "yun-shan-1"];
        console.listen_with(consoles, all, &log("console"), &session)?.vanish()?;
        client.publish(boxes, &own.alert(Level::Township), "1")?;
        district.save()?;
        district.restart()?;
        client.publish(boxes, &own.alert(Level::Township), "2")?;
        let stolen = thief.listen_with(consoles, all, &log("thief"), &session)?;
        client.publish(boxes, &own.alert(Level::Township), "3")?;
        neighbour.publish(boxes, &other.status(), "online")?;
        let seen = stolen.until(&other.status())?;
        ensure!(seen.len() == 1, "the thief has seen {seen:?}");
        Ok(())
    });
}

#[test]
fn a_console_that_was_away_gets_what_waits_for_it_after_a_restart_too() {
    // With settings by listener, mosquitto has to remember which listener an absent client belongs to.
    play(|office| {
        let mut township = office.lone_township()?;
        let [boxes, consoles] = [township.listener(BOXES)?, township.listener(CONSOLES)?];
        let own = site("yun-shan", "wang-cun", "box-1");
        let (client, console) = (office.village_box(&own)?, office.console("lan-xi/yun-shan")?);
        let session = ["-c", "-i", "yun-shan-1"];
        let log = office.folder.join("console.log");
        let topic = own.alert(Level::Township);
        console.listen_with(consoles, &topic, &log, &session)?.vanish()?;
        client.publish(boxes, &topic, "before")?;
        township.save()?;
        township.restart()?;
        client.publish(boxes, &topic, "after")?;
        client.publish(boxes, &own.status(), "online")?;
        let listener = console.listen_with(consoles, &own.status(), &log, &session)?;
        client.publish(boxes, &own.status(), "online")?;
        let seen: Vec<String> =
            listener.until(&own.status())?.into_iter().map(|message| message.payload).collect();
        ensure!(seen == ["before", "after", "online"], "the console has seen {seen:?}");
        Ok(())
    });
}

#[test]
fn a_picture_that_is_too_large_is_refused_and_costs_no_connection() {
    play(|office| {
        let township = office.lone_township()?;
        let boxes = township.listener(BOXES)?;
        let own = site("yun-shan", "wang-cun", "box-1");
        let client = office.village_box(&own)?;
        let topic = own.evidence(Uuid::nil());
        for (size, reason) in [(64 * 1024, 0x10), (64 * 1024 + 1, 0x95)] {
            let file = office.folder.join("picture");
            std::fs::write(&file, "x".repeat(size))?;
            let found = client.publish_with(boxes, &topic, &["-f", &file.to_string_lossy()])?;
            ensure!(found == reason, "{size} bytes: reason code {found:#x}");
        }
        Ok(())
    });
}

#[test]
fn somebody_who_shares_subscriptions_takes_nothing_from_those_who_do_not() {
    // mosquitto lets everybody into any shared subscription, and sends them their part: it is lost, as they may not
    // read it. So nobody of ours shares subscriptions at mosquitto (brokers.md).
    play(|office| {
        let township = office.lone_township()?;
        let [boxes, consoles] = [township.listener(BOXES)?, township.listener(CONSOLES)?];
        let own = site("yun-shan", "wang-cun", "box-1");
        let (client, thief) =
            (office.village_box(&own)?, office.village_box(&site("yun-shan", "wang-cun", "box-2"))?);
        let console = office.console("lan-xi/yun-shan")?;
        let topic = own.alert(Level::Township);
        let log = |name: &str| office.folder.join(format!("{name}.log"));
        let listener = console.listen(consoles, "sharp-eyes/1/lan-xi/yun-shan/#", &log("console"))?;
        let _thief = thief.listen(boxes, "$share/desk/sharp-eyes/1/lan-xi/yun-shan/#", &log("thief"))?;
        client.publish_numbers(boxes, &topic, 20)?;
        client.publish(boxes, &own.status(), "online")?;
        ensure!(listener.until(&own.status())?.len() == 21);
        Ok(())
    });
}

fn ports(district: &Broker) -> Result<[u16; 3]> {
    Ok([district.listener(BOXES)?, district.listener(CONSOLES)?, district.listener(BRIDGES)?])
}
