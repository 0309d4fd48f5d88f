//! What happened to connections while the journal could take no events.
//!
//! A station keeps its own messages and sends them again; that it came or went, only we know. So
//! these events wait here until the journal works, bounded in number, each station's in order and
//! before anything that the station says later. What waits is lost if the daemon ends before.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use pipelet_domain::events::{Event, StationId};
use tokio::{sync::Notify, time::sleep};

use super::stations::StationHandle;
use crate::{
    journal::{AppendError, Journals},
    system::clock::Clock,
    telemetry::{Span, Spans},
};

/// Events of all stations together; about 20 MiB.
const MAX: usize = 50_000;
/// Of one station: one that comes and goes leaves the others their share.
const MAX_OF_STATION: usize = 32;
/// How often it is tried, as long as something waits.
const TRY_EVERY: Duration = Duration::from_millis(250);

#[derive(Debug)]
pub(super) struct DeferredEvents {
    waiting: Mutex<HashMap<StationId, Waiting>>,
    /// How many wait; looked at with every message.
    count: AtomicUsize,
    lost: AtomicU64,
    added: Notify,
    spans: Spans,
    clock: Clock,
}

#[derive(Debug)]
struct Waiting {
    handle: StationHandle,
    events: VecDeque<Event>,
}

impl DeferredEvents {
    pub(super) fn new(spans: Spans, clock: Clock) -> Self {
        Self {
            waiting: Mutex::default(),
            count: AtomicUsize::new(0),
            lost: AtomicU64::new(0),
            added: Notify::new(),
            spans,
            clock,
        }
    }

    /// Keeps an event that the journal did not take. Must be called within the station's turn.
    pub(super) fn add(&self, handle: &StationHandle, event: Event) {
        let mut waiting = self.waiting();
        let full = self.count.load(Ordering::Relaxed) >= MAX;
        let of_station = waiting.entry(event.station.clone());
        let of_station = of_station.or_insert_with(|| Waiting {
            handle: handle.clone(),
            events: VecDeque::new(),
        });
        if full || of_station.events.len() >= MAX_OF_STATION {
            let (station, kind) = (&event.station, event.kind);
            tracing::warn!(%station, %kind, "too many events wait for the journal: one is lost");
            self.lost.fetch_add(1, Ordering::Relaxed);
            // The oldest: how things are now is worth more than how they were.
            if of_station.events.pop_front().is_none() {
                return;
            }
        } else {
            self.count.fetch_add(1, Ordering::Relaxed);
        }
        of_station.events.push_back(event);
        drop(waiting);
        self.added.notify_one();
    }

    /// Journals what waits of a station. Must be called within its turn, before anything else of
    /// the station is journaled.
    pub(super) async fn catch_up(
        &self,
        handle: &StationHandle,
        journals: &Journals,
    ) -> Result<(), AppendError> {
        while let Some(event) = self.first(handle.station()) {
            let (id, kind, time) = (event.id, event.kind, event.time);
            let journal = journals.of(handle.station());
            journal.append(event, handle.apply()).await?;
            let span = || Span::of_event(id, kind, handle.station(), time, self.clock.now());
            self.spans.record(span);
            self.remove_first(handle.station());
        }
        Ok(())
    }

    /// Journals what waits as soon as that works, also of stations that say nothing more.
    pub(super) async fn run(&self, journals: &Journals) {
        loop {
            self.added.notified().await;
            while self.count.load(Ordering::Relaxed) > 0 {
                sleep(TRY_EVERY).await;
                self.catch_all_up(journals).await;
            }
        }
    }

    /// Tries a last time, and tells the log what is lost.
    pub(super) async fn finish(&self, journals: &Journals) {
        self.catch_all_up(journals).await;
        let left = self.count.load(Ordering::Relaxed) as u64;
        let lost = self.lost.load(Ordering::Relaxed) + left;
        if lost > 0 {
            tracing::warn!(
                lost,
                "stations came and went while the journal took no events"
            );
        }
    }

    async fn catch_all_up(&self, journals: &Journals) {
        for handle in self.handles() {
            if journals.of(handle.station()).outage().is_none() {
                let _turn = handle.turn().await;
                // Where it fails, the journal tells the log why.
                let _ = self.catch_up(&handle, journals).await;
            }
        }
    }

    fn handles(&self) -> Vec<StationHandle> {
        let waiting = self.waiting();
        waiting
            .values()
            .map(|waiting| waiting.handle.clone())
            .collect()
    }

    fn first(&self, station: &StationId) -> Option<Event> {
        if self.count.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let waiting = self.waiting();
        waiting.get(station)?.events.front().cloned()
    }

    fn remove_first(&self, station: &StationId) {
        let mut waiting = self.waiting();
        let Some(of_station) = waiting.get_mut(station) else {
            return;
        };
        if of_station.events.pop_front().is_some() {
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
        if of_station.events.is_empty() {
            waiting.remove(station);
        }
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<StationId, Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::ocpp::stations::{At, ShardStations};
    use pipelet_domain::events::{EventId, EventType, Payload};

    #[test]
    fn what_waits_is_bounded_and_in_order() {
        let stations = ShardStations::default();
        let id = StationId::new("S").unwrap();
        let lease = stations
            .acquire_lease(
                &id,
                Timestamp::UNIX_EPOCH,
                None,
                10,
                &|_| false,
                At::ThisNode,
            )
            .unwrap();
        let deferred = DeferredEvents::new(Spans::default(), Clock::system());
        let event = |second| {
            let time = Timestamp::from_second(second).unwrap();
            let event_id = EventId::new(time, [0; 10]);
            let kind = EventType::StationConnected;
            Event::new(event_id, kind, id.clone(), time, None, Payload::empty())
        };
        for second in 0..100 {
            deferred.add(lease.handle(), event(second));
        }
        assert_eq!(deferred.count.load(Ordering::Relaxed), MAX_OF_STATION);
        let mut seconds = Vec::new();
        while let Some(event) = deferred.first(&id) {
            seconds.push(event.time.as_second());
            deferred.remove_first(&id);
        }
        let expected = 100 - i64::try_from(MAX_OF_STATION).unwrap()..100;
        assert!(seconds.into_iter().eq(expected));
        assert!(deferred.handles().is_empty());
    }
}
