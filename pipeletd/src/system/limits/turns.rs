//! Turns for connections that have not shown yet who they are, shared between their addresses.
//!
//! Such a connection costs something before it has shown a password or a key, so only a limited
//! number of them have a turn at once, and an address that sends half a request and waits must not
//! keep the others out:
//!
//! - When all turns are taken, a newcomer gets the turn of the oldest connection of the address
//!   that has the most, where that leaves its own address with no more.
//! - Otherwise it waits, and addresses that wait are served one connection each in rotation.
//! - A turn is sure for [`SURE`]. After that the oldest one of the address that has the most is
//!   dropped for one of another address that waits; for one of its own only after [`LONGEST`]: all
//!   of a network's stations may come from one address and be slow, and nobody would finish.
//!
//! This knows neither sockets nor what is shown on them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, Ipv4Addr},
    ops::Bound,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::{Instant, sleep},
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::network::network;

/// So long nobody who waits gets the turn of a connection whose address has no more than its share:
/// time enough for the round trips of a handshake over a slow mobile network.
const SURE: Duration = Duration::from_secs(2);

/// Longer than any handshake may take.
const LONGEST: Duration = Duration::from_secs(10);

/// The turns there are. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Turns(Arc<Mutex<State>>);

/// A connection that has not shown yet who it is. Dropping it gives its turn on.
#[derive(Debug)]
pub struct Pending {
    turns: Turns,
    key: Key,
    dropped: CancellationToken,
    settled: AtomicBool,
    /// It had a turn when it was settled.
    keeps_turn: AtomicBool,
}

/// The network that a connection comes from, and its number among all that ever came.
type Key = (IpAddr, u64);

#[derive(Debug)]
struct State {
    free: usize,
    next: u64,
    pending: Shares<CancellationToken>,
    /// Those of the pending ones that have a turn, and since when.
    holding: Shares<Instant>,
    waiting: BTreeMap<Key, oneshot::Sender<()>>,
    /// The one that was served last of those that waited.
    served: Key,
}

impl Turns {
    pub fn new(count: usize) -> Self {
        Self(Arc::new(Mutex::new(State {
            free: count,
            next: 0,
            pending: Shares::default(),
            holding: Shares::default(),
            waiting: BTreeMap::new(),
            served: (Ipv4Addr::UNSPECIFIED.into(), 0),
        })))
    }

    /// A connection has come from there.
    pub fn arrive(&self, from: IpAddr) -> Pending {
        let dropped = CancellationToken::new();
        let mut state = self.state();
        let key = (network(from), state.next);
        state.next += 1;
        state.pending.insert(key, dropped.clone());
        drop(state);
        Pending {
            turns: self.clone(),
            key,
            dropped,
            settled: AtomicBool::new(false),
            keeps_turn: AtomicBool::new(false),
        }
    }

    /// A place in `room`: where there is none, a pending connection is dropped for it.
    pub async fn place(&self, room: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
        if let Ok(place) = Arc::clone(room).try_acquire_owned() {
            return Some(place);
        }
        self.drop_one();
        Arc::clone(room).acquire_owned().await.ok()
    }

