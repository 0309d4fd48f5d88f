//! What a webhook's deliveries add up to, and where each part of the sum is kept.

use crate::{events::Seq, webhooks::Webhook};

/// How far a webhook has come in the journal.
///
/// Everything that it wanted below `read_to` is settled, but for what stands in `owed`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cursor {
    pub read_to: Seq,
    /// Read but not settled, in ascending order; bounded by the dispatcher's window.
    pub owed: Vec<Seq>,
    /// Delivered at the first attempt.
    pub delivered: u64,
}

impl Cursor {
    pub fn at(read_to: Seq) -> Self {
        Self {
            read_to,
            ..Self::default()
        }
    }

    /// The oldest event that the webhook may still need.
    pub fn floor(&self) -> Seq {
        self.owed
            .first()
            .copied()
            .unwrap_or(self.read_to)
            .min(self.read_to)
    }
}

/// How many events a webhook has been owed in all, as counted up to a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Received {
    pub count: u64,
    /// Events below this are counted.
    pub counted_to: Seq,
}

/// What became of the deliveries that left the happy path, or never were on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LedgerCounts {
    /// All that ever left it: with `backfilled`, the sum of what follows.
    pub off_cursor: u64,
    /// Sent again from the journal because somebody asked for it; received once more by that.
    pub backfilled: u64,
    pub retrying: u64,
    /// Delivered after a retry or a replay.
    pub delivered: u64,
    /// In the table of failed deliveries now.
    pub dead: u64,
    /// Purged from that table.
    pub purged: u64,
    /// Cancelled by deleting the webhook.
    pub cancelled: u64,
}

impl LedgerCounts {
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            off_cursor: self.off_cursor + other.off_cursor,
            backfilled: self.backfilled + other.backfilled,
            retrying: self.retrying + other.retrying,
            delivered: self.delivered + other.delivered,
            dead: self.dead + other.dead,
            purged: self.purged + other.purged,
            cancelled: self.cancelled + other.cancelled,
        }
    }
}

/// A webhook as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredWebhook {
    pub webhook: Webhook,
    pub stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Active,
    /// It is gone for every caller; what it was owed is still to be cancelled.
    Deleting,
    /// The ledger has its final books. It stays as a name for its failed deliveries.
    Deleted,
}

/// The counts that are one webhook's books: `received = delivered + pending + dead + cancelled`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DeliveryCounts {
    pub received: u64,
    pub delivered: u64,
    /// Not yet attempted, in flight, or waiting for a retry.
    pub pending: u64,
    /// Of the pending ones, those that wait for a retry.
    pub retrying: u64,
    /// Dead-lettered and not replayed, purged ones included.
    pub dead: u64,
    /// Of the dead ones, those that were purged.
    pub purged: u64,
    pub cancelled: u64,
}

impl DeliveryCounts {
    /// Draws the books up from the places where deliveries are counted: the journal, the cursor and
    /// the ledger.
    pub const fn of(received: u64, cursor_delivered: u64, ledger: LedgerCounts) -> Self {
        let backlog = received
            .saturating_sub(cursor_delivered)
            .saturating_sub(ledger.off_cursor);
        Self {
            received: received + ledger.backfilled,
            delivered: cursor_delivered + ledger.delivered,
            pending: backlog + ledger.retrying,
            retrying: ledger.retrying,
            dead: ledger.dead + ledger.purged,
            purged: ledger.purged,
            cancelled: ledger.cancelled,
        }
    }

    /// The books of a webhook that is deleted: all that was pending is cancelled.
    #[must_use]
    pub const fn closed(self) -> Self {
        let cancelled = self.cancelled + self.pending;
        Self {
            pending: 0,
            retrying: 0,
            cancelled,
            ..self
        }
    }

    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            received: self.received + other.received,
            delivered: self.delivered + other.delivered,
            pending: self.pending + other.pending,
            retrying: self.retrying + other.retrying,
            dead: self.dead + other.dead,
            purged: self.purged + other.purged,
            cancelled: self.cancelled + other.cancelled,
        }
    }

    pub const fn balance(&self) -> bool {
        self.received == self.delivered + self.pending + self.dead + self.cancelled
    }
}

/// What is kept of a webhook's deliveries that left the happy path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StoredCounts {
    pub retries: u64,
    pub failed: u64,
}

impl StoredCounts {
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            retries: self.retries + other.retries,
            failed: self.failed + other.failed,
        }
    }
}

/// Deleted webhooks that nothing is kept of but the sum of their books.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ArchivedCounts {
    pub webhooks: u64,
    pub books: DeliveryCounts,
}

impl ArchivedCounts {
    /// One more, with its final books.
    #[must_use]
    pub const fn with(self, books: DeliveryCounts) -> Self {
        Self {
            webhooks: self.webhooks + 1,
            books: self.books.plus(books),
        }
    }

    /// The same webhooks in another shard: a crash may come between the two.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            webhooks: self.webhooks.max(other.webhooks),
            books: self.books.plus(other.books),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_knows_what_it_may_still_need() {
        let cursor = Cursor {
            read_to: Seq(10),
            owed: vec![Seq(4), Seq(7)],
            ..Cursor::default()
        };
        assert_eq!(cursor.floor(), Seq(4));
        assert_eq!(Cursor::at(Seq(10)).floor(), Seq(10));
    }

    #[test]
    fn the_books_balance_when_the_account_does() {
        // 10 owed: 4 delivered at once, 5 moved; with 2 more from the journal, 3 retry, 2 were
        // delivered, 1 is dead and 1 purged.
        let ledger = LedgerCounts {
            off_cursor: 5,
            backfilled: 2,
            retrying: 3,
            delivered: 2,
            dead: 1,
            purged: 1,
            cancelled: 0,
        };
        let books = DeliveryCounts::of(10, 4, ledger);
        assert_eq!(books.received, 12);
        assert_eq!((books.delivered, books.pending, books.dead), (6, 4, 2));
        assert!(books.balance());
        let closed = books.closed();
        assert_eq!((closed.pending, closed.cancelled), (0, 4));
        assert!(closed.balance());
        // One that left the cursor without a record is a loss, and shows.
        assert!(
            !DeliveryCounts::of(
                10,
                4,
                LedgerCounts {
                    off_cursor: 6,
                    ..ledger
                }
            )
            .balance()
        );
    }
}
