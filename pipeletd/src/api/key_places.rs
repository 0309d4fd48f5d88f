//! How many of a listener's connections each API key has.
//!
//! A caller with a key keeps its connection for as long as it likes, so what one key may have is a
//! part of those there are: however many its holder opens, others get in.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// What the keys have. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct KeyPlaces(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// What one key may have.
    most: usize,
    /// By the number of the API key.
    keys: Mutex<HashMap<u64, usize>>,
}

/// A connection on which this key was shown last.
#[derive(Debug)]
pub(super) struct KeyPlace {
    places: KeyPlaces,
    key_id: u64,
}

impl KeyPlaces {
    pub(super) fn new(most: usize) -> Self {
        let keys = Mutex::default();
        Self(Arc::new(Inner { most, keys }))
    }

    /// A key is shown on a connection, in whose `place` its last one is. False where the key has
    /// as many as it may.
    pub(super) fn take(&self, key_id: u64, place: &mut Option<KeyPlace>) -> bool {
        if place.as_ref().is_some_and(|place| place.key_id == key_id) {
            return true;
        }
        let mut keys = self.keys();
        let count = keys.entry(key_id).or_default();
        let has_room = *count < self.0.most;
        *count += usize::from(has_room);
        drop(keys);
        if has_room {
            let places = self.clone();
            *place = Some(KeyPlace { places, key_id });
        }
        has_room
    }

    fn keys(&self) -> MutexGuard<'_, HashMap<u64, usize>> {
        self.0.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for KeyPlace {
    fn drop(&mut self) {
        if let Entry::Occupied(mut count) = self.places.keys().entry(self.key_id) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_its_part_and_no_more() {
        let keys = KeyPlaces::new(2);
        let mut places = [None, None, None];
        let taken: Vec<bool> = places.iter_mut().map(|place| keys.take(1, place)).collect();
        assert_eq!(taken, [true, true, false]);
        let [first, second, third] = &mut places;
        assert!(keys.take(1, first), "it is there already");
        assert!(keys.take(2, third));
        // Another key takes the connection over.
        assert!(keys.take(2, second));
        assert!(!keys.take(2, first) && keys.take(1, first));
        drop(places);
        assert!(keys.keys().is_empty());
    }
}
