//! Draws what people read: tables, and the details of one thing.
//!
//! Invariants: on a terminal no row is wider than it, unless ids alone are; and in a pipe every cell is whole, with a tab
//! between two; nothing that a charger or a receiver wrote can move the cursor or change colours.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal as _},
};

use comfy_table::{Cell, Color, ContentArrangement, Table, presets};
use jiff::Timestamp;

pub(crate) use pipelet_printable::shortened;
use pipelet_printable::width as terminal_width;

/// Between two columns.
const GAP: usize = 2;
/// Cells up to this are figures, times and the like, of which a part says nothing.
const WHOLE: usize = 20;
/// A text is shortened to this before a column is left out, and to less where none can be.
const READABLE: usize = 16;
const LEAST: usize = 6;

/// Who reads a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reader {
    /// People, on a terminal that is so wide.
    Terminal(usize),
    /// A program, or a file.
    Pipe,
}

impl Reader {
    /// Who reads our stdout.
    pub(crate) fn of_stdout() -> Self {
        let width = || crossterm::terminal::size().ok();
        match io::stdout().is_terminal().then(width).flatten() {
            Some((width @ 1.., _)) => Self::Terminal(width.into()),
            Some(_) | None => Self::Pipe,
        }
    }
}

/// Columns under their headers. On a terminal that is too narrow, the optional ones are left out,
/// the first one first, and what is not whole ends in `…`.
pub(crate) fn columns(
    headers: &[&str],
    rows: &[Vec<String>],
    optional: &[&str],
    reader: Reader,
) -> String {
    match reader {
        Reader::Terminal(width) => aligned(headers, rows, optional, width, color),
        Reader::Pipe => {
            let rows = rows.iter().map(|row| {
                let cells: Vec<_> = row.iter().map(|cell| printable(cell)).collect();
                cells.join("\t")
            });
            let lines: Vec<_> = std::iter::once(headers.join("\t")).chain(rows).collect();
            lines.join("\n")
        }
    }
}

/// The same as a part of something else, which is for people wherever it goes.
pub(crate) fn section(headers: &[&str], rows: &[Vec<String>], optional: &[&str]) -> String {
    let width = match Reader::of_stdout() {
        Reader::Terminal(width) => width.saturating_sub(GAP),
        Reader::Pipe => usize::MAX,
    };
    aligned(headers, rows, optional, width, |_, _| None)
}

fn aligned(
    headers: &[&str],
    rows: &[Vec<String>],
    optional: &[&str],
    width: usize,
    color: fn(&str, &str) -> Option<Color>,
) -> String {
    let natural = |rows: &[Vec<String>]| fitted(headers, rows, &[], usize::MAX);
    let needed = |rows: &[Vec<String>]| natural(rows).into_iter().flatten().sum::<usize>();
    let shorter;
    let rows = if needed(rows) + headers.len().saturating_sub(1) * GAP > width {
        shorter = with_short_times(headers.len(), rows);
        &shorter
    } else {
        rows
    };
    let widths = fitted(headers, rows, optional, width);
    let mut table = plain();
    let kept = |at: &usize| widths[*at].is_some();
    let shown = (0..headers.len()).filter(kept);
    table.set_header(shown.clone().map(|at| headers[at]));
    for row in rows {
        let cells = shown.clone().filter_map(|at| {
            let text = shortened(row.get(at)?, widths[at].unwrap_or(usize::MAX));
            let color = color(headers[at], &text);
            let cell = Cell::new(text);
            Some(match color {
                Some(color) => cell.fg(color),
                None => cell,
            })
        });
        table.add_row(cells.collect::<Vec<_>>());
    }
    drawn(&mut table)
}

/// The same rows with times as short as their column allows: without the day where that is the same
/// in all, and else without the year and the seconds.
fn with_short_times(columns: usize, rows: &[Vec<String>]) -> Vec<Vec<String>> {
    let mut rows = rows.to_vec();
    for at in 0..columns {
        let cells = rows.iter().filter_map(|row| row.get(at));
        let times: Vec<_> = cells.filter(|cell| *cell != "-").cloned().collect();
        let is_time = |cell: &String| cell.len() == 20 && cell.parse::<Timestamp>().is_ok();
        if times.is_empty() || !times.iter().all(is_time) {
            continue;
        }
        let same_day = times.iter().all(|time| time[..10] == times[0][..10]);
        let kept = if same_day { 11..20 } else { 5..16 };
        for cell in rows.iter_mut().filter_map(|row| row.get_mut(at)) {
            if let Some(short) = cell.get(kept.clone()) {
                let zone = if same_day { "" } else { "Z" };
                *cell = short.replace('T', " ") + zone;
            }
        }
    }
    rows
}

/// `text` in lines of at most this width, broken between words; the first one has so much before it,
/// and so have the others, in spaces.
pub(crate) fn wrapped(text: &str, width: usize, before: usize) -> String {
    let mut lines = String::new();
    let mut used = before;
    for word in text.split(' ') {
        let length = terminal_width(word);
        if used > before && used.saturating_add(1 + length) > width {
            let _ = write!(lines, "\n{:before$}", "");
            used = before;
        } else if used > before {
            lines.push(' ');
            used += 1;
        }
        lines.push_str(word);
        used += length;
    }
    lines
}

