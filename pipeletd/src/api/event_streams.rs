//! Event streams: callers tail what is journaled, for as long as they like.
//!
//! Each is as fast as its reader and holds a bounded number of events. There is room for so many,
//! over REST and gRPC together.

use std::{collections::VecDeque, sync::Arc};

use futures_util::{Stream, stream};
use jiff::Timestamp;
use pipelet_domain::{
    events::{Event, EventFilter, Seq},
    shards::Shards,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::{
    error::ApiError,
    readers::{Held, Reader},
};
use crate::{
    journal::{Followed, FollowerOfAll, Journals},
    store::{ReadLimit, StoreError},
    system::limits::memory::LARGEST_EVENT,
};

/// At once.
pub(super) const MAX_TAILS: usize = 64;
/// What one tail reads at once.
const READ_AHEAD: ReadLimit = ReadLimit {
    count: 256,
    bytes: 64 << 10,
};

/// Opens event streams. Cheap to clone.
#[derive(Debug, Clone)]
pub struct EventStreams {
    journals: Journals,
    room: Arc<Semaphore>,
    shutdown: CancellationToken,
}

/// Where a tail begins.
#[derive(Debug, Clone)]
pub(super) enum Begin {
    Now,
    /// Where another one stood.
    From(Shards<Seq>),
    /// With the first event of that time or later.
    At(Timestamp),
}

/// One caller's way along the journals.
#[derive(Debug)]
pub(super) struct Tail {
    follower: FollowerOfAll,
    /// Behind the last event that was given away.
    positions: Shards<Seq>,
    filter: EventFilter,
    reader: Reader,
    read: VecDeque<(Seq, Arc<Event>)>,
    /// For what was read.
    held: Option<Held>,
    missed: u64,
    shutdown: CancellationToken,
    _place: OwnedSemaphorePermit,
}

#[derive(Debug)]
pub(super) struct Tailed {
    /// Where the tail stands behind it.
    pub(super) then: Shards<Seq>,
    pub(super) event: Arc<Event>,
    /// How many events just before it are no longer kept.
    pub(super) missed: u64,
    /// For the event, until it was sent.
    pub(super) held: Option<Held>,
}

impl EventStreams {
    /// Every tail ends with the shutdown.
    pub fn new(journals: Journals, shutdown: CancellationToken) -> Self {
        Self::with_room(MAX_TAILS, journals, shutdown)
    }

    /// For nodes, each of which looks at how many there are itself.
    pub fn for_nodes(journals: Journals, shutdown: CancellationToken) -> Self {
        Self::with_room(Semaphore::MAX_PERMITS, journals, shutdown)
    }

    fn with_room(room: usize, journals: Journals, shutdown: CancellationToken) -> Self {
        Self {
            journals,
            room: Arc::new(Semaphore::new(room)),
            shutdown,
        }
    }

    pub(super) async fn open(
        &self,
        mut filter: EventFilter,
        begin: Begin,
        reader: Reader,
    ) -> Result<Tail, ApiError> {
        let place = Arc::clone(&self.room).try_acquire_owned();
        let place = place.map_err(|_| too_many_tails())?;
        let from = match begin {
            Begin::Now => self.journals.heads(),
            Begin::From(positions) if self.journals.have(&positions) => positions,
            Begin::From(_) => {
                let message = "this is no place in the events of this daemon";
                return Err(ApiError::fault("/after", "invalid_parameter", message));
            }
            Begin::At(time) => {
                filter.since = Some(time);
                self.journals.positions_at(time).await?
            }
        };
        let follower = self.journals.follow(&from);
        Ok(Tail {
            positions: follower.positions(),
            follower,
            filter,
            reader,
            read: VecDeque::new(),
            held: None,
            missed: 0,
            shutdown: self.shutdown.clone(),
            _place: place,
        })
    }
}

pub(super) fn too_many_tails() -> ApiError {
    ApiError::TooMany {
        code: "too_many_tails",
        message: format!("{MAX_TAILS} readers tail the events already"),
    }
}

impl Tail {
    /// Where it stands.
    pub(super) fn positions(&self) -> Shards<Seq> {
        self.positions.clone()
    }

    /// The events that are wanted; ends with the daemon, or after an error.
    pub(super) fn into_stream(self) -> impl Stream<Item = Result<Tailed, ApiError>> + Send {
        stream::unfold(Some(self), |tail| async move {
            let mut tail = tail?;
            let next = tail.next().await?;
            let going_on = next.is_ok().then_some(tail);
            Some((next, going_on))
        })
    }

    /// `None` once the daemon ends.
    async fn next(&mut self) -> Option<Result<Tailed, ApiError>> {
        loop {
            while let Some((seq, event)) = self.read.pop_front() {
                self.positions = self.positions.with(seq.shard(), seq.next());
                if self.filter.contains(&event) {
                    let missed = std::mem::take(&mut self.missed);
                    return Some(Ok(Tailed {
                        then: self.positions.clone(),
                        event,
                        missed,
                        held: self.held.clone(),
                    }));
                }
            }
            self.held = None;
            let shutdown = self.shutdown.clone();
            match shutdown.run_until_cancelled(self.read_on()).await? {
                Ok(()) => {}
                Err(error) => return Some(Err(error.into())),
            }
        }
    }

    /// Waits for more, and for room for it.
    async fn read_on(&mut self) -> Result<(), StoreError> {
        let which = self.follower.ready().await;
        let room = self.reader.room(LARGEST_EVENT).await;
        let Followed { missed, events } = self.follower.next(which, READ_AHEAD).await?;
        // As they were read, and as they are written to the reader.
        let sizes = events.iter().map(|(_, event)| 2 * event.memory_size());
        self.held = Some(room.down_to(sizes).held());
        self.missed += missed;
        self.read.extend(events);
        Ok(())
    }
}
