//! What a station answered to a command.

use pipelet_proto::v1::call_response::Outcome;
use serde::Serialize;

use super::payload::Payload;
use crate::table::printable;

#[derive(Debug, Serialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub(crate) enum CommandAnswer {
    Answered { payload: Payload },
    Error { error: CallError },
}

/// A CALLERROR.
#[derive(Debug, Serialize)]
pub(crate) struct CallError {
    code: String,
    description: String,
    details: Payload,
}

impl From<Outcome> for CommandAnswer {
    fn from(wire: Outcome) -> Self {
        match wire {
            Outcome::Payload(text) => Self::Answered {
                payload: Payload::from_wire(text),
            },
            Outcome::Error(error) => Self::Error {
                error: CallError {
                    code: error.code,
                    description: error.description,
                    details: Payload::from_wire(error.details),
                },
            },
        }
    }
}

impl CommandAnswer {
    /// The payload, for people.
    pub(crate) fn text(&self) -> Option<String> {
        match self {
            Self::Answered { payload } => Some(payload.indented()),
            Self::Error { .. } => None,
        }
    }
}

impl CallError {
    pub(crate) fn sentence(&self) -> String {
        let code = printable(&self.code);
        let description = match self.description.as_str() {
            "" => String::new(),
            text => format!(": {}", printable(text)),
        };
        let details = match self.details.as_text() {
            "{}" => String::new(),
            text => format!(" {}", printable(text)),
        };
        format!("refused: the station answered {code}{description}{details}")
    }
}

#[cfg(test)]
mod tests {
    use pipelet_proto::v1;

    use super::*;

    #[test]
    fn both_answers_have_the_keys_of_rest() {
        let answered = CommandAnswer::from(Outcome::Payload(r#"{"status":"Accepted"}"#.into()));
        assert_eq!(
            serde_json::to_string(&answered).unwrap(),
            r#"{"status":"answered","payload":{"status":"Accepted"}}"#
        );
        assert_eq!(
            answered.text().as_deref(),
            Some("{\n  \"status\": \"Accepted\"\n}")
        );
        let refused = CommandAnswer::from(Outcome::Error(v1::CallError {
            code: "NotSupported".into(),
            description: "not\there".into(),
            details: "{}".into(),
        }));
        assert_eq!(
            serde_json::to_string(&refused).unwrap(),
            r#"{"status":"error","error":{"code":"NotSupported","description":"not\there","details":{}}}"#
        );
        let CommandAnswer::Error { error } = refused else {
            panic!("it is an error");
        };
        assert_eq!(
            error.sentence(),
            "refused: the station answered NotSupported: not\\there"
        );
    }
}
