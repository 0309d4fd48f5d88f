//! Shards: parts of all stations, whose events are kept apart and know nothing of each other.
//!
//! A station belongs to one shard for good. Positions and the numbers of dead letters are different
//! in each shard, and say which one they are of, so that whoever has one needs nothing else.

use std::sync::Arc;

use crate::{
    deliveries::FailedId,
    events::{Seq, StationId},
    projection::Digest,
};

/// The number of a shard, from 0 on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShardId(pub u16);

impl ShardId {
    /// The shard of a station, of so many.
    #[must_use]
    pub fn of(station: &StationId, count: u16) -> Self {
        // Told apart by whoever has the store next, so it never changes.
        if count <= 1 {
            return Self(0);
        }
        let digest = u128::from_be_bytes(Digest::of(station.as_str().as_bytes()).to_bytes());
        Self(u16::try_from(digest % u128::from(count)).unwrap_or(0))
    }
}

/// Bits of a position within a shard: at a hundred thousand events a second, they last for 89 years.
const WITHIN: u32 = 48;

impl Seq {
    /// The first position of a shard.
    #[must_use]
    pub const fn first_of(shard: ShardId) -> Self {
        Self((shard.0 as u64) << WITHIN)
    }

    #[must_use]
    pub const fn shard(self) -> ShardId {
        ShardId((self.0 >> WITHIN) as u16)
    }

    /// How many positions there are before it in its shard.
    #[must_use]
    pub const fn within(self) -> u64 {
        self.0 & ((1 << WITHIN) - 1)
    }
}

/// Something of each shard, or of the one that somebody has to do with. Cheap to clone.
#[derive(Debug)]
pub struct Shards<T> {
    first: ShardId,
    values: Arc<[T]>,
}

impl<T> Clone for Shards<T> {
    fn clone(&self) -> Self {
        Self {
            first: self.first,
            values: Arc::clone(&self.values),
        }
    }
}

impl<T> Shards<T> {
    /// Of all of them, the first one first. There must be at least one.
    pub fn new(all: impl IntoIterator<Item = T>) -> Self {
        Self::from(ShardId(0), all)
    }

    /// Of some that follow each other, the first of which is this one: of all, or of it alone.
    pub fn from(first: ShardId, values: impl IntoIterator<Item = T>) -> Self {
        let values = values.into_iter().collect();
        Self { first, values }
    }

    /// The same ones with other values.
    pub fn with_values<U>(&self, values: impl IntoIterator<Item = U>) -> Shards<U> {
        Shards::from(self.first, values)
    }

    #[must_use]
    pub fn count(&self) -> usize {
        self.values.len()
    }

    pub fn ids(&self) -> impl Iterator<Item = ShardId> + use<T> {
        let ids = self.first.0..=u16::MAX;
        ids.take(self.values.len()).map(ShardId)
    }

    #[must_use]
    pub fn as_slice(&self) -> &[T] {
        &self.values
    }

    pub fn iter(&self) -> std::slice::Iter<'_, T> {
        self.values.iter()
    }

    pub fn map<U>(&self, of: impl FnMut(&T) -> U) -> Shards<U> {
        self.with_values(self.iter().map(of))
    }

    /// That of this one; none where there is no such shard.
    #[must_use]
    pub fn get(&self, shard: ShardId) -> Option<&T> {
        let index = shard.0.checked_sub(self.first.0)?;
        self.values.get(usize::from(index))
    }

    /// The same, but for one of them.
    #[must_use]
    pub fn with(&self, shard: ShardId, value: T) -> Self
    where
        T: Clone,
    {
        let others = self.ids().zip(self);
        let values = others.map(|(id, other)| if id == shard { &value } else { other });
        self.with_values(values.cloned())
    }

    /// Which one is a station's.
    #[must_use]
    pub fn id_of(&self, station: &StationId) -> ShardId {
        let index = u16::try_from(self.index_of(station)).unwrap_or(u16::MAX);
        ShardId(self.first.0.saturating_add(index))
    }

    /// That of a station's.
    #[must_use]
    pub fn of(&self, station: &StationId) -> &T {
        &self.values[self.index_of(station)]
    }

    /// That of a position's; none where there is no such shard.
    #[must_use]
    pub fn at(&self, seq: Seq) -> Option<&T> {
        self.get(seq.shard())
    }

    /// That which has given a dead letter its number.
    #[must_use]
    pub fn of_failed(&self, id: FailedId) -> &T {
        let index = id.0 % self.values.len() as u64;
        &self.values[usize::try_from(index).unwrap_or(0)]
    }

    fn index_of(&self, station: &StationId) -> usize {
        let count = u16::try_from(self.values.len()).unwrap_or(u16::MAX);
        ShardId::of(station, count).0.into()
    }
}

