//! A table on a stream: a record is a batch of writes, and where each key was written last is in
//! memory.
//!
//! Small values are there, too; others are read from the stream. Records of which most has been
//! overwritten go from the front: what of them still counts is written again at the end.
//!
//! A record is a version and, where it writes anything, a list of byte strings: a key, then its value
//! behind a one, or a zero where it was removed.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::{runtime::Handle, task::block_in_place};

use super::record_stream::{
    Fetch, Quiet, Record, RecordStream, Unacknowledged, Whole, Writer, failed,
};
use crate::store::{
    BackupError, StoreError, backup,
    byte_list::{self, ByteList},
    codec::{record_error, split_version},
    keys::{self, Kind},
    table::{self, Records, Table},
};

const VERSION: u8 = 1;
const WHAT: &str = "batch of a table";
/// In bytes; values up to this are kept in memory.
const INLINE: usize = 64;
/// What is read ahead at once.
const AHEAD: Fetch = Fetch {
    messages: 256,
    bytes: 4 << 20,
};
/// Entries that are read together, where one after the other is asked for: at first, and at most.
const FIRST_STRETCH: usize = 8;
const STRETCH: usize = 256;
/// Records that are fetched at once.
const AT_ONCE: usize = 32;
/// How often an entry is looked up that is moved meanwhile.
const LOOKS: u32 = 8;
/// In bytes, of records that were read: the next entries are often in the same ones.
const CACHE_BYTES: usize = 4 << 20;
/// In bytes; so much more than twice what counts may be in the stream.
const SLACK: u64 = 16 << 20;
/// In bytes; what is written again at once.
const MOVED_AT_ONCE: usize = 256 * 1024;
/// In bytes; what is read for that.
const READ_AT_ONCE: u64 = 4 << 20;

/// Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct StreamTable(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    stream: RecordStream,
    runtime: Handle,
    writer: tokio::sync::Mutex<End>,
    entries: Mutex<Entries>,
    cache: Mutex<Cache>,
    transactions: Mutex<()>,
}

/// The records of a table at one moment, which are there until this is dropped.
pub(super) struct Moment {
    first: u64,
    last: u64,
    _whole: Whole,
}

/// What the owner knows of the stream's ends.
#[derive(Debug)]
pub(super) struct End {
    writer: Writer,
    /// Where the first record stands.
    first: u64,
    /// A batch of which it is not known whether it was taken.
    unfinished: Option<Batch>,
}

/// Where each key was written last.
#[derive(Debug, Default)]
struct Entries {
    places: BTreeMap<Vec<u8>, Place>,
    /// In bytes: keys and values.
    live: u64,
    /// In bytes, of all records.
    written: u64,
}

#[derive(Debug, Clone)]
struct Place {
    /// Of the record.
    sequence: u64,
    /// Which write of it.
    write: u32,
    /// How long the value is.
    len: u32,
    /// The value, where it is small.
    inline: Option<Bytes>,
}

/// Records that were read lately, the latest last.
#[derive(Debug, Default)]
struct Cache {
    records: VecDeque<(u64, Arc<[Bytes]>)>,
    bytes: usize,
}

/// Writes in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Batch(Vec<(Vec<u8>, Option<Vec<u8>>)>);

impl StreamTable {
    /// Takes the table over: from then on the owner before can write nothing more.
    pub(super) async fn open(stream: RecordStream) -> Result<Self, StoreError> {
        loop {
            let state = stream.look_through().await?;
            let last = state.last_sequence;
            let mut end = End {
                writer: Writer::new(stream.clone(), last, Unacknowledged::Kept)?,
                first: state.first_sequence.max(1),
                unfinished: None,
            };
            let entries = Entries::read(&stream, end.first, last).await?;
            match end.writer.append(&encode(&Batch::default())).await {
                Ok(_) => {}
                Err(StoreError::Fenced) => continue,
                Err(error) => return Err(error),
            }
            return Ok(Self(Arc::new(Inner {
                stream,
                runtime: Handle::current(),
                writer: tokio::sync::Mutex::new(end),
                entries: Mutex::new(entries),
                cache: Mutex::default(),
                transactions: Mutex::default(),
            })));
        }
    }

