//! Keys of a maintainer: Ed25519 as PKCS#8, a file each, open as DER or locked with a passphrase as openssl locks them too
//! (PEM, "ENCRYPTED PRIVATE KEY": scrypt and AES-256, RFC 8018 and 7914).

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::Ed25519KeyPair;
use pkcs8::der::pem::{LineEnding, PemLabel};
use pkcs8::{EncryptedPrivateKeyInfoRef, PrivateKeyInfoRef, SecretDocument};
use tough::key_source::KeySource;
use tough::schema::decoded::{Decoded, Hex};
use tough::schema::key::Key;
use tough::sign::{Sign, parse_keypair};

use super::{TufError, at};
use crate::secret::Secret;

/// What a key is called: the hash of its public half.
pub(super) type KeyId = Decoded<Hex>;

/// Asks somebody for the passphrase of a file; `None` where nobody is there.
pub type Ask = fn(&Path) -> Option<Secret>;

/// Times that somebody is asked for the passphrase of one key.
const ATTEMPTS: usize = 3;

/// Where keys lie, and what opens those that are locked.
#[derive(Debug)]
pub struct KeyFolders {
    folders: Vec<PathBuf>,
    passphrases: Mutex<Vec<Secret>>,
    ask: Option<Ask>,
}

impl KeyFolders {
    /// Folders with keys, which may lie on several sticks.
    pub fn new(folders: impl IntoIterator<Item = PathBuf>) -> Self {
        Self { folders: folders.into_iter().collect(), passphrases: Mutex::default(), ask: None }
    }

    /// The same with passphrases that are tried, and somebody to ask where none of them opens a key.
    pub fn locked(self, passphrases: Vec<Secret>, ask: Option<Ask>) -> Self {
        Self { passphrases: passphrases.into(), ask, ..self }
    }

    /// All keys in all folders, by their files' names.
    pub(super) fn load(&self) -> Result<Vec<SigningKey>, TufError> {
        let mut files = Vec::new();
        for folder in &self.folders {
            for entry in fs::read_dir(folder).map_err(at(folder))? {
                let path = entry.map_err(at(folder))?.path();
                if path.extension().is_some_and(|extension| extension == "key") {
                    files.push(path);
                }
            }
        }
        files.sort();
        files.iter().map(|file| self.open(file)).collect()
    }

    /// One key.
    pub(super) fn open(&self, file: &Path) -> Result<SigningKey, TufError> {
        let bytes = fs::read(file).map_err(at(file))?;
        let pem = std::str::from_utf8(&bytes).ok().and_then(|text| SecretDocument::from_pem(text).ok());
        let bytes = match pem {
            Some((EncryptedPrivateKeyInfoRef::PEM_LABEL, locked)) => {
                self.unlock(file, &locked)?.as_bytes().to_vec()
            }
            _ => bytes,
        };
        let wrong = |error: &dyn fmt::Display| TufError::Metadata(format!("{}: {error}", file.display()));
        let key = parse_keypair(&bytes).map_err(|error| wrong(&error))?.tuf_key();
        let id = key.key_id().map_err(|error| wrong(&error))?;
        Ok(SigningKey { file: file.to_owned(), id, key, bytes })
    }

    fn unlock(&self, file: &Path, locked: &SecretDocument) -> Result<SecretDocument, TufError> {
        let wrong = |why: String| TufError::Metadata(format!("{}: {why}", file.display()));
        let key = EncryptedPrivateKeyInfoRef::try_from(locked.as_bytes())
            .map_err(|error| wrong(format!("it is locked in a way that is not known: {error}")))?;
        let mut passphrases = self.passphrases.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = passphrases.iter().find_map(|known| key.decrypt(known.expose()).ok()) {
            return Ok(open);
        }
        for _ in 0..ATTEMPTS {
            let Some(passphrase) = self.ask.and_then(|ask| ask(file)) else { break };
            if let Ok(open) = key.decrypt(passphrase.expose()) {
                passphrases.push(passphrase); // the next key may have the same
                return Ok(open);
            }
        }
        Err(wrong(format!(
            "it is locked, and none of the {} passphrases that are known opens it: name a file that holds it with --passphrase-file",
            passphrases.len()
        )))
    }
}

/// A key that can sign.
pub(super) struct SigningKey {
    pub(super) file: PathBuf,
    pub(super) id: KeyId,
    pub(super) key: Key,
    bytes: Vec<u8>,
}

