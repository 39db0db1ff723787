//! Who gets in at all.

use std::fs;

use anyhow::{Context, Result, ensure};
use jiff::{Timestamp, ToSpan};
use sharp_eyes_tests::authority::{Authority, Credentials};
use sharp_eyes_tests::broker::Broker;
use sharp_eyes_tests::wait;

use crate::client::Client;
use crate::office::{BOXES, BRIDGES, CONSOLES, path, play, site};

#[test]
fn each_listener_lets_in_its_own_kind_only() {
    play(|office| {
        let district = office.district()?;
        let own = site("yun-shan", "wang-cun", "box-1");
        let village_box = office.village_box(&own)?;
        office.script(&["bridge", "lan-xi/yun-shan"])?;
        // Somebody who calls his authority as ours, and himself as a box of ours.
        let impostor = Authority::new(&office.folder, "Sharp Eyes boxes")?;
        let clients = [
            ("a box", village_box.clone(), Some(BOXES)),
            ("a console", office.console("lan-xi/yun-shan")?, Some(CONSOLES)),
            ("a bridge", office.client("bridge", "lan-xi.yun-shan"), Some(BRIDGES)),
            ("a broker", office.client("broker", "127.0.0.1"), None),
            ("somebody without a certificate", village_box.without_certificate(), None),
            ("somebody without TLS", Client::in_the_clear(), None),
            ("an impostor", office.stranger(&impostor.vouch(&path(&own))?), None),
        ];
        for (who, client, home) in clients {
            for port in [BOXES, CONSOLES, BRIDGES] {
                let enters = client.enters(district.listener(port)?)?;
                ensure!(enters == (home == Some(port)), "{who} at port {port}: let in: {enters}");
            }
        }
        Ok(())
    });
}

#[test]
fn a_revoked_box_is_out_and_the_others_stay() {
    play(|office| {
        let mut township = office.lone_township()?;
        let port = township.listener(BOXES)?;
        let (lost, kept) = (site("yun-shan", "wang-cun", "box-1"), site("yun-shan", "wang-cun", "box-2"));
        let (_, other) = (office.village_box(&lost)?, office.village_box(&kept)?);
        // The thief has a copy, for the script takes the files away.
        let [certificate, key] =
            ["pem", "key.pem"].map(|ending| office.folder.join(format!("stolen.{ending}")));
        let issued =
            |ending: &str| office.certificates().join(format!("box/lan-xi.yun-shan.wang-cun.box-1.{ending}"));
        fs::copy(issued("pem"), &certificate)?;
        fs::copy(issued("key.pem"), &key)?;
        let thief = Client::new(office.certificates().join("brokers.pem"), Some((certificate, key)));

        let log = office.folder.join("thief.log");
        let connected = thief.listen(port, &lost.command(), &log)?;
        office.script(&["revoke", "certificates/box/lan-xi.yun-shan.wang-cun.box-1.pem"])?;
        office.hand_out_list("boxes", &office.folder.join("yun-shan"))?;
        // A reload shuts the door, and throws nobody out.
        township.reload()?;
        ensure!(!thief.enters(port)?, "a revoked box was let in");
        ensure!(other.enters(port)?, "the other box was not let in");
        let console = office.console("lan-xi/yun-shan")?;
        console.publish(township.listener(CONSOLES)?, &lost.command(), "still there?")?;
        connected.until(&lost.command()).context("who was in stays until the restart")?;
        township.restart()?;
        ensure!(!thief.enters(port)?, "a revoked box was let in");
        ensure!(other.enters(port)?, "the other box was not let in");

        // The place in the tree gets a new certificate.
        ensure!(office.village_box(&lost)?.enters(port)?, "the box's new certificate was not let in");
        Ok(())
    });
}

