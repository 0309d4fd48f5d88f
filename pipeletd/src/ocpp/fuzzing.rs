//! What must hold of everything that a station sends, from the first byte of its request on.

use jiff::Timestamp;
use pipelet_domain::{
    events::{Event, EventId, EventType, Payload, Seq, StationId},
    projection::{Fields, StationState},
};
use serde_json::{Value, value::RawValue};

use super::{
    credentials::Credentials,
    frame_scanner::Frames,
    handshake, v16,
    wire::{self, ErrorCode, Frame, MessageId},
};
use crate::store::station_record;

/// One text message.
pub(crate) fn frame(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else {
        return;
    };
    match wire::parse(text) {
        Ok(Frame::Call(call)) => {
            check_answers(call.id);
            check_payload(text, &call.payload);
            let payload = str::from_utf8(call.payload.as_bytes()).expect("a payload is text");
            let sent = wire::call(&call.id.text(), &call.action, payload);
            match wire::parse(&sent) {
                Ok(Frame::Call(again)) => {
                    assert_eq!(again.id.text(), call.id.text());
                    assert_eq!(again.action, call.action);
                    assert_eq!(again.payload, call.payload);
                }
                // An id that is no text, because of half a character, is quoted once more.
                other => assert!(sent.len() > 255, "{other:?}"),
            }
        }
        Ok(
            Frame::CallResult { id, payload }
            | Frame::CallError {
                id,
                details: payload,
                ..
            },
        ) => {
            check_answers(id);
            check_payload(text, &payload);
        }
        Ok(Frame::MalformedAnswer { id }) => check_answers(id),
        Ok(Frame::Ignored { .. }) => {}
        Err(bad) => {
            let answer = wire::call_error(bad.id, bad.code, bad.why);
            assert!(matches!(
                wire::parse(&answer),
                Ok(Frame::CallError { id, code, .. }) if id == bad.id && code == bad.code.name()
            ));
        }
    }
}

/// What is sent in return bears the very id that came.
fn check_answers(asked: MessageId<'_>) {
    let result = wire::call_result(asked, "{}");
    assert!(matches!(
        wire::parse(&result),
        Ok(Frame::CallResult { id, .. }) if id == asked
    ));
    let why = asked.text();
    let error = wire::call_error(asked, ErrorCode::GenericError, &why);
    assert!(matches!(
        wire::parse(&error),
        Ok(Frame::CallError { id, description, .. }) if id == asked && why.starts_with(&*description)
    ));
}

/// The bytes that came go on as they are, and nothing can break out of the body around them.
fn check_payload(text: &str, payload: &Payload) {
    let bytes = str::from_utf8(payload.as_bytes()).expect("a payload is text");
    assert!(bytes == "{}" || text.contains(bytes));
    let with = payload.with_number("transactionId", 7);
    let with = Payload::parse(with.as_bytes()).expect("it is still an object");
    let number = Fields::parse(with.as_bytes()).integer("transactionId");
    // A payload with a key that is no text has no fields that can be read.
    assert!(number == Some(7) || Fields::parse(payload.as_bytes()).raw("x").is_none());
    let repeated = v16::repeated_keys(&with);
    assert!(
        repeated
            .iter()
            .all(|fault| fault.pointer != "/transactionId")
    );
    let event = event(EventType::Heartbeat, payload.clone(), 1);
    let body = event.body();
    let body: std::collections::BTreeMap<String, &RawValue> =
        serde_json::from_slice(&body).expect("a body is JSON");
    let keys: Vec<&str> = body.keys().map(String::as_str).collect();
    assert_eq!(keys, ["event", "payload", "station_id", "timestamp"]);
    assert_eq!(body["payload"].get(), bytes.trim());
}

fn event(kind: EventType, payload: Payload, seconds: i64) -> Event {
    let time = Timestamp::from_second(seconds).expect("a small number");
    let station = StationId::new("S\"1").expect("it is short");
    let id = EventId::new(time, [7; 10]);
    Event::new(id, kind, station, time, Some("1".into()), payload)
}

/// A payload of the action that the first byte names: what is judged of it, and what is known of the
/// station then.
pub(crate) fn payload(input: &[u8]) {
    let Some((kind, bytes)) = input.split_first() else {
        return;
    };
    let kind = EventType::ALL[usize::from(*kind) % EventType::ALL.len()];
    if let Ok(text) = str::from_utf8(bytes) {
        let parameters = text.split('&').filter_map(|pair| pair.split_once('='));
        let payload = v16::payload_of(kind, parameters);
        assert!(v16::repeated_keys(&payload).is_empty());
    }
    let Ok(payload) = Payload::parse(bytes) else {
        return;
    };
    let faults = v16::validate(kind, &payload);
    let repeated = v16::repeated_keys(&payload);
    assert!(faults.len() <= 64 && repeated.len() <= 64);
    for fault in faults.iter().chain(&repeated) {
        assert!(fault.pointer.is_empty() || fault.pointer.starts_with('/'));
    }
    if let Ok(value) = serde_json::from_slice::<Value>(payload.as_bytes()) {
        // The same without its repetitions, of which the last one counts, is judged the same.
        let plain = Payload::parse(value.to_string().as_bytes()).expect("an object");
        assert_eq!(v16::validate(kind, &plain), faults);
        assert!(v16::repeated_keys(&plain).is_empty());
    }
    let mut state = StationState::new(StationId::new("S\"1").expect("it is short"));
    for seq in 0..2 {
        state.apply(Seq(seq), &event(kind, payload.clone(), 1));
        let stored = station_record::decode(&station_record::encode(&state));
        assert_eq!(stored.expect("what was written can be read"), state);
    }
}

/// The request of a handshake, and the frames behind it.
pub(crate) fn handshake(input: &[u8]) {
    if let Ok(Some((request, length))) = handshake::parse(input) {
        assert!(length <= input.len());
        if let Ok(upgrade) = handshake::decide(request) {
            let response = upgrade.response();
            // Nothing that a station says begins another line.
            let (head, rest) = response.split_once("\r\n\r\n").expect("a head ends");
            assert!(rest.is_empty() && head.lines().count() <= 5, "{response:?}");
            assert!(head.starts_with("HTTP/1.1 101 "));
        }
    }
    let _ = Credentials::parse(input);

    let Some((at, frames)) = input.split_first() else {
        return;
    };
    let mut whole = frames.to_vec();
    Frames::default().pass(&mut whole);
    assert!(
        whole
            .iter()
            .zip(frames)
            .all(|(now, before)| now == before || *now == before & !0x40)
    );
    let mut again = whole.clone();
    Frames::default().pass(&mut again);
    assert_eq!(again, whole, "what was overlooked once stays so");
    // However the bytes come, the same of them are changed.
    let mut parts = frames.to_vec();
    let (first, second) = parts.split_at_mut(usize::from(*at).min(frames.len()));
    let mut passing = Frames::default();
    passing.pass(first);
    passing.pass(second);
    assert_eq!(parts, whole);
}
