//! The bytes of a block: events that were appended together, as one value.
//!
//! What is read is not trusted: see [`byte_list`].

use std::{mem, sync::Arc};

use bytes::Bytes;
use pipelet_domain::events::{Event, Seq};

use super::{
    StoreError,
    byte_list::{self, ByteList},
    codec::{decode_event, encode_event},
};

/// In bytes before compression; a longer event is a block by itself. Of 4 to 32 KB this wrote the
/// least: compressed, such a block is about 2.5 KB of payloads that differ, far from a second
/// chunk of the engine's values, and longer ones compress hardly better.
const CLOSE_AT: usize = 8 * 1024;

/// Events from a position on, still encoded.
pub(super) struct Block {
    first: Seq,
    events: Vec<Bytes>,
}

/// Packs events, the first of which has the position `first`; each block comes with its own.
pub(super) fn pack(first: Seq, events: &[Arc<Event>]) -> Vec<(Seq, Vec<u8>)> {
    let mut blocks = Vec::new();
    let (mut open, mut open_from) = (ByteList::default(), first);
    for (seq, event) in (first.0..).map(Seq).zip(events) {
        let event = encode_event(event);
        if !open.is_empty() && open.plain_len() + event.len() > CLOSE_AT {
            blocks.push((open_from, mem::take(&mut open).encode()));
            open_from = seq;
        }
        open.add(&event);
    }
    if !open.is_empty() {
        blocks.push((open_from, open.encode()));
    }
    blocks
}

/// The position after the last event of a block, which is not unpacked for it.
pub(super) fn end(first: Seq, value: &[u8]) -> Result<Seq, StoreError> {
    let count = byte_list::count(value)?;
    Ok(Seq(first.0.saturating_add(count)))
}

impl Block {
    pub(super) fn unpack(first: Seq, value: &Bytes) -> Result<Self, StoreError> {
        let events = byte_list::decode(value)?;
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
        fn random_bytes_never_panic(
            first in prop_oneof![any::<u64>(), u64::MAX - 9..=u64::MAX],
            bytes in prop::collection::vec(any::<Vec<u8>>(), 1..9),
        ) {
            let mut list = ByteList::default();
            for bytes in &bytes {
                list.add(bytes);
            }
            let value = list.encode();
            let _ = end(Seq(first), &value);
            let block = Block::unpack(Seq(first), &value.into()).unwrap();
            let _ = block.read_from(Seq(0)).count();
        }
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