#[test]
fn the_dates_of_a_certificate_count() {
    play(|office| {
        let folder = office.prepare("yun-shan")?;
        let authority = Authority::new(&office.folder, "boxes")?;
        let (name, now) = (path(&site("yun-shan", "wang-cun", "box-1")), Timestamp::now());
        let good = authority.vouch(&name)?;
        let expired = authority.vouch_between(&name, Timestamp::UNIX_EPOCH, now - 1.hour())?;
        let early = authority.vouch_between(&name, now + 1.hour(), now + 2.hours())?;
        let revoked = authority.vouch(&name)?;
        let files = folder.join("sharp-eyes");
        fs::copy(authority.file(), files.join("boxes.pem"))?;
        fs::copy(authority.revoke(&[&revoked])?, files.join("boxes.crl.pem"))?;
        let township = Broker::with_files(&folder, &["township.conf"], &[])?;
        for (what, credentials, welcome) in [
            ("good", good, true),
            ("expired", expired, false),
            ("early", early, false),
            ("revoked", revoked, false),
        ] {
            let enters = office.stranger(&credentials).enters(township.listener(BOXES)?)?;
            ensure!(enters == welcome, "{what}: let in: {enters}");
        }
        Ok(())
    });
}

#[test]
fn a_broker_has_to_prove_who_it_is() {
    play(|office| {
        let folder = office.prepare("yun-shan")?;
        let client = office.village_box(&site("yun-shan", "wang-cun", "box-1"))?;
        let (ours, theirs) =
            (Authority::new(&office.folder, "ours")?, Authority::new(&office.folder, "theirs")?);
        let client = client.trusting(ours.file());
        let yesterday = Timestamp::now() - 24.hours();
        let mut township = None;
        for (what, shown, trusted) in [
            ("good", ours.vouch("127.0.0.1")?, true),
            ("expired", ours.vouch_between("127.0.0.1", Timestamp::UNIX_EPOCH, yesterday)?, false),
            ("another host's", ours.vouch("mqtt.lan-xi.example")?, false),
            ("another authority's", theirs.vouch("127.0.0.1")?, false),
        ] {
            show(&folder, &shown)?;
            drop(township.take());
            let broker = township.insert(Broker::with_files(&folder, &["township.conf"], &[])?);
            let outcome = client.publish(broker.listener(BOXES)?, "door/bell", "anybody there?");
            let said = outcome.as_ref().err().map(|error| format!("{error:#}")).unwrap_or_default();
            ensure!(outcome.is_ok() == trusted, "a broker's certificate that is {what}: {outcome:?}");
            ensure!(trusted || said.contains("certificate verify failed"), "{what}: {said}");
        }
        Ok(())
    });
}

#[test]
fn a_bridge_says_nothing_to_a_district_that_cannot_prove_who_it_is() {
    play(|office| {
        let theirs = Authority::new(&office.folder, "theirs")?;
        let folder = office.prepare("district")?;
        show(&folder, &theirs.vouch("127.0.0.1")?)?;
        let mut impostor = Broker::with_files(&folder, &["district.conf"], &[])?;
        let mut township = office.township("yun-shan", &impostor)?;
        let port = township.listener(BOXES)?;
        let own = site("yun-shan", "wang-cun", "box-1");
        office.village_box(&own)?.publish(port, &own.status(), "online")?;
        let tried = |broker: &mut Broker, what: &str| -> Result<Option<()>> {
            Ok(broker.process()?.log().contains(what).then_some(()))
        };
        wait::until("the bridge to refuse the impostor", wait::PATIENCE, || {
            tried(&mut township, "certificate verify failed").ok().flatten()
        })?;
        ensure!(tried(&mut impostor, "New client connected")?.is_none(), "the bridge talks to an impostor");
        Ok(())
    });
}

/// Gives a broker another certificate.
fn show(folder: &std::path::Path, credentials: &Credentials) -> Result<()> {
    fs::copy(&credentials.certificate, folder.join("sharp-eyes/broker.pem"))?;
    fs::copy(&credentials.key, folder.join("sharp-eyes/broker.key.pem"))?;
    Ok(())
}
