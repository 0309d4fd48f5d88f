//! Forgets the oldest events, once every webhook has settled them.
//!
//! Settled events are kept for a time, and no more of them than a size. What a webhook still
//! needs is never taken, however old it is.

use std::{sync::atomic::Ordering, time::Duration};

use jiff::Timestamp;
use pipelet_domain::events::Seq;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{AppendError, Journal};
use crate::{
    store::{LogStore, ReadLimit, StoreError},
    system::clock::Clock,
};

/// How often the journal's end is looked at.
const EVERY: Duration = Duration::from_secs(10);
/// Events that are looked at, and forgotten, at once.
const STRIDE: usize = 1024;

/// How long and how much of what is settled stays.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    pub keep: Duration,
    /// In bytes.
    pub size: u64,
}

impl Retention {
    /// Runs until the journal ends or the daemon shuts down, by what is current. `needed` is a further position
    /// below which nothing is needed, asked for each time.
    pub async fn run(
        mut current: watch::Receiver<Self>,
        journal: Journal,
        needed: impl Fn() -> Seq + Send,
        clock: Clock,
        shutdown: CancellationToken,
    ) -> Result<(), StoreError> {
        let mut ticks = tokio::time::interval(EVERY);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                _ = ticks.tick() => {}
                Ok(()) = current.changed() => {}
            }
            let floor = match journal.floor().await {
                Ok(floor) => floor,
                Err(AppendError::Failing(_)) => continue,
                Err(AppendError::Stopped) => return Ok(()),
            };
            let floor = floor.min(needed());
            let retention = *current.borrow_and_update();
            let oldest = clock.ago(retention.keep);
            let log = journal.shared.log.as_ref();
            let forget = async {
                retention.forget(log, floor, oldest).await?;
                log.bounds().await
            };
            match forget.await {
                Ok(kept) => journal.shared.oldest.store(kept.start.0, Ordering::Relaxed),
                // There is a next time.
                Err(error) if error.is_outage() => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Forgets what is settled and too old or too much.
    async fn forget(
        self,
        log: &dyn LogStore,
        floor: Seq,
        oldest: Timestamp,
    ) -> Result<(), StoreError> {
        let bounds = log.bounds().await?;
        let mut kept = estimated_size(log, bounds.end.0 - bounds.start.0, bounds.start).await?;
        let mut end = bounds.start;
        while end < floor {
            let judged_to = end;
            for (seq, event) in log.read_from(judged_to, ReadLimit::part(STRIDE)).await? {
                if seq >= floor || (event.time >= oldest && kept <= self.size) {
                    break;
                }
                kept = kept.saturating_sub(event.size() as u64);
                end = seq.next();
            }
            if end == judged_to {
                break;
            }
            // The store may keep some of these until what stands with them may go, too. So the
            // next look begins behind what was judged, and not at the oldest event that is left.
            while log.trim(end, 2 * STRIDE).await? > 0 {}
        }
        Ok(())
    }
}

/// The journal's size by its number of events and the mean size of some of them.
async fn estimated_size(log: &dyn LogStore, count: u64, start: Seq) -> Result<u64, StoreError> {
    let sample = log.read_from(start, ReadLimit::part(STRIDE)).await?;
    let bytes: usize = sample.iter().map(|(_, event)| event.size()).sum();
    Ok(count * bytes as u64 / (sample.len() as u64).max(1))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::mpsc;

    use super::*;
    use crate::{
        store::{memory::MemoryStore, sled::SledStore},
        system::limits::memory::MemoryBudget,
    };
    use pipelet_domain::events::{Event, EventId, EventType, Payload, StationId};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_776_000_000 + second).unwrap()
    }

    fn event(second: u64) -> Arc<Event> {
        let station = StationId::new("S").unwrap();
        let time = at(i64::try_from(second).unwrap());
        let id = EventId::new(time, [0; 10]);
        let payload = Payload::empty();
        Arc::new(Event::new(
            id,
            EventType::Heartbeat,
            station,
            time,
            None,
            payload,
        ))
    }

    /// 100 events, one a second; returns which ones are left.
    async fn check(keep_secs: u64, size: u64, floor: u64, now: i64, left: std::ops::Range<u64>) {
        let store = MemoryStore::default();
        let events: Vec<_> = (0..100).map(event).collect();
        store.append(events.into(), [].into()).await.unwrap();
        let retention = Retention {
            keep: Duration::from_secs(keep_secs),
            size,
        };
        retention
            .forget(&store, Seq(floor), at(now) - retention.keep)
            .await
            .unwrap();
        assert_eq!(
            store.bounds().await.unwrap(),
            Seq(left.start)..Seq(left.end)
        );
    }

    #[tokio::test]
    async fn only_what_is_settled_and_old_or_too_much_goes() {
        let size = 2 + 1 + 64;
        check(60, u64::MAX, 100, 99, 39..100).await;
        check(60, u64::MAX, 20, 99, 20..100).await;
        check(60, u64::MAX, 100, 10, 0..100).await;
        check(600, size * 30, 100, 99, 70..100).await;
        check(600, size * 30, 50, 99, 50..100).await;
        check(0, 0, 100, 1_000, 99..100).await;
    }

    #[tokio::test]
    async fn another_retention_holds_at_once() {
        let store = Arc::new(MemoryStore::default());
        let events: Vec<_> = (0..10).map(event).collect();
        store.append(events.into(), [].into()).await.unwrap();
        let ending = CancellationToken::new();
        let memory = MemoryBudget::of(MemoryBudget::SMALLEST);
        let journal = Journal::open(store.clone(), Vec::new(), &memory, Clock::system(), ending)
            .await
            .unwrap();
        let kept = watch::Sender::new(Retention {
            keep: Duration::from_hours(1_000_000),
            size: u64::MAX,
        });
        let (needed, mut asked) = mpsc::channel(8);
        // Each look at the journal begins with this.
        let needed = move || {
            needed.try_send(()).unwrap();
            Seq(10)
        };
        let shutdown = CancellationToken::new();
        let journal = journal.journal;
        let (clock, receiver) = (Clock::system(), kept.subscribe());
        let running = Retention::run(receiver, journal, needed, clock, shutdown.clone());
        let running = tokio::spawn(running);
        asked.recv().await.unwrap();
        let (keep, size) = (Duration::ZERO, 0);
        kept.send_replace(Retention { keep, size });
        asked.recv().await.unwrap();
        shutdown.cancel();
        running.await.unwrap().unwrap();
        assert_eq!(store.bounds().await.unwrap(), Seq(9)..Seq(10));
    }

    #[tokio::test]
    async fn what_a_store_keeps_together_goes_together() {
        let directory = tempfile::tempdir().unwrap();
        let store = SledStore::open(directory.path()).unwrap();
        let total = 20 * STRIDE as u64;
        for first in (0..total).step_by(1_000) {
            let events: Vec<_> = (first..total.min(first + 1_000)).map(event).collect();
            store.append(events.into(), [].into()).await.unwrap();
        }
        let retention = Retention {
            keep: Duration::ZERO,
            size: 0,
        };
        let mut start = 0;
        for floor in (0..total).step_by(2_999) {
            let forget = retention.forget(&store, Seq(floor), at(1 << 30));
            forget.await.unwrap();
            let left = store.bounds().await.unwrap();
            assert!(left.start.0 >= start && left.start.0 <= floor);
            // No batch has more, so no more than this can stand in the way.
            assert!(floor - left.start.0 < 1_000, "{} for {floor}", left.start.0);
            assert_eq!(left.end, Seq(total));
            start = left.start.0;
        }
    }
}
