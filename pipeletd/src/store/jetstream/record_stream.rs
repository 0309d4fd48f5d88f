//! Records on a stream: one writer appends them, anyone reads them.
//!
//! A record is one message, or several where it is longer than a message may be. Each names its
//! writer and counts up, and asks the server to be taken only behind the message that its writer
//! knows to be the last. So two writers can't both go on: who has been overtaken learns it with the
//! next append, whatever its clock or its network says ([`StoreError::Fenced`]).
//!
//! An append whose acknowledgement is lost has an unknown outcome, which is found out before the next
//! one. Where nothing has come yet, a void message takes its place, after which it can't come any
//! more; and what has come [is deleted or kept](Unacknowledged), as the writer has it. What is to be
//! deleted is listed in a void message first: so it is an owner who decides that, and whoever owns the
//! stream next goes by it.
//!
//! A message is a version, flags, its writer and its number, and then a part of the record.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_nats::{
    StatusCode,
    header::NATS_SEQUENCE,
    jetstream::{
        self, Context, ErrorCode,
        context::{PublishError, PublishErrorKind},
        message::PublishMessage,
        stream::{RawMessageError, RawMessageErrorKind, State, Stream},
    },
};
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use futures_util::StreamExt as _;
use serde::Serialize;
use tokio::{
    sync::{
        Mutex as AsyncMutex, MutexGuard as AsyncMutexGuard, OwnedRwLockReadGuard, RwLock,
        RwLockWriteGuard,
    },
    time::timeout,
};

use crate::store::{
    StoreError,
    codec::{record_error, split_version},
};

const VERSION: u8 = 1;
/// A further part of the record follows.
const MORE: u8 = 1;
/// It is no part of a record, and lists messages that are to be deleted.
const VOID: u8 = 2;
/// A part of the record came before.
const BEHIND: u8 = 4;
/// In bytes; what stands before a part.
const HEAD: usize = 18;
/// In bytes; what a server counts with a message beside its payload.
const ENVELOPE: usize = 512;
/// How long a server may take for one of several messages.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often a void message is tried before that is an outage.
const TRIES: u32 = 4;
/// The status behind the last message of a batch.
const NO_CONTENT: u16 = 204;

/// Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct RecordStream {
    jetstream: Context,
    stream: Stream<()>,
    name: Arc<str>,
    subject: Arc<str>,
    /// The longest part of a record, in bytes.
    part: usize,
    deleted: Arc<Mutex<Deleted>>,
    whole: Arc<RwLock<()>>,
}

/// All records that are there stay until it is dropped.
pub(super) type Whole = OwnedRwLockReadGuard<()>;

/// Nothing is appended while it is held, and all records stay.
pub(super) type Quiet<'a, E> = (Whole, AsyncMutexGuard<'a, E>);

/// Messages that no record is read from.
#[derive(Debug, Default)]
struct Deleted {
    /// All of them: a follower that lags may still give them out.
    all: BTreeSet<u64>,
    /// Those that void messages list, and that may still be there.
    voided: BTreeSet<u64>,
}

/// A record, and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Record {
    pub(super) sequence: u64,
    /// That of the message behind it.
    pub(super) next: u64,
    pub(super) body: Bytes,
}

/// What becomes of a record whose acknowledgement was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unacknowledged {
    /// Whoever asked for it has been told that it failed.
    Deleted,
    /// Whoever asked for it asks again, and twice is the same as once.
    Kept,
}

/// The one who appends.
#[derive(Debug)]
pub(super) struct Writer {
    stream: RecordStream,
    unacknowledged: Unacknowledged,
    id: [u8; 8],
    number: u64,
    /// The sequence of the last message, as it must be for ours to be taken.
    last: u64,
    /// An append failed: what came of it is not known.
    is_unresolved: bool,
}

/// How much one read asks for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fetch {
    pub(super) messages: usize,
    pub(super) bytes: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Head {
    flags: u8,
    writer: [u8; 8],
    number: u64,
}

struct Message {
    sequence: u64,
    head: Head,
    part: Bytes,
}

