//! Reads what callers say field by field, so that everything that is wrong is told at once.

use pipelet_domain::{
    repeated_keys,
    webhooks::{Fault, Field, Secret},
};
use serde_json::{Map, Value};

use super::error::ApiError;

/// More fields that are not known are not told: a megabyte of them needs no megabytes of complaint.
const MAX_UNKNOWN: usize = 64;

/// A JSON object, and what was wrong with the fields taken from it so far.
#[derive(Debug, Default)]
pub(super) struct Fields {
    fields: Map<String, Value>,
    faults: Vec<Fault>,
}

impl From<Map<String, Value>> for Fields {
    fn from(fields: Map<String, Value>) -> Self {
        let faults = Vec::new();
        Self { fields, faults }
    }
}

/// Which of two values is meant can't be known, so neither is taken (RFC 8259, section 4).
pub(super) fn refuse_repeated_keys(body: &[u8]) -> Result<(), ApiError> {
    match repeated_keys(body).first() {
        Some(pointer) => Err(ApiError::Malformed(format!(
            "the body has the key {pointer} twice: leave one of them out"
        ))),
        None => Ok(()),
    }
}

impl Fields {
    pub(super) fn parse(body: &[u8]) -> Result<Self, ApiError> {
        match serde_json::from_slice(body) {
            Ok(Value::Object(fields)) => {
                refuse_repeated_keys(body)?;
                Ok(fields.into())
            }
            Ok(_) => Err(ApiError::Malformed(
                "the body is not a JSON object".to_owned(),
            )),
            Err(error) => Err(ApiError::Malformed(format!(
                "the body is not JSON: {error}"
            ))),
        }
    }

    pub(super) fn string(&mut self, key: &str) -> Field<String> {
        self.take(key, "a string", |value| match value {
            Value::String(text) => Some(text),
            _ => None,
        })
    }

    pub(super) fn bool(&mut self, key: &str) -> Field<bool> {
        self.take(key, "true or false", |value| value.as_bool())
    }

    pub(super) fn number(&mut self, key: &str) -> Field<u64> {
        self.take(key, "a whole number", |value| whole(value).as_u64())
    }

    pub(super) fn strings(&mut self, key: &str) -> Field<Vec<String>> {
        let text = |value| match value {
            Value::String(text) => Some(text),
            _ => None,
        };
        self.take(key, "a list of strings", |value| match value {
            Value::Array(items) => items.into_iter().map(text).collect(),
            _ => None,
        })
    }

    /// Whatever it is.
    pub(super) fn value(&mut self, key: &str) -> Field<Value> {
        self.take(key, "a value", Some)
    }

    pub(super) fn secret(&mut self, key: &str) -> Field<Secret> {
        match self.string(key) {
            Field::Absent => Field::Absent,
            Field::Null => Field::Null,
            Field::Value(text) => Field::Value(Secret::new(text)),
        }
    }

    /// What was wrong; a field that nobody took is wrong too.
    pub(super) fn finish(self) -> Vec<Fault> {
        let mut faults = self.faults;
        faults.extend(self.fields.keys().take(MAX_UNKNOWN).map(|key| Fault {
            pointer: pointer(key),
            code: "unknown_field",
            message: "this field is not known here".to_owned(),
        }));
        faults
    }

    pub(super) fn take<T>(
        &mut self,
        key: &str,
        expected: &str,
        read: impl FnOnce(Value) -> Option<T>,
    ) -> Field<T> {
        let value = match self.fields.remove(key) {
            None => return Field::Absent,
            Some(Value::Null) => return Field::Null,
            Some(value) => value,
        };
        read(value).map_or_else(
            || {
                self.faults.push(Fault {
                    pointer: pointer(key),
                    code: "wrong_type",
                    message: format!("expected {expected}"),
                });
                Field::Absent
            },
            Field::Value,
        )
    }
}

/// JSON has one kind of number: 1.0 is as whole as 1 is (JSON Schema 2020-12, section 6.1.1), and
/// some languages write nothing else.
pub(super) fn whole(value: Value) -> Value {
    // Beyond, a float does not say which number is meant.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match value.as_f64() {
        Some(float) if value.is_f64() && float.fract() == 0.0 && float.abs() < EXACT => {
            format!("{float:.0}")
                .parse()
                .map_or(value, |number: i64| number.into())
        }
        _ => value,
    }
}

/// RFC 6901, section 3.
fn pointer(key: &str) -> String {
    format!("/{}", key.replace('~', "~0").replace('/', "~1"))
}

/// Faults of the request's shape, then those of its content at other places.
pub(super) fn merged(mut faults: Vec<Fault>, content: Vec<Fault>) -> Vec<Fault> {
    for fault in content {
        if !faults.iter().any(|known| known.pointer == fault.pointer) {
            faults.push(fault);
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_are_whole_however_they_are_written() {
        let check = |text: &str, expected: Value| {
            assert_eq!(
                whole(serde_json::from_str(text).unwrap()),
                expected,
                "{text}"
            );
        };
        check("1.0", 1.into());
        check("-2e2", (-200).into());
        check("-0.0", 0.into());
        check("1.5", 1.5.into());
        check("1e300", 1e300.into());
        check("18446744073709551615", u64::MAX.into());
        check(r#""1.0""#, "1.0".into());
    }

    #[test]
    fn a_megabyte_of_unknown_fields_is_told_in_short() {
        let fields: Map<String, Value> = (0..50_000)
            .map(|number| (number.to_string(), Value::Null))
            .collect();
        let body = Value::Object(fields).to_string();
        let faults = Fields::parse(body.as_bytes()).unwrap().finish();
        assert_eq!(faults.len(), MAX_UNKNOWN);
        assert!(faults.iter().all(|fault| fault.code == "unknown_field"));
    }
}
