//! The sockets that deliveries may have open, shared among the webhooks.
//!
//! Half of them is kept for webhooks that have few: each may have [`LEAST`], or as many as that
//! half has for each of all webhooks, and one at least. Of the other half a webhook takes more
//! while it has fewer than are left there, so that whatever some of them hold, others find some,
//! too. One that gets none waits, and that is no attempt yet.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::Notify;

/// What each webhook may have, whatever the others hold, where there are enough.
const LEAST: usize = 4;

/// Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Sockets(Arc<Mutex<Pool>>);

#[derive(Debug)]
struct Pool {
    /// How many there are for webhooks that have few.
    reserve: usize,
    reserve_left: usize,
    left: usize,
    webhooks: usize,
    waiting: Vec<Weak<Share>>,
}

/// The sockets of one webhook.
#[derive(Debug)]
pub(super) struct Share {
    all: Sockets,
    held: Mutex<Held>,
    room: Notify,
}

#[derive(Debug, Clone, Copy, Default)]
struct Held {
    of_reserve: usize,
    others: usize,
    waits: bool,
}

/// The right to have one socket open.
#[derive(Debug)]
pub(super) struct Socket {
    share: Arc<Share>,
    of_reserve: bool,
}

impl Sockets {
    pub(super) fn new(count: usize) -> Self {
        let reserve = count.div_ceil(2);
        Self(Arc::new(Mutex::new(Pool {
            reserve,
            reserve_left: reserve,
            left: count - reserve,
            webhooks: 0,
            waiting: Vec::new(),
        })))
    }

