//! What a client has to do with what a repository and its mirrors serve: the cases of theupdateframework's tuf-conformance,
//! written from the specification, against the client of a box as it is.

mod attacks;
mod keys;
mod metadata;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use super::editor::{sign, write};
use super::*;

const EXPIRY: Expiry = Expiry { targets_days: 30, snapshot_days: 30, timestamp_days: 30 };

/// A maintainer, a mirror, and a box that knows the first root.
struct Story {
    place: TempDir,
    keys: KeyFolders,
    editor: Editor,
}

impl Story {
    async fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        let (folder, keys) = (place.path().join("repository"), place.path().join("keys"));
        let new = NewRepository {
            folder: folder.clone(),
            keys: keys.clone(),
            number: 3,
            threshold: 2,
            passphrase: None,
            ask: None,
            root_days: 30,
            expiry: EXPIRY,
        };
        fs::copy(new.make().await.unwrap(), place.path().join("shipped.json")).unwrap();
        Self { place, keys: KeyFolders::new([keys]), editor: Editor::open(&folder).await.unwrap() }
    }

    fn repository(&self) -> PathBuf {
        self.place.path().join("repository")
    }

    fn metadata(&self, name: &str) -> PathBuf {
        self.repository().join("metadata").join(name)
    }

    /// The box asks, by what it has come to trust.
    async fn ask(&self) -> Result<Repository, TufError> {
        self.ask_at(&self.repository().to_string_lossy()).await
    }

    async fn ask_at(&self, address: &str) -> Result<Repository, TufError> {
        let trust = Trust {
            root: self.place.path().join("shipped.json"),
            folder: self.place.path().join("box/trust"),
            now: Timestamp::now(),
            clock: "this box's clock was taken".to_owned(),
        };
        fs::create_dir_all(self.place.path().join("box")).unwrap();
        Repository::open(address, &Web::default(), &trust).await
    }

    /// What the box says, in one line; nothing where it believes the repository.
    async fn says(&self) -> String {
        self.ask().await.err().map(|error| error.to_string()).unwrap_or_default()
    }

    async fn refresh(&mut self) {
        self.editor.refresh(&self.keys, EXPIRY).await.unwrap();
    }

    /// Replaces a key of which there may be several by one that is named after it.
    async fn rotate(&mut self, role: KeyRole, old: &str) {
        self.rotate_for(role, old, 30).await;
    }

    async fn rotate_for(&mut self, role: KeyRole, old: &str, root_days: u32) {
        let keys = self.place.path().join("keys");
        let (old, new) = (keys.join(format!("{old}.key")), keys.join(format!("{old}-next.key")));
        let old = Some(old.to_string_lossy().into_owned());
        let rotation = Rotation { role, old, new, passphrase: None, root_days };
        self.editor.rotate(&rotation, &self.keys, EXPIRY).await.unwrap();
    }

    /// Signs what the maintainer has in mind, whatever sense that makes.
    async fn publish_as_it_is(&self) {
        let keys = self.keys.load().unwrap();
        let Editor { root, targets, snapshot, timestamp, .. } = &self.editor;
        let targets = self.editor.file(&sign(root, targets.clone(), &keys).await.unwrap());
        let snapshot = self.editor.file(&sign(root, snapshot.clone(), &keys).await.unwrap());
        let timestamp = self.editor.file(&sign(root, timestamp.clone(), &keys).await.unwrap());
        write(&[targets, snapshot, timestamp]).unwrap();
    }

    /// The version of a role that the box trusts.
    fn trusted(&self, role: &str) -> u64 {
        let folder = fs::read_dir(self.place.path().join("box/trust")).unwrap().next().unwrap().unwrap();
        json(&folder.path().join(format!("{role}.json")))["signed"]["version"].as_u64().unwrap()
    }
}

fn json(file: &Path) -> Value {
    serde_json::from_slice(&fs::read(file).unwrap()).unwrap()
}

fn edit(file: &Path, edit: impl FnOnce(&mut Value)) {
    let mut value = json(file);
    edit(&mut value);
    fs::write(file, serde_json::to_vec(&value).unwrap()).unwrap();
}

/// The text has all of these words, or is empty where there are none.
fn check(text: &str, words: &[&str], case: &str) {
    let lower = text.to_lowercase();
    assert!(
        words.iter().all(|word| lower.contains(&word.to_lowercase())),
        "{case}: {text:?} has not {words:?}"
    );
    assert_eq!(text.is_empty(), words.is_empty(), "{case}: {text:?}");
}
