//! An ordered map of many small entries that takes few of the engine's.
//!
//! sled keeps some memory for each of its pages for good, and a page has 16 entries at most, however
//! small they are. So entries that stand next to each other are packed into blocks: lists of a key,
//! its value, the next key and so on ([`byte_list`]). A block's own key, behind its kind, says where
//! it begins; it holds what there is up to where the next one begins. So that every key has its
//! place, the first block begins before all keys.
//!
//! A block that has grown too long is split, and one that is empty goes. Blocks are not joined:
//! entries go in about the order in which they came, so a block that has few left is soon empty.
//!
//! Blocks are read before they are changed, so only one caller may write a map at a time. Whoever
//! reads meanwhile finds everything that neither came nor went.

use std::{collections::BTreeMap, iter, mem};

use bytes::Bytes;

use super::Table;
use crate::store::{
    StoreError,
    byte_list::{self, ByteList},
    codec::record_error,
    keys::{self, Kind, successor},
};

#[derive(Debug, Clone, Copy)]
pub(in crate::store) struct PackedMap {
    kind: Kind,
    /// In bytes before compression.
    split_at: usize,
}

type Entry = (Bytes, Bytes);
/// Its own key, and what is in it.
type Block = (Vec<u8>, Vec<Entry>);

/// What becomes of entries: a value, or none.
pub(in crate::store) type Changes = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

impl PackedMap {
    pub(in crate::store) const fn new(kind: Kind, split_at: usize) -> Self {
        Self { kind, split_at }
    }

    pub(in crate::store) fn get<T: Table>(
        self,
        table: &T,
        key: &[u8],
    ) -> Result<Option<Bytes>, StoreError> {
        let block = self.block_of(table, key)?;
        let mut entries = block.into_iter().flat_map(|(_, entries)| entries);
        let found = entries.find(|(found, _)| found == key);
        Ok(found.map(|(_, value)| value))
    }