#[derive(Serialize)]
struct GetBatch<'a> {
    seq: u64,
    next_by_subj: &'a str,
    batch: usize,
    max_bytes: usize,
}

impl RecordStream {
    pub(super) fn new(jetstream: &Context, stream: Stream<()>, name: &str, subject: &str) -> Self {
        let longest = jetstream.client().server_info().max_payload;
        Self {
            jetstream: jetstream.clone(),
            stream,
            name: name.into(),
            subject: subject.into(),
            part: longest.saturating_sub(HEAD + ENVELOPE).max(ENVELOPE),
            deleted: Arc::default(),
            whole: Arc::default(),
        }
    }

    /// As the stream's leader knows it.
    pub(super) async fn state(&self) -> Result<State, StoreError> {
        let info = in_time(self.stream.get_info()).await?;
        Ok(info.state)
    }

    /// The same, for whoever is to read it and to append to it: which messages were deleted is known
    /// from then on.
    pub(super) async fn look_through(&self) -> Result<State, StoreError> {
        let look = self.stream.info_builder().with_deleted(true).fetch();
        let mut state = in_time(look).await?.info.state;
        let deleted = state.deleted.take().unwrap_or_default();
        self.deleted().all.extend(deleted);
        Ok(state)
    }

    fn deleted(&self) -> MutexGuard<'_, Deleted> {
        self.deleted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The record at this message or, where there is none, the first one behind it.
    pub(super) async fn next(&self, from: u64) -> Result<Option<Record>, StoreError> {
        let fetch = Fetch {
            messages: 1,
            bytes: usize::MAX,
        };
        let records = self.read(from, fetch).await?;
        Ok(records.into_iter().next())
    }

    /// Records from this message on, about as many as are asked for and at least one, if there is one.
    pub(super) async fn read(&self, from: u64, fetch: Fetch) -> Result<Vec<Record>, StoreError> {
        let mut records = Vec::new();
        let mut open: Option<Open> = None;
        let mut next = from;
        loop {
            let messages = self.fetch(next, fetch).await?;
            let Some(last) = messages.last() else {
                return Ok(records);
            };
            next = last.sequence + 1;
            self.note_voids(&messages);
            for message in messages {
                if self.deleted().all.contains(&message.sequence) {
                    continue;
                }
                records.extend(Open::add(&mut open, message));
            }
            if open.is_none() && !records.is_empty() {
                return Ok(records);
            }
        }
    }

