//! The one printer: data on stdout, everything else on stderr.
//!
//! Invariants: a document (json, yaml) is well formed whatever the number of items; a list is
//! printed as it arrives, except in a table, whose widths want all rows; colour only repeats what
//! the words say; what a terminal must not be given raw is escaped in every format. It does not
//! know what it prints: views bring their own columns.

mod yaml;

use std::{
    io::{self, BufWriter, IsTerminal as _, Write},
    marker::PhantomData,
};

use anstream::ColorChoice;
use clap::builder::styling::{AnsiColor, Style};
use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};
use pipelet_printable::{is_unprintable, printable_json, printable_lines};
use serde::Serialize;

use self::yaml::yaml_of_json;
pub(crate) use crate::cli::Format;
use crate::{
    error::{Error, Report},
    table::{self, Details, Reader},
};

/// How one thing is shown to people.
pub(crate) trait Describe {
    fn describe(&self) -> Details;
}

/// How one of many things is shown to people.
pub(crate) trait Row {
    const HEADERS: &'static [&'static str];
    /// The columns that a narrow terminal can do without, the least important first.
    const OPTIONAL: &'static [&'static str] = &[];

    fn cells(&self) -> Vec<String>;
}

#[derive(Debug)]
pub(crate) struct Printer {
    format: Format,
}

impl Printer {
    pub(crate) fn new(format: Format, no_color: bool) -> Self {
        if no_color {
            ColorChoice::Never.write_global();
            crossterm::style::force_color_output(false);
        }
        Self { format }
    }

    /// Whether a person reads it, as far as the format tells.
    pub(crate) const fn is_for_people(&self) -> bool {
        matches!(self.format, Format::Table)
    }

    /// Whether somebody looks at a table as it is printed.
    pub(crate) fn is_on_a_terminal(&self) -> bool {
        self.is_for_people() && Reader::of_stdout() != Reader::Pipe
    }

    pub(crate) const fn format(&self) -> Format {
        self.format
    }

    /// Prints one thing.
    pub(crate) fn one<T: Serialize + Describe>(&self, item: &T) -> io::Result<()> {
        match self.format {
            Format::Table => self.text(&item.describe().draw()),
            Format::Json | Format::Jsonl | Format::Yaml => self.document(item),
        }
    }

    /// Prints what a command did: an object for programs, a sentence on stderr for people.
    pub(crate) fn done<T: Serialize>(&self, outcome: &T, sentence: &str) -> io::Result<()> {
        match self.format {
            Format::Table => {
                self.note(sentence);
                Ok(())
            }
            Format::Json | Format::Jsonl | Format::Yaml => self.document(outcome),
        }
    }

    /// Prints an object for programs, or this text for people.
    pub(crate) fn either<T: Serialize>(&self, item: &T, text: &str) -> io::Result<()> {
        match self.format {
            Format::Table => self.text(text),
            Format::Json | Format::Jsonl | Format::Yaml => self.document(item),
        }
    }

    /// Prints one of an endless row of things at once: a line, or a YAML document of its own.
    pub(crate) fn follow<T: Serialize>(&self, item: &T, line: &str) -> io::Result<()> {
        self.follow_styled(item, Style::new(), "", line)
    }

    /// The same for a line that begins with something coloured.
    pub(crate) fn follow_styled<T: Serialize>(
        &self,
        item: &T,
        style: Style,
        lead: &str,
        line: &str,
    ) -> io::Result<()> {
        let mut out = anstream::stdout().lock();
        match self.format {
            Format::Table => writeln!(out, "{style}{lead}{style:#}{}", printable_lines(line)),
            // An array would never be closed, so each object stands for itself.
            Format::Json | Format::Jsonl => {
                let json = serde_json::to_string(item)?;
                writeln!(out, "{}", printable_json(&json))
            }
            Format::Yaml => write!(out, "---\n{}", yaml(item)?),
        }?;
        out.flush()
    }

    /// Starts a list; `empty` tells people that there is nothing in it.
    pub(crate) fn list<T: Serialize + Row>(&self, empty: &'static str) -> List<T, io::Stdout> {
        List::new(self.format, empty, io::stdout())
    }

    /// Prints text that has its own format.
    #[expect(clippy::unused_self, reason = "the printer alone may print")]
    pub(crate) fn text(&self, text: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        let text = printable_lines(text.trim_end_matches('\n'));
        writeln!(out, "{text}")?;
        out.flush()
    }

    /// A remark on stderr.
    #[expect(clippy::unused_self, reason = "the printer alone may print")]
    pub(crate) fn note(&self, text: &str) {
        // A remark that can't be written is no reason to fail.
        let _ = writeln!(anstream::stderr(), "{}", printable_lines(text));
    }

    /// Prints on stderr what to do next.
    #[expect(clippy::unused_self, reason = "the printer alone may print")]
    pub(crate) fn hint(&self, text: &str) {
        let style = Style::new().fg_color(Some(AnsiColor::Cyan.into())).bold();
        let text = printable_lines(text);
        let _ = writeln!(anstream::stderr(), "{style}hint:{style:#} {text}");
    }

