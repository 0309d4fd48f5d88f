//! The event itself, and the body that receivers get of it.

use std::sync::OnceLock;

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::value::RawValue;

use super::{AuthorizationStatus, Direction, EventId, EventType, StationId, json};

/// A position in the journal of a shard. The first event of the first shard has 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Seq(pub u64);

impl Seq {
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// One OCPP message, or one change of a connection, worth telling. Written once, never changed.
#[derive(Debug, Clone)]
pub struct Event {
    pub id: EventId,
    pub kind: EventType,
    pub station: StationId,
    /// When the message was taken in (or sent), to the millisecond.
    pub time: Timestamp,
    /// The OCPP message id, where the event is a message; of one that we sent, the event's own id.
    pub message_id: Option<Box<str>>,
    pub payload: Payload,
    /// What a `StartTransaction` was told about its id tag. It is in no body: what is known of
    /// transactions is made of the journal alone, so the journal has to know it.
    pub authorization: Option<AuthorizationStatus>,
    /// Of an event that no station has said: somebody wants to see how receivers take it. Nothing
    /// is believed of stations because of it.
    pub synthetic: Option<Synthetic>,
    body: OnceLock<Bytes>,
}

/// Who a synthetic event is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Synthetic {
    /// The number of the one webhook that it may go to; none means every one that wants it.
    pub only: Option<u64>,
}

impl Event {
    pub fn new(
        id: EventId,
        kind: EventType,
        station: StationId,
        time: Timestamp,
        message_id: Option<Box<str>>,
        payload: Payload,
    ) -> Self {
        let time = Timestamp::from_millisecond(time.as_millisecond()).unwrap_or(time);
        Self {
            id,
            kind,
            station,
            time,
            message_id,
            payload,
            authorization: None,
            synthetic: None,
            body: OnceLock::new(),
        }
    }

    /// Whether the event is a CALL of ours. A type that goes both ways is told apart by its message
    /// id: of a CALL of ours that is the event's id, which no station can know beforehand.
    pub fn is_from_csms(&self) -> bool {
        match self.kind.direction() {
            Direction::CsmsToStation => true,
            Direction::Both => self.message_id.as_deref() == Some(self.id.to_string().as_str()),
            Direction::StationToCsms | Direction::Connection => false,
        }
    }

    /// Whether the webhook of this number may have it, if it wants it.
    pub fn is_for(&self, webhook: u64) -> bool {
        let only = self.synthetic.and_then(|synthetic| synthetic.only);
        only.is_none_or(|only| only == webhook)
    }

    /// The webhook body: the contract's four keys, the payload's bytes untouched.
    ///
    /// Made once, however many webhooks it goes to.
    pub fn body(&self) -> Bytes {
        self.body.get_or_init(|| self.make_body()).clone()
    }

