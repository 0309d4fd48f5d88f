//! How many bytes of events may be in memory, over everything that holds them.
//!
//! The budget is cut into pools, so that those who read through the API take nothing from
//! deliveries, nor stations from either. Within a pool the holders share what there is by dynamic
//! thresholds (Choudhury and Hahne, "Dynamic queue length thresholds for shared-memory packet
//! switches", 1998): each may hold a fraction of what is still free, so few get much, many get
//! less, and whoever comes late finds something. Half of a pool is kept for those who hold nothing
//! yet: each of them may load one thing, however large, as soon as there is room for the largest.
//!
//! Invariant: what may be loaded is counted before it is, and as the largest event at least, because
//! a read returns one thing however large it is. So many who read at once don't exceed a pool.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// Of what is free, what one holder may have: one in so many.
const FRACTION: usize = 4;
/// In bytes. Room for the largest event there is: a station's message of 1 MiB, as it came and as
/// the body of a POST.
pub const LARGEST_EVENT: usize = 2 * (1 << 20) + (64 << 10);

/// What events in memory may take, by what holds them.
#[derive(Debug, Clone)]
pub struct MemoryBudget {
    /// In bytes: the ring of events that have just been journaled.
    pub recent: usize,
    /// What is on its way into the journal.
    pub incoming: FifoPool,
    /// What webhooks have loaded, up to its being settled.
    pub deliveries: Pool,
    /// What callers of the API read, up to its being sent.
    pub readers: FifoPool,
}

impl MemoryBudget {
    /// In bytes. With less, a part would have no room for its largest event.
    pub const SMALLEST: u64 = 32 << 20;

    /// For one of so many that have it in common: what is no pool is divided.
    #[must_use]
    pub fn for_one_of(&self, count: usize) -> Self {
        Self {
            recent: self.recent / count.max(1),
            ..self.clone()
        }
    }

    /// Divides so many bytes.
    pub fn of(bytes: u64) -> Self {
        let eighth = usize::try_from(bytes / 8).unwrap_or(usize::MAX / 8);
        Self {
            recent: 2 * eighth,
            incoming: FifoPool::of(eighth),
            deliveries: Pool::of(3 * eighth),
            readers: FifoPool::of(2 * eighth),
        }
    }
}

/// A part of the budget. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Pool(Arc<Counts>);

#[derive(Debug)]
struct Counts {
    size: usize,
    used: AtomicUsize,
    /// Told when something was given back that somebody may wait for.
    released: watch::Sender<()>,
}

/// What may be loaded, and was counted for it.
#[derive(Debug)]
pub struct Reservation {
    /// In bytes: the most that a read is to return, but for its first thing.
    pub bytes: usize,
    counted: usize,
}

/// What one holder has of a pool; given back when it is dropped.
#[derive(Debug)]
pub struct Share {
    pool: Pool,
    held: usize,
    released: watch::Receiver<()>,
    is_exhausted: bool,
}

/// A part of the budget that is taken for a moment by who knows how much it needs, in the order in
/// which they come. Cheap to clone.
#[derive(Debug, Clone)]
pub struct FifoPool {
    room: Arc<Semaphore>,
    size: u32,
}

impl Pool {
    pub fn of(size: usize) -> Self {
        Self(Arc::new(Counts {
            size,
            used: AtomicUsize::new(0),
            released: watch::Sender::new(()),
        }))
    }

    /// In bytes.
    pub fn size(&self) -> usize {
        self.0.size
    }

    /// In bytes, now.
    pub fn used(&self) -> usize {
        self.0.used.load(Ordering::Relaxed)
    }

    pub fn share(&self) -> Share {
        Share {
            pool: self.clone(),
            held: 0,
            released: self.0.released.subscribe(),
            is_exhausted: false,
        }
    }

    /// What one may load who holds so many bytes, where that is worth a read.
    fn more(&self, used: usize, held: usize) -> Option<Reservation> {
        let free = self.0.size.saturating_sub(used);
        let share = free.saturating_sub(self.0.size / 2) / FRACTION;
        let more = share.saturating_sub(held);
        let is_worth_it = more > 0 && more >= share / 2;
        // One thing, since every read returns that much.
        let bytes = if is_worth_it { more } else { 1 };
        let counted = bytes.max(LARGEST_EVENT);
        let fits = counted <= free || used == 0;
        (fits && (is_worth_it || held == 0)).then_some(Reservation { bytes, counted })
    }
}

