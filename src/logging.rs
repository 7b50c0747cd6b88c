//! Where log lines go: to stderr in the foreground, to the journal in the
//! background, nowhere when there is no journal. Both programs use this; the
//! supervisor tells the worker by an environment variable which it shall be.

use std::io::{self, IsTerminal};
use std::panic::{self, PanicHookInfo};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// The variable that tells a worker its sink.
pub const SINK_VARIABLE: &str = "SHEEPFS_LOG";
/// The variable that chooses what is logged, in the syntax of `tracing-subscriber`.
pub const FILTER_VARIABLE: &str = "RUST_LOG";

/// Where log lines go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sink {
    /// To stderr.
    Stderr,
    /// To the journal, if there is one.
    Journal,
}

impl Sink {
    /// As the value of [`SINK_VARIABLE`].
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Stderr => "stderr",
            Self::Journal => "journal",
        }
    }

    /// From [`SINK_VARIABLE`]; stderr when it says nothing.
    #[must_use]
    pub fn from_environment() -> Self {
        match std::env::var(SINK_VARIABLE) {
            Ok(word) if word == Self::Journal.word() => Self::Journal,
            _ => Self::Stderr,
        }
    }
}

/// Starts logging: life cycle and worse, with `debug` each request too, or what
/// `RUST_LOG` says. Called once, before other threads run.
pub fn start(sink: Sink, debug: bool) {
    match sink {
        Sink::Stderr => {
            let colours = io::stderr().is_terminal();
            let layer = tracing_subscriber::fmt::layer().compact().with_ansi(colours);
            let layer = layer.with_writer(io::stderr);
            tracing_subscriber::registry().with(filter(debug)).with(layer).init();
        }
        Sink::Journal => {
            // No journal: `Option` is an empty layer, and nothing is logged.
            let layer = tracing_journald::layer().ok();
            let layer = layer.map(|layer| layer.with_syslog_identifier("sheepfs".to_owned()));
            tracing_subscriber::registry().with(filter(debug)).with(layer).init();
        }
    }
    if sink == Sink::Journal {
        panic::set_hook(Box::new(log_panic));
    }
}

fn filter(debug: bool) -> EnvFilter {
    let level = if debug { LevelFilter::DEBUG } else { LevelFilter::INFO };
    EnvFilter::builder().with_default_directive(level.into()).from_env_lossy()
}

/// In the background a panic's words would be lost with stderr.
fn log_panic(info: &PanicHookInfo<'_>) {
    tracing::error!("{info}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sink_has_a_word_for_the_environment() {
        assert_ne!(Sink::Stderr.word(), Sink::Journal.word());
    }
}
