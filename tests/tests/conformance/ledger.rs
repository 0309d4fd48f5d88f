//! The ledger: retries, failed deliveries, and the counts of them.

use pipelet_domain::{
    deliveries::{
        ArchivedCounts, DeliveryCounts, FailedFilter, FailedId, LedgerCounts, StoredCounts,
    },
    events::{EventType, Seq},
    webhooks::WebhookId,
};

use super::{at, check, commit, failed, retry};
use pipeletd::store::{LedgerChange, Part, ReadLimit};

#[tokio::test(flavor = "multi_thread")]
async fn retries_come_by_due_time_and_webhook() {
    check(async |store| {
        let due = [retry(1, 5_000, 1), retry(1, 6_000, 0), retry(1, 70_000, 2)];
        let neighbour = retry(2, 1, 3);
        let changes = due
            .iter()
            .chain([&neighbour])
            .rev()
            .cloned()
            .map(LedgerChange::Retry);
        commit(store, changes.collect::<Vec<_>>()).await;

        let keys = async |webhook, after, limit| {
            let keys = store
                .ledger
                .retry_keys(WebhookId(webhook), after, limit)
                .await;
            keys.unwrap()
        };
        let [first, second, third] = due.each_ref().map(|retry| retry.key);
        assert_eq!(keys(1, None, 2).await, [first, second]);
        assert_eq!(keys(1, Some(first), 9).await, [second, third]);
        assert_eq!(keys(3, None, 9).await, []);
        let keys_of_both = [second, neighbour.key];
        let read = store
            .ledger
            .retries(&keys_of_both, ReadLimit::part(9))
            .await;
        let expected = vec![due[1].clone(), neighbour.clone()];
        assert_eq!(read.unwrap(), (expected, 2));
        let bytes = due[0].memory_size() + due[1].memory_size();
        let limit = ReadLimit { count: 9, bytes };
        let (read, looked_at) = store
            .ledger
            .retries(&[first, second, third], limit)
            .await
            .unwrap();
        assert_eq!((read.len(), looked_at), (2, 2), "what there is room for");

        commit(store, [LedgerChange::RetryGone(first)]).await;
        assert_eq!(keys(1, None, 1).await, [second]);
        let (read, looked_at) = store.ledger.retries(&[first, second], limit).await.unwrap();
        assert_eq!((read, looked_at), (vec![due[1].clone()], 2));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_deliveries_are_found_by_what_they_are() {
    check(async |store| {
        let all = [
            failed(1, 1, 0),
            failed(2, 2, 1),
            failed(3, 1, 2),
            failed(4, 1, 3),
        ];
        commit(store, all.clone().map(LedgerChange::Failed)).await;
        let ids = async |filter: &FailedFilter, after: Option<u64>, limit: usize| {
            let found = store
                .ledger
                .failed_deliveries(filter, after.map(FailedId), ReadLimit::page(limit))
                .await
                .unwrap();
            assert!(!found.is_cut);
            found
                .items
                .iter()
                .map(|failed| failed.id.0)
                .collect::<Vec<_>>()
        };
        let any = FailedFilter::default();
        assert_eq!(ids(&any, None, 9).await, [1, 2, 3, 4]);
        assert_eq!(ids(&any, Some(1), 2).await, [2, 3]);
        let of_webhook = FailedFilter {
            webhook: Some(WebhookId(1)),
            ..any.clone()
        };
        assert_eq!(ids(&of_webhook, None, 9).await, [1, 3, 4]);
        assert_eq!(ids(&of_webhook, Some(3), 9).await, [4]);
        assert_eq!(
            ids(
                &FailedFilter {
                    kind: Some(EventType::Heartbeat),
                    ..any.clone()
                },
                None,
                9
            )
            .await,
            [2, 4]
        );
        assert_eq!(
            ids(
                &FailedFilter {
                    station: Some("S2".into()),
                    ..any.clone()
                },
                None,
                9
            )
            .await,
            [3]
        );
        let window = FailedFilter {
            since: Some(at(1)),
            until: Some(at(3)),
            ..any
        };
        assert_eq!(ids(&window, None, 9).await, [2, 3]);

        let bytes = all[0].memory_size() + all[1].memory_size();
        let limit = ReadLimit { count: 9, bytes };
        let found = store
            .ledger
            .failed_deliveries(&FailedFilter::default(), None, limit)
            .await;
        let first = all[..2].to_vec();
        let (items, is_cut) = (first, true);
        assert_eq!(found.unwrap(), Part { items, is_cut });

        assert_eq!(
            store
                .ledger
                .failed_delivery(FailedId(3))
                .await
                .unwrap()
                .as_ref(),
            Some(&all[2])
        );
        commit(store, [LedgerChange::FailedGone(WebhookId(1), FailedId(3))]).await;
        assert_eq!(
            store.ledger.failed_delivery(FailedId(3)).await.unwrap(),
            None
        );
        assert_eq!(ids(&of_webhook, None, 9).await, [1, 4]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_of_a_webhook_is_counted() {
    check(async |store| {
        let changes = [
            LedgerChange::Retry(retry(1, 5, 1)),
            LedgerChange::Retry(retry(1, 6, 2)),
            LedgerChange::Retry(retry(2, 5, 3)),
            LedgerChange::Failed(failed(1, 2, 4)),
        ];
        commit(store, changes).await;
        for (id, retries, failed) in [(1, 2, 0), (2, 1, 1), (3, 0, 0)] {
            let counted = store.ledger.count_stored(WebhookId(id)).await.unwrap();
            assert_eq!(counted, StoredCounts { retries, failed });
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_moved_is_remembered_until_a_cursor_knows_it() {
    check(async |store| {
        let marker = |seq| LedgerChange::OffCursorMarker(WebhookId(1), Seq(seq));
        commit(
            store,
            [
                marker(8),
                marker(3),
                LedgerChange::OffCursorMarker(WebhookId(2), Seq(5)),
            ],
        )
        .await;
        assert_eq!(
            store.ledger.off_cursor_markers(WebhookId(1)).await.unwrap(),
            [Seq(3), Seq(8)]
        );
        commit(
            store,
            [LedgerChange::OffCursorMarkerGone(WebhookId(1), Seq(3))],
        )
        .await;
        assert_eq!(
            store.ledger.off_cursor_markers(WebhookId(1)).await.unwrap(),
            [Seq(8)]
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_and_books_come_back_until_they_are_archived() {
    check(async |store| {
        let state = store.ledger.state().await.unwrap();
        assert_eq!(state.archived, ArchivedCounts::default());
        let counts = LedgerCounts {
            off_cursor: 15,
            backfilled: 0,
            retrying: 1,
            delivered: 2,
            dead: 3,
            purged: 4,
            cancelled: 5,
        };
        let books = DeliveryCounts {
            received: 10,
            delivered: 4,
            dead: 3,
            cancelled: 3,
            ..DeliveryCounts::default()
        };
        let [kept, gone] = [7, 8].map(WebhookId);
        let changes = [
            LedgerChange::Counts(kept, counts),
            LedgerChange::Counts(gone, counts),
            LedgerChange::Closed(kept, books),
            LedgerChange::Closed(gone, books),
        ];
        commit(store, changes).await;
        let archived = ArchivedCounts::default().with(books);
        commit(store, [LedgerChange::Archived(gone, archived)]).await;
        let state = store.ledger.state().await.unwrap();
        assert_eq!(state.counts, [(kept, counts)].into());
        assert_eq!(state.closed, [(kept, books)].into());
        assert_eq!(state.archived, archived);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_retry_time_stays() {
    check(async |store| {
        assert_eq!(store.ledger.state().await.unwrap().retry_time, None);
        for time in [1_776_000_000_000, 1_776_000_000_001, -5] {
            commit(store, [LedgerChange::RetryTime(time)]).await;
            assert_eq!(store.ledger.state().await.unwrap().retry_time, Some(time));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_deliverys_id_is_never_given_out_twice() {
    check(async |store| {
        assert_eq!(store.ledger.state().await.unwrap().next_failed, FailedId(1));
        commit(store, [LedgerChange::Failed(failed(1, 1, 0))]).await;
        let gone = LedgerChange::FailedGone(WebhookId(1), FailedId(1));
        commit(store, [gone]).await;
        assert_eq!(store.ledger.state().await.unwrap().next_failed, FailedId(2));
    })
    .await;
}
