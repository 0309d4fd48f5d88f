//! Which of the loaded jobs may go next: one per station at a time, in the order they came.
//!
//! Pure bookkeeping; what a job is doesn't matter here.

use std::collections::{HashMap, VecDeque};

use crate::events::StationId;

#[derive(Debug)]
pub(super) struct Lanes<J> {
    /// Jobs that wait behind another of their station; a station is here while it has one that
    /// is ready or in flight.
    waiting: HashMap<StationId, VecDeque<J>>,
    ready: VecDeque<(StationId, J)>,
    len: usize,
}

impl<J> Default for Lanes<J> {
    fn default() -> Self {
        Self {
            waiting: HashMap::new(),
            ready: VecDeque::new(),
            len: 0,
        }
    }
}

impl<J> Lanes<J> {
    /// Jobs that wait, are ready or are in flight.
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) fn push(&mut self, station: &StationId, job: J) {
        self.len += 1;
        if let Some(lane) = self.waiting.get_mut(station) {
            lane.push_back(job);
        } else {
            self.waiting.insert(station.clone(), VecDeque::new());
            self.ready.push_back((station.clone(), job));
        }
    }

    /// The next job; its station is busy until [`Self::done`].
    pub(super) fn take(&mut self) -> Option<J> {
        self.ready.pop_front().map(|(_, job)| job)
    }

    /// The station's job has ended, however it ended.
    pub(super) fn done(&mut self, station: &StationId) {
        let Some(lane) = self.waiting.get_mut(station) else {
            return;
        };
        self.len -= 1;
        if let Some(next) = lane.pop_front() {
            self.ready.push_back((station.clone(), next));
        } else {
            self.waiting.remove(station);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_per_station_in_the_order_they_came() {
        let [a, b] = ["A", "B"].map(|id| StationId::new(id).unwrap());
        let mut lanes = Lanes::default();
        for (station, job) in [(&a, 1), (&a, 2), (&b, 3), (&a, 4), (&b, 5)] {
            lanes.push(station, job);
        }
        assert_eq!(
            (lanes.take(), lanes.take(), lanes.take()),
            (Some(1), Some(3), None)
        );
        lanes.done(&b);
        assert_eq!((lanes.take(), lanes.take()), (Some(5), None));
        lanes.done(&a);
        assert_eq!((lanes.take(), lanes.take()), (Some(2), None));
        assert_eq!(lanes.len(), 3);
        lanes.done(&a);
        lanes.done(&b);
        assert_eq!(lanes.take(), Some(4));
        lanes.done(&a);
        assert_eq!((lanes.len(), lanes.take()), (0, None));
        lanes.push(&a, 6);
        assert_eq!(lanes.take(), Some(6));
    }
}
