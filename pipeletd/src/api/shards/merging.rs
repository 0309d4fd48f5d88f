//! The tails of all shards as one: in the order of time, as far as what is late is there within a
//! moment, and each station's events in their own.

use std::{
    pin::Pin,
    task::Poll,
    time::{Duration, SystemTime},
};

use futures_util::{Stream, StreamExt as _, future::poll_fn, stream};
use pipelet_proto::v1;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, Streaming};

use super::{super::readers::Reader, Shard, asking};

/// How long an event waits for earlier ones of shards that have told nothing.
const PATIENCE: Duration = Duration::from_millis(100);
/// One that is no older doesn't wait: it is about the latest of all.
const LATEST: Duration = Duration::from_millis(500);

/// Of an event: seconds since 1970, and nanoseconds.
pub(super) type At = (i64, i32);

pub(super) fn at(event: &v1::Event) -> At {
    let time = event.timestamp.as_ref();
    time.map_or((0, 0), |it| (it.seconds, it.nanos))
}

/// The tails of all shards.
pub(super) struct Merging {
    tails: Vec<Tail>,
    shutdown: CancellationToken,
}

/// That of one.
pub(super) struct Tail {
    shard: Shard,
    reader: Reader,
    asked: v1::TailEventsRequest,
    stream: Pin<Box<Streaming<v1::TailEventsResponse>>>,
    /// Behind the last event that was given away.
    cursor: String,
    /// What has come, and how long it waits.
    next: Option<(v1::TailEventsResponse, Instant)>,
}

impl Tail {
    pub(super) async fn open(
        shard: Shard,
        reader: Reader,
        mut asked: v1::TailEventsRequest,
    ) -> Result<Self, Status> {
        // It begins with where it stands.
        asked.announce = true;
        let asking = asking(Some(&reader), asked.clone());
        let mut stream = shard.events().tail_events(asking).await?.into_inner();
        let cursor = stream.message().await?.unwrap_or_default().cursor;
        Ok(Self {
            shard,
            reader,
            asked,
            stream: Box::pin(stream),
            cursor,
            next: None,
        })
    }

    /// Goes on where it stands, at whichever node owns the shard.
    async fn go_on(&mut self) -> Result<(), Status> {
        self.asked.after.clone_from(&self.cursor);
        let (shard, reader) = (self.shard.clone(), self.reader.clone());
        *self = Self::open(shard, reader, self.asked.clone()).await?;
        Ok(())
    }

    fn event(&self) -> Option<&v1::Event> {
        let (told, _) = self.next.as_ref()?;
        told.event.as_ref()
    }

    /// When what has come need not wait any more.
    fn due(&self) -> Option<Instant> {
        let (_, due) = self.next.as_ref()?;
        Some(*due)
    }
}

impl Merging {
    pub(super) const fn new(tails: Vec<Tail>, shutdown: CancellationToken) -> Self {
        Self { tails, shutdown }
    }

    /// Where all of them stand.
    pub(super) fn cursor(&self) -> String {
        let cursors = self.tails.iter().map(|tail| &*tail.cursor);
        cursors.collect::<Vec<_>>().join(".")
    }

    /// The events, until the shutdown or an error. `held` is kept until then.
    pub(super) fn into_stream<T: Send + 'static>(
        self,
        held: T,
    ) -> impl Stream<Item = Result<v1::TailEventsResponse, Status>> + Send {
        stream::unfold((Some(self), held), |(merging, held)| async move {
            let mut merging = merging?;
            let shutdown = merging.shutdown.clone();
            let next = shutdown.run_until_cancelled(merging.next()).await?;
            let going_on = next.is_ok().then_some(merging);
            Some((next, (going_on, held)))
        })
    }

    async fn next(&mut self) -> Result<v1::TailEventsResponse, Status> {
        loop {
            let due = self.tails.iter().filter_map(Tail::due).min();
            let is_whole = self.tails.iter().all(|tail| tail.next.is_some());
            let is_due = due.is_some_and(|due| due <= Instant::now());
            if (is_whole || is_due)
                && let Some(first) = self.first()
            {
                return Ok(first);
            }
            let more = next_of(&mut self.tails);
            let (which, told) = match due {
                Some(due) => tokio::select! {
                    biased;
                    told = more => told,
                    () = sleep_until(due) => continue,
                },
                None => more.await,
            };
            let tail = &mut self.tails[which];
            match told {
                Some(Ok(told)) => {
                    let wait = if is_of_the_latest(&told) {
                        Duration::ZERO
                    } else {
                        PATIENCE
                    };
                    tail.next = Some((told, Instant::now() + wait));
                }
                // Its owner ends, or has let the shard go.
                None => tail.go_on().await?,
                Some(Err(status)) if status.code() == Code::Unavailable => tail.go_on().await?,
                Some(Err(status)) => return Err(status),
            }
        }
    }

    /// The first that has come.
    fn first(&mut self) -> Option<v1::TailEventsResponse> {
        let waiting = self.tails.iter_mut().filter(|tail| tail.next.is_some());
        let tail = waiting.min_by_key(|tail| tail.event().map(at))?;
        let (mut told, _) = tail.next.take()?;
        tail.cursor.clone_from(&told.cursor);
        told.cursor = self.cursor();
        Some(told)
    }
}

/// What one of those tells next that wait for it.
async fn next_of(tails: &mut [Tail]) -> (usize, Option<Result<v1::TailEventsResponse, Status>>) {
    poll_fn(|context| {
        let waiting = tails.iter_mut().enumerate();
        for (which, tail) in waiting.filter(|(_, tail)| tail.next.is_none()) {
            if let Poll::Ready(told) = tail.stream.poll_next_unpin(context) {
                return Poll::Ready((which, told));
            }
        }
        Poll::Pending
    })
    .await
}

fn is_of_the_latest(told: &v1::TailEventsResponse) -> bool {
    let time = told.event.as_ref().and_then(|event| event.timestamp);
    let time = time.and_then(|time| SystemTime::try_from(time).ok());
    // One of the future is no older, either.
    time.is_some_and(|time| time.elapsed().map_or(true, |age| age < LATEST))
}
