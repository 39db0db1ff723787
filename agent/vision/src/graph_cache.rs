//! What ONNX Runtime makes of a model's graph, kept on disk.
//!
//! A file is named by the digests of the model and of itself: one that the disk changed is made anew. Who may write to the
//! folder may have the agent run any graph, as who may write to its models.

use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// Models whose graphs are kept: the active one, the one before, one that is tried, and one to spare.
const KEPT: usize = 4;

/// Where the optimised graph of one model lies.
pub(crate) struct Cached {
    folder: PathBuf,
    /// Of the model's bytes and the library that optimises them.
    key: String,
}

impl Cached {
    pub(crate) fn of(folder: &Path, model: &[u8], library: &str) -> Self {
        let key = Sha256::new().chain_update(model).chain_update(library).finalize();
        Self { folder: folder.to_owned(), key: hex::encode(key) }
    }

    /// The optimised graph, if it is there and whole.
    pub(crate) fn read(&self) -> Option<Vec<u8>> {
        let file = self.files().into_iter().find(|file| self.is_ours(file))?;
        let bytes = fs::read(&file).ok()?;
        if self.path(&bytes) == file {
            return Some(bytes);
        }
        let _ = fs::remove_file(file); // damaged: what cannot be removed is found damaged again
        None
    }

    /// Lets `optimise` write the graph to the file that it is given, and keeps that. `None` where that fails.
    pub(crate) fn make(&self, optimise: impl FnOnce(&Path) -> bool) -> Option<Vec<u8>> {
        fs::create_dir_all(&self.folder).ok()?;
        let unfinished = self.folder.join(format!("{}.unfinished-{}", self.key, std::process::id()));
        let made = optimise(&unfinished).then(|| fs::read(&unfinished).ok()).flatten();
        let kept = made.as_ref().is_some_and(|bytes| fs::rename(&unfinished, self.path(bytes)).is_ok());
        if !kept {
            let _ = fs::remove_file(&unfinished); // there may be none
        }
        let mut files = self.files();
        files.sort_by_key(|file| fs::metadata(file).and_then(|about| about.modified()).ok());
        for old in files.iter().rev().skip(KEPT) {
            let _ = fs::remove_file(old); // next time
        }
        made
    }

    /// Forgets the graph: it is whole and cannot be loaded.
    pub(crate) fn remove(&self) {
        for file in self.files().into_iter().filter(|file| self.is_ours(file)) {
            let _ = fs::remove_file(file); // next time
        }
    }

    fn path(&self, bytes: &[u8]) -> PathBuf {
        self.folder.join(format!("{}-{}.onnx", self.key, &hex::encode(Sha256::digest(bytes))[..16]))
    }

    fn files(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten();
        let files = entries.filter_map(|entry| Some(entry.ok()?.path()));
        files.filter(|file| file.extension().is_some_and(|extension| extension == "onnx")).collect()
    }

    fn is_ours(&self, file: &Path) -> bool {
        file.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&self.key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_found_again_unless_the_disk_changed_it_or_the_model_is_another() {
        let folder = tempfile::tempdir().unwrap();
        let cached = |model: &[u8], library| Cached::of(&folder.path().join("graphs"), model, library);
        let model = cached(b"model", "1.32.0");
        assert_eq!(model.read(), None);
        let written = |bytes: &'static [u8]| move |file: &Path| fs::write(file, bytes).is_ok();
        assert_eq!(model.make(written(b"graph")).unwrap(), b"graph");
        assert_eq!(model.read().unwrap(), b"graph");
        assert_eq!(cached(b"other", "1.32.0").read(), None);
        assert_eq!(cached(b"model", "1.33.0").read(), None, "another library optimises otherwise");
        let file = &model.files()[0];
        fs::write(file, b"gra\0h").unwrap();
        assert_eq!(model.read(), None);
        assert!(!file.exists());
        assert_eq!(model.make(|_| false), None, "the graph cannot be written");
        for number in 0..2 * KEPT as u8 {
            cached(&[number], "1.32.0").make(written(b"graph")).unwrap();
        }
        assert_eq!(model.files().len(), KEPT);
    }
}
