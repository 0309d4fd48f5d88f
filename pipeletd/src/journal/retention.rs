//! Forgets the oldest events, once every webhook has settled them.
//!
//! Settled events are kept for a time, and no more of them than a size. What a webhook still
//! needs is never taken, however old it is.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::Journal;
use crate::{
    clock::Clock,
    events::Seq,
    store::{Store, StoreError, blocking},
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
    /// Runs until the journal ends or the daemon shuts down. `needed` is a further position
    /// below which nothing is needed, asked for each time.
    pub async fn run(
        self,
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
            }
            let Ok(floor) = journal.floor().await else {
                return Ok(());
            };
            let floor = floor.min(needed());
            let store = Arc::clone(&journal.shared.store);
            let oldest = clock.now() - self.keep;
            blocking(move || self.forget(store.as_ref(), floor, oldest)).await?;
        }
    }

    /// Forgets what is settled and too old or too much.
    fn forget(self, store: &dyn Store, floor: Seq, oldest: Timestamp) -> Result<(), StoreError> {
        let bounds = store.bounds()?;
        let mut kept = estimated_size(store, bounds.end.0 - bounds.start.0, bounds.start)?;
        let mut tail = bounds.start;
        while tail < floor {
            let events = store.read_from(tail, STRIDE)?;
            let mut end = tail;
            for (seq, event) in events {
                if seq >= floor || (event.time >= oldest && kept <= self.size) {
                    break;
                }
                kept = kept.saturating_sub(event.size() as u64);
                end = seq.next();
            }
            if end == tail {
                break;
            }
            store.drop_below(end, STRIDE)?;
            if store.bounds()?.start <= tail {
                break;
            }
            tail = end;
        }
        Ok(())
    }
}

/// The journal's size by its number of events and the mean size of some of them.
fn estimated_size(store: &dyn Store, count: u64, start: Seq) -> Result<u64, StoreError> {
    let sample = store.read_from(start, STRIDE)?;
    let bytes: usize = sample.iter().map(|(_, event)| event.size()).sum();
    Ok(count * bytes as u64 / (sample.len() as u64).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        events::{Event, EventId, EventType, Payload, StationId},
        store::memory::MemoryStore,
    };

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_776_000_000 + second).unwrap()
    }

    /// 100 events, one a second; returns which ones are left.
    fn check(keep_secs: u64, size: u64, floor: u64, now: i64, left: std::ops::Range<u64>) {
        let store = MemoryStore::default();
        let events: Vec<_> = (0..100)
            .map(|second| {
                let station = StationId::new("S").unwrap();
                let kind = EventType::Heartbeat;
                let id = EventId::new(at(second), [0; 10]);
                Arc::new(Event::new(
                    id,
                    kind,
                    station,
                    at(second),
                    None,
                    Payload::empty(),
                ))
            })
            .collect();
        store.append(Seq(0), &events, &[]).unwrap();
        let retention = Retention {
            keep: Duration::from_secs(keep_secs),
            size,
        };
        retention
            .forget(&store, Seq(floor), at(now) - retention.keep)
            .unwrap();
        assert_eq!(store.bounds().unwrap(), Seq(left.start)..Seq(left.end));
    }

    #[test]
    fn only_what_is_settled_and_old_or_too_much_goes() {
        let size = 2 + 1 + 64;
        check(60, u64::MAX, 100, 99, 39..100);
        check(60, u64::MAX, 20, 99, 20..100);
        check(60, u64::MAX, 100, 10, 0..100);
        check(600, size * 30, 100, 99, 70..100);
        check(600, size * 30, 50, 99, 50..100);
        check(0, 0, 100, 1_000, 99..100);
    }
}
