//! Section `[remote]`.

use std::time::Duration;

use super::reader::Section;

/// Section `[remote]`: configurations that come from the repository of `[models]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteConfig {
    /// A new one is taken back when no broker was there for so long.
    pub confirm: Duration,
}

pub(super) fn remote(section: Section<'_>) -> Option<RemoteConfig> {
    let confirm = section.or("confirm", Duration::from_secs(300));
    if !(Duration::from_secs(1)..=Duration::from_secs(86_400)).contains(&confirm) {
        section.problem("confirm", "expected \"1s\" to \"24h\"");
    }
    section.finish();
    Some(RemoteConfig { confirm })
}
