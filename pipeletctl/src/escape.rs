//! What a terminal must not be given raw, written as escapes.
//!
//! Control characters move the cursor and change colours; those that turn the direction of text or
//! have no width make a name look like another. Chargers and receivers write both, so nothing that
//! they wrote reaches the terminal with one in it, whatever the output's format. Pure.

use std::{borrow::Cow, fmt::Write as _};

/// Control characters (Cc), line separators, and what Unicode has no glyph for: bidirectional
/// controls and all else that may be ignored when it is drawn (`Default_Ignorable_Code_Point`). The
/// daemon has the same for its log.
pub(crate) fn is_unprintable(c: char) -> bool {
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

/// `text` on one line, for people: `\n`, `\u{1b}`, `\u{202e}`.
pub(crate) fn printable(text: &str) -> String {
    escaped(text, is_unprintable, |c, safe| {
        safe.extend(c.escape_default());
    })
    .into_owned()
}

/// The same for a text of many lines, whose line breaks and tabs stay.
pub(crate) fn printable_lines(text: &str) -> Cow<'_, str> {
    let unprintable = |c| is_unprintable(c) && c != '\n' && c != '\t';
    escaped(text, unprintable, |c, safe| safe.extend(c.escape_default()))
}

/// A JSON text with the same value (RFC 8259, section 7).
///
/// Outside of its strings, and raw in them, JSON has only control characters that end a line or
/// indent it.
pub(crate) fn json(text: &str) -> Cow<'_, str> {
    let unprintable = |c| is_unprintable(c) && !c.is_ascii_whitespace();
    escaped(text, unprintable, |c, safe| {
        for unit in c.encode_utf16(&mut [0; 2]) {
            let _ = write!(safe, "\\u{unit:04x}");
        }
    })
}

/// A JSON text as YAML on one line, for what can't be block style: YAML 1.2 takes JSON but for its
/// pairs of surrogates. A surrogate that is alone, which no YAML may have, becomes U+FFFD.
pub(crate) fn yaml_of_json(text: &str) -> String {
    let mut yaml = String::with_capacity(text.len());
    let mut rest = text;
    // JSON has backslashes in its strings only.
    while let Some((plain, escape)) = rest.split_once('\\') {
        yaml.push_str(plain);
        let Some((c, left)) = escape.strip_prefix('u').map(surrogates) else {
            let end = escape.chars().next().map_or(0, char::len_utf8);
            yaml.push('\\');
            yaml.push_str(&escape[..end]);
            rest = &escape[end..];
            continue;
        };
        match c {
            '"' | '\\' => yaml.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(yaml, "\\u{:04x}", u32::from(c));
            }
            c => yaml.push(c),
        }
        rest = left;
    }
    yaml.push_str(rest);
    let unprintable = |c| is_unprintable(c) && c != '\n' && c != '\r' && c != '\t';
    let safe = escaped(&yaml, unprintable, |c, safe| {
        let _ = match u32::from(c) {
            short @ ..=0xffff => write!(safe, "\\u{short:04x}"),
            long => write!(safe, "\\U{long:08x}"),
        };
    });
    // YAML takes no tab where JSON takes one, and a line break means nothing to either.
    safe.replace(['\t', '\n', '\r'], " ")
}

/// The character that begins with these digits of an `\u`, and what is behind it.
fn surrogates(digits: &str) -> (char, &str) {
    let unit = |digits: &str| u16::from_str_radix(digits.get(..4)?, 16).ok();
    let Some(first) = unit(digits) else {
        return (char::REPLACEMENT_CHARACTER, digits);
    };
    let left = &digits[4..];
    let second = left.strip_prefix("\\u").and_then(unit);
    let paired = second.and_then(|second| char::decode_utf16([first, second]).next()?.ok());
    match (char::from_u32(u32::from(first)), paired) {
        (Some(c), _) => (c, left),
        (None, Some(c)) => (c, &left[6..]),
        (None, None) => (char::REPLACEMENT_CHARACTER, left),
    }
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
        let told = "\u{9b}31m \u{202e}\u{200d}\u{7f}\u{e0041} \u{1b} \"\\ Zoë";
        let value = serde_json::json!({ "a": told });
        let text = serde_json::to_string_pretty(&value).unwrap();
        let safe = json(&text);
        assert!(
            safe.contains("\\u009b31m \\u202e\\u200d\\u007f\\udb40\\udc41"),
            "{safe}"
        );
        assert!(safe.contains("Zoë") && safe.contains("\n  "), "{safe}");
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&safe).unwrap(),
            value
        );
    }

    #[test]
    fn json_becomes_yaml() {
        for (json, yaml) in [
            (r#"{"a":1e400,"b":[]}"#, r#"{"a":1e400,"b":[]}"#),
            (r#""\ud83d\ude00\u00e4""#, "\"😀ä\""),
            (r#""\ud800x\udc00\ud800""#, "\"\u{fffd}x\u{fffd}\u{fffd}\""),
            (r#""\u0022\u005c\u001b\n\/\\u""#, r#""\"\\\u001b\n\/\\u""#),
            ("\"\u{202e}\u{e0041}\"", r#""\u202e\U000e0041""#),
            ("{\t\"a\":\n1}", "{ \"a\": 1}"),
        ] {
            assert_eq!(yaml_of_json(json), yaml);
        }
        // Of strings that YAML can have, it makes the same value.
        let text = r#"{"a":"\ud83d\ude00 \u0000\u2028\u202e\"\\\/"}"#;
        let value: serde_json::Value = serde_json::from_str(text).unwrap();
        let read: serde_json::Value = serde_yaml_ng::from_str(&yaml_of_json(text)).unwrap();
        assert_eq!(read, value);
    }
}
