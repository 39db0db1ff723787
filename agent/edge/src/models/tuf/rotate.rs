//! A maintainer replaces a key: before its time, or because it was stolen or lost.
//!
//! The next root is signed by the keys of the one before and by its own, so that boxes follow it from whichever root they
//! know, however many came meanwhile. What the role has signed is signed anew.

use std::path::{Path, PathBuf};

use tough::schema::RoleType;

use super::TufError;
use super::editor::{Editor, Expiry, in_days, sign, write};
use super::keys::{KeyFolders, KeyId, SigningKey, make_key};
use crate::secret::Secret;

/// Whose key is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum KeyRole {
    /// Says which keys count.
    Root,
    /// Says what boxes are offered.
    Targets,
    /// Says which files belong together.
    Snapshot,
    /// Says that there is nothing newer.
    Timestamp,
}

/// A key that goes, and one that comes.
#[derive(Clone, Debug)]
pub struct Rotation {
    /// Whose.
    pub role: KeyRole,
    /// The file of the key that goes, or the beginning of its id; the only one of the role if it is not said.
    pub old: Option<String>,
    /// The file of the key that comes; made where it is not there.
    pub new: PathBuf,
    /// What locks it, if it is made and anything does.
    pub passphrase: Option<Secret>,
    /// For how long the new root holds.
    pub root_days: u32,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Rotated {
    /// The id of the key that went.
    pub old: String,
    /// The id of the key that came.
    pub new: String,
    /// The version of the new root.
    pub version: u64,
}

impl Editor {
    /// Replaces a key of a role by a new one.
    pub async fn rotate(
        &mut self,
        rotation: &Rotation,
        keys: &KeyFolders,
        expiry: Expiry,
    ) -> Result<Rotated, TufError> {
        let role = rotation.role.of_tuf();
        let mut all = keys.load()?;
        let old = self.find(role, rotation.old.as_deref(), keys, &all)?;
        make_key(&rotation.new, rotation.passphrase.as_ref())?;
        let comes = keys.open(&rotation.new)?;
        let SigningKey { id: new, key, .. } = &comes;
        let (new, key) = (new.clone(), key.clone());
        if self.root.roles[&role].keyids.contains(&new) {
            let file = rotation.new.display();
            return Err(TufError::Metadata(format!("{file} is a key of {role} already: name another file")));
        }
        let mut root = self.root.clone();
        root.version = root.version.saturating_add(1);
        root.expires = in_days(rotation.root_days);
        let holders = root.roles.get_mut(&role).into_iter().flat_map(|keys| &mut keys.keyids);
        holders.filter(|id| **id == old).for_each(|id| *id = new.clone());
        if !root.roles.values().any(|keys| keys.keyids.contains(&old)) {
            root.keys.remove(&old);
        }
        root.keys.insert(new.clone(), key);

        all.push(comes);
        let keys = all;
        let by_old = sign(&self.root, root.clone(), &keys).await?;
        let by_new = sign(&root, root.clone(), &keys).await?;
        let signed = by_new.add_old_signatures(by_old.signed().signatures.clone())?;
        self.root = root;
        let chain = self.file(&signed);
        // Nobody looks for the new targets and the new snapshot before the timestamp names them.
        match rotation.role {
            KeyRole::Root => write(&[chain])?,
            KeyRole::Targets => {
                self.targets.version = self.targets.version.saturating_add(1);
                let [targets, snapshot, timestamp] = self.sign_all(&keys, expiry).await?;
                write(&[targets, snapshot, chain, timestamp])?;
            }
            KeyRole::Snapshot | KeyRole::Timestamp => {
                let [snapshot, timestamp] = self.sign_snapshot(None, &keys, expiry).await?;
                write(&[snapshot, chain, timestamp])?;
            }
        }
        Ok(Rotated { old: hex::encode(old), new: hex::encode(&new), version: self.root.version.get() })
    }

    /// The key of a role that is meant.
    fn find(
        &self,
        role: RoleType,
        named: Option<&str>,
        keys: &KeyFolders,
        all: &[SigningKey],
    ) -> Result<KeyId, TufError> {
        let ids = &self.root.roles[&role].keyids;
        let found: Vec<&KeyId> = match named {
            None => ids.iter().collect(),
            Some(file) if Path::new(file).is_file() => {
                let id = keys.open(file.as_ref())?.id;
                ids.iter().filter(|known| **known == id).collect()
            }
            Some(start) => {
                ids.iter().filter(|id| !start.is_empty() && hex::encode(id).starts_with(start)).collect()
            }
        };
        if let [id] = found[..] {
            return Ok(id.clone());
        }
        let mut known = Vec::new();
        for id in ids {
            let file = all.iter().find(|key| key.id == *id).map(|key| key.file.display().to_string());
            let file = file.unwrap_or_else(|| "not in the folders that were named".to_owned());
            known.push(format!("{} ({file})", hex::encode(id)));
        }
        let named = named.map_or("it has to be said which key goes".to_owned(), |named| {
            format!("{named:?} is none of its keys, or more than one")
        });
        Err(TufError::Metadata(format!("{role}: {named}; its keys: {}", known.join(", "))))
    }
}

impl KeyRole {
    fn of_tuf(self) -> RoleType {
        match self {
            Self::Root => RoleType::Root,
            Self::Targets => RoleType::Targets,
            Self::Snapshot => RoleType::Snapshot,
            Self::Timestamp => RoleType::Timestamp,
        }
    }
}
