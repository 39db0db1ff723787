//! TLS as the broker's files in `config/` expect it: its own authority, and a certificate of the box where it has one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

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
pub(super) fn config(options: &TlsOptions) -> Result<Arc<ClientConfig>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&options.ca)? {
        let unusable = |source| TlsError::Unusable { file: options.ca.clone(), source };
        roots.add(certificate).map_err(unusable)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
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
