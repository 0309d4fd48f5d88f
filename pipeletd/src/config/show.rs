//! What holds, as a configuration file or as JSON; with where it comes from, where asked for.

use std::{ffi::OsString, fmt::Write as _, path::Path};

use serde_json::json;

use super::{Origin, Setting};

/// A configuration file that says the same. What has no value is a comment in it.
pub fn as_toml(settings: &[Setting], with_origin: bool) -> String {
    let lines: Vec<_> = settings.iter().map(line).collect();
    // Long ones don't push everybody's origin to the right.
    let width = lines.iter().map(|line| line.chars().count());
    let width = width.filter(|width| *width <= 60).max().unwrap_or(0);
    let mut text = String::new();
    for (line, setting) in lines.iter().zip(settings) {
        if with_origin && (setting.is_list || !setting.values.is_empty()) {
            let origin = shown(&setting.origin);
            // To write into a string never fails.
            let _ = writeln!(text, "{line:width$}  # {origin}");
        } else {
            let _ = writeln!(text, "{line}");
        }
    }
    text
}

/// An object with a key for each setting; what has no value is `null`.
pub fn as_json(settings: &[Setting], with_origin: bool) -> String {
    let entry = |setting: &Setting| {
        let value = value(setting);
        let shown = if with_origin {
            json!({ "value": value, "origin": origin(&setting.origin) })
        } else {
            value
        };
        (setting.name.clone(), shown)
    };
    let object: serde_json::Map<_, _> = settings.iter().map(entry).collect();
    format!("{:#}\n", serde_json::Value::Object(object))
}

fn line(setting: &Setting) -> String {
    let name = &setting.name;
    match value(setting) {
        serde_json::Value::Null => format!("# {name} is not set"),
        value => match toml::Value::try_from(value) {
            Ok(value) => format!("{name} = {value}"),
            Err(_) => format!("# {name} can't be written here"),
        },
    }
}

/// Numbers and truth values as such; anything else is a text.
fn value(setting: &Setting) -> serde_json::Value {
    let typed = |text: &OsString| match &*text.to_string_lossy() {
        "true" => json!(true),
        "false" => json!(false),
        // A directory may be called 007.
        text => match text.parse::<i64>() {
            Ok(number) if number.to_string() == text => json!(number),
            Ok(_) | Err(_) => json!(text),
        },
    };
    match setting.values.as_slice() {
        values if setting.is_list => values
            .iter()
            .map(|text| json!(text.to_string_lossy()))
            .collect(),
        [] => serde_json::Value::Null,
        [value, ..] => typed(value),
    }
}

fn shown(origin: &Origin) -> String {
    match origin {
        Origin::Default => "default".to_owned(),
        Origin::Dev => "default with dev".to_owned(),
        Origin::Flag(_) => format!("flag {origin}"),
        Origin::Variable(_) => format!("variable {origin}"),
        // A line break in a path must not end the comment.
        Origin::File(at) => {
            let file = at.file.to_string_lossy().replace(char::is_control, "?");
            format!("{file}:{}", at.line)
        }
    }
}

fn origin(origin: &Origin) -> serde_json::Value {
    match origin {
        Origin::Default => json!({ "kind": "default" }),
        Origin::Dev => json!({ "kind": "default", "with": "dev" }),
        Origin::Flag(_) => json!({ "kind": "flag", "flag": origin.to_string() }),
        Origin::Variable(name) => json!({ "kind": "variable", "variable": name }),
        Origin::File(at) => {
            let file: &Path = &at.file;
            json!({ "kind": "file", "file": file, "line": at.line, "column": at.column })
        }
    }
}
