//! Text that others wrote, with nothing in it that a terminal obeys or hides.
//!
//! Control characters move the cursor and change colours; characters that turn the direction of
//! text or have no width make a name look like another. Chargers and receivers write both, so
//! what they wrote is escaped before the daemon logs it and before the tool prints it.
//!
//! Pure: both programs use it.

use std::{borrow::Cow, fmt::Write as _};

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

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

/// `text` on one line, with escapes as Rust writes them: `\n`, `\u{1b}`, `\u{202e}`.
pub fn printable(text: &str) -> Cow<'_, str> {
    escape_where(text, is_unprintable, escape_default)
}

/// The same for a text of many lines, whose line breaks and tabs stay.
pub fn printable_lines(text: &str) -> Cow<'_, str> {
    let unprintable = |c| is_unprintable(c) && c != '\n' && c != '\t';
    escape_where(text, unprintable, escape_default)
}

/// A JSON text with the same value (RFC 8259, section 7).
///
/// Outside of its strings, and raw in them, JSON has only control characters that end a line or
/// indent it.
pub fn printable_json(text: &str) -> Cow<'_, str> {
    let unprintable = |c| is_unprintable(c) && !c.is_ascii_whitespace();
    escape_where(text, unprintable, |c, safe| {
        for unit in c.encode_utf16(&mut [0; 2]) {
            let _ = write!(safe, "\\u{unit:04x}");
        }
    })
}

/// At most `width` printable characters; `…` stands for the rest.
pub fn shortened(text: &str, width: usize) -> String {
    let safe = printable(text);
    if safe.width() <= width {
        return safe.into_owned();
    }
    let mut left = width.saturating_sub(1);
    let fits = |c: &char| match left.checked_sub(c.width().unwrap_or(0)) {
        Some(rest) => {
            left = rest;
            true
        }
        None => false,
    };
    let mut short: String = safe.chars().take_while(fits).collect();
    short.push('…');
    short
}

/// How many columns of a terminal it takes (Unicode Standard Annex 11): two for each ideograph.
pub fn width(text: &str) -> usize {
    printable(text).width()
}

/// The way in which Rust escapes a character.
pub fn escape_default(c: char, safe: &mut String) {
    safe.extend(c.escape_default());
}

/// Replaces the characters for which `unprintable` holds by what `escape` writes for them.
pub fn escape_where(
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
    fn what_people_read_shows_what_is_hidden() {
        for (text, shown) in [
            ("Zoë 东京 €", "Zoë 东京 €"),
            ("\u{1b}[31mred\n", "\\u{1b}[31mred\\n"),
            ("\u{9b}31m", "\\u{9b}31m"),
            ("txt.\u{202e}exe", "txt.\\u{202e}exe"),
            ("a\u{200b}b\u{feff}", "a\\u{200b}b\\u{feff}"),
            ("\u{e0041}", "\\u{e0041}"),
        ] {
            assert_eq!(printable(text), shown);
        }
        assert_eq!(printable_lines("a\u{202e}\nb"), "a\\u{202e}\nb");
    }

    #[test]
    fn json_keeps_its_value() {
        let json = printable_json("{\"a\":\n\t\"\u{202e}\u{e0041}\u{9b}Zoë\"}");
        assert_eq!(json, "{\"a\":\n\t\"\\u202e\\udb40\\udc41\\u009bZoë\"}");
    }

    #[test]
    fn a_short_text_is_bounded_and_harmless() {
        assert_eq!(shortened("abcdef", 6), "abcdef");
        assert_eq!(shortened("abcdefg", 6), "abcde…");
        assert_eq!(shortened("充电站三号", 6), "充电…");
        assert_eq!(shortened("\u{1b}[31m\u{202e}", 9), "\\u{1b}[3…");
    }
}
