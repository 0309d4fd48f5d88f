//! The log: what was appended one by one or together, read and forgotten.

use std::{ops::Range, sync::Arc};

use pipelet_domain::{
    deliveries::{Cursor, Received, Subscription, SubscriptionVersion},
    events::{Event, EventSelection, Seq, StationSelection},
    webhooks::WebhookId,
};

use super::{Stores, check, check_reopened, event, events};
use pipeletd::store::{Checkpoint, Progress, ReadLimit};

/// Appends events together, at the log's end.
async fn append(store: &Stores, numbers: Range<u64>) {
    let first = Seq(numbers.start);
    append_events(store, events(numbers), first).await;
}

async fn append_events(store: &Stores, events: Vec<Arc<Event>>, first: Seq) {
    let appended = store.log.append(events.into(), [].into()).await;
    assert_eq!(appended.unwrap(), first);
}

async fn append_each(store: &Stores, numbers: Range<u64>) {
    for number in numbers {
        append(store, number..number + 1).await;
    }
}

fn numbered(numbers: Range<u64>) -> Vec<(Seq, Arc<Event>)> {
    numbers.map(|n| (Seq(n), event(n, 300))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_gives_back_what_was_appended() {
    check(async |store| {
        assert_eq!(store.log.bounds().await.unwrap(), Seq(0)..Seq(0));
        assert_eq!(
            store
                .log
                .read_from(Seq(0), ReadLimit::part(10))
                .await
                .unwrap(),
            []
        );
        assert_eq!(store.log.event(Seq(0)).await.unwrap(), None);
        append(store, 0..300).await;
        append(store, 300..700).await;
        assert_eq!(store.log.bounds().await.unwrap(), Seq(0)..Seq(700));

        assert_eq!(
            store
                .log
                .read_from(Seq(295), ReadLimit::part(10))
                .await
                .unwrap(),
            numbered(295..305)
        );
        assert_eq!(
            store.log.event(Seq(699)).await.unwrap(),
            Some(event(699, 300))
        );
        assert_eq!(store.log.event(Seq(700)).await.unwrap(), None);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_of_a_batch_can_be_read_from() {
    check(async |store| {
        append_each(store, 0..2).await;
        append(store, 2..60).await;
        append_each(store, 60..61).await;
        append(store, 61..70).await;
        for from in 0..70 {
            for limit in [1, 2, 30, 100] {
                let until = 70.min(from + limit as u64);
                let read = store
                    .log
                    .read_from(Seq(from), ReadLimit::part(limit))
                    .await
                    .unwrap();
                assert_eq!(read, numbered(from..until), "{limit} from {from}");
            }
            assert_eq!(
                store.log.event(Seq(from)).await.unwrap(),
                Some(event(from, 300))
            );
        }
        assert_eq!(
            store
                .log
                .read_from(Seq(70), ReadLimit::part(10))
                .await
                .unwrap(),
            []
        );
        assert_eq!(
            store
                .log
                .read_from(Seq(5), ReadLimit::part(0))
                .await
                .unwrap(),
            []
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn long_payloads_are_kept_whole() {
    check(async |store| {
        let long = [
            event(0, 3_900),
            event(1, 4_000),
            event(2, 30_000),
            event(3, 1 << 20),
        ];
        for (seq, event) in (0..).map(Seq).zip(&long) {
            append_events(store, vec![Arc::clone(event)], seq).await;
        }
        // The same once more, together and among short ones.
        let together = [&[event(4, 10)], &long[..], &[event(9, 10)]].concat();
        append_events(store, together.clone(), Seq(4)).await;

        let all = [&long[..], &together].concat();
        for bytes in [0, 1, 100_000, usize::MAX] {
            let mut read = Vec::new();
            while read.len() < all.len() {
                let from = Seq(read.len() as u64);
                let part = store
                    .log
                    .read_from(from, ReadLimit { count: 99, bytes })
                    .await;
                let part = part.unwrap().into_iter().map(|(_, event)| event);
                let part: Vec<_> = part.collect();
                let size: usize = part.iter().map(|event| event.memory_size()).sum();
                assert!(size <= bytes || part.len() == 1, "{size} of {bytes}");
                read.extend(part);
            }
            assert_eq!(read, all, "{bytes} bytes at once");
        }
        store.log.trim(Seq(3), 10).await.unwrap();
        assert_eq!(store.log.event(Seq(2)).await.unwrap(), None);
        assert_eq!(
            store.log.event(Seq(3)).await.unwrap(),
            Some(Arc::clone(&long[3]))
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trimming_keeps_the_logs_end() {
    check(async |store| {
        append_each(store, 0..10).await;
        assert!(store.log.trim(Seq(4), 3).await.unwrap() > 3 * 50);
        assert_eq!(store.log.bounds().await.unwrap(), Seq(3)..Seq(10));
        assert_eq!(store.log.event(Seq(2)).await.unwrap(), None);
        assert_eq!(
            store
                .log
                .read_from(Seq(0), ReadLimit::part(1))
                .await
                .unwrap(),
            numbered(3..4)
        );
        store.log.trim(Seq(4), 100).await.unwrap();
        assert_eq!(store.log.bounds().await.unwrap(), Seq(4)..Seq(10));
        store.log.trim(Seq(1_000), 100).await.unwrap();
        assert_eq!(store.log.bounds().await.unwrap(), Seq(9)..Seq(10));
        assert_eq!(store.log.trim(Seq(1_000), 100).await.unwrap(), 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trimming_takes_nothing_at_the_floor_or_above() {
    check(async |store| {
        for first in (0..500).step_by(50) {
            append(store, first..first + 50).await;
        }
        for floor in (0..500).step_by(7) {
            store.log.trim(Seq(floor), 1_000).await.unwrap();
            let bounds = store.log.bounds().await.unwrap();
            // What was appended together is all that may be left below the floor.
            assert!(bounds.start.0 <= floor && floor - bounds.start.0 < 50);
            assert_eq!(bounds.end, Seq(500));
            let left = numbered(bounds.start.0..500);
            assert_eq!(
                store
                    .log
                    .read_from(Seq(0), ReadLimit::part(1_000))
                    .await
                    .unwrap(),
                left
            );
        }
        store.log.trim(Seq(9_999), 1_000).await.unwrap();
        assert_eq!(
            store.log.event(Seq(499)).await.unwrap(),
            Some(event(499, 300))
        );
        append(store, 500..510).await;
        let start = store.log.bounds().await.unwrap().start;
        assert_eq!(
            store
                .log
                .read_from(start, ReadLimit::part(1_000))
                .await
                .unwrap(),
            numbered(start.0..510)
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_trim_gets_on_however_small_its_limit() {
    check(async |store| {
        append(store, 0..100).await;
        append(store, 100..200).await;
        let mut start = store.log.bounds().await.unwrap().start;
        while start < Seq(100) {
            assert!(store.log.trim(Seq(100), 1).await.unwrap() > 0);
            let left = store.log.bounds().await.unwrap();
            assert!(left.start > start && left.start <= Seq(100));
            start = left.start;
        }
        assert_eq!(store.log.trim(Seq(100), 1).await.unwrap(), 0);
        assert_eq!(store.log.bounds().await.unwrap(), Seq(100)..Seq(200));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_go_on_after_a_restart() {
    check_reopened(
        async |store| {
            append(store, 0..40).await;
            append(store, 40..45).await;
            store.log.trim(Seq(1_000), 1_000).await.unwrap();
            append(store, 45..48).await;
        },
        async |store| {
            let bounds = store.log.bounds().await.unwrap();
            assert_eq!(bounds.end, Seq(48));
            append(store, 48..60).await;
            assert_eq!(store.log.bounds().await.unwrap(), bounds.start..Seq(60));
            assert_eq!(
                store
                    .log
                    .read_from(Seq(45), ReadLimit::part(99))
                    .await
                    .unwrap(),
                numbered(45..60)
            );
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_is_kept_with_the_events() {
    check(async |store| {
        let cursor = Cursor {
            read_to: Seq(9),
            owed: vec![Seq(2), Seq(7)],
            delivered: 6,
        };
        let received = Received {
            count: 9,
            counted_to: Seq(9),
        };
        let id = WebhookId(4);
        let version = |from, enabled| SubscriptionVersion {
            from: Seq(from),
            subscription: Subscription {
                revision: from,
                enabled,
                events: EventSelection::parse(&["MeterValues", "group:security"]).unwrap(),
                stations: StationSelection::parse(&["S2", "WALLBOX_*"]).unwrap(),
            },
        };
        let progress = Progress {
            cursor: Some(cursor.clone()),
            received: Some(received),
            versions: [version(3, true), version(7, false)].into(),
        };
        let checkpoints = [
            Checkpoint::Cursor(id, cursor),
            Checkpoint::Received(id, received),
            Checkpoint::Subscription(id, Arc::clone(&progress.versions)),
        ];
        let other = [Checkpoint::Received(WebhookId(5), received)];
        for checkpoints in [&checkpoints[..], &other] {
            let appended = store.log.append([].into(), checkpoints.into()).await;
            assert_eq!(appended.unwrap(), Seq(0));
        }
        assert_eq!(store.log.progress().await.unwrap()[&id], progress);
        let gone = [Checkpoint::Gone(id)].into();
        let events = events(0..3).into();
        assert_eq!(store.log.append(events, gone).await.unwrap(), Seq(0));
        let left = store.log.progress().await.unwrap();
        assert_eq!(left.into_keys().collect::<Vec<_>>(), [WebhookId(5)]);
        assert_eq!(store.log.bounds().await.unwrap(), Seq(0)..Seq(3));
    })
    .await;
}
