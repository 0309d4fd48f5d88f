//! The bytes of what is written often: events, cursors and counts.
//!
//! Each value begins with a version byte. Numbers are LEB128 varints, so that a cursor's window
//! of near positions takes about two bytes each.

use bytes::Bytes;
use jiff::Timestamp;
use pipelet_domain::{
    deliveries::{Cursor, Received},
    events::{AuthorizationStatus, Event, EventId, EventType, Payload, Seq, StationId, Synthetic},
};

use super::StoreError;

const VERSION: u8 = 1;
/// Of an event that has an authorization: its code stands behind the type's.
const VERSION_AUTHORIZED: u8 = 2;
/// Of a synthetic event: behind the type's code stand its authorization's, and the number of the
/// only webhook that it is for, or 0. (3 is a block's.)
const VERSION_SYNTHETIC: u8 = 4;
/// Stands for "no authorization" where its code would.
const NO_AUTHORIZATION: u8 = u8::MAX;
/// Stands for "no message id" where its length would.
const NO_MESSAGE_ID: u8 = u8::MAX;

pub(super) fn encode_event(event: &Event) -> Vec<u8> {
    let payload = event.payload.as_bytes();
    let station = event.station.as_str().as_bytes();
    let mut out = Vec::with_capacity(payload.len() + station.len() + 80);
    let kind = event.kind.code();
    match (event.synthetic, event.authorization) {
        (None, None) => out.extend_from_slice(&[VERSION, kind]),
        (None, Some(status)) => {
            out.extend_from_slice(&[VERSION_AUTHORIZED, kind, status.code()]);
        }
        (Some(synthetic), status) => {
            let status = status.map_or(NO_AUTHORIZATION, AuthorizationStatus::code);
            out.extend_from_slice(&[VERSION_SYNTHETIC, kind, status]);
            put_varint(&mut out, synthetic.only.unwrap_or(0));
        }
    }
    out.extend_from_slice(&event.time.as_millisecond().to_be_bytes());
    out.extend_from_slice(&event.id.to_bytes());
    out.push(u8::try_from(station.len()).unwrap_or(u8::MAX));
    out.extend_from_slice(station);
    // A message id has 36 characters at most; one that is absurdly long is not worth keeping.
    match event
        .message_id
        .as_deref()
        .filter(|id| id.len() < usize::from(NO_MESSAGE_ID))
    {
        Some(id) => {
            out.push(u8::try_from(id.len()).unwrap_or(NO_MESSAGE_ID));
            out.extend_from_slice(id.as_bytes());
        }
        None => out.push(NO_MESSAGE_ID),
    }
    out.extend_from_slice(payload);
    out
}

pub(super) fn decode_event(bytes: &Bytes) -> Result<Event, StoreError> {
    let damaged = |detail: &str| record_error("event", detail);
    let is_synthetic = bytes.first() == Some(&VERSION_SYNTHETIC);
    let has_status = is_synthetic || bytes.first() == Some(&VERSION_AUTHORIZED);
    let mut rest = if has_status {
        Reader::behind_version(bytes, "event")?
    } else {
        Reader::new(bytes, "event")?
    };
    let kind = EventType::from_code(rest.byte()?).ok_or_else(|| damaged("unknown type"))?;
    let status = if has_status { Some(rest.byte()?) } else { None };
    let authorization = match status {
        Some(NO_AUTHORIZATION) if is_synthetic => None,
        Some(code) => {
            let status = AuthorizationStatus::from_code(code);
            Some(status.ok_or_else(|| damaged("unknown authorization"))?)
        }
        None => None,
    };
    let synthetic = if is_synthetic {
        let only = Some(rest.varint()?).filter(|only| *only > 0);
        Some(Synthetic { only })
    } else {
        None
    };
    let millis = i64::from_be_bytes(*rest.array()?);
    let time = Timestamp::from_millisecond(millis).map_err(|_| damaged("impossible time"))?;
    let id = EventId::from_bytes(*rest.array()?);
    let station_len = rest.byte()?;
    let station = rest.text(station_len)?;
    let station = StationId::new(station).map_err(|_| damaged("impossible station id"))?;
    let message_id = match rest.byte()? {
        NO_MESSAGE_ID => None,
        len => Some(rest.text(len)?.into()),
    };
    let payload = Payload::from_stored(bytes.slice_ref(rest.rest));
    let mut event = Event::new(id, kind, station, time, message_id, payload);
    event.authorization = authorization;
    event.synthetic = synthetic;
    Ok(event)
}

