//! A lenient view of one JSON object's fields, borrowed from its bytes.
//!
//! Chargers send fields twice, numbers as strings and integers as `1.0`; each accessor takes what
//! can be understood and gives `None` for the rest, so that one odd field spoils no other.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize,
    de::{Deserializer, MapAccess, Visitor},
};
use serde_json::value::RawValue;

/// The object's fields in their order; of a field that stands there twice, the last counts.
#[derive(Debug, Default)]
pub struct Fields<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Fields<'a> {
    /// What is no JSON object has no fields.
    pub fn parse(object: &'a [u8]) -> Self {
        serde_json::from_slice(object).unwrap_or_default()
    }

    /// The field's JSON text. `null` counts as missing.
    pub fn raw(&self, name: &str) -> Option<&'a str> {
        let field = self.0.iter().rev().find(|(key, _)| key == name);
        field
            .map(|(_, value)| value.get())
            .filter(|text| *text != "null")
    }

    pub fn has(&self, name: &str) -> bool {
        self.raw(name).is_some()
    }

    /// A string, or the text of a number.
    pub fn text(&self, name: &str) -> Option<Cow<'a, str>> {
        let raw = self.raw(name)?;
        match raw.as_bytes().first()? {
            b'"' => {
                let Text(text) = serde_json::from_str(raw).ok()?;
                Some(text)
            }
            b'-' | b'0'..=b'9' => Some(Cow::Borrowed(raw)),
            _ => None,
        }
    }

    /// A whole number, also where it was written `"1"`, `1.0` or `1e0`.
    pub fn integer(&self, name: &str) -> Option<i64> {
        whole(self.text(name)?.trim())
    }
}

/// The value of a decimal number that is a whole one. Exact: floating point would round.
fn whole(text: &str) -> Option<i64> {
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (integer, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let fraction = fraction.trim_end_matches('0');
    let digits: i128 = format!("{integer}{fraction}").parse().ok()?;
    let exponent: i64 = exponent.parse().ok()?;
    let shift = exponent.checked_sub(fraction.len().try_into().ok()?)?;
    let power = 10_i128.checked_pow(shift.unsigned_abs().try_into().ok()?)?;
    let value = if shift >= 0 {
        digits.checked_mul(power)?
    } else if digits % power == 0 {
        digits / power
    } else {
        return None;
    };
    value.try_into().ok()
}

#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;

        impl<'de> Visitor<'de> for Collect {
            type Value = Vec<(Cow<'de, str>, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::new();
                while let Some((Text(key), value)) = map.next_entry()? {
                    fields.push((key, value));
                }
                Ok(fields)
            }
        }

        deserializer.deserialize_map(Collect).map(Fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_come_in_many_spellings() {
        let check = |value: &str, expected| {
            let object = format!(r#"{{"n":{value}}}"#);
            assert_eq!(
                Fields::parse(object.as_bytes()).integer("n"),
                expected,
                "{value}"
            );
        };
        check("1", Some(1));
        check("-1", Some(-1));
        check("1.0", Some(1));
        check("\"17\"", Some(17));
        check("9223372036854775807", Some(i64::MAX));
        check("9223372036854775808", None);
        check("1.5", None);
        check("1e3", Some(1000));
        check("-1.250E+2", Some(-125));
        check("1500e-2", Some(15));
        check("1501e-2", None);
        check("12.7", None);
        check("1e19", None);
        check("1e99999999999999999999", None);
        check("1e-99999", None);
        check("\"1.-5\"", None);
        check("\"e\"", None);
        check("null", None);
        check("[1]", None);
        check("\"one\"", None);
    }

    #[test]
    fn the_last_of_a_doubled_field_counts() {
        let fields = Fields::parse(br#"{"id\u0054ag":"a","idTag":"b\n","x":{"idTag":"c"}}"#);
        assert_eq!(fields.text("idTag").as_deref(), Some("b\n"));
        assert_eq!(fields.raw("x"), Some(r#"{"idTag":"c"}"#));
        assert!(!fields.has("y"));
    }

    #[test]
    fn what_is_no_object_has_no_fields() {
        for text in ["", "[]", "null", "{", "\u{fe}"] {
            assert!(!Fields::parse(text.as_bytes()).has("a"), "{text}");
        }
    }
}
