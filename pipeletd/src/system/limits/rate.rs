//! How often something may happen: a rate, and the bucket of tokens that holds somebody to it.

use std::{fmt, str::FromStr, time::Duration};

use tokio::time::Instant;

/// So many at once, and then so many in a second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    per_second: f64,
    burst: f64,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a rate is a number over a time, such as \"50/s\" or \"600/m\"")]
pub struct InvalidRate;

impl Rate {
    /// Four seconds' worth of the rate may come at once where nothing else is said.
    const BURST_SECONDS: f64 = 4.0;

    pub const fn new(per_second: f64, burst: f64) -> Self {
        Self { per_second, burst }
    }
}

impl FromStr for Rate {
    type Err = InvalidRate;

    fn from_str(text: &str) -> Result<Self, InvalidRate> {
        let (number, unit) = text.split_once('/').ok_or(InvalidRate)?;
        let number: u32 = number.trim().parse().map_err(|_| InvalidRate)?;
        let seconds = match unit.trim() {
            "s" => 1.0,
            "m" | "min" => 60.0,
            _ => return Err(InvalidRate),
        };
        if number == 0 {
            return Err(InvalidRate);
        }
        let per_second = f64::from(number) / seconds;
        Ok(Self::new(
            per_second,
            (per_second * Self::BURST_SECONDS).max(1.0),
        ))
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/s", self.per_second)
    }
}

/// What is left of a rate.
#[derive(Debug, Clone, Copy)]
pub struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Bucket {
    pub const fn full(rate: Rate, now: Instant) -> Self {
        Self {
            tokens: rate.burst,
            at: now,
        }
    }

    /// Takes a token, or tells how long it is until there is one.
    pub fn take(&mut self, rate: Rate, now: Instant) -> Result<(), Duration> {
        self.fill(rate, now);
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return Ok(());
        }
        Err(Duration::from_secs_f64(
            (1.0 - self.tokens) / rate.per_second,
        ))
    }

    /// Takes a token that may be there later only; tells from when on the next one may be taken.
    pub fn owe(&mut self, rate: Rate, now: Instant) -> Option<Instant> {
        self.fill(rate, now);
        self.tokens -= 1.0;
        (self.tokens < 0.0).then(|| now + Duration::from_secs_f64(-self.tokens / rate.per_second))
    }

    pub fn give_back(&mut self, rate: Rate) {
        self.tokens = (self.tokens + 1.0).min(rate.burst);
    }

    pub fn is_full(&mut self, rate: Rate, now: Instant) -> bool {
        self.fill(rate, now);
        self.tokens >= rate.burst
    }

    fn fill(&mut self, rate: Rate, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.tokens = (self.tokens + passed * rate.per_second).min(rate.burst);
        self.at = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read() {
        let check = |text: &str, expected: Option<(f64, f64)>| {
            let expected = expected.map(|(per_second, burst)| Rate::new(per_second, burst));
            assert_eq!(text.parse().ok(), expected, "{text}");
        };
        check("50/s", Some((50.0, 200.0)));
        check("30/m", Some((0.5, 2.0)));
        check("6 / min", Some((0.1, 1.0)));
        for wrong in ["", "50", "0/s", "-1/s", "1/h", "x/s", "1/s/s"] {
            check(wrong, None);
        }
    }

    #[test]
    fn a_bucket_fills_with_time() {
        let rate = Rate::new(2.0, 3.0);
        let start = Instant::now();
        let mut bucket = Bucket::full(rate, start);
        assert_eq!([(); 3].map(|()| bucket.take(rate, start)), [Ok(()); 3]);
        assert_eq!(bucket.take(rate, start), Err(Duration::from_millis(500)));
        let later = start + Duration::from_millis(500);
        assert_eq!(bucket.take(rate, later), Ok(()));
        assert!(bucket.take(rate, later).is_err());
        bucket.give_back(rate);
        assert_eq!(bucket.take(rate, later), Ok(()));
        assert!(bucket.is_full(rate, later + Duration::from_secs(9)));
    }

    #[test]
    fn what_is_owed_is_waited_for() {
        let rate = Rate::new(10.0, 2.0);
        let now = Instant::now();
        let mut bucket = Bucket::full(rate, now);
        let waits = [(); 4].map(|()| bucket.owe(rate, now).map(|until| until - now));
        let millis = Duration::from_millis;
        assert_eq!(waits, [None, None, Some(millis(100)), Some(millis(200))]);
        assert_eq!(bucket.owe(rate, now + millis(300)), None);
    }
}
