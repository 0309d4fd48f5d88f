//! The log: on stderr, for people or as JSON, one line for each thing that happened.
//!
//! Chargers, receivers and callers wrote some of what is in it, so nothing goes out that a terminal
//! obeys or hides.

use std::{borrow::Cow, io};

use clap::ValueEnum;
use pipelet_printable::{escape_default, escape_where, is_unprintable, printable_json};
use tracing_subscriber::{
    EnvFilter, Layer as _, Registry,
    filter::{LevelFilter, ParseError},
    fmt,
    layer::SubscriberExt as _,
    reload,
    util::SubscriberInitExt as _,
};

use super::stderr::{DroppedLines, Stderr};

/// How a line of the log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

impl LogFormat {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

/// The log of the process.
#[derive(Debug)]
pub struct Log {
    pub level: LogLevel,
    pub dropped: DroppedLines,
}

/// Changes what is logged while the daemon runs. Cheap to clone.
#[derive(Debug, Clone)]
pub struct LogLevel(reload::Handle<EnvFilter, Registry>);

#[derive(Debug, thiserror::Error)]
pub enum InvalidLevel {
    #[error("it is none of error, warn, info, debug and trace")]
    NoLevel,
    #[error(transparent)]
    NoDirectives(#[from] ParseError),
}

/// What a level, or directives as `tracing` knows them, let through.
pub fn filter(level: &str) -> Result<EnvFilter, InvalidLevel> {
    // A word alone would be taken for a module's name, and silence all others.
    if !level.contains(['=', ',', ':', '[']) && level.parse::<LevelFilter>().is_err() {
        return Err(InvalidLevel::NoLevel);
    }
    // sled says little that an operator can use below a warning.
    let directives = format!("sled=warn,h2=warn,hyper=warn,async_nats=warn,{level}");
    Ok(EnvFilter::try_new(directives)?)
}

/// Starts logging for the whole process.
pub fn start(level: &str, format: LogFormat) -> Result<Log, InvalidLevel> {
    let (filter, handle) = reload::Layer::new(filter(level)?);
    let escape = match format {
        LogFormat::Text => printable_line,
        LogFormat::Json => printable_json,
    };
    let stderr = Stderr::default();
    let dropped = stderr.dropped();
    let writer = move || Escaped {
        out: stderr.clone(),
        escape,
    };
    let log = fmt::layer().with_writer(writer).with_target(false);
    let log = match format {
        LogFormat::Text => log
            .with_ansi(io::IsTerminal::is_terminal(&io::stderr()))
            .boxed(),
        LogFormat::Json => log.json().flatten_event(true).with_span_list(false).boxed(),
    };
    // A second start, as in a test, keeps the first one's log.
    let _ = tracing_subscriber::registry()
        .with(filter)
        .with(log)
        .try_init();
    Ok(Log {
        level: LogLevel(handle),
        dropped,
    })
}

/// A line for people, which keeps its colours and its end.
fn printable_line(line: &str) -> Cow<'_, str> {
    let (line, end) = line
        .strip_suffix('\n')
        .map_or((line, ""), |line| (line, "\n"));
    // The subscriber has escaped what begins a sequence in a value.
    let unprintable = |c| is_unprintable(c) && c != '\u{1b}';
    match escape_where(line, unprintable, escape_default) {
        Cow::Borrowed(line) if end.is_empty() => line.into(),
        line => (line.into_owned() + end).into(),
    }
}

/// Writes lines, each of which comes whole.
struct Escaped {
    out: Stderr,
    escape: fn(&str) -> Cow<'_, str>,
}

impl io::Write for Escaped {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        self.out.write_line((self.escape)(&text).as_bytes());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl LogLevel {
    pub fn set(&self, filter: EnvFilter) {
        if let Err(error) = self.0.reload(filter) {
            tracing::error!(%error, "the log's level stays");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_keeps_its_colours_and_its_end() {
        for (line, safe) in [
            ("\u{1b}[2mx\u{1b}[0m\n", "\u{1b}[2mx\u{1b}[0m\n"),
            ("a\nINFO b\u{2066}\n", "a\\nINFO b\\u{2066}\n"),
        ] {
            assert_eq!(printable_line(line), safe);
        }
    }
}
