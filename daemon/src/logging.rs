//! Logs: to the journal where stderr is the journal, otherwise to stderr.

use std::io::{IsTerminal, stderr};

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, fmt};

/// Starts logging. `RUST_LOG` says what; `info` unless it does.
pub fn start() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,netlink_proto=warn"));
    // systemd sets this when stdout or stderr go to the journal.
    let journal = std::env::var_os("JOURNAL_STREAM").and_then(|_| tracing_journald::layer().ok());
    let registry = tracing_subscriber::registry().with(filter);
    if let Some(journal) = journal {
        registry.with(journal).init();
    } else {
        let colour = stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        registry.with(fmt::layer().with_writer(stderr).with_ansi(colour).with_target(false)).init();
    }
}
