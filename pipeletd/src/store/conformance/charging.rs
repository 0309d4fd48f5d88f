//! Transactions and id tags.

use std::{fs, sync::Arc};

use pipelet_domain::{
    events::{AuthorizationStatus, Event, EventId, EventType, IdTagKey, Payload, Seq, StationId},
    id_tags::{IdTag, IdTagEntry, TagStatus},
    projection::{MeterReading, StopRequest, Transaction, TransactionFilter},
};

use super::{at, check, check_reopened, event, events};
use crate::store::{Change, Store, memory::MemoryStore, sled::SledStore};

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

/// One of many: open, without meter values; ids come in no order.
fn begun(number: u64) -> Transaction {
    let mut begun = transaction(0).as_ref().clone();
    begun.seq = Seq(number * 3);
    begun.transaction_id = i64::try_from(1 + number * 7_919 % 100_003).unwrap();
    begun.station = StationId::new(&format!("S{}", number % 41)).unwrap();
    begun.last_meter_values = None;
    begun
}

fn ended(begun: &Transaction, millis: i64) -> Transaction {
    let mut ended = stopped(begun);
    ended.stop.as_mut().unwrap().received_at = at(millis);
    ended
}

/// What each way of looking finds, `page` at a time: the starts, and all of what was looked up by
/// id.
fn found(store: &dyn Store, ids: &[i64], page: usize) -> (Vec<Vec<u64>>, Vec<Transaction>) {
    let station = StationId::new("S7").ok();
    let filter = |station, open| TransactionFilter {
        station,
        open,
        ..TransactionFilter::default()
    };
    let filters = [None, Some(true), Some(false)].map(|open| {
        let of_all = filter(None, open);
        [of_all, filter(station.clone(), open)]
    });
    let list = |filter: &TransactionFilter| {
        let mut seqs = Vec::new();
        loop {
            let before = seqs.last().copied().map(Seq);
            let found = store.transactions(filter, before, page).unwrap();
            seqs.extend(found.iter().map(|found| found.seq.0));
            if found.len() < page {
                return seqs;
            }
        }
    };
    let mut lists: Vec<_> = filters.iter().flatten().map(list).collect();
    let mut open = Vec::new();
    loop {
        let after = open.last().copied().map(Seq);
        let found = store.open_transactions(after, page).unwrap();
        open.extend(found.iter().map(|found| found.seq.0));
        if found.len() < page {
            break;
        }
    }
    lists.push(open);
    let by_id = ids.iter().filter_map(|id| store.transaction(*id).unwrap());
    (lists, by_id.collect())
}

#[test]
fn thousands_that_end_in_any_order_are_the_same_on_disk_as_in_memory() {
    let directory = tempfile::tempdir().unwrap();
    let memory = MemoryStore::default();
    let mut open: Vec<Transaction> = Vec::new();
    let mut ids = Vec::new();
    let (mut number, mut now) = (1_u64, 0);
    let mut random = |below: usize| {
        number = number
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        usize::try_from(number >> 33).unwrap() % below
    };
    for round in 0..6 {
        let disk = SledStore::open(directory.path()).unwrap();
        let save = |transactions: Vec<Transaction>| {
            let transactions: Vec<_> = transactions.into_iter().map(Arc::new).collect();
            for store in [&memory as &dyn Store, &disk] {
                for batch in transactions.chunks(300) {
                    store.save_stations(&[], batch, Seq(0)).unwrap();
                }
            }
        };
        let begun: Vec<_> = (round * 500..(round + 1) * 500).map(begun).collect();
        ids.extend(begun.iter().step_by(7).map(|begun| begun.transaction_id));
        open.extend(begun.iter().cloned());
        save(begun);
        let mut changed = Vec::new();
        for turn in 0..450 {
            now += 1;
            let one = open.swap_remove(random(open.len()));
            let abandoned = one.abandoned(at(now));
            // Some are given up, a few of them end after all, and one was never to have ended.
            changed.extend(match turn % 10 {
                0 => vec![abandoned],
                1 => vec![abandoned.clone(), ended(&abandoned, now + 200)],
                2 if turn == 2 => vec![ended(&one, now), one],
                _ => vec![ended(&one, now)],
            });
        }
        save(changed);
        assert_eq!(found(&memory, &ids, 333), found(&disk, &ids, 333));
        for (before, limit) in [(now - 900, 100), (now - 500, 300), (now - 500, 9_999)] {
            let forget = |store: &dyn Store| store.forget_transactions(at(before), limit);
            assert_eq!(forget(&memory).unwrap(), forget(&disk).unwrap());
            assert_eq!(found(&memory, &ids, 1_000), found(&disk, &ids, 1_000));
        }
    }
    // Nothing is left of what is forgotten.
    let disk = SledStore::open(directory.path()).unwrap();
    while disk.forget_transactions(at(1 << 30), 1_000).unwrap() > 0 {}
    let (lists, _) = found(&disk, &ids, 1_000);
    assert_eq!(lists[0], lists[2]);
    assert_eq!(lists[4], [0; 0]);
}

/// Of the last save only a part reached the disk.
#[test]
fn a_save_that_was_cut_short_has_ended_all_of_them_or_none() {
    const COUNT: u64 = 200;
    let directory = tempfile::tempdir().unwrap();
    let db = directory.path().join("cold").join("db");
    let store = SledStore::open(directory.path()).unwrap();
    let all: Vec<_> = (0..COUNT).map(begun).collect();
    let open: Vec<_> = all.iter().cloned().map(Arc::new).collect();
    store.save_stations(&[], &open, Seq(0)).unwrap();
    let before = fs::read(&db).unwrap();
    let ended: Vec<_> = all.iter().map(|one| Arc::new(ended(one, 5))).collect();
    store.save_stations(&[], &ended, Seq(0)).unwrap();
    let after = fs::read(&db).unwrap();
    let kept = tempfile::tempdir().unwrap();
    let differ: Vec<_> = (0..after.len())
        .filter(|at| before.get(*at) != after.get(*at))
        .collect();
    drop(store);

    let ids: Vec<_> = all.iter().map(|one| one.transaction_id).collect();
    let mut outcomes = Vec::new();
    for cut in (0..=10).map(|tenth| (differ.len() - 1) * tenth / 10) {
        let cut = differ[cut] + 1;
        let part = [&after[..cut], before.get(cut..).unwrap_or_default()].concat();
        let copy = kept.path().join(cut.to_string());
        for part in ["hot", "cold"] {
            fs::create_dir_all(copy.join(part)).unwrap();
        }
        for file in ["hot/conf", "hot/db", "cold/conf", "secrets.key"] {
            fs::copy(directory.path().join(file), copy.join(file)).unwrap();
        }
        fs::write(copy.join("cold/db"), part).unwrap();
        let store = SledStore::open(&copy).unwrap();
        let (lists, by_id) = found(&store, &ids, 1_000);
        let ended = by_id.iter().filter(|one| !one.is_open()).count();
        assert!([0, all.len()].contains(&ended), "{ended} at {cut}");
        let lengths: Vec<_> = lists.iter().map(Vec::len).collect();
        let open = all.len() - ended;
        let of_station = lengths[1];
        let open_of_station = if open > 0 { of_station } else { 0 };
        assert_eq!(
            lengths,
            [
                all.len(),
                of_station,
                open,
                open_of_station,
                ended,
                of_station - open_of_station,
                open
            ]
        );
        assert_eq!(store.forget_transactions(at(6), 9_999).unwrap(), ended);
        outcomes.push(ended > 0);
    }
    assert_eq!((outcomes[0], outcomes[10]), (false, true));
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
