//! The transactions that are open, and those that changed since they were last saved.
//!
//! In memory is only what a message may still change: an open transaction, and a closed one until
//! it is saved. Changed in the journal's order, as the stations' states are, and the lock is held
//! for moments. It does not know the store.
//!
//! Open ones are bounded, of each station and in all. The one that is too many leaves memory, and
//! stays open in the store: what is said of it later is kept for whoever can look there. Two things
//! are lost. A tag that charges by it is not seen to charge elsewhere. And of a station that has none
//! in memory at all, meter values are not read, so its transaction may end as abandoned. Neither can
//! happen to a station with fewer than others have.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use pipelet_domain::{
    events::{AuthorizationStatus, Event, EventType, IdTagKey, Seq, StationId},
    projection::{MeterReading, StopRequest, Transaction},
};

/// Of one station; the oldest is looked up in the store if its stop comes after all.
const MAX_OPEN: usize = 64;
/// Of all stations: as many as are known by default, so that each can have one. They take up to 165 MB
/// (where each station has one, and a tag of its own).
const MAX_OPEN_IN_ALL: usize = 200_000;
/// Stops of transactions that are not in memory, between two saves.
const MAX_LATE_STOPS: usize = 10_000;
/// The same for meter values, which are larger; what is left out is only one of many readings.
const MAX_LATE_READINGS: usize = 1_000;

/// Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct LiveTransactions(Arc<Mutex<Live>>);

#[derive(Debug, Default)]
struct Live {
    /// How many may be open in memory.
    max_open: usize,
    /// By transaction id.
    open: HashMap<i64, Arc<Transaction>>,
    /// The ids of what is open, the oldest first.
    by_station: HashMap<StationId, VecDeque<i64>>,
    /// How many each of these stations has; the last one has the most.
    counts: BTreeSet<(usize, StationId)>,
    by_tag: HashMap<IdTagKey, Vec<i64>>,
    unsaved: BTreeMap<Seq, Arc<Transaction>>,
    late_stops: Vec<LateStop>,
    late_readings: LateReadings,
}

/// The last meter values of transactions that are not in memory, by who sent them and of which.
pub(super) type LateReadings = HashMap<(StationId, i64), MeterReading>;

/// A stop of a transaction that is not in memory: the store may know it.
#[derive(Debug, Clone)]
pub(super) struct LateStop {
    pub(super) station: StationId,
    pub(super) request: StopRequest,
}

impl LateStop {
    /// The stored transaction as it ends by this, where it is this station's and has not ended.
    pub(super) fn ended(&self, stored: &Transaction) -> Option<Transaction> {
        let is_open = stored.stop.is_none() && stored.station == self.station;
        is_open.then(|| stored.stopped(self.request.clone()))
    }
}

/// Where a station would charge.
#[derive(Debug, Clone, Copy)]
pub(super) struct Connector<'a> {
    pub(super) station: &'a StationId,
    pub(super) connector_id: Option<u32>,
}

impl Default for LiveTransactions {
    fn default() -> Self {
        Self::bounded(MAX_OPEN_IN_ALL)
    }
}

impl LiveTransactions {
    /// Those of one of so many shards.
    pub(super) fn one_of(shards: usize) -> Self {
        Self::bounded(MAX_OPEN_IN_ALL.div_ceil(shards))
    }

    fn bounded(max_open: usize) -> Self {
        Self(Arc::new(Mutex::new(Live {
            max_open,
            ..Live::default()
        })))
    }