pub(super) fn encode_cursor(cursor: &Cursor) -> Vec<u8> {
    let mut out = vec![VERSION];
    for number in [cursor.read_to.0, cursor.delivered, cursor.owed.len() as u64] {
        put_varint(&mut out, number);
    }
    let mut last = 0;
    for seq in &cursor.owed {
        put_varint(&mut out, seq.0 - last);
        last = seq.0;
    }
    out
}

pub(super) fn decode_cursor(bytes: &[u8]) -> Result<Cursor, StoreError> {
    let mut rest = Reader::new(bytes, "cursor")?;
    let (read_to, delivered) = (Seq(rest.varint()?), rest.varint()?);
    let count = rest.varint()?;
    let mut owed = Vec::new();
    let mut last = 0_u64;
    for _ in 0..count {
        let next = last.checked_add(rest.varint()?);
        last = next.ok_or_else(|| record_error("cursor", "its positions don't ascend"))?;
        owed.push(Seq(last));
    }
    Ok(Cursor {
        read_to,
        owed,
        delivered,
    })
}

pub(super) fn encode_received(received: Received) -> Vec<u8> {
    let mut out = vec![VERSION];
    put_varint(&mut out, received.count);
    put_varint(&mut out, received.counted_to.0);
    out
}

pub(super) fn decode_received(bytes: &[u8]) -> Result<Received, StoreError> {
    let mut rest = Reader::new(bytes, "count")?;
    Ok(Received {
        count: rest.varint()?,
        counted_to: Seq(rest.varint()?),
    })
}

pub(super) fn record_error(what: &'static str, detail: impl std::fmt::Display) -> StoreError {
    StoreError::Record {
        what,
        detail: detail.to_string(),
    }
}

pub(super) fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(low_bits(number) | 0x80);
        number >>= 7;
    }
    out.push(low_bits(number));
}

fn low_bits(number: u64) -> u8 {
    number.to_le_bytes()[0] & 0x7f
}

/// Reads a value from its front; running out of bytes is an error.
/// What stands behind a version byte, which must be this one.
pub(super) fn split_version<'a>(
    bytes: &'a [u8],
    known: u8,
    what: &'static str,
) -> Result<&'a [u8], StoreError> {
    match bytes.split_first() {
        Some((version, rest)) if *version == known => Ok(rest),
        Some((version, _)) => {
            let detail = format!("its version {version} is not known");
            Err(record_error(what, detail))
        }
        None => Err(record_error(what, "it is empty")),
    }
}

