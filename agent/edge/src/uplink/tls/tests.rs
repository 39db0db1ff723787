use std::fs;

use rustls::{ClientConnection, ServerConfig, ServerConnection};

use super::*;
use crate::uplink::harness::Certificates;

const DAY: jiff::SignedDuration = jiff::SignedDuration::from_hours(24);

#[derive(Debug)]
struct At(Timestamp);

impl TimeProvider for At {
    fn current_time(&self) -> Option<UnixTime> {
        unix_time(self.0)
    }
}

fn server(certificates: &Certificates) -> Arc<ServerConfig> {
    let file = |name: &str| certificates.folder.path().join(name);
    let chain = super::certificates(&file("server.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(file("server.key")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    Arc::new(builder.with_no_client_auth().with_single_cert(chain, key).unwrap())
}

/// What the client makes of a server, when it is `time` for the client.
fn handshake(certificates: &Certificates, time: Timestamp) -> Result<(), rustls::Error> {
    let options = TlsOptions { ca: certificates.folder.path().join("ca.pem"), client: None };
    let config = config_at(&options, Arc::new(At(time))).unwrap();
    let mut client = ClientConnection::new(config, "localhost".try_into().unwrap()).unwrap();
    let mut server = ServerConnection::new(server(certificates)).unwrap();
    while client.is_handshaking() || server.is_handshaking() {
        let mut wire = Vec::new();
        client.write_tls(&mut wire).unwrap();
        server.read_tls(&mut wire.as_slice()).unwrap();
        server.process_new_packets().unwrap();
        wire.clear();
        server.write_tls(&mut wire).unwrap();
        let mut rest = wire.as_slice();
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets()?;
        }
    }
    Ok(())
}

#[test]
fn a_certificate_is_judged_by_the_time_that_is_given_and_the_reason_names_it() {
    let certificates = Certificates::make(); // valid from now on for two days
    let now = Timestamp::now();
    let date = |time: Timestamp| time.to_zoned(TimeZone::UTC).date();
    let clock = || "this box's clock says so".to_owned();
    for (time, says) in [
        (now + jiff::SignedDuration::from_mins(1), None),
        (now + DAY, None),
        (Timestamp::UNIX_EPOCH, Some(format!("is not valid before {}", date(now)))),
        (now - DAY, Some(format!("is not valid before {}", date(now)))),
        (now + DAY * 3, Some(format!("expired on {}", date(now + DAY * 2)))),
        (now + DAY * 9_999, Some(format!("expired on {}", date(now + DAY * 2)))),
    ] {
        let reason = handshake(&certificates, time).err().map(|error| {
            let error = io::Error::new(io::ErrorKind::InvalidData, error);
            assert_eq!(refusal(&error), None);
            explain(&error, clock).unwrap()
        });
        match (reason, says) {
            (None, None) => {}
            (Some(reason), Some(says)) => {
                assert_eq!(reason, format!("the broker's certificate {says}; this box's clock says so"));
            }
            (reason, says) => panic!("at {time}: {reason:?} instead of {says:?}"),
        }
    }
}

/// What the box did at its last start, and what it does now, with its clock in 1970.
#[test]
fn a_box_in_1970_reaches_its_broker_by_the_time_that_it_wrote_down() {
    let certificates = Certificates::make();
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("clock"), format!("{:.0}\n", Timestamp::now() + DAY)).unwrap();
    let clock = Clock::start(folder.path());
    // This machine's clock is earlier than what was written down, as 1970 would be.
    let time = clock.certificate_time();
    assert!(time > Timestamp::now() + DAY / 2);
    handshake(&certificates, time).unwrap();
    let reason = clock.describe();
    assert!(reason.contains("is not synchronised") && reason.contains("the newest date known"), "{reason}");
}

#[test]
fn what_the_broker_has_against_the_box_is_a_refusal() {
    use AlertDescription as Alert;
    for (alert, says) in [
        (Alert::CertificateExpired, Some("expired")),
        (Alert::CertificateRevoked, Some("revoked")),
        (Alert::UnknownCA, Some("authority")),
        (Alert::CertificateRequired, Some("none")),
        (Alert::BadCertificate, Some("BadCertificate")),
        (Alert::InternalError, None),
    ] {
        let error = io::Error::new(io::ErrorKind::InvalidData, rustls::Error::AlertReceived(alert));
        assert_eq!(explain(&error, String::new), None, "it is the broker that says so");
        match (refusal(&error), says) {
            (Some(reason), Some(says)) => assert!(reason.contains(says), "{reason}"),
            (None, None) => {}
            (other, _) => panic!("{alert:?}: {other:?}"),
        }
    }
    let reset = io::ErrorKind::ConnectionReset.into();
    assert_eq!((explain(&reset, String::new), refusal(&reset)), (None, None));
}