    /// The entries in their order, for the one who writes: others may meanwhile find some twice.
    pub(in crate::store) fn forwards<T: Table>(
        self,
        table: &T,
    ) -> impl Iterator<Item = Result<Entry, StoreError>> + use<'_, T> {
        let blocks = table.kind(self.kind);
        blocks.flat_map(|block| match block.and_then(|(_, block)| entries(&block)) {
            Ok(entries) => entries.into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error)],
        })
    }

    /// The entries from the last one, or the last below this key, to the first.
    pub(in crate::store) fn backwards<'a, T: Table>(
        self,
        table: &'a T,
        below: Option<&[u8]>,
    ) -> impl Iterator<Item = Result<Entry, StoreError>> + use<'a, T> {
        let end = || vec![self.kind as u8 + 1];
        let mut below = below.map_or_else(end, |key| self.key(key));
        let mut block = Vec::new();
        iter::from_fn(move || {
            while block.is_empty() {
                // Looked up anew each time: one of sled's iterators may go on with a page of before,
                // and miss what a split has moved out of it.
                match self.block_below(table, &below) {
                    Ok(Some((begin, mut entries))) => {
                        let kind = [self.kind as u8];
                        entries.retain(|(key, _)| kind.iter().chain(key).lt(&below));
                        (below, block) = (begin, entries);
                    }
                    Ok(None) => return None,
                    Err(error) => {
                        below = self.key(&[]);
                        return Some(Err(error));
                    }
                }
            }
            block.pop().map(Ok)
        })
    }

    /// Adds the changes to a batch, which may have no others of this map.
    pub(in crate::store) fn write<T: Table>(
        self,
        table: &T,
        batch: &mut T::Batch,
        changes: Changes,
    ) -> Result<(), StoreError> {
        let mut changes = changes.into_iter().peekable();
        while let Some((key, _)) = changes.peek() {
            let (begin, mut block) = match self.block_of(table, key)? {
                Some((begin, entries)) => (begin, entries.into_iter().collect()),
                None => (self.key(&[]), BTreeMap::new()),
            };
            let mut behind = table.keys_from(&successor(begin.clone()), &self.key(&[]));
            let end = behind.next().transpose()?;
            let is_in = |key: &[u8]| end.as_ref().is_none_or(|end| *key < end.as_ref()[1..]);
            let mut has_changed = false;
            while let Some((key, value)) = changes.next_if(|(key, _)| is_in(key)) {
                let value = value.map(Bytes::from);
                let before = match value.clone() {
                    Some(value) => block.insert(key.into(), value),
                    None => block.remove(&key[..]),
                };
                has_changed |= before != value;
            }
            if has_changed {
                self.put(table, batch, begin, &block, end.is_none())?;
            }
        }
        Ok(())
    }

    /// Puts entries in the place of a block, in more than one if need be.
    fn put<T: Table>(
        self,
        table: &T,
        batch: &mut T::Batch,
        mut begin: Vec<u8>,
        entries: &BTreeMap<Bytes, Bytes>,
        is_last: bool,
    ) -> Result<(), StoreError> {
        // Their lengths take a byte each, mostly.
        let sizes = entries
            .iter()
            .map(|(key, value)| key.len() + value.len() + 2);
        let size: usize = sizes.sum();
        let close_at = if size <= self.split_at {
            usize::MAX
        } else if is_last {
            // Keys that count up are put behind it: it is left full.
            self.split_at
        } else {
            size.div_ceil(size.div_ceil(self.split_at))
        };
        let mut list = ByteList::default();
        for (key, value) in entries {
            if list.plain_len() >= close_at {
                table.put(batch, &begin, &mem::take(&mut list).encode())?;
                begin = self.key(key);
            }
            list.add(key);
            list.add(value);
        }
        if list.is_empty() {
            table.remove(batch, &begin)?;
            Ok(())
        } else {
            table.put(batch, &begin, &list.encode())
        }
    }

    /// The block that this key has its place in.
    fn block_of<T: Table>(self, table: &T, key: &[u8]) -> Result<Option<Block>, StoreError> {
        self.block_below(table, &successor(self.key(key)))
    }

    /// The last block that begins below this key, which has its kind in front.
    fn block_below<T: Table>(self, table: &T, key: &[u8]) -> Result<Option<Block>, StoreError> {
        let Some((begin, block)) = table.last_below(self.kind, key)? else {
            return Ok(None);
        };
        Ok(Some((begin.as_ref().to_vec(), entries(&block)?)))
    }

    fn key(self, key: &[u8]) -> Vec<u8> {
        [&keys::prefix(self.kind), key].concat()
    }
}