    /// Whoever appends holds `end` meanwhile, and asks [`Self::purging`] before anything goes.
    pub(super) async fn quiet<'a, E>(&self, end: &'a AsyncMutex<E>) -> Quiet<'a, E> {
        let whole = Arc::clone(&self.whole).read_owned().await;
        (whole, end.lock().await)
    }

    /// To be held while records go; none where somebody needs all that are there.
    pub(super) fn purging(&self) -> Option<RwLockWriteGuard<'_, ()>> {
        self.whole.try_write().ok()
    }

    /// Deletes what stands before this message.
    pub(super) async fn purge(&self, below: u64) -> Result<(), StoreError> {
        let purging = self.stream.purge().sequence(below);
        in_time(purging.into_future()).await?;
        let mut deleted = self.deleted();
        deleted.all.retain(|sequence| *sequence >= below);
        deleted.voided.retain(|sequence| *sequence >= below);
        drop(deleted);
        Ok(())
    }

    /// Takes note of what void messages list.
    fn note_voids(&self, messages: &[Message]) {
        let voids = messages.iter().filter(|it| it.head.flags & VOID != 0);
        let listed = voids.flat_map(|void| void.part.as_chunks().0);
        let listed = listed.copied().map(u64::from_be_bytes);
        self.void(listed);
    }

    fn void(&self, sequences: impl Iterator<Item = u64>) {
        let mut deleted = self.deleted();
        for sequence in sequences {
            deleted.all.insert(sequence);
            deleted.voided.insert(sequence);
        }
    }

    /// Deletes what void messages list, whoever wrote them.
    pub(super) async fn delete_voided(&self) -> Result<(), StoreError> {
        loop {
            let Some(sequence) = self.deleted().voided.first().copied() else {
                return Ok(());
            };
            self.delete(sequence).await?;
            self.deleted().voided.remove(&sequence);
        }
    }

    /// Messages from this one on. A follower of the stream may answer, and one that lags may know
    /// nothing of the last ones, where the leader is asked, and still have some that were deleted.
    async fn fetch(&self, from: u64, fetch: Fetch) -> Result<Vec<Message>, StoreError> {
        let mut messages = self.fetch_from_any(from, fetch).await?;
        {
            let deleted = self.deleted();
            messages.retain(|message| !deleted.all.contains(&message.sequence));
        }
        if !messages.is_empty() {
            return Ok(messages);
        }
        let get = self.stream.raw_message_builder().sequence(from);
        let found = get.next_by_subject(self.subject.as_ref()).send();
        let found = find(found).await?;
        let found = found.map(|found| Message::read(found.sequence, &found.payload));
        Ok(found.transpose()?.into_iter().collect())
    }

    async fn fetch_from_any(&self, from: u64, fetch: Fetch) -> Result<Vec<Message>, StoreError> {
        let client = self.jetstream.client();
        let inbox = client.new_inbox();
        let mut answers = in_time(client.subscribe(inbox.clone())).await?;
        let request = GetBatch {
            seq: from,
            next_by_subj: &self.subject,
            batch: fetch.messages,
            max_bytes: fetch.bytes.min(i32::MAX as usize),
        };
        let request = serde_json::to_vec(&request).map_err(failed)?;
        let subject = format!("$JS.API.DIRECT.GET.{}", self.name);
        let sent = client.publish_with_reply(subject, inbox, request.into());
        in_time(sent).await?;
        let mut messages = Vec::new();
        loop {
            let answer = timeout(PATIENCE, answers.next()).await.map_err(failed)?;
            let answer = answer.ok_or_else(|| failed("the connection has ended"))?;
            match answer.status {
                // The batch has ended, or there is nothing.
                Some(status)
                    if status == StatusCode::NOT_FOUND || status.as_u16() == NO_CONTENT =>
                {
                    return Ok(messages);
                }
                None | Some(StatusCode::OK) => {}
                Some(status) => {
                    let why = answer.description.unwrap_or_default();
                    return Err(failed(format!("a read was answered {status} {why}")));
                }
            }
            let headers = answer.headers.unwrap_or_default();
            let sequence = headers.get(NATS_SEQUENCE);
            let sequence = sequence.and_then(|text| text.as_str().parse().ok());
            let sequence = sequence.ok_or_else(|| record_error(WHAT, "it has no sequence"))?;
            messages.push(Message::read(sequence, &answer.payload)?);
        }
    }

    /// Publishes a message that must come behind this one.
    async fn publish(&self, behind: u64, message: Bytes) -> Result<u64, PublishFailed> {
        let publish = PublishMessage::build()
            .payload(message)
            .expected_last_sequence(behind);
        let sent = self
            .jetstream
            .send_publish(self.subject.to_string(), publish);
        let acknowledged = match sent.await {
            Ok(acknowledged) => acknowledged.await,
            Err(error) => Err(error),
        };
        match acknowledged {
            Ok(acknowledged) => Ok(acknowledged.sequence),
            Err(error) if is_overtaken(&error) => Err(PublishFailed::Overtaken),
            Err(error) => Err(PublishFailed::Unknown(failed(error))),
        }
    }

    /// Whose message stands there, as the leader knows; `None` where it was deleted.
    async fn writer_of(&self, sequence: u64) -> Result<Option<[u8; 8]>, StoreError> {
        let found = find(self.stream.get_raw_message(sequence)).await?;
        let found = found.map(|found| Message::read(sequence, &found.payload));
        Ok(found.transpose()?.map(|message| message.head.writer))
    }

    /// Deletes a message; one that isn't there is no error.
    async fn delete(&self, sequence: u64) -> Result<(), StoreError> {
        use async_nats::jetstream::stream::DeleteMessageErrorKind as Kind;
        let deleted = self.stream.delete_message(sequence);
        match timeout(PATIENCE, deleted).await.map_err(failed)? {
            Ok(_) => Ok(()),
            Err(error) => match error.kind() {
                Kind::JetStream(why)
                    if matches!(
                        why.error_code(),
                        ErrorCode::NO_MESSAGE_FOUND
                            | ErrorCode::SEQUENCE_NOT_FOUND
                            | ErrorCode::STREAM_MESSAGE_DELETE_FAILED
                    ) && self.writer_of(sequence).await?.is_none() =>
                {
                    Ok(())
                }
                _ => Err(failed(error)),
            },
        }
    }
}

