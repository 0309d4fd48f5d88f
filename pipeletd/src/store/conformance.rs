//! What every engine must do, run against each of them.

mod configuration;
mod ledger;
mod log;
mod projections;

use std::{fs, sync::Arc, time::Duration};

use jiff::Timestamp;
use pipelet_domain::{
    deliveries::{
        Attempt, Cursor, DeadReason, DeliveryCounts, FailedDelivery, FailedFilter, FailedId,
        LedgerCounts, Phases, Retry, RetryKey,
    },
    events::{Event, EventId, EventType, Payload, Seq, StationId},
    projection::{StationState, TransactionFilter},
    webhooks::WebhookId,
};

use super::{
    Backup as _, Checkpoint, ConfigurationStore, Counter, LedgerChange, LedgerStore, LogStore,
    ProjectionStore, ReadLimit, memory::MemoryStore, sled::SledStore,
};

/// All that an engine keeps, of one shard.
trait Engine: LogStore + LedgerStore + ConfigurationStore + ProjectionStore {}

impl<E: LogStore + LedgerStore + ConfigurationStore + ProjectionStore> Engine for E {}

/// Runs a check against a fresh store of each kind.
async fn check(run: impl AsyncFn(&dyn Engine)) {
    run(&MemoryStore::default()).await;
    let directory = tempfile::tempdir().unwrap();
    run(&SledStore::open(directory.path()).unwrap()).await;
}

/// Writes, closes, opens again, reads: only what is on disk can do that.
async fn check_reopened(write: impl AsyncFn(&dyn Engine), read: impl AsyncFn(&dyn Engine)) {
    let directory = tempfile::tempdir().unwrap();
    write(&SledStore::open(directory.path()).unwrap()).await;
    read(&SledStore::open(directory.path()).unwrap()).await;
}

async fn commit(store: &dyn Engine, changes: impl Into<Arc<[LedgerChange]>>) {
    store.commit(changes.into()).await.unwrap();
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
            code: Some("http_500".into()),
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
            code: Some("connection_refused".into()),
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

#[tokio::test]
async fn what_belongs_together_survives_a_restart() {
    check_reopened(
        async |store| {
            let appended = store.append(events(0..5).into(), [].into()).await;
            assert_eq!(appended.unwrap(), Seq(0));
            let changes = [
                LedgerChange::Retry(retry(1, 5_000, 1)),
                LedgerChange::Failed(failed(1, 1, 0)),
            ];
            commit(store, changes).await;
        },
        async |store| {
            assert_eq!(store.bounds().await.unwrap(), Seq(0)..Seq(5));
            let kept = retry(1, 5_000, 1);
            let read = store.retries(&[kept.key], ReadLimit::part(1)).await;
            assert_eq!(read.unwrap(), (vec![kept], 1));
            let found = store.failed_delivery(FailedId(1)).await;
            assert_eq!(found.unwrap(), Some(failed(1, 1, 0)));
        },
    )
    .await;
}

/// Everything that is kept, in words.
async fn everything(store: &dyn Engine) -> Vec<String> {
    let any = ReadLimit::part(1_000);
    let webhook = WebhookId(1);
    let keys = store.retry_keys(webhook, None, 1_000).await.unwrap();
    let filter = FailedFilter::default();
    let of_webhook = FailedFilter {
        webhook: Some(webhook),
        ..FailedFilter::default()
    };
    let transactions = TransactionFilter::default();
    let entries = configuration::watched(store).await;
    let entries = entries.lock().unwrap().clone();
    let entries: Vec<_> = entries.into_values().map(|(entry, _)| entry).collect();
    vec![
        format!("{:?}", store.bounds().await),
        format!("{:?}", store.read_from(Seq(0), any).await),
        format!("{:?}", store.progress().await),
        format!("{:?}", store.state().await),
        format!("{:?}", store.retries(&keys, any).await),
        format!("{:?}", store.failed_deliveries(&filter, None, any).await),
        format!(
            "{:?}",
            store.failed_deliveries(&of_webhook, None, any).await
        ),
        format!("{:?}", store.off_cursor_markers(webhook).await),
        format!("{entries:?}"),
        format!("{:?}", store.stations().await),
        format!("{:?}", store.transactions(&transactions, None, 999).await),
        format!("{:?}", store.open_transactions(None, 999).await),
        format!("{:?}", store.transaction(8_991).await),
        format!("{:?}", store.transaction_key().await),
    ]
}

#[tokio::test]
async fn a_backup_has_everything_and_leads_to_the_same_store() {
    let (directory, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = SledStore::open(directory.path()).unwrap();
    configuration::put_one_of_each(&store).await;
    let checkpoint = Checkpoint::Cursor(WebhookId(1), Cursor::at(Seq(2)));
    let appended = store
        .append(events(0..40).into(), [checkpoint].into())
        .await;
    appended.unwrap();
    store.trim(Seq(10), 10).await.unwrap();
    let changes = [
        LedgerChange::Retry(retry(1, 5_000, 1)),
        LedgerChange::Failed(failed(1, 1, 0)),
        LedgerChange::OffCursorMarker(WebhookId(1), Seq(1)),
        LedgerChange::Counts(WebhookId(1), LedgerCounts::default()),
        LedgerChange::Closed(WebhookId(2), DeliveryCounts::default()),
        LedgerChange::RetryTime(7),
    ];
    commit(&store, changes).await;
    let states = vec![StationState::new(StationId::new("S1").unwrap())];
    let transactions = (0..600).map(projections::transaction).collect();
    store.save(states, transactions, Seq(40)).await.unwrap();
    store.reserve(Counter::Webhook, 7).await.unwrap();
    let before = everything(&store).await;

    let mut backup = Vec::new();
    store.back_up(&mut backup).unwrap();
    let path = elsewhere.path();
    SledStore::restore(path, &mut &backup[..], false).unwrap();
    let key = "secrets.key";
    fs::copy(directory.path().join(key), path.join(key)).unwrap();
    let restored = SledStore::open(path).unwrap();
    assert_eq!(everything(&restored).await, before);
    assert_eq!(restored.reserve(Counter::Webhook, 1).await.unwrap(), 8);
    let appended = restored.append(events(40..41).into(), [].into()).await;
    assert_eq!(appended.unwrap(), Seq(40));
}

#[test]
fn one_daemon_for_a_directory() {
    let directory = tempfile::tempdir().unwrap();
    let _first = SledStore::open(directory.path()).unwrap();
    let second = SledStore::open(directory.path()).unwrap_err();
    assert!(matches!(second, super::StoreError::Locked(_)), "{second}");
}
