//! `audit`: who asked this box for what, as JSON lines.

use std::io::{ErrorKind, Write};
use std::path::Path;

use crate::outbox::{AuditError, Outbox};

/// Prints the audit log of a state folder. A reader that has seen enough (`| head`) is no error.
pub fn audit(folder: &Path) -> Result<bool, AuditError> {
    let mut out = std::io::stdout().lock();
    let printed = Outbox::audit(folder, |entry| {
        serde_json::to_writer(&mut out, &entry)?;
        out.write_all(b"\n")
    });
    match printed {
        Err(AuditError::Taken(error)) if error.kind() == ErrorKind::BrokenPipe => Ok(true),
        printed => printed.map(|()| true),
    }
}
