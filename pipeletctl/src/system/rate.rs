//! How many in how long, as people write it: `50/s`, `600/m`.

use std::{str::FromStr, time::Duration};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rate {
    count: u32,
    per: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("write a rate like 50/s or 600/m")]
pub(crate) struct RateError;

impl Rate {
    /// As many as come in a second, and at least one.
    pub(crate) fn per_second(self) -> u64 {
        (u64::from(self.count) / self.per.as_secs().max(1)).max(1)
    }

    /// How long this many take.
    pub(crate) fn duration_of(self, count: usize) -> Duration {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        self.per.saturating_mul(count) / self.count
    }
}

impl FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        let (count, unit) = text.split_once('/').unwrap_or((text, "s"));
        let seconds = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            _ => return Err(RateError),
        };
        let count = count.parse().ok().filter(|count| *count > 0);
        Ok(Self {
            count: count.ok_or(RateError)?,
            per: Duration::from_secs(seconds),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates() {
        for (text, per_second, time_of_ten) in [
            ("50/s", 50, 200),
            ("50", 50, 200),
            ("600/m", 10, 1000),
            ("30/m", 1, 20_000),
            ("36000/h", 10, 1000),
        ] {
            let rate: Rate = text.parse().unwrap();
            assert_eq!(rate.per_second(), per_second, "{text}");
            let time = Duration::from_millis(time_of_ten);
            assert_eq!(rate.duration_of(10), time, "{text}");
        }
        for text in ["", "0/s", "-1/s", "50/d", "s", "50/s/s", "1.5/s"] {
            assert_eq!(text.parse::<Rate>(), Err(RateError), "{text}");
        }
    }
}