    /// Prints on stderr what went wrong and what to do next.
    pub(crate) fn report(&self, report: &Report) {
        let style = Style::new().fg_color(Some(AnsiColor::Red.into())).bold();
        let message = printable_lines(&report.message);
        let _ = writeln!(anstream::stderr(), "{style}error:{style:#} {message}");
        for detail in &report.details {
            self.note(&format!("  {detail}"));
        }
        for hint in &report.hints {
            self.hint(hint);
        }
    }

    /// A progress bar on stderr; it hides where that is no terminal.
    #[expect(clippy::unused_self, reason = "the printer alone may print")]
    pub(crate) fn progress(&self, what: &'static str) -> ProgressBar {
        let style = ProgressStyle::with_template("{msg} [{bar:32}] {pos}/{len}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        // Dropped, by an interruption too, it leaves no trace.
        ProgressBar::new(0)
            .with_style(style)
            .with_message(what)
            .with_finish(ProgressFinish::AndClear)
    }

    /// Asks on the terminal; anything but a yes is a no.
    ///
    /// # Errors
    ///
    /// Where there is no terminal: nobody said yes.
    pub(crate) async fn confirm(&self, question: &str) -> Result<bool, Error> {
        if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
            return Err(Error::NoTerminalToConfirm(question.to_owned()));
        }
        let mut err = anstream::stderr();
        write!(err, "{question} [y/N] ")?;
        err.flush()?;
        // Off the runtime's thread, so that Ctrl-C still works.
        let answer = tokio::task::spawn_blocking(|| {
            let mut line = String::new();
            io::stdin().read_line(&mut line).map(|_| line)
        });
        let answer = answer.await.map_err(io::Error::other)??;
        let yes = matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes");
        if !yes {
            self.note("nothing was changed");
        }
        Ok(yes)
    }

    fn document<T: Serialize>(&self, item: &T) -> io::Result<()> {
        match self.format {
            Format::Table | Format::Json => {
                self.text(&printable_json(&serde_json::to_string_pretty(item)?))
            }
            Format::Jsonl => self.text(&printable_json(&serde_json::to_string(item)?)),
            Format::Yaml => self.text(&yaml(item)?),
        }
    }
}

/// A list under way.
#[derive(Debug)]
pub(crate) struct List<T, W: Write> {
    format: Format,
    empty: &'static str,
    out: BufWriter<W>,
    /// Rows that wait for their widths; in a table only.
    rows: Vec<Vec<String>>,
    count: u64,
    items: PhantomData<fn(T)>,
}

impl<T: Serialize + Row, W: Write> List<T, W> {
    fn new(format: Format, empty: &'static str, out: W) -> Self {
        Self {
            format,
            empty,
            out: BufWriter::new(out),
            rows: Vec::new(),
            count: 0,
            items: PhantomData,
        }
    }

    pub(crate) fn push(&mut self, item: &T) -> io::Result<()> {
        match self.format {
            Format::Table => self.rows.push(item.cells()),
            Format::Json => {
                let lead = if self.count == 0 { "[\n  " } else { ",\n  " };
                // No JSON string holds a line break, so every one in the text may be indented.
                let text = serde_json::to_string_pretty(item)?.replace('\n', "\n  ");
                write!(self.out, "{lead}{}", printable_json(&text))?;
            }
            Format::Jsonl => {
                let json = serde_json::to_string(item)?;
                writeln!(self.out, "{}", printable_json(&json))?;
            }
            // An item of a list of its own, which the next ones go on with.
            Format::Yaml => match yaml_block(&[item])? {
                Some(block) => write!(self.out, "{block}")?,
                None => writeln!(self.out, "- {}", yaml_flow(item)?)?,
            },
        }
        self.count += 1;
        Ok(())
    }

    pub(crate) fn extend(&mut self, items: impl IntoIterator<Item = T>) -> io::Result<()> {
        items.into_iter().try_for_each(|item| self.push(&item))
    }

    /// Prints what is left to print, and tells where there would be more.
    pub(crate) fn finish(mut self, printer: &Printer, has_more: bool) -> io::Result<()> {
        match (self.format, self.count) {
            (Format::Table, 0) => printer.note(self.empty),
            (Format::Table, _) => {
                let reader = Reader::of_stdout();
                let table = table::columns(T::HEADERS, &self.rows, T::OPTIONAL, reader);
                writeln!(self.out, "{table}")?;
            }
            (Format::Json | Format::Yaml, 0) => writeln!(self.out, "[]")?,
            (Format::Json, _) => writeln!(self.out, "\n]")?,
            (Format::Jsonl | Format::Yaml, _) => {}
        }
        self.out.flush()?;
        if has_more {
            let count = self.count;
            printer.hint(&format!(
                "there are more than these {count}: --limit N, or --all"
            ));
        }
        Ok(())
    }
}

