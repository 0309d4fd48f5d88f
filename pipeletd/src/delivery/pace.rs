//! How fast a receiver is attempted that only fails.
//!
//! An attempt that fails costs about what one costs that succeeds, and a receiver that is down
//! takes none of them: at full speed it would have a core to itself, at its neighbours' expense. So
//! after n failures in a row, attempts start n microseconds apart, at most [`LONGEST`]. A receiver
//! that fails now and then never notices; one that has been down for a minute is asked 100 times a
//! second, and its first success ends the rest. What is not attempted waits in the journal.
//!
//! Pure.

use std::time::Duration;

use tokio::time::Instant;

/// So many failures in a row are no reason to rest yet: the default window may fail at once.
const PATIENCE: u32 = 64;
const LONGEST: Duration = Duration::from_millis(10);
/// Timers are no finer than a millisecond; what was slept through may be made up for.
const SLACK: Duration = Duration::from_millis(2);

#[derive(Debug)]
pub(super) struct Pace {
    failures: u32,
    next: Instant,
}

impl Pace {
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            failures: 0,
            next: now,
        }
    }

    /// When the next attempt may start; `None` for at once.
    pub(super) fn rest(&self, now: Instant) -> Option<Instant> {
        (self.next > now).then_some(self.next)
    }

    pub(super) fn started(&mut self, now: Instant) {
        if self.failures > PATIENCE {
            let rest = Duration::from_micros(self.failures.into()).min(LONGEST);
            self.next = self.next.max(now.checked_sub(SLACK).unwrap_or(now)) + rest;
        }
    }

    pub(super) fn ended(&mut self, delivered: bool, now: Instant) {
        if delivered {
            *self = Self::new(now);
        } else {
            self.failures = self.failures.saturating_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many attempts that all fail start within a time.
    fn starts(within: Duration) -> usize {
        let began = Instant::now();
        let mut now = began;
        let mut pace = Pace::new(now);
        let mut starts = 0;
        while now - began < within {
            now = pace.rest(now).unwrap_or(now);
            pace.started(now);
            starts += 1;
            now += Duration::from_micros(50);
            pace.ended(false, now);
        }
        starts
    }

    #[test]
    fn who_fails_is_asked_ever_more_slowly() {
        let first = starts(Duration::from_secs(1));
        assert!((1_000..2_000).contains(&first), "{first}");
        let minute = starts(Duration::from_mins(1));
        let last = starts(Duration::from_secs(61)) - minute;
        assert!((10_000..13_000).contains(&minute), "{minute}");
        assert!((90..110).contains(&last), "{last}");
    }

    #[test]
    fn a_success_ends_the_rest() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        for _ in 0..100_000 {
            pace.started(now);
            pace.ended(false, now);
        }
        assert!(pace.rest(now).is_some());
        pace.ended(true, now);
        assert_eq!(pace.rest(now), None);
        // Nor does one failure among successes bring it back.
        pace.ended(false, now);
        pace.started(now);
        assert_eq!(pace.rest(now), None);
    }
}
