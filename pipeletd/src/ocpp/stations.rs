//! The stations that are known, and which connection speaks for each.
//!
//! A station has at most one lease, and the newest connection takes it: the one before is told to
//! go, and its end takes nothing away from its successor. States change only through
//! [`Stations::apply`], in the journal's order. Locks are held for moments, never across an await,
//! and where several are needed the table's comes first, then a station's, then those of lists.

mod forgetting;
mod lease;
mod loops;

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use pipelet_domain::{
    events::{Event, Seq, StationId},
    projection::StationState,
};
use tokio::{sync::Semaphore, time::Instant};

pub(super) use self::lease::{ConnectionLease, StationHandle};
pub use self::loops::UnstableStation;
use self::{
    forgetting::{Forgettable, Rank},
    loops::Streaks,
};
use super::{
    command_queue::{CommandQueue, End},
    commands::CommandError,
    transactions::LiveTransactions,
};

/// What is known of a shard's stations. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct ShardStations(Arc<Inner>);

type Known = BTreeMap<StationId, Arc<Station>>;

#[derive(Debug, Default)]
struct Inner {
    known: RwLock<Known>,
    forgettable: Mutex<Forgettable>,
    /// Forgotten here, and to be removed from the store.
    removals: Mutex<Vec<StationId>>,
    /// How many were forgotten to make room.
    forgotten: AtomicU64,
    /// Fed with the same events.
    transactions: LiveTransactions,
    /// Stations with changes worth saving soon, each once; one that is forgotten is never saved.
    unsaved: Mutex<Vec<Weak<Station>>>,
    connected: AtomicUsize,
    /// Stations that could not settle when they were last heard of.
    unstable: Mutex<BTreeSet<StationId>>,
    /// Events below are in the saved states.
    saved_to: AtomicU64,
}

#[derive(Debug)]
pub(super) struct Station {
    live: Mutex<Live>,
    /// Whoever handles a message of this station holds its one permit, from reading the state
    /// until the event is in it: a connection and its successor never interleave.
    turn: Semaphore,
}

#[derive(Debug)]
struct Live {
    state: StationState,
    unsaved: Unsaved,
    /// The connection that has the lease.
    holder: Option<Holder>,
    /// Of the last lease; it tells an old connection from the present one.
    generation: u64,
    /// The connection that was announced, and whose end has yet to be.
    announced: Option<Announced>,
    /// Or its last handshake.
    last_frame_at: Option<Timestamp>,
    /// Where it stands among those that can be forgotten.
    rank: Option<Rank>,
    streaks: Option<Box<Streaks>>,
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
struct Holder {
    since: Timestamp,
    protocol: Option<Box<str>>,
    queue: CommandQueue,
    at: At,
}

/// Where a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum At {
    ThisNode,
    Another,
}

/// A connection that is known outside, by a `StationConnected`.
#[derive(Debug)]
pub(super) struct Announced {
    /// Of its lease; 0 where the daemon that had it died.
    generation: u64,
    since: Instant,
    /// How long, before another node had it.
    lasted_before: Duration,
    /// How long it lasted at least, where that daemon died.
    cut_after: Option<Duration>,
}

impl Announced {
    pub(super) const fn is_cut(&self) -> bool {
        self.cut_after.is_some()
    }

    pub(super) fn lasted(&self) -> Duration {
        let lasted = || self.lasted_before + self.since.elapsed();
        self.cut_after.unwrap_or_else(lasted)
    }
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
}

/// Too many stations are known for another one, and none of them can be forgotten.
#[derive(Debug, thiserror::Error)]
#[error("{0} stations are known, and none was found that is neither connected nor registered")]
pub(super) struct TooManyStations(usize);

impl ShardStations {
    /// One of so many shards; starts from saved states; nobody is connected.
    pub(super) fn one_of(shards: usize, states: impl IntoIterator<Item = StationState>) -> Self {
        let known = states
            .into_iter()
            .map(|state| (state.id.clone(), Arc::new(Station::new(state))))
            .collect();
        Self(Arc::new(Inner {
            known: RwLock::new(known),
            transactions: LiveTransactions::one_of(shards),
            ..Inner::default()
        }))
    }

    /// Below this position, no event is needed any more to know what is known of stations.
    pub(super) fn saved_to(&self) -> Seq {
        Seq(self.0.saved_to.load(Ordering::Acquire))
    }

