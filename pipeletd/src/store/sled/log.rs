//! The log in the hot database: blocks of events, and what checkpoints leave of each webhook.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{Arc, PoisonError, atomic::Ordering},
};

use async_trait::async_trait;
use pipelet_domain::{
    deliveries::{Cursor, Received, SubscriptionVersion},
    events::{Event, Seq},
    webhooks::WebhookId,
};

use super::{
    Inner, SledStore,
    database::{Batch, Database},
    room::Purpose,
};
use crate::store::{
    BATCH_BYTES, Checkpoint, LogStore, Progress, ReadLimit, StoreError,
    block::{self, Block},
    codec,
    keys::{self, Kind, Meta},
    records,
    table::{Table as _, ledger::read, number_of},
};

/// Where the next append goes.
#[derive(Debug)]
pub(super) struct Tail {
    pub(super) next: Seq,
    /// An append failed: some of its events may be there.
    pub(super) unresolved: bool,
}

#[async_trait]
impl LogStore for SledStore {
    async fn bounds(&self) -> Result<Range<Seq>, StoreError> {
        self.reading(|store| bounds(&store.hot)).await
    }

    async fn append(
        &self,
        events: Arc<[Arc<Event>]>,
        checkpoints: Arc<[Checkpoint]>,
    ) -> Result<Seq, StoreError> {
        self.0.append(&events, &checkpoints)
    }

    async fn check(&self) -> Result<(), StoreError> {
        let store = &self.0;
        let tail = store.tail.lock();
        store.resolve(&mut tail.unwrap_or_else(PoisonError::into_inner))?;
        // For a whole batch, so that what is begun again goes on.
        store.hot.check(Purpose::Event, BATCH_BYTES as u64)?;
        store.cold.check(Purpose::Upkeep, 0)
    }

    fn has_room_for_strangers(&self) -> bool {
        self.0.hot.check(Purpose::Stranger, 0).is_ok()
    }

    async fn read_from(
        &self,
        from: Seq,
        limit: ReadLimit,
    ) -> Result<Vec<(Seq, Arc<Event>)>, StoreError> {
        self.reading(move |store| store.read_from(from, limit))
            .await
    }

    async fn event(&self, seq: Seq) -> Result<Option<Arc<Event>>, StoreError> {
        self.reading(move |store| {
            let events = store.read_from(seq, ReadLimit::part(1))?;
            let event = events.into_iter().find(|(found, _)| *found == seq);
            Ok(event.map(|(_, event)| event))
        })
        .await
    }

    async fn trim(&self, floor: Seq, limit: usize) -> Result<u64, StoreError> {
        self.reading(move |store| store.trim(floor, limit)).await
    }

    async fn progress(&self) -> Result<BTreeMap<WebhookId, Progress>, StoreError> {
        self.reading(Inner::progress).await
    }
}

impl Inner {
    fn append(&self, events: &[Arc<Event>], checkpoints: &[Checkpoint]) -> Result<Seq, StoreError> {
        let tail = self.tail.lock();
        let mut tail = tail.unwrap_or_else(PoisonError::into_inner);
        self.resolve(&mut tail)?;
        let first = tail.next;
        let mut batch = Batch::default();
        for (first, block) in block::pack(first, events) {
            Database::put_new(&mut batch, &keys::event(first), &block);
        }
        for checkpoint in checkpoints {
            match checkpoint {
                Checkpoint::Cursor(webhook, cursor) => {
                    let value = codec::encode_cursor(cursor);
                    self.hot.put(&mut batch, &keys::cursor(*webhook), &value)?;
                }
                Checkpoint::Received(webhook, received) => {
                    let value = codec::encode_received(*received);
                    Database::put_new(&mut batch, &keys::received(*webhook), &value);
                }
                Checkpoint::Subscription(webhook, versions) => {
                    let value = records::encode_subscription(versions);
                    let key = keys::subscription(*webhook);
                    self.hot.put(&mut batch, &key, &value)?;
                }
                Checkpoint::Gone(webhook) => {
                    self.hot.remove(&mut batch, &keys::subscription(*webhook))?;
                    self.hot.remove(&mut batch, &keys::cursor(*webhook))?;
                    self.hot.remove(&mut batch, &keys::received(*webhook))?;
                }
            }
        }
        let cold_durable = self.cold_durable.load(Ordering::Acquire);
        if cold_durable > self.cold_known.load(Ordering::Relaxed) {
            let key = keys::meta(Meta::ColdCommits);
            Database::put_new(&mut batch, &key, &cold_durable.to_be_bytes());
        }
        let purpose = if events.is_empty() {
            Purpose::Upkeep
        } else {
            Purpose::Event
        };
        let committed = self.hot.commit(batch, purpose);
        tail.unresolved = committed.is_err();
        committed?;
        tail.next = Seq(first.0 + events.len() as u64);
        self.cold_known.store(cold_durable, Ordering::Relaxed);
        Ok(first)
    }