pub(in crate::store) fn entries(block: &Bytes) -> Result<Vec<Entry>, StoreError> {
    let strings = byte_list::decode(block)?;
    let (entries, rest) = strings.as_chunks();
    if !rest.is_empty() {
        return Err(record_error("block", "a key has no value"));
    }
    let entries = entries.iter().cloned();
    Ok(entries.map(|[key, value]| (key, value)).collect())
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        path::Path,
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering},
        },
    };

    use proptest::prelude::*;

    use super::*;
    use crate::store::sled::{
        database::{Batch, Database},
        room::{Purpose, Room},
    };

    const MAP: PackedMap = PackedMap::new(Kind::TransactionById, 200);

    fn open(path: &Path) -> Database {
        Database::open(path, 1 << 20, &Arc::new(Room::of(path).unwrap())).unwrap()
    }

    fn write(database: &Database, changes: Changes) {
        let mut batch = Batch::default();
        MAP.write(database, &mut batch, changes).unwrap();
        database.apply(batch, Purpose::Event).unwrap();
    }

    fn plain(entries: impl Iterator<Item = Result<Entry, StoreError>>) -> Vec<(Vec<u8>, Vec<u8>)> {
        let plain = entries.map(Result::unwrap);
        plain
            .map(|(key, value)| (key.to_vec(), value.to_vec()))
            .collect()
    }

    fn any_changes() -> impl Strategy<Value = Changes> {
        // Few, so that they meet.
        let key = prop_oneof![
            prop::collection::vec(0..3_u8, 0..4),
            (0..200_u64).prop_map(|number| number.to_be_bytes().to_vec()),
        ];
        let length = prop_oneof![Just(0), 1..60_usize, Just(9_000)];
        let value = (length, any::<u8>()).prop_map(|(length, byte)| vec![byte; length]);
        let value = prop_oneof![2 => value.prop_map(Some), 1 => Just(None)];
        prop::collection::btree_map(key, value, 0..40)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn it_holds_what_a_tree_of_single_entries_would(
            rounds in prop::collection::vec((any_changes(), prop::bool::weighted(0.1)), 1..20),
            below in prop::collection::vec(0..3_u8, 0..4),
        ) {
            let directory = tempfile::tempdir().unwrap();
            let mut database = Some(open(directory.path()));
            let mut expected = BTreeMap::new();
            for (changes, is_reopened) in rounds {
                if is_reopened {
                    drop(database.take());
                    database = Some(open(directory.path()));
                }
                let database = database.as_ref().unwrap();
                write(database, changes.clone());
                for (key, value) in changes {
                    let found = MAP.get(database, &key).unwrap();
                    prop_assert_eq!(found.as_deref(), value.as_deref());
                    match value {
                        Some(value) => expected.insert(key, value),
                        None => expected.remove(&key),
                    };
                }
                let mut all: Vec<_> = expected.clone().into_iter().collect();
                prop_assert_eq!(&plain(MAP.forwards(database)), &all);
                all.reverse();
                prop_assert_eq!(&plain(MAP.backwards(database, None)), &all);
                all.retain(|(key, _)| *key < below);
                prop_assert_eq!(plain(MAP.backwards(database, Some(&below))), all);
            }
            let database = database.as_ref().unwrap();
            write(database, expected.into_keys().map(|key| (key, None)).collect());
            prop_assert!(database.is_empty().unwrap(), "an empty block stays");
        }
    }

    fn blocks(database: &Database) -> usize {
        database.kind(MAP.kind).count()
    }

    #[test]
    fn blocks_are_well_filled() {
        let directory = tempfile::tempdir().unwrap();
        let database = open(directory.path());
        let put = |numbers: &mut dyn Iterator<Item = u64>| {
            for number in numbers {
                let key = number.to_be_bytes().to_vec();
                write(&database, Changes::from([(key, Some(Vec::new()))]));
            }
        };
        // One may have 20 keys of 8 bytes.
        put(&mut (0..1_000));
        assert_eq!(blocks(&database), 50);
        put(&mut (1..1_000).map(|number| (number * 997 % 1_000) << 40));
        assert!(blocks(&database) <= 130, "{}", blocks(&database));
    }

    /// Blocks are split and emptied while somebody reads; what stays is found by every reading.
    #[test]
    fn what_stays_is_found_while_others_come_and_go() {
        let directory = tempfile::tempdir().unwrap();
        let database = open(directory.path());
        let key = |number: u64| number.to_be_bytes().to_vec();
        let staying: BTreeSet<Vec<u8>> = (0..300).map(|number| key(number * 100)).collect();
        let stay = staying.iter().map(|key| (key.clone(), Some(vec![1; 20])));
        write(&database, stay.collect());
        let is_done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for round in 0..600_u64 {
                    let numbers = (0..60).map(|n| (round / 2 * 7919 + n * 61) % 30_000);
                    let others = numbers.filter(|number| number % 100 > 0);
                    let value = (round % 2 == 0).then(|| vec![2; 30]);
                    write(&database, others.map(|n| (key(n), value.clone())).collect());
                }
                is_done.store(true, Ordering::Relaxed);
            });
            while !is_done.load(Ordering::Relaxed) {
                let found = plain(MAP.backwards(&database, None));
                assert!(found.is_sorted_by(|a, b| a.0 > b.0), "found twice");
                let found = found.into_iter().filter(|(_, value)| value[0] == 1);
                assert_eq!(found.map(|(key, _)| key).collect::<BTreeSet<_>>(), staying);
            }
        });
    }
}
