//! How many bytes of events may be in memory, over everything that holds them.
//!
//! The budget is cut into pools, so that those who read through the API take nothing from
//! deliveries, nor stations from either. Within a pool the holders share what there is by dynamic
//! thresholds (Choudhury and Hahne, "Dynamic queue length thresholds for shared-memory packet
//! switches", 1998): each may hold a fraction of what is still free, so few get much, many get
//! less, and whoever comes late finds something. Half of a pool is kept for those who hold nothing
//! yet: each of them may load one thing, however large, as soon as there is room for the largest.
//!
//! Invariant: what is reserved is counted before it is loaded, so a pool exceeds its size by no
//! more than the last thing that each reservation loaded.

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

    /// How many bytes more one may have who holds so many, where that is worth a read.
    fn more(&self, used: usize, held: usize) -> Option<usize> {
        let free = self.0.size.saturating_sub(used);
        let share = free.saturating_sub(self.0.size / 2) / FRACTION;
        let more = share.saturating_sub(held);
        if more > 0 && more >= share / 2 {
            return Some(more);
        }
        let alone = held == 0 && (free >= LARGEST_EVENT || used == 0);
        // Enough for one thing, since every read returns that much.
        alone.then_some(1)
    }
}

impl Share {
    /// Takes what this holder may have beside what it has, and says how many bytes that is; none
    /// where it has about its share already, or has nothing and there is no room. What it loads
    /// then it tells [`Self::settle`].
    #[must_use]
    pub fn reserve(&mut self) -> Option<usize> {
        // What is released from here on is not missed.
        self.released.mark_unchanged();
        let Counts { used, .. } = &*self.pool.0;
        let more = |used: usize| self.pool.more(used, self.held);
        let reserved = used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                more(used).map(|more| used + more)
            })
            .ok()
            .and_then(more);
        self.held += reserved.unwrap_or(0);
        self.is_exhausted = reserved.is_none();
        reserved
    }

    /// Waits for what [`Self::reserve`] gives.
    pub async fn reserved(&mut self) -> usize {
        loop {
            if let Some(reserved) = self.reserve() {
                return reserved;
            }
            self.released().await;
        }
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

    /// Puts what was loaded in the place of what was reserved for it.
    pub fn settle(&mut self, reserved: usize, loaded: usize) {
        self.held += loaded;
        self.pool.0.used.fetch_add(loaded, Ordering::Relaxed);
        self.give_back(reserved);
    }

    pub fn give_back(&mut self, bytes: usize) {
        self.held -= bytes;
        self.is_exhausted = false;
        let Counts {
            size,
            used,
            released,
        } = &*self.pool.0;
        let free = size.saturating_sub(used.fetch_sub(bytes, Ordering::Relaxed));
        // Else nobody had to wait.
        if free < LARGEST_EVENT {
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
            share.settle(reserved, (reserved / event).max(1) * event);
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
        assert_eq!(waiting.reserve(), None);
        // However little room each makes, there is enough in the end.
        let release = async { drop(shares) };
        let (reserved, ()) = tokio::join!(waiting.reserved(), release);
        assert!(reserved >= 1);
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
