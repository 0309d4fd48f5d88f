//! One connector: who is plugged in, what flows, what its meter shows.
//!
//! Pure. Invariant: the meter only rises, and by exactly what the power gives in the time.

use fastrand::Rng;
use jiff::Timestamp;

use crate::arrivals::Car;

/// OCPP's `ChargePointStatus`, as far as these chargers have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChargePointStatus {
    Available,
    Preparing,
    Charging,
    Finishing,
    Unavailable,
}

#[derive(Debug)]
pub(super) struct Connector {
    pub(super) id: u32,
    pub(super) status: ChargePointStatus,
    pub(super) operative: bool,
    pub(super) stage: Stage,
    /// In watt milliseconds: what a meter's last digit hides.
    meter: u64,
    metered_at: Timestamp,
    power_w: u64,
}

/// What happens there, and when it goes on.
#[derive(Debug)]
pub(super) enum Stage {
    Free {
        next_car: Timestamp,
    },
    /// The cable is in; the person looks for the card.
    Plugged {
        car: Car,
        until: Timestamp,
    },
    /// The central system is asked. Where no answer is awaited, it goes on at that moment.
    Authorising {
        car: Car,
        until: Timestamp,
    },
    Charging {
        session: Session,
        next_sample: Timestamp,
    },
    /// The cable comes out.
    Finishing {
        until: Timestamp,
    },
}

#[derive(Debug)]
pub(super) struct Session {
    pub(super) number: u32,
    pub(super) car: Car,
    meter_start: u64,
}

const WMS_PER_WH: u64 = 3_600_000;

impl ChargePointStatus {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Available => "Available",
            Self::Preparing => "Preparing",
            Self::Charging => "Charging",
            Self::Finishing => "Finishing",
            Self::Unavailable => "Unavailable",
        }
    }
}

impl Connector {
    pub(super) const fn new(id: u32, meter_wh: u64, now: Timestamp, next_car: Timestamp) -> Self {
        Self {
            id,
            status: ChargePointStatus::Available,
            operative: true,
            stage: Stage::Free { next_car },
            meter: meter_wh * WMS_PER_WH,
            metered_at: now,
            power_w: 0,
        }
    }

    /// When its stage goes on by itself.
    pub(super) const fn due(&self) -> Timestamp {
        match self.stage {
            Stage::Free { next_car } => next_car,
            Stage::Plugged { until, .. }
            | Stage::Authorising { until, .. }
            | Stage::Finishing { until } => until,
            Stage::Charging { next_sample, .. } => next_sample,
        }
    }

    pub(super) const fn session(&self) -> Option<&Session> {
        match &self.stage {
            Stage::Charging { session, .. } => Some(session),
            Stage::Free { .. }
            | Stage::Plugged { .. }
            | Stage::Authorising { .. }
            | Stage::Finishing { .. } => None,
        }
    }

    pub(super) fn begin(&mut self, number: u32, car: Car, now: Timestamp, next_sample: Timestamp) {
        self.run_meter(now);
        let session = Session {
            number,
            car,
            meter_start: self.meter,
        };
        self.stage = Stage::Charging {
            session,
            next_sample,
        };
    }

    /// Counts what has flowed until now.
    pub(super) fn run_meter(&mut self, now: Timestamp) {
        let passed = now.duration_since(self.metered_at).as_millis();
        self.meter += self.power_w * u64::try_from(passed).unwrap_or(0);
        self.metered_at = self.metered_at.max(now);
    }

    /// What flows from now on: what the car takes, which is less once its battery is nearly full.
    pub(super) fn set_power(&mut self, rng: &mut Rng) {
        self.power_w = match self.session() {
            Some(session) => {
                let full = self.charged_wh() * 100 / session.car.requested_wh.max(1);
                // From 80 % on down to a quarter.
                let taken = 100 - full.saturating_sub(80).min(20) * 15 / 4;
                session.car.max_power_w * taken / 100 * rng.u64(97..=100) / 100
            }
            None => 0,
        };
    }

    pub(super) const fn meter_wh(&self) -> u64 {
        self.meter / WMS_PER_WH
    }

    pub(super) const fn power_w(&self) -> u64 {
        self.power_w
    }

    /// By this session.
    pub(super) fn charged_wh(&self) -> u64 {
        self.session()
            .map_or(0, |session| (self.meter - session.meter_start) / WMS_PER_WH)
    }

    pub(super) fn is_satisfied(&self) -> bool {
        self.session()
            .is_some_and(|session| self.charged_wh() >= session.car.requested_wh)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arrivals::later;

    #[test]
    fn the_meter_rises_by_what_the_power_gives() {
        let start: Timestamp = "2026-04-14T12:00:00Z".parse().unwrap();
        let mut rng = Rng::with_seed(1);
        let mut connector = Connector::new(1, 1_000, start, start);
        let car = Car {
            id_tag: "RFID".to_owned(),
            requested_wh: 11_000,
            max_power_w: 11_000,
        };
        connector.begin(1, car, start, start);
        let (mut at, mut last) = (start, 1_000);
        let mut powers = Vec::new();
        while !connector.is_satisfied() {
            connector.set_power(&mut rng);
            powers.push(connector.power_w());
            at = later(at, 60_000);
            connector.run_meter(at);
            let risen = connector.meter_wh() - last;
            let given = connector.power_w() / 60;
            assert!(risen.abs_diff(given) <= 1, "{risen} Wh of {given}");
            last = connector.meter_wh();
        }
        assert!((10_670..=11_000).contains(&powers[0]), "{powers:?}");
        assert!(powers.last() < Some(&4_500), "{powers:?}");
        assert!((11_000..11_100).contains(&connector.charged_wh()));
        // An hour at full power, and somewhat more for the rest.
        assert!((60..100).contains(&powers.len()), "{}", powers.len());
    }
}
