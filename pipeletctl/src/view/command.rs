//! What a station answered to a command.

use pipelet_proto::v1::CallError;

use super::payload::indented;
use crate::table::printable;

/// A CALLRESULT's payload.
pub(crate) fn answered(payload: &str) -> String {
    indented(payload)
}

/// A CALLERROR.
pub(crate) fn refused(error: &CallError) -> String {
    let code = printable(&error.code);
    let description = match error.description.as_str() {
        "" => String::new(),
        text => format!(": {}", printable(text)),
    };
    let details = match error.details.as_str() {
        "{}" => String::new(),
        text => format!(" {}", printable(text)),
    };
    format!("refused: the station answered {code}{description}{details}")
}

#[cfg(test)]
mod tests {
    use pipelet_proto::v1::call_response::Outcome;

    use super::*;

    #[test]
    fn both_answers_have_the_keys_of_rest() {
        let payload = r#"{"status":"Accepted"}"#.to_owned();
        assert_eq!(answered(&payload), "{\n  \"status\": \"Accepted\"\n}");
        assert_eq!(
            serde_json::to_string(&Outcome::Payload(payload)).unwrap(),
            r#"{"status":"answered","payload":{"status":"Accepted"}}"#
        );
        let error = CallError {
            code: "NotSupported".into(),
            description: "not\there".into(),
            details: "{}".into(),
        };
        assert_eq!(
            refused(&error),
            "refused: the station answered NotSupported: not\\there"
        );
        assert_eq!(
            serde_json::to_string(&Outcome::Error(error)).unwrap(),
            r#"{"status":"error","error":{"code":"NotSupported","description":"not\there","details":{}}}"#
        );
    }
}