/// How wide each column may be; `None` for one that is left out.
fn fitted(
    headers: &[&str],
    rows: &[Vec<String>],
    optional: &[&str],
    width: usize,
) -> Vec<Option<usize>> {
    let natural = headers.iter().enumerate().map(|(at, header)| {
        let cells = rows.iter().filter_map(|row| row.get(at));
        let widths = cells.map(|cell| terminal_width(cell));
        let natural = widths.chain([header.chars().count()]).max();
        natural.unwrap_or(0).min(width)
    });
    let natural: Vec<usize> = natural.collect();
    let mut widths: Vec<_> = natural.iter().copied().map(Some).collect();
    let mut optional = optional.iter();
    let mut least = READABLE;
    loop {
        let shown: Vec<_> = (0..widths.len())
            .filter(|at| widths[*at].is_some())
            .collect();
        let gaps = shown.len().saturating_sub(1) * GAP;
        // An id of which a part is shown can't be used.
        let whole = if least == READABLE { WHOLE } else { LEAST };
        let may_shrink = |at: usize| natural[at] > whole && !headers[at].ends_with("ID");
        let of = |widths: &[Option<usize>]| widths.iter().flatten().sum::<usize>() + gaps;
        while of(&widths) > width {
            let least = |at: usize| least.max(headers[at].chars().count());
            let shrinks = shown
                .iter()
                .copied()
                .filter(|at| may_shrink(*at) && widths[*at] > Some(least(*at)));
            let Some(widest) = shrinks.max_by_key(|at| widths[*at]) else {
                break;
            };
            widths[widest] = widths[widest].map(|width| width - 1);
        }
        if of(&widths) <= width {
            return widths;
        }
        if let Some(left_out) = optional.next() {
            let at = headers.iter().position(|header| header == left_out);
            // What is left has room again.
            let out = |now: usize| Some(now) == at || widths[now].is_none();
            widths = (0..widths.len())
                .map(|now| (!out(now)).then_some(natural[now]))
                .collect();
        } else if least > LEAST {
            least = LEAST;
        } else {
            return widths;
        }
    }
}

/// Of a state; the word says it all, colour only repeats it.
fn color(header: &str, cell: &str) -> Option<Color> {
    if !matches!(header, "STATE" | "STATUS") {
        return None;
    }
    match cell {
        "failing" | "flapping" | "dead" | "failed" | "Blocked" | "Invalid" => Some(Color::Red),
        "lagging" | "pending" | "abandoned" | "Expired" => Some(Color::Yellow),
        "ok" | "delivered" | "Accepted" => Some(Color::Green),
        _ => None,
    }
}

/// The details of one thing: labels with their values, then sections under titles.
#[derive(Debug, Default)]
pub(crate) struct Details {
    lines: Vec<(&'static str, String)>,
    sections: Vec<(&'static str, String)>,
}

impl Details {
    pub(crate) fn line(mut self, label: &'static str, value: impl Into<String>) -> Self {
        self.lines.push((label, value.into()));
        self
    }

    /// A section; an empty one is left out.
    pub(crate) fn section(mut self, title: &'static str, body: String) -> Self {
        if !body.is_empty() {
            self.sections.push((title, body));
        }
        self
    }

    pub(crate) fn draw(&self) -> String {
        let mut table = plain();
        for (label, value) in &self.lines {
            table.add_row([(*label).to_owned(), printable(value)]);
        }
        let mut text = drawn(&mut table);
        for (title, body) in &self.sections {
            let _ = write!(text, "\n\n{title}:");
            for line in body.lines() {
                let _ = write!(text, "\n  {line}");
            }
        }
        text
    }
}

/// What others wrote, fit for a terminal.
pub(crate) fn printable(text: &str) -> String {
    pipelet_printable::printable(text).into_owned()
}

fn plain() -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    table
}

fn drawn(table: &mut Table) -> String {
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_without_trailing_space() {
        let rows = [
            vec!["1".into(), "a name".into()],
            vec!["1234".into(), String::new()],
        ];
        assert_eq!(
            columns(&["ID", "NAME"], &rows, &[], Reader::Terminal(80)),
            "ID    NAME\n1     a name\n1234"
        );
    }

    #[test]
    fn a_terminal_is_never_too_narrow_and_a_pipe_has_it_whole() {
        let id = "evt_01a22bec3e287bdcb319e47130b2a428";
        let long = "no connection within the time that there is for it";
        let rows = [vec![
            id.into(),
            "2026-04-14T12:34:56Z".into(),
            "S1".into(),
            long.into(),
        ]];
        let headers = ["EVENT ID", "TIME", "STATION", "WHY"];
        let drawn = |width| {
            columns(
                &headers,
                &rows,
                &["STATION", "TIME"],
                Reader::Terminal(width),
            )
        };
        for width in 45..=130 {
            let widest = drawn(width).lines().map(terminal_width).max();
            assert!(
                widest.is_some_and(|widest| widest <= width),
                "{}",
                drawn(width)
            );
            assert!(drawn(width).contains(id), "{}", drawn(width));
        }
        assert!(drawn(130).ends_with(long));
        let words = wrapped("one two three", 9, 2);
        assert_eq!(words, "one two\n  three");
        assert!(drawn(70).contains(" 12:34:56Z"), "{}", drawn(70));
        let pipe = columns(&headers, &rows, &["TIME"], Reader::Pipe);
        let line = format!("{id}\t2026-04-14T12:34:56Z\tS1\t{long}");
        assert_eq!(pipe, format!("EVENT ID\tTIME\tSTATION\tWHY\n{line}"));
    }

    #[test]
    fn details_have_sections() {
        let details = Details::default()
            .line("id", "7")
            .line("name", "x")
            .section("attempts", "one\ntwo".into())
            .section("nothing", String::new());
        assert_eq!(
            details.draw(),
            "id    7\nname  x\n\nattempts:\n  one\n  two"
        );
    }
}
