//! What is in a folder: folders, files, their bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The contents of a folder, without `-shm` files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tree {
    /// Below the folder.
    pub folders: BTreeSet<PathBuf>,
    /// Below the folder.
    pub files: BTreeMap<PathBuf, Vec<u8>>,
}

impl Tree {
    /// What is there now.
    pub fn read(folder: &Path) -> Result<Self> {
        let mut tree = Self::default();
        tree.add(folder, Path::new("")).with_context(|| format!("reading {}", folder.display()))?;
        Ok(tree)
    }

    fn add(&mut self, root: &Path, below: &Path) -> Result<()> {
        for entry in fs::read_dir(root.join(below))? {
            let entry = entry?;
            let path = below.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                self.add(root, &path)?;
                self.folders.insert(path);
            } else if !path.as_os_str().to_string_lossy().ends_with("-shm") {
                self.files.insert(path, fs::read(entry.path())?);
            }
        }
        Ok(())
    }

    /// Makes a folder that holds exactly this; what was in it before is gone.
    pub fn write(&self, folder: &Path) -> Result<()> {
        if folder.exists() {
            fs::remove_dir_all(folder)?;
        }
        fs::create_dir_all(folder)?;
        for path in &self.folders {
            fs::create_dir_all(folder.join(path))?;
        }
        for (path, bytes) in &self.files {
            fs::write(folder.join(path), bytes)?;
        }
        Ok(())
    }

    /// The first difference, in words.
    pub fn difference(&self, other: &Self) -> Option<String> {
        let folder = self.folders.symmetric_difference(&other.folders).next();
        if let Some(folder) = folder {
            return Some(format!("folder {} is only in one", folder.display()));
        }
        for path in self.files.keys().chain(other.files.keys()) {
            let (Some(ours), Some(theirs)) = (self.files.get(path), other.files.get(path)) else {
                return Some(format!("file {} is only in one", path.display()));
            };
            if ours != theirs {
                let at = ours.iter().zip(theirs).take_while(|(one, other)| one == other).count();
                let (one, other) = (ours.len(), theirs.len());
                return Some(format!(
                    "{} differs from byte {at} on ({one} and {other} bytes)",
                    path.display()
                ));
            }
        }
        None
    }
}
