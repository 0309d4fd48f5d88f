//! The chargers' own time, which runs faster than the wall clock by a whole factor.
//!
//! Invariant: it follows `tokio::time`, so it never goes back, and a test that pauses time moves it.

use std::{fmt, str::FromStr, time::Duration};

use jiff::Timestamp;
use tokio::time::Instant;

/// How much faster than the wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Speed(u32);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("write a whole factor from 1x to 3600x, like 60x")]
pub struct InvalidSpeed;

impl Speed {
    /// Of a constant.
    pub const fn fixed(factor: u32) -> Self {
        assert!(factor >= 1 && factor <= 3600, "from 1x to 3600x");
        Self(factor)
    }

    pub const fn factor(self) -> u32 {
        self.0
    }

    /// How long that takes by the wall clock.
    pub fn to_wall_time(self, simulated: Duration) -> Duration {
        simulated / self.0
    }

    /// How long the chargers have in that time.
    pub fn to_simulated_time(self, wall: Duration) -> Duration {
        wall.saturating_mul(self.0)
    }
}

impl FromStr for Speed {
    type Err = InvalidSpeed;

    fn from_str(text: &str) -> Result<Self, InvalidSpeed> {
        let factor = text.strip_suffix(['x', 'X']).unwrap_or(text);
        match factor.parse() {
            Ok(factor @ 1..=3600) => Ok(Self(factor)),
            Ok(_) | Err(_) => Err(InvalidSpeed),
        }
    }
}

impl fmt::Display for Speed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x", self.0)
    }
}

#[derive(Debug, Clone, Copy)]
pub struct Clock {
    /// The chargers' time when theirs and ours began.
    start: Timestamp,
    origin: Instant,
    speed: Speed,
}

impl Clock {
    /// Begins so long before `now` that the chargers' time has caught up with the wall clock after
    /// `span`: what they say of the past is in the past.
    pub fn ending_at_wall_time(now: Timestamp, span: Duration, speed: Speed) -> Self {
        let ahead = span.saturating_mul(speed.0 - 1);
        Self {
            start: now.checked_sub(ahead).unwrap_or(now),
            origin: Instant::now(),
            speed,
        }
    }

    /// The chargers' time when theirs began.
    pub const fn start(&self) -> Timestamp {
        self.start
    }

    /// What time it is for the chargers.
    pub fn now(&self) -> Timestamp {
        let passed = self.speed.to_simulated_time(self.origin.elapsed());
        self.start.checked_add(passed).unwrap_or(Timestamp::MAX)
    }

    /// When it will be that time for the chargers.
    pub fn instant(&self, simulated: Timestamp) -> Instant {
        let passed = simulated.duration_since(self.start);
        let passed = Duration::try_from(passed).unwrap_or_default();
        // Rounded up: a timer that fired early would fire again at once.
        self.origin + self.speed.to_wall_time(passed) + Duration::from_nanos(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speeds() {
        for (text, factor) in [("60x", 60), ("1", 1), ("3600X", 3600)] {
            assert_eq!(text.parse(), Ok(Speed(factor)), "{text}");
        }
        for text in ["", "x", "0x", "3601x", "-1x", "1.5x", "60 x"] {
            assert_eq!(text.parse::<Speed>(), Err(InvalidSpeed), "{text}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_runs_faster_and_arrives_at_the_wall_clock() {
        let now: Timestamp = "2026-04-14T12:00:00Z".parse().unwrap();
        let clock = Clock::ending_at_wall_time(now, Duration::from_mins(1), Speed(60));
        assert_eq!(clock.now().to_string(), "2026-04-14T11:01:00Z");
        let later: Timestamp = "2026-04-14T11:02:00Z".parse().unwrap();
        tokio::time::sleep_until(clock.instant(later)).await;
        assert!(clock.now() >= later, "{}", clock.now());
        tokio::time::advance(Duration::from_secs(59)).await;
        let ahead = clock.now().duration_since(now);
        assert!(ahead.as_secs() <= 61, "{ahead}");
    }
}
