//! The log on a stream: a record is a batch as it was appended, its checkpoints with it.
//!
//! Each record leads to one before it that has the progress of all webhooks, its base: whoever opens
//! the log reads from there on. The base stays, whatever is trimmed.
//!
//! A record is a version, the term of its owner, the position of its first event, how many events
//! there are, its base, how many checkpoints there are, and then these and the events as a list of
//! byte strings. Without events, it stands before the event that comes next.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use bytes::Bytes;
use pipelet_domain::{
    events::{Event, Seq},
    webhooks::WebhookId,
};

use tokio::runtime::Handle;

use super::record_stream::{self, Fetch, Quiet, RecordStream, Unacknowledged, Whole, Writer};
use crate::store::{
    BackupError, Checkpoint, LogStore, Progress, ReadLimit, StoreError,
    backup::{self, Record},
    block,
    byte_list::{self, ByteList},
    codec::{self, Reader, decode_event, encode_event, put_varint, record_error, split_version},
    keys::{self, Kind},
    records,
};

const VERSION: u8 = 1;
const WHAT: &str = "batch of the log";
/// A batch has the progress of all webhooks at least this often: whoever opens the log reads so many.
const BASE_EVERY: u64 = 512;
/// Places of records that are remembered.
const PLACES: usize = 2048;
/// What is read ahead at once.
const AHEAD: Fetch = Fetch {
    messages: 64,
    bytes: 1 << 20,
};
/// Events that are read at once for a backup.
const BACKED_UP_AT_ONCE: usize = 1024;
/// In bytes; how a checkpoint begins that is encoded. In a backup it is its key.
const CHECKPOINT_KEY: usize = 9;
/// The mark of a webhook that is gone.
const GONE: u8 = b'-';

#[derive(Debug)]
pub(super) struct StreamLog {
    stream: RecordStream,
    end: tokio::sync::Mutex<End>,
    /// Where records stand, by the position of their first event.
    places: Mutex<BTreeMap<Seq, u64>>,
}

/// What a log had at one moment, and has until this is dropped.
pub(super) struct Moment {
    next: Seq,
    progress: BTreeMap<WebhookId, Progress>,
    _whole: Whole,
}

/// What the owner knows of the log's end.
#[derive(Debug)]
pub(super) struct End {
    writer: Writer,
    term: u64,
    /// The position of the next event.
    next: Seq,
    /// Where the base stands, and how many records behind it.
    base: u64,
    since_base: u64,
    /// Of all webhooks, as of the last record.
    progress: BTreeMap<WebhookId, Progress>,
}

/// A record, read.
struct Batch {
    term: u64,
    first: Seq,
    count: u64,
    base: u64,
    checkpoints: usize,
    list: Bytes,
}

impl StreamLog {
    /// Takes the log over: from then on the owner before can append nothing more. `first` is the
    /// position of a log's first event.
    pub(super) async fn open(stream: RecordStream, first: Seq) -> Result<Self, StoreError> {
        loop {
            let last = stream.look_through().await?.last_sequence;
            let mut end = End {
                writer: Writer::new(stream.clone(), last, Unacknowledged::Deleted)?,
                term: 0,
                next: first,
                base: 0,
                since_base: 0,
                progress: BTreeMap::new(),
            };
            end.recover(&stream, last).await?;
            stream.delete_voided().await?;
            end.term += 1;
            match end.append(&[], &[], true).await {
                Ok(_) => {}
                // The owner before was quicker, or somebody else.
                Err(StoreError::Fenced) => continue,
                Err(error) => return Err(error),
            }
            return Ok(Self {
                stream,
                end: tokio::sync::Mutex::new(end),
                places: Mutex::default(),
            });
        }
    }

