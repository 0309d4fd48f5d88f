//! OCPP-J frames, section 4 of OCPP-J 1.6: text to values and back.

use serde_json::{Value, json};

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Frame {
    Call {
        id: String,
        action: String,
        payload: Value,
    },
    Result {
        id: String,
        payload: Value,
    },
    Error {
        id: String,
        code: String,
    },
}

/// None for what is no frame.
pub(crate) fn parse(text: &str) -> Option<Frame> {
    let parts: Vec<Value> = serde_json::from_str(text).ok()?;
    let text = |value: &Value| value.as_str().map(str::to_owned);
    match parts.as_slice() {
        [kind, id, action, payload, ..] if *kind == 2 => Some(Frame::Call {
            id: text(id)?,
            action: text(action)?,
            payload: payload.clone(),
        }),
        [kind, id, payload, ..] if *kind == 3 => Some(Frame::Result {
            id: text(id)?,
            payload: payload.clone(),
        }),
        [kind, id, code, ..] if *kind == 4 => Some(Frame::Error {
            id: text(id)?,
            code: text(code)?,
        }),
        _ => None,
    }
}

pub(super) fn call(id: &str, action: &str, payload: &Value) -> String {
    json!([2, id, action, payload]).to_string()
}

pub(super) fn result(id: &str, payload: &Value) -> String {
    json!([3, id, payload]).to_string()
}

pub(super) fn error(id: &str, code: &str, description: &str) -> String {
    json!([4, id, code, description, {}]).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_a_frame_and_what_is_not() {
        let id = || "7".to_owned();
        for (text, expected) in [
            (
                r#"[2,"7","Reset",{"type":"Soft"}]"#,
                Some(Frame::Call {
                    id: id(),
                    action: "Reset".to_owned(),
                    payload: json!({"type": "Soft"}),
                }),
            ),
            (
                r#"[3,"7",{}]"#,
                Some(Frame::Result {
                    id: id(),
                    payload: json!({}),
                }),
            ),
            (
                r#"[4,"7","InternalError","",{}]"#,
                Some(Frame::Error {
                    id: id(),
                    code: "InternalError".to_owned(),
                }),
            ),
            (r#"[2,"7","Reset"]"#, None),
            (r#"[5,"7",{}]"#, None),
            ("[3,7,{}]", None),
            ("{}", None),
            ("", None),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_written_can_be_read() {
        let call = call("7", "Heartbeat", &json!({}));
        assert_eq!(call, r#"[2,"7","Heartbeat",{}]"#);
        assert_eq!(result("7", &json!({})), r#"[3,"7",{}]"#);
        let error = error("7", "NotImplemented", "no");
        assert_eq!(error, r#"[4,"7","NotImplemented","no",{}]"#);
    }
}
