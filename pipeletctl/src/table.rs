//! Draws what people read: tables, and the details of one thing.
//!
//! Invariants: the text is the same on a terminal and in a pipe; no cell is wider than
//! `MAX_CELL`; nothing that a charger or a receiver wrote can move the cursor or change colours.

use std::fmt::Write as _;

use comfy_table::{ContentArrangement, Table, presets};

pub(crate) use pipelet_printable::shortened;

const MAX_CELL: usize = 48;

/// Columns under their headers.
pub(crate) fn columns(headers: &[&str], rows: &[Vec<String>]) -> String {
    let mut table = plain();
    table.set_header(headers.iter().copied());
    for row in rows {
        table.add_row(row.iter().map(|cell| shortened(cell, MAX_CELL)));
    }
    drawn(&mut table)
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
            columns(&["ID", "NAME"], &rows),
            "ID    NAME\n1     a name\n1234"
        );
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
