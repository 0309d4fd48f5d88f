//! The stations that are known, and which connection speaks for each.
//!
//! A station has at most one seat, and the newest connection takes it: the one before is told to
//! go, and its end takes nothing away from its successor. States change only through
//! [`Stations::apply`], in the journal's order. Locks are held for moments, never across an await,
//! and where two are needed the map's comes before a station's.

use std::{
    collections::BTreeMap,
    ops::Bound,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use jiff::Timestamp;
use tokio::sync::{Notify, Semaphore, SemaphorePermit};

use super::{
    commands::CommandError,
    desk::{Desk, End},
    transactions::LiveTransactions,
};
use crate::{
    events::{Event, Seq, StationId},
    projection::StationState,
};

/// What is known of all stations. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Stations(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    known: RwLock<BTreeMap<StationId, Arc<Station>>>,
    /// Fed with the same events.
    transactions: LiveTransactions,
    /// Stations with changes worth saving soon, each once.
    unsaved: Mutex<Vec<Arc<Station>>>,
    connected: AtomicUsize,
    /// Handshakes that were answered with a refusal since the start.
    refused: AtomicU64,
    /// Events below are in the saved states.
    saved_to: AtomicU64,
}

#[derive(Debug)]
pub(super) struct Station {
    live: Mutex<Live>,
    /// Whoever handles a message of this station holds its one permit, from the look at the state
    /// until the event is in it: a connection and its successor never interleave.
    turn: Semaphore,
    /// Tells those who wait that a newcomer has opened its connection, or gone.
    settled: Notify,
}

#[derive(Debug)]
struct Live {
    state: StationState,
    unsaved: Unsaved,
    seat: Option<Occupied>,
    /// Of the last seat; it tells an old connection from the present one.
    generation: u64,
    /// It was told that the station is here, and not yet that it is gone.
    told: bool,
    last_frame_at: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Unsaved {
    Nothing,
    /// The station was seen again: saved at the end, or with the next real change.
    Seen,
    /// It is in the list of the unsaved.
    Changed,
}

#[derive(Debug)]
struct Occupied {
    since: Timestamp,
    protocol: Option<Box<str>>,
    desk: Desk,
    /// Until then it may go without a word, as when its handshake fails in the end.
    opened: bool,
}

/// What it means that a connection leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    /// Nobody is here any more, and that is still to be told.
    Gone,
    /// There is nothing to tell: a newer connection is here, or was, or it had not been told.
    Quietly,
    /// A newer connection has yet to open, or to go.
    Unsettled,
}

/// A station as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StationView {
    pub state: StationState,
    /// `None` while it is not connected.
    pub connected_since: Option<Timestamp>,
    /// The subprotocol that was agreed on for the connection there is.
    pub protocol: Option<Box<str>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StationCounts {
    pub connected: usize,
    pub known: usize,
    pub handshakes_refused: u64,
}

/// Too many stations are known for another one.
#[derive(Debug, thiserror::Error)]
#[error("{0} stations are known, and no more are taken")]
pub(super) struct TooManyStations(usize);

impl Stations {
    /// Starts from saved states; nobody is connected.
    pub fn new(states: impl IntoIterator<Item = StationState>) -> Self {
        let known = states
            .into_iter()
            .map(|state| (state.id.clone(), Arc::new(Station::new(state))))
            .collect();
        Self(Arc::new(Inner {
            known: RwLock::new(known),
            transactions: LiveTransactions::default(),
            unsaved: Mutex::default(),
            connected: AtomicUsize::new(0),
            refused: AtomicU64::new(0),
            saved_to: AtomicU64::new(0),
        }))
    }

    /// Below this position, no event is needed any more to know what is known of stations.
    pub fn saved_to(&self) -> Seq {
        Seq(self.0.saved_to.load(Ordering::Acquire))
    }

    pub(super) fn set_saved_to(&self, position: Seq) {
        self.0.saved_to.store(position.0, Ordering::Release);
    }

    pub(super) fn transactions(&self) -> &LiveTransactions {
        &self.0.transactions
    }

    pub fn get(&self, id: &StationId) -> Option<StationView> {
        let station = self.find(id)?;
        let live = station.live();
        Some(live.view())
    }

    /// Whether it has ever connected.
    pub fn knows(&self, id: &StationId) -> bool {
        let known = self.0.known.read().unwrap_or_else(PoisonError::into_inner);
        known.contains_key(id)
    }

    /// Those after `after` in the ids' order, connected or not as asked for.
    pub fn list(
        &self,
        after: Option<&StationId>,
        connected: Option<bool>,
        limit: usize,
    ) -> Vec<StationView> {
        let known = self.0.known.read().unwrap_or_else(PoisonError::into_inner);
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        known
            .range::<StationId, _>((from, Bound::Unbounded))
            .filter_map(|(_, station)| {
                let live = station.live();
                let wanted = connected.is_none_or(|wanted| wanted == live.seat.is_some());
                wanted.then(|| live.view())
            })
            .take(limit)
            .collect()
    }