    /// Nothing is written until the moment has been [taken](End::moment).
    pub(super) async fn quiet(&self) -> Quiet<'_, End> {
        self.0.stream.quiet(&self.0.writer).await
    }

    /// Writes its records into a backup. Blocks.
    pub(super) fn back_up(
        &self,
        moment: &Moment,
        to: &mut backup::Writer<'_>,
        runtime: &Handle,
    ) -> Result<(), BackupError> {
        let Moment { first, last, .. } = *moment;
        let stream = &self.0.stream;
        let entries = runtime.block_on(Entries::read(stream, first, last))?;
        let mut from = first;
        while from <= last {
            let records = runtime.block_on(stream.read(from, AHEAD))?;
            let Some(end) = records.last() else { break };
            from = end.next;
            for record in records.iter().filter(|record| record.sequence <= last) {
                for (key, value) in entries.live(record)? {
                    table::backup::write(to, &key, &value)?;
                }
            }
        }
        Ok(())
    }
}

impl End {
    pub(super) const fn moment(&self, whole: Whole) -> Moment {
        Moment {
            first: self.first,
            last: self.writer.last(),
            _whole: whole,
        }
    }
}

impl Records for StreamTable {
    type Table = Self;

    fn table(&self) -> &Self {
        self
    }

    fn commit(&self, batch: Batch, _grows: bool) -> Result<(), StoreError> {
        if batch.0.is_empty() {
            return Ok(());
        }
        self.0.wait(async {
            let mut end = self.0.writer.lock().await;
            self.0.finish(&mut end, &batch).await?;
            match self.0.make_room(&mut end).await {
                // The batch was written all the same.
                Err(error) if error.is_outage() => Ok(()),
                made => made,
            }
        })
    }

    fn check_growth(&self, _bytes: u64) -> Result<(), StoreError> {
        self.0.wait(async { self.0.stream.state().await.map(drop) })
    }

    fn transactions(&self) -> &Mutex<()> {
        &self.0.transactions
    }
}

impl Table for StreamTable {
    type Key = Vec<u8>;
    type Batch = Batch;

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let found = self.0.get_all(vec![key.to_vec()])?;
        Ok(found.into_iter().next().map(|(_, value)| value))
    }

    fn range(
        &self,
        from: &[u8],
        prefix: &[u8],
    ) -> impl Iterator<Item = Result<(Vec<u8>, Bytes), StoreError>> + use<'_> {
        let prefix = prefix.to_vec();
        let mut from = Some(Bound::Included(from.to_vec()));
        self.stretches(move |entries, count| {
            let range = (from.take()?, Bound::Unbounded);
            let keys = entries.range::<[u8], _>(as_slices(&range));
            let keys = keys.map(|(key, _)| key.clone());
            let keys = keys.take_while(|key| key.starts_with(&prefix)).take(count);
            let keys: Vec<_> = keys.collect();
            from = keys
                .last()
                .filter(|_| keys.len() == count)
                .cloned()
                .map(Bound::Excluded);
            Some(keys)
        })
    }

    fn kind_backwards(
        &self,
        kind: Kind,
        below: Option<Vec<u8>>,
    ) -> impl Iterator<Item = Result<(Vec<u8>, Bytes), StoreError>> + use<'_> {
        let mut below = Some(below.unwrap_or_else(|| vec![kind as u8 + 1]));
        self.stretches(move |entries, count| {
            let first = keys::prefix(kind).to_vec();
            let below_now = below.take().filter(|below| *below > first)?;
            let keys = entries.range(first..below_now).rev().take(count);
            let keys: Vec<_> = keys.map(|(key, _)| key.clone()).collect();
            below = keys.last().filter(|_| keys.len() == count).cloned();
            Some(keys)
        })
    }

    fn last_below(&self, kind: Kind, below: &[u8]) -> Result<Option<(Vec<u8>, Bytes)>, StoreError> {
        let last = self.kind_backwards(kind, Some(below.to_vec())).next();
        last.transpose()
    }

    fn keys_from(
        &self,
        from: &[u8],
        prefix: &[u8],
    ) -> impl Iterator<Item = Result<Vec<u8>, StoreError>> + use<'_> {
        let prefix = prefix.to_vec();
        let mut next = Some(Bound::Included(from.to_vec()));
        std::iter::from_fn(move || {
            let range = (next.take()?, Bound::Unbounded);
            let entries = self.0.entries();
            let (key, _) = entries.places.range::<[u8], _>(as_slices(&range)).next()?;
            let key = Some(key).filter(|key| key.starts_with(&prefix))?.clone();
            next = Some(Bound::Excluded(key.clone()));
            Some(Ok(key))
        })
    }

    fn put_new(batch: &mut Batch, key: &[u8], value: &[u8]) {
        batch.0.push((key.to_vec(), Some(value.to_vec())));
    }

    fn put(&self, batch: &mut Batch, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        Self::put_new(batch, key, value);
        Ok(())
    }

    fn remove(&self, batch: &mut Batch, key: &[u8]) -> Result<bool, StoreError> {
        let is_there = self.0.entries().places.contains_key(key);
        if is_there {
            batch.0.push((key.to_vec(), None));
        }
        Ok(is_there)
    }
}