    pub(super) fn set_saved_to(&self, position: Seq) {
        self.0.saved_to.store(position.0, Ordering::Release);
    }

    pub(super) fn transactions(&self) -> &LiveTransactions {
        &self.0.transactions
    }

    pub(super) fn get(&self, id: &StationId) -> Option<StationView> {
        let station = self.find(id)?;
        let live = station.live();
        Some(live.view())
    }

    /// Whether it has ever connected.
    pub(super) fn knows(&self, id: &StationId) -> bool {
        let known = self.0.known.read().unwrap_or_else(PoisonError::into_inner);
        known.contains_key(id)
    }

    /// Those after `after` in the ids' order, connected or not as asked for.
    pub(super) fn list(
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
                let wanted = connected.is_none_or(|wanted| wanted == live.holder.is_some());
                wanted.then(|| live.view())
            })
            .take(limit)
            .collect()
    }

    pub(super) fn counts(&self) -> StationCounts {
        let known = self.0.known.read().unwrap_or_else(PoisonError::into_inner);
        StationCounts {
            connected: self.0.connected.load(Ordering::Relaxed),
            known: known.len(),
        }
    }

    /// Gives a new connection the lease, and tells the one before it to go. Where its station would
    /// be one too many, another one that is not registered is forgotten.
    pub(super) fn acquire_lease(
        &self,
        id: &StationId,
        now: Timestamp,
        protocol: Option<&str>,
        max_stations: usize,
        is_registered: &dyn Fn(&StationId) -> bool,
        at: At,
    ) -> Result<ConnectionLease, TooManyStations> {
        let station = self.find_or_add(id, max_stations, is_registered)?;
        let queue = CommandQueue::new();
        let mut live = station.live();
        live.generation += 1;
        let generation = live.generation;
        let before = live.holder.replace(Holder {
            since: now,
            protocol: protocol.map(Into::into),
            queue: queue.clone(),
            at,
        });
        live.last_frame_at = Some(now);
        self.rank(&mut live);
        if before.is_none() {
            // Under the lock, or one that leaves at once would be counted out before it is in.
            self.0.connected.fetch_add(1, Ordering::Relaxed);
        }
        drop(live);
        if let Some(before) = before {
            before.queue.end(End::Replaced);
        }
        let handle = StationHandle {
            stations: self.clone(),
            station,
            id: id.clone(),
        };
        Ok(ConnectionLease::new(handle, generation, queue))
    }

    /// Asks a station's connection to end; tells whether there was one, and `None` for a station
    /// that is not known.
    pub(super) fn dismiss(&self, id: &StationId) -> Option<bool> {
        let station = self.find(id)?;
        let live = station.live();
        let holder = live.holder.as_ref();
        Some(
            holder
                .inspect(|holder| holder.queue.end(End::Dismissed))
                .is_some(),
        )
    }

    /// Asks every connection to end that is there.
    pub(super) fn end_all(&self, places: &[At], end: End) {
        let known = self.0.known.read().unwrap_or_else(PoisonError::into_inner);
        for station in known.values() {
            let live = station.live();
            if let Some(holder) = live.holder.as_ref().filter(|it| places.contains(&it.at)) {
                holder.queue.end(end);
            }
        }
    }

    /// Where commands for a station wait for their turn, while it is connected.
    pub(super) fn command_queue(&self, id: &StationId) -> Result<CommandQueue, CommandError> {
        let not_known = || CommandError::NoSuchStation(id.clone());
        let station = self.find(id).ok_or_else(not_known)?;
        let live = station.live();
        let queue = live.holder.as_ref().map(|holder| holder.queue.clone());
        queue.ok_or_else(|| CommandError::NotConnected(id.clone()))
    }

    /// Takes an event into its station's state, and into the transactions.
    pub(super) fn apply(&self, seq: Seq, event: &Event) {
        if let Ok(station) = self.find_or_add(&event.station, usize::MAX, &|_| true) {
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
        let is_unstable = Streaks::apply(&mut live.streaks, event);
        drop(live);
        if is_unstable {
            self.unstable_ids().insert(event.station.clone());
        }
        if before != Unsaved::Changed && change == Unsaved::Changed {
            self.unsaved().push(Arc::downgrade(station));
        }
    }

    /// After a start: the stations that were connected when the daemon died. The end of such a
    /// connection is announced by the next one, or by who has its [`StationHandle`].
    pub(super) fn cut_connections(&self) -> Vec<StationHandle> {
        let known = self.0.known.read().unwrap_or_else(PoisonError::into_inner);
        let cut = known.iter().filter_map(|(id, station)| {
            let mut live = station.live();
            let since = live.state.connected_at?;
            let seen = live.state.last_seen_at.unwrap_or(since);
            let lasted = Duration::try_from(seen.duration_since(since));
            live.announced = Some(Announced {
                generation: 0,
                since: Instant::now(),
                lasted_before: Duration::ZERO,
                cut_after: Some(lasted.unwrap_or_default()),
            });
            drop(live);
            Some(StationHandle {
                stations: self.clone(),
                station: Arc::clone(station),
                id: id.clone(),
            })
        });
        cut.collect()
    }

    /// A transaction of the station's was given up.
    pub(super) fn abandoned(&self, station: &StationId, transaction_id: i64) {
        let known = self.0.known.read().unwrap_or_else(PoisonError::into_inner);
        let Some(station) = known.get(station).cloned() else {
            return;
        };
        drop(known);
        let mut live = station.live();
        if !live.state.ended(transaction_id) {
            return;
        }
        let before = std::mem::replace(&mut live.unsaved, Unsaved::Changed);
        drop(live);
        if before != Unsaved::Changed {
            self.unsaved().push(Arc::downgrade(&station));
        }
    }

    /// The stations with changes worth saving soon; they count as saved from now on.
    pub(super) fn take_unsaved(&self) -> Vec<Weak<Station>> {
        let taken = std::mem::take(&mut *self.unsaved());
        for station in taken.iter().filter_map(Weak::upgrade) {
            station.live().unsaved = Unsaved::Nothing;
        }
        taken
    }

    /// Those that were merely seen again as well.
    pub(super) fn take_all_unsaved(&self) -> Vec<Weak<Station>> {
        self.unsaved().clear();
        let known = self.0.known.read().unwrap_or_else(PoisonError::into_inner);
        let unsaved = known.values().filter(|station| {
            std::mem::replace(&mut station.live().unsaved, Unsaved::Nothing) != Unsaved::Nothing
        });
        unsaved.map(Arc::downgrade).collect()
    }

    /// Gives back stations that could not be saved.
    pub(super) fn put_back_unsaved(&self, stations: impl IntoIterator<Item = Weak<Station>>) {
        for station in stations.into_iter().filter_map(|unsaved| unsaved.upgrade()) {
            let before = std::mem::replace(&mut station.live().unsaved, Unsaved::Changed);
            // One that has changed again since is in the list already.
            if before != Unsaved::Changed {
                self.unsaved().push(Arc::downgrade(&station));
            }
        }
    }

    fn find(&self, id: &StationId) -> Option<Arc<Station>> {
        let known = self.0.known.read().unwrap_or_else(PoisonError::into_inner);
        known.get(id).cloned()
    }

    fn find_or_add(
        &self,
        id: &StationId,
        max: usize,
        is_registered: &dyn Fn(&StationId) -> bool,
    ) -> Result<Arc<Station>, TooManyStations> {
        if let Some(station) = self.find(id) {
            return Ok(station);
        }
        let mut known = self.0.known.write().unwrap_or_else(PoisonError::into_inner);
        // Those that are registered are as many as their operator wants.
        if !known.contains_key(id)
            && !self.make_room(&mut known, max, is_registered)
            && !is_registered(id)
        {
            return Err(TooManyStations(known.len()));
        }
        let new = || Arc::new(Station::new(StationState::new(id.clone())));
        Ok(Arc::clone(known.entry(id.clone()).or_insert_with(new)))
    }

    fn unsaved(&self) -> MutexGuard<'_, Vec<Weak<Station>>> {
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
                holder: None,
                generation: 0,
                announced: None,
                last_frame_at: None,
                rank: None,
                streaks: None,
            }),
            turn: Semaphore::new(1),
        }
    }

    pub(super) fn snapshot(&self) -> StationState {
        self.live().view().state
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
            connected_since: self.holder.as_ref().map(|holder| holder.since),
            protocol: self
                .holder
                .as_ref()
                .and_then(|holder| holder.protocol.clone()),
        }
    }
}

#[cfg(test)]
mod tests;
