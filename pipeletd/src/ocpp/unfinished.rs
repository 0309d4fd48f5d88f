//! The bytes of messages that have begun to come, over all connections.
//!
//! A message may have a mebibyte, and is held until its end has come, so a crowd that sends all but
//! the end could have as much memory as it likes. There is a total for all of them: beyond it, the
//! connection that waits for the largest message goes. Small messages are no part of it, so that
//! what nearly all stations send costs no lock; each connection has that much in any case.
//!
//! This knows nothing of frames, and of connections only that they can be told.

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// In bytes: a message that is no longer is not counted.
pub(super) const FREE: u64 = 4 * 1024;

/// Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Unfinished(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limit: u64,
    messages: Mutex<Messages>,
}

#[derive(Debug, Default)]
struct Messages {
    next: u64,
    total: u64,
    /// By their bytes, and of as many the oldest last.
    by_size: BTreeMap<(u64, Reverse<u64>), CancellationToken>,
}

/// A connection's message, for as long as its end has not come.
#[derive(Debug)]
pub(super) struct Message {
    unfinished: Unfinished,
    number: u64,
    bytes: u64,
    dropped: CancellationToken,
}

impl Unfinished {
    pub(super) fn new(limit: u64) -> Self {
        let messages = Mutex::default();
        Self(Arc::new(Inner { limit, messages }))
    }

    /// All there are, in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.messages().total
    }

    /// A message has begun.
    pub(super) fn begin(&self) -> Message {
        let mut messages = self.messages();
        let number = messages.next;
        messages.next += 1;
        Message {
            unfinished: self.clone(),
            number,
            bytes: 0,
            dropped: CancellationToken::new(),
        }
    }

    fn messages(&self) -> MutexGuard<'_, Messages> {
        let messages = self.0.messages.lock();
        messages.unwrap_or_else(PoisonError::into_inner)
    }
}

impl Message {
    /// It has so many bytes by now, counting those that were announced: room is made for them.
    pub(super) fn grow(&mut self, bytes: u64) {
        let limit = self.unfinished.0.limit;
        // A station may announce what it likes; more than all there may be is all the same.
        let bytes = bytes.min(limit.saturating_add(1));
        let mut messages = self.unfinished.messages();
        if self.dropped.is_cancelled() || self.bytes == bytes {
            return;
        }
        messages.by_size.remove(&(self.bytes, Reverse(self.number)));
        messages.total = messages.total - self.bytes + bytes;
        self.bytes = bytes;
        let token = self.dropped.clone();
        messages
            .by_size
            .insert((bytes, Reverse(self.number)), token);
        while messages.total > limit
            && let Some(((bytes, _), largest)) = messages.by_size.pop_last()
        {
            messages.total -= bytes;
            largest.cancel();
        }
    }

    /// Ends when its connection has to go.
    pub(super) fn dropped(&self) -> WaitForCancellationFutureOwned {
        self.dropped.clone().cancelled_owned()
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        let mut messages = self.unfinished.messages();
        let key = (self.bytes, Reverse(self.number));
        if messages.by_size.remove(&key).is_some() {
            messages.total -= self.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_goes_where_all_are_too_many() {
        let unfinished = Unfinished::new(100);
        let [mut small, mut large, mut middle] = [(); 3].map(|()| unfinished.begin());
        small.grow(20);
        large.grow(40);
        middle.grow(30);
        assert_eq!(unfinished.bytes(), 90);
        small.grow(35);
        let dropped = |message: &Message| message.dropped.is_cancelled();
        assert!(dropped(&large) && !dropped(&small) && !dropped(&middle));
        assert_eq!(unfinished.bytes(), 65);
        // What was dropped counts no more, whatever still comes of it.
        large.grow(90);
        drop(large);
        assert_eq!(unfinished.bytes(), 65);
        drop(small);
        middle.grow(101);
        assert!(dropped(&middle));
        assert_eq!(unfinished.bytes(), 0);
    }
}
