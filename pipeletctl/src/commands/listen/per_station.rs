//! Events that are to be sent: one at a time for each station, and in order.

use std::collections::{HashMap, VecDeque};

use pipelet_proto::v1;

#[derive(Debug, Clone)]
pub(super) struct Job {
    pub(super) event: v1::Event,
    /// Counted from 1.
    pub(super) attempt: u32,
}

impl Job {
    pub(super) fn again(self) -> Self {
        Self {
            attempt: self.attempt.saturating_add(1),
            ..self
        }
    }
}

/// Jobs by station, of which each has one in flight at most.
#[derive(Debug, Default)]
pub(super) struct PerStationQueues {
    /// A station is here while it has a job that is ready or in flight.
    waiting: HashMap<String, VecDeque<Job>>,
    ready: VecDeque<Job>,
    /// Waiting, ready or in flight.
    pub(super) in_memory: usize,
}

impl PerStationQueues {
    pub(super) fn push(&mut self, job: Job) {
        self.in_memory += 1;
        let station = job.event.station_id.clone();
        if let Some(queue) = self.waiting.get_mut(&station) {
            queue.push_back(job);
        } else {
            self.waiting.insert(station, VecDeque::new());
            self.ready.push_back(job);
        }
    }

    pub(super) fn take(&mut self) -> Option<Job> {
        self.ready.pop_front()
    }

    pub(super) fn done(&mut self, station: &str) {
        self.in_memory -= 1;
        match self.waiting.get_mut(station).and_then(VecDeque::pop_front) {
            Some(next) => self.ready.push_back(next),
            None => drop(self.waiting.remove(station)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(station: &str, id: &str) -> Job {
        let event = v1::Event {
            id: id.to_owned(),
            station_id: station.to_owned(),
            ..v1::Event::default()
        };
        Job { event, attempt: 1 }
    }

    #[test]
    fn a_stations_events_wait_for_each_other() {
        let mut queues = PerStationQueues::default();
        for (station, id) in [("A", "a1"), ("A", "a2"), ("B", "b1"), ("A", "a3")] {
            queues.push(job(station, id));
        }
        let take = |queues: &mut PerStationQueues| queues.take().map(|job| job.event.id);
        assert_eq!(take(&mut queues).as_deref(), Some("a1"));
        assert_eq!(take(&mut queues).as_deref(), Some("b1"));
        assert_eq!(take(&mut queues), None);
        queues.done("A");
        assert_eq!(take(&mut queues).as_deref(), Some("a2"));
        queues.done("B");
        queues.done("A");
        assert_eq!(take(&mut queues).as_deref(), Some("a3"));
        queues.done("A");
        assert_eq!(queues.in_memory, 0);
        assert!(queues.waiting.is_empty());
    }
}
