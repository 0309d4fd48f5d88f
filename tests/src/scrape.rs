//! What a scrape of `/metrics` said, as Prometheus reads it.

use std::collections::{BTreeMap, BTreeSet};

/// A scrape.
#[derive(Debug, Clone)]
pub struct Scrape {
    pub text: String,
    /// By name and labels, as they stand in the text: `name` or `name{a="b"}`.
    samples: BTreeMap<String, f64>,
    /// The names after `# TYPE`.
    families: BTreeSet<String>,
}

impl Scrape {
    /// Reads the text; a line that is none of the format's fails the test.
    pub fn of(text: String) -> Self {
        let (mut samples, mut families) = (BTreeMap::new(), BTreeSet::new());
        for line in text.lines() {
            if let Some(typed) = line.strip_prefix("# TYPE ") {
                let (name, _) = typed.split_once(' ').expect("a type");
                assert!(families.insert(name.to_owned()), "{name} comes twice");
            } else if !line.starts_with("# HELP ") {
                let (series, value) = line.rsplit_once(' ').expect("a sample");
                let value = value
                    .parse()
                    .unwrap_or_else(|_| panic!("no sample: {line}"));
                let before = samples.insert(series.to_owned(), value);
                assert_eq!(before, None, "{series} comes twice");
            }
        }
        Self {
            text,
            samples,
            families,
        }
    }

    /// With what only another daemon has.
    #[must_use]
    pub fn and(mut self, other: &Self) -> Self {
        let samples = other
            .samples
            .iter()
            .map(|(name, value)| (name.clone(), *value));
        self.samples.extend(samples);
        self.families.extend(other.families.iter().cloned());
        self
    }

    /// The value of a series, written as in the text.
    pub fn get(&self, series: &str) -> Option<f64> {
        self.samples.get(series).copied()
    }

    /// Whether there are metrics of this name; a histogram's have three.
    pub fn has(&self, name: &str) -> bool {
        let histogram = ["_bucket", "_sum", "_count"];
        let stem = histogram.iter().find_map(|end| name.strip_suffix(end));
        self.families.contains(name) || stem.is_some_and(|stem| self.families.contains(stem))
    }

    pub fn families(&self) -> impl Iterator<Item = &str> {
        self.families.iter().map(String::as_str)
    }

    /// The series whose name and labels have this in them.
    pub fn with(&self, part: &str) -> Vec<&str> {
        let series = self.samples.keys().filter(|series| series.contains(part));
        series.map(String::as_str).collect()
    }
}
