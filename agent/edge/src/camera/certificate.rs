//! Whether a camera at the other end of TLS is the one that is meant.
//!
//! The system's authorities vouch for hosts by name, as on the web, and GLib asks them. Cameras sign their certificates
//! themselves, in the name of their maker, and are found by their address: for such a one a file vouches, for whatever name.

use std::path::{Path, PathBuf};

use gio::prelude::*;
use gstreamer as gst;
use tokio::sync::mpsc;

use super::CameraError;

/// What a server's certificate is good for (RFC 5280, 4.2.1.12).
const OF_A_SERVER: &str = "1.3.6.1.5.5.7.3.1";

/// Lets a certificate pass that the system's authorities do not vouch for, where the file does. Who trusted the file together
/// with them would have to do without the name for theirs, too: `rtspsrc` has one set of flags for both.
pub(super) fn vouch_by(ca: Option<PathBuf>, source: &gst::Element, failed: mpsc::Sender<CameraError>) {
    source.connect("accept-certificate", false, move |arguments| {
        let certificate = arguments.get(2).and_then(|value| value.get::<gio::TlsCertificate>().ok());
        let judged = match (&ca, certificate) {
            (Some(ca), Some(certificate)) => judge(ca, &certificate),
            _ => Err(
                "no authority of this system vouches for it and its host; the key ca can name its own authority, or the certificate itself"
                    .to_owned(),
            ),
        };
        let is_good = judged.is_ok();
        if let Err(why) = judged {
            let _ = failed.try_send(CameraError::Certificate(why)); // full: an earlier error ends the connection already
        }
        Some(is_good.to_value())
    });
}

/// Read anew each time, as passwords are.
fn judge(ca: &Path, certificate: &gio::TlsCertificate) -> Result<(), String> {
    let at = |error: gio::glib::Error| format!("its ca {}: {error}", ca.display());
    let absolute = std::path::absolute(ca).unwrap_or_else(|_| ca.to_owned()); // GLib takes no other
    let found = gio::TlsFileDatabase::new(absolute).map_err(at)?.verify_chain(
        certificate,
        OF_A_SERVER,
        gio::SocketConnectable::NONE,
        gio::TlsInteraction::NONE,
        gio::TlsDatabaseVerifyFlags::NONE,
        gio::Cancellable::NONE,
    );
    let doubts = found.map_err(at)?;
    if doubts.is_empty() {
        return Ok(());
    }
    let doubts: Vec<_> = doubts.iter_names().map(|(name, _)| name.to_lowercase().replace('_', " ")).collect();
    Err(format!("its ca {} does not vouch for it: {}", ca.display(), doubts.join(", ")))
}
