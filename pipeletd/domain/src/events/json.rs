//! Text that is known to be JSON, looked at without making values of it.
//!
//! One pass over the bytes each. Brackets and commas count outside of strings only.

use std::iter;

/// Whether arrays and objects are nested in more levels than these.
pub(super) fn is_deeper_than(levels: usize, json: &[u8]) -> bool {
    // Nearly always there are not so many brackets at all. To count them, those in strings too, takes
    // a tenth of the time: in runs whose count fits a byte, so that many are compared at once.
    let opening = json.chunks(255).map(|run| {
        let opening = run.iter().map(|byte| matches!(byte, b'{' | b'['));
        usize::from(opening.map(u8::from).sum::<u8>())
    });
    let opening: usize = opening.sum();
    if opening <= levels {
        return false;
    }
    let mut depth = 0_usize;
    punctuation(json).any(|(_, byte)| {
        depth = below(depth, byte);
        depth > levels
    })
}

/// The members of an object, each with the white space around it; one of white space alone where it
/// is empty.
pub(super) fn members(object: &[u8]) -> Vec<&[u8]> {
    let inner = object.trim_ascii();
    let inner = inner.strip_prefix(b"{").unwrap_or(inner);
    let inner = inner.strip_suffix(b"}").unwrap_or(inner);
    let (mut members, mut begin, mut depth) = (Vec::new(), 0, 0);
    for (at, byte) in punctuation(inner) {
        if byte == b',' && depth == 0 {
            members.push(&inner[begin..at]);
            begin = at + 1;
        }
        depth = below(depth, byte);
    }
    members.push(&inner[begin..]);
    members
}

/// Whether an object's member has this key, however it is escaped.
pub(super) fn is_named(member: &[u8], key: &str) -> bool {
    let mut json = serde_json::Deserializer::from_slice(member).into_iter::<String>();
    matches!(json.next(), Some(Ok(name)) if name == key)
}

/// The depth after this byte.
const fn below(depth: usize, byte: u8) -> usize {
    match byte {
        b'{' | b'[' => depth + 1,
        b'}' | b']' => depth.saturating_sub(1),
        _ => depth,
    }
}

/// Brackets and commas, and where they stand.
fn punctuation(json: &[u8]) -> impl Iterator<Item = (usize, u8)> {
    let mut next = 0;
    iter::from_fn(move || {
        loop {
            let at = next;
            let byte = *json.get(at)?;
            next += 1;
            match byte {
                b'"' => next += string_length(&json[next..]),
                b'{' | b'}' | b'[' | b']' | b',' => return Some((at, byte)),
                _ => {}
            }
        }
    })
}

/// Of the rest of a string, its closing quote included.
fn string_length(rest: &[u8]) -> usize {
    let mut escaped = false;
    let end = rest.iter().position(|byte| {
        let ends = *byte == b'"' && !escaped;
        escaped = *byte == b'\\' && !escaped;
        ends
    });
    end.map_or(rest.len(), |end| end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_is_that_of_brackets_outside_of_strings() {
        let check = |json: &str, depth: usize| {
            assert!(!is_deeper_than(depth, json.as_bytes()), "{json}");
            assert!(is_deeper_than(depth - 1, json.as_bytes()), "{json}");
        };
        check("{}", 1);
        check(r#"{"a":[],"b":[{}],"c":{}}"#, 3);
        check(r#"{"a":"[[[[","\"[[":["\\",["\\\"[[["]]}"#, 3);
        check(&format!("{}{}", "[".repeat(900), "]".repeat(900)), 900);
    }

    #[test]
    fn members_are_found_at_the_top_alone() {
        let check = |object: &str, expected: &[&str]| {
            let members = members(object.as_bytes());
            let members: Vec<&str> = members
                .into_iter()
                .map(|member| str::from_utf8(member).unwrap())
                .collect();
            assert_eq!(members, expected, "{object}");
        };
        check("{}", &[""]);
        check("{ }", &[" "]);
        check(
            r#"{ "a" : 1 ,"b":[1,2]}"#,
            &[r#" "a" : 1 "#, r#""b":[1,2]"#],
        );
        check(r#"{"a,\",":{"b":1,"c":2}}"#, &[r#""a,\",":{"b":1,"c":2}"#]);
        assert!(is_named(b" \"tr\\u0061nsaction\" : 1", "transaction"));
        assert!(!is_named(b"\"\\ud800\":1", "transaction"));
        assert!(!is_named(b" ", "transaction"));
    }
}
