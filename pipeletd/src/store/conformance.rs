//! What every store must do, run against each of them.

mod charging;
mod journal;

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use pipelet_domain::{
    deliveries::{
        ArchivedCounts, Attempt, Cursor, DeadReason, DeliveryCounts, FailedDelivery, FailedFilter,
        FailedId, LedgerCounts, Phases, Received, Retry, RetryKey, Stage, StoredCounts,
        StoredWebhook, Subscription, SubscriptionVersion,
    },
    events::{
        Event, EventId, EventSelection, EventType, Payload, Seq, StationId, StationSelection,
    },
    projection::{BootStatus, StationState},
    registration::{PasswordHash, Registration, SecurityProfile},
    webhooks::{Field, Secret, SigningSecret, TargetPolicy, WebhookDraft, WebhookId},
};

use super::{
    Change, NextIds, Part, Progress, ReadLimit, Store, memory::MemoryStore, sled::SledStore,
};

/// Runs a check against a fresh store of each kind.
fn check(run: impl Fn(&dyn Store)) {
    run(&MemoryStore::default());
    let directory = tempfile::tempdir().unwrap();
    run(&SledStore::open(directory.path()).unwrap());
}

/// Writes, closes, opens again, reads: only what is on disk can do that.
fn check_reopened(write: impl Fn(&dyn Store), read: impl Fn(&dyn Store)) {
    let directory = tempfile::tempdir().unwrap();
    write(&SledStore::open(directory.path()).unwrap());
    read(&SledStore::open(directory.path()).unwrap());
}

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millisecond(1_776_000_000_000 + millis).unwrap()
}

