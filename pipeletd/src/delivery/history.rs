//! The latest deliveries of a webhook that were settled, for who wants to look.
//!
//! In memory and bounded: it is a view, not a record.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use jiff::Timestamp;
use pipelet_domain::{
    deliveries::Attempt,
    events::{Event, EventId, EventType, StationId},
};

const MAX: usize = 100;

#[derive(Debug, Default)]
pub struct History {
    settled: Mutex<VecDeque<Settled>>,
    /// The events of dead letters that were purged.
    purged: Mutex<VecDeque<EventId>>,
}

/// A delivery that was settled.
#[derive(Debug, Clone)]
pub struct Settled {
    /// Counted up since the daemon started.
    pub number: u64,
    pub event: EventId,
    pub kind: EventType,
    pub station: StationId,
    pub time: Timestamp,
    pub delivered: bool,
    pub attempts: Vec<Attempt>,
}

impl History {
    pub fn delivered(&self, event: &Event, attempts: Vec<Attempt>) {
        self.push(event, true, attempts);
    }

    pub fn dead(&self, event: &Event, attempts: Vec<Attempt>) {
        self.push(event, false, attempts);
    }

    pub fn purged(&self, event: EventId) {
        let mut purged = self.purged.lock().unwrap_or_else(PoisonError::into_inner);
        if purged.len() == MAX {
            purged.pop_front();
        }
        purged.push_back(event);
    }

    pub fn was_purged(&self, event: EventId) -> bool {
        let purged = self.purged.lock().unwrap_or_else(PoisonError::into_inner);
        purged.contains(&event)
    }

    /// The latest first.
    pub fn latest(&self) -> Vec<Settled> {
        let settled = self.settled.lock().unwrap_or_else(PoisonError::into_inner);
        settled.iter().rev().cloned().collect()
    }

    fn push(&self, event: &Event, delivered: bool, attempts: Vec<Attempt>) {
        let Event {
            id,
            kind,
            ref station,
            time,
            ..
        } = *event;
        let station = station.clone();
        let mut settled = self.settled.lock().unwrap_or_else(PoisonError::into_inner);
        if settled.len() == MAX {
            settled.pop_front();
        }
        let number = settled.back().map_or(0, |last| last.number + 1);
        settled.push_back(Settled {
            number,
            event: id,
            kind,
            station,
            time,
            delivered,
            attempts,
        });
    }
}