pub(super) struct Reader<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Reader<'a> {
    /// Checks the version byte and stands behind it.
    fn new(bytes: &'a [u8], what: &'static str) -> Result<Self, StoreError> {
        let rest = split_version(bytes, VERSION, what)?;
        Ok(Self { rest, what })
    }

    /// Stands behind a version byte that was checked already.
    pub(super) fn behind_version(bytes: &'a [u8], what: &'static str) -> Result<Self, StoreError> {
        let mut reader = Self::at(bytes, what);
        reader.byte()?;
        Ok(reader)
    }

    /// Stands at the front of what has no version byte of its own.
    pub(super) const fn at(bytes: &'a [u8], what: &'static str) -> Self {
        Self { rest: bytes, what }
    }

    pub(super) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    fn short(&self) -> StoreError {
        record_error(self.what, "it is cut short")
    }

    fn array<const N: usize>(&mut self) -> Result<&'a [u8; N], StoreError> {
        let (head, rest) = self.rest.split_first_chunk().ok_or_else(|| self.short())?;
        self.rest = rest;
        Ok(head)
    }

    pub(super) fn byte(&mut self) -> Result<u8, StoreError> {
        self.array::<1>().map(|[byte]| *byte)
    }

    pub(super) fn bytes(&mut self, len: u64) -> Result<&'a [u8], StoreError> {
        let len = usize::try_from(len).map_err(|_| self.short())?;
        let split = self.rest.split_at_checked(len);
        let (head, rest) = split.ok_or_else(|| self.short())?;
        self.rest = rest;
        Ok(head)
    }

    fn text(&mut self, len: u8) -> Result<&'a str, StoreError> {
        let head = self.bytes(len.into())?;
        std::str::from_utf8(head).map_err(|_| record_error(self.what, "it is not UTF-8"))
    }

    pub(super) fn varint(&mut self) -> Result<u64, StoreError> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(record_error(self.what, "a number is too long"))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(in crate::store) fn any_event() -> impl Strategy<Value = Event> {
        let kinds = prop::sample::select(EventType::ALL);
        let station = "[^\\p{C}]{1,60}";
        let message_id = prop::option::of("[ -~]{0,36}");
        (
            kinds,
            station,
            message_id,
            any::<[u8; 16]>(),
            0..4_000_000_000_000_i64,
            ".{0,50}",
            prop::option::of(prop::sample::select(AuthorizationStatus::ALL)),
            prop::option::of(prop::option::of(1..=u64::MAX)),
        )
            .prop_map(
                |(kind, station, message_id, id, millis, text, authorization, synthetic)| {
                    let payload = serde_json::json!({ "text": text }).to_string();
                    let mut event = Event::new(
                        EventId::from_bytes(id),
                        kind,
                        StationId::new(&station).unwrap(),
                        Timestamp::from_millisecond(millis).unwrap(),
                        message_id.map(Into::into),
                        Payload::parse(payload.as_bytes()).unwrap(),
                    );
                    event.authorization = authorization;
                    event.synthetic = synthetic.map(|only| Synthetic { only });
                    event
                },
            )
    }

    proptest! {
        #[test]
        fn an_event_comes_back(event in any_event()) {
            let bytes = Bytes::from(encode_event(&event));
            prop_assert_eq!(decode_event(&bytes).unwrap(), event);
        }

        #[test]
        fn a_cut_event_is_an_error_or_a_shorter_payload(event in any_event(), at: prop::sample::Index) {
            let bytes = encode_event(&event);
            let head = 1 + 1 + 8 + 16 + 1;
            let cut = Bytes::copy_from_slice(&bytes[..at.index(head)]);
            prop_assert!(decode_event(&cut).is_err());
        }

        #[test]
        fn a_cursor_comes_back(
            read_to: u64, delivered: u64,
            owed in prop::collection::btree_set(any::<u64>(), 0..50),
        ) {
            let owed = owed.into_iter().map(Seq).collect();
            let cursor = Cursor { read_to: Seq(read_to), owed, delivered };
            prop_assert_eq!(decode_cursor(&encode_cursor(&cursor)).unwrap(), cursor);
        }

        #[test]
        fn random_bytes_never_panic(bytes: Vec<u8>) {
            let _ = decode_event(&Bytes::from(bytes.clone()));
            let _ = decode_cursor(&bytes);
            let _ = decode_received(&bytes);
        }
    }

    #[test]
    fn a_cursor_goes_upwards_only() {
        let mut bytes = vec![VERSION];
        for number in [9, 0, 2, 5, u64::MAX] {
            put_varint(&mut bytes, number);
        }
        let error = decode_cursor(&bytes).unwrap_err().to_string();
        assert_eq!(
            error,
            "a stored cursor can't be read: its positions don't ascend"
        );
    }

    #[test]
    fn another_version_is_told() {
        let error = decode_received(&[9, 0, 0]).unwrap_err().to_string();
        assert_eq!(
            error,
            "a stored count can't be read: its version 9 is not known"
        );
    }
}
