//! When a station's connection is cut, and for how long.
//!
//! Pure, and in the chargers' time.

use std::time::Duration;

use fastrand::Rng;
use jiff::Timestamp;

use super::arrivals::later;

/// How the connections of a fleet fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outages {
    Never,
    /// All at the same moments, for no longer than it takes to dial.
    Simultaneous {
        every: Duration,
    },
    /// Each at its own moments: up and down for about this long.
    Independent {
        up: Duration,
        down: Duration,
    },
}

/// The outages of one station.
#[derive(Debug)]
pub(super) struct Schedule {
    outages: Outages,
    rng: Rng,
    /// The next cut and the end of it, or this one's.
    next: Option<(Timestamp, Timestamp)>,
}

impl Schedule {
    pub(super) fn new(outages: Outages, mut rng: Rng, start: Timestamp) -> Self {
        let next = next_outage(outages, &mut rng, start);
        Self { outages, rng, next }
    }

    /// When the next cut begins.
    pub(super) fn next_cut(&self) -> Option<Timestamp> {
        self.next.map(|(cut, _)| cut)
    }

    /// The connection is cut, at this or at an earlier moment: when it may be dialled again.
    pub(super) fn cut(&mut self, now: Timestamp) -> Timestamp {
        let end = self.next.map_or(now, |(_, end)| end.max(now));
        let from = match self.outages {
            // Those that all have are counted from one beginning.
            Outages::Simultaneous { .. } => self.next.map_or(now, |(cut, _)| cut),
            Outages::Never | Outages::Independent { .. } => end,
        };
        self.next = next_outage(self.outages, &mut self.rng, from);
        end
    }
}

fn next_outage(outages: Outages, rng: &mut Rng, from: Timestamp) -> Option<(Timestamp, Timestamp)> {
    match outages {
        Outages::Never => None,
        Outages::Simultaneous { every } => {
            let cut = later(from, ms(every));
            Some((cut, cut))
        }
        Outages::Independent { up, down } => {
            let mut about = |mean: Duration| rng.u64(ms(mean) / 2..=ms(mean) * 3 / 2);
            let cut = later(from, about(up));
            Some((cut, later(cut, about(down))))
        }
    }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_mins(1);

    fn start() -> Timestamp {
        "2026-04-14T12:00:00Z".parse().unwrap()
    }

    #[test]
    fn a_storm_cuts_all_at_the_same_moments() {
        let outages = Outages::Simultaneous { every: MINUTE };
        let cuts = |seed, late_ms| {
            let mut schedule = Schedule::new(outages, Rng::with_seed(seed), start());
            let mut seen = Vec::new();
            for _ in 0..3 {
                let cut = schedule.next_cut().unwrap();
                seen.push(cut.to_string());
                // One that notices late dials at once all the same.
                let noticed = later(cut, late_ms);
                assert_eq!(schedule.cut(noticed), noticed);
            }
            seen
        };
        assert_eq!(cuts(1, 0), cuts(2, 50));
        assert_eq!(cuts(1, 0)[2], "2026-04-14T12:03:00Z");
    }

    #[test]
    fn stations_of_their_own_go_and_come_back() {
        let outages = Outages::Independent {
            up: MINUTE,
            down: MINUTE * 2,
        };
        let mut schedule = Schedule::new(outages, Rng::with_seed(1), start());
        let mut at = start();
        for _ in 0..50 {
            let cut = schedule.next_cut().unwrap();
            let up = cut.duration_since(at).as_secs();
            assert!((30..=90).contains(&up), "{up}");
            at = schedule.cut(cut);
            let down = at.duration_since(cut).as_secs();
            assert!((60..=180).contains(&down), "{down}");
        }
    }

    #[test]
    fn who_is_never_cut_may_dial_at_once() {
        let mut schedule = Schedule::new(Outages::Never, Rng::with_seed(1), start());
        assert_eq!(schedule.next_cut(), None);
        assert_eq!(schedule.cut(start()), start());
    }
}
