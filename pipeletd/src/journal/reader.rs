//! One webhook's way through the journal, forward.

use std::sync::{Arc, atomic::Ordering};

use super::{
    Journal,
    feed::{Feed, Taken},
};
use crate::{
    delivery::record::{Cursor, is_owed},
    events::{Event, Seq},
    store::{Store, StoreError, blocking},
    webhooks::WebhookId,
};

/// Events read from the store at once by one that lags.
const STRIDE: usize = 512;
/// And so many by one that comes back to some positions: what stands between is read in vain.
const NEAR: u64 = 64;
/// Where fewer than one in so many is wanted, each is read by itself.
const SPARSE: usize = 16;

/// Reads what one webhook is owed, each event once and in order.
#[derive(Debug)]
pub struct Reader {
    webhook: WebhookId,
    journal: Journal,
    feed: Arc<Feed>,
    /// The cursor that it started with.
    start: Cursor,
    position: Seq,
}

/// What a reader found.
#[derive(Debug)]
pub struct Read {
    /// Owed events, in order.
    pub events: Vec<(Seq, Arc<Event>)>,
    /// There is nothing more to read now.
    pub caught_up: bool,
}

impl Reader {
    pub(super) fn new(
        webhook: WebhookId,
        journal: Journal,
        feed: Arc<Feed>,
        start: Cursor,
    ) -> Self {
        let position = start.read_to;
        Self {
            webhook,
            journal,
            feed,
            start,
            position,
        }
    }

    /// The cursor that was found at the start.
    pub fn start(&self) -> &Cursor {
        &self.start
    }

    /// Everything that is owed below this position was returned by [`Self::read`].
    pub fn position(&self) -> Seq {
        self.position
    }

    /// How many events the webhook has been owed in all.
    pub fn received(&self) -> ReceivedCount {
        ReceivedCount(Arc::clone(&self.feed))
    }

    /// Resolves when there may be more to read.
    pub async fn woken(&self) {
        self.feed.wake.notified().await;
    }

    /// Reads at most `limit` events forward; fewer where it had to pass many that are not owed.
    pub async fn read(&mut self, limit: usize) -> Result<Read, StoreError> {
        // Loaded before the feed is looked into: what is below it was pushed before.
        let fed = Seq(self.journal.shared.fed.load(Ordering::Acquire));
        // Loaded before the epochs are: they hold for every event below it.
        let head = self.journal.head();
        match self.feed.take(self.position, limit, || self.journal.head()) {
            Taken::Live { seqs, drained } => {
                let events = self.fetch(&seqs).await?;
                if let Some(last) = seqs.last() {
                    self.position = last.next();
                }
                if drained {
                    self.position = self.position.max(fed);
                }
                Ok(Read {
                    events,
                    caught_up: drained,
                })
            }
            Taken::Lagging(epochs) => {
                let mut events = self.stride(limit.min(STRIDE)).await?;
                events.retain(|(seq, _)| *seq < head);
                if let Some((last, _)) = events.last() {
                    self.position = last.next();
                }
                events.retain(|(seq, event)| is_owed(self.webhook, &epochs, *seq, event));
                Ok(Read {
                    events,
                    caught_up: false,
                })
            }
        }
    }

    /// The events at these positions, which ascend, wherever they are kept.
    pub async fn fetch(&self, seqs: &[Seq]) -> Result<Vec<(Seq, Arc<Event>)>, StoreError> {
        if let Some(events) = self.journal.shared.recent.get(seqs) {
            return Ok(events);
        }
        let store = Arc::clone(&self.journal.shared.store);
        let seqs = seqs.to_vec();
        blocking(move || {
            let mut events = Vec::with_capacity(seqs.len());
            let mut rest = seqs.as_slice();
            while let Some(first) = rest.first() {
                let reach = rest.partition_point(|seq| seq.0 - first.0 < NEAR);
                let (near, further) = rest.split_at(reach);
                pick(store.as_ref(), near, &mut events)?;
                rest = further;
            }
            Ok(events)
        })
        .await
    }

    async fn stride(&self, limit: usize) -> Result<Vec<(Seq, Arc<Event>)>, StoreError> {
        if let Some(events) = self.journal.shared.recent.read_from(self.position, limit) {
            return Ok(events);
        }
        let store = Arc::clone(&self.journal.shared.store);
        let from = self.position;
        blocking(move || store.read_from(from, limit)).await
    }
}

/// Adds the events at these positions, which ascend and are not far apart.
///
/// A store keeps neighbours together: where many of them are wanted, they are read in one go.
fn pick(
    store: &dyn Store,
    seqs: &[Seq],
    events: &mut Vec<(Seq, Arc<Event>)>,
) -> Result<(), StoreError> {
    let (Some(first), Some(last)) = (seqs.first(), seqs.last()) else {
        return Ok(());
    };
    let span = usize::try_from(last.0 - first.0).map_or(usize::MAX, |apart| apart + 1);
    if span > seqs.len() * SPARSE {
        for seq in seqs {
            events.extend(store.event(*seq)?.map(|event| (*seq, event)));
        }
    } else {
        let read = store.read_from(*first, span)?;
        events.extend(
            read.into_iter()
                .filter(|(seq, _)| seqs.binary_search(seq).is_ok()),
        );
    }
    Ok(())
}

/// A live count of what a webhook has been owed in all. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ReceivedCount(Arc<Feed>);

impl ReceivedCount {
    pub fn count(&self) -> u64 {
        self.0.received()
    }
}
