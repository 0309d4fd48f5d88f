//! The one source of wall time.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

/// Tells the wall time. Cheap to copy.
#[derive(Debug, Clone, Copy)]
pub struct Clock(Source);

#[derive(Debug, Clone, Copy)]
enum Source {
    System,
    /// A wall time that moves with tokio's clock, so a test that pauses it moves this too.
    Tokio {
        base: Timestamp,
        since: Instant,
    },
}

impl Clock {
    pub const fn system() -> Self {
        Self(Source::System)
    }

    /// Starts at `base` and follows `tokio::time` from then on.
    pub fn following_tokio(base: Timestamp) -> Self {
        Self(Source::Tokio {
            base,
            since: Instant::now(),
        })
    }

    pub fn now(&self) -> Timestamp {
        match self.0 {
            #[expect(clippy::disallowed_methods, reason = "this is the one place")]
            Source::System => Timestamp::now(),
            Source::Tokio { base, since } => base + since.elapsed(),
        }
    }

    /// That long ago, or as long ago as can be told.
    pub fn ago(&self, time: Duration) -> Timestamp {
        self.now().checked_sub(time).unwrap_or(Timestamp::MIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_time_ago_can_be_told() {
        let clock = Clock::system();
        assert!(clock.ago(Duration::from_secs(1)) < clock.now());
        for long in [Duration::from_hours(24 * 365 * 20_000), Duration::MAX] {
            assert_eq!(clock.ago(long), Timestamp::MIN);
        }
    }
}
