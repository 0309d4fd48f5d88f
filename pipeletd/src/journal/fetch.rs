//! Events by their positions, from the ring of recent ones or from the store.

use std::sync::Arc;

use pipelet_domain::events::{Event, Seq};

use super::Journal;
use crate::store::{LogStore, ReadLimit, StoreError};

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
        self.shared.log.read_from(from, limit).await
    }

    /// The event at a position, as long as it is kept.
    pub async fn event(&self, seq: Seq) -> Result<Option<Arc<Event>>, StoreError> {
        let fetched = self.fetch(&[seq], ReadLimit::part(1)).await?;
        Ok(fetched.events.into_iter().next().map(|(_, event)| event))
    }

    /// The events at these positions, which ascend.
    pub async fn fetch(&self, seqs: &[Seq], limit: ReadLimit) -> Result<Fetched, StoreError> {
        if let Some(fetched) = self.shared.recent.fetch(seqs, limit) {
            return Ok(fetched);
        }
        let mut fetched = Fetched::default();
        while let rest @ [first, ..] = &seqs[fetched.looked_at..] {
            let near = rest.partition_point(|seq| seq.0 - first.0 < NEAR);
            let log = self.shared.log.as_ref();
            if !fetched.pick(log, &rest[..near], limit).await? {
                break;
            }
        }
        Ok(fetched)
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
    async fn pick(
        &mut self,
        log: &dyn LogStore,
        seqs: &[Seq],
        limit: ReadLimit,
    ) -> Result<bool, StoreError> {
        let [first, .., last] = seqs else {
            return self.pick_one(log, seqs[0], limit).await;
        };
        let span = usize::try_from(last.0 - first.0).map_or(usize::MAX, |apart| apart + 1);
        if span > seqs.len() * SPARSE {
            return self.pick_one(log, *first, limit).await;
        }
        let bytes = limit.bytes.saturating_sub(self.bytes);
        let limited = ReadLimit { count: span, bytes };
        let read = log.read_from(*first, limited).await?;
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

    async fn pick_one(
        &mut self,
        log: &dyn LogStore,
        seq: Seq,
        limit: ReadLimit,
    ) -> Result<bool, StoreError> {
        let taken = log
            .event(seq)
            .await?
            .is_none_or(|event| self.take(seq, event, limit));
        self.looked_at += usize::from(taken);
        Ok(taken)
    }
}