impl StreamTable {
    /// Entries of keys that `next` finds, which is asked for more of them while it finds so many.
    fn stretches<F>(
        &self,
        mut next: F,
    ) -> impl Iterator<Item = Result<(Vec<u8>, Bytes), StoreError>> + use<'_, F>
    where
        F: FnMut(&BTreeMap<Vec<u8>, Place>, usize) -> Option<Vec<Vec<u8>>>,
    {
        let mut count = FIRST_STRETCH;
        let mut found = Vec::new().into_iter();
        let mut has_failed = false;
        std::iter::from_fn(move || {
            loop {
                if let Some(entry) = found.next() {
                    return Some(Ok(entry));
                }
                if has_failed {
                    return None;
                }
                let keys = next(&self.0.entries().places, count)?;
                count = (count * 2).min(STRETCH);
                match self.0.get_all(keys) {
                    Ok(entries) => found = entries.into_iter(),
                    Err(error) => {
                        has_failed = true;
                        return Some(Err(error));
                    }
                }
            }
        })
    }
}

impl Inner {
    fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        block_in_place(|| self.runtime.block_on(work))
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The entries with these keys, without those that are not there.
    fn get_all(&self, keys: Vec<Vec<u8>>) -> Result<Vec<(Vec<u8>, Bytes)>, StoreError> {
        let mut found = Vec::with_capacity(keys.len());
        let mut wanted: Vec<_> = keys.into_iter().enumerate().collect();
        // What is moved meanwhile is looked up again.
        for _ in 0..LOOKS {
            if wanted.is_empty() {
                break;
            }
            let mut elsewhere = Vec::new();
            {
                let entries = self.entries();
                for (order, key) in wanted.drain(..) {
                    match entries.places.get(&key) {
                        Some(Place {
                            inline: Some(value),
                            ..
                        }) => found.push((order, key, value.clone())),
                        Some(place) => elsewhere.push((order, key, place.clone())),
                        None => {}
                    }
                }
            }
            let records = self.records(elsewhere.iter().map(|(_, _, place)| place.sequence))?;
            for (order, key, place) in elsewhere {
                match records.get(&place.sequence) {
                    Some(record) => found.push((order, key, value_of(record, place.write)?)),
                    None => wanted.push((order, key)),
                }
            }
        }
        if !wanted.is_empty() {
            return Err(record_error(WHAT, "it is gone, and its entries are not"));
        }
        found.sort_unstable_by_key(|(order, ..)| *order);
        Ok(found
            .into_iter()
            .map(|(_, key, value)| (key, value))
            .collect())
    }

