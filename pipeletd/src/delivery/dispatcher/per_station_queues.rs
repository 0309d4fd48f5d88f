//! Which of the loaded jobs may go next: one per station at a time, in the order they came.
//!
//! Pure bookkeeping; what a job is doesn't matter here.

use std::collections::{HashMap, VecDeque};

use pipelet_domain::events::StationId;

#[derive(Debug)]
pub(super) struct PerStationQueues<J> {
    /// Jobs that wait behind another of their station; a station is here while it has one that
    /// is ready or in flight.
    waiting: HashMap<StationId, VecDeque<J>>,
    ready: VecDeque<(StationId, J)>,
    len: usize,
}

impl<J> Default for PerStationQueues<J> {
    fn default() -> Self {
        Self {
            waiting: HashMap::new(),
            ready: VecDeque::new(),
            len: 0,
        }
    }
}

impl<J> PerStationQueues<J> {
    /// Jobs that wait, are ready or are in flight.
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// Whether [`Self::take`] would find one.
    pub(super) fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    pub(super) fn push(&mut self, station: &StationId, job: J) {
        self.len += 1;
        if let Some(queue) = self.waiting.get_mut(station) {
            queue.push_back(job);
        } else {
            self.waiting.insert(station.clone(), VecDeque::new());
            self.ready.push_back((station.clone(), job));
        }
    }

    /// The next job; its station is busy until [`Self::done`].
    pub(super) fn take(&mut self) -> Option<J> {
        self.ready.pop_front().map(|(_, job)| job)
    }

    /// Takes out the jobs that are not in flight and that are `unwanted`.
    pub(super) fn remove(&mut self, mut unwanted: impl FnMut(&J) -> bool) -> Vec<J> {
        let mut removed = Vec::new();
        for queue in self.waiting.values_mut() {
            let (gone, kept): (Vec<J>, _) = queue.drain(..).partition(&mut unwanted);
            queue.extend::<Vec<J>>(kept);
            removed.extend(gone);
        }
        self.len -= removed.len();
        let ready = std::mem::take(&mut self.ready);
        for (station, job) in ready {
            if unwanted(&job) {
                removed.push(job);
                self.done(&station);
            } else {
                self.ready.push_back((station, job));
            }
        }
        removed
    }

    /// The station's job has ended, however it ended.
    pub(super) fn done(&mut self, station: &StationId) {
        let Some(queue) = self.waiting.get_mut(station) else {
            return;
        };
        self.len -= 1;
        if let Some(next) = queue.pop_front() {
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
    fn one_queues_in_the_order_they_came() {
        let [a, b] = ["A", "B"].map(|id| StationId::new(id).unwrap());
        let mut queues = PerStationQueues::default();
        for (station, job) in [(&a, 1), (&a, 2), (&b, 3), (&a, 4), (&b, 5)] {
            queues.push(station, job);
        }
        assert_eq!(
            (queues.take(), queues.take(), queues.take()),
            (Some(1), Some(3), None)
        );
        queues.done(&b);
        assert_eq!((queues.take(), queues.take()), (Some(5), None));
        queues.done(&a);
        assert_eq!((queues.take(), queues.take()), (Some(2), None));
        assert_eq!(queues.len(), 3);
        queues.done(&a);
        queues.done(&b);
        assert_eq!(queues.take(), Some(4));
        queues.done(&a);
        assert_eq!((queues.len(), queues.take()), (0, None));
        queues.push(&a, 6);
        assert_eq!(queues.take(), Some(6));
    }

    #[test]
    fn what_is_not_in_flight_can_be_taken_out() {
        let [a, b] = ["A", "B"].map(|id| StationId::new(id).unwrap());
        let mut queues = PerStationQueues::default();
        for (station, job) in [(&a, 1), (&a, 2), (&a, 3), (&b, 4), (&b, 5), (&b, 6)] {
            queues.push(station, job);
        }
        assert_eq!(queues.take(), Some(1));
        let mut removed = queues.remove(|job| [1, 2, 4, 5].contains(job));
        removed.sort_unstable();
        assert_eq!((removed, queues.len()), (vec![2, 4, 5], 3));
        assert_eq!((queues.take(), queues.take()), (Some(6), None));
        queues.done(&a);
        assert_eq!(queues.take(), Some(3));
    }
}
