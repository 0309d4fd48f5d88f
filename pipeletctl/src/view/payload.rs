//! A raw OCPP message body.
//!
//! Invariant: its text is the station's, to the byte, but always on one line.

use serde::Serialize;
use serde_json::value::RawValue;

use crate::table::printable;

#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct Payload(Box<RawValue>);

impl Payload {
    /// Text that is no JSON becomes a JSON string: shown rather than lost.
    pub(super) fn from_wire(text: String) -> Self {
        // JSON has line breaks between its tokens only, so they carry no meaning; within a
        // line-delimited output they would.
        let line = if text.contains(['\n', '\r']) {
            text.replace(['\n', '\r'], " ")
        } else {
            text
        };
        let raw = RawValue::from_string(line.clone())
            .or_else(|_| RawValue::from_string(serde_json::Value::from(line).to_string()));
        Self(raw.unwrap_or_default())
    }

    pub(super) fn as_text(&self) -> &str {
        self.0.get()
    }

    /// Over several lines, for people, the keys in their order.
    pub(super) fn indented(&self) -> String {
        // serde_json's own value would sort the keys.
        let pretty = serde_json::from_str::<serde_yaml_ng::Value>(self.0.get())
            .ok()
            .and_then(|value| serde_json::to_string_pretty(&value).ok());
        let text = pretty.as_deref().unwrap_or(self.0.get());
        text.lines().map(printable).collect::<Vec<_>>().join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_stays_as_it_came() {
        for (wire, shown) in [
            (r#"{"b": 1.50,"a":1e2}"#, r#"{"b": 1.50,"a":1e2}"#),
            ("{\n\"a\":1\r\n}", "{ \"a\":1  }"),
            ("not json", "\"not json\""),
        ] {
            let payload = Payload::from_wire(wire.to_owned());
            assert_eq!(serde_json::to_string(&payload).unwrap(), shown, "{wire}");
        }
    }

    #[test]
    fn indented_keeps_the_order_of_keys() {
        let payload = Payload::from_wire(r#"{"b":1,"a":[]}"#.to_owned());
        assert_eq!(payload.indented(), "{\n  \"b\": 1,\n  \"a\": []\n}");
    }
}