    /// Nothing is appended until the moment has been [taken](End::moment).
    pub(super) async fn quiet(&self) -> Quiet<'_, End> {
        self.stream.quiet(&self.end).await
    }

    /// Writes its records into a backup. Blocks.
    pub(super) fn back_up(
        &self,
        moment: &Moment,
        to: &mut backup::Writer<'_>,
        runtime: &Handle,
    ) -> Result<(), BackupError> {
        for (id, of) in &moment.progress {
            for checkpoint in checkpoints_of(*id, of) {
                let encoded = encode(&checkpoint);
                let (key, value) = encoded.split_at(CHECKPOINT_KEY);
                to.record(key, value)?;
            }
        }
        let mut from = runtime.block_on(self.bounds())?.start;
        while from < moment.next {
            let limit = ReadLimit::part(BACKED_UP_AT_ONCE);
            let mut events = runtime.block_on(self.read_from(from, limit))?;
            events.retain(|(seq, _)| *seq < moment.next);
            let events: Vec<_> = events.into_iter().map(|(_, event)| event).collect();
            if events.is_empty() {
                return Err(record_error(WHAT, "events are missing").into());
            }
            for (first, block) in block::pack(from, &events) {
                to.record(&keys::event(first), &block)?;
            }
            from.0 += events.len() as u64;
        }
        Ok(())
    }

    fn places(&self) -> MutexGuard<'_, BTreeMap<Seq, u64>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers where a record stands. Of too many, every other one is forgotten.
    fn remember(&self, first: Seq, sequence: u64) {
        let mut places = self.places();
        places.entry(first).or_insert(sequence);
        if places.len() > PLACES {
            let mut is_kept = false;
            places.retain(|_, _| {
                is_kept = !is_kept;
                is_kept
            });
        }
    }

    /// The first batch at this place or behind it, and where it and the next one stand.
    async fn batch_at(&self, sequence: u64) -> Result<Option<(Range<u64>, Batch)>, StoreError> {
        let Some(record) = self.stream.next(sequence).await? else {
            return Ok(None);
        };
        let batch = Batch::read(&record.body)?;
        if batch.count > 0 {
            self.remember(batch.first, record.sequence);
        }
        Ok(Some((record.sequence..record.next, batch)))
    }

    /// Where the batch stands that has this position, or would have it: none before does.
    async fn place_of(&self, position: Seq) -> Result<u64, StoreError> {
        let (mut low, mut high) = {
            let places = self.places();
            let before = places.range(..=position).next_back();
            let behind = places.range(Seq(position.0 + 1)..).next();
            (
                before.map(|(_, sequence)| *sequence),
                behind.map(|(_, sequence)| *sequence),
            )
        };
        if low.is_none() || high.is_none() {
            let state = self.stream.state().await?;
            low = low.or(Some(state.first_sequence));
            high = high.or(Some(state.last_sequence + 1));
        }
        let (mut low, mut high) = (low.unwrap_or(1), high.unwrap_or(u64::MAX));
        // The batch at `low` begins at the position or before it, and that at `high` behind it. What
        // is remembered may be newer than what a server says of the end.
        while high.saturating_sub(low) > 1 {
            let middle = low + (high - low) / 2;
            match self.batch_at(middle).await? {
                Some((at, batch)) if at.start < high && batch.first <= position => {
                    if batch.first.0 + batch.count > position.0 {
                        return Ok(at.start);
                    }
                    low = at.start;
                }
                Some(_) | None => high = middle,
            }
        }
        Ok(low)
    }

    /// The batch with the log's last event, if there is one.
    async fn last_event(&self, next: Seq) -> Result<Option<u64>, StoreError> {
        if next.within() == 0 {
            return Ok(None);
        }
        self.place_of(Seq(next.0 - 1)).await.map(Some)
    }
}

#[async_trait]
impl LogStore for StreamLog {
    async fn bounds(&self) -> Result<Range<Seq>, StoreError> {
        let next = self.end.lock().await.next;
        let first = self.batch_at(0).await?;
        Ok(first.map_or(next, |(_, batch)| batch.first)..next)
    }

