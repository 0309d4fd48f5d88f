//! The bytes of a block: events that were appended together, packed and compressed as one value.
//!
//! A record for each event costs the engine far more than its bytes, and neighbours in the
//! journal repeat each other's names. A block is a version byte, how it is packed, the number
//! of events, the length before compression, and then each event's length and bytes. Stores of
//! format 1 have single events in the place of blocks: they are read as blocks of one.
//!
//! What is read is not trusted: no length is believed before the bytes are there.

use std::sync::Arc;

use bytes::Bytes;
use pipelet_domain::events::{Event, Seq};

use super::{
    StoreError,
    codec::{Reader, decode_event, encode_event, put_varint, record_error},
};

/// A single event begins with one of the versions below.
const VERSION: u8 = 3;
const PLAIN: u8 = 0;
const LZ4: u8 = 1;
/// In bytes before compression; a longer event is a block by itself. Of 4 to 32 KB this wrote the
/// least: compressed, such a block is about 2.5 KB of payloads that differ, far from a second
/// chunk of the engine's values, and longer ones compress hardly better.
const CLOSE_AT: usize = 8 * 1024;
/// No LZ4 block unpacks to more bytes for each of its own.
const LZ4_BEST_RATIO: usize = 255;

/// Events from a position on, still encoded.
pub(super) struct Block {
    first: Seq,
    events: Vec<Bytes>,
}

/// Packs events, the first of which has the position `first`; each block comes with its own.
pub(super) fn pack(first: Seq, events: &[Arc<Event>]) -> Vec<(Seq, Vec<u8>)> {
    let mut blocks = Vec::new();
    let mut open = Packing::at(first);
    for (seq, event) in (first.0..).map(Seq).zip(events) {
        let event = encode_event(event);
        if open.count > 0 && open.plain.len() + event.len() > CLOSE_AT {
            blocks.push(open.close());
            open = Packing::at(seq);
        }
        open.add(&event);
    }
    if open.count > 0 {
        blocks.push(open.close());
    }
    blocks
}

/// The position after the last event of a block, which is not unpacked for it.
pub(super) fn end(first: Seq, value: &[u8]) -> Result<Seq, StoreError> {
    let count = if value.first() == Some(&VERSION) {
        Head::read(value)?.0.count
    } else {
        1
    };
    Ok(Seq(first.0.saturating_add(count)))
}

impl Block {
    pub(super) fn unpack(first: Seq, value: &Bytes) -> Result<Self, StoreError> {
        if value.first() != Some(&VERSION) {
            let events = vec![value.clone()];
            return Ok(Self { first, events });
        }
        let (head, packed) = Head::read(value)?;
        let plain = head.unpack(value.slice_ref(packed))?;
        let mut rest = Reader::at(&plain, "block");
        let mut events = Vec::new();
        for _ in 0..head.count {
            let len = rest.varint()?;
            events.push(plain.slice_ref(rest.bytes(len)?));
        }
        if !rest.rest().is_empty() {
            return Err(record_error("block", "something stands behind its events"));
        }
        Ok(Self { first, events })
    }

    /// Its events from a position on, decoded as they are asked for.
    pub(super) fn read_from(
        &self,
        from: Seq,
    ) -> impl Iterator<Item = Result<(Seq, Arc<Event>), StoreError>> {
        let skip = usize::try_from(from.0.saturating_sub(self.first.0)).unwrap_or(usize::MAX);
        let events = self.events.iter().enumerate().skip(skip);
        events.map(|(index, event)| {
            // Copied, so that one event that is kept doesn't keep its neighbours in memory.
            let event = if self.events.len() == 1 {
                decode_event(event)
            } else {
                decode_event(&Bytes::copy_from_slice(event))
            };
            let seq = Seq(self.first.0.saturating_add(index as u64));
            Ok((seq, Arc::new(event?)))
        })
    }
}

/// A block that is being filled.
struct Packing {
    first: Seq,
    count: u64,
    plain: Vec<u8>,
}

impl Packing {
    const fn at(first: Seq) -> Self {
        Self {
            first,
            count: 0,
            plain: Vec::new(),
        }
    }

    fn add(&mut self, event: &[u8]) {
        put_varint(&mut self.plain, event.len() as u64);
        self.plain.extend_from_slice(event);
        self.count += 1;
    }

    fn close(self) -> (Seq, Vec<u8>) {
        let packed = lz4_flex::block::compress(&self.plain);
        let (packing, body) = if packed.len() < self.plain.len() {
            (LZ4, &packed)
        } else {
            (PLAIN, &self.plain)
        };
        let mut out = Vec::with_capacity(body.len() + 16);
        out.extend_from_slice(&[VERSION, packing]);
        put_varint(&mut out, self.count);
        put_varint(&mut out, self.plain.len() as u64);
        out.extend_from_slice(body);
        (self.first, out)
    }
}

struct Head {
    packing: u8,
    count: u64,
    plain_len: usize,
}

impl Head {
    /// Of a value that has the version of blocks; returns what stands behind it, too.
    fn read(value: &[u8]) -> Result<(Self, &[u8]), StoreError> {
        let mut rest = Reader::behind_version(value, "block")?;
        let packing = rest.byte()?;
        let count = rest.varint()?;
        let plain_len = rest.varint()?;
        let packed = rest.rest();
        let most = match packing {
            PLAIN => packed.len(),
            LZ4 => packed.len().saturating_mul(LZ4_BEST_RATIO),
            _ => return Err(record_error("block", "its packing is not known")),
        };
        let plain_len = usize::try_from(plain_len).ok().filter(|len| *len <= most);
        let plain_len = plain_len.ok_or_else(|| record_error("block", "it is cut short"))?;
        if count == 0 || count > plain_len as u64 {
            return Err(record_error("block", "it can't have so many events"));
        }
        let head = Self {
            packing,
            count,
            plain_len,
        };
        Ok((head, packed))
    }

