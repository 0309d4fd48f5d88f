//! Raw OCPP messages' bodies.
//!
//! Invariant: their text is the station's, to the byte, but always on one line.

use pipelet_proto::v1::{self, call_response::Outcome};

use crate::table::printable;

/// What has an OCPP message's body in it.
pub(crate) trait OneLine: Sized {
    fn body(&mut self) -> Option<&mut String>;

    /// The same with the body on one line. JSON has line breaks between its tokens only, so they
    /// carry no meaning; within a line-delimited output they would.
    fn one_line(mut self) -> Self {
        if let Some(body) = self.body()
            && body.contains(['\n', '\r'])
        {
            *body = body.replace(['\n', '\r'], " ");
        }
        self
    }
}

impl OneLine for v1::Event {
    fn body(&mut self) -> Option<&mut String> {
        Some(&mut self.payload)
    }
}

impl OneLine for v1::FailedDelivery {
    fn body(&mut self) -> Option<&mut String> {
        Some(&mut self.payload)
    }
}

impl OneLine for v1::Transaction {
    fn body(&mut self) -> Option<&mut String> {
        let values = self.last_meter_values.as_mut()?;
        Some(&mut values.sampled_value)
    }
}

impl OneLine for Outcome {
    fn body(&mut self) -> Option<&mut String> {
        Some(match self {
            Self::Payload(payload) => payload,
            Self::Error(error) => &mut error.details,
        })
    }
}

/// Over several lines, for people, the keys in their order.
pub(super) fn indented(text: &str) -> String {
    // serde_json's own value would sort the keys.
    let pretty = serde_json::from_str::<serde_yaml_ng::Value>(text)
        .ok()
        .and_then(|value| serde_json::to_string_pretty(&value).ok());
    let text = pretty.as_deref().unwrap_or(text);
    text.lines().map(printable).collect::<Vec<_>>().join("\n")
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
            let payload = wire.to_owned();
            let event = v1::Event {
                payload,
                ..v1::Event::default()
            }
            .one_line();
            let json = serde_json::to_string(&event).unwrap();
            assert!(json.contains(&format!(r#""payload":{shown},"#)), "{json}");
        }
    }

    #[test]
    fn indented_keeps_the_order_of_keys() {
        assert_eq!(
            indented(r#"{"b":1,"a":[]}"#),
            "{\n  \"b\": 1,\n  \"a\": []\n}"
        );
    }
}
