//! JSON as YAML, for what block style has no room for.
//!
//! Pure.

use std::fmt::Write as _;

use pipelet_printable::{escape_where, is_unprintable};

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
    let safe = escape_where(&yaml, unprintable, |c, safe| {
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

#[cfg(test)]
mod tests {
    use super::*;

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