    fn unpack(&self, packed: Bytes) -> Result<Bytes, StoreError> {
        let plain = if self.packing == LZ4 {
            let mut plain = vec![0; self.plain_len];
            let len = lz4_flex::block::decompress_into(&packed, &mut plain)
                .map_err(|error| record_error("block", error))?;
            plain.truncate(len);
            plain.into()
        } else {
            packed
        };
        if plain.len() == self.plain_len {
            Ok(plain)
        } else {
            Err(record_error("block", "it has another length than it says"))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::codec::tests::any_event, *};

    fn any_events() -> impl Strategy<Value = Vec<Arc<Event>>> {
        prop::collection::vec(any_event().prop_map(Arc::new), 1..60)
    }

    fn read(blocks: &[(Seq, Vec<u8>)], from: Seq) -> Vec<(Seq, Arc<Event>)> {
        let blocks = blocks
            .iter()
            .map(|(first, value)| Block::unpack(*first, &Bytes::copy_from_slice(value)).unwrap());
        let events = blocks.flat_map(|block| block.read_from(from).collect::<Vec<_>>());
        events.collect::<Result<_, _>>().unwrap()
    }

    proptest! {
        #[test]
        fn events_come_back_from_any_position_on(events in any_events(), from in 0..70_u64) {
            let first = Seq(7);
            let blocks = pack(first, &events);
            let all: Vec<_> = (first.0..).map(Seq).zip(events).collect();
            let mut expected_first = first;
            for (first, value) in &blocks {
                prop_assert_eq!(*first, expected_first);
                expected_first = end(*first, value).unwrap();
            }
            prop_assert_eq!(expected_first, Seq(first.0 + all.len() as u64));
            let behind: Vec<_> = all.into_iter().filter(|(seq, _)| seq.0 >= from).collect();
            prop_assert_eq!(read(&blocks, Seq(from)), behind);
        }

        #[test]
        fn a_single_event_of_old_is_a_block_of_one(event in any_event()) {
            let value = encode_event(&event);
            prop_assert_eq!(end(Seq(4), &value).unwrap(), Seq(5));
            prop_assert_eq!(read(&[(Seq(4), value)], Seq(0)), [(Seq(4), Arc::new(event))]);
        }

        #[test]
        fn a_cut_block_is_an_error(events in any_events(), at: prop::sample::Index) {
            let (first, value) = pack(Seq(0), &events).remove(0);
            // What is left of a value that is cut to nothing is told as an event's.
            let cut = Bytes::copy_from_slice(&value[..=at.index(value.len() - 1)]);
            prop_assert!(Block::unpack(first, &cut).is_err());
        }

        #[test]
        fn a_changed_byte_never_panics(
            events in any_events(), at: prop::sample::Index, to: u8,
        ) {
            let (first, mut value) = pack(Seq(0), &events).remove(0);
            let at = at.index(value.len());
            value[at] = to;
            never_panics(first, value);
        }

        #[test]
        fn random_bytes_never_panic(
            first in prop_oneof![any::<u64>(), u64::MAX - 9..=u64::MAX],
            packing in 0..3_u8, bytes: Vec<u8>,
        ) {
            never_panics(Seq(first), [&[VERSION, packing], bytes.as_slice()].concat());
            never_panics(Seq(first), bytes);
        }
    }

    fn never_panics(first: Seq, value: Vec<u8>) {
        let _ = end(first, &value);
        if let Ok(block) = Block::unpack(first, &value.into()) {
            let _ = block.read_from(Seq(0)).count();
        }
    }

    #[test]
    fn lengths_are_not_believed() {
        let huge = [&[VERSION, LZ4][..], &[0xff; 8], &[0x7f], &[1; 40]].concat();
        let error = Block::unpack(Seq(0), &huge.into()).err().unwrap();
        assert!(error.to_string().contains("block"), "{error}");
        // A count of one, and 200 MB out of ten bytes.
        let long = [&[VERSION, LZ4, 1][..], &[0x80, 0x84, 0xaf, 0x5f], &[0; 10]].concat();
        let error = Block::unpack(Seq(0), &long.into()).err().unwrap();
        assert_eq!(
            error.to_string(),
            "a stored block can't be read: it is cut short"
        );
    }

    #[test]
    fn what_repeats_takes_little_and_what_does_not_takes_its_own_size() {
        let event = |payload: &[u8]| {
            let payload =
                pipelet_domain::events::Payload::from_stored(Bytes::copy_from_slice(payload));
            let mut event = Event::new(
                pipelet_domain::events::EventId::from_bytes([0; 16]),
                pipelet_domain::events::EventType::Heartbeat,
                pipelet_domain::events::StationId::new("S").unwrap(),
                jiff::Timestamp::UNIX_EPOCH,
                None,
                payload.clone(),
            );
            event.payload = payload;
            Arc::new(event)
        };
        let same = vec![event(&[b'x'; 400]); 18];
        let blocks = pack(Seq(0), &same);
        assert_eq!(blocks.len(), 1);
        assert!(blocks[0].1.len() < 400, "{}", blocks[0].1.len());

        let mut number = 1_u32;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            number.to_be_bytes()[0]
        })
        .take(2 * CLOSE_AT)
        .collect();
        let blocks = pack(Seq(0), &[event(b"{}"), event(&noise), event(b"{}")]);
        assert_eq!(blocks.len(), 3);
        assert!(blocks[1].1.len() < noise.len() + 64);
        assert_eq!(read(&blocks, Seq(1)).len(), 2);
    }
}