    /// Leaves nothing of an append that failed.
    fn resolve(&self, tail: &mut Tail) -> Result<(), StoreError> {
        if tail.unresolved {
            self.cut_off(tail.next)?;
            tail.unresolved = false;
        }
        Ok(())
    }

    /// Forgets the events from `end` on, durably.
    fn cut_off(&self, end: Seq) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        // What was appended together begins with a block of its own, so none reaches beyond.
        let from = keys::event(end);
        let mut found = false;
        for entry in self.hot.range(&from, &keys::prefix(Kind::Event)) {
            self.hot.remove(&mut batch, &entry?.0)?;
            found = true;
        }
        if found {
            self.hot.commit(batch, Purpose::Upkeep)?;
        }
        Ok(())
    }

    fn read_from(&self, from: Seq, limit: ReadLimit) -> Result<Vec<(Seq, Arc<Event>)>, StoreError> {
        let key = keys::event(from);
        let containing = self.hot.key_at_or_before(Kind::Event, &key)?;
        let start = containing.as_deref().unwrap_or(&key);
        let mut bytes = 0;
        let mut events = Vec::new();
        for entry in self.hot.range(start, &keys::prefix(Kind::Event)) {
            let (key, value) = entry?;
            let block = Block::unpack(Seq(number_of(&key)?), &value)?;
            for event in block.read_from(from) {
                let (seq, event) = event?;
                let size = event.memory_size();
                if !limit.admits(events.len(), bytes, size) {
                    return Ok(events);
                }
                bytes += size;
                events.push((seq, event));
            }
            // So that no further block is read for nothing.
            if events.len() >= limit.count || bytes >= limit.bytes {
                break;
            }
        }
        Ok(events)
    }

    fn trim(&self, floor: Seq, limit: usize) -> Result<u64, StoreError> {
        if self.backups.load(Ordering::SeqCst) > 0 {
            return Ok(0);
        }
        let mut keys = self.hot.keys(&keys::prefix(Kind::Event));
        let Some(mut oldest) = keys.next().transpose()? else {
            return Ok(0);
        };
        let start = number_of(&oldest)?;
        let limit = start.saturating_add(limit as u64);
        let mut batch = Batch::default();
        let mut bytes = 0;
        // A block ends where the next one begins; the last one, which stays, has none behind it.
        for next in keys {
            let next = next?;
            let end = number_of(&next)?;
            // The first one goes even where it alone is over the limit.
            let is_full = end > limit || bytes >= BATCH_BYTES as u64;
            if end > floor.0 || (bytes > 0 && is_full) {
                break;
            }
            bytes += self.hot.remove_chunks(&mut batch, &oldest)? as u64;
            oldest = next;
        }
        self.hot.apply(batch, Purpose::Upkeep)?;
        Ok(bytes)
    }

    fn progress(&self) -> Result<BTreeMap<WebhookId, Progress>, StoreError> {
        let mut progress: BTreeMap<_, Progress> = BTreeMap::new();
        for entry in self.hot.kind(Kind::Cursor) {
            let (id, cursor): (_, Cursor) = read(entry?, codec::decode_cursor)?;
            progress.entry(id).or_default().cursor = Some(cursor);
        }
        for entry in self.hot.kind(Kind::Received) {
            let (id, received): (_, Received) = read(entry?, codec::decode_received)?;
            progress.entry(id).or_default().received = Some(received);
        }
        for entry in self.hot.kind(Kind::Subscription) {
            let (id, versions): (_, Vec<SubscriptionVersion>) =
                read(entry?, records::decode_subscription)?;
            progress.entry(id).or_default().versions = versions.into();
        }
        Ok(progress)
    }
}

/// The journal's bounds.
pub(super) fn bounds(hot: &Database) -> Result<Range<Seq>, StoreError> {
    let first = hot.keys(&keys::prefix(Kind::Event)).next().transpose()?;
    let last = hot.last(Kind::Event)?;
    match (first, last) {
        (Some(first), Some((key, value))) => {
            let end = block::end(Seq(number_of(&key)?), &value)?;
            Ok(Seq(number_of(&first)?)..end)
        }
        _ => Ok(Seq(0)..Seq(0)),
    }
}
