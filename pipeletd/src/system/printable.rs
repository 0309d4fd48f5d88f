//! Text that others wrote, for logs and metrics: with nothing in it that a terminal obeys or hides.
//!
//! Pure. `pipeletctl` holds the same characters back.

use std::{borrow::Cow, fmt::Write as _};

/// Control characters (Cc), line separators, and what Unicode has no glyph for: bidirectional
/// controls and all else that may be ignored when it is drawn (`Default_Ignorable_Code_Point`).
pub fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}'
            | '\u{34f}'
            | '\u{61c}'
            | '\u{115f}'..='\u{1160}'
            | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}'
            | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}'
            | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}')
}

/// Escapes as Rust writes them: `\n`, `\u{202e}`.
pub fn printable(text: &str) -> Cow<'_, str> {
    escaped(text, is_unprintable, |c, safe| {
        safe.extend(c.escape_default());
    })
}

/// A line of the log, which keeps its colours and its end.
pub fn log_line(line: &str) -> Cow<'_, str> {
    let (line, end) = line
        .strip_suffix('\n')
        .map_or((line, ""), |line| (line, "\n"));
    // The subscriber has escaped what begins a sequence in a value.
    let unprintable = |c| is_unprintable(c) && c != '\u{1b}';
    match escaped(line, unprintable, |c, safe| safe.extend(c.escape_default())) {
        Cow::Borrowed(line) if end.is_empty() => line.into(),
        line => (line.into_owned() + end).into(),
    }
}

/// A line of JSON with the same value (RFC 8259, section 7).
pub fn json_line(line: &str) -> Cow<'_, str> {
    let unprintable = |c| is_unprintable(c) && !c.is_ascii_whitespace();
    escaped(line, unprintable, |c, safe| {
        for unit in c.encode_utf16(&mut [0; 2]) {
            let _ = write!(safe, "\\u{unit:04x}");
        }
    })
}

fn escaped(
    text: &str,
    unprintable: impl Fn(char) -> bool,
    escape: impl Fn(char, &mut String),
) -> Cow<'_, str> {
    if !text.contains(&unprintable) {
        return text.into();
    }
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if unprintable(c) {
            escape(c, &mut safe);
        } else {
            safe.push(c);
        }
    }
    safe.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_hidden_is_shown() {
        assert_eq!(printable("Zoë 东京"), "Zoë 东京");
        assert_eq!(
            printable("a\u{202e}b\u{200b}\u{9b}\n"),
            "a\\u{202e}b\\u{200b}\\u{9b}\\n"
        );
        assert_eq!(log_line("\u{1b}[2mx\u{1b}[0m\n"), "\u{1b}[2mx\u{1b}[0m\n");
        assert_eq!(log_line("a\nINFO b\u{2066}\n"), "a\\nINFO b\\u{2066}\n");
        let json = json_line("{\"a\":\"\u{202e}\u{e0041}\u{9b}\"}\n");
        assert_eq!(json, "{\"a\":\"\\u202e\\udb40\\udc41\\u009b\"}\n");
    }
}
