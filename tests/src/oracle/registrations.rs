//! Which webhooks there must be: every change that was answered, and of one that was not, either
//! all or nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use super::{Fault, Key};

/// What somebody asked a webhook to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    pub name: String,
    pub url: String,
    pub events: Vec<String>,
    pub enabled: bool,
}

/// What each webhook may be. One change at a time is asked for, each webhook by itself.
#[derive(Debug, Default)]
pub struct Registrations(BTreeMap<Key, TrackedWebhook>);

#[derive(Debug)]
struct TrackedWebhook {
    /// None among the possibilities is that it isn't there.
    possible: Vec<Option<Shape>>,
    /// What it was before, until when at most.
    replaced: Vec<(Shape, Instant)>,
}

impl Default for TrackedWebhook {
    fn default() -> Self {
        Self {
            possible: vec![None],
            replaced: Vec::new(),
        }
    }
}

impl TrackedWebhook {
    fn leave(&mut self, possible: Vec<Option<Shape>>, now: Instant) {
        let replaced = std::mem::replace(&mut self.possible, possible);
        let replaced = replaced.into_iter().flatten();
        self.replaced.extend(replaced.map(|shape| (shape, now)));
    }
}

impl Registrations {
    /// What is underway when a change is answered may not know of it; after that long it is over.
    pub const SETTLES: Duration = Duration::from_secs(2);

    /// Somebody is about to ask that the webhook be this, or be deleted.
    pub fn asks(&mut self, key: Key, wanted: Option<Shape>) {
        self.0.entry(key).or_default().possible.push(wanted);
    }

    /// What was last asked for was done.
    pub fn answered(&mut self, key: Key, now: Instant) {
        let known = self.0.get_mut(&key).expect("it was asked for");
        let done = known.possible.pop().expect("something was asked");
        known.leave(vec![done], now);
    }

    /// What there is once nothing is uncertain.
    pub fn now(&self, key: Key) -> Option<&Shape> {
        self.0.get(&key)?.possible.last()?.as_ref()
    }

    /// Whether the webhook may have this URL for a delivery that arrives now.
    pub fn may_be_at(&mut self, key: Key, url: &str, now: Instant) -> bool {
        let known = self.0.entry(key).or_default();
        let underway = |(_, since): &(Shape, Instant)| now < *since + Self::SETTLES;
        known.replaced.retain(underway);
        let before = known.replaced.iter().map(|(shape, _)| shape);
        let mut shapes = known.possible.iter().flatten().chain(before);
        shapes.any(|shape| shape.url == url)
    }

    /// Compares with what a daemon has. Its start ends every uncertainty; without one, what was
    /// asked for and not answered may still be done.
    pub fn check(
        &mut self,
        found: &BTreeMap<Key, Shape>,
        has_started: bool,
        now: Instant,
    ) -> Vec<Fault> {
        let mut faults = Vec::new();
        let keys: BTreeSet<_> = self.0.keys().chain(found.keys()).copied().collect();
        for key in keys {
            let found = found.get(&key);
            let known = self.0.entry(key).or_default();
            if !known.possible.iter().any(|shape| shape.as_ref() == found) {
                faults.push(Fault::Registration {
                    webhook: key,
                    found: found.cloned(),
                    possible: known.possible.clone(),
                });
            }
            if has_started {
                known.leave(vec![found.cloned()], now);
            }
        }
        faults
    }
}
