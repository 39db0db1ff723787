//! Log lines for journald where systemd runs the agent, for people elsewhere.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// What is logged unless `RUST_LOG` says otherwise.
const DEFAULT: &str = "info";

/// Sends log lines where they belong. Once, first of all.
pub fn start() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT));
    let registry = tracing_subscriber::registry().with(filter);
    // systemd sets this for a unit whose output goes to the journal: then fields stay fields, and priorities priorities.
    let journal = std::env::var_os("JOURNAL_STREAM").and_then(|_| tracing_journald::layer().ok());
    match journal {
        Some(journal) => registry.with(journal).init(),
        None => {
            let people = tracing_subscriber::fmt::layer()
                .with_writer(std::io::stderr)
                .with_ansi(std::io::stderr().is_terminal())
                .with_target(false);
            registry.with(people).init();
        }
    }
}
