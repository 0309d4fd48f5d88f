//! The ring of recent events, so that who keeps up never reads the store.
//!
//! Bounded by number and by bytes, whatever readers do.

use std::{
    collections::VecDeque,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
};

use jiff::Timestamp;
use pipelet_domain::events::{Event, Seq};

use super::fetch::Fetched;
use crate::store::ReadLimit;

const MAX_EVENTS: usize = 32 * 1024;

#[derive(Debug)]
pub(super) struct Recent {
    ring: RwLock<Ring>,
    max_bytes: usize,
}

#[derive(Debug)]
struct Ring {
    /// The position of the oldest one.
    base: Seq,
    events: VecDeque<Arc<Event>>,
    /// Where those begin that came to disk together, and when that was.
    batches: VecDeque<(Seq, Timestamp)>,
    bytes: usize,
}

impl Recent {
    /// For so many bytes of events in memory.
    pub(super) fn starting_at(base: Seq, max_bytes: usize) -> Self {
        let ring = RwLock::new(Ring {
            base,
            events: VecDeque::new(),
            batches: VecDeque::new(),
            bytes: 0,
        });
        Self { ring, max_bytes }
    }

    /// In bytes: what the events here take.
    pub(super) fn bytes(&self) -> usize {
        self.read().bytes
    }

    /// Adds events that follow the last one and came to disk now, and forgets the oldest beyond the
    /// bounds.
    pub(super) fn push(&self, events: &[Arc<Event>], now: Timestamp) {
        let mut ring = self.ring.write().unwrap_or_else(PoisonError::into_inner);
        let first = Seq(ring.base.0 + ring.events.len() as u64);
        ring.batches.push_back((first, now));
        for event in events {
            ring.bytes += event.memory_size();
            ring.events.push_back(Arc::clone(event));
        }
        while ring.events.len() > MAX_EVENTS || ring.bytes > self.max_bytes {
            let Some(oldest) = ring.events.pop_front() else {
                break;
            };
            ring.bytes -= oldest.memory_size();
            ring.base = ring.base.next();
        }
        // The first one that is left may be of the batch before the second.
        while ring
            .batches
            .get(1)
            .is_some_and(|(first, _)| *first <= ring.base)
        {
            ring.batches.pop_front();
        }
    }

    /// When this event came to disk; `None` where it is no longer here.
    pub(super) fn durable_at(&self, seq: Seq) -> Option<Timestamp> {
        let ring = self.read();
        let end = ring.base.0 + ring.events.len() as u64;
        let behind = ring.batches.partition_point(|(first, _)| *first <= seq);
        let (_, at) = ring.batches.get(behind.checked_sub(1)?)?;
        (ring.base..Seq(end)).contains(&seq).then_some(*at)
    }

    /// The events at these positions, which ascend; `None` where one is no longer here.
    pub(super) fn fetch(&self, seqs: &[Seq], limit: ReadLimit) -> Option<Fetched> {
        let ring = self.read();
        let mut fetched = Fetched::default();
        for seq in seqs {
            let index = usize::try_from(seq.0.checked_sub(ring.base.0)?).ok()?;
            let event = ring.events.get(index)?;
            if !fetched.take(*seq, Arc::clone(event), limit) {
                break;
            }
            fetched.looked_at += 1;
        }
        Some(fetched)
    }

    /// Events from a position on; `None` where that one is no longer here.
    pub(super) fn read_from(&self, from: Seq, limit: ReadLimit) -> Option<Vec<(Seq, Arc<Event>)>> {
        let ring = self.read();
        let skip = usize::try_from(from.0.checked_sub(ring.base.0)?).ok()?;
        let mut fetched = Fetched::default();
        for (seq, event) in (from.0..).map(Seq).zip(ring.events.iter().skip(skip)) {
            if !fetched.take(seq, Arc::clone(event), limit) {
                break;
            }
        }
        Some(fetched.events)
    }

    fn read(&self) -> RwLockReadGuard<'_, Ring> {
        self.ring.read().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pipelet_domain::events::{EventId, EventType, Payload, StationId};

    fn events(count: usize) -> Vec<Arc<Event>> {
        let station = StationId::new("S").unwrap();
        let id = EventId::from_bytes([0; 16]);
        let time = Timestamp::UNIX_EPOCH;
        let payload = Payload::empty();
        let event = Event::new(id, EventType::Heartbeat, station, time, None, payload);
        let event = Arc::new(event);
        (0..count).map(|_| Arc::clone(&event)).collect()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn when_an_event_came_to_disk_is_known_as_long_as_it_is_here() {
        let recent = Recent::starting_at(Seq(10), usize::MAX);
        let known = |seq| recent.durable_at(Seq(seq));
        assert_eq!(known(10), None);
        recent.push(&events(2), at(1));
        recent.push(&events(3), at(2));
        assert_eq!([9, 10, 11].map(known), [None, Some(at(1)), Some(at(1))]);
        assert_eq!([12, 14, 15].map(known), [Some(at(2)), Some(at(2)), None]);
        recent.push(&events(MAX_EVENTS - 4), at(3));
        assert_eq!([10, 11, 12].map(known), [None, Some(at(1)), Some(at(2))]);
        recent.push(&events(MAX_EVENTS), at(4));
        let end = recent.read().base.0 + MAX_EVENTS as u64;
        assert_eq!(known(end - MAX_EVENTS as u64 - 1), None);
        assert_eq!(known(end - 1), Some(at(4)));
        assert_eq!(recent.read().batches.len(), 1);
    }
}