fn event(number: u64, payload_len: usize) -> Arc<Event> {
    let kind = if number.is_multiple_of(2) {
        EventType::MeterValues
    } else {
        EventType::Heartbeat
    };
    let payload = format!(r#"{{"n":{number},"pad":"{}"}}"#, "x".repeat(payload_len));
    Arc::new(Event::new(
        EventId::new(at(0), [u8::try_from(number % 251).unwrap(); 10]),
        kind,
        StationId::new(&format!("S{}", number % 3)).unwrap(),
        at(i64::try_from(number).unwrap()),
        Some(format!("m{number}").into()),
        Payload::parse(payload.as_bytes()).unwrap(),
    ))
}

fn events(numbers: std::ops::Range<u64>) -> Vec<Arc<Event>> {
    numbers.map(|number| event(number, 300)).collect()
}

fn attempts() -> Vec<Attempt> {
    vec![
        Attempt {
            number: 1,
            at: at(1),
            status: Some(500),
            error: None,
            duration: Duration::from_millis(12),
            phases: Phases {
                lookup: Some(Duration::from_micros(1)),
                connect: Some(Duration::from_micros(20)),
                handshake: Some(Duration::from_micros(7)),
                first_byte: Some(Duration::from_micros(300)),
            },
        },
        Attempt {
            number: 2,
            at: at(2),
            status: None,
            error: Some("connection refused".to_owned()),
            duration: Duration::ZERO,
            phases: Phases::default(),
        },
    ]
}

fn retry(webhook: u64, due_ms: i64, seq: u64) -> Retry {
    Retry {
        key: RetryKey {
            webhook: WebhookId(webhook),
            due_ms,
            seq: Seq(seq),
        },
        event: event(seq, 300),
        attempts: attempts(),
        round: 2,
        last_response: Some("no \u{1f50c}".to_owned()),
    }
}

fn failed(id: u64, webhook: u64, seq: u64) -> FailedDelivery {
    FailedDelivery {
        id: FailedId(id),
        webhook: WebhookId(webhook),
        seq: Seq(seq),
        event: event(seq, 300),
        attempts: attempts(),
        reason: DeadReason::AttemptsExhausted,
        failed_at: at(99),
        last_response: None,
    }
}

fn webhook(id: u64) -> StoredWebhook {
    let draft = WebhookDraft {
        name: Field::Value("My Integration".to_owned()),
        url: Field::Value("https://my-app.example.com/webhooks/ocpp".to_owned()),
        events: Field::Value(vec!["MeterValues".to_owned(), "group:security".to_owned()]),
        station_ids: Field::Value(vec!["WALLBOX_*".to_owned(), "S1".to_owned()]),
        secret_header: Field::Value("X-Webhook-Secret".to_owned()),
        secret_value: Field::Value(Secret::new("my-secret-value-here")),
        signing_secret: Field::Value(Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")),
        ..WebhookDraft::default()
    };
    let new = draft.create(&TargetPolicy::default()).unwrap();
    let newer = Secret::new("whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA");
    StoredWebhook {
        webhook: new
            .into_webhook(WebhookId(id), at(5))
            .rotated(SigningSecret::parse(&newer).unwrap(), at(6)),
        stage: Stage::Active,
    }
}

#[test]
fn progress_is_kept_with_the_events() {
    check(|store| {
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
        let versions: Arc<[_]> = [version(3, true), version(7, false)].into();
        let progress = [
            Progress::Cursor(id, cursor.clone()),
            Progress::Received(id, received),
            Progress::Subscription(id, Arc::clone(&versions)),
        ];
        store.append(Seq(0), &[], &progress).unwrap();
        assert_eq!(store.subscriptions().unwrap(), [(id, versions.to_vec())]);
        assert_eq!(store.cursors().unwrap(), [(id, cursor)]);
        assert_eq!(store.received().unwrap(), [(id, received)]);
        store.append(Seq(0), &[], &[Progress::Gone(id)]).unwrap();
        assert_eq!(store.cursors().unwrap(), []);
        assert_eq!(store.received().unwrap(), []);
        assert_eq!(store.subscriptions().unwrap(), []);
    });
}

#[test]
fn retries_come_by_due_time_and_webhook() {
    check(|store| {
        let due = [retry(1, 5_000, 1), retry(1, 6_000, 0), retry(1, 70_000, 2)];
        let neighbour = retry(2, 1, 3);
        let changes = due
            .iter()
            .chain([&neighbour])
            .rev()
            .cloned()
            .map(Change::Retry);
        store.commit(&changes.collect::<Vec<_>>()).unwrap();

        let keys = |webhook, after, limit| {
            let keys = store.retry_keys(WebhookId(webhook), after, limit);
            keys.unwrap()
        };
        let [first, second, third] = due.each_ref().map(|retry| retry.key);
        assert_eq!(keys(1, None, 2), [first, second]);
        assert_eq!(keys(1, Some(first), 9), [second, third]);
        assert_eq!(keys(3, None, 9), []);
        assert_eq!(store.retry(second).unwrap().as_ref(), Some(&due[1]));

        store.commit(&[Change::RetryGone(first)]).unwrap();
        assert_eq!(keys(1, None, 1), [second]);
        assert_eq!(store.retry(first).unwrap(), None);
    });
}

#[test]
fn failed_deliveries_are_found_by_what_they_are() {
    check(|store| {
        let all = [
            failed(1, 1, 0),
            failed(2, 2, 1),
            failed(3, 1, 2),
            failed(4, 1, 3),
        ];
        store.commit(&all.clone().map(Change::Failed)).unwrap();
        let ids = |filter: &FailedFilter, after: Option<u64>, limit| {
            let found = store
                .failed_deliveries(filter, after.map(FailedId), ReadLimit::page(limit))
                .unwrap();
            assert!(!found.is_cut);
            found
                .items
                .iter()
                .map(|failed| failed.id.0)
                .collect::<Vec<_>>()
        };
        let any = FailedFilter::default();
        assert_eq!(ids(&any, None, 9), [1, 2, 3, 4]);
        assert_eq!(ids(&any, Some(1), 2), [2, 3]);
        let of_webhook = FailedFilter {
            webhook: Some(WebhookId(1)),
            ..any.clone()
        };
        assert_eq!(ids(&of_webhook, None, 9), [1, 3, 4]);
        assert_eq!(ids(&of_webhook, Some(3), 9), [4]);
        assert_eq!(
            ids(
                &FailedFilter {
                    kind: Some(EventType::Heartbeat),
                    ..any.clone()
                },
                None,
                9
            ),
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
            ),
            [3]
        );
        let window = FailedFilter {
            since: Some(at(1)),
            until: Some(at(3)),
            ..any
        };
        assert_eq!(ids(&window, None, 9), [2, 3]);

        let bytes = all[0].memory_size() + all[1].memory_size();
        let limit = ReadLimit { count: 9, bytes };
        let found = store.failed_deliveries(&FailedFilter::default(), None, limit);
        let first = all[..2].to_vec();
        let (items, is_cut) = (first, true);
        assert_eq!(found.unwrap(), Part { items, is_cut });

        assert_eq!(
            store.failed_delivery(FailedId(3)).unwrap().as_ref(),
            Some(&all[2])
        );
        store
            .commit(&[Change::FailedGone(WebhookId(1), FailedId(3))])
            .unwrap();
        assert_eq!(store.failed_delivery(FailedId(3)).unwrap(), None);
        assert_eq!(ids(&of_webhook, None, 9), [1, 4]);
    });
}

#[test]
fn webhooks_and_accounts_come_back() {
    check(|store| {
        let counts = LedgerCounts {
            off_cursor: 15,
            backfilled: 0,
            retrying: 1,
            delivered: 2,
            dead: 3,
            purged: 4,
            cancelled: 5,
        };
        let changes = [
            Change::Webhook(webhook(7)),
            Change::LedgerCounts(WebhookId(7), counts),
        ];
        store.commit(&changes).unwrap();
        assert_eq!(store.webhooks().unwrap(), [webhook(7)]);
        assert_eq!(store.ledger_counts().unwrap(), [(WebhookId(7), counts)]);
    });
}

#[test]
fn a_forgotten_webhook_leaves_its_books_and_no_number() {
    check(|store| {
        assert_eq!(store.archived_counts().unwrap(), ArchivedCounts::default());
        let books = DeliveryCounts {
            received: 10,
            delivered: 4,
            dead: 3,
            cancelled: 3,
            ..DeliveryCounts::default()
        };
        let archived = ArchivedCounts::default().with(books).with(books);
        let changes = [
            Change::Webhook(webhook(6)),
            Change::Webhook(webhook(7)),
            Change::LedgerCounts(WebhookId(7), LedgerCounts::default()),
            Change::WebhookGone(WebhookId(7)),
            Change::ArchivedCounts(archived),
        ];
        store.commit(&changes[..3]).unwrap();
        store.commit(&changes[3..]).unwrap();
        assert_eq!(store.webhooks().unwrap(), [webhook(6)]);
        assert_eq!(store.ledger_counts().unwrap(), []);
        assert_eq!(store.archived_counts().unwrap(), archived);
        assert_eq!(store.next_ids().unwrap().webhook, WebhookId(8));
    });
}

#[test]
fn what_is_kept_of_a_webhook_is_counted() {
    check(|store| {
        let changes = [
            Change::Retry(retry(1, 5, 1)),
            Change::Retry(retry(1, 6, 2)),
            Change::Retry(retry(2, 5, 3)),
            Change::Failed(failed(1, 2, 4)),
        ];
        store.commit(&changes).unwrap();
        let counted = [1, 2, 3].map(|id| {
            let StoredCounts { retries, failed } = store.count_stored(WebhookId(id)).unwrap();
            (retries, failed)
        });
        assert_eq!(counted, [(2, 0), (1, 1), (0, 0)]);
    });
}

#[test]
fn what_was_moved_is_remembered_until_a_cursor_knows_it() {
    check(|store| {
        let marker = |seq| Change::OffCursorMarker(WebhookId(1), Seq(seq));
        store
            .commit(&[
                marker(8),
                marker(3),
                Change::OffCursorMarker(WebhookId(2), Seq(5)),
            ])
            .unwrap();
        assert_eq!(
            store.off_cursor_markers(WebhookId(1)).unwrap(),
            [Seq(3), Seq(8)]
        );
        store
            .commit(&[Change::OffCursorMarkerGone(WebhookId(1), Seq(3))])
            .unwrap();
        assert_eq!(store.off_cursor_markers(WebhookId(1)).unwrap(), [Seq(8)]);
    });
}

#[test]
fn the_last_retry_time_stays() {
    check(|store| {
        assert_eq!(store.retry_time().unwrap(), None);
        for time in [1_776_000_000_000, 1_776_000_000_001, -5] {
            store.commit(&[Change::RetryTime(time)]).unwrap();
            assert_eq!(store.retry_time().unwrap(), Some(time));
        }
    });
}

#[test]
fn ids_are_never_given_out_twice() {
    check(|store| {
        let first = NextIds {
            webhook: WebhookId(1),
            failed: FailedId(1),
            api_key: 1,
        };
        assert_eq!(store.next_ids().unwrap(), first);
        store
            .commit(&[Change::Webhook(webhook(1)), Change::Failed(failed(1, 1, 0))])
            .unwrap();
        store
            .commit(&[Change::FailedGone(WebhookId(1), FailedId(1))])
            .unwrap();
        let next = NextIds {
            webhook: WebhookId(2),
            failed: FailedId(2),
            api_key: 1,
        };
        assert_eq!(store.next_ids().unwrap(), next);

        let numbers = [(); 3].map(|()| store.reserve_transaction_numbers(100).unwrap());
        assert_eq!(numbers, [1, 101, 201]);
        assert_eq!(
            store.transaction_key().unwrap(),
            store.transaction_key().unwrap()
        );
    });
}

fn registration(station: &str) -> Registration {
    Registration {
        station: StationId::new(station).unwrap(),
        password: Some(PasswordHash::new("0123456789abcdef", [3; 16]).unwrap()),
        profile: Some(SecurityProfile::TlsBasic),
        boot_policy: BootStatus::Pending,
        created_at: at(1),
        updated_at: at(2),
    }
}

#[test]
fn registrations_are_replaced_and_removed() {
    check(|store| {
        let bare = Registration {
            password: None,
            profile: None,
            boot_policy: BootStatus::Accepted,
            ..registration("B")
        };
        let put = |entry: &Registration| Change::Registration(entry.clone());
        store
            .commit(&[put(&registration("B")), put(&registration("A"))])
            .unwrap();
        store.commit(&[put(&bare)]).unwrap();
        assert_eq!(
            store.registrations().unwrap(),
            [registration("A"), bare.clone()]
        );
        let gone = StationId::new("A").unwrap();
        store.commit(&[Change::RegistrationGone(gone)]).unwrap();
        assert_eq!(store.registrations().unwrap(), [bare]);
        assert!(store.load_stations().unwrap().states.is_empty());
    });
}

#[test]
fn stations_that_are_forgotten_are_gone() {
    check(|store| {
        let station = |name: &str| StationId::new(name).unwrap();
        let states = ["A", "AB", "B", "C"].map(|name| StationState::new(station(name)));
        store.save_stations(&states, &[], Seq(7)).unwrap();
        let forgotten = [station("C"), station("NEVER_SEEN"), station("A")];
        for _ in 0..2 {
            store.forget_stations(&forgotten).unwrap();
            let saved = store.load_stations().unwrap();
            assert_eq!(saved.states, states[1..3]);
            assert_eq!(saved.projected_to, Seq(7));
        }
        store.save_stations(&states[..1], &[], Seq(7)).unwrap();
        assert_eq!(store.load_stations().unwrap().states, states[..3]);
    });
}

#[test]
fn everything_survives_a_restart() {
    check_reopened(
        |store| {
            let progress = Progress::Cursor(WebhookId(1), Cursor::at(Seq(2)));
            store.append(Seq(0), &events(0..5), &[progress]).unwrap();
            let changes = [
                Change::Webhook(webhook(1)),
                Change::Retry(retry(1, 5_000, 1)),
                Change::Failed(failed(1, 1, 0)),
                Change::Registration(registration("A")),
            ];
            store.commit(&changes).unwrap();
            store.reserve_transaction_numbers(100).unwrap();
        },
        |store| {
            assert_eq!(store.bounds().unwrap(), Seq(0)..Seq(5));
            assert_eq!(
                store.cursors().unwrap(),
                [(WebhookId(1), Cursor::at(Seq(2)))]
            );
            assert_eq!(store.webhooks().unwrap(), [webhook(1)]);
            assert_eq!(store.registrations().unwrap(), [registration("A")]);
            let kept = retry(1, 5_000, 1);
            assert_eq!(store.retry(kept.key).unwrap(), Some(kept));
            assert_eq!(
                store.failed_delivery(FailedId(1)).unwrap(),
                Some(failed(1, 1, 0))
            );
            assert_eq!(store.reserve_transaction_numbers(1).unwrap(), 101);
        },
    );
}

#[test]
fn one_daemon_for_a_directory() {
    let directory = tempfile::tempdir().unwrap();
    let _first = SledStore::open(directory.path()).unwrap();
    let second = SledStore::open(directory.path()).unwrap_err();
    assert!(matches!(second, super::StoreError::Locked(_)), "{second}");
}