enum PublishFailed {
    /// Another message has come before it.
    Overtaken,
    Unknown(StoreError),
}

impl Writer {
    /// Of what stands behind `last`. Nobody is kept out before the first append.
    pub(super) fn new(
        stream: RecordStream,
        last: u64,
        unacknowledged: Unacknowledged,
    ) -> Result<Self, StoreError> {
        let mut id = [0; 8];
        getrandom::fill(&mut id).map_err(|error| record_error("writer", error))?;
        Ok(Self {
            stream,
            unacknowledged,
            id,
            number: 0,
            last,
            is_unresolved: false,
        })
    }

    /// The sequence of the last message that was taken.
    pub(super) const fn last(&self) -> u64 {
        self.last
    }

    /// Appends a record, and returns where it stands once it is durable. What becomes of it after an
    /// error is known once [`Self::resolve`] has succeeded, which the next append begins with.
    pub(super) async fn append(&mut self, body: &[u8]) -> Result<u64, StoreError> {
        self.resolve().await?;
        let first = self.last + 1;
        let mut parts = body.chunks(self.stream.part).peekable();
        let mut behind = 0;
        while behind == 0 || parts.peek().is_some() {
            let part = parts.next().unwrap_or_default();
            let more = if parts.peek().is_some() { MORE } else { 0 };
            let flags = more | behind;
            behind = BEHIND;
            self.is_unresolved = true;
            match self.publish(flags, part).await {
                Ok(()) => self.is_unresolved = false,
                Err(PublishFailed::Unknown(error)) => return Err(error),
                Err(PublishFailed::Overtaken) => {
                    self.resolve().await?;
                    return Err(failed("a message of before came after all"));
                }
            }
        }
        Ok(first)
    }

    /// Finds out what became of an append that failed.
    pub(super) async fn resolve(&mut self) -> Result<(), StoreError> {
        for _ in 0..TRIES {
            if !self.is_unresolved {
                break;
            }
            let last = self.stream.state().await?.last_sequence;
            if last < self.last {
                // Of a server that does not know yet that it leads no more.
                return Err(failed("the stream's leader knows less than it did"));
            }
            let mut ours = Vec::new();
            for sequence in self.last + 1..=last {
                match self.stream.writer_of(sequence).await? {
                    Some(writer) if writer != self.id => return Err(StoreError::Fenced),
                    Some(_) => ours.push(sequence),
                    None => {}
                }
            }
            if self.unacknowledged == Unacknowledged::Kept && !ours.is_empty() {
                self.last = last;
                self.is_unresolved = false;
                break;
            }
            // It takes the place of what has not come, and lists what has.
            let listed: Vec<_> = ours.iter().copied().flat_map(u64::to_be_bytes).collect();
            let before = std::mem::replace(&mut self.last, last);
            match self.publish(VOID, &listed).await {
                Ok(()) => {
                    self.stream.void(ours.into_iter());
                    self.is_unresolved = false;
                }
                Err(PublishFailed::Overtaken) => self.last = before,
                Err(PublishFailed::Unknown(error)) => {
                    self.last = before;
                    return Err(error);
                }
            }
        }
        if self.is_unresolved {
            let name = &self.stream.name;
            return Err(failed(format!(
                "{name} takes no message behind its last one"
            )));
        }
        self.stream.delete_voided().await
    }

