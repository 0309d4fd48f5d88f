//! The configuration file: TOML, with a setting under its flag's name on each line.
//!
//! It is read into texts and where they stand; what they mean is for others to say. All that is
//! wrong with it is said at once.

use std::{
    ffi::OsString,
    fmt, fs,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::Fault;

/// A place in the file; lines and columns count from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    pub file: Arc<PathBuf>,
    pub line: usize,
    pub column: usize,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file.display(), self.line, self.column)
    }
}

/// What stands under a name.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) values: Vec<OsString>,
    /// Whether it was written as a list.
    pub(super) is_list: bool,
    pub(super) named_at: Position,
    pub(super) at: Position,
}

/// The entries of the file, and what can't be one.
pub(super) fn read(path: &Path) -> (Vec<Entry>, Vec<Fault>) {
    match fs::read_to_string(path) {
        Ok(text) => parse(&text, path),
        Err(source) => {
            let path = path.to_owned();
            (Vec::new(), vec![Fault::Read { path, source }])
        }
    }
}

pub(super) fn parse(text: &str, path: &Path) -> (Vec<Entry>, Vec<Fault>) {
    let file = Arc::new(path.to_owned());
    let position = |span: Range<usize>| position(text, span.start, &file);
    let (table, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        // What is left of a file that is not TOML says little.
        let faults = errors.iter().map(|error| Fault::Syntax {
            at: position(error.span().unwrap_or_default()),
            why: error.message().replace('\n', "; "),
        });
        return (Vec::new(), faults.collect());
    }
    let (mut entries, mut faults) = (Vec::new(), Vec::new());
    for (name, value) in table.get_ref() {
        let at = position(value.span());
        let is_list = value.get_ref().is_array();
        match texts(value) {
            Some(values) => entries.push(Entry {
                name: name.get_ref().to_string(),
                values,
                is_list,
                named_at: position(name.span()),
                at,
            }),
            None => faults.push(Fault::Kind {
                at,
                name: name.get_ref().to_string(),
                kind: value.get_ref().type_str(),
            }),
        }
    }
    (entries, faults)
}

/// A value as a flag would have it; none where a flag has no such thing.
fn texts(value: &Spanned<DeValue<'_>>) -> Option<Vec<OsString>> {
    match value.get_ref() {
        DeValue::Array(values) => values.iter().map(text).collect(),
        _ => Some(vec![text(value)?]),
    }
}

fn text(value: &Spanned<DeValue<'_>>) -> Option<OsString> {
    match value.get_ref() {
        DeValue::String(text) => Some(text.to_string().into()),
        DeValue::Integer(number) => {
            let number = i128::from_str_radix(number.as_str(), number.radix()).ok()?;
            Some(number.to_string().into())
        }
        DeValue::Boolean(truth) => Some(truth.to_string().into()),
        DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => None,
    }
}

fn position(text: &str, offset: usize, file: &Arc<PathBuf>) -> Position {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |end| end + 1);
    Position {
        file: Arc::clone(file),
        line: before.matches('\n').count() + 1,
        column: before[line_start..].chars().count() + 1,
    }
}