    fn make_body(&self) -> Bytes {
        let payload = self.payload.as_bytes();
        let mut body = Vec::with_capacity(payload.len() + 128);
        body.extend_from_slice(br#"{"event":""#);
        body.extend_from_slice(self.kind.name().as_bytes());
        body.extend_from_slice(br#"","station_id":"#);
        serde_json::to_writer(&mut body, self.station.as_str())
            .expect("a string is JSON, and a vector takes all that is written");
        body.extend_from_slice(format!(r#","timestamp":"{:.3}","payload":"#, self.time).as_bytes());
        body.extend_from_slice(payload);
        body.push(b'}');
        body.into()
    }

    /// About how many bytes of disk it takes, before compression.
    pub fn size(&self) -> usize {
        self.payload.as_bytes().len() + self.station.as_str().len() + 64
    }

    /// About how many bytes of memory it takes, with the body that is made of it.
    pub fn memory_size(&self) -> usize {
        2 * self.size() + size_of::<Self>()
    }
}

impl PartialEq for Event {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
            && self.kind == other.kind
            && self.station == other.station
            && self.time == other.time
            && self.message_id == other.message_id
            && self.payload == other.payload
            && self.authorization == other.authorization
            && self.synthetic == other.synthetic
    }
}

impl Eq for Event {}

/// One JSON object, as the bytes that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload(Bytes);

#[derive(Debug, thiserror::Error)]
pub enum PayloadError {
    #[error("the payload is not JSON")]
    NotJson(#[source] serde_json::Error),
    #[error("the payload is not a JSON object")]
    NotAnObject,
    #[error("the payload is nested deeper than {} levels", Payload::MAX_DEPTH)]
    TooDeep,
}

impl Payload {
    /// How deep arrays and objects may be nested, the payload itself included. The standard's own
    /// are nested five deep, and readers that have a limit, as Python's and serde's, take 127 or more.
    pub const MAX_DEPTH: usize = 64;

    /// Takes text that was already parsed as JSON.
    pub fn from_raw(raw: &RawValue) -> Result<Self, PayloadError> {
        if !raw.get().starts_with('{') {
            return Err(PayloadError::NotAnObject);
        }
        if json::is_deeper_than(Self::MAX_DEPTH, raw.get().as_bytes()) {
            return Err(PayloadError::TooDeep);
        }
        Ok(Self(Bytes::copy_from_slice(raw.get().as_bytes())))
    }

    pub fn parse(text: &[u8]) -> Result<Self, PayloadError> {
        let raw: &RawValue = serde_json::from_slice(text).map_err(PayloadError::NotJson)?;
        Self::from_raw(raw)
    }

    pub const fn empty() -> Self {
        Self(Bytes::from_static(b"{}"))
    }

    /// Takes bytes that were a payload before, as a store gives them back.
    pub const fn from_stored(bytes: Bytes) -> Self {
        Self(bytes)
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The same object with this number at its end, and no other field of that key; all other bytes
    /// are untouched.
    #[must_use]
    pub fn with_number(&self, key: &'static str, value: i64) -> Self {
        let mut bytes = Vec::with_capacity(self.0.len() + key.len() + 32);
        bytes.push(b'{');
        for member in json::members(&self.0) {
            if json::is_named(member, key) {
                continue;
            }
            bytes.extend_from_slice(member);
            if !member.trim_ascii().is_empty() {
                bytes.push(b',');
            }
        }
        bytes.extend_from_slice(format!("\"{key}\":{value}}}").as_bytes());
        Self(bytes.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(station: &str, payload: &str) -> Event {
        let time: Timestamp = "2026-04-14T12:34:56.7891234Z".parse().unwrap();
        Event::new(
            EventId::new(time, [0; 10]),
            EventType::StartTransaction,
            StationId::new(station).unwrap(),
            time,
            None,
            Payload::parse(payload.as_bytes()).unwrap(),
        )
    }

    #[test]
    fn the_body_has_the_four_keys_and_the_payload_untouched() {
        let check = |station, payload, body: &str| {
            assert_eq!(event(station, payload).body(), body.as_bytes());
        };
        check(
            "WALLBOX_001",
            r#"{ "connectorId" : 1.0 }"#,
            r#"{"event":"StartTransaction","station_id":"WALLBOX_001","timestamp":"2026-04-14T12:34:56.789Z","payload":{ "connectorId" : 1.0 }}"#,
        );
        check(
            "a\"b\\c",
            "{}",
            r#"{"event":"StartTransaction","station_id":"a\"b\\c","timestamp":"2026-04-14T12:34:56.789Z","payload":{}}"#,
        );
    }

    #[test]
    fn a_whole_second_still_has_milliseconds() {
        let mut event = event("S", "{}");
        event.time = "2026-04-14T12:34:56Z".parse().unwrap();
        let body = String::from_utf8(event.body().to_vec()).unwrap();
        assert!(
            body.contains(r#""timestamp":"2026-04-14T12:34:56.000Z""#),
            "{body}"
        );
    }

    #[test]
    fn a_number_is_added_at_the_end() {
        let check = |before: &str, after: &str| {
            let payload = Payload::parse(before.as_bytes()).unwrap();
            let with = payload.with_number("transactionId", 42);
            assert_eq!(std::str::from_utf8(with.as_bytes()).unwrap(), after);
        };
        check("{}", r#"{"transactionId":42}"#);
        check("{ }", r#"{ "transactionId":42}"#);
        check(r#"{"a":1}"#, r#"{"a":1,"transactionId":42}"#);
        check(r#"{"a":{}}"#, r#"{"a":{},"transactionId":42}"#);
        check(
            r#"{ "a" : [1,2] , "b":"," }"#,
            r#"{ "a" : [1,2] , "b":"," ,"transactionId":42}"#,
        );
        // There is one of it in the end.
        check(r#"{"transactionId":{"a":7}}"#, r#"{"transactionId":42}"#);
        check(
            r#"{"transactionId" : 7, "a":{"transactionId":1} ,"transact\u0069onId":"x" }"#,
            r#"{ "a":{"transactionId":1} ,"transactionId":42}"#,
        );
    }

    #[test]
    fn only_an_object_that_is_not_too_deep_is_a_payload() {
        assert!(matches!(
            Payload::parse(b"[1]"),
            Err(PayloadError::NotAnObject)
        ));
        let nested = |depth: usize| {
            let arrays = depth - 1;
            format!("{{\"a\":{}{}}}", "[".repeat(arrays), "]".repeat(arrays))
        };
        assert!(Payload::parse(nested(64).as_bytes()).is_ok());
        assert!(matches!(
            Payload::parse(nested(65).as_bytes()),
            Err(PayloadError::TooDeep)
        ));
        assert!(matches!(
            Payload::parse(b"{"),
            Err(PayloadError::NotJson(_))
        ));
        assert!(matches!(
            Payload::parse(b"\xff"),
            Err(PayloadError::NotJson(_))
        ));
    }
}
