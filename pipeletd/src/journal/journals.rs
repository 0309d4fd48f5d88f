//! The journals of all shards, for whoever asks from outside a shard.
//!
//! What they hold is merged by time, which is about the order in which it happened: shards know
//! nothing of each other.

use std::{mem, ops::Range, sync::Arc};

use futures_util::future::{select_all, try_join_all};
use jiff::Timestamp;
use pipelet_domain::{
    events::{Event, EventFilter, EventId, EventType, Seq, StationId},
    shards::{ShardId, Shards, merged},
};

use super::{Followed, Follower, Journal, Latest};
use crate::{
    store::{ReadLimit, StoreError},
    system::latencies::LatencySnapshot,
};

/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct Journals(Shards<Journal>);

/// Some events of all journals, the latest first.
#[derive(Debug, Default)]
pub struct LatestOfAll {
    pub events: Vec<(Seq, Arc<Event>)>,
    /// Where the next look goes on in each journal, if there may be more.
    pub before: Option<Shards<Seq>>,
}

impl LatestOfAll {
    /// How many bytes of memory each event takes.
    pub fn sizes(&self) -> impl Iterator<Item = usize> {
        self.events.iter().map(|(_, event)| event.memory_size())
    }
}

impl Journals {
    pub const fn new(journals: Shards<Journal>) -> Self {
        Self(journals)
    }

