//! Transactions and stations.

use std::{fs, sync::Arc};

use pipelet_domain::{
    events::{AuthorizationStatus, Event, EventId, EventType, IdTagKey, Payload, Seq, StationId},
    projection::{MeterReading, StationState, StopRequest, Transaction, TransactionFilter},
};

use super::{at, check, check_reopened, event, events};
use pipeletd::store::{ProjectionStore, memory::MemoryStore, sled::SledStore};

/// Of station `S0` or `S10`, open where the number is even.
pub(super) fn transaction(number: u64) -> Arc<Transaction> {
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

async fn save(store: &dyn ProjectionStore, transactions: &[Arc<Transaction>], projected_to: u64) {
    let to = Seq(projected_to);
    let saved = store.save(Vec::new(), transactions.to_vec(), to).await;
    saved.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_are_found_by_what_they_are() {
    check(async |store| {
        let all: Vec<_> = (0..10).map(transaction).collect();
        save(&*store.projections, &all[..6], 6).await;
        save(&*store.projections, &all[4..], 10).await;
        assert_eq!(
            store.projections.stations().await.unwrap().projected_to,
            Seq(10)
        );
        let seqs = async |filter: &TransactionFilter, before: Option<u64>, limit: usize| {
            let found = store
                .projections
                .transactions(filter, before.map(Seq), limit)
                .await
                .unwrap();
            found.iter().map(|found| found.seq.0).collect::<Vec<_>>()
        };
        let any = TransactionFilter::default();
        assert_eq!(seqs(&any, None, 99).await, [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]);
        assert_eq!(seqs(&any, Some(5), 2).await, [4, 3]);
        assert_eq!(seqs(&any, Some(0), 2).await, [0; 0]);
        let of_station = TransactionFilter {
            station: StationId::new("S0").ok(),
            ..any.clone()
        };
        assert_eq!(seqs(&of_station, None, 99).await, [9, 6, 3, 0]);
        assert_eq!(seqs(&of_station, Some(9), 2).await, [6, 3]);
        let open = TransactionFilter {
            open: Some(true),
            ..of_station.clone()
        };
        assert_eq!(seqs(&open, None, 99).await, [6, 0]);
        let closed = TransactionFilter {
            open: Some(false),
            ..of_station
        };
        assert_eq!(seqs(&closed, None, 99).await, [9, 3]);
        let tagged = TransactionFilter {
            id_tag: Some(IdTagKey::of("TAG1")),
            since: Some(at(3)),
            until: Some(at(8)),
            ..any
        };
        assert_eq!(seqs(&tagged, None, 99).await, [7, 5, 3]);

        assert_eq!(
            store.projections.transaction(8_991).await.unwrap().as_ref(),
            Some(&*all[9])
        );
        assert_eq!(store.projections.transaction(42).await.unwrap(), None);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_is_replaced_when_it_ends() {
    check(async |store| {
        let open = transaction(2);
        save(&*store.projections, std::slice::from_ref(&open), 3).await;
        let closed = Arc::new(stopped(&open));
        for _ in 0..2 {
            save(&*store.projections, std::slice::from_ref(&closed), 4).await;
            let any = TransactionFilter::default();
            assert_eq!(
                store.projections.transactions(&any, None, 9).await.unwrap(),
                [(*closed).clone()]
            );
            let open = TransactionFilter {
                open: Some(true),
                ..any
            };
            assert_eq!(
                store
                    .projections
                    .transactions(&open, None, 9)
                    .await
                    .unwrap(),
                []
            );
            let found = store
                .projections
                .transaction(closed.transaction_id)
                .await
                .unwrap();
            assert_eq!(found.as_ref(), Some(&*closed));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_is_given_up_is_open_no_more_and_may_be_stopped_after_all() {
    check(async |store| {
        let all: Vec<_> = (0..8).map(transaction).collect();
        save(&*store.projections, &all, 8).await;
        let open = async |after: Option<u64>, limit: usize| {
            let open = store
                .projections
                .open_transactions(after.map(Seq), limit)
                .await
                .unwrap();
            open.iter().map(|open| open.seq.0).collect::<Vec<_>>()
        };
        assert_eq!(open(None, 99).await, [0, 2, 4, 6]);
        assert_eq!(open(Some(0), 2).await, [2, 4]);
        assert_eq!(open(Some(6), 2).await, [0; 0]);
        let given_up = Arc::new(all[2].abandoned(at(50)));
        let save = async |transaction: &Arc<Transaction>| {
            let transactions = std::slice::from_ref(transaction);
            save(&*store.projections, transactions, 8).await;
            let found = store
                .projections
                .transaction(transaction.transaction_id)
                .await
                .unwrap();
            assert_eq!(found.as_ref(), Some(&**transaction));
        };
        save(&given_up).await;
        assert_eq!(open(None, 99).await, [0, 4, 6]);
        let abandoned = TransactionFilter {
            abandoned: Some(true),
            ..TransactionFilter::default()
        };
        let found = store
            .projections
            .transactions(&abandoned, None, 9)
            .await
            .unwrap();
        assert_eq!(found, [(*given_up).clone()]);
        save(&Arc::new(stopped(&given_up))).await;
        assert_eq!(
            store
                .projections
                .transactions(&abandoned, None, 9)
                .await
                .unwrap(),
            []
        );
        save(&Arc::new(all[4].abandoned(at(50)))).await;
        store
            .projections
            .forget_transactions(at(51), 99)
            .await
            .unwrap();
        assert_eq!(
            store
                .projections
                .transaction(all[4].transaction_id)
                .await
                .unwrap(),
            None
        );
        assert_eq!(open(None, 99).await, [0, 6]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_that_ended_long_ago_are_forgotten() {
    check(async |store| {
        let all: Vec<_> = (0..10).map(transaction).collect();
        save(&*store.projections, &all, 10).await;
        let any = TransactionFilter::default();
        let seqs = async |filter: &TransactionFilter| {
            let found = store
                .projections
                .transactions(filter, None, 99)
                .await
                .unwrap();
            found.iter().map(|found| found.seq.0).collect::<Vec<_>>()
        };
        // Every odd one has ended at 0.
        assert_eq!(
            store
                .projections
                .forget_transactions(at(0), 99)
                .await
                .unwrap(),
            0
        );
        assert_eq!(
            store
                .projections
                .forget_transactions(at(1), 2)
                .await
                .unwrap(),
            2
        );
        assert_eq!(seqs(&any).await, [9, 8, 7, 6, 5, 4, 2, 0]);
        assert_eq!(
            store
                .projections
                .forget_transactions(at(1), 99)
                .await
                .unwrap(),
            3
        );
        assert_eq!(
            store
                .projections
                .forget_transactions(at(1), 99)
                .await
                .unwrap(),
            0
        );
        assert_eq!(seqs(&any).await, [8, 6, 4, 2, 0]);
        let of_station = TransactionFilter {
            station: StationId::new("S0").ok(),
            ..any
        };
        assert_eq!(seqs(&of_station).await, [6, 0]);
        assert_eq!(
            store
                .projections
                .transaction(all[9].transaction_id)
                .await
                .unwrap(),
            None
        );
    })
    .await;
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
async fn found(
    store: &dyn ProjectionStore,
    ids: &[i64],
    page: usize,
) -> (Vec<Vec<u64>>, Vec<Transaction>) {
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
    let list = async |filter: &TransactionFilter| {
        let mut seqs = Vec::new();
        loop {
            let before = seqs.last().copied().map(Seq);
            let found = store.transactions(filter, before, page).await.unwrap();
            seqs.extend(found.iter().map(|found| found.seq.0));
            if found.len() < page {
                return seqs;
            }
        }
    };
    let mut lists = Vec::new();
    for filter in filters.iter().flatten() {
        lists.push(list(filter).await);
    }
    let mut open = Vec::new();
    loop {
        let after = open.last().copied().map(Seq);
        let found = store.open_transactions(after, page).await.unwrap();
        open.extend(found.iter().map(|found| found.seq.0));
        if found.len() < page {
            break;
        }
    }
    lists.push(open);
    let mut by_id = Vec::new();
    for id in ids {
        by_id.extend(store.transaction(*id).await.unwrap());
    }
    (lists, by_id)
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_that_end_in_any_order_are_the_same_on_disk_as_in_memory() {
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
        let save = async |transactions: Vec<Transaction>| {
            let transactions: Vec<_> = transactions.into_iter().map(Arc::new).collect();
            for store in [&memory as &dyn ProjectionStore, &disk] {
                for batch in transactions.chunks(300) {
                    save(store, batch, 0).await;
                }
            }
        };
        let begun: Vec<_> = (round * 500..(round + 1) * 500).map(begun).collect();
        ids.extend(begun.iter().step_by(7).map(|begun| begun.transaction_id));
        open.extend(begun.iter().cloned());
        save(begun).await;
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
        save(changed).await;
        assert_eq!(
            found(&memory, &ids, 333).await,
            found(&disk, &ids, 333).await
        );
        for (before, limit) in [(now - 900, 100), (now - 500, 300), (now - 500, 9_999)] {
            let forget = async |store: &dyn ProjectionStore| {
                store.forget_transactions(at(before), limit).await.unwrap()
            };
            assert_eq!(forget(&memory).await, forget(&disk).await);
            assert_eq!(
                found(&memory, &ids, 1_000).await,
                found(&disk, &ids, 1_000).await
            );
        }
    }
    // Nothing is left of what is forgotten.
    let disk = SledStore::open(directory.path()).unwrap();
    while disk.forget_transactions(at(1 << 30), 1_000).await.unwrap() > 0 {}
    let (lists, _) = found(&disk, &ids, 1_000).await;
    assert_eq!(lists[0], lists[2]);
    assert_eq!(lists[4], [0; 0]);
}

/// Of the last save only a part reached the disk.
#[tokio::test(flavor = "multi_thread")]
async fn a_save_that_was_cut_short_has_ended_all_of_them_or_none() {
    const COUNT: u64 = 200;
    let directory = tempfile::tempdir().unwrap();
    let db = directory.path().join("cold").join("db");
    let store = SledStore::open(directory.path()).unwrap();
    let all: Vec<_> = (0..COUNT).map(begun).collect();
    let open: Vec<_> = all.iter().cloned().map(Arc::new).collect();
    save(&store, &open, 0).await;
    let before = fs::read(&db).unwrap();
    let ended: Vec<_> = all.iter().map(|one| Arc::new(ended(one, 5))).collect();
    save(&store, &ended, 0).await;
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
        let (lists, by_id) = found(&store, &ids, 1_000).await;
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
        assert_eq!(
            store.forget_transactions(at(6), 9_999).await.unwrap(),
            ended
        );
        outcomes.push(ended > 0);
    }
    assert_eq!((outcomes[0], outcomes[10]), (false, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_survive_a_restart() {
    check_reopened(
        async |store| {
            let appended = store.log.append(events(0..3).into(), [].into()).await;
            appended.unwrap();
            save(&*store.projections, &[transaction(1), transaction(2)], 3).await;
        },
        async |store| {
            let found = store
                .projections
                .transactions(&TransactionFilter::default(), None, 9)
                .await;
            let expected = [transaction(2), transaction(1)].map(|one| (*one).clone());
            assert_eq!(found.unwrap(), expected);
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stations_that_are_forgotten_are_gone() {
    check(async |store| {
        let station = |name: &str| StationId::new(name).unwrap();
        let states = ["A", "AB", "B", "C"].map(|name| StationState::new(station(name)));
        let saved = store
            .projections
            .save(states.to_vec(), Vec::new(), Seq(7))
            .await;
        saved.unwrap();
        let forgotten = [station("C"), station("NEVER_SEEN"), station("A")];
        for _ in 0..2 {
            store.projections.forget_stations(&forgotten).await.unwrap();
            let saved = store.projections.stations().await.unwrap();
            assert_eq!(saved.states, states[1..3]);
            assert_eq!(saved.projected_to, Seq(7));
        }
        let saved = store
            .projections
            .save(states[..1].to_vec(), Vec::new(), Seq(7))
            .await;
        saved.unwrap();
        assert_eq!(
            store.projections.stations().await.unwrap().states,
            states[..3]
        );
    })
    .await;
}