    pub fn counts(&self) -> StationCounts {
        let known = self.0.known.read().unwrap_or_else(PoisonError::into_inner);
        StationCounts {
            connected: self.0.connected.load(Ordering::Relaxed),
            known: known.len(),
            handshakes_refused: self.0.refused.load(Ordering::Relaxed),
        }
    }

    pub(super) fn count_refusal(&self) {
        self.0.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Seats a new connection, and tells the one before it to go.
    pub(super) fn seat(
        &self,
        id: &StationId,
        now: Timestamp,
        protocol: Option<&str>,
        max_stations: usize,
    ) -> Result<Seat, TooManyStations> {
        let station = self.find_or_add(id, max_stations)?;
        let desk = Desk::new();
        let mut live = station.live();
        live.generation += 1;
        let generation = live.generation;
        let before = live.seat.replace(Occupied {
            since: now,
            protocol: protocol.map(Into::into),
            desk: desk.clone(),
            opened: false,
        });
        if before.is_none() {
            // Under the lock, or one that leaves at once would be counted out before it is in.
            self.0.connected.fetch_add(1, Ordering::Relaxed);
        }
        drop(live);
        if let Some(before) = before {
            before.desk.end(End::Replaced);
        }
        Ok(Seat {
            stations: self.clone(),
            station,
            id: id.clone(),
            generation,
            desk,
        })
    }

    /// Asks a station's connection to end; tells whether there was one, and `None` for a station
    /// that is not known.
    pub(super) fn dismiss(&self, id: &StationId) -> Option<bool> {
        let station = self.find(id)?;
        let live = station.live();
        let seat = live.seat.as_ref();
        Some(seat.inspect(|seat| seat.desk.end(End::Dismissed)).is_some())
    }

    /// Asks every connection to end, because the daemon does.
    pub(super) fn end_all(&self) {
        let known = self.0.known.read().unwrap_or_else(PoisonError::into_inner);
        for station in known.values() {
            if let Some(seat) = &station.live().seat {
                seat.desk.end(End::Shutdown);
            }
        }
    }

    /// Where commands for a station wait for their turn, while it is connected.
    pub(super) fn desk(&self, id: &StationId) -> Result<Desk, CommandError> {
        let not_known = || CommandError::NoSuchStation(id.clone());
        let station = self.find(id).ok_or_else(not_known)?;
        let live = station.live();
        let desk = live.seat.as_ref().map(|seat| seat.desk.clone());
        desk.ok_or_else(|| CommandError::NotConnected(id.clone()))
    }

    /// Takes an event into its station's state, and into the transactions.
    pub(super) fn apply(&self, seq: Seq, event: &Event) {
        if let Ok(station) = self.find_or_add(&event.station, usize::MAX) {
            self.apply_to(&station, seq, event);
        }
    }

    fn apply_to(&self, station: &Arc<Station>, seq: Seq, event: &Event) {
        self.0.transactions.apply(seq, event);
        let mut live = station.live();
        let change = if live.state.apply(seq, event) {
            Unsaved::Changed
        } else {
            Unsaved::Seen
        };
        let before = live.unsaved;
        live.unsaved = before.max(change);
        drop(live);
        if before != Unsaved::Changed && change == Unsaved::Changed {
            self.unsaved().push(Arc::clone(station));
        }
    }

    /// The stations with changes worth saving soon; they count as saved from now on.
    pub(super) fn take_unsaved(&self) -> Vec<Arc<Station>> {
        let taken = std::mem::take(&mut *self.unsaved());
        for station in &taken {
            station.live().unsaved = Unsaved::Nothing;
        }
        taken
    }

    /// Those that were merely seen again as well.
    pub(super) fn take_all_unsaved(&self) -> Vec<Arc<Station>> {
        self.unsaved().clear();
        let known = self.0.known.read().unwrap_or_else(PoisonError::into_inner);
        let unsaved = known.values().filter(|station| {
            std::mem::replace(&mut station.live().unsaved, Unsaved::Nothing) != Unsaved::Nothing
        });
        unsaved.cloned().collect()
    }

    /// Gives back stations that could not be saved.
    pub(super) fn put_back_unsaved(&self, stations: impl IntoIterator<Item = Arc<Station>>) {
        for station in stations {
            let before = std::mem::replace(&mut station.live().unsaved, Unsaved::Changed);
            // One that has changed again since is in the list already.
            if before != Unsaved::Changed {
                self.unsaved().push(station);
            }
        }
    }

    fn find(&self, id: &StationId) -> Option<Arc<Station>> {
        let known = self.0.known.read().unwrap_or_else(PoisonError::into_inner);
        known.get(id).cloned()
    }

    fn find_or_add(&self, id: &StationId, max: usize) -> Result<Arc<Station>, TooManyStations> {
        if let Some(station) = self.find(id) {
            return Ok(station);
        }
        let mut known = self.0.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= max && !known.contains_key(id) {
            return Err(TooManyStations(known.len()));
        }
        let new = || Arc::new(Station::new(StationState::new(id.clone())));
        Ok(Arc::clone(known.entry(id.clone()).or_insert_with(new)))
    }

    fn unsaved(&self) -> MutexGuard<'_, Vec<Arc<Station>>> {
        self.0
            .unsaved
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Station {
    fn new(state: StationState) -> Self {
        Self {
            live: Mutex::new(Live {
                state,
                unsaved: Unsaved::Nothing,
                seat: None,
                generation: 0,
                told: false,
                last_frame_at: None,
            }),
            turn: Semaphore::new(1),
            settled: Notify::new(),
        }
    }

    pub(super) fn snapshot(&self) -> StationState {
        self.live().state.clone()
    }

    fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Live {
    fn view(&self) -> StationView {
        let mut state = self.state.clone();
        state.last_seen_at = state.last_seen_at.max(self.last_frame_at);
        StationView {
            state,
            connected_since: self.seat.as_ref().map(|seat| seat.since),
            protocol: self.seat.as_ref().and_then(|seat| seat.protocol.clone()),
        }
    }
}

/// A connection's claim to speak for a station; it ends with the value.
#[derive(Debug)]
pub(super) struct Seat {
    stations: Stations,
    station: Arc<Station>,
    id: StationId,
    generation: u64,
    desk: Desk,
}

impl Seat {
    pub(super) const fn station(&self) -> &StationId {
        &self.id
    }

    /// Where others reach this connection.
    pub(super) const fn desk(&self) -> &Desk {
        &self.desk
    }

    /// Whether a newer connection has taken the seat.
    pub(super) fn is_replaced(&self) -> bool {
        self.station.live().generation != self.generation
    }

    /// Waits until no other connection of this station is amid a message.
    pub(super) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        // The semaphore is never closed.
        self.station.turn.acquire().await.ok()
    }

    pub(super) fn look<T>(&self, at: impl FnOnce(&StationState) -> T) -> T {
        at(&self.station.live().state)
    }

    /// Takes an event of this station into its state, without looking the station up again: the
    /// one thread that does this does it for everybody.
    pub(super) fn apply(&self) -> impl FnOnce(Seq, &Event) + Send + use<> {
        let (stations, station) = (self.stations.clone(), Arc::clone(&self.station));
        move |seq, event| stations.apply_to(&station, seq, event)
    }

    /// Any frame shows that the station is alive.
    pub(super) fn seen(&self, now: Timestamp) {
        self.station.live().last_frame_at = Some(now);
    }

    /// Notes that the connection was told to be open; false where a newer one has the seat.
    pub(super) fn open(&self) -> bool {
        let mut live = self.station.live();
        let ours = live.generation == self.generation;
        if ours && let Some(seat) = &mut live.seat {
            seat.opened = true;
            live.told = true;
        }
        drop(live);
        self.station.settled.notify_waiters();
        ours
    }

    /// Leaves the seat, and tells what that means. Where it is [`Left::Unsettled`], it can be left
    /// again to learn more.
    pub(super) fn leave(&self) -> Left {
        self.vacate();
        let mut live = self.station.live();
        match live.seat.as_ref().map(|newer| newer.opened) {
            Some(false) => Left::Unsettled,
            None if std::mem::take(&mut live.told) => Left::Gone,
            Some(true) | None => Left::Quietly,
        }
    }

    /// Waits until no newer connection is about to open.
    pub(super) async fn settled(&self) {
        loop {
            let mut settled = pin!(self.station.settled.notified());
            // Before the look, so that nothing is missed between the two.
            settled.as_mut().enable();
            if !self.is_contested() {
                return;
            }
            settled.await;
        }
    }

    fn is_contested(&self) -> bool {
        let live = self.station.live();
        let newer = live.generation != self.generation;
        newer && live.seat.as_ref().is_some_and(|seat| !seat.opened)
    }

    fn vacate(&self) {
        let mut live = self.station.live();
        if live.generation == self.generation && live.seat.take().is_some() {
            self.stations.0.connected.fetch_sub(1, Ordering::Relaxed);
        }
        drop(live);
        self.station.settled.notify_waiters();
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.vacate();
        // Nobody shall wait for a connection that is gone, however it went.
        self.desk.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::{EventId, EventType, Payload};

    fn id(id: &str) -> StationId {
        StationId::new(id).unwrap()
    }

    fn time(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn event(station: &str, kind: EventType, seconds: i64) -> Event {
        Event::new(
            EventId::new(time(seconds), [0; 10]),
            kind,
            id(station),
            time(seconds),
            None,
            Payload::empty(),
        )
    }

    fn ids(views: &[StationView]) -> Vec<&str> {
        views.iter().map(|view| view.state.id.as_str()).collect()
    }

    #[test]
    fn the_newest_connection_has_the_seat() {
        let stations = Stations::default();
        let old = stations.seat(&id("A"), time(1), None, 10).unwrap();
        assert!(old.open());
        assert!(!old.is_replaced());
        let new = stations.seat(&id("A"), time(2), None, 10).unwrap();
        assert!(old.is_replaced());
        assert!(!new.is_replaced());

        assert_eq!(old.leave(), Left::Unsettled);
        assert!(!old.open());
        assert!(new.open());
        assert_eq!(old.leave(), Left::Quietly);
        drop(old);
        let view = stations.get(&id("A")).unwrap();
        assert_eq!(view.connected_since, Some(time(2)));
        assert_eq!(stations.counts().connected, 1);

        assert_eq!(new.leave(), Left::Gone);
        assert_eq!(new.leave(), Left::Quietly);
        drop(new);
        assert_eq!(stations.get(&id("A")).unwrap().connected_since, None);
        let counts = StationCounts {
            connected: 0,
            known: 1,
            handshakes_refused: 0,
        };
        assert_eq!(stations.counts(), counts);
    }

    #[test]
    fn the_last_one_to_leave_tells_once() {
        let stations = Stations::default();
        let seat = || stations.seat(&id("A"), time(1), None, 10).unwrap();

        // A newcomer that never opened, gone before the old one or after it.
        let old = seat();
        assert!(old.open());
        drop(seat());
        assert_eq!(old.leave(), Left::Gone);
        let old = seat();
        assert!(old.open());
        let new = seat();
        assert_eq!(old.leave(), Left::Unsettled);
        drop(new);
        assert_eq!(old.leave(), Left::Gone);

        // One that was replaced before it could open was never told of.
        let old = seat();
        let new = seat();
        drop(new);
        assert_eq!(old.leave(), Left::Quietly);

        // One that opened and went has told of itself.
        let old = seat();
        assert!(old.open());
        let new = seat();
        assert!(new.open());
        assert_eq!(new.leave(), Left::Gone);
        assert_eq!(old.leave(), Left::Quietly);
    }

    #[test]
    fn never_fewer_than_none_are_connected() {
        let stations = Stations::default();
        let come_and_go = || {
            for _ in 0..300_000 {
                drop(stations.seat(&id("A"), time(1), None, 10));
                assert!(stations.counts().connected <= 1);
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(come_and_go);
            }
        });
        assert_eq!(stations.counts().connected, 0);
    }

    #[test]
    fn lists_are_in_order_and_filtered() {
        let stations = Stations::new(["C", "A", "D", "B"].map(|name| StationState::new(id(name))));
        let _seat = stations.seat(&id("C"), time(1), None, 10).unwrap();
        assert_eq!(ids(&stations.list(None, None, 10)), ["A", "B", "C", "D"]);
        assert_eq!(ids(&stations.list(Some(&id("A")), None, 2)), ["B", "C"]);
        assert_eq!(ids(&stations.list(None, Some(true), 10)), ["C"]);
        assert_eq!(ids(&stations.list(None, Some(false), 2)), ["A", "B"]);
    }

    #[test]
    fn known_stations_are_bounded() {
        let stations = Stations::new([StationState::new(id("A"))]);
        assert!(stations.seat(&id("A"), time(1), None, 1).is_ok());
        assert!(stations.seat(&id("B"), time(1), None, 1).is_err());
    }

    #[test]
    fn changes_are_saved_once() {
        let stations = Stations::default();
        stations.apply(Seq(0), &event("A", EventType::BootNotification, 0));
        stations.apply(Seq(1), &event("A", EventType::MeterValues, 1));
        let unsaved = stations.take_unsaved();
        assert_eq!(unsaved.len(), 1);
        assert_eq!(unsaved[0].snapshot().applied_through, Some(Seq(1)));
        assert!(stations.take_unsaved().is_empty());

        // Being seen again is kept for the end ...
        stations.apply(Seq(2), &event("A", EventType::Heartbeat, 2));
        assert!(stations.take_unsaved().is_empty());
        assert_eq!(stations.take_all_unsaved().len(), 1);

        // ... and what could not be saved comes again, once.
        stations.put_back_unsaved(unsaved.clone());
        stations.put_back_unsaved(unsaved);
        assert_eq!(stations.take_unsaved().len(), 1);
    }
}
