//! Transactions and id tags.

use std::sync::Arc;

use pipelet_domain::{
    events::{AuthorizationStatus, Event, EventId, EventType, IdTagKey, Payload, Seq, StationId},
    id_tags::{IdTag, IdTagEntry, TagStatus},
    projection::{MeterReading, StopRequest, Transaction, TransactionFilter},
};

use super::{at, check, check_reopened, event, events};
use crate::store::Change;

/// Of station `S0` or `S10`, open where the number is even.
fn transaction(number: u64) -> Arc<Transaction> {
    let station = if number.is_multiple_of(3) {
        "S0"
    } else {
        "S10"
    };
    let payload = format!(
        r#"{{"connectorId":1,"idTag":"Tag{}","meterStart":5,"transactionId":{}}}"#,
        number % 2,
        9_000 - number
    );
    let mut start = Event::new(
        EventId::new(at(0), [0; 10]),
        EventType::StartTransaction,
        StationId::new(station).unwrap(),
        at(i64::try_from(number).unwrap()),
        None,
        Payload::parse(payload.as_bytes()).unwrap(),
    );
    start.authorization = Some(AuthorizationStatus::Accepted);
    let mut started = Transaction::started(Seq(number), &start).unwrap();
    started.last_meter_values = Some(MeterReading {
        sampled_at: Some(at(7)),
        received_at: Some(at(8)),
        sampled_values: format!("[{{\"value\":\"{}\"}}]", "1".repeat(4_000)),
    });
    Arc::new(if number.is_multiple_of(2) {
        started
    } else {
        stopped(&started)
    })
}

fn stopped(transaction: &Transaction) -> Transaction {
    let payload = format!(
        r#"{{"transactionId":{},"meterStop":9,"reason":"Remote","idTag":"B"}}"#,
        transaction.transaction_id
    );
    let mut stop = event(0, 0).as_ref().clone();
    stop.payload = Payload::parse(payload.as_bytes()).unwrap();
    transaction.stopped(StopRequest::of(&stop).unwrap())
}

#[test]
fn transactions_are_found_by_what_they_are() {
    check(|store| {
        let all: Vec<_> = (0..10).map(transaction).collect();
        store.save_stations(&[], &all[..6], Seq(6)).unwrap();
        store.save_stations(&[], &all[4..], Seq(10)).unwrap();
        assert_eq!(store.load_stations().unwrap().projected_to, Seq(10));
        let seqs = |filter: &TransactionFilter, before: Option<u64>, limit| {
            let found = store.transactions(filter, before.map(Seq), limit).unwrap();
            found.iter().map(|found| found.seq.0).collect::<Vec<_>>()
        };
        let any = TransactionFilter::default();
        assert_eq!(seqs(&any, None, 99), [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]);
        assert_eq!(seqs(&any, Some(5), 2), [4, 3]);
        assert_eq!(seqs(&any, Some(0), 2), [0; 0]);
        let of_station = TransactionFilter {
            station: StationId::new("S0").ok(),
            ..any.clone()
        };
        assert_eq!(seqs(&of_station, None, 99), [9, 6, 3, 0]);
        assert_eq!(seqs(&of_station, Some(9), 2), [6, 3]);
        let open = TransactionFilter {
            open: Some(true),
            ..of_station.clone()
        };
        assert_eq!(seqs(&open, None, 99), [6, 0]);
        let closed = TransactionFilter {
            open: Some(false),
            ..of_station
        };
        assert_eq!(seqs(&closed, None, 99), [9, 3]);
        let tagged = TransactionFilter {
            id_tag: Some(IdTagKey::of("TAG1")),
            since: Some(at(3)),
            until: Some(at(8)),
            ..any
        };
        assert_eq!(seqs(&tagged, None, 99), [7, 5, 3]);

        assert_eq!(store.transaction(8_991).unwrap().as_ref(), Some(&*all[9]));
        assert_eq!(store.transaction(42).unwrap(), None);
    });
}

#[test]
fn a_transaction_is_replaced_when_it_ends() {
    check(|store| {
        let open = transaction(2);
        store
            .save_stations(&[], std::slice::from_ref(&open), Seq(3))
            .unwrap();
        let closed = Arc::new(stopped(&open));
        for _ in 0..2 {
            store
                .save_stations(&[], std::slice::from_ref(&closed), Seq(4))
                .unwrap();
            let any = TransactionFilter::default();
            assert_eq!(
                store.transactions(&any, None, 9).unwrap(),
                [(*closed).clone()]
            );
            let open = TransactionFilter {
                open: Some(true),
                ..any
            };
            assert_eq!(store.transactions(&open, None, 9).unwrap(), []);
            let found = store.transaction(closed.transaction_id).unwrap();
            assert_eq!(found.as_ref(), Some(&*closed));
        }
    });
}

