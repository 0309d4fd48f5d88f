//! Events by their positions, from the ring of recent ones or from the store.

use std::sync::Arc;

use pipelet_domain::events::{Event, Seq};

use super::Journal;
use crate::store::{ReadLimit, Store, StoreError, blocking};

/// How far apart positions may be that are read in one go: what stands between is read in vain.
const NEAR: u64 = 64;
/// Where fewer than one in so many is wanted, each is read by itself.
const SPARSE: usize = 16;

/// The events of some positions, as far as there was room for them.
#[derive(Debug, Default)]
pub struct Fetched {
    /// In order; one that is no longer kept is left out.
    pub events: Vec<(Seq, Arc<Event>)>,
    /// How many of the positions, from the first on, were looked at.
    pub looked_at: usize,
    bytes: usize,
}

impl Journal {
    /// Events from a position on that are durable, in order.
    pub async fn read_from(
        &self,
        from: Seq,
        limit: ReadLimit,
    ) -> Result<Vec<(Seq, Arc<Event>)>, StoreError> {
        if let Some(events) = self.shared.recent.read_from(from, limit) {
            return Ok(events);
        }
        let store = Arc::clone(&self.shared.store);
        blocking(move || store.read_from(from, limit)).await
    }

    /// The events at these positions, which ascend.
    pub async fn fetch(&self, seqs: &[Seq], limit: ReadLimit) -> Result<Fetched, StoreError> {
        if let Some(fetched) = self.shared.recent.fetch(seqs, limit) {
            return Ok(fetched);
        }
        let store = Arc::clone(&self.shared.store);
        let seqs = seqs.to_vec();
        blocking(move || {
            let mut fetched = Fetched::default();
            while let rest @ [first, ..] = &seqs[fetched.looked_at..] {
                let near = rest.partition_point(|seq| seq.0 - first.0 < NEAR);
                if !fetched.pick(store.as_ref(), &rest[..near], limit)? {
                    break;
                }
            }
            Ok(fetched)
        })
        .await
    }
}

impl Fetched {
    /// Takes the event at the next position; false where there is no room for it.
    pub(super) fn take(&mut self, seq: Seq, event: Arc<Event>, limit: ReadLimit) -> bool {
        let size = event.memory_size();
        if !limit.admits(self.events.len(), self.bytes, size) {
            return false;
        }
        self.bytes += size;
        self.events.push((seq, event));
        true
    }

    /// Takes events at some of these positions, which are not far apart, the first ones; false
    /// where there is no room for more.
    ///
    /// A store keeps neighbours together: where many of them are wanted, they are read in one go.
    fn pick(
        &mut self,
        store: &dyn Store,
        seqs: &[Seq],
        limit: ReadLimit,
    ) -> Result<bool, StoreError> {
        let [first, .., last] = seqs else {
            return self.pick_one(store, seqs[0], limit);
        };
        let span = usize::try_from(last.0 - first.0).map_or(usize::MAX, |apart| apart + 1);
        if span > seqs.len() * SPARSE {
            return self.pick_one(store, *first, limit);
        }
        let bytes = limit.bytes.saturating_sub(self.bytes);
        let read = store.read_from(*first, ReadLimit { count: span, bytes })?;
        // With none there, none of these is kept any more.
        let read_to = read.last().map_or(*last, |(seq, _)| *seq);
        for (seq, event) in read {
            if let Ok(index) = seqs.binary_search(&seq)
                && !self.take(seq, event, limit)
            {
                self.looked_at += index;
                return Ok(false);
            }
        }
        self.looked_at += seqs.partition_point(|seq| *seq <= read_to);
        Ok(true)
    }

    fn pick_one(
        &mut self,
        store: &dyn Store,
        seq: Seq,
        limit: ReadLimit,
    ) -> Result<bool, StoreError> {
        let taken = store
            .event(seq)?
            .is_none_or(|event| self.take(seq, event, limit));
        self.looked_at += usize::from(taken);
        Ok(taken)
    }
}
