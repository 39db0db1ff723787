//! The Update Framework: who may say what a model is, and what a mirror cannot lie about. The only folder that names
//! `tough` and the cryptography that it brings.
//!
//! - `client`: a box asks a repository, and keeps what it has come to trust;
//! - `editor`: a maintainer makes a repository and signs what is in it; `configure`: how boxes are configured; `rotate`: and
//!   replaces its keys; `keys`: in files, open or locked;
//! - `transport`: files over HTTP, with and without TLS, and from folders.
//!
//! A repository is a folder of plain files, `metadata/` and `targets/`, with consistent snapshots, as the specification
//! (theupdateframework.github.io/specification, 1.0) lays them out. Each bundle and each configuration is a target; what
//! [`Release`] and [`Offer`] say beyond length and hash stands in the target's signed `custom` object.

mod client;
mod configure;
#[cfg(test)]
mod conformance;
mod editor;
mod keys;
mod rotate;
mod transport;

use std::collections::HashMap;
use std::path::Path;

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sharp_eyes_protocol::alert::ModelName;
use tough::schema::Target;
use url::Url;

pub use client::{Fetch, Repository, Trust};
pub use editor::{Editor, Expiry, NewRepository};
pub use keys::{Ask, KeyFolders};
pub use rotate::{KeyRole, Rotated, Rotation};
pub use transport::Web;

use super::release::{Patch, Release, Rollout};
use crate::remote::offer::{Boxes, Offer};

/// The part of a [`Release`] that is the target's custom metadata.
#[derive(Serialize, Deserialize)]
struct Custom {
    model: ModelName,
    release: u64,
    attempt: u32,
    #[serde(default)]
    rollout: Rollout,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    revoked: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    patches: Vec<Patch>,
}

/// The part of an [`Offer`] that is the target's custom metadata.
#[derive(Serialize, Deserialize)]
struct CustomOffer {
    configuration: String,
    number: u64,
    boxes: Boxes,
}

/// What the names of patches end with.
const PATCH: &str = ".patch";

/// What the names of configurations end with.
const CONFIGURATION: &str = ".toml";

/// A target as a release, or why it is none.
fn release(name: &str, target: &Target) -> Result<Release, String> {
    let custom: Custom = described(name, target, ".bundle")?;
    Ok(Release {
        target: name.to_owned(),
        length: target.length,
        sha256: hex::encode(&target.hashes.sha256),
        model: custom.model,
        number: custom.release,
        attempt: custom.attempt,
        rollout: custom.rollout,
        revoked: custom.revoked,
        patches: custom.patches,
    })
}

/// A target as a configuration, or why it is none.
fn offer(name: &str, target: &Target) -> Result<Offer, String> {
    let CustomOffer { configuration, number, boxes } = described(name, target, CONFIGURATION)?;
    Ok(Offer {
        name: configuration,
        number,
        boxes,
        target: name.to_owned(),
        length: target.length,
        sha256: hex::encode(&target.hashes.sha256),
    })
}

/// The custom metadata of a target, whose name has to be a plain one and end like this.
fn described<T: DeserializeOwned>(name: &str, target: &Target, ending: &str) -> Result<T, String> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-+.@".contains(&b);
    if !name.bytes().all(plain) || name.starts_with('.') || !name.ends_with(ending) {
        return Err(format!(
            "target {name:?} is ignored: it has not the name of a bundle or a configuration"
        ));
    }
    let custom: HashMap<&String, &Value> = target.custom.iter().collect();
    let custom = serde_json::to_value(custom).and_then(serde_json::from_value);
    custom.map_err(|error| format!("target {name:?} is ignored: its custom metadata: {error}"))
}

/// What the release says in the target's custom metadata.
fn custom(release: &Release) -> Result<HashMap<String, Value>, TufError> {
    let custom = Custom {
        model: release.model.clone(),
        release: release.number,
        attempt: release.attempt,
        rollout: release.rollout,
        revoked: release.revoked.clone(),
        patches: release.patches.clone(),
    };
    as_object(&custom)
}

/// What an object says, by its keys.
fn as_object(custom: &impl Serialize) -> Result<HashMap<String, Value>, TufError> {
    let value = serde_json::to_value(custom).and_then(serde_json::from_value);
    value.map_err(|error| TufError::Metadata(error.to_string()))
}

/// The addresses of metadata and targets in a repository: `https://`, `http://`, `file://` or an absolute path.
fn addresses(repository: &str) -> Result<(Url, Url), TufError> {
    let wrong = || TufError::Address(repository.to_owned());
    let base = match repository.strip_prefix('/') {
        Some(_) => Url::from_directory_path(repository).map_err(|()| wrong())?,
        None => Url::parse(&format!("{}/", repository.trim_end_matches('/'))).map_err(|_| wrong())?,
    };
    if !["https", "http", "file"].contains(&base.scheme()) {
        return Err(wrong());
    }
    let below = |folder: &str| base.join(folder).map_err(|_| wrong());
    Ok((below("metadata/")?, below("targets/")?))
}

/// Something with its whole chain of causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

impl From<tough::error::Error> for TufError {
    fn from(error: tough::error::Error) -> Self {
        use tough::error::Error::{HashMismatch, MaxSizeExceeded, Transport};
        let causes = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
        // What is wrong with a file's content is found while it comes, and wrapped as if it were the network's fault.
        let is_content = causes
            .filter_map(|cause| cause.downcast_ref())
            .any(|cause: &tough::error::Error| matches!(cause, HashMismatch { .. } | MaxSizeExceeded { .. }));
        match &error {
            Transport { .. } if !is_content => Self::Unreachable(chain(&error)),
            _ => Self::Refused(chain(&error)),
        }
    }
}

/// A repository cannot be used, or what it says must not be believed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum TufError {
    #[error("{0:?} is no repository: expected https://…, http://…, file://… or an absolute path")]
    Address(String),
    #[error("the root of trust {}: {source}", file.display())]
    Root { file: std::path::PathBuf, source: std::io::Error },
    #[error("the repository is refused: {0}")]
    Refused(String),
    #[error("the repository cannot be read: {0}")]
    Unreachable(String),
    #[error(
        "the repository is refused: its {role} expired on {expires}, and {clock}; a maintainer renews it with `repo refresh`"
    )]
    Expired { role: &'static str, expires: Timestamp, clock: String },
    #[error("what is trusted cannot be kept in {}: {source}", folder.display())]
    Keep { folder: std::path::PathBuf, source: std::io::Error },
    #[error("{}: {source}", file.display())]
    File { file: std::path::PathBuf, source: std::io::Error },
    #[error("the repository holds no {0}")]
    NoTarget(String),
    #[error("{0}")]
    Metadata(String),
    #[error(
        "the role {role} takes signatures of {threshold} keys, and only {found} of its keys are in the folders that were named"
    )]
    Threshold { role: String, threshold: u64, found: usize },
}

/// The error for a file.
fn at(file: &Path) -> impl Fn(std::io::Error) -> TufError + use<> {
    let file = file.to_owned();
    move |source| TufError::File { file: file.clone(), source }
}
