//! The transactions that are open, and those that changed since they were last saved.
//!
//! In memory is only what a message may still change: an open transaction, and a closed one until
//! it is saved. Changed in the journal's order, as the stations' states are, and the lock is held
//! for moments. It does not know the store.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;

use crate::{
    events::{AuthorizationStatus, Event, EventType, IdTagKey, Seq, StationId},
    projection::{MeterReading, StopRequest, Transaction},
};

/// Of one station; the oldest is looked up in the store if its stop comes after all.
const MAX_OPEN: usize = 64;
/// Stops of transactions that are not in memory, between two saves.
const MAX_LATE_STOPS: usize = 10_000;

/// Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct LiveTransactions(Arc<Mutex<Live>>);

#[derive(Debug, Default)]
struct Live {
    /// By transaction id.
    open: HashMap<i64, Arc<Transaction>>,
    /// The ids of what is open, the oldest first.
    by_station: HashMap<StationId, VecDeque<i64>>,
    by_tag: HashMap<IdTagKey, Vec<i64>>,
    unsaved: BTreeMap<Seq, Arc<Transaction>>,
    late_stops: Vec<LateStop>,
}

/// A stop of a transaction that is not in memory: the store may know it.
#[derive(Debug, Clone)]
pub(super) struct LateStop {
    pub(super) station: StationId,
    pub(super) request: StopRequest,
}

/// Where a station would charge.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) station: &'a StationId,
    pub(super) connector_id: Option<u32>,
}

impl LiveTransactions {
    /// Takes up the transactions that were open when they were saved.
    pub(super) fn resume(&self, mut open: Vec<Transaction>) {
        open.sort_unstable_by_key(|transaction| transaction.seq);
        let mut live = self.live();
        for transaction in open {
            live.open(Arc::new(transaction));
        }
    }

    pub(super) fn apply(&self, seq: Seq, event: &Event) {
        if event.kind == EventType::StartTransaction {
            if let Some(started) = Transaction::started(seq, event) {
                self.live().start(started);
            }
        } else if event.kind == EventType::StopTransaction {
            if let Some(request) = StopRequest::of(event) {
                self.live().stop(&event.station, request);
            }
        } else if event.kind == EventType::MeterValues
            // They can be long: where nothing charges they are not worth reading.
            && self.live().by_station.contains_key(&event.station)
            && let Some((id, reading)) = MeterReading::of(event)
        {
            self.live().read_meter(id, &event.station, reading);
        }
    }

    /// Whether the tag charges at another place, by a transaction that was accepted there.
    pub(super) fn charges_elsewhere(&self, tag: &IdTagKey, here: Place<'_>) -> bool {
        let live = self.live();
        let ids = live.by_tag.get(tag).into_iter().flatten();
        ids.filter_map(|id| live.open.get(id)).any(|transaction| {
            // At the same place the one before has ended, though its stop was lost.
            let same_place = transaction.station == *here.station
                && transaction.connector_id == here.connector_id;
            !same_place && transaction.authorization == Some(AuthorizationStatus::Accepted)
        })
    }

    /// What changed since it was last saved. It stays until [`Self::saved`] is told of it.
    pub(super) fn unsaved(&self) -> Vec<Arc<Transaction>> {
        self.live().unsaved.values().cloned().collect()
    }

    /// Forgets what has been saved, unless it changed meanwhile.
    pub(super) fn saved(&self, transactions: &[Arc<Transaction>]) {
        let mut live = self.live();
        for saved in transactions {
            let now = live.unsaved.get(&saved.seq);
            if now.is_some_and(|now| Arc::ptr_eq(now, saved)) {
                live.unsaved.remove(&saved.seq);
            }
        }
    }

    /// Gives up to `limit` of those up of which nothing was heard since `silent_since`.
    pub(super) fn abandon(
        &self,
        silent_since: Timestamp,
        now: Timestamp,
        limit: usize,
    ) -> Vec<Arc<Transaction>> {
        let mut live = self.live();
        let open = live.open.values();
        let silent = open.filter(|transaction| transaction.is_silent_since(silent_since));
        let silent: Vec<_> = silent
            .take(limit)
            .map(|t| Arc::new(t.abandoned(now)))
            .collect();
        for abandoned in &silent {
            live.unsaved.insert(abandoned.seq, Arc::clone(abandoned));
            live.forget(abandoned.transaction_id);
        }
        silent
    }

