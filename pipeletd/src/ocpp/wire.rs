//! OCPP-J's frames (OCPP-J 1.6, section 4): read leniently, written as the standard says.
//!
//! A payload keeps the very bytes that came. Pure; this module knows no action and no socket.

use std::{borrow::Cow, fmt};

use pipelet_domain::events::{Payload, PayloadError};
use serde::de::{Deserializer, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// What a text message holds.
#[derive(Debug)]
pub enum Frame<'a> {
    Call(Call<'a>),
    CallResult {
        id: MessageId<'a>,
        payload: Payload,
    },
    CallError {
        id: MessageId<'a>,
        /// In the station's own spelling; some have codes of their own.
        code: Cow<'a, str>,
        description: Cow<'a, str>,
        /// Empty where they are missing or no object: some stations leave them out.
        details: Payload,
    },
    /// A CALLRESULT or CALLERROR that says what it answers, and nothing else that can be read.
    MalformedAnswer {
        id: MessageId<'a>,
    },
    /// A message type that the standard does not know, or an answer to nothing. The standard wants
    /// it ignored; an error in return could start a quarrel without end.
    Ignored {
        why: &'static str,
    },
}

#[derive(Debug)]
pub struct Call<'a> {
    pub id: MessageId<'a>,
    pub action: Cow<'a, str>,
    pub payload: Payload,
}

/// A message id, as the JSON text that came: a string by the standard, a number from some.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageId<'a>(&'a str);

impl<'a> MessageId<'a> {
    /// Stands for the id of a message that has none to be read.
    pub const UNREADABLE: MessageId<'static> = MessageId("\"-1\"");

    /// In bytes of JSON. The standard says 36 characters, which we don't insist on.
    const MAX_LEN: usize = 255;

    fn read(token: &'a RawValue) -> Option<Self> {
        let text = token.get();
        let usable =
            text.starts_with(|first: char| first == '"' || first == '-' || first.is_ascii_digit());
        (usable && text.len() <= Self::MAX_LEN).then_some(Self(text))
    }

    /// The JSON text, to be echoed.
    pub const fn token(self) -> &'a str {
        self.0
    }

    /// The id itself, without quotes and escapes.
    pub fn text(self) -> Cow<'a, str> {
        string(self.0).unwrap_or(Cow::Borrowed(self.0))
    }
}

/// Why a message can't be understood; the answer to it is a CALLERROR.
#[derive(Debug, PartialEq, Eq)]
pub struct BadFrame<'a> {
    pub id: MessageId<'a>,
    pub code: ErrorCode,
    pub why: &'static str,
}

/// The codes of a CALLERROR (OCPP-J 1.6, table 7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    NotImplemented,
    NotSupported,
    InternalError,
    ProtocolError,
    SecurityError,
    FormationViolation,
    PropertyConstraintViolation,
    OccurrenceConstraintViolation,
    TypeConstraintViolation,
    GenericError,
}

impl ErrorCode {
    /// As the standard spells it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotImplemented => "NotImplemented",
            Self::NotSupported => "NotSupported",
            Self::InternalError => "InternalError",
            Self::ProtocolError => "ProtocolError",
            Self::SecurityError => "SecurityError",
            Self::FormationViolation => "FormationViolation",
            Self::PropertyConstraintViolation => "PropertyConstraintViolation",
            Self::OccurrenceConstraintViolation => "OccurenceConstraintViolation",
            Self::TypeConstraintViolation => "TypeConstraintViolation",
            Self::GenericError => "GenericError",
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Reads one text message.
pub fn parse(text: &str) -> Result<Frame<'_>, BadFrame<'_>> {
    let mut elements = Vec::new();
    let whole = read_elements(text, &mut elements);
    let id = elements.get(1).and_then(|token| MessageId::read(token));
    let kind = elements.first().map(|token| token.get());
    if let Err(error) = whole {
        // An answer that was cut off is still the only one that will come.
        return match (kind, id) {
            (Some("3" | "4"), Some(id)) => Ok(Frame::MalformedAnswer { id }),
            _ => Err(malformed(
                None,
                if error.is_data() {
                    "the message is not a JSON array"
                } else {
                    "the message is not JSON"
                },
            )),
        };
    }
    match kind {
        Some("2") => parse_call(id, &elements).map(Frame::Call),
        Some("3") => Ok(parse_result(id, &elements)),
        Some("4") => Ok(parse_error(id, &elements)),
        Some(kind) if kind.bytes().all(|digit| digit.is_ascii_digit()) => Ok(Frame::Ignored {
            why: "unknown message type",
        }),
        Some(kind) => Err(malformed(id, no_message_type(kind))),
        None => Err(malformed(id, "the message is an empty array")),
    }
}

/// Why this is no message type. What has a fraction or an exponent may be a whole number to JSON, but
/// is none as the standard writes them.
fn no_message_type(token: &str) -> &'static str {
    let digits = token.strip_prefix('-').unwrap_or(token);
    if !digits.starts_with(|first: char| first.is_ascii_digit()) {
        "the message type is not a number"
    } else if digits.bytes().all(|digit| digit.is_ascii_digit()) {
        "the message type is negative"
    } else {
        "the message type is not written as a whole number"
    }
}

