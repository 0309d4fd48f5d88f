//! The time that retries are due in.
//!
//! A wait is promised in time that passes, and a wall clock may be set while it lasts. So this is
//! the wall time of the start, moved on by what has passed since. A start goes on from whichever
//! is later, the wall time or what this showed when the ledger was last written: a clock that was
//! set back holds no retry up, and one that was set forward is taken for a standstill.

use jiff::Timestamp;
use tokio::time::Instant;

/// Cheap to copy.
#[derive(Debug, Clone, Copy)]
pub struct RetryClock {
    base: Timestamp,
    since: Instant,
}

impl RetryClock {
    /// `last` is what it last showed before the start, in milliseconds, where that is known.
    pub fn starting_at(wall: Timestamp, last: Option<i64>) -> Self {
        let last = last.and_then(|last| Timestamp::from_millisecond(last).ok());
        Self {
            base: last.map_or(wall, |last| last.max(wall)),
            since: Instant::now(),
        }
    }

    pub fn now(&self) -> Timestamp {
        self.at(Instant::now())
    }

    fn at(&self, instant: Instant) -> Timestamp {
        let passed = instant.duration_since(self.since);
        // Only a clock near jiff's last year overflows, and then any time is as good.
        self.base.checked_add(passed).unwrap_or(self.base)
    }

    /// The wall time of a due time, for people, where the wall clock shows this now.
    pub fn as_wall(&self, due: Timestamp, wall: Timestamp) -> Timestamp {
        let left = due.duration_since(self.now());
        wall.checked_add(left).unwrap_or(due)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_776_000_000 + second).unwrap()
    }

    #[test]
    fn it_goes_on_from_the_later_time_and_with_what_passes() {
        let check = |last: Option<Timestamp>, expected: Timestamp| {
            let last = last.map(Timestamp::as_millisecond);
            let clock = RetryClock::starting_at(at(0), last);
            assert_eq!(clock.at(clock.since), expected, "{last:?}");
            let later = clock.since + Duration::from_secs(10);
            assert_eq!(clock.at(later), expected + Duration::from_secs(10));
        };
        check(None, at(0));
        check(Some(at(-60)), at(0));
        check(Some(at(3_600)), at(3_600));
    }

    #[test]
    fn people_are_shown_what_their_clock_will_show() {
        let clock = RetryClock::starting_at(at(0), Some(at(3_600).as_millisecond()));
        for (due, expected) in [(3_630, 107), (3_590, 67)] {
            let shown = clock.as_wall(at(due), at(77));
            // What the test itself takes has passed.
            let apart = at(expected).duration_since(shown).as_millis();
            assert!((0..5_000).contains(&apart), "{shown}");
        }
    }
}
