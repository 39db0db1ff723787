//! Section `[models]`.

use std::path::PathBuf;
use std::time::Duration;

use super::reader::{Bytes, Section};
use crate::models::release::Channel;

/// Where Debian keeps the authorities that the world trusts.
const DEFAULT_CA: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Section `[models]`: models that come from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelsConfig {
    /// `https://`, `http://`, `file://` or an absolute path; without it, models come from a stick alone.
    pub repository: Option<String>,
    /// The root metadata that all trust begins with.
    pub root: PathBuf,
    /// PEM file with the authorities that a server of `https://` is judged by.
    pub ca: PathBuf,
    /// Which releases are offered to this box.
    pub channel: Channel,
    /// How often the repository is asked, give or take a quarter.
    pub interval: Duration,
    /// Bytes a second of a bundle.
    pub rate: u64,
    /// How long a new model looks beside the active one at most; not at all where it is nothing.
    pub shadow: Duration,
    /// How long a new model is watched before it is kept.
    pub watch: Duration,
    /// The longest inference; by default what the frames of all cameras leave.
    pub budget: Option<Duration>,
}

pub(super) fn models(section: Section<'_>) -> Option<ModelsConfig> {
    let repository = section.optional::<String>("repository");
    let is_address = |text: &String| {
        text.starts_with('/')
            || ["https://", "http://", "file:///"].iter().any(|scheme| text.starts_with(scheme))
    };
    if repository.as_ref().is_some_and(|text| !is_address(text)) {
        section.problem(
            "repository",
            "expected https://HOST/PATH, http://HOST/PATH, file:///PATH or an absolute path",
        );
    }
    if repository.as_ref().is_some_and(|text| text.contains('@')) {
        section
            .problem("repository", "holds a user or password; a repository is signed, and open to all boxes");
    }
    let root = section.required("root");
    let ca = section.or("ca", PathBuf::from(DEFAULT_CA));
    let channel = section.or("channel", "stable".to_owned());
    let channel = match channel.as_str() {
        "canary" => Channel::Canary,
        "stable" => Channel::Stable,
        other => {
            section.problem("channel", format!("{other:?} is neither \"stable\" nor \"canary\""));
            Channel::Stable
        }
    };
    let interval = section.or("interval", Duration::from_secs(6 * 3600));
    if !(Duration::from_secs(1)..=Duration::from_secs(30 * 86_400)).contains(&interval) {
        section.problem("interval", "expected \"1s\" to \"30d\"");
    }
    let Bytes(rate) = section.or("rate", Bytes(256 << 10));
    if rate < 1024 {
        section.problem("rate", "expected at least \"1KB\" a second");
    }
    let watch = section.or("watch", Duration::from_secs(600));
    if !(Duration::from_secs(1)..=Duration::from_secs(7 * 86_400)).contains(&watch) {
        section.problem("watch", "expected \"1s\" to \"7d\"");
    }
    let shadow = section.or("shadow", Duration::from_secs(120));
    if shadow > Duration::from_secs(86_400) {
        section.problem("shadow", "expected \"0s\" to \"24h\"");
    }
    let budget = section.optional::<Duration>("budget");
    if budget.is_some_and(|budget| budget.is_zero()) {
        section.problem("budget", "expected more than nothing, such as \"150ms\"");
    }
    section.finish();
    Some(ModelsConfig { repository, root: root?, ca, channel, interval, rate, shadow, watch, budget })
}