/// Reads an array's elements, those before an error too.
fn read_elements<'a>(
    text: &'a str,
    elements: &mut Vec<&'a RawValue>,
) -> Result<(), serde_json::Error> {
    struct Collect<'e, 'a>(&'e mut Vec<&'a RawValue>);

    impl<'de: 'a, 'a> Visitor<'de> for Collect<'_, 'a> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an array")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<(), A::Error> {
            while let Some(element) = array.next_element()? {
                self.0.push(element);
            }
            Ok(())
        }
    }

    let mut json = serde_json::Deserializer::from_str(text);
    json.deserialize_seq(Collect(elements))?;
    json.end()
}

fn parse_call<'a>(
    id: Option<MessageId<'a>>,
    elements: &[&'a RawValue],
) -> Result<Call<'a>, BadFrame<'a>> {
    let id = id.ok_or_else(|| malformed(None, "the message id is missing or unusable"))?;
    let action = elements.get(2).and_then(|token| string(token.get()));
    let action = action.ok_or_else(|| malformed(Some(id), "the action is not a string"))?;
    let payload = payload(elements.get(3)).map_err(|error| {
        let why = match error {
            PayloadError::TooDeep => "the payload is nested deeper than 64 levels",
            PayloadError::NotJson(_) | PayloadError::NotAnObject => "the payload is not an object",
        };
        malformed(Some(id), why)
    })?;
    Ok(Call {
        id,
        action,
        payload,
    })
}

fn parse_result<'a>(id: Option<MessageId<'a>>, elements: &[&'a RawValue]) -> Frame<'a> {
    match (id, payload(elements.get(2))) {
        (Some(id), Ok(payload)) => Frame::CallResult { id, payload },
        (Some(id), Err(_)) => Frame::MalformedAnswer { id },
        (None, _) => Frame::Ignored {
            why: "a CALLRESULT without a message id",
        },
    }
}

fn parse_error<'a>(id: Option<MessageId<'a>>, elements: &[&'a RawValue]) -> Frame<'a> {
    let text = |index: usize| elements.get(index).and_then(|token| string(token.get()));
    match (id, text(2)) {
        (Some(id), Some(code)) => Frame::CallError {
            id,
            code,
            description: text(3).unwrap_or_default(),
            details: payload(elements.get(4)).unwrap_or_else(|_| Payload::empty()),
        },
        (Some(id), None) => Frame::MalformedAnswer { id },
        (None, _) => Frame::Ignored {
            why: "a CALLERROR without a message id",
        },
    }
}

const fn malformed<'a>(id: Option<MessageId<'a>>, why: &'static str) -> BadFrame<'a> {
    BadFrame {
        id: match id {
            Some(id) => id,
            None => MessageId::UNREADABLE,
        },
        code: ErrorCode::FormationViolation,
        why,
    }
}

/// A payload that is missing or null is an empty one.
fn payload(token: Option<&&RawValue>) -> Result<Payload, PayloadError> {
    match token {
        Some(token) if token.get() != "null" => Payload::from_raw(token),
        Some(_) | None => Ok(Payload::empty()),
    }
}

fn string(token: &str) -> Option<Cow<'_, str>> {
    let inner = token.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        serde_json::from_str(token).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(inner))
    }
}

pub fn call(id: &str, action: &str, payload: &str) -> String {
    format!("[2,{},{},{payload}]", quoted(id), quoted(action))
}

pub fn call_result(id: MessageId<'_>, payload: &str) -> String {
    format!("[3,{},{payload}]", id.token())
}

/// The description is cut to the standard's 255 characters.
pub fn call_error(id: MessageId<'_>, code: ErrorCode, description: &str) -> String {
    let end = description
        .char_indices()
        .nth(255)
        .map_or(description.len(), |(index, _)| index);
    let description = quoted(&description[..end]);
    format!("[4,{},\"{code}\",{description},{{}}]", id.token())
}