    /// Drops the oldest connection of the address that has the most pending ones.
    pub fn drop_one(&self) {
        let mut state = self.state();
        let oldest = state.pending.oldest_of_most().map(|(key, _)| key);
        if let Some(key) = oldest {
            state.drop_pending(key);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pending {
    /// Waits until it has its turn, which it keeps for its lifetime.
    pub async fn turn(&self) {
        let waits = self.turns.state().ask(self.key, Instant::now());
        let Some(mut granted) = waits else {
            return;
        };
        loop {
            tokio::select! {
                // The sender goes with a dropped connection only, and then this future is.
                _ = &mut granted => return,
                () = sleep(SURE) => self.turns.state().drop_overdue(self.key, Instant::now()),
            }
        }
    }

    /// It is known who this is: from now on it is dropped for nobody. False where it was before.
    pub fn settle(&self) -> bool {
        let mut state = self.turns.state();
        if state.pending.remove(self.key).is_some() {
            let has_turn = state.holding.remove(self.key).is_some();
            self.keeps_turn.store(has_turn, Ordering::Relaxed);
            self.settled.store(true, Ordering::Relaxed);
        }
        self.is_settled()
    }

    pub fn is_settled(&self) -> bool {
        self.settled.load(Ordering::Relaxed)
    }

    /// Ends when it is dropped for another one.
    pub fn dropped(&self) -> WaitForCancellationFutureOwned {
        self.dropped.clone().cancelled_owned()
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let mut state = self.turns.state();
        state.pending.remove(self.key);
        state.waiting.remove(&self.key);
        if state.holding.remove(self.key).is_some() || self.keeps_turn.load(Ordering::Relaxed) {
            state.give_on();
        }
    }
}

impl State {
    /// Gives a pending connection its turn, or tells what says that it has it.
    fn ask(&mut self, key: Key, now: Instant) -> Option<oneshot::Receiver<()>> {
        if self.free > 0 {
            self.free -= 1;
            self.holding.insert(key, now);
            return None;
        }
        let (address, _) = key;
        let after = self.holding.count(address) + 1;
        if self.holding.most() > after
            && let Some((oldest, _)) = self.holding.oldest_of_most()
        {
            self.holding.remove(oldest);
            self.drop_pending(oldest);
            self.holding.insert(key, now);
            return None;
        }
        let (sender, granted) = oneshot::channel();
        self.waiting.insert(key, sender);
        Some(granted)
    }

    /// Drops one whose turn is no longer sure.
    fn drop_overdue(&mut self, (waiting, _): Key, now: Instant) {
        if let Some((key, since)) = self.holding.oldest_of_most()
            && now.duration_since(*since) >= if key.0 == waiting { LONGEST } else { SURE }
        {
            self.drop_pending(key);
        }
    }

    fn drop_pending(&mut self, key: Key) {
        if let Some(dropped) = self.pending.remove(key) {
            dropped.cancel();
        }
        self.waiting.remove(&key);
        if self.holding.remove(key).is_some() {
            self.give_on();
        }
    }

    /// A turn has become free.
    fn give_on(&mut self) {
        while let Some((key, sender)) = self.take_next_waiting() {
            if sender.send(()).is_ok() {
                self.holding.insert(key, Instant::now());
                return;
            }
        }
        self.free += 1;
    }

    /// The first that waits of the address after the one that was served last.
    fn take_next_waiting(&mut self) -> Option<(Key, oneshot::Sender<()>)> {
        let (served, _) = self.served;
        let after = (Bound::Excluded((served, u64::MAX)), Bound::Unbounded);
        let next = self.waiting.range(after).next();
        let (key, _) = next.or_else(|| self.waiting.first_key_value())?;
        self.served = *key;
        self.waiting.remove_entry(&self.served)
    }
}

/// What each address has of something, and which has the most.
#[derive(Debug)]
struct Shares<T> {
    of: HashMap<IpAddr, BTreeMap<u64, T>>,
    ranked: BTreeSet<(usize, IpAddr)>,
}

impl<T> Shares<T> {
    fn insert(&mut self, (address, number): Key, value: T) {
        let share = self.of.entry(address).or_default();
        let before = share.len();
        share.insert(number, value);
        let after = share.len();
        self.rank(address, before, after);
    }

    fn remove(&mut self, (address, number): Key) -> Option<T> {
        let share = self.of.get_mut(&address)?;
        let before = share.len();
        let removed = share.remove(&number);
        let after = share.len();
        if after == 0 {
            self.of.remove(&address);
        }
        self.rank(address, before, after);
        removed
    }

    fn rank(&mut self, address: IpAddr, before: usize, after: usize) {
        self.ranked.remove(&(before, address));
        if after > 0 {
            self.ranked.insert((after, address));
        }
    }

    fn count(&self, address: IpAddr) -> usize {
        self.of.get(&address).map_or(0, BTreeMap::len)
    }

    fn most(&self) -> usize {
        self.ranked.last().map_or(0, |(count, _)| *count)
    }

    fn oldest_of_most(&self) -> Option<(Key, &T)> {
        let (_, address) = self.ranked.last()?;
        let (number, value) = self.of.get(address)?.first_key_value()?;
        Some(((*address, *number), value))
    }
}

impl<T> Default for Shares<T> {
    fn default() -> Self {
        Self {
            of: HashMap::new(),
            ranked: BTreeSet::new(),
        }
    }
}

#[cfg(test)]
#[path = "turns_tests.rs"]
mod tests;
