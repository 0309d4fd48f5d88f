//! A finding, and how it tells of times.

use std::{borrow::Cow, fmt::Write as _};

use clap::builder::styling::{AnsiColor, Style};
use jiff::{SignedDuration, Timestamp};
use pipelet_proto::v1;
use serde::Serialize;

use crate::{
    table::{printable, wrapped},
    view::time::Time,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    Ok,
    Warning,
    Problem,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    pub(super) check: &'static str,
    pub(super) level: Level,
    /// A word that never changes; what it is about follows.
    pub(super) code: Cow<'static, str>,
    pub(super) webhook_id: Option<u64>,
    pub(super) station_id: Option<String>,
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

impl Finding {
    pub(crate) const fn is_problem(&self) -> bool {
        matches!(self.level, Level::Problem)
    }

    pub(super) fn ok(check: &'static str, message: impl Into<String>) -> Self {
        Self::new(check, Level::Ok, "ok", message)
    }

    pub(super) fn warning(
        check: &'static str,
        code: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self::new(check, Level::Warning, code, message)
    }

    pub(super) fn problem(
        check: &'static str,
        code: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self::new(check, Level::Problem, code, message)
    }

    pub(super) fn new(
        check: &'static str,
        level: Level,
        code: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self {
            check,
            level,
            code: code.into(),
            webhook_id: None,
            station_id: None,
            message: message.into(),
            hint: None,
        }
    }

    pub(super) fn of_webhook(self, webhook: &v1::Webhook) -> Self {
        Self {
            webhook_id: Some(webhook.id),
            ..self
        }
    }

    pub(super) fn of_station(self, id: Option<&str>) -> Self {
        Self {
            station_id: id.map(str::to_owned),
            ..self
        }
    }

    pub(super) fn hint(self, hint: impl Into<String>) -> Self {
        Self {
            hint: Some(hint.into()),
            ..self
        }
    }
}

impl Finding {
    /// How bad it is, for people, and the colour that says so again.
    pub(crate) fn mark(&self) -> (&'static str, Style) {
        let (mark, color) = match self.level {
            Level::Ok => ("✓ ok     ", AnsiColor::Green),
            Level::Warning => ("! warning", AnsiColor::Yellow),
            Level::Problem => ("✗ problem", AnsiColor::Red),
        };
        (mark, Style::new().fg_color(Some(color.into())))
    }

    /// For people, behind the mark: what was found, and below it what to do. Words are not broken
    /// at this width.
    pub(crate) fn lines(&self, width: usize) -> String {
        let message = wrapped(&printable(&self.message), width, 25);
        let mut lines = format!("  {:<12}  {message}", self.check);
        if let Some(hint) = &self.hint {
            let hint = wrapped(&printable(hint), width, 27);
            let _ = write!(lines, "\n{:25}→ {hint}", "");
        }
        lines
    }
}

/// Since when, and how long that is; nothing where that is not known.
pub(super) fn since(wire: Option<prost_types::Timestamp>, now: Timestamp) -> String {
    let Some(at) = moment(wire) else {
        return String::new();
    };
    let lasts = span(now.duration_since(at));
    format!(" since {} ({lasts})", Time::at(at))
}

pub(super) fn ago(since: SignedDuration) -> String {
    match since.as_secs() {
        ..60 => "just now".to_owned(),
        _ => format!("{} ago", span(since)),
    }
}

/// Rounded down.
pub(super) fn span(span: SignedDuration) -> String {
    match span.as_secs() {
        secs @ ..60 => format!("{} s", secs.max(0)),
        secs @ ..3600 => format!("{} min", secs / 60),
        secs @ ..172_800 => format!("{} h", secs / 3600),
        secs => format!("{} days", secs / 86_400),
    }
}

pub(super) fn moment(wire: Option<prost_types::Timestamp>) -> Option<Timestamp> {
    Time::from_wire(wire).map(Time::moment)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::view::doctor) const NOW: i64 = 1_776_170_096;

    pub(in crate::view::doctor) fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    pub(in crate::view::doctor) fn wire(seconds: i64) -> prost_types::Timestamp {
        prost_types::Timestamp { seconds, nanos: 0 }
    }

    /// The level is as expected, the words are in it, and what is not well has a next step.
    pub(in crate::view::doctor) fn check(finding: &Finding, level: Level, words: &str) {
        assert_eq!(finding.level, level, "{finding:?}");
        let text = finding.lines(usize::MAX);
        assert!(text.contains(words), "{words:?} is not in {text:?}");
        assert_eq!(finding.hint.is_some(), level != Level::Ok, "{finding:?}");
    }
}