    async fn append(
        &self,
        events: Arc<[Arc<Event>]>,
        checkpoints: Arc<[Checkpoint]>,
    ) -> Result<Seq, StoreError> {
        let mut end = self.end.lock().await;
        let first = end.next;
        let sequence = end.append(&events, &checkpoints, false).await?;
        if !events.is_empty() {
            self.remember(first, sequence);
        }
        Ok(first)
    }

    async fn check(&self) -> Result<(), StoreError> {
        self.end.lock().await.writer.resolve().await?;
        self.stream.state().await.map(drop)
    }

    fn has_room_for_strangers(&self) -> bool {
        true
    }

    async fn read_from(
        &self,
        from: Seq,
        limit: ReadLimit,
    ) -> Result<Vec<(Seq, Arc<Event>)>, StoreError> {
        let mut sequence = self.place_of(from).await?;
        let (mut events, mut bytes) = (Vec::new(), 0);
        let fetch = Fetch {
            messages: AHEAD.messages.min(limit.count),
            ..AHEAD
        };
        // The first one is returned however large it is.
        while events.len() < limit.count && (events.is_empty() || bytes < limit.bytes) {
            let records = self.stream.read(sequence, fetch).await?;
            let Some(last) = records.last() else { break };
            sequence = last.next;
            for record_stream::Record { sequence, body, .. } in records {
                let batch = Batch::read(&body)?;
                if batch.count > 0 {
                    self.remember(batch.first, sequence);
                }
                for event in batch.events_from(from)? {
                    let (seq, event) = event?;
                    let size = event.memory_size();
                    if !limit.admits(events.len(), bytes, size) {
                        return Ok(events);
                    }
                    bytes += size;
                    events.push((seq, event));
                }
            }
        }
        Ok(events)
    }

    async fn event(&self, seq: Seq) -> Result<Option<Arc<Event>>, StoreError> {
        let events = self.read_from(seq, ReadLimit::part(1)).await?;
        let event = events.into_iter().find(|(found, _)| *found == seq);
        Ok(event.map(|(_, event)| event))
    }

    async fn trim(&self, floor: Seq, limit: usize) -> Result<u64, StoreError> {
        let Some(_purging) = self.stream.purging() else {
            return Ok(0);
        };
        let mut end = self.end.lock().await;
        let (Some((_, first)), Some(last)) =
            (self.batch_at(0).await?, self.last_event(end.next).await?)
        else {
            return Ok(0);
        };
        // Before it there may be some without events.
        let oldest = self.place_of(first.first).await?;
        let Some((oldest, batch)) = self.batch_at(oldest).await? else {
            return Ok(0);
        };
        let target = floor.0.min(batch.first.0.saturating_add(limit as u64));
        let mut keep = self.place_of(Seq(target)).await?;
        // The first one goes even where it alone is over the limit.
        if keep <= oldest.start && batch.first.0 + batch.count <= floor.0 {
            keep = oldest.end;
        }
        let keep = keep.min(last);
        if keep <= oldest.start {
            return Ok(0);
        }
        if keep > end.base {
            end.append(&[], &[], true).await?;
        }
        let before = self.stream.state().await?.bytes;
        self.stream.purge(keep).await?;
        self.places().retain(|_, sequence| *sequence >= keep);
        let left = self.stream.state().await?.bytes;
        Ok(before.saturating_sub(left).max(1))
    }

    async fn progress(&self) -> Result<BTreeMap<WebhookId, Progress>, StoreError> {
        Ok(self.end.lock().await.progress.clone())
    }
}

impl End {
    pub(super) fn moment(&self, whole: Whole) -> Moment {
        Moment {
            next: self.next,
            progress: self.progress.clone(),
            _whole: whole,
        }
    }

