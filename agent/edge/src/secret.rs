//! Passwords: read from files, never printed.

use std::fmt;
use std::path::{Path, PathBuf};

/// A text that neither `Debug` nor `Display` shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// A file that should hold a secret does not.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum SecretError {
    #[error("cannot read the password file {}: {source}", path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("the password file {} is empty", path.display())]
    Empty { path: PathBuf },
}

impl Secret {
    /// Takes the text as it is.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Reads a file that holds the secret and nothing else. One line end at its end is not part of it.
    pub fn read(path: &Path) -> Result<Self, SecretError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| SecretError::Unreadable { path: path.to_owned(), source })?;
        let text = text.strip_suffix('\n').unwrap_or(&text);
        let text = text.strip_suffix('\r').unwrap_or(text);
        if text.is_empty() {
            return Err(SecretError::Empty { path: path.to_owned() });
        }
        Ok(Self(text.to_owned()))
    }

    /// The text itself, for the one call that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_read_without_its_line_end_and_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        std::fs::write(&file, "tiger\r\n").unwrap();
        let secret = Secret::read(&file).unwrap();
        assert_eq!(secret.expose(), "tiger");
        assert!(!format!("{secret:?}").contains("tiger"));
        std::fs::write(&file, "\n").unwrap();
        assert!(matches!(Secret::read(&file), Err(SecretError::Empty { .. })));
    }
}
