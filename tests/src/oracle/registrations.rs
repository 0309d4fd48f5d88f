//! Which webhooks there must be: every change that was answered, and of one that was not, either
//! all or nothing.

use std::collections::{BTreeMap, BTreeSet};

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
pub struct Registrations {
    /// None among the possibilities is that it isn't there.
    possible: BTreeMap<Key, Vec<Option<Shape>>>,
}

impl Registrations {
    /// Somebody is about to ask that the webhook be this, or be deleted.
    pub fn asks(&mut self, key: Key, wanted: Option<Shape>) {
        let possible = self.possible.entry(key).or_insert_with(|| vec![None]);
        possible.push(wanted);
    }

    /// What was last asked for was done.
    pub fn answered(&mut self, key: Key) {
        let possible = self.possible.get_mut(&key).expect("it was asked for");
        possible.drain(..possible.len() - 1);
    }

    /// What there is once nothing is uncertain.
    pub fn now(&self, key: Key) -> Option<&Shape> {
        let possible = self.possible.get(&key)?;
        possible.last()?.as_ref()
    }

    /// Compares with what a daemon has after its start, which ends every uncertainty.
    pub fn check(&mut self, found: &BTreeMap<Key, Shape>) -> Vec<Fault> {
        let mut faults = Vec::new();
        let keys: BTreeSet<_> = self.possible.keys().chain(found.keys()).copied().collect();
        for key in keys {
            let found = found.get(&key);
            let possible = self.possible.entry(key).or_insert_with(|| vec![None]);
            if !possible.iter().any(|shape| shape.as_ref() == found) {
                faults.push(Fault::Registration {
                    webhook: key,
                    found: found.cloned(),
                    possible: possible.clone(),
                });
            }
            *possible = vec![found.cloned()];
        }
        faults
    }
}
