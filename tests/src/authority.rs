//! Somebody who signs certificates, chooses how long they are good for, and revokes them.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer, KeyIdMethod,
    KeyPair, RevokedCertParams, SerialNumber, date_time_ymd,
};

/// Signs what it is asked to. Its own certificate, and all that it makes, are PEM files in one folder.
pub struct Authority {
    folder: PathBuf,
    name: String,
    file: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    last_serial: AtomicU64,
}

/// A certificate with its key, as PEM files.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    serial: u64,
}

impl Authority {
    /// One that nobody trusts yet. Two authorities in one folder need different names.
    pub fn new(folder: &Path, name: &str) -> Result<Self> {
        let key = KeyPair::generate()?;
        let mut about = CertificateParams::new(Vec::<String>::new())?;
        about.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        about.distinguished_name.push(DnType::CommonName, name);
        let file = folder.join(format!("{name}.pem"));
        std::fs::write(&file, about.self_signed(&key)?.pem())?;
        let issuer = Issuer::new(about, key);
        Ok(Self { folder: folder.to_owned(), name: name.to_owned(), file, issuer, last_serial: 0.into() })
    }

    /// Its own certificate: what those who trust it need.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// A certificate that is good for longer than any test runs, for a client of that common name or for a broker at
    /// that host name or address.
    pub fn vouch(&self, name: &str) -> Result<Credentials> {
        self.vouch_between(name, Timestamp::UNIX_EPOCH, "2200-01-01T00:00:00Z".parse()?)
    }

    /// The same for a time that somebody else chooses. `from` is not before 1970.
    pub fn vouch_between(&self, name: &str, from: Timestamp, until: Timestamp) -> Result<Credentials> {
        let serial = self.last_serial.fetch_add(1, Ordering::Relaxed) + 1;
        // A place in the tree has slashes, and is the name of no host.
        let hosts = if name.contains('/') { vec![] } else { vec![name.to_owned()] };
        let mut about = CertificateParams::new(hosts)?;
        about.distinguished_name.push(DnType::CommonName, name);
        about.serial_number = Some(SerialNumber::from(serial));
        about.use_authority_key_identifier_extension = true;
        let moment = |time: Timestamp| {
            let since_1970 = u64::try_from(time.as_second()).context("a certificate from before 1970")?;
            anyhow::Ok(date_time_ymd(1970, 1, 1) + Duration::from_secs(since_1970))
        };
        (about.not_before, about.not_after) = (moment(from)?, moment(until)?);
        let file = |kind: &str| {
            let name = name.replace('/', ".");
            self.folder.join(format!("{name}-{serial}-by-{}.{kind}.pem", self.name))
        };
        let made = Credentials { certificate: file("certificate"), key: file("key"), serial };
        let key = KeyPair::generate()?;
        let signed = about.signed_by(&key, &self.issuer).context("signing")?;
        std::fs::write(&made.certificate, signed.pem())?;
        std::fs::write(&made.key, key.serialize_pem())?;
        Ok(made)
    }

    /// Writes a revocation list that names these certificates and no others.
    pub fn revoke(&self, revoked: &[&Credentials]) -> Result<PathBuf> {
        let revoked_certs = revoked.iter().map(|credentials| RevokedCertParams {
            serial_number: SerialNumber::from(credentials.serial),
            revocation_time: date_time_ymd(1970, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(1970, 1, 1),
            next_update: date_time_ymd(2200, 1, 1),
            crl_number: SerialNumber::from(self.last_serial.fetch_add(1, Ordering::Relaxed) + 1),
            issuing_distribution_point: None,
            revoked_certs: revoked_certs.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let file = self.folder.join(format!("{}.crl.pem", self.name));
        std::fs::write(&file, list.signed_by(&self.issuer).context("signing a revocation list")?.pem()?)?;
        Ok(file)
    }
}