    /// For one more webhook.
    pub(super) fn share(&self) -> Arc<Share> {
        self.pool().webhooks += 1;
        Arc::new(Share {
            all: self.clone(),
            held: Mutex::default(),
            room: Notify::new(),
        })
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pool {
    /// Whether one who holds so many gets another, and whether it is of the reserve.
    fn grants(&self, held: Held) -> Option<bool> {
        let least = (self.reserve / self.webhooks.max(1)).clamp(1, LEAST);
        if held.of_reserve < least && self.reserve_left > 0 {
            return Some(true);
        }
        (held.of_reserve + held.others < self.left).then_some(false)
    }

    /// Of those who wait and would get one, the one that holds the fewest. All that were looked at
    /// come with it, to be dropped without the lock: each may be the last that holds its share.
    fn next(&mut self) -> (Option<Arc<Share>>, Vec<Arc<Share>>) {
        let waiting = std::mem::take(&mut self.waiting);
        let mut passed_over = Vec::new();
        let mut next: Option<(usize, Arc<Share>)> = None;
        for share in waiting {
            let Some(share) = share.upgrade() else {
                continue;
            };
            let held = *share.held();
            let count = held.of_reserve + held.others;
            let fewer = next.as_ref().is_none_or(|(fewest, _)| count < *fewest);
            let chosen = fewer && self.grants(held).is_some();
            let other = if chosen {
                next.replace((count, share)).map(|(_, share)| share)
            } else {
                Some(share)
            };
            self.waiting.extend(other.as_ref().map(Arc::downgrade));
            passed_over.extend(other);
        }
        let next = next.map(|(_, share)| share);
        if let Some(share) = &next {
            share.held().waits = false;
        }
        (next, passed_over)
    }
}

impl Share {
    pub(super) fn take(self: &Arc<Self>) -> Option<Socket> {
        self.take_of(&mut self.all.pool())
    }

    /// Waits for one. Whoever needs it no more lets go of it, and the next one has it.
    pub(super) async fn wait(self: &Arc<Self>) -> Socket {
        loop {
            let mut waiter = {
                let mut pool = self.all.pool();
                if let Some(socket) = self.take_of(&mut pool) {
                    return socket;
                }
                self.held().waits = true;
                pool.waiting.push(Arc::downgrade(self));
                Waiter {
                    share: self,
                    was_called: false,
                }
            };
            self.room.notified().await;
            waiter.was_called = true;
        }
    }

    fn take_of(self: &Arc<Self>, pool: &mut Pool) -> Option<Socket> {
        let mut held = self.held();
        let of_reserve = pool.grants(*held)?;
        if of_reserve {
            pool.reserve_left -= 1;
            held.of_reserve += 1;
        } else {
            pool.left -= 1;
            held.others += 1;
        }
        drop(held);
        Some(Socket {
            share: Arc::clone(self),
            of_reserve,
        })
    }

    /// Where both are locked, the pool is first.
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One that waits. Where it goes away, it is not called any more, and who was called passes it on.
/// A call that was passed on may end the next wait early.
struct Waiter<'a> {
    share: &'a Arc<Share>,
    was_called: bool,
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let (next, _passed_over) = {
            let mut pool = self.share.all.pool();
            let waited = std::mem::take(&mut self.share.held().waits);
            if waited {
                let ours = Arc::as_ptr(self.share);
                pool.waiting.retain(|share| share.as_ptr() != ours);
            }
            if waited || self.was_called {
                (None, Vec::new())
            } else {
                pool.next()
            }
        };
        if let Some(share) = next {
            share.room.notify_one();
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.all.pool().webhooks -= 1;
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let (next, _passed_over) = {
            let mut pool = self.share.all.pool();
            let mut held = self.share.held();
            if self.of_reserve {
                pool.reserve_left += 1;
                held.of_reserve -= 1;
            } else {
                pool.left += 1;
                held.others -= 1;
            }
            drop(held);
            pool.next()
        };
        if let Some(share) = next {
            share.room.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread, time::Duration};

    use futures_util::FutureExt as _;

    use super::*;

    fn all_of(share: &Arc<Share>) -> Vec<Socket> {
        std::iter::from_fn(|| share.take()).collect()
    }

    #[test]
    fn whoever_comes_later_finds_some() {
        let sockets = Sockets::new(512);
        let shares: Vec<_> = (0..100).map(|_| sockets.share()).collect();
        let held: Vec<_> = shares.iter().map(all_of).collect();
        let counts: Vec<_> = held.iter().map(Vec::len).collect();
        assert!(counts[0] <= 130, "{counts:?}");
        assert!(counts.iter().all(|count| *count >= 2), "{counts:?}");
        assert!(counts.iter().sum::<usize>() <= 512, "{counts:?}");
        let newcomer = sockets.share();
        assert!(all_of(&newcomer).len() >= 2);
        drop(held);
        let pool = sockets.pool();
        assert_eq!((pool.reserve_left, pool.left), (256, 256));
    }

    #[tokio::test]
    async fn who_holds_the_fewest_is_next() {
        let sockets = Sockets::new(4);
        let shares: Vec<_> = (0..3).map(|_| sockets.share()).collect();
        let [first, second, third] = &shares[..] else {
            unreachable!("three were made");
        };
        let mut held = all_of(first);
        held.extend(all_of(second));
        held.extend(all_of(third));
        assert!(second.take().is_none() && third.take().is_none());
        let mut waiting: Vec<_> = shares.iter().map(|share| Box::pin(share.wait())).collect();
        for waiting in &mut waiting {
            assert!(waiting.now_or_never().is_none());
        }
        let fewest = shares.iter().min_by_key(|share| {
            let held = *share.held();
            held.of_reserve + held.others
        });
        held.clear();
        let fewest = fewest.unwrap();
        fewest.wait().await;
    }

    #[test]
    fn who_has_gone_is_not_counted() {
        let sockets = Sockets::new(8);
        let gone = sockets.share();
        let held = all_of(&gone);
        assert!(!held.is_empty());
        assert!(gone.wait().now_or_never().is_none());
        drop((gone, held));
        assert_eq!(sockets.pool().webhooks, 0);
        assert!(sockets.share().take().is_some());
    }

    /// Whether it waits still, once it was looked at.
    fn waits(socket: &mut (impl Future<Output = Socket> + Unpin)) -> bool {
        socket.now_or_never().is_none()
    }

    #[test]
    fn who_goes_away_while_a_socket_is_given_back_stops_nobody() {
        let (done, is_done) = mpsc::channel();
        thread::spawn(move || {
            for _ in 0..1000 {
                let sockets = Sockets::new(1);
                let held = all_of(&sockets.share());
                let (first, going) = (sockets.share(), sockets.share());
                for share in [&first, &going] {
                    assert!(waits(&mut Box::pin(share.wait())));
                }
                // While this is locked, whoever looks at all that wait stops there.
                let looked_at = going.held();
                let giving = thread::spawn(move || drop(held));
                while Arc::strong_count(&going) == 1 && !giving.is_finished() {
                    thread::yield_now();
                }
                drop(looked_at);
                drop(going);
                giving.join().unwrap();
            }
            done.send(()).unwrap();
        });
        let ended = is_done.recv_timeout(Duration::from_secs(30));
        ended.expect("it gives its socket back");
    }

    #[test]
    fn who_was_called_and_goes_away_passes_it_on() {
        let sockets = Sockets::new(1);
        let held = all_of(&sockets.share());
        let (first, second) = (sockets.share(), sockets.share());
        let mut called = Box::pin(first.wait());
        let behind = &mut Box::pin(second.wait());
        assert!(waits(&mut called) && waits(behind));
        drop(held);
        drop(called);
        let held = behind.now_or_never().expect("it is free");
        // Its call is still there, for nothing. It waits, and then it doesn't.
        assert!(waits(&mut Box::pin(first.wait())));
        let behind = &mut Box::pin(second.wait());
        assert!(waits(behind));
        drop(held);
        assert!(!waits(behind));
    }

    #[test]
    fn who_was_given_one_and_needs_none_passes_it_on() {
        let sockets = Sockets::new(1);
        let held = all_of(&sockets.share());
        let (first, second) = (sockets.share(), sockets.share());
        let (called, behind) = (&mut Box::pin(first.wait()), &mut Box::pin(second.wait()));
        assert!(waits(called) && waits(behind));
        drop(held);
        let given = called.now_or_never().expect("it is free");
        assert!(waits(behind));
        drop(given);
        assert!(!waits(behind));
    }
}