#[test]
fn a_transaction_that_is_given_up_is_open_no_more_and_may_be_stopped_after_all() {
    check(|store| {
        let all: Vec<_> = (0..8).map(transaction).collect();
        store.save_stations(&[], &all, Seq(8)).unwrap();
        let open = |after: Option<u64>, limit| {
            let open = store.open_transactions(after.map(Seq), limit).unwrap();
            open.iter().map(|open| open.seq.0).collect::<Vec<_>>()
        };
        assert_eq!(open(None, 99), [0, 2, 4, 6]);
        assert_eq!(open(Some(0), 2), [2, 4]);
        assert_eq!(open(Some(6), 2), [0; 0]);
        let given_up = Arc::new(all[2].abandoned(at(50)));
        let save = |transaction: &Arc<Transaction>| {
            let transactions = std::slice::from_ref(transaction);
            store.save_stations(&[], transactions, Seq(8)).unwrap();
            let found = store.transaction(transaction.transaction_id).unwrap();
            assert_eq!(found.as_ref(), Some(&**transaction));
        };
        save(&given_up);
        assert_eq!(open(None, 99), [0, 4, 6]);
        let abandoned = TransactionFilter {
            abandoned: Some(true),
            ..TransactionFilter::default()
        };
        let found = store.transactions(&abandoned, None, 9).unwrap();
        assert_eq!(found, [(*given_up).clone()]);
        save(&Arc::new(stopped(&given_up)));
        assert_eq!(store.transactions(&abandoned, None, 9).unwrap(), []);
        save(&Arc::new(all[4].abandoned(at(50))));
        store.forget_transactions(at(51), 99).unwrap();
        assert_eq!(store.transaction(all[4].transaction_id).unwrap(), None);
        assert_eq!(open(None, 99), [0, 6]);
    });
}

#[test]
fn transactions_that_ended_long_ago_are_forgotten() {
    check(|store| {
        let all: Vec<_> = (0..10).map(transaction).collect();
        store.save_stations(&[], &all, Seq(10)).unwrap();
        let any = TransactionFilter::default();
        let seqs = |filter: &TransactionFilter| {
            let found = store.transactions(filter, None, 99).unwrap();
            found.iter().map(|found| found.seq.0).collect::<Vec<_>>()
        };
        // Every odd one has ended at 0.
        assert_eq!(store.forget_transactions(at(0), 99).unwrap(), 0);
        assert_eq!(store.forget_transactions(at(1), 2).unwrap(), 2);
        assert_eq!(seqs(&any), [9, 8, 7, 6, 5, 4, 2, 0]);
        assert_eq!(store.forget_transactions(at(1), 99).unwrap(), 3);
        assert_eq!(store.forget_transactions(at(1), 99).unwrap(), 0);
        assert_eq!(seqs(&any), [8, 6, 4, 2, 0]);
        let of_station = TransactionFilter {
            station: StationId::new("S0").ok(),
            ..any
        };
        assert_eq!(seqs(&of_station), [6, 0]);
        assert_eq!(store.transaction(all[9].transaction_id).unwrap(), None);
    });
}

fn id_tag(text: &str, status: TagStatus) -> IdTagEntry {
    IdTagEntry {
        id_tag: IdTag::new(text).unwrap(),
        status,
        expiry_date: Some(at(77)),
        parent_id_tag: IdTag::new("Parent").ok(),
        created_at: at(1),
        updated_at: at(2),
    }
}

#[test]
fn id_tags_come_back_and_differ_not_by_case() {
    check(|store| {
        let changes = [
            id_tag("b", TagStatus::Blocked),
            id_tag("A", TagStatus::Accepted),
            id_tag("B", TagStatus::Invalid),
        ];
        store.commit(&changes.map(Change::IdTag)).unwrap();
        let expected = [
            id_tag("A", TagStatus::Accepted),
            id_tag("B", TagStatus::Invalid),
        ];
        let stored = store.id_tags().unwrap();
        assert_eq!(stored, expected);
        assert_eq!(stored[1].id_tag.as_str(), "B");
        store
            .commit(&[Change::IdTagGone(IdTagKey::of("a"))])
            .unwrap();
        assert_eq!(store.id_tags().unwrap(), expected[1..]);
    });
}

#[test]
fn transactions_survive_a_restart() {
    check_reopened(
        |store| {
            store.append(Seq(0), &events(0..3), &[]).unwrap();
            store
                .save_stations(&[], &[transaction(1), transaction(2)], Seq(3))
                .unwrap();
        },
        |store| {
            let found = store.transactions(&TransactionFilter::default(), None, 9);
            let expected = [transaction(2), transaction(1)].map(|one| (*one).clone());
            assert_eq!(found.unwrap(), expected);
        },
    );
}
