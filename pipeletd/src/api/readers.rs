//! What is in memory for callers of the API: a page, from before it is read until its bytes have
//! been sent, and a large body that they send.
//!
//! Whoever comes first is served first; of what there is, one API key has a part at most, so readers
//! who take nothing of their answers hold up those with the same key, and others only where several
//! keys do the same. How long they can is the connection's business.

use std::{
    collections::HashMap,
    error::Error,
    fmt::Debug,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    BoxError,
    body::{Body, HttpBody},
    http::Response,
};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, future::BoxFuture, stream};
use hyper::body::{Frame, SizeHint};
use tokio::{sync::OwnedSemaphorePermit, time::timeout};

use super::error::ApiError;
use crate::{
    store::{PAGE_BYTES, ReadLimit},
    system::limits::memory::{FifoPool, LARGEST_EVENT},
};

/// Of all that there is for readers, what one key may have: one in so many.
const KEY_FRACTION: usize = 4;

/// In bytes: as good as no bound.
const UNBOUNDED: usize = 1 << 40;

/// In bytes: a body that is no longer is as good as part of its connection's own buffers.
const SMALL_BODY: usize = 4 * 1024;

/// How long a caller waits for room before it is told to come again.
const PATIENCE: Duration = Duration::from_secs(10);

/// The memory of all readers. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Readers {
    all: FifoPool,
    /// By the number of the API key.
    keys: Arc<Mutex<HashMap<u64, FifoPool>>>,
}

/// One caller's access to it.
#[derive(Debug, Clone)]
pub(super) struct Reader {
    readers: Readers,
    key_id: u64,
    /// How many are asked beside each other for one answer.
    part_of: usize,
}

/// What is held for a page, or an event of a tail.
#[derive(Debug)]
pub(super) struct Reserved {
    of_key: OwnedSemaphorePermit,
    of_all: OwnedSemaphorePermit,
}

/// What is held for an answer. In an answer's extensions it is kept until the answer was sent.
#[derive(Debug, Clone)]
pub(super) struct Held(
    #[expect(dead_code, reason = "given back when it is dropped")] Arc<dyn Debug + Send + Sync>,
);

/// There is no memory for this, because others are slow to take their answers, or to send.
#[derive(Debug, thiserror::Error)]
#[error("there is no memory for this, because others are slow to take their answers, or to send")]
pub(super) struct NoRoom;

impl Readers {
    pub fn new(all: FifoPool) -> Self {
        Self {
            all,
            keys: Arc::default(),
        }
    }

    /// Where somebody else keeps account of what is in memory.
    pub(super) fn unbounded() -> Self {
        Self::new(FifoPool::of(UNBOUNDED))
    }

    pub(super) fn reader(&self, key_id: u64) -> Reader {
        let readers = self.clone();
        Reader {
            readers,
            key_id,
            part_of: 1,
        }
    }

    fn of_key(&self, key_id: u64) -> FifoPool {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        keys.retain(|id, pool| *id == key_id || pool.used() > 0);
        let size = self.all.size() / KEY_FRACTION;
        keys.entry(key_id)
            .or_insert_with(|| FifoPool::of(size))
            .clone()
    }
}

impl Reader {
    /// For one of so many that are asked beside each other for one answer.
    pub(super) fn part_of(self, count: usize) -> Self {
        let part_of = count.max(1);
        Self { part_of, ..self }
    }

    pub(super) const fn key_id(&self) -> u64 {
        self.key_id
    }

    /// What a page of so many may have.
    pub(super) const fn limit(&self, count: usize) -> ReadLimit {
        ReadLimit::page(count).part_of(self.part_of)
    }

    /// Room for a page of a list.
    pub(super) async fn page(&self) -> Result<Reserved, ApiError> {
        Ok(self.room_soon(PAGE_BYTES / self.part_of).await?)
    }

    /// Room for one event, with what became of it.
    pub(super) async fn event(&self) -> Result<Reserved, ApiError> {
        Ok(self.room_soon(LARGEST_EVENT).await?)
    }

    async fn room_soon(&self, bytes: usize) -> Result<Reserved, NoRoom> {
        let room = timeout(PATIENCE, self.room(bytes)).await;
        room.map_err(|_| NoRoom)
    }

