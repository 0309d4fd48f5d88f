//! The ring of recent events, so that who keeps up never reads the store.
//!
//! Bounded by number and by bytes, whatever readers do.

use std::{
    collections::VecDeque,
    sync::{Arc, PoisonError, RwLock},
};

use crate::events::{Event, Seq};

const MAX_EVENTS: usize = 32 * 1024;
const MAX_BYTES: usize = 32 << 20;

#[derive(Debug)]
pub(super) struct Recent(RwLock<Ring>);

#[derive(Debug)]
struct Ring {
    /// The position of the oldest one.
    base: Seq,
    events: VecDeque<Arc<Event>>,
    bytes: usize,
}

impl Recent {
    pub(super) fn starting_at(base: Seq) -> Self {
        Self(RwLock::new(Ring {
            base,
            events: VecDeque::new(),
            bytes: 0,
        }))
    }

    /// Adds events that follow the last one, and forgets the oldest beyond the bounds.
    pub(super) fn push(&self, events: &[Arc<Event>]) {
        let mut ring = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for event in events {
            ring.bytes += event.size();
            ring.events.push_back(Arc::clone(event));
        }
        while ring.events.len() > MAX_EVENTS || ring.bytes > MAX_BYTES {
            let Some(oldest) = ring.events.pop_front() else {
                break;
            };
            ring.bytes -= oldest.size();
            ring.base = ring.base.next();
        }
    }

    /// The events at these positions, which ascend; `None` where one is no longer here.
    pub(super) fn get(&self, seqs: &[Seq]) -> Option<Vec<(Seq, Arc<Event>)>> {
        let ring = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let event = |seq: &Seq| {
            let index = usize::try_from(seq.0.checked_sub(ring.base.0)?).ok()?;
            Some((*seq, Arc::clone(ring.events.get(index)?)))
        };
        seqs.iter().map(event).collect()
    }

    /// At most `limit` events from a position on; `None` where that one is no longer here.
    pub(super) fn read_from(&self, from: Seq, limit: usize) -> Option<Vec<(Seq, Arc<Event>)>> {
        let ring = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let skip = usize::try_from(from.0.checked_sub(ring.base.0)?).ok()?;
        let events = ring.events.iter().skip(skip).take(limit);
        Some((from.0..).map(Seq).zip(events.cloned()).collect())
    }
}
