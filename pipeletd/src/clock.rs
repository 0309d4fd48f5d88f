//! The one source of wall time.

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
}
