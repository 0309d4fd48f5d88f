//! Looking things up in what the journal keeps: the latest events, one by its id.
//!
//! The journal has no index, because each would cost every event a write. What helps is that
//! positions ascend with time, but for what waited a moment longer than its neighbours, or came
//! while the clock was set back.

use std::{
    ops::Range,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use jiff::Timestamp;
use pipelet_domain::events::{Event, EventFilter, EventId, Seq};

use super::Journal;
use crate::store::{LogStore, ReadLimit, StoreError};

/// Positions that are looked at at once.
const STRIDE: u64 = 512;
/// Events that one call looks at, so that a filter which nothing passes costs a bounded time.
const MAX_LOOKED_AT: u64 = 128 * 1024;
/// How far apart an event's time and its place in the journal are taken to be at most.
const SLACK: Duration = Duration::from_secs(30);

/// Some events, the latest first.
#[derive(Debug, Default)]
pub struct Latest {
    pub events: Vec<(Seq, Arc<Event>)>,
    /// Where the next look goes on, if there may be more.
    pub before: Option<Seq>,
}

impl Latest {
    /// How many bytes of memory each event takes.
    pub fn sizes(&self) -> impl Iterator<Item = usize> {
        self.events.iter().map(|(_, event)| event.memory_size())
    }
}

impl Journal {
    /// Events that match and stand before `before`, the latest first. May find fewer than there
    /// are, even none, and says then where to go on.
    pub async fn latest(
        &self,
        filter: EventFilter,
        before: Option<Seq>,
        limit: ReadLimit,
    ) -> Result<Latest, StoreError> {
        latest(self.log(), self.durable(), &filter, before, limit).await
    }

    /// The event with this id, if it is still kept.
    pub async fn find(&self, id: EventId) -> Result<Option<(Seq, Arc<Event>)>, StoreError> {
        find(self.log(), self.durable(), id).await
    }

    /// A position before which no event has this time or a later one.
    pub async fn position_at(&self, time: Timestamp) -> Result<Seq, StoreError> {
        let kept = kept(self.log(), self.durable()).await?;
        first_at(self.log(), kept, time - SLACK).await
    }

    fn log(&self) -> &dyn LogStore {
        self.shared.log.as_ref()
    }

    /// Behind the last event that may be found.
    pub(super) fn durable(&self) -> Seq {
        Seq(self.shared.durable.load(Ordering::Acquire))
    }
}

async fn latest(
    log: &dyn LogStore,
    durable: Seq,
    filter: &EventFilter,
    before: Option<Seq>,
    limit: ReadLimit,
) -> Result<Latest, StoreError> {
    let Range { start, end } = kept(log, durable).await?;
    let range = |from: Seq, to: Seq| from..to.max(from);
    let end = match filter.until {
        Some(until) => first_at(log, range(start, end), until + SLACK).await?,
        None => end,
    };
    let end = before.map_or(end, |before| before.min(end));
    let start = match filter.since {
        Some(since) => first_at(log, range(start, end), since - SLACK).await?,
        None => start,
    };
    let mut found = Latest::default();
    let mut bytes = 0;
    let mut to = end;
    let mut stride = STRIDE;
    while start < to {
        if found.events.len() == limit.count || end.0 - to.0 >= MAX_LOOKED_AT {
            found.before = Some(to);
            break;
        }
        let from = Seq(to.0.saturating_sub(stride)).max(start);
        let events = read(log, &(from..to)).await?;
        // They are read forward: where the first ones are as much as may be read at once, the last
        // ones are still to come.
        if events.last().is_some_and(|(seq, _)| seq.next() < to) {
            stride = (stride / 2).max(1);
            continue;
        }
        for (seq, event) in events.into_iter().rev() {
            if filter.contains(&event) {
                let size = event.memory_size();
                if !limit.admits(found.events.len(), bytes, size) {
                    found.before = Some(seq.next());
                    return Ok(found);
                }
                bytes += size;
                found.events.push((seq, event));
            }
        }
        to = from;
        stride = (stride * 2).min(STRIDE);
    }
    Ok(found)
}

/// Looks where the id's time leads, and ever further from there.
async fn find(
    log: &dyn LogStore,
    durable: Seq,
    id: EventId,
) -> Result<Option<(Seq, Arc<Event>)>, StoreError> {
    let kept = kept(log, durable).await?;
    let middle = first_at(log, kept.clone(), id.time()).await?;
    let (mut below, mut above) = (middle, middle);
    while above.0 - below.0 < MAX_LOOKED_AT && (kept.start < below || above < kept.end) {
        let ahead = above..Seq(above.0 + STRIDE).min(kept.end);
        let behind = Seq(below.0.saturating_sub(STRIDE)).max(kept.start)..below;
        (below, above) = (behind.start, ahead.end);
        for range in [ahead, behind] {
            if let Some(found) = find_in(log, range, id).await? {
                return Ok(Some(found));
            }
        }
    }
    Ok(None)
}

async fn find_in(
    log: &dyn LogStore,
    Range { mut start, end }: Range<Seq>,
    id: EventId,
) -> Result<Option<(Seq, Arc<Event>)>, StoreError> {
    while start < end {
        let events = read(log, &(start..end)).await?;
        let Some((last, _)) = events.last() else {
            break;
        };
        start = last.next();
        if let Some(found) = events.into_iter().find(|(_, event)| event.id == id) {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// What is kept and durable.
async fn kept(log: &dyn LogStore, durable: Seq) -> Result<Range<Seq>, StoreError> {
    let start = log.bounds().await?.start;
    Ok(start..durable.max(start))
}

/// The first ones of a range.
async fn read(
    log: &dyn LogStore,
    range: &Range<Seq>,
) -> Result<Vec<(Seq, Arc<Event>)>, StoreError> {
    let count = usize::try_from(range.end.0 - range.start.0).unwrap_or(usize::MAX);
    let mut events = log.read_from(range.start, ReadLimit::part(count)).await?;
    events.retain(|(seq, _)| *seq < range.end);
    Ok(events)
}

/// The first position in the range whose event has this time or a later one, if times ascend.
async fn first_at(
    log: &dyn LogStore,
    Range { mut start, mut end }: Range<Seq>,
    time: Timestamp,
) -> Result<Seq, StoreError> {
    while start < end {
        let middle = Seq(start.0.midpoint(end.0));
        match log.read_from(middle, ReadLimit::part(1)).await?.first() {
            Some((seq, event)) if event.time < time => start = seq.next(),
            // Where retention has just taken it, it was too old anyway: nothing but a later one
            // can come back.
            Some(_) | None => end = middle,
        }
    }
    Ok(start)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::MemoryStore;
    use pipelet_domain::events::{EventSelection, EventType, Payload, StationId};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_776_000_000 + second).unwrap()
    }

    fn id(second: i64) -> EventId {
        let mut random = [0; 10];
        random[2..].copy_from_slice(&second.to_be_bytes());
        EventId::new(at(second), random)
    }

    /// Events of these seconds; every tenth is a Heartbeat.
    async fn store(seconds: impl Iterator<Item = i64>) -> (MemoryStore, Seq) {
        let store = MemoryStore::default();
        let event = |(number, second): (usize, i64)| {
            let kind = match number % 10 {
                0 => EventType::Heartbeat,
                _ => EventType::MeterValues,
            };
            let station = StationId::new("S").unwrap();
            Arc::new(Event::new(
                id(second),
                kind,
                station,
                at(second),
                None,
                Payload::empty(),
            ))
        };
        let events: Vec<_> = seconds.enumerate().map(event).collect();
        store
            .append(events.clone().into(), [].into())
            .await
            .unwrap();
        (store, Seq(events.len() as u64))
    }

    fn heartbeats() -> EventFilter {
        EventFilter {
            kinds: Some(EventSelection::parse(&["Heartbeat"]).unwrap()),
            ..EventFilter::default()
        }
    }

    #[tokio::test]
    async fn the_latest_come_first_and_pages_leave_nothing_out() {
        let (store, head) = store(0..3_000).await;
        let mut before = None;
        let mut seen = Vec::new();
        loop {
            let page = latest(&store, head, &heartbeats(), before, ReadLimit::page(7))
                .await
                .unwrap();
            assert!(page.events.len() <= 7);
            seen.extend(page.events.iter().map(|(seq, _)| seq.0));
            before = page.before;
            if before.is_none() {
                break;
            }
        }
        let expected: Vec<_> = (0..3_000).rev().filter(|seq| seq % 10 == 0).collect();
        assert_eq!(seen, expected);
    }

    #[tokio::test]
    async fn pages_of_large_events_are_short_and_leave_nothing_out() {
        let store = MemoryStore::default();
        let large = |size: usize| {
            let payload = format!("{{\"data\":\"{}\"}}", "x".repeat(size));
            let payload = Payload::parse(payload.as_bytes()).unwrap();
            let station = StationId::new("S").unwrap();
            let kind = EventType::DataTransfer;
            Arc::new(Event::new(id(0), kind, station, at(0), None, payload))
        };
        let sizes = [10, 900_000, 500_000, 3_000_000, 1_000, 1_000, 700_000, 10];
        let events: Vec<_> = sizes.map(large).into_iter().cycle().take(40).collect();
        store
            .append(events.clone().into(), [].into())
            .await
            .unwrap();
        let (mut before, mut seen) = (None, Vec::new());
        loop {
            let limit = ReadLimit::page(500);
            let page = latest(&store, Seq(40), &EventFilter::default(), before, limit)
                .await
                .unwrap();
            assert!(page.sizes().sum::<usize>() <= limit.bytes || page.events.len() == 1);
            seen.extend(page.events.iter().map(|(seq, _)| seq.0));
            before = page.before;
            if before.is_none() {
                break;
            }
        }
        assert_eq!(seen, (0..40).rev().collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn what_is_not_yet_durable_is_not_seen() {
        let (store, _) = store(0..100).await;
        let page = latest(
            &store,
            Seq(50),
            &EventFilter::default(),
            None,
            ReadLimit::page(1),
        )
        .await
        .unwrap();
        assert_eq!(page.events[0].0, Seq(49));
        assert!(find(&store, Seq(50), id(60)).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn times_bound_what_is_found() {
        let (store, head) = store(0..3_000).await;
        let check = async |since: Option<i64>, until: Option<i64>, first: u64, last: u64| {
            let filter = EventFilter {
                since: since.map(at),
                until: until.map(at),
                ..EventFilter::default()
            };
            let page = latest(&store, head, &filter, None, ReadLimit::page(10_000))
                .await
                .unwrap();
            let seqs = page.events.iter().map(|(seq, _)| seq.0);
            assert!(seqs.eq((first..=last).rev()), "{since:?} {until:?}");
            assert_eq!(page.before, None);
        };
        check(None, None, 0, 2_999).await;
        check(Some(2_000), None, 2_000, 2_999).await;
        check(None, Some(100), 0, 99).await;
        check(Some(1_000), Some(1_010), 1_000, 1_009).await;
    }

    #[tokio::test]
    async fn a_look_ends_even_where_nothing_matches() {
        let (store, head) = store(0..i64::try_from(MAX_LOOKED_AT).unwrap() + 2_000).await;
        let nothing = EventFilter {
            kinds: Some(EventSelection::parse(&["Reset"]).unwrap()),
            ..EventFilter::default()
        };
        let first = latest(&store, head, &nothing, None, ReadLimit::page(10))
            .await
            .unwrap();
        assert!(first.events.is_empty());
        let second = latest(&store, head, &nothing, first.before, ReadLimit::page(10))
            .await
            .unwrap();
        assert_eq!((second.events.len(), second.before), (0, None));
    }

    #[tokio::test]
    async fn ids_are_found_also_where_times_are_out_of_order() {
        let (ordered, head) = store(0..5_000).await;
        for second in [0, 1, 511, 2_500, 4_999] {
            let found = find(&ordered, head, id(second)).await.unwrap().unwrap();
            assert_eq!(found.0.0, u64::try_from(second).unwrap());
        }
        assert!(find(&ordered, head, id(5_000)).await.unwrap().is_none());
        // The clock was set back by an hour in between.
        let (store, head) = store((3_600..8_000).chain(0..3_000)).await;
        for second in [0, 1_000, 2_999, 3_600, 7_999] {
            assert!(
                find(&store, head, id(second)).await.unwrap().is_some(),
                "{second}"
            );
        }
    }
}
