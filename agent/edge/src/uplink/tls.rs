//! TLS as the broker's files in `config/` expect it: its own authority, and a certificate of the box where it has one.
//!
//! Certificates are judged by [`Clock::certificate_time`], so that a box whose clock is in 1970 reaches its broker before
//! the time service has set it, and without one.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{AlertDescription, CertificateError, ClientConfig, RootCertStore};

use crate::clock::Clock;

/// Files in PEM. They are read before each connection, so that a renewed certificate needs no restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsOptions {
    /// The authorities that the broker's certificate is checked against; no others are trusted.
    pub ca: PathBuf,
    /// The box's own certificate with its chain, and its key.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// A file does not hold what it should.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub(super) enum TlsError {
    #[error("{}: {source}", file.display())]
    Pem { file: PathBuf, source: rustls::pki_types::pem::Error },
    #[error("{} holds no certificate", .0.display())]
    NoCertificate(PathBuf),
    #[error("{}: {source}", file.display())]
    Unusable { file: PathBuf, source: rustls::Error },
}

/// Reads the files.
pub(super) fn config(options: &TlsOptions, clock: &Arc<Clock>) -> Result<Arc<ClientConfig>, TlsError> {
    config_at(options, Arc::new(CertificateTime(clock.clone())))
}

/// For a web server that is judged by these authorities, and by the time that certificates are judged by.
pub(crate) fn web_tls(ca: &Path, clock: &Arc<Clock>) -> Result<Arc<ClientConfig>, String> {
    let options = TlsOptions { ca: ca.to_owned(), client: None };
    config(&options, clock).map_err(|error| error.to_string())
}

/// What rustls asks for the time.
#[derive(Debug)]
struct CertificateTime(Arc<Clock>);

impl TimeProvider for CertificateTime {
    fn current_time(&self) -> Option<UnixTime> {
        unix_time(self.0.certificate_time())
    }
}

fn unix_time(time: Timestamp) -> Option<UnixTime> {
    let seconds = u64::try_from(time.as_second()).ok()?;
    Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
}

fn config_at(options: &TlsOptions, time: Arc<dyn TimeProvider>) -> Result<Arc<ClientConfig>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&options.ca)? {
        let unusable = |source| TlsError::Unusable { file: options.ca.clone(), source };
        roots.add(certificate).map_err(unusable)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_details(provider, time)
        .with_safe_default_protocol_versions()
        .map_err(|source| TlsError::Unusable { file: options.ca.clone(), source })?
        .with_root_certificates(roots);
    let config = match &options.client {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let private = PrivateKeyDer::from_pem_file(key)
                .map_err(|source| TlsError::Pem { file: key.clone(), source })?;
            let unusable = |source| TlsError::Unusable { file: certificate.clone(), source };
            builder.with_client_auth_cert(certificates(certificate)?, private).map_err(unusable)?
        }
    };
    Ok(Arc::new(config))
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = |source| TlsError::Pem { file: file.to_owned(), source };
    let found =
        CertificateDer::pem_file_iter(file).map_err(pem)?.collect::<Result<Vec<_>, _>>().map_err(pem)?;
    if found.is_empty() {
        return Err(TlsError::NoCertificate(file.to_owned()));
    }
    Ok(found)
}

/// What an operator can make of a connection that this box ended over certificates; `None` where it was something else. `clock`
/// says what the box's clock says.
pub(super) fn explain(error: &io::Error, clock: impl FnOnce() -> String) -> Option<String> {
    Some(match of_tls(error)? {
        rustls::Error::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. }) => {
            format!("the broker's certificate is not valid before {}; {}", date(*not_before), clock())
        }
        rustls::Error::InvalidCertificate(CertificateError::NotValidYet) => {
            format!("the broker's certificate is not valid yet; {}", clock())
        }
        rustls::Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. }) => {
            format!("the broker's certificate expired on {}; {}", date(*not_after), clock())
        }
        rustls::Error::InvalidCertificate(CertificateError::Expired) => {
            format!("the broker's certificate has expired; {}", clock())
        }
        rustls::Error::AlertReceived(_) => return None,
        error => format!("TLS: {error}"),
    })
}

/// What the broker has against this box's certificate, where it ended a connection over it.
pub(super) fn refusal(error: &io::Error) -> Option<String> {
    use AlertDescription as Alert;
    let rustls::Error::AlertReceived(alert) = of_tls(error)? else { return None };
    let why = match alert {
        Alert::CertificateExpired => "it has expired, or one of both clocks is wrong",
        Alert::CertificateRevoked => "it is revoked",
        Alert::UnknownCA => "it does not know the authority that signed it",
        Alert::CertificateRequired => "there is none",
        Alert::BadCertificate
        | Alert::UnsupportedCertificate
        | Alert::CertificateUnknown
        | Alert::AccessDenied => {
            return Some(format!("the broker refuses this box's certificate ({alert:?})"));
        }
        _ => return None,
    };
    Some(format!("the broker refuses this box's certificate: {why}"))
}

fn of_tls(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

fn date(time: UnixTime) -> String {
    let time = i64::try_from(time.as_secs()).ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
    time.map_or_else(|| "a day without end".into(), |time| time.to_zoned(TimeZone::UTC).date().to_string())
}

#[cfg(test)]
mod tests;