    /// Reads what the log's end says, up to this message.
    async fn recover(&mut self, stream: &RecordStream, last: u64) -> Result<(), StoreError> {
        let Some(mut from) = base_before(stream, last).await? else {
            return Ok(());
        };
        self.base = from;
        while from <= last {
            let records = stream.read(from, AHEAD).await?;
            let Some(end) = records.last() else { break };
            from = end.next;
            for record_stream::Record { body, .. } in records {
                let batch = Batch::read(&body)?;
                for checkpoint in batch.checkpoints()? {
                    apply(&mut self.progress, checkpoint?);
                }
                self.term = self.term.max(batch.term);
                self.next = Seq(batch.first.0 + batch.count);
                self.since_base += 1;
            }
        }
        Ok(())
    }

    /// `is_base`: with the progress of all webhooks.
    async fn append(
        &mut self,
        events: &[Arc<Event>],
        checkpoints: &[Checkpoint],
        is_base: bool,
    ) -> Result<u64, StoreError> {
        let is_base = is_base || self.since_base >= BASE_EVERY;
        let all = is_base.then(|| {
            let mut progress = self.progress.clone();
            let changes = checkpoints.iter().cloned();
            changes.for_each(|change| apply(&mut progress, change));
            let all = progress.iter();
            all.flat_map(|(id, of)| checkpoints_of(*id, of))
                .collect::<Vec<_>>()
        });
        let written = all.as_deref().unwrap_or(checkpoints);
        let mut body = vec![VERSION];
        put_varint(&mut body, self.term);
        put_varint(&mut body, self.next.0);
        put_varint(&mut body, events.len() as u64);
        put_varint(&mut body, if is_base { 0 } else { self.base });
        put_varint(&mut body, written.len() as u64);
        let mut list = ByteList::default();
        for checkpoint in written {
            list.add(&encode(checkpoint));
        }
        for event in events {
            list.add(&encode_event(event));
        }
        body.extend_from_slice(&list.encode());
        let sequence = self.writer.append(&body).await?;
        let changes = checkpoints.iter().cloned();
        changes.for_each(|change| apply(&mut self.progress, change));
        self.next = Seq(self.next.0 + events.len() as u64);
        self.since_base += 1;
        if is_base {
            (self.base, self.since_base) = (sequence, 0);
        }
        Ok(sequence)
    }
}

/// Where the base stands that the last record up to this message leads to.
async fn base_before(stream: &RecordStream, last: u64) -> Result<Option<u64>, StoreError> {
    let first = stream.state().await?.first_sequence;
    // The last messages may be void, or parts of a record that nobody completed.
    let mut from = last;
    loop {
        let records = if from == 0 {
            Vec::new()
        } else {
            stream.read(from, AHEAD).await?
        };
        let records = records.into_iter().filter(|record| record.sequence <= last);
        if let Some(record) = records.last() {
            let base = Batch::read(&record.body)?.base;
            return Ok(Some(if base == 0 { record.sequence } else { base }));
        }
        if from <= first {
            return Ok(None);
        }
        from = from.saturating_sub(AHEAD.messages as u64).max(first);
    }
}

impl Batch {
    fn read(body: &Bytes) -> Result<Self, StoreError> {
        let mut head = Reader::at(split_version(body, VERSION, WHAT)?, WHAT);
        let (term, first, count) = (head.varint()?, head.varint()?, head.varint()?);
        let (base, checkpoints) = (head.varint()?, head.varint()?);
        Ok(Self {
            term,
            first: Seq(first),
            count,
            base,
            checkpoints: usize::try_from(checkpoints).unwrap_or(usize::MAX),
            list: body.slice_ref(head.rest()),
        })
    }

    fn checkpoints(
        &self,
    ) -> Result<impl Iterator<Item = Result<Checkpoint, StoreError>>, StoreError> {
        let items = if self.checkpoints == 0 {
            Vec::new()
        } else {
            byte_list::decode(&self.list)?
        };
        Ok(items
            .into_iter()
            .take(self.checkpoints)
            .map(|it| decode(&it)))
    }

