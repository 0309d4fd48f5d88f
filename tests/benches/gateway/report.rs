//! What was measured: tables for people, numbers for machines, and the bars that they are
//! held to.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::{self, Write as _},
};

use serde_json::{Value, json};

use super::{histogram::Histogram, process};

/// The shares at which a latency's distribution is drawn.
const SHARES: [f64; 13] = [
    0.0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9999,
];

#[derive(Debug)]
pub(crate) struct Report {
    machine: String,
    date: String,
    command: String,
    tables: Vec<Table>,
    values: BTreeMap<String, f64>,
    distributions: Vec<Distribution>,
    faults: Vec<String>,
}

#[derive(Debug, Clone)]
pub(crate) struct Table {
    title: &'static str,
    columns: &'static [&'static str],
    rows: Vec<Vec<String>>,
    notes: Vec<String>,
}

/// A latency's quantiles, for the plot.
#[derive(Debug)]
pub(crate) struct Distribution {
    pub(crate) name: String,
    /// A share of the samples, and the milliseconds that it stayed below.
    pub(crate) points: Vec<(f64, f64)>,
}

impl Report {
    #[expect(
        clippy::disallowed_methods,
        reason = "the date of a measurement, which nothing else depends on"
    )]
    pub(crate) fn new() -> Self {
        let arguments = std::env::args().skip(1);
        let arguments: Vec<_> = arguments
            .filter(|argument| argument != "--bench" && argument != "--write-results")
            .collect();
        let command = "cargo bench -p pipelet-tests --bench gateway";
        Self {
            machine: process::machine(),
            date: jiff::Timestamp::now()
                .strftime("%Y-%m-%d %H:%M UTC")
                .to_string(),
            command: match arguments.join(" ") {
                none if none.is_empty() => command.to_owned(),
                some => format!("{command} -- {some}"),
            },
            tables: Vec::new(),
            values: BTreeMap::new(),
            distributions: Vec::new(),
            faults: Vec::new(),
        }
    }

    /// Keeps a table, and shows it at once: a whole run takes long.
    pub(crate) fn add(&mut self, table: Table) -> io::Result<()> {
        writeln!(io::stdout(), "{}", table.markdown())?;
        self.tables.push(table);
        Ok(())
    }

    pub(crate) fn set(&mut self, name: impl Into<String>, value: f64) {
        self.values.insert(name.into(), value);
    }

    pub(crate) fn value(&self, name: &str) -> Option<f64> {
        self.values.get(name).copied()
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = (&str, f64)> {
        let values = self.values.iter();
        values.map(|(name, value)| (name.as_str(), *value))
    }

    pub(crate) fn distribution(&mut self, name: impl Into<String>, samples: &Histogram) {
        self.distributions.push(Distribution {
            name: name.into(),
            points: SHARES
                .iter()
                .map(|share| (*share, samples.quantile_ms(*share)))
                .collect(),
        });
    }

    pub(crate) fn distributions(&self) -> &[Distribution] {
        &self.distributions
    }

    /// Notes what was lost, or told twice, where it must not be.
    pub(crate) fn fault(&mut self, what: String) {
        self.faults.push(what);
    }

    pub(crate) fn faults(&self) -> &[String] {
        &self.faults
    }

    pub(crate) fn markdown(&self) -> String {
        let mut text = format!(
            "# Results\n\n- machine: {}\n- date: {}\n- command: `{}`\n\n\
             Gateways, stations and receivers share the machine: read the ratios.\n\n",
            self.machine, self.date, self.command
        );
        for table in &self.tables {
            let _ = writeln!(text, "{}", table.markdown());
        }
        text
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "machine": self.machine,
            "date": self.date,
            "command": self.command,
            "values": self.values,
            "faults": self.faults,
            "tables": self.tables.iter().map(Table::json).collect::<Vec<_>>(),
        })
    }
}

impl Table {
    pub(crate) fn new(title: &'static str, columns: &'static [&'static str]) -> Self {
        Self {
            title,
            columns,
            rows: Vec::new(),
            notes: Vec::new(),
        }
    }

    pub(crate) fn row(&mut self, cells: Vec<String>) {
        assert_eq!(cells.len(), self.columns.len(), "{}: {cells:?}", self.title);
        self.rows.push(cells);
    }

    pub(crate) fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    fn markdown(&self) -> String {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let columns: Vec<_> = self.columns.iter().map(ToString::to_string).collect();
        let mut text = format!("## {}\n\n{}", self.title, line(&columns));
        let _ = writeln!(text, "|{}", "---|".repeat(columns.len()));
        for row in &self.rows {
            text.push_str(&line(row));
        }
        for note in &self.notes {
            let _ = write!(text, "\n{note}\n");
        }
        text
    }

    fn json(&self) -> Value {
        let rows = self.rows.iter().map(|row| {
            let cells = self.columns.iter().zip(row);
            cells
                .map(|(column, cell)| ((*column).to_owned(), json!(cell)))
                .collect::<serde_json::Map<_, _>>()
        });
        json!({"title": self.title, "rows": rows.collect::<Vec<_>>(), "notes": self.notes})
    }
}

pub(crate) fn thousands(per_second: f64) -> String {
    format!("{:.1} k", per_second / 1e3)
}

pub(crate) fn ms(milliseconds: f64) -> String {
    format!("{milliseconds:.2} ms")
}

pub(crate) fn mib(bytes: f64) -> String {
    format!("{:.0} MiB", bytes / f64::from(1 << 20))
}

/// A count as a number to reckon with.
#[expect(clippy::cast_precision_loss, reason = "no count here reaches 2^52")]
pub(crate) fn float(count: u64) -> f64 {
    count as f64
}