    async fn publish(&mut self, flags: u8, part: &[u8]) -> Result<(), PublishFailed> {
        self.number += 1;
        let head = Head {
            flags,
            writer: self.id,
            number: self.number,
        };
        self.last = self.stream.publish(self.last, head.before(part)).await?;
        Ok(())
    }
}

const WHAT: &str = "message of a stream";

impl Head {
    fn before(self, part: &[u8]) -> Bytes {
        let mut message = BytesMut::with_capacity(HEAD + part.len());
        message.put_u8(VERSION);
        message.put_u8(self.flags);
        message.put_slice(&self.writer);
        message.put_u64(self.number);
        message.put_slice(part);
        message.freeze()
    }
}

impl Message {
    fn read(sequence: u64, message: &Bytes) -> Result<Self, StoreError> {
        let mut message = message.slice_ref(split_version(message, VERSION, WHAT)?);
        if message.len() < HEAD - 1 {
            return Err(record_error(WHAT, "it is cut short"));
        }
        let flags = message.get_u8();
        let mut writer = [0; 8];
        message.copy_to_slice(&mut writer);
        let number = message.get_u64();
        let head = Head {
            flags,
            writer,
            number,
        };
        Ok(Self {
            sequence,
            head,
            part: message,
        })
    }
}

/// A record of which parts are to follow.
struct Open {
    sequence: u64,
    last: Head,
    body: BytesMut,
}

impl Open {
    /// Takes the next message, and gives back the record that it completes. Parts of a record that
    /// nobody completed are dropped, and so are those whose first one stands before all that is read.
    fn add(open: &mut Option<Self>, message: Message) -> Option<Record> {
        let Message {
            sequence,
            head,
            part,
        } = message;
        let is_first = head.flags & BEHIND == 0;
        let before = open.take().filter(|open| {
            let is_next = open.last.number + 1 == head.number;
            !is_first && is_next && open.last.writer == head.writer
        });
        if head.flags & VOID != 0 || (!is_first && before.is_none()) {
            return None;
        }
        let is_complete = head.flags & MORE == 0;
        if is_complete && before.is_none() {
            return Some(Record {
                sequence,
                next: sequence + 1,
                body: part,
            });
        }
        let mut record = before.unwrap_or_else(|| Self {
            sequence,
            last: head,
            body: BytesMut::new(),
        });
        record.body.extend_from_slice(&part);
        record.last = head;
        if !is_complete {
            *open = Some(record);
            return None;
        }
        Some(Record {
            sequence: record.sequence,
            next: sequence + 1,
            body: record.body.freeze(),
        })
    }
}

/// Whether another message has come before the one that was published.
pub(super) fn is_overtaken(error: &PublishError) -> bool {
    // What a leader says of two that are on their way at once.
    const AT_ONCE: ErrorCode = ErrorCode(10164);
    let why = std::error::Error::source(error).and_then(|why| why.downcast_ref());
    let is_at_once = |why: &jetstream::Error| why.error_code() == AT_ONCE;
    error.kind() == PublishErrorKind::WrongLastSequence || why.is_some_and(is_at_once)
}

/// Waits no longer than a server may take: a client that has lost it queues what is asked.
pub(super) async fn in_time<T, E>(
    answer: impl Future<Output = Result<T, E>>,
) -> Result<T, StoreError>
where
    E: Into<Box<dyn std::error::Error + Send + Sync + 'static>>,
{
    let answer = timeout(PATIENCE, answer).await.map_err(failed)?;
    answer.map_err(failed)
}

/// A message, or `None` where it isn't there.
pub(super) async fn find<T>(
    answer: impl Future<Output = Result<T, RawMessageError>>,
) -> Result<Option<T>, StoreError> {
    match timeout(PATIENCE, answer).await.map_err(failed)? {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

/// The server, or the way to it: it may work later.
pub(super) fn failed(
    error: impl Into<Box<dyn std::error::Error + Send + Sync + 'static>>,
) -> StoreError {
    StoreError::Engine(error.into())
}