    /// Where a station's events are.
    pub fn of(&self, station: &StationId) -> &Journal {
        self.0.of(station)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Journal> {
        self.0.iter()
    }

    /// Why nothing can be taken into one of them.
    pub fn outage(&self) -> Option<Arc<str>> {
        self.iter().find_map(Journal::outage)
    }

    pub fn heads(&self) -> Shards<Seq> {
        self.0.map(Journal::head)
    }

    /// Behind the last event that may be found in each.
    pub fn ends(&self) -> Shards<Seq> {
        self.0.map(Journal::durable)
    }

    /// How many positions were ever taken, over all.
    pub fn head(&self) -> u64 {
        self.iter().map(|journal| journal.head().within()).sum()
    }

    /// The same, and how many of these are no longer kept: `end` and `start`.
    pub async fn bounds(&self) -> Result<Range<u64>, StoreError> {
        let bounds = try_join_all(self.iter().map(Journal::bounds)).await?;
        let sum = |of: fn(&Range<Seq>) -> Seq| bounds.iter().map(of).map(Seq::within).sum();
        Ok(sum(|bounds| bounds.start)..sum(|bounds| bounds.end))
    }

    /// How many events of each type were journaled since the start.
    pub fn committed(&self) -> impl Iterator<Item = (EventType, u64)> {
        let journals: Vec<_> = self
            .iter()
            .map(|journal| journal.committed().collect::<Vec<_>>())
            .collect();
        (0..EventType::ALL.len()).map(move |index| {
            let counts = journals.iter().map(|counts| counts[index].1);
            (journals[0][index].0, counts.sum())
        })
    }

    pub fn commit_latencies(&self) -> LatencySnapshot {
        let latencies = self.iter().map(Journal::commit_latencies);
        latencies.fold(LatencySnapshot::default(), |sum, of| sum.plus(&of))
    }

    pub fn recent_bytes(&self) -> usize {
        self.iter().map(Journal::recent_bytes).sum()
    }

    /// As [`Journal::durable_at`].
    pub fn durable_at(&self, seq: Seq) -> Option<Timestamp> {
        self.0.at(seq)?.durable_at(seq)
    }

    /// The event with this id, if it is still kept.
    pub async fn find(&self, id: EventId) -> Result<Option<(Seq, Arc<Event>)>, StoreError> {
        let found = try_join_all(self.iter().map(|journal| journal.find(id))).await?;
        Ok(found.into_iter().flatten().next())
    }

    /// A position in each before which no event has this time or a later one.
    pub async fn positions_at(&self, time: Timestamp) -> Result<Shards<Seq>, StoreError> {
        let positions = self.iter().map(|journal| journal.position_at(time));
        Ok(self.0.with_values(try_join_all(positions).await?))
    }

    /// As [`Journal::latest`], of all of them.
    pub async fn latest(
        &self,
        filter: &EventFilter,
        before: Option<Shards<Seq>>,
        limit: ReadLimit,
    ) -> Result<LatestOfAll, StoreError> {
        let part = limit.part_of(self.0.count());
        let looks = self.iter().enumerate().map(|(index, journal)| {
            let before = before.as_ref().and_then(|all| all.iter().nth(index));
            journal.latest(filter.clone(), before.copied(), part)
        });
        let (latest, before) = merge(try_join_all(looks).await?, limit);
        Ok(LatestOfAll {
            events: latest,
            before: before.map(|before| self.0.with_values(before)),
        })
    }

    /// Whether these are positions of theirs, one of each.
    pub fn have(&self, positions: &Shards<Seq>) -> bool {
        let of_theirs = self.0.ids().zip(positions);
        let of_theirs = of_theirs.filter(|(shard, position)| position.shard() == *shard);
        of_theirs.count() == self.0.count() && positions.count() == self.0.count()
    }

    /// Reads forward from a position in each, or from now on where none is given.
    pub fn follow(&self, from: &Shards<Seq>) -> FollowerOfAll {
        let followers = self.0.ids().zip(&self.0).map(|(shard, journal)| {
            let from = from.get(shard).copied();
            journal.follow(from.unwrap_or_else(|| journal.head()))
        });
        FollowerOfAll {
            followers: followers.collect(),
            first: 0,
        }
    }
}

type Events = Vec<(Seq, Arc<Event>)>;

/// The events, and where the next look goes on in each, if there may be more.
fn merge(mut looks: Vec<Latest>, limit: ReadLimit) -> (Events, Option<Vec<Seq>>) {
    // What a look may find behind its end; nothing where it has looked at everything.
    let mut left: Vec<_> = looks.iter().map(|look| look.before).collect();
    let found = looks.iter_mut().map(|look| mem::take(&mut look.events));
    let found: Vec<_> = found.collect();
    let firsts: Vec<_> = found
        .iter()
        .map(|of| of.first().map(|(seq, _)| *seq))
        .collect();
    let is_more = |shard: usize| looks[shard].before.is_some();
    let mut counts: Vec<_> = found.iter().map(Vec::len).collect();
    let mut all = Events::new();
    let mut bytes = 0;
    let mut taken: Vec<Option<Seq>> = vec![None; looks.len()];
    for (shard, (seq, event)) in merged(found, is_more, |(_, event)| event.time) {
        let size = event.memory_size();
        if !limit.admits(all.len(), bytes, size) {
            break;
        }
        bytes += size;
        counts[shard] -= 1;
        taken[shard] = Some(seq);
        all.push((seq, event));
    }
    for (shard, left) in left.iter_mut().enumerate() {
        if counts[shard] > 0 {
            // Of those that were found, the rest will be found again.
            *left = taken[shard].or_else(|| firsts[shard].map(Seq::next));
        }
    }
    let is_more = left.iter().any(Option::is_some);
    let left = left.into_iter().map(|left| left.unwrap_or(Seq(0)));
    (all, is_more.then(|| left.collect()))
}

/// Reads all journals forward, as they grow.
#[derive(Debug)]
pub struct FollowerOfAll {
    followers: Vec<Follower>,
    /// Whose turn it is first, where several have something.
    first: usize,
}

impl FollowerOfAll {
    /// Where the next read begins in each.
    pub fn positions(&self) -> Shards<Seq> {
        let positions: Vec<_> = self.followers.iter().map(Follower::position).collect();
        let first = positions.first().map_or(ShardId(0), |first| first.shard());
        Shards::from(first, positions)
    }

    /// Resolves when there is more to read in one of them.
    pub async fn ready(&mut self) -> usize {
        let count = self.followers.len();
        let followers = self.followers.iter_mut();
        let mut ready: Vec<_> = followers.map(|it| Box::pin(it.ready())).collect();
        ready.rotate_left(self.first);
        let ((), which, _) = select_all(ready).await;
        let which = (which + self.first) % count;
        self.first = (which + 1) % count;
        which
    }

    /// Reads on in that one.
    pub async fn next(&mut self, which: usize, limit: ReadLimit) -> Result<Followed, StoreError> {
        self.followers[which].next(limit).await
    }
}