/// The answer to a message that is no text: it has no ID that could be read.
pub fn not_text() -> String {
    let why = "the message is not text";
    call_error(MessageId::UNREADABLE, ErrorCode::FormationViolation, why)
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn parsed_call(text: &str) -> (String, String, String) {
        match parse(text) {
            Ok(Frame::Call(call)) => (
                call.id.token().to_owned(),
                call.action.into_owned(),
                String::from_utf8(call.payload.as_bytes().to_vec()).unwrap(),
            ),
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn calls_are_read_and_payloads_left_untouched() {
        let check = |text: &str, id: &str, action: &str, payload: &str| {
            let expected = (id.to_owned(), action.to_owned(), payload.to_owned());
            assert_eq!(parsed_call(text), expected);
        };
        check(
            r#"[2,"19223201","Heartbeat",{}]"#,
            r#""19223201""#,
            "Heartbeat",
            "{}",
        );
        check(
            " [ 2 , \"a\" , \"Boot\\u004eotification\" , { \"x\" : 1.00 ,\n\"x\":2} ] ",
            "\"a\"",
            "BootNotification",
            "{ \"x\" : 1.00 ,\n\"x\":2}",
        );
        check("[2,17,\"Heartbeat\",null]", "17", "Heartbeat", "{}");
        check("[2,\"a\",\"Heartbeat\"]", "\"a\"", "Heartbeat", "{}");
        check("[2,\"a\",\"X\",{},\"more\"]", "\"a\"", "X", "{}");
        let long = format!("\"{}\"", "i".repeat(60));
        check(&format!("[2,{long},\"X\",{{}}]"), &long, "X", "{}");
    }

    #[test]
    fn what_is_no_call_is_told_so() {
        let check = |text: &str, id: &str, why: &str| {
            let bad = parse(text).unwrap_err();
            assert_eq!((bad.id.token(), bad.why), (id, why), "{text}");
            assert_eq!(bad.code, ErrorCode::FormationViolation);
        };
        let unreadable = "\"-1\"";
        check("", unreadable, "the message is not JSON");
        check("[2,\"a\",\"Boot", unreadable, "the message is not JSON");
        check("{}", unreadable, "the message is not a JSON array");
        check("[]", unreadable, "the message is an empty array");
        check("[-1,\"a\"]", "\"a\"", "the message type is negative");
        let no_whole = "the message type is not written as a whole number";
        for kind in ["2.0", "2e0", "-2.5", "2E+1"] {
            let text = format!("[{kind},\"a\",\"Heartbeat\",{{}}]");
            check(&text, "\"a\"", no_whole);
        }
        for kind in ["null", "{}", "[2]", "true"] {
            let text = format!("[{kind},\"a\"]");
            check(&text, "\"a\"", "the message type is not a number");
        }
        check("[\"2\",\"a\"]", "\"a\"", "the message type is not a number");
        let no_id = "the message id is missing or unusable";
        check("[2]", unreadable, no_id);
        check("[2,null,\"X\",{}]", unreadable, no_id);
        check("[2,{},\"X\",{}]", unreadable, no_id);
        let endless = format!("[2,\"{}\",\"X\",{{}}]", "i".repeat(300));
        check(&endless, unreadable, no_id);
        check("[2,\"a\"]", "\"a\"", "the action is not a string");
        check("[2,\"a\",7,{}]", "\"a\"", "the action is not a string");
        check("[2,7,\"X\",[]]", "7", "the payload is not an object");
        let deep = format!("[2,7,\"X\",{{\"a\":{}{}}}]", "[".repeat(64), "]".repeat(64));
        let why = format!(
            "the payload is nested deeper than {} levels",
            Payload::MAX_DEPTH
        );
        check(&deep, "7", &why);
    }

    #[test]
    fn answers_are_read() {
        assert!(matches!(
            parse(r#"[3,"a",{"status":"Accepted"}]"#),
            Ok(Frame::CallResult { id, .. }) if id.text() == "a"
        ));
        for (text, expected) in [
            (r#"[4,"a","NotSupported","why"]"#, "NotSupported"),
            (r#"[4,"a","Oops \u00e4","why",{}]"#, "Oops ä"),
        ] {
            assert!(matches!(
                parse(text),
                Ok(Frame::CallError { code, description, .. })
                    if code == expected && description == "why"
            ));
        }
        for text in [
            r#"[3,"a",[]]"#,
            r#"[3,"a",5]"#,
            r#"[3,"a""#,
            r#"[3,"a",{"b":"#,
            r#"[3,"a",{}]]"#,
            r#"[4,"a"]"#,
            r#"[4,"a",null,null,null]"#,
            r#"[4,"a","NotSupp"#,
        ] {
            let parsed = parse(text);
            assert!(
                matches!(parsed, Ok(Frame::MalformedAnswer { id }) if id.text() == "a"),
                "{text}: {parsed:?}"
            );
        }
        for text in ["[1,\"a\"]", "[3]", "[3,null,[]]", "[4,{}]", "[99]"] {
            assert!(matches!(parse(text), Ok(Frame::Ignored { .. })), "{text}");
        }
        // Without its id, it may as well have been a CALL.
        for text in ["[3", "[3,", "[3,\"a"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn frames_are_written() {
        assert_eq!(call("1", "Reset", "{}"), r#"[2,"1","Reset",{}]"#);
        assert_eq!(call_result(MessageId("17"), "{}"), "[3,17,{}]");
        assert_eq!(
            call_error(
                MessageId::UNREADABLE,
                ErrorCode::OccurrenceConstraintViolation,
                "a \"b\""
            ),
            r#"[4,"-1","OccurenceConstraintViolation","a \"b\"",{}]"#
        );
        let long = call_error(MessageId("1"), ErrorCode::GenericError, &"ä".repeat(999));
        assert_eq!(long.matches('ä').count(), 255);
    }
}
