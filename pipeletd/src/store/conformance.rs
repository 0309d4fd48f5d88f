//! What every engine must do, run against each of them.

mod configuration;
mod ledger;
mod log;
mod projections;

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use pipelet_domain::{
    deliveries::{Attempt, DeadReason, FailedDelivery, FailedId, Phases, Retry, RetryKey},
    events::{Event, EventId, EventType, Payload, Seq, StationId},
    webhooks::WebhookId,
};

use super::{
    ConfigurationStore, LedgerChange, LedgerStore, LogStore, ProjectionStore, ReadLimit,
    memory::MemoryStore, sled::SledStore,
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

#[test]
fn one_daemon_for_a_directory() {
    let directory = tempfile::tempdir().unwrap();
    let _first = SledStore::open(directory.path()).unwrap();
    let second = SledStore::open(directory.path()).unwrap_err();
    assert!(matches!(second, super::StoreError::Locked(_)), "{second}");
}
