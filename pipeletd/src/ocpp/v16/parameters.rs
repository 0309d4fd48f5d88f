//! A request's payload from names and texts, as a command line gives them.
//!
//! The tables say what a text stands for, so that `idTag=42` stays a string and `connectorId=1`
//! becomes a number. Whether the payload is right is for the validation to say.

use pipelet_domain::events::{EventType, Payload};
use serde_json::{Map, Value};

use super::{
    schema::{Field, Kind},
    tables,
};

/// A parameter that stands there twice adds to an array, or else replaces the one before.
pub fn payload_of<'a>(
    action: EventType,
    parameters: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Payload {
    let fields = tables::request(action).unwrap_or_default();
    let mut object = Map::new();
    for (name, text) in parameters {
        let field = fields.iter().find(|field| field.name == name);
        let value = match (field, object.remove(name)) {
            (Some(field), before) if field.at_least.is_some() => elements(field, text, before),
            (Some(field), _) => value(field.kind, text),
            (None, _) => Value::from(text),
        };
        object.insert(name.to_owned(), value);
    }
    Payload::parse(Value::Object(object).to_string().as_bytes())
        .unwrap_or_else(|_| Payload::empty())
}

/// A whole array as JSON, or one more element.
fn elements(field: &Field, text: &str, before: Option<Value>) -> Value {
    if let Ok(array @ Value::Array(_)) = serde_json::from_str(text) {
        return array;
    }
    let mut elements = match before {
        Some(Value::Array(elements)) => elements,
        Some(_) | None => Vec::new(),
    };
    elements.push(value(field.kind, text));
    Value::Array(elements)
}

fn value(kind: Kind, text: &str) -> Value {
    match kind {
        Kind::Text(_) | Kind::AnyText | Kind::Enum(_) | Kind::DateTime | Kind::Uri => {
            Value::from(text)
        }
        // A text that is no JSON stays one, and the validation says what it should have been.
        Kind::Integer | Kind::Decimal | Kind::Object(_) => {
            serde_json::from_str(text).unwrap_or_else(|_| Value::from(text))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_say_what_a_text_stands_for() {
        let check = |action, parameters: &[(&str, &str)], expected: &str| {
            let payload = payload_of(action, parameters.iter().copied());
            assert_eq!(payload, Payload::parse(expected.as_bytes()).unwrap());
        };
        check(EventType::ClearCache, &[], "{}");
        check(
            EventType::RemoteStartTransaction,
            &[("connectorId", "1"), ("idTag", "42")],
            r#"{"connectorId":1,"idTag":"42"}"#,
        );
        check(
            EventType::ChangeConfiguration,
            &[("key", "K"), ("value", "true")],
            r#"{"key":"K","value":"true"}"#,
        );
        check(
            EventType::GetConfiguration,
            &[("key", "A"), ("key", "B")],
            r#"{"key":["A","B"]}"#,
        );
        check(
            EventType::GetConfiguration,
            &[("key", r#"["A","B"]"#)],
            r#"{"key":["A","B"]}"#,
        );
        check(
            EventType::DeleteCertificate,
            &[("certificateHashData", r#"{"serialNumber":"7"}"#)],
            r#"{"certificateHashData":{"serialNumber":"7"}}"#,
        );
        check(
            EventType::UnlockConnector,
            &[("connectorId", "one"), ("x", "1")],
            r#"{"connectorId":"one","x":"1"}"#,
        );
    }
}