    /// Takes up transactions that were open when they were saved, the latest first.
    pub(super) fn resume(&self, open: Vec<Transaction>) {
        let mut live = self.live();
        for transaction in open {
            live.resume(transaction);
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
    pub(super) fn charges_elsewhere(&self, tag: &IdTagKey, here: Connector<'_>) -> bool {
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

    /// Stops of what is not in memory. They stay until [`Self::late_stops_saved`] is told of them.
    pub(super) fn late_stops(&self) -> Vec<LateStop> {
        self.live().late_stops.clone()
    }

    /// Forgets the first ones, which have been saved.
    pub(super) fn late_stops_saved(&self, count: usize) {
        self.live().late_stops.drain(..count);
    }

    /// The stop of a transaction that is not in memory, where it is not saved yet.
    pub(super) fn late_stop(&self, transaction_id: i64) -> Option<LateStop> {
        let live = self.live();
        let mut stops = live.late_stops.iter();
        let stop = stops.find(|stop| stop.request.transaction_id == transaction_id);
        stop.cloned()
    }

    pub(super) fn take_late_readings(&self) -> LateReadings {
        mem::take(&mut self.live().late_readings)
    }

    /// Those that came meanwhile are newer.
    pub(super) fn put_back_late_readings(&self, readings: LateReadings) {
        let mut live = self.live();
        for (of, reading) in readings {
            live.late_readings.entry(of).or_insert(reading);
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
        self.insert(transaction, VecDeque::push_back);
    }

    /// Takes up one that is older than what is in memory; it stays out where it would be the one to
    /// leave again.
    fn resume(&mut self, transaction: Transaction) {
        let ids = self.by_station.get(&transaction.station);
        let count = ids.map_or(0, VecDeque::len) + 1;
        let most = self.counts.last().map_or(0, |(most, _)| *most);
        let is_full = self.open.len() >= self.max_open;
        if count <= MAX_OPEN && !(is_full && count >= most) {
            self.insert(Arc::new(transaction), VecDeque::push_front);
        }
    }

    fn insert(&mut self, transaction: Arc<Transaction>, add: impl Fn(&mut VecDeque<i64>, i64)) {
        let (id, station) = (transaction.transaction_id, transaction.station.clone());
        let tag = IdTagKey::of(&transaction.id_tag);
        self.by_tag.entry(tag).or_default().push(id);
        self.open.insert(id, transaction);
        let ids = self.by_station.entry(station.clone()).or_default();
        add(ids, id);
        let count = ids.len();
        self.counts.remove(&(count - 1, station.clone()));
        self.counts.insert((count, station.clone()));
        if count > MAX_OPEN || self.open.len() > self.max_open {
            self.make_room(&station, count);
        }
    }

    /// Lets the oldest go of the station that has the most, and where others have as many, of the
    /// one that has begun another one.
    fn make_room(&mut self, beginner: &StationId, count: usize) {
        let most = self.counts.last().filter(|(most, _)| *most > count);
        let of = most.map_or(beginner, |(_, station)| station);
        let ids = self.by_station.get(of);
        if let Some(oldest) = ids.and_then(|ids| ids.front().copied()) {
            self.forget(oldest);
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
            let of = (station.clone(), id);
            if self.late_readings.len() < MAX_LATE_READINGS || self.late_readings.contains_key(&of)
            {
                self.late_readings.insert(of, reading);
            }
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
        let station = &transaction.station;
        if let Some(ids) = self.by_station.get_mut(station) {
            self.counts.remove(&(ids.len(), station.clone()));
            ids.retain(|known| *known != id);
            if ids.is_empty() {
                self.by_station.remove(station);
            } else {
                self.counts.insert((ids.len(), station.clone()));
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
    use pipelet_domain::events::{EventId, Payload};

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
        assert!(live.late_stops().is_empty());
    }

    #[test]
    fn an_unknown_stop_is_left_to_the_store() {
        let live = live(&[stop("A", 9), stop("A", 0)]);
        let late = live.late_stops();
        assert_eq!(late.len(), 1);
        assert_eq!(late[0].request.transaction_id, 9);
        assert_eq!(live.late_stops().len(), 1);
        live.late_stops_saved(1);
    }

    #[test]
    fn open_ones_are_bounded_for_each_station() {
        let many: Vec<Event> = (1..=100).map(|id| start("A", id)).collect();
        let live = live(&many);
        live.saved(&live.unsaved());
        assert_eq!(live.get(36), None);
        assert!(live.get(37).is_some());
        live.apply(Seq(100), &stop("A", 1));
        assert_eq!(live.late_stops().len(), 1);
    }

    #[test]
    fn the_oldest_of_the_station_with_the_most_leaves_memory() {
        let live = LiveTransactions::bounded(10);
        let apply = |events: &[Event]| {
            for event in events {
                let seq = Seq(live.unsaved().len() as u64);
                live.apply(seq, event);
            }
        };
        let in_memory = || {
            let mut ids: Vec<i64> = live.live().open.keys().copied().collect();
            ids.sort_unstable();
            ids
        };
        // Two honest ones, and one that begins and ends nothing.
        apply(&[start("A", 1), start("B", 2), start("A", 3)]);
        apply(&(10..=20).map(|id| start("C", id)).collect::<Vec<_>>());
        assert_eq!(in_memory(), [1, 2, 3, 14, 15, 16, 17, 18, 19, 20]);
        apply(&[start("D", 21), start("D", 22), start("D", 23)]);
        assert_eq!(in_memory(), [1, 2, 3, 17, 18, 19, 20, 21, 22, 23]);
        // Among equals it is the one that begins another one.
        apply(&[start("E", 24), start("D", 25)]);
        assert_eq!(in_memory(), [1, 2, 3, 18, 19, 20, 22, 23, 24, 25]);
        apply(&[stop("C", 18), start("B", 26)]);
        assert_eq!(in_memory(), [1, 2, 3, 19, 20, 22, 23, 24, 25, 26]);

        // What left memory is saved as it was, and what is said of it is kept for the store.
        apply(&[meter("C", 10), meter("C", 10), stop("C", 11)]);
        assert_eq!(live.unsaved().len(), 3 + 11 + 5 + 1);
        let readings: Vec<_> = live.take_late_readings().into_keys().collect();
        assert_eq!(readings, [(StationId::new("C").unwrap(), 10)]);
        assert_eq!(live.late_stops()[0].request.transaction_id, 11);
    }

    #[test]
    fn where_all_have_one_each_keeps_it() {
        let live = LiveTransactions::bounded(3);
        for (seq, name) in (0..).zip(["A", "B", "C", "D", "A"]) {
            live.apply(Seq(seq), &start(name, seq + 1));
        }
        let open = |id| live.live().open.contains_key(&id);
        assert_eq!([1, 2, 3, 4, 5].map(open), [false, true, true, false, true]);
        let live = live.live();
        assert_eq!(live.counts.len(), live.by_station.len());
    }

    #[test]
    fn a_start_shares_the_room_as_fairly() {
        let live = LiveTransactions::bounded(3);
        let started = |(seq, name)| Transaction::started(Seq(seq), &start(name, seq)).unwrap();
        let latest_first = [(6, "C"), (5, "C"), (4, "C"), (3, "C"), (2, "B"), (1, "A")];
        live.resume(latest_first.map(started).to_vec());
        let open = |id| live.get(id).is_some();
        let in_memory = [1, 2, 3, 4, 5, 6].map(open);
        assert_eq!(in_memory, [true, true, false, false, false, true]);
        assert!(live.unsaved().is_empty());
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
            let here = Connector {
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