impl<'a, T> IntoIterator for &'a Shards<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// What is found in several shards, the greatest key first and each shard's in its own order, as far
/// as that is known: up to the end of what was found in a shard where there `is_more`. With each, the
/// index of its shard.
pub fn merged<T, K: Ord>(
    found: Vec<Vec<T>>,
    is_more: impl Fn(usize) -> bool,
    key: impl Fn(&T) -> K,
) -> impl Iterator<Item = (usize, T)> {
    let mut found: Vec<_> = found
        .into_iter()
        .map(|of| of.into_iter().peekable())
        .collect();
    std::iter::from_fn(move || {
        let mut next: Option<(usize, K)> = None;
        for (shard, of_shard) in found.iter_mut().enumerate() {
            match of_shard.peek().map(&key) {
                Some(key) if next.as_ref().is_none_or(|(_, next)| *next < key) => {
                    next = Some((shard, key));
                }
                None if is_more(shard) => return None,
                Some(_) | None => {}
            }
        }
        let (shard, _) = next?;
        Some((shard, found[shard].next()?))
    })
}

/// The numbers that a shard gives its dead letters: in no other shard is there one of them.
#[derive(Debug, Clone, Copy)]
pub struct FailedNumbers {
    pub shard: ShardId,
    /// How many shards there are.
    pub count: u16,
}

impl FailedNumbers {
    pub const ONE_SHARD: Self = Self {
        shard: ShardId(0),
        count: 1,
    };

    /// The first number that is not below this one.
    #[must_use]
    pub fn from(self, id: FailedId) -> FailedId {
        let (shard, count) = (u64::from(self.shard.0), u64::from(self.count));
        FailedId(id.0 + (shard + count - id.0 % count) % count)
    }

    #[must_use]
    pub fn after(self, id: FailedId) -> FailedId {
        self.from(FailedId(id.0 + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_and_numbers_say_their_shard() {
        let shards = Shards::new(0..4_u16);
        for shard in shards.ids() {
            let first = Seq::first_of(shard);
            assert_eq!((first.shard(), first.within()), (shard, 0));
            assert_eq!(shards.at(Seq(first.0 + 7)), Some(&shard.0));
            assert_eq!(first.next().within(), 1);
            let numbers = FailedNumbers { shard, count: 4 };
            let mut id = numbers.from(FailedId(1));
            for _ in 0..5 {
                assert_eq!(shards.of_failed(id), &shard.0);
                assert!(id.0 >= 1);
                assert_eq!(numbers.after(id).0, id.0 + 4);
                id = numbers.after(id);
            }
        }
        assert_eq!(shards.at(Seq::first_of(ShardId(4))), None);
        let one = FailedNumbers::ONE_SHARD;
        assert_eq!(one.from(FailedId(1)), FailedId(1));
        assert_eq!(one.after(FailedId(1)), FailedId(2));
    }

    #[test]
    fn what_is_merged_keeps_each_shards_order_and_ends_where_something_is_unknown() {
        let found = || vec![vec![9, 3, 4], vec![8, 7], vec![]];
        let all = |is_more: fn(usize) -> bool| {
            let merged = merged(found(), is_more, |number| *number);
            merged.map(|(_, number)| number).collect::<Vec<_>>()
        };
        assert_eq!(all(|_| false), [9, 8, 7, 3, 4]);
        assert_eq!(all(|shard| shard == 1), [9, 8, 7]);
        assert_eq!(all(|shard| shard == 2), [0; 0]);
    }

    /// Stores know where a station's events are by this alone.
    #[test]
    fn a_station_stays_in_its_shard() {
        let shards = Shards::new(0..16);
        let of = |id: &str| *shards.of(&StationId::new(id).unwrap());
        let found = ["CHARGER_1", "CHARGER_2", "ladesäule 7", "A"].map(of);
        assert_eq!(found, [11, 4, 11, 11]);
        let counts = (0..16_000).fold([0; 16], |mut counts, number| {
            counts[of(&format!("S{number}"))] += 1;
            counts
        });
        assert!(
            counts.iter().all(|count| (800..1200).contains(count)),
            "{counts:?}"
        );
    }
}
