use std::{
    collections::BTreeSet,
    ops::Range,
    sync::{Arc, atomic::Ordering},
};

use jiff::Timestamp;
use pipelet_domain::{
    deliveries::{Cursor, Subscription},
    events::{
        Event, EventId, EventSelection, EventType, Payload, Seq, StationId, StationSelection,
    },
    webhooks::WebhookId,
};
use tokio_util::sync::CancellationToken;

use super::{Followed, Journal, Opened, Reader};
use crate::{
    store::{LogStore as _, ReadLimit, group_commit::WriterThread, memory::MemoryStore},
    system::{clock::Clock, limits::memory::MemoryBudget},
};

const W: WebhookId = WebhookId(1);

fn event(kind: EventType) -> Event {
    let station = StationId::new("S").unwrap();
    let id = EventId::from_bytes([0; 16]);
    Event::new(
        id,
        kind,
        station,
        Timestamp::UNIX_EPOCH,
        None,
        Payload::empty(),
    )
}

fn wants(revision: u64, enabled: bool, names: &[&str]) -> Subscription {
    Subscription {
        revision,
        enabled,
        events: EventSelection::parse(names).unwrap(),
        stations: StationSelection::default(),
    }
}

async fn open(
    store: &Arc<MemoryStore>,
    webhooks: Vec<(WebhookId, Subscription)>,
) -> (Journal, Vec<Reader>, WriterThread) {
    let Opened {
        journal,
        subscribers,
        committer,
    } = Journal::open(
        store.clone(),
        webhooks,
        &MemoryBudget::of(MemoryBudget::SMALLEST),
        Clock::system(),
        CancellationToken::new(),
    )
    .await
    .unwrap();
    let readers = subscribers.into_iter();
    let readers = readers.map(|(subscriber, cursor)| subscriber.read_from(cursor));
    (journal, readers.collect(), committer)
}

async fn append(journal: &Journal, kinds: &[EventType]) -> Vec<Seq> {
    let mut seqs = Vec::new();
    for kind in kinds {
        seqs.push(journal.append(event(*kind), |seq, _| seq).await.unwrap());
    }
    seqs
}

/// Reads so many events, and on until there is nothing more for now.
///
/// A caller is notified of its event before the queues are filled, so there may be a wait.
async fn read(reader: &mut Reader, count: usize) -> Vec<u64> {
    let mut seqs = Vec::new();
    loop {
        let read = reader.read(ReadLimit::part(100)).await.unwrap();
        seqs.extend(read.events.iter().map(|(seq, _)| seq.0));
        if read.caught_up && seqs.len() >= count {
            return seqs;
        }
        if read.caught_up {
            reader.woken().await;
        }
    }
}

const BOTH: [EventType; 2] = [EventType::Heartbeat, EventType::MeterValues];

#[tokio::test]
async fn what_is_appended_is_read_once_and_in_order() {
    let store = Arc::new(MemoryStore::default());
    let (journal, mut readers, mut committer) =
        open(&store, vec![(W, wants(1, true, &["Heartbeat"]))]).await;
    assert_eq!(append(&journal, &BOTH).await, [Seq(0), Seq(1)]);
    append(&journal, &BOTH).await;
    assert_eq!(read(&mut readers[0], 2).await, [0, 2]);
    assert!(readers[0].position() >= Seq(3));
    assert_eq!(readers[0].subscriber().received(), 2);
    append(&journal, &BOTH).await;
    assert_eq!(read(&mut readers[0], 1).await, [4]);
    journal.stop().await;
    committer.ended().await.unwrap();
}