    /// The records that stand there, without those that were purged.
    fn records(
        &self,
        sequences: impl Iterator<Item = u64>,
    ) -> Result<BTreeMap<u64, Arc<[Bytes]>>, StoreError> {
        let mut found = BTreeMap::new();
        let mut missing: Vec<u64> = Vec::new();
        {
            let cache = self.cache();
            for sequence in sequences {
                match cache.get(sequence) {
                    Some(record) => drop(found.insert(sequence, record)),
                    None => missing.push(sequence),
                }
            }
        }
        missing.sort_unstable();
        missing.dedup();
        if missing.is_empty() {
            return Ok(found);
        }
        let fetched = stream::iter(missing).map(async |sequence| {
            let record = self.stream.next(sequence).await?;
            Ok::<_, StoreError>(record.filter(|record| record.sequence == sequence))
        });
        let fetched = fetched.buffer_unordered(AT_ONCE).try_collect::<Vec<_>>();
        for record in self.wait(fetched)?.into_iter().flatten() {
            let list: Arc<[Bytes]> = decode(&record.body)?.into();
            self.cache().add(record.sequence, Arc::clone(&list));
            found.insert(record.sequence, list);
        }
        Ok(found)
    }

    /// Writes a batch. One before it of which it is not known whether it was taken is written first:
    /// what was made of the entries without it would be wrong.
    async fn finish(&self, end: &mut End, batch: &Batch) -> Result<(), StoreError> {
        if let Some(unfinished) = end.unfinished.clone() {
            self.write(end, unfinished.clone()).await?;
            if unfinished == *batch {
                return Ok(());
            }
            return Err(failed("a batch of before was written in its place"));
        }
        self.write(end, batch.clone()).await
    }

    async fn write(&self, end: &mut End, batch: Batch) -> Result<(), StoreError> {
        let body = encode(&batch);
        let sequence = match end.writer.append(&body).await {
            Ok(sequence) => sequence,
            Err(error) => {
                end.unfinished.get_or_insert(batch);
                return Err(error);
            }
        };
        end.unfinished = None;
        let mut entries = self.entries();
        entries.written += body.len() as u64;
        for (write, (key, value)) in batch.0.into_iter().enumerate() {
            entries.set(sequence, write, key, value.as_deref());
        }
        Ok(())
    }

    /// Where less than half of the stream still counts, writes what counts of its first records
    /// again, and has them go.
    async fn make_room(&self, end: &mut End) -> Result<(), StoreError> {
        let is_due = {
            let entries = self.entries();
            entries.written > 2 * entries.live + SLACK
        };
        if !is_due {
            return Ok(());
        }
        let Some(_purging) = self.stream.purging() else {
            return Ok(());
        };
        let mut moved = Batch::default();
        let (mut bytes, mut gone) = (0, 0);
        let mut keep = end.first;
        let mut records = VecDeque::new();
        while bytes < MOVED_AT_ONCE && gone < READ_AT_ONCE {
            if records.is_empty() {
                records.extend(self.stream.read(keep, AHEAD).await?);
            }
            let Some(record) = records.pop_front() else {
                break;
            };
            keep = record.next;
            gone += record.body.len() as u64;
            for (key, value) in self.entries().live(&record)? {
                bytes += key.len() + value.len();
                moved.0.push((key.to_vec(), Some(value.to_vec())));
            }
        }
        if !moved.0.is_empty() {
            self.write(end, moved).await?;
        }
        self.stream.purge(keep).await?;
        end.first = keep;
        let mut entries = self.entries();
        entries.written = entries.written.saturating_sub(gone);
        Ok(())
    }
}

