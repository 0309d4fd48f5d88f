//! What makes room in a full table: the stations that can be forgotten, and their order.
//!
//! Who is neither connected nor registered can be forgotten: those that never booted first, and of
//! these the one that is gone longest. The order is kept as stations come and go, so a handshake
//! never searches the table. A station is forgotten only where the table holds the last reference
//! to it, and under the table's lock: so nobody can be about to connect it, and no event can be on
//! its way into its state.

use std::{
    collections::BTreeSet,
    sync::{Arc, MutexGuard, PoisonError, atomic::Ordering},
};

use jiff::Timestamp;
use pipelet_domain::events::StationId;

use super::{Known, Live, ShardStations, Station};

/// A table that is over its limit, because that was lowered, gets back to it in such steps.
const AT_ONCE: usize = 16;
/// So many are passed over because of what is on its way to them.
const MAX_BUSY: usize = 64;
/// So many may wait to be removed from the store, which a disk that fails can prevent for long.
const MAX_REMOVALS: usize = 10_000;

/// Where a station stands among those that can be forgotten: the lowest goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    has_booted: bool,
    last_seen_ms: i64,
}

/// Those that can be forgotten, in their order. A registered one may be among them until its turn
/// comes.
pub(super) type Forgettable = BTreeSet<(Rank, StationId)>;

impl Rank {
    /// None where a connection speaks for the station.
    fn of(live: &Live) -> Option<Self> {
        let seen = live.state.last_seen_at.max(live.last_frame_at);
        live.holder.is_none().then(|| Self {
            has_booted: live.state.last_boot_at.is_some(),
            last_seen_ms: seen.map_or(i64::MIN, Timestamp::as_millisecond),
        })
    }
}

impl ShardStations {
    /// Those that have been forgotten since the start to make room for others.
    pub(in crate::ocpp) fn forgotten(&self) -> u64 {
        self.0.forgotten.load(Ordering::Relaxed)
    }

    /// Puts all that can be forgotten into their order, after a start.
    pub(in crate::ocpp) fn rank_all(&self, is_registered: &dyn Fn(&StationId) -> bool) {
        let known = self.0.known.read().unwrap_or_else(PoisonError::into_inner);
        for (_, station) in known.iter().filter(|(id, _)| !is_registered(id)) {
            self.rank(&mut station.live());
        }
    }

    /// Puts a station that is no longer registered into the order.
    pub(in crate::ocpp) fn unregistered(&self, id: &StationId) {
        if let Some(station) = self.find(id) {
            self.rank(&mut station.live());
        }
    }

    /// Puts a station where it belongs now; one that is connected belongs nowhere.
    pub(super) fn rank(&self, live: &mut Live) {
        let rank = Rank::of(live);
        let before = std::mem::replace(&mut live.rank, rank);
        if before == rank {
            return;
        }
        let mut forgettable = self.forgettable();
        if let Some(before) = before {
            forgettable.remove(&(before, live.state.id.clone()));
        }
        if let Some(rank) = rank {
            forgettable.insert((rank, live.state.id.clone()));
        }
    }

    /// Forgets stations until there is room for one more, or at least one of them where there are
    /// far too many. Tells whether another one may be added.
    pub(super) fn make_room(
        &self,
        known: &mut Known,
        max: usize,
        is_registered: &dyn Fn(&StationId) -> bool,
    ) -> bool {
        let mut forgotten = 0;
        let mut busy = Vec::new();
        while known.len() >= max && forgotten < AT_ONCE && busy.len() < MAX_BUSY {
            if self.removals().len() >= MAX_REMOVALS {
                break;
            }
            let Some((rank, id)) = self.forgettable().pop_first() else {
                break;
            };
            let Some(station) = known.get(&id) else {
                continue;
            };
            let mut live = station.live();
            live.rank = None;
            if Rank::of(&live) != Some(rank) {
                self.rank(&mut live);
                continue;
            }
            drop(live);
            // It comes back into the order when it leaves, or is registered no longer.
            if is_registered(&id) {
                continue;
            }
            if self.take_out(known, &id) {
                forgotten += 1;
            } else {
                busy.push(id);
            }
        }
        for station in busy.iter().filter_map(|id| known.get(id)) {
            self.rank(&mut station.live());
        }
        self.0
            .forgotten
            .fetch_add(forgotten as u64, Ordering::Relaxed);
        known.len() < max || forgotten > 0
    }

    /// Takes a station out of the table, and has it removed from the store, unless somebody has to
    /// do with it.
    fn take_out(&self, known: &mut Known, id: &StationId) -> bool {
        let Some(station) = known.remove(id) else {
            return false;
        };
        match Arc::try_unwrap(station) {
            Ok(Station { live, .. }) => {
                let live = live.into_inner().unwrap_or_else(PoisonError::into_inner);
                if let Some(rank) = live.rank {
                    self.forgettable().remove(&(rank, id.clone()));
                }
                self.unstable_ids().remove(id);
                self.removals().push(id.clone());
                true
            }
            Err(station) => {
                known.insert(id.clone(), station);
                false
            }
        }
    }

    /// What the store has to forget. It must be taken after the unsaved stations, and removed
    /// before these are saved: one that was forgotten and has come back is among both.
    pub(in crate::ocpp) fn take_removals(&self) -> Vec<StationId> {
        std::mem::take(&mut self.removals())
    }

    pub(in crate::ocpp) fn put_back_removals(&self, removals: Vec<StationId>) {
        self.removals().extend(removals);
    }

    fn forgettable(&self) -> MutexGuard<'_, Forgettable> {
        let forgettable = self.0.forgettable.lock();
        forgettable.unwrap_or_else(PoisonError::into_inner)
    }

    fn removals(&self) -> MutexGuard<'_, Vec<StationId>> {
        self.0
            .removals
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