#[tokio::test]
async fn a_reader_that_lags_finds_everything_in_the_journal() {
    let store = Arc::new(MemoryStore::default());
    let (journal, mut readers, _committer) =
        open(&store, vec![(W, wants(1, true, &["Heartbeat"]))]).await;
    let reader = &mut readers[0];
    assert_eq!(read(reader, 0).await, Vec::<u64>::new());
    // More than the queue holds.
    let mut appended: Vec<_> = Vec::new();
    for _ in 0..10_000 {
        appended.push(journal.append(event(EventType::Heartbeat), |seq, _| seq));
    }
    let appended = futures_util::future::join_all(appended).await;
    let seqs: BTreeSet<_> = appended.into_iter().map(|seq| seq.unwrap().0).collect();
    assert_eq!(seqs, (0..10_000).collect());
    assert_eq!(read(reader, 10_000).await, (0..10_000).collect::<Vec<_>>());
    append(&journal, &BOTH).await;
    assert_eq!(read(reader, 1).await, [10_000]);
    assert_eq!(reader.subscriber().received(), 10_001);
}

#[tokio::test]
async fn a_reader_that_reads_while_events_come_misses_none() {
    let store = Arc::new(MemoryStore::default());
    let (journal, mut readers, _committer) = open(&store, vec![(W, wants(1, true, &["*"]))]).await;
    let total = 20_000;
    let appending = async {
        for chunk in 0..total / 500 {
            let _ = chunk;
            let appends = (0..500).map(|_| journal.append(event(EventType::Heartbeat), |_, _| ()));
            for done in futures_util::future::join_all(appends).await {
                done.unwrap();
            }
        }
    };
    let reading = async {
        let reader = &mut readers[0];
        let mut seqs = Vec::new();
        while seqs.len() < total {
            let read = reader.read(ReadLimit::part(37)).await.unwrap();
            seqs.extend(read.events.iter().map(|(seq, _)| seq.0));
            if read.caught_up && seqs.len() < total {
                reader.woken().await;
            }
        }
        seqs
    };
    let ((), seqs) = tokio::join!(appending, reading);
    assert_eq!(seqs, (0..total as u64).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_left_the_memory_is_fetched_from_the_store() {
    let store = Arc::new(MemoryStore::default());
    let events: Vec<_> = (0..5_000)
        .map(|_| Arc::new(event(EventType::Heartbeat)))
        .collect();
    store.append(events.into(), [].into()).await.unwrap();
    store.trim(Seq(10), 99).await.unwrap();
    let (_, readers, _committer) = open(&store, vec![(W, wants(1, true, &["*"]))]).await;
    let dense: Vec<_> = (0..1_500).step_by(3).map(Seq).collect();
    let sparse: Vec<_> = (1_600..6_000).step_by(170).map(Seq).collect();
    let wanted = [dense, vec![Seq(1_555)], sparse].concat();
    let kept = wanted.iter().filter(|seq| (10..5_000).contains(&seq.0));
    let kept: Vec<_> = kept.copied().collect();
    // Whatever there is room for at once: every one is looked at once, and none is left out.
    for bytes in [1, 5_000, 1 << 20] {
        let (mut fetched, mut rest) = (Vec::new(), &wanted[..]);
        while !rest.is_empty() {
            let limit = ReadLimit { count: 99, bytes };
            let part = readers[0].fetch(rest, limit).await.unwrap();
            let sizes = part.events.iter().map(|(_, event)| event.memory_size());
            assert!(sizes.sum::<usize>() <= bytes || part.events.len() == 1);
            fetched.extend(part.events.into_iter().map(|(seq, _)| seq));
            rest = &rest[part.looked_at..];
        }
        assert_eq!(fetched, kept, "{bytes} bytes at once");
    }
}

#[tokio::test]
async fn a_change_takes_effect_at_its_position_also_for_one_that_lags() {
    let store = Arc::new(MemoryStore::default());
    let (journal, mut readers, _committer) =
        open(&store, vec![(W, wants(1, true, &["Heartbeat"]))]).await;
    append(&journal, &BOTH).await;
    let meter_values = wants(2, true, &["MeterValues"]);
    let (subscriber, _) = journal.subscribe(W, meter_values).await.unwrap();
    assert_eq!(subscriber.versions().last().unwrap().from, Seq(2));
    append(&journal, &BOTH).await;
    let disabled = wants(3, false, &["MeterValues"]);
    journal.subscribe(W, disabled).await.unwrap();
    // What comes late is not the latest.
    let outrun = wants(2, true, &["*"]);
    journal.subscribe(W, outrun).await.unwrap();
    append(&journal, &BOTH).await;
    assert_eq!(read(&mut readers[0], 2).await, [0, 3]);
    assert_eq!(readers[0].subscriber().received(), 2);
}

#[tokio::test]
async fn progress_and_counts_survive_a_restart() {
    let store = Arc::new(MemoryStore::default());
    let webhooks = || vec![(W, wants(1, true, &["Heartbeat"]))];
    let (journal, mut readers, mut committer) = open(&store, webhooks()).await;
    append(&journal, &BOTH).await;
    append(&journal, &BOTH).await;
    assert_eq!(read(&mut readers[0], 2).await, [0, 2]);
    let cursor = Cursor {
        read_to: Seq(4),
        owed: vec![Seq(2)],
        delivered: 1,
    };
    journal
        .checkpoint(W, cursor.clone())
        .await
        .unwrap()
        .await
        .unwrap();
    assert_eq!(
        journal.floor().await.unwrap(),
        Seq(0),
        "counts are not written down yet"
    );
    journal.stop().await;
    committer.ended().await.unwrap();

    let (journal, mut readers, _committer) = open(&store, webhooks()).await;
    assert_eq!(readers[0].start(), &cursor);
    assert_eq!(readers[0].subscriber().received(), 2);
    assert_eq!(journal.floor().await.unwrap(), Seq(2));
    append(&journal, &BOTH).await;
    assert_eq!(read(&mut readers[0], 1).await, [4]);
    assert_eq!(readers[0].subscriber().received(), 3);
}

#[tokio::test]
async fn what_was_not_counted_before_a_crash_is_counted_again() {
    let store = Arc::new(MemoryStore::default());
    let (journal, _, _committer) = open(&store, Vec::new()).await;
    append(&journal, &BOTH[..1]).await;
    let heartbeats = || wants(1, true, &["Heartbeat"]);
    journal.subscribe(W, heartbeats()).await.unwrap();
    append(&journal, &BOTH).await;
    append(&journal, &BOTH).await;
    // No stop: the second start finds the events, but no counts.
    let (_, mut readers, _committer) = open(&store, vec![(W, heartbeats())]).await;
    assert_eq!(readers[0].subscriber().received(), 2);
    assert_eq!(read(&mut readers[0], 2).await, [1, 3]);
}

/// A crash may come between a webhook's change and the journal's.
#[tokio::test]
async fn a_start_takes_up_what_the_journal_does_not_know() {
    let store = Arc::new(MemoryStore::default());
    let (journal, ..) = open(&store, vec![(W, wants(1, true, &["Heartbeat"]))]).await;
    append(&journal, &BOTH).await;
    let (journal, mut readers, _committer) =
        open(&store, vec![(W, wants(2, true, &["MeterValues"]))]).await;
    append(&journal, &BOTH).await;
    assert_eq!(read(&mut readers[0], 2).await, [0, 3]);
    // And what is left of one that is deleted goes.
    let (journal, ..) = open(&store, Vec::new()).await;
    append(&journal, &BOTH).await;
    assert!(store.progress().await.unwrap().is_empty());
}

/// A change keeps only the versions that the cursor needs, which is ahead of the counts.
#[tokio::test]
async fn what_was_counted_before_a_change_stays_counted_after_a_crash() {
    let store = Arc::new(MemoryStore::default());
    let webhooks = vec![(W, wants(1, true, &["Heartbeat"]))];
    let (journal, mut readers, _committer) = open(&store, webhooks).await;
    append(&journal, &BOTH).await;
    append(&journal, &BOTH).await;
    assert_eq!(read(&mut readers[0], 2).await, [0, 2]);
    let written = journal.checkpoint(W, Cursor::at(Seq(4))).await.unwrap();
    written.await.unwrap();
    // As after retention has forgotten what is settled.
    journal.shared.oldest.store(4, Ordering::Relaxed);
    let disabled = || wants(2, false, &["Heartbeat"]);
    let (subscriber, _) = journal.subscribe(W, disabled()).await.unwrap();
    assert_eq!(subscriber.versions()[0].from, Seq(4), "the rest is dropped");
    // No stop.
    let (_, readers, _committer) = open(&store, vec![(W, disabled())]).await;
    assert_eq!(readers[0].subscriber().received(), 2);
}

#[tokio::test]
async fn what_was_counted_again_is_kept_for_a_second_crash() {
    let store = Arc::new(MemoryStore::default());
    let webhooks = || vec![(W, wants(1, true, &["Heartbeat"]))];
    let (journal, _, _committer) = open(&store, webhooks()).await;
    append(&journal, &BOTH).await;
    let (journal, mut readers, _committer) = open(&store, webhooks()).await;
    assert_eq!(read(&mut readers[0], 1).await, [0]);
    let written = journal.checkpoint(W, Cursor::at(Seq(2))).await.unwrap();
    written.await.unwrap();
    assert_eq!(journal.floor().await.unwrap(), Seq(0));
}

#[tokio::test]
async fn a_follower_sees_what_was_and_what_comes() {
    let store = Arc::new(MemoryStore::default());
    let (journal, _, _committer) = open(&store, Vec::new()).await;
    append(&journal, &BOTH).await;
    let mut from_start = journal.follow(Seq(0));
    let seqs = |followed: Followed| -> Vec<Seq> {
        assert_eq!(followed.missed, 0);
        followed.events.into_iter().map(|(seq, _)| seq).collect()
    };
    assert_eq!(
        seqs(from_start.next(ReadLimit::part(1)).await.unwrap()),
        [Seq(0)]
    );
    assert_eq!(
        seqs(from_start.next(ReadLimit::part(10)).await.unwrap()),
        [Seq(1)]
    );
    // Only now: who appended is notified before those who follow, so "now" was earlier until here.
    let mut from_now = journal.follow(Seq(1_000));
    let (next, _) = tokio::join!(
        from_now.next(ReadLimit::part(10)),
        append(&journal, &BOTH[..1])
    );
    assert_eq!(seqs(next.unwrap()), [Seq(2)]);
    assert_eq!(
        seqs(from_start.next(ReadLimit::part(10)).await.unwrap()),
        [Seq(2)]
    );
}

#[tokio::test]
async fn a_follower_is_told_what_retention_took() {
    let store = Arc::new(MemoryStore::default());
    let events: Vec<_> = (0..10)
        .map(|_| Arc::new(event(EventType::Heartbeat)))
        .collect();
    store.append(events.into(), [].into()).await.unwrap();
    let (journal, _, _committer) = open(&store, Vec::new()).await;
    let mut follower = journal.follow(Seq(2));
    store.trim(Seq(6), 100).await.unwrap();
    let Followed { missed, events } = follower.next(ReadLimit::part(100)).await.unwrap();
    assert_eq!((missed, events.len()), (4, 4));
}

#[tokio::test]
async fn after_the_stop_nothing_is_taken() {
    let store = Arc::new(MemoryStore::default());
    let (journal, _, mut committer) = open(&store, Vec::new()).await;
    append(&journal, &BOTH).await;
    journal.stop().await;
    committer.ended().await.unwrap();
    assert!(
        journal
            .append(event(EventType::Heartbeat), |_, _| ())
            .await
            .is_err()
    );
    let bounds: Range<Seq> = store.bounds().await.unwrap();
    assert_eq!(bounds, Seq(0)..Seq(2));
}