impl SigningKey {
    /// The same as what `tough` asks for a signature.
    pub(super) fn source(&self) -> Box<dyn KeySource> {
        Box::new(InMemory(self.bytes.clone()))
    }
}

/// Shows no key.
impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("file", &self.file).finish_non_exhaustive()
    }
}

struct InMemory(Vec<u8>);

impl fmt::Debug for InMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InMemory(..)")
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync + 'static>;

#[tough::async_trait]
impl KeySource for InMemory {
    async fn as_sign(&self) -> Result<Box<dyn Sign>, Failure> {
        Ok(Box::new(parse_keypair(&self.0)?))
    }

    async fn write(&self, _value: &str, _key_id_hex: &str) -> Result<(), Failure> {
        Err("a key is written when it is made, and never again".into())
    }
}

/// Makes an Ed25519 key that only its owner can read, locked where there is a passphrase. One that is there already, made by
/// openssl say, is taken as it is.
pub(super) fn make_key(file: &Path, passphrase: Option<&Secret>) -> Result<(), TufError> {
    if file.exists() {
        return Ok(());
    }
    let wrong = |error: &dyn fmt::Display| TufError::Metadata(format!("{}: {error}", file.display()));
    let key = Ed25519KeyPair::generate_pkcs8v1(&SystemRandom::new()) // openssl reads no v2
        .map_err(|_| wrong(&"this machine makes no random keys"))?;
    let bytes = match passphrase {
        None => key.as_ref().to_vec(),
        Some(passphrase) => {
            let open = PrivateKeyInfoRef::try_from(key.as_ref()).map_err(|error| wrong(&error))?;
            let locked = open.encrypt(passphrase.expose()).map_err(|error| wrong(&error))?;
            let pem = locked.to_pem(EncryptedPrivateKeyInfoRef::PEM_LABEL, LineEnding::LF);
            pem.map_err(|error| wrong(&error))?.as_bytes().to_vec()
        }
    };
    let writer = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
    // Metadata name it from now on.
    writer.and_then(|mut writer| writer.write_all(&bytes).and_then(|()| writer.sync_all())).map_err(at(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opens(folder: &Path, passphrases: &[&str], ask: Option<Ask>) -> Result<Vec<KeyId>, String> {
        let passphrases = passphrases.iter().map(|text| Secret::new(*text)).collect();
        let keys = KeyFolders::new([folder.to_owned()]).locked(passphrases, ask).load();
        keys.map(|keys| keys.into_iter().map(|key| key.id).collect()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_locked_key_is_opened_by_its_passphrase_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("root.key");
        make_key(&file, Some(&Secret::new("three scarecrows"))).unwrap();
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----\n"), "{text}");
        let known = opens(folder.path(), &["wrong", "three scarecrows"], None).unwrap();
        assert_eq!(known.len(), 1);
        for passphrases in [&[][..], &["wrong"], &["three scarecrow"]] {
            let error = opens(folder.path(), passphrases, None).unwrap_err();
            assert!(
                error.contains("root.key: it is locked") && error.contains("--passphrase-file"),
                "{error}"
            );
            assert!(passphrases.iter().all(|passphrase| !error.contains(passphrase)), "{error}");
        }
        let asked = opens(folder.path(), &["wrong"], Some(|_| Some(Secret::new("three scarecrows"))));
        assert_eq!(asked.unwrap(), known);
        assert!(opens(folder.path(), &[], Some(|_| None)).is_err());
        make_key(&file, Some(&Secret::new("another"))).unwrap();
        assert_eq!(opens(folder.path(), &["three scarecrows"], None).unwrap(), known, "it is taken as it is");
    }

    #[test]
    fn open_and_locked_keys_lie_side_by_side() {
        let folder = tempfile::tempdir().unwrap();
        make_key(&folder.path().join("a.key"), None).unwrap();
        make_key(&folder.path().join("b.key"), Some(&Secret::new("one"))).unwrap();
        make_key(&folder.path().join("c.key"), Some(&Secret::new("two"))).unwrap();
        assert_eq!(opens(folder.path(), &["one", "two"], None).unwrap().len(), 3);
        assert!(opens(folder.path(), &["one"], None).unwrap_err().contains("c.key"));
    }
}