    /// Waits for room for so many bytes.
    pub(super) async fn room(&self, bytes: usize) -> Reserved {
        let of_key = self.readers.of_key(self.key_id).take(bytes).await;
        let of_all = self.readers.all.take(bytes).await;
        Reserved { of_key, of_all }
    }
}

impl NoRoom {
    /// Whether this is why a body broke off.
    pub(super) fn is_cause(error: &(dyn Error + 'static)) -> bool {
        let mut cause = Some(error);
        while let Some(error) = cause {
            if error.is::<Self>() {
                return true;
            }
            cause = error.source();
        }
        false
    }
}

impl From<NoRoom> for ApiError {
    fn from(error: NoRoom) -> Self {
        Self::TooMany {
            code: "too_many_readers",
            message: error.to_string(),
        }
    }
}

impl Reserved {
    /// Gives back what is more than these sizes together.
    pub(super) fn down_to(mut self, sizes: impl Iterator<Item = usize>) -> Self {
        let needed = sizes.sum();
        for held in [&mut self.of_key, &mut self.of_all] {
            drop(held.split(held.num_permits().saturating_sub(needed)));
        }
        self
    }

    pub(super) fn held(self) -> Held {
        Held::new(self)
    }
}

impl Held {
    pub(super) fn new(what: impl Debug + Send + Sync + 'static) -> Self {
        Self(Arc::new(what))
    }
}

/// Passes items on, and keeps what is held for one until the next is asked for, which whoever sends
/// them does once it has room again.
pub(super) fn hold_until_next<T>(
    items: impl Stream<Item = (T, Option<Held>)> + Send + 'static,
) -> impl Stream<Item = T> + Send + 'static {
    let items = Box::pin(items);
    stream::unfold((items, None), |(mut items, last)| async move {
        drop(last);
        let (item, held) = items.next().await?;
        Some((item, (items, held)))
    })
}

/// Has an answer's body keep what its extensions say is held for it.
pub(super) fn keep(mut response: Response<Body>) -> Response<Body> {
    match response.extensions_mut().remove::<Held>() {
        Some(held) => response.map(|body| Body::new(Keeping { body, held })),
        None => response,
    }
}

/// What a caller sends, with room for its largest from when it is no longer small until it was
/// read. The body fails, with what `failed` makes of it, where there is none.
pub(super) fn reserving(
    body: Body,
    reader: Reader,
    largest: usize,
    failed: fn(NoRoom) -> BoxError,
) -> Body {
    Body::new(Reserving {
        body,
        came: 0,
        room: Room::NotNeeded(reader),
        largest,
        failed,
    })
}

struct Reserving {
    body: Body,
    /// In bytes.
    came: usize,
    room: Room,
    /// In bytes.
    largest: usize,
    failed: fn(NoRoom) -> BoxError,
}

enum Room {
    NotNeeded(Reader),
    Awaited(BoxFuture<'static, Result<Reserved, NoRoom>>),
    Taken { _held: Reserved },
}

impl HttpBody for Reserving {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if this.came > SMALL_BODY
            && let Room::NotNeeded(reader) = &this.room
        {
            let (reader, largest) = (reader.clone(), this.largest);
            let room = async move { reader.room_soon(largest).await };
            this.room = Room::Awaited(Box::pin(room));
        }
        if let Room::Awaited(room) = &mut this.room {
            match ready!(room.as_mut().poll(cx)) {
                Ok(held) => this.room = Room::Taken { _held: held },
                Err(error) => return Poll::Ready(Some(Err((this.failed)(error)))),
            }
        }
        let polled = ready!(Pin::new(&mut this.body).poll_frame(cx));
        if let Some(Ok(frame)) = &polled {
            this.came += frame.data_ref().map_or(0, Bytes::len);
        }
        Poll::Ready(polled.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A body whose bytes keep what is held for it, however long they wait to be sent.
struct Keeping {
    body: Body,
    held: Held,
}

struct Kept {
    bytes: Bytes,
    _held: Held,
}

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl HttpBody for Keeping {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        polled.map_ok(|frame| {
            frame.map_data(|bytes| {
                Bytes::from_owner(Kept {
                    bytes,
                    _held: self.held.clone(),
                })
            })
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