fn yaml<T: Serialize>(item: &T) -> io::Result<String> {
    match yaml_block(item)? {
        Some(block) => Ok(block),
        None => Ok(yaml_flow(item)? + "\n"),
    }
}

/// The style that people read; `None` where that can't have the item, as with half a character, a
/// number that is too large, a depth that is too great, or text that is not fit for a terminal.
///
/// By way of JSON, as a raw payload is raw to `serde_json` only.
fn yaml_block<T: Serialize>(item: &T) -> io::Result<Option<String>> {
    let json = serde_json::to_string(item)?;
    // The first keeps the keys' order, but refuses a key that comes twice, as some chargers'
    // payloads have it; the second takes the last of them.
    let text = match serde_json::from_str::<serde_yaml_ng::Value>(&json) {
        Ok(value) => serde_yaml_ng::to_string(&value),
        Err(_) => match serde_json::from_str::<serde_json::Value>(&json) {
            Ok(value) => serde_yaml_ng::to_string(&value),
            Err(_) => return Ok(None),
        },
    };
    let fit = |c| c == '\n' || !is_unprintable(c);
    Ok(text.ok().filter(|text| text.chars().all(fit)))
}

/// The style that is JSON, which has room for anything.
fn yaml_flow<T: Serialize>(item: &T) -> io::Result<String> {
    Ok(yaml_of_json(&serde_json::to_string(item)?))
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::*;

    #[derive(Serialize)]
    struct Thing {
        id: u64,
        payload: Box<RawValue>,
    }

    impl Row for Thing {
        const HEADERS: &'static [&'static str] = &["ID"];

        fn cells(&self) -> Vec<String> {
            vec![self.id.to_string()]
        }
    }

    fn thing(id: u64, payload: &str) -> Thing {
        Thing {
            id,
            payload: RawValue::from_string(payload.to_owned()).unwrap(),
        }
    }

    fn listed(format: Format, things: Vec<Thing>) -> String {
        let mut text = Vec::new();
        let mut list = List::new(format, "nothing here", &mut text);
        list.extend(things).unwrap();
        list.finish(&Printer::new(format, false), false).unwrap();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn lists_in_every_format() {
        let things = || vec![thing(1, r#"{"b":1.50,"a":2}"#), thing(2, "{}")];
        for (format, expected) in [
            (Format::Table, "ID\n1\n2\n"),
            (
                Format::Json,
                "[\n  {\n    \"id\": 1,\n    \"payload\": {\"b\":1.50,\"a\":2}\n  },\n  {\n    \"id\": 2,\n    \"payload\": {}\n  }\n]\n",
            ),
            (
                Format::Jsonl,
                "{\"id\":1,\"payload\":{\"b\":1.50,\"a\":2}}\n{\"id\":2,\"payload\":{}}\n",
            ),
            (
                Format::Yaml,
                "- id: 1\n  payload:\n    b: 1.5\n    a: 2\n- id: 2\n  payload: {}\n",
            ),
        ] {
            assert_eq!(listed(format, things()), expected, "{format:?}");
        }
    }

    #[test]
    fn empty_lists_are_well_formed() {
        for (format, expected) in [
            (Format::Table, ""),
            (Format::Json, "[]\n"),
            (Format::Jsonl, ""),
            (Format::Yaml, "[]\n"),
        ] {
            assert_eq!(listed(format, Vec::new()), expected, "{format:?}");
        }
    }

    #[test]
    fn one_strange_thing_never_ends_a_list() {
        let deep = format!("{}{}", "[".repeat(5_000), "]".repeat(5_000));
        let strange = [
            r#"{"a":"\ud800"}"#,
            r#"{"a":1e400}"#,
            &deep,
            "\"\u{9b}\u{202e}\"",
        ];
        let things = || {
            let strange = strange.iter().zip(2..);
            let strange = strange.map(|(payload, id)| thing(id, payload));
            [thing(1, "{}")]
                .into_iter()
                .chain(strange)
                .chain([thing(9, "{}")])
        };
        for format in [Format::Table, Format::Json, Format::Jsonl, Format::Yaml] {
            let text = listed(format, things().collect());
            assert!(text.contains('9'), "{format:?}: {text}");
            for hidden in ['\u{9b}', '\u{202e}'] {
                assert!(!text.contains(hidden), "{format:?}: {text}");
            }
        }
        let text = listed(Format::Yaml, things().collect());
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[2], "- {\"id\":2,\"payload\":{\"a\":\"\u{fffd}\"}}");
        assert_eq!(lines[3], "- {\"id\":3,\"payload\":{\"a\":1e400}}");
        assert_eq!(lines[5], "- {\"id\":5,\"payload\":\"\\u009b\\u202e\"}");
        assert_eq!(lines[6..], ["- id: 9", "  payload: {}"]);
    }

    #[test]
    fn a_key_that_comes_twice_does_not_break_yaml() {
        let text = yaml(&thing(1, r#"{"a":1,"a":2}"#)).unwrap();
        assert_eq!(text, "id: 1\npayload:\n  a: 2\n");
    }
}
