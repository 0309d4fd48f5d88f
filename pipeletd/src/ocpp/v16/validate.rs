//! Holding a payload against the tables.

use jiff::Timestamp;
use pipelet_domain::events::{EventType, Payload};
use serde_json::{Map, Value};

use super::{
    schema::{Field, Kind},
    tables,
};
use crate::ocpp::wire::ErrorCode;

/// More than these are not listed: a megabyte of nonsense needs no megabytes of complaint.
const MAX_VIOLATIONS: usize = 64;

/// One fault of a payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// A JSON pointer (RFC 6901) into the payload.
    pub pointer: String,
    pub code: ErrorCode,
    pub message: String,
}

/// Every fault of a request's payload.
pub fn validate(action: EventType, payload: &Payload) -> Vec<Violation> {
    let mut faults = Faults(Vec::new());
    let Some(fields) = tables::request(action) else {
        return faults.0;
    };
    match serde_json::from_slice(payload.as_bytes()) {
        Ok(Value::Object(object)) => faults.check_object("", fields, &object),
        Ok(_) => faults.add("", ErrorCode::FormationViolation, "must be an object"),
        // As where half a character is escaped, or a number has an exponent of thousands.
        Err(error) => {
            let message = format!("can't be read: {error}");
            faults.add("", ErrorCode::FormationViolation, message);
        }
    }
    faults.0
}

/// A fault for each key that repeats one of its object. Stations send them and are forgiven, but we
/// send none: which of the two a station would take is not known, and [`validate`] sees the last
/// one only.
pub fn repeated_keys(payload: &Payload) -> Vec<Violation> {
    let pointers = pipelet_domain::repeated_keys(payload.as_bytes()).into_iter();
    let faults = pointers.map(|pointer| Violation {
        pointer,
        code: ErrorCode::PropertyConstraintViolation,
        message: "stands there twice".to_owned(),
    });
    faults.collect()
}

struct Faults(Vec<Violation>);

impl Faults {
    fn add(&mut self, pointer: &str, code: ErrorCode, message: impl Into<String>) {
        if self.0.len() < MAX_VIOLATIONS {
            self.0.push(Violation {
                pointer: pointer.to_owned(),
                code,
                message: message.into(),
            });
        }
    }

    fn check_object(&mut self, at: &str, fields: &[Field], object: &Map<String, Value>) {
        for field in fields {
            let at = format!("{at}/{}", field.name);
            match object.get(field.name) {
                Some(value) => self.check_field(&at, field, value),
                None if field.required => {
                    self.add(&at, ErrorCode::OccurrenceConstraintViolation, "is missing");
                }
                None => {}
            }
        }
        for name in object.keys() {
            if !fields.iter().any(|field| field.name == name) {
                // A name without end is cut: it points well enough.
                let name = &name[..name.floor_char_boundary(100)];
                let at = format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"));
                self.add(&at, ErrorCode::FormationViolation, "is not a known field");
            }
        }
    }

    fn check_field(&mut self, at: &str, field: &Field, value: &Value) {
        let Some(at_least) = field.at_least else {
            return self.check_value(at, field.kind, value);
        };
        let Value::Array(elements) = value else {
            return self.add(at, ErrorCode::TypeConstraintViolation, "must be an array");
        };
        if elements.len() < at_least {
            let message = format!("needs {at_least} element(s) or more");
            self.add(at, ErrorCode::OccurrenceConstraintViolation, message);
        }
        for (index, element) in elements.iter().enumerate() {
            self.check_value(&format!("{at}/{index}"), field.kind, element);
        }
    }

    fn check_value(&mut self, at: &str, kind: Kind, value: &Value) {
        match (kind, value) {
            (Kind::Object(fields), Value::Object(object)) => self.check_object(at, fields, object),
            (Kind::AnyText, Value::String(_)) => {}
            (Kind::Text(max), Value::String(text)) => {
                if text.chars().count() > max {
                    let message = format!("is longer than {max} characters");
                    self.add(at, ErrorCode::PropertyConstraintViolation, message);
                }
            }
            (Kind::Enum(names), Value::String(text)) => {
                if !names.contains(&text.as_str()) {
                    let message = format!("must be one of {}", names.join(", "));
                    self.add(at, ErrorCode::PropertyConstraintViolation, message);
                }
            }
            (Kind::DateTime, Value::String(text)) => {
                if text.parse::<Timestamp>().is_err() {
                    let message = "must be a time such as 2026-04-14T12:34:56Z";
                    self.add(at, ErrorCode::PropertyConstraintViolation, message);
                }
            }
            (Kind::Uri, Value::String(text)) => {
                if text.parse::<url::Url>().is_err() {
                    let message = "must be a URI";
                    self.add(at, ErrorCode::PropertyConstraintViolation, message);
                }
            }
            (Kind::Integer, Value::Number(number)) if number.is_i64() || number.is_u64() => {}
            (Kind::Decimal, Value::Number(number)) => {
                if !has_one_decimal(number.as_f64().unwrap_or(0.0)) {
                    let message = "may have one digit after the point";
                    self.add(at, ErrorCode::PropertyConstraintViolation, message);
                }
            }
            (kind, _) => self.add(at, ErrorCode::TypeConstraintViolation, kind.demand()),
        }
    }
}

impl Kind {
    const fn demand(self) -> &'static str {
        match self {
            Self::Text(_) | Self::AnyText | Self::Enum(_) | Self::Uri => "must be a string",
            Self::DateTime => "must be a string with a time",
            Self::Integer => "must be an integer",
            Self::Decimal => "must be a number",
            Self::Object(_) => "must be an object",
        }
    }
}

/// Binary floating point has no tenths, so near enough is enough.
fn has_one_decimal(number: f64) -> bool {
    let tenths = number * 10.0;
    (tenths - tenths.round()).abs() <= 1e-9 * tenths.abs().max(1.0)
}

#[cfg(test)]
#[path = "validate_tests.rs"]
mod tests;