    pub(super) fn take_late_stops(&self) -> Vec<LateStop> {
        mem::take(&mut self.live().late_stops)
    }

    pub(super) fn put_back_late_stops(&self, stops: Vec<LateStop>) {
        let mut live = self.live();
        for stop in stops {
            live.stop_late(stop);
        }
    }

    /// An open one, or one that is not saved yet.
    pub(super) fn get(&self, transaction_id: i64) -> Option<Arc<Transaction>> {
        let live = self.live();
        let unsaved = || {
            let mut unsaved = live.unsaved.values();
            unsaved.find(|transaction| transaction.transaction_id == transaction_id)
        };
        live.open.get(&transaction_id).or_else(unsaved).cloned()
    }

    fn live(&self) -> MutexGuard<'_, Live> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Live {
    fn start(&mut self, started: Transaction) {
        // One that is known already is replayed after a crash.
        if !self.open.contains_key(&started.transaction_id) {
            let started = Arc::new(started);
            self.unsaved.insert(started.seq, Arc::clone(&started));
            self.open(started);
        }
    }

    fn open(&mut self, transaction: Arc<Transaction>) {
        let id = transaction.transaction_id;
        let ids = self
            .by_station
            .entry(transaction.station.clone())
            .or_default();
        ids.push_back(id);
        let surplus = ids.len().saturating_sub(MAX_OPEN);
        let oldest: Vec<i64> = ids.drain(..surplus).collect();
        let tag = IdTagKey::of(&transaction.id_tag);
        self.by_tag.entry(tag).or_default().push(id);
        self.open.insert(id, transaction);
        for id in oldest {
            self.forget(id);
        }
    }

    fn stop(&mut self, station: &StationId, request: StopRequest) {
        let id = request.transaction_id;
        match self.open.get(&id) {
            Some(open) if open.station == *station => {
                let stopped = Arc::new(open.stopped(request));
                self.unsaved.insert(stopped.seq, stopped);
                self.forget(id);
            }
            // Nobody ends another station's transaction.
            Some(_) => {}
            None => self.stop_late(LateStop {
                station: station.clone(),
                request,
            }),
        }
    }

    fn stop_late(&mut self, stop: LateStop) {
        if self.late_stops.len() < MAX_LATE_STOPS {
            self.late_stops.push(stop);
        } else {
            let (station, id) = (&stop.station, stop.request.transaction_id);
            tracing::warn!(%station, transaction_id = id, "too many stops of unknown transactions");
        }
    }

    fn read_meter(&mut self, id: i64, station: &StationId, reading: MeterReading) {
        let Some(open) = self.open.get_mut(&id) else {
            return;
        };
        if open.station == *station {
            Arc::make_mut(open).last_meter_values = Some(reading);
            self.unsaved.insert(open.seq, Arc::clone(open));
        }
    }