impl Share {
    /// Takes what this holder may have beside what it has; none where it has about its share
    /// already, or there is no room. What it loads then it tells [`Self::settle`].
    #[must_use]
    pub fn reserve(&mut self) -> Option<Reservation> {
        // What is released from here on is not missed.
        self.released.mark_unchanged();
        let Counts { used, .. } = &*self.pool.0;
        let more = |used: usize| self.pool.more(used, self.held);
        let reserved = used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                more(used).map(|more| used + more.counted)
            })
            .ok()
            .and_then(more);
        self.held += reserved.as_ref().map_or(0, |reserved| reserved.counted);
        self.is_exhausted = reserved.is_none();
        reserved
    }

    /// Whether there was nothing to reserve, and nothing has changed since.
    pub const fn is_exhausted(&self) -> bool {
        self.is_exhausted
    }

    /// Resolves once there may be more for a holder that has exhausted its share.
    pub async fn released(&mut self) {
        // The pool that we have keeps the sender.
        if !self.is_exhausted || self.released.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        self.is_exhausted = false;
    }

    /// Puts what was loaded, in bytes, in the place of what was reserved for it.
    #[expect(clippy::needless_pass_by_value, reason = "it is used up")]
    pub fn settle(&mut self, reserved: Reservation, loaded: usize) {
        self.held += loaded;
        self.pool.0.used.fetch_add(loaded, Ordering::Relaxed);
        self.give_back(reserved.counted);
    }

    pub fn give_back(&mut self, bytes: usize) {
        self.held -= bytes;
        self.is_exhausted = false;
        let Counts {
            size,
            used,
            released,
        } = &*self.pool.0;
        let before = size.saturating_sub(used.fetch_sub(bytes, Ordering::Relaxed));
        // Where there was no room for anything, or where shares become worth something again. Else
        // whoever waits does so for what it holds itself.
        let plenty = size / 4 * 3;
        if before < 2 * LARGEST_EVENT || (before < plenty && before + bytes >= plenty) {
            released.send_replace(());
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.give_back(self.held);
    }
}

impl FifoPool {
    /// In bytes; at most 4 GiB.
    pub fn of(size: usize) -> Self {
        let size = u32::try_from(size).unwrap_or(u32::MAX);
        Self {
            room: Arc::new(Semaphore::new(size as usize)),
            size,
        }
    }

    /// In bytes.
    pub const fn size(&self) -> usize {
        self.size as usize
    }

    /// In bytes, now.
    pub fn used(&self) -> usize {
        self.size() - self.room.available_permits()
    }

    /// Waits for room for so many bytes, which are given back when what it returns is dropped. What
    /// is larger than all that there is goes when it is alone.
    pub async fn take(&self, bytes: usize) -> OwnedSemaphorePermit {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.size);
        let taken = Arc::clone(&self.room).acquire_many_owned(bytes).await;
        taken.expect("nothing closes it")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 32 << 20;

    /// Reserves and loads again and again, until there is nothing more.
    fn fill(share: &mut Share, event: usize) {
        while let Some(reserved) = share.reserve() {
            let count = (reserved.bytes / event).max(1);
            share.settle(reserved, count * event);
        }
    }

    #[test]
    fn few_get_much_many_get_less_and_who_comes_late_finds_something() {
        let pool = Pool::of(SIZE);
        let mut first = pool.share();
        fill(&mut first, 1_000);
        assert!(first.held > SIZE / 16, "{}", first.held);
        let mut others: Vec<_> = (0..1_000).map(|_| pool.share()).collect();
        for other in &mut others {
            fill(other, 1_000);
            assert!(other.held > 0);
        }
        assert!(pool.used() <= SIZE, "{}", pool.used());
        drop(others);
        assert_eq!(pool.used(), first.held);
    }

    #[tokio::test]
    async fn the_largest_events_never_take_more_than_there_is() {
        let pool = Pool::of(SIZE);
        let mut shares: Vec<_> = (0..100).map(|_| pool.share()).collect();
        for share in &mut shares {
            fill(share, LARGEST_EVENT);
        }
        assert!(pool.used() <= SIZE + LARGEST_EVENT, "{}", pool.used());
        let mut waiting = pool.share();
        assert!(waiting.reserve().is_none());
        // However little room each makes, there is enough in the end.
        let release = async { drop(shares) };
        tokio::join!(waiting.released(), release);
        assert!(waiting.reserve().is_some());
    }

    #[test]
    fn many_who_read_at_once_have_room_for_what_comes() {
        let pool = Pool::of(SIZE);
        let mut shares: Vec<_> = (0..100).map(|_| pool.share()).collect();
        let reserved: Vec<_> = shares.iter_mut().map(Share::reserve).collect();
        assert!(pool.used() <= SIZE, "{}", pool.used());
        for (share, reserved) in shares.iter_mut().zip(reserved) {
            if let Some(reserved) = reserved {
                share.settle(reserved, LARGEST_EVENT);
            }
        }
        assert!(pool.used() <= SIZE, "{}", pool.used());
    }

    #[tokio::test]
    async fn what_is_larger_than_everything_has_its_turn_alone() {
        let pool = FifoPool::of(100);
        let first = pool.take(60).await;
        let taken = pool.take(1_000);
        tokio::pin!(taken);
        assert!(futures_util::poll!(&mut taken).is_pending());
        drop(first);
        let all = taken.await;
        assert_eq!(pool.used(), 100);
        drop(all);
        assert_eq!(pool.used(), 0);
    }
}
