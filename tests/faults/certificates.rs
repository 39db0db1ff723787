//! Certificates that are not good, and then are: nothing is lost, health says why, and delivery goes on by itself.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use jiff::{Timestamp, ToSpan};
use sharp_eyes_tests::alert_source::AlertSource;
use sharp_eyes_tests::authority::{Authority, Credentials};
use sharp_eyes_tests::broker::{Broker, BrokerOptions, TlsFiles};
use sharp_eyes_tests::console::Console;
use sharp_eyes_tests::village::Village;
use sharp_eyes_tests::wait;

use crate::scene::{arrive, beside};
use crate::stage::{play, township};

/// The common name of the box's certificate.
const BOX: &str = "lan-xi/yun-shan/wang-cun/box-1";
/// What the broker's is for.
const HOST: &str = "127.0.0.1";

/// A broker and a box that know each other by certificates, which are replaced while both run.
struct Office {
    folder: PathBuf,
    authority: Authority,
    broker: Broker,
    console: Console,
    village: Village,
}

impl Office {
    fn open(
        folder: &Path,
        authority: Authority,
        of_broker: &Credentials,
        of_box: &Credentials,
    ) -> Result<Self> {
        show(folder, "broker", of_broker)?;
        show(folder, "box", of_box)?;
        let file = |name: &str| folder.join(name);
        let revoked = Some(authority.revoke(&[])?);
        let ca = authority.file().to_owned();
        let tls = TlsFiles { ca, certificate: file("broker.pem"), key: file("broker.key.pem"), revoked };
        let options = BrokerOptions { tls: Some(tls), ..BrokerOptions::default() };
        let (broker, console) = township(folder, &options)?;
        let mut village = AlertSource::village(folder, broker.tls_port())?;
        village.broker_lines = format!(
            "[broker.tls]\nca = \"{}\"\ncertificate = \"{}\"\nkey = \"{}\"\n",
            authority.file().display(),
            file("box.pem").display(),
            file("box.key.pem").display()
        );
        Ok(Self { folder: folder.to_owned(), authority, broker, console, village })
    }

    fn show(&self, who: &str, credentials: &Credentials) -> Result<()> {
        show(&self.folder, who, credentials)
    }
}

/// Puts a certificate and its key in the place of those that are used.
fn show(folder: &Path, who: &str, credentials: &Credentials) -> Result<()> {
    fs::copy(&credentials.certificate, folder.join(format!("{who}.pem")))?;
    fs::copy(&credentials.key, folder.join(format!("{who}.key.pem")))?;
    Ok(())
}

/// Alerts wait, and health says why.
fn waits(source: &mut AlertSource, why: &str) -> Result<()> {
    source.store(6, None)?;
    source.health_when(&format!("alerts to wait because of {why:?}"), 2 * wait::PATIENCE, |health| {
        let uplink = &health.uplinks[0];
        let said = uplink.reason.as_ref().is_some_and(|reason| reason.contains(why));
        (said && !uplink.connected && health.outbox.alerts >= 6).then_some(())
    })
}

/// A certificate that ended yesterday.
fn expired(authority: &Authority, name: &str) -> Result<Credentials> {
    authority.vouch_between(name, Timestamp::UNIX_EPOCH, Timestamp::now() - 24.hours())
}

#[test]
fn a_box_whose_certificate_is_refused_delivers_with_the_next_one() {
    play(|folder| {
        beside(folder, &[("revoked", true), ("expired", false)], |folder, revoke| {
            let authority = Authority::new(folder, "ours")?;
            let first = if *revoke { authority.vouch(BOX)? } else { expired(&authority, BOX)? };
            let of_broker = authority.vouch(HOST)?;
            let mut office = Office::open(folder, authority, &of_broker, &first)?;
            let mut source = AlertSource::start(&office.village)?;
            if *revoke {
                source.store(6, None)?;
                source.await_delivery()?;
                // A reload of the broker would shut the door, and throw nobody out.
                office.authority.revoke(&[&first])?;
                office.broker.kill()?;
                office.console.await_loss()?;
                office.broker.restart()?;
                office.console.await_connection()?;
            }
            let why = if *revoke { "it is revoked" } else { "it has expired" };
            waits(&mut source, &format!("the broker refuses this box's certificate: {why}"))?;
            // It is tried again after up to half a minute: a certificate does not become right by trying.
            office.show("box", &office.authority.vouch(BOX)?)?;
            source.await_delivery()?;
            arrive(&office.console, &source.stop()?)
        })
    });
}

#[test]
fn a_broker_whose_certificate_has_expired_gets_everything_with_the_next_one() {
    play(|folder| {
        let authority = Authority::new(folder, "ours")?;
        let (of_broker, of_box) = (expired(&authority, HOST)?, authority.vouch(BOX)?);
        let mut office = Office::open(folder, authority, &of_broker, &of_box)?;
        let mut source = AlertSource::start(&office.village)?;
        waits(&mut source, "the broker's certificate expired on")?;
        office.show("broker", &office.authority.vouch(HOST)?)?;
        office.broker.reload()?;
        source.await_delivery()?;
        arrive(&office.console, &source.stop()?)
    });
}