    fn forget(&mut self, id: i64) {
        let Some(transaction) = self.open.remove(&id) else {
            return;
        };
        if let Some(ids) = self.by_station.get_mut(&transaction.station) {
            ids.retain(|known| *known != id);
            if ids.is_empty() {
                self.by_station.remove(&transaction.station);
            }
        }
        let tag = IdTagKey::of(&transaction.id_tag);
        if let Some(ids) = self.by_tag.get_mut(&tag) {
            ids.retain(|known| *known != id);
            if ids.is_empty() {
                self.by_tag.remove(&tag);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::{EventId, Payload};

    fn event(station: &str, kind: EventType, payload: &str) -> Event {
        let mut event = Event::new(
            EventId::from_bytes([0; 16]),
            kind,
            StationId::new(station).unwrap(),
            "2026-04-14T12:00:00Z".parse().unwrap(),
            None,
            Payload::parse(payload.as_bytes()).unwrap(),
        );
        event.authorization = Some(AuthorizationStatus::Accepted);
        event
    }

    fn start(station: &str, id: u64) -> Event {
        let payload = format!(r#"{{"connectorId":1,"idTag":"Tag","transactionId":{id}}}"#);
        event(station, EventType::StartTransaction, &payload)
    }

    fn stop(station: &str, id: u64) -> Event {
        let payload = format!(r#"{{"meterStop":5,"transactionId":{id}}}"#);
        event(station, EventType::StopTransaction, &payload)
    }

    fn meter(station: &str, id: u64) -> Event {
        let payload = format!(r#"{{"transactionId":{id},"meterValue":[{{"sampledValue":[1]}}]}}"#);
        event(station, EventType::MeterValues, &payload)
    }

    fn live(events: &[Event]) -> LiveTransactions {
        let live = LiveTransactions::default();
        for (seq, event) in (0..).map(Seq).zip(events) {
            live.apply(seq, event);
        }
        live
    }

    #[test]
    fn a_closed_one_stays_until_it_is_saved() {
        let live = live(&[start("A", 1), meter("A", 1), stop("A", 1)]);
        let closed = live.get(1).unwrap();
        assert!(!closed.is_open() && closed.last_meter_values.is_some());
        let unsaved = live.unsaved();
        assert_eq!(unsaved.len(), 1);
        live.saved(&unsaved);
        assert_eq!(live.get(1), None);
        assert!(live.unsaved().is_empty());
    }

    #[test]
    fn what_changed_during_a_save_is_saved_again() {
        let live = live(&[start("A", 1)]);
        let saving = live.unsaved();
        live.apply(Seq(1), &meter("A", 1));
        live.saved(&saving);
        assert_eq!(live.unsaved().len(), 1);
        assert!(live.unsaved()[0].last_meter_values.is_some());
        assert!(saving[0].last_meter_values.is_none());
    }

    #[test]
    fn nobody_touches_another_stations_transaction() {
        let live = live(&[start("A", 1), start("B", 2), stop("B", 1), meter("B", 1)]);
        let transaction = live.get(1).unwrap();
        assert!(transaction.is_open() && transaction.last_meter_values.is_none());
        assert!(live.take_late_stops().is_empty());
    }

    #[test]
    fn an_unknown_stop_is_left_to_the_store() {
        let live = live(&[stop("A", 9), stop("A", 0)]);
        let late = live.take_late_stops();
        assert_eq!(late.len(), 1);
        assert_eq!(late[0].request.transaction_id, 9);
        live.put_back_late_stops(late);
        assert_eq!(live.take_late_stops().len(), 1);
    }

    #[test]
    fn open_ones_are_bounded_for_each_station() {
        let many: Vec<Event> = (1..=100).map(|id| start("A", id)).collect();
        let live = live(&many);
        live.saved(&live.unsaved());
        assert_eq!(live.get(36), None);
        assert!(live.get(37).is_some());
        live.apply(Seq(100), &stop("A", 1));
        assert_eq!(live.take_late_stops().len(), 1);
    }

    #[test]
    fn a_replay_changes_nothing() {
        let events = [start("A", 1), meter("A", 1)];
        let live = live(&events);
        let saved = live.unsaved();
        live.saved(&saved);
        live.apply(Seq(0), &events[0]);
        assert!(live.unsaved().is_empty());

        let resumed = LiveTransactions::default();
        resumed.resume(vec![(*saved[0]).clone()]);
        resumed.apply(Seq(0), &events[0]);
        assert_eq!(resumed.get(1), live.get(1));
    }

    #[test]
    fn a_tag_charges_elsewhere_while_it_was_accepted_there() {
        let tag = IdTagKey::of("TAG");
        let at = |live: &LiveTransactions, station: &str, connector_id| {
            let station = StationId::new(station).unwrap();
            let here = Place {
                station: &station,
                connector_id: Some(connector_id),
            };
            live.charges_elsewhere(&tag, here)
        };
        let mut events = vec![start("A", 1)];
        assert!(at(&live(&events), "B", 1));
        assert!(at(&live(&events), "A", 2));
        assert!(!at(&live(&events), "A", 1), "its stop was lost");
        events.push(stop("A", 1));
        assert!(!at(&live(&events), "B", 1));
        let mut rejected = start("A", 2);
        rejected.authorization = Some(AuthorizationStatus::Blocked);
        assert!(!at(&live(&[rejected]), "B", 1));
    }
}
