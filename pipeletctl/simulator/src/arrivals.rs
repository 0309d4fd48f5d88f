//! When cars come to a charger, and what they want of it.
//!
//! Pure: the moment and the dice come as values, so that a seed makes the same day again.

use std::time::Duration;

use fastrand::Rng;
use jiff::Timestamp;

/// Cars in an hour for each hour of the day, in hundredths: the way to work, errands at noon, and
/// most of all the evening.
const CARS_PER_HOUR: [u64; 24] = [
    4, 2, 2, 2, 4, 12, 35, 60, 55, 35, 25, 30, 40, 30, 25, 30, 45, 70, 75, 55, 35, 20, 12, 6,
];

const HOUR_MS: u64 = 3_600_000;

/// When a day begins, in hours: with the way to work, so that a minute of it has cars already.
const FIRST_HOUR: u64 = 7;

/// What cars take from a charger, in W: one phase, two kinds of three, and a fast one.
const POWERS: [u64; 4] = [7_400, 11_000, 11_000, 22_000];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArrivalPattern {
    /// As the hours of a day have it, which began then.
    Day { began: Timestamp },
    /// One car after the other.
    Busy,
    /// Short stops with short waits, for a demo.
    Brisk,
}

/// A car, and the person who brings it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Car {
    pub(super) id_tag: String,
    pub(super) requested_wh: u64,
    pub(super) max_power_w: u64,
}

impl ArrivalPattern {
    /// When the next car comes to a connector that is free from `now` on.
    pub(super) fn next_car(self, rng: &mut Rng, now: Timestamp) -> Timestamp {
        let wait = match self {
            Self::Day { began } => return by_the_hour(rng, now, began),
            Self::Busy => rng.u64(60_000..900_000),
            Self::Brisk => rng.u64(240_000..420_000),
        };
        later(now, wait)
    }

    pub(super) fn car(self, rng: &mut Rng) -> Car {
        let id_tag = format!("RFID_{:08X}", rng.u32(..));
        let (requested_wh, max_power_w) = match self {
            Self::Day { .. } => (rng.u64(4_000..38_000), POWERS[rng.usize(..POWERS.len())]),
            Self::Busy => (rng.u64(2_000..12_000), POWERS[rng.usize(..POWERS.len())]),
            Self::Brisk => (rng.u64(5_000..8_000), 22_000),
        };
        Car {
            id_tag,
            requested_wh,
            max_power_w,
        }
    }
}

/// A Poisson process whose rate changes by the hour: what an exponential draw has to use up.
fn by_the_hour(rng: &mut Rng, now: Timestamp, began: Timestamp) -> Timestamp {
    // In hundredths of a car times milliseconds, as the table is.
    let mut left = exponential(rng, 100 * HOUR_MS);
    let mut at = now;
    loop {
        let clock = clock_ms(at, began);
        let rate = CARS_PER_HOUR[hour(clock)];
        let rest = HOUR_MS - clock % HOUR_MS;
        if left < rate * rest {
            return later(at, left / rate);
        }
        left -= rate * rest;
        at = later(at, rest);
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "a random wait needs no more than a float has"
)]
fn exponential(rng: &mut Rng, mean: u64) -> u64 {
    (-(1.0 - rng.f64()).ln() * mean as f64) as u64
}

/// Since the midnight before the day began, in milliseconds.
fn clock_ms(at: Timestamp, began: Timestamp) -> u64 {
    let passed = at.as_millisecond() - began.as_millisecond();
    FIRST_HOUR * HOUR_MS + u64::try_from(passed).unwrap_or(0)
}

/// Of the day.
fn hour(clock_ms: u64) -> usize {
    usize::try_from(clock_ms / HOUR_MS % 24).unwrap_or(0)
}

/// `ms` milliseconds later, or never.
pub(super) fn later(at: Timestamp, ms: u64) -> Timestamp {
    at.checked_add(Duration::from_millis(ms))
        .unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In the night, which no simulated day knows of.
    fn start() -> Timestamp {
        "2026-04-14T02:34:56Z".parse().unwrap()
    }

    #[test]
    fn a_day_has_its_cars_when_people_drive() {
        let mut rng = Rng::with_seed(7);
        let mut by_hour = [0_u32; 24];
        let mut at = start();
        let end = later(at, 200 * 24 * 3_600_000);
        let day = ArrivalPattern::Day { began: start() };
        loop {
            at = day.next_car(&mut rng, at);
            if at > end {
                break;
            }
            by_hour[hour(clock_ms(at, start()))] += 1;
        }
        // 200 days of 75 hundredths of a car, and of 2.
        assert!((100..200).contains(&by_hour[18]), "{by_hour:?}");
        assert!(by_hour[2] < 15, "{by_hour:?}");
    }

    #[test]
    fn the_first_hour_of_a_day_has_cars() {
        let day = ArrivalPattern::Day { began: start() };
        let first = |seed| day.next_car(&mut Rng::with_seed(seed), start());
        let within = |seed: &u64| first(*seed) < later(start(), HOUR_MS);
        let count = (0..1_000).filter(within).count();
        // 1 - e^-0.6, of a thousand connectors.
        assert!((400..500).contains(&count), "{count}");
    }

    #[test]
    fn a_seed_makes_the_same_again() {
        for arrivals in [
            ArrivalPattern::Day { began: start() },
            ArrivalPattern::Busy,
            ArrivalPattern::Brisk,
        ] {
            let day = || {
                let mut rng = Rng::with_seed(42);
                let at = arrivals.next_car(&mut rng, start());
                (at, arrivals.car(&mut rng))
            };
            assert_eq!(day(), day(), "{arrivals:?}");
            assert!(day().0 > start(), "{arrivals:?}");
        }
    }
}
