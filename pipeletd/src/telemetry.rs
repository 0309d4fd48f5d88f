//! The log: on stderr, for people or as JSON, one line for each thing that happened.

use std::io;

use tracing_subscriber::{EnvFilter, filter::ParseError, fmt};

use crate::config::LogFormat;

/// Starts logging for the whole process. `level` is a level, or directives as `tracing` knows.
pub fn start(level: &str, format: LogFormat) -> Result<(), ParseError> {
    // sled says little that an operator can use below a warning.
    let filter = EnvFilter::try_new(format!("sled=warn,h2=warn,hyper=warn,{level}"))?;
    let log = fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_target(false);
    // A second start, as in a test, keeps the first one's log.
    let _ = match format {
        LogFormat::Text => log
            .with_ansi(io::IsTerminal::is_terminal(&io::stderr()))
            .try_init(),
        LogFormat::Json => log
            .json()
            .flatten_event(true)
            .with_span_list(false)
            .try_init(),
    };
    Ok(())
}
