//! Opaque strings that say where a list goes on.
//!
//! Hexadecimal, so that they travel in a query unescaped; what is in them may change at any time.

use std::{fmt::Write as _, ops::Range, str};

use pipelet_domain::{
    deliveries::RetryKey,
    events::{IdTagKey, Seq, StationId},
    shards::Shards,
    webhooks::WebhookId,
};

use crate::delivery::Place;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct InvalidCursor;

pub(super) fn of_number(id: u64) -> String {
    format!("{id:x}")
}

pub(super) fn to_number(cursor: &str) -> Result<u64, InvalidCursor> {
    u64::from_str_radix(cursor, 16).map_err(|_| InvalidCursor)
}

/// Nothing where there are none.
pub(super) fn of_ranges(ranges: &[Range<Seq>]) -> String {
    let ranges = ranges.iter();
    let ranges = ranges.map(|range| format!("{:x}-{:x}", range.start.0, range.end.0));
    ranges.collect::<Vec<_>>().join(".")
}

pub(super) fn to_ranges(cursor: &str) -> Result<Vec<Range<Seq>>, InvalidCursor> {
    let range = |text: &str| {
        let (start, end) = text.split_once('-').ok_or(InvalidCursor)?;
        Ok(Seq(to_number(start)?)..Seq(to_number(end)?))
    };
    cursor.split('.').map(range).collect()
}

pub(super) fn of_positions(positions: &Shards<Seq>) -> String {
    let positions = positions.iter().map(|seq| of_number(seq.0));
    positions.collect::<Vec<_>>().join(".")
}

pub(super) fn to_positions(cursor: &str) -> Result<Shards<Seq>, InvalidCursor> {
    let positions = cursor.split('.').map(|text| to_number(text).map(Seq));
    let positions = positions.collect::<Result<Vec<_>, _>>()?;
    let first = positions.first().ok_or(InvalidCursor)?.shard();
    Ok(Shards::from(first, positions))
}

pub(super) fn of_delivery(place: Place) -> String {
    match place {
        Place::Waiting(key) => format!("{:x}-{:x}", key.due_ms, key.seq.0),
        Place::Settled(number) => of_number(number),
    }
}

pub(super) fn to_delivery(webhook: WebhookId, cursor: &str) -> Result<Place, InvalidCursor> {
    let Some((due, seq)) = cursor.split_once('-') else {
        return to_number(cursor).map(Place::Settled);
    };
    let due_ms = i64::from_str_radix(due, 16).map_err(|_| InvalidCursor)?;
    Ok(Place::Waiting(RetryKey {
        webhook,
        due_ms,
        seq: Seq(to_number(seq)?),
    }))
}

pub(super) fn of_station(id: &StationId) -> String {
    of_text(id.as_str())
}

pub(super) fn to_station(cursor: &str) -> Result<StationId, InvalidCursor> {
    StationId::new(&to_text(cursor)?).map_err(|_| InvalidCursor)
}

pub(super) fn of_id_tag(tag: &IdTagKey) -> String {
    of_text(tag.as_str())
}

pub(super) fn to_id_tag(cursor: &str) -> Result<IdTagKey, InvalidCursor> {
    let tag = IdTagKey::of(&to_text(cursor)?);
    // Nobody has such a tag, so no list has ended with it.
    if tag.as_str().is_empty() {
        return Err(InvalidCursor);
    }
    Ok(tag)
}

fn of_text(text: &str) -> String {
    let mut digits = String::with_capacity(2 * text.len());
    for byte in text.bytes() {
        // Writing to a string never fails.
        let _ = write!(digits, "{byte:02x}");
    }
    digits
}

fn to_text(cursor: &str) -> Result<String, InvalidCursor> {
    let digits = cursor.as_bytes().chunks(2);
    let byte = |pair| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok();
    let bytes: Option<Vec<u8>> = digits.map(byte).collect();
    String::from_utf8(bytes.ok_or(InvalidCursor)?).map_err(|_| InvalidCursor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_lead_back() {
        assert_eq!(to_number(&of_number(300)), Ok(300));
        let ranges = vec![Seq(7)..Seq(300), Seq(1)..Seq(1)];
        assert_eq!(to_ranges(&of_ranges(&ranges)), Ok(ranges));
        let positions = to_positions(&of_positions(&Shards::new([Seq(7), Seq(300)])));
        assert!(positions.unwrap().iter().eq(&[Seq(7), Seq(300)]));
        let waiting = Place::Waiting(RetryKey {
            webhook: WebhookId(3),
            due_ms: 1_776_000_000_000,
            seq: Seq(9),
        });
        for place in [waiting, Place::Settled(300)] {
            assert_eq!(to_delivery(WebhookId(3), &of_delivery(place)), Ok(place));
        }
        let station = StationId::new("ladesäule 7").unwrap();
        assert_eq!(to_station(&of_station(&station)), Ok(station));
        let tag = IdTagKey::of("Rfid 1");
        assert_eq!(to_id_tag(&of_id_tag(&tag)), Ok(tag));
    }

    #[test]
    fn what_is_no_cursor() {
        for text in ["", "x", "1-", "-", "é", "aé"] {
            assert_eq!(
                to_delivery(WebhookId(1), text),
                Err(InvalidCursor),
                "{text:?}"
            );
            assert_eq!(to_station(text), Err(InvalidCursor), "{text:?}");
        }
        assert_eq!(to_station("0"), Err(InvalidCursor));
        for text in ["", "x", "é"] {
            assert_eq!(to_id_tag(text), Err(InvalidCursor), "{text:?}");
        }
        assert_eq!(to_number("xyz"), Err(InvalidCursor));
    }
}