    /// Its events from a position on.
    fn events_from(
        &self,
        from: Seq,
    ) -> Result<impl Iterator<Item = Result<(Seq, Arc<Event>), StoreError>> + use<>, StoreError>
    {
        let skip = from.0.saturating_sub(self.first.0);
        let items = if skip >= self.count {
            Vec::new()
        } else {
            byte_list::decode(&self.list)?
        };
        let first = self.first.0;
        let events = items.into_iter().skip(self.checkpoints).enumerate();
        let events = events.skip(usize::try_from(skip).unwrap_or(usize::MAX));
        Ok(events.map(move |(index, event)| {
            // Copied, so that one event that is kept doesn't keep its neighbours in memory.
            let event = decode_event(&Bytes::copy_from_slice(&event))?;
            Ok((Seq(first.saturating_add(index as u64)), Arc::new(event)))
        }))
    }
}

fn apply(progress: &mut BTreeMap<WebhookId, Progress>, checkpoint: Checkpoint) {
    match checkpoint {
        Checkpoint::Cursor(id, cursor) => progress.entry(id).or_default().cursor = Some(cursor),
        Checkpoint::Received(id, received) => {
            progress.entry(id).or_default().received = Some(received);
        }
        Checkpoint::Subscription(id, versions) => {
            progress.entry(id).or_default().versions = versions;
        }
        Checkpoint::Gone(id) => drop(progress.remove(&id)),
    }
}

fn checkpoints_of(id: WebhookId, of: &Progress) -> impl Iterator<Item = Checkpoint> {
    let cursor = of.cursor.clone();
    let cursor = cursor.map(|cursor| Checkpoint::Cursor(id, cursor));
    let received = of.received.map(|it| Checkpoint::Received(id, it));
    let versions = (!of.versions.is_empty()).then(|| Arc::clone(&of.versions));
    let versions = versions.map(|versions| Checkpoint::Subscription(id, versions));
    [cursor, received, versions].into_iter().flatten()
}

fn encode(checkpoint: &Checkpoint) -> Vec<u8> {
    let (mark, value) = match checkpoint {
        Checkpoint::Cursor(_, cursor) => (Kind::Cursor as u8, codec::encode_cursor(cursor)),
        Checkpoint::Received(_, it) => (Kind::Received as u8, codec::encode_received(*it)),
        Checkpoint::Subscription(_, versions) => (
            Kind::Subscription as u8,
            records::encode_subscription(versions),
        ),
        Checkpoint::Gone(_) => (GONE, Vec::new()),
    };
    let id = checkpoint.webhook().0.to_be_bytes();
    [&[mark][..], &id, &value].concat()
}

/// A checkpoint that was a record of a backup.
pub(super) fn checkpoint_of(record: &Record) -> Result<Checkpoint, StoreError> {
    decode(&[&record.key[..], &record.value].concat().into())
}

fn decode(item: &Bytes) -> Result<Checkpoint, StoreError> {
    let mut rest = Reader::at(item, WHAT);
    let mark = rest.byte()?;
    let id = rest.bytes(8)?.try_into().map(u64::from_be_bytes);
    let id = WebhookId(id.map_err(|_| record_error(WHAT, "a checkpoint is cut short"))?);
    let value = rest.rest();
    if mark == GONE {
        return Ok(Checkpoint::Gone(id));
    }
    match Kind::of(&[mark]) {
        Some(Kind::Cursor) => Ok(Checkpoint::Cursor(id, codec::decode_cursor(value)?)),
        Some(Kind::Received) => Ok(Checkpoint::Received(id, codec::decode_received(value)?)),
        Some(Kind::Subscription) => {
            let versions = records::decode_subscription(value)?;
            Ok(Checkpoint::Subscription(id, versions.into()))
        }
        _ => Err(record_error(WHAT, "a checkpoint is of no known kind")),
    }
}