impl Entries {
    /// What the records between these messages leave.
    async fn read(stream: &RecordStream, first: u64, last: u64) -> Result<Self, StoreError> {
        let mut entries = Self::default();
        let mut from = first;
        while from <= last {
            let records = stream.read(from, AHEAD).await?;
            let Some(end) = records.last() else { break };
            from = end.next;
            let records = records.into_iter().filter(|it| it.sequence <= last);
            for Record { sequence, body, .. } in records {
                entries.written += body.len() as u64;
                let strings = decode(&body)?;
                for (write, pair) in strings.chunks_exact(2).enumerate() {
                    let value = pair[1].strip_prefix(&[1]);
                    entries.set(sequence, write, pair[0].to_vec(), value);
                }
            }
        }
        Ok(entries)
    }

    /// What of a record has not been overwritten.
    fn live(&self, record: &Record) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let strings = decode(&record.body)?;
        let writes = strings.chunks_exact(2).enumerate();
        let live = writes.filter(|(write, pair)| {
            let place = self.places.get(&*pair[0]);
            place.is_some_and(|it| it.sequence == record.sequence && it.write == number(*write))
        });
        let live = live.map(|(write, pair)| {
            let value = value_of(&strings, number(write))?;
            Ok((pair[0].clone(), value))
        });
        live.collect()
    }

    fn set(&mut self, sequence: u64, write: usize, key: Vec<u8>, value: Option<&[u8]>) {
        let length = key.len() as u64;
        let before = match value {
            Some(value) => {
                let place = Place {
                    sequence,
                    write: number(write),
                    len: number(value.len()),
                    inline: (value.len() <= INLINE).then(|| Bytes::copy_from_slice(value)),
                };
                self.live += length + u64::from(place.len);
                self.places.insert(key, place)
            }
            None => self.places.remove(&key),
        };
        if let Some(before) = before {
            self.live -= length + u64::from(before.len);
        }
    }
}

impl Cache {
    fn get(&self, sequence: u64) -> Option<Arc<[Bytes]>> {
        let mut latest_first = self.records.iter().rev();
        let found = latest_first.find(|(found, _)| *found == sequence);
        found.map(|(_, record)| Arc::clone(record))
    }

    fn add(&mut self, sequence: u64, record: Arc<[Bytes]>) {
        self.bytes += size(&record);
        self.records.push_back((sequence, record));
        while self.bytes > CACHE_BYTES && self.records.len() > 1 {
            let gone = self.records.pop_front();
            self.bytes -= gone.map_or(0, |(_, record)| size(&record));
        }
    }
}

fn size(record: &[Bytes]) -> usize {
    record.iter().map(Bytes::len).sum()
}

fn number(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

fn value_of(record: &[Bytes], write: u32) -> Result<Bytes, StoreError> {
    let value = record.get(2 * write as usize + 1);
    let value = value.filter(|value| value.first() == Some(&1));
    let value = value.ok_or_else(|| record_error(WHAT, "it has not the value that it had"))?;
    Ok(value.slice(1..))
}

fn encode(batch: &Batch) -> Vec<u8> {
    if batch.0.is_empty() {
        return vec![VERSION];
    }
    let mut list = ByteList::default();
    for (key, value) in &batch.0 {
        list.add(key);
        match value {
            Some(value) => list.add(&[&[1][..], value].concat()),
            None => list.add(&[0]),
        }
    }
    [&[VERSION][..], &list.encode()].concat()
}

fn decode(body: &Bytes) -> Result<Vec<Bytes>, StoreError> {
    let list = split_version(body, VERSION, WHAT)?;
    if list.is_empty() {
        return Ok(Vec::new());
    }
    let strings = byte_list::decode(&body.slice_ref(list))?;
    if strings.len() % 2 == 1 {
        return Err(record_error(WHAT, "a key has no value"));
    }
    Ok(strings)
}

fn as_slices((from, to): &(Bound<Vec<u8>>, Bound<Vec<u8>>)) -> (Bound<&[u8]>, Bound<&[u8]>) {
    (
        from.as_ref().map(Vec::as_slice),
        to.as_ref().map(Vec::as_slice),
    )
}
