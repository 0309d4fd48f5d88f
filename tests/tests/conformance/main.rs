//! What every engine must do, run against each of them.

#![expect(clippy::unwrap_used, reason = "a test has no better use for an error")]

mod configuration;
mod jetstream;
mod ledger;
mod log;
mod projections;

use std::{fs, path::Path, sync::Arc, time::Duration};

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

use pipelet_tests::Nats;
use pipeletd::store::{
    Checkpoint, ConfigurationStore, Counter, Engine, LedgerChange, LedgerStore, LogStore,
    ProjectionStore, ReadLimit, ShardStores, StoreError, memory::MemoryStore, sled::SledStore,
};
use tempfile::TempDir;

/// All that an engine keeps, of one shard.
struct Stores {
    log: Arc<dyn LogStore>,
    ledger: Arc<dyn LedgerStore>,
    configuration: Arc<dyn ConfigurationStore>,
    projections: Arc<dyn ProjectionStore>,
}

impl Stores {
    fn new(configuration: Arc<dyn ConfigurationStore>, shard: ShardStores) -> Self {
        Self {
            log: shard.log,
            ledger: shard.ledger,
            configuration,
            projections: shard.projections,
        }
    }
}

impl From<Engine> for Stores {
    fn from(engine: Engine) -> Self {
        let shard = engine.shards.iter().next().cloned();
        Self::new(engine.configuration, shard.expect("a shard"))
    }
}

/// An engine whose stores can be opened again.
enum Kept {
    Sled(TempDir),
    JetStream(Box<Nats>, TempDir),
}

impl Kept {
    /// One of each, or those that this machine can have.
    async fn all() -> Vec<Self> {
        let directory = || tempfile::tempdir().unwrap();
        let mut all = vec![Self::Sled(directory())];
        if let Some(nats) = Nats::start().await {
            all.push(Self::JetStream(Box::new(nats), directory()));
        }
        all
    }

    async fn open(&self) -> Stores {
        match self {
            Self::Sled(directory) => sled(directory.path()).into(),
            Self::JetStream(nats, directory) => jetstream::open(nats, directory).await,
        }
    }
}

fn sled(directory: &Path) -> Engine {
    SledStore::open(directory).unwrap().engine()
}

/// Runs a check against a fresh store of each kind.
async fn check(run: impl AsyncFn(&Stores)) {
    run(&MemoryStore::engine(1).into()).await;
    for kept in Kept::all().await {
        run(&kept.open().await).await;
    }
}

/// Writes, closes, opens again, reads: only what is kept elsewhere can do that.
async fn check_reopened(write: impl AsyncFn(&Stores), read: impl AsyncFn(&Stores)) {
    for kept in Kept::all().await {
        write(&kept.open().await).await;
        read(&kept.open().await).await;
    }
}

async fn commit(store: &Stores, changes: impl Into<Arc<[LedgerChange]>>) {
    store.ledger.commit(changes.into()).await.unwrap();
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

#[tokio::test(flavor = "multi_thread")]
async fn what_belongs_together_survives_a_restart() {
    check_reopened(
        async |store| {
            let appended = store.log.append(events(0..5).into(), [].into()).await;
            assert_eq!(appended.unwrap(), Seq(0));
            let changes = [
                LedgerChange::Retry(retry(1, 5_000, 1)),
                LedgerChange::Failed(failed(1, 1, 0)),
            ];
            commit(store, changes).await;
        },
        async |store| {
            assert_eq!(store.log.bounds().await.unwrap(), Seq(0)..Seq(5));
            let kept = retry(1, 5_000, 1);
            let read = store.ledger.retries(&[kept.key], ReadLimit::part(1)).await;
            assert_eq!(read.unwrap(), (vec![kept], 1));
            let found = store.ledger.failed_delivery(FailedId(1)).await;
            assert_eq!(found.unwrap(), Some(failed(1, 1, 0)));
        },
    )
    .await;
}

/// Everything that is kept, in words.
async fn everything(store: &Stores) -> Vec<String> {
    let any = ReadLimit::part(1_000);
    let webhook = WebhookId(1);
    let keys = store.ledger.retry_keys(webhook, None, 1_000).await.unwrap();
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
        format!("{:?}", store.log.bounds().await),
        format!("{:?}", store.log.read_from(Seq(0), any).await),
        format!("{:?}", store.log.progress().await),
        format!("{:?}", store.ledger.state().await),
        format!("{:?}", store.ledger.retries(&keys, any).await),
        format!(
            "{:?}",
            store.ledger.failed_deliveries(&filter, None, any).await
        ),
        format!(
            "{:?}",
            store.ledger.failed_deliveries(&of_webhook, None, any).await
        ),
        format!("{:?}", store.ledger.off_cursor_markers(webhook).await),
        format!("{entries:?}"),
        format!("{:?}", store.projections.stations().await),
        format!(
            "{:?}",
            store
                .projections
                .transactions(&transactions, None, 999)
                .await
        ),
        format!("{:?}", store.projections.open_transactions(None, 999).await),
        format!("{:?}", store.projections.transaction(8_991).await),
        format!("{:?}", store.configuration.transaction_key().await),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_has_everything_and_leads_to_the_same_store() {
    let (directory, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let engine = sled(directory.path());
    let backup_of = Arc::clone(&engine.backup);
    let store = Stores::from(engine);
    configuration::put_one_of_each(&store).await;
    let checkpoint = Checkpoint::Cursor(WebhookId(1), Cursor::at(Seq(2)));
    let appended = store
        .log
        .append(events(0..40).into(), [checkpoint].into())
        .await;
    appended.unwrap();
    store.log.trim(Seq(10), 10).await.unwrap();
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
    store
        .projections
        .save(states, transactions, Seq(40))
        .await
        .unwrap();
    store
        .configuration
        .reserve(Counter::Webhook, 7)
        .await
        .unwrap();
    let before = everything(&store).await;

    let mut backup = Vec::new();
    backup_of.back_up(&mut backup).unwrap();
    let path = elsewhere.path();
    SledStore::restore(path, &mut &backup[..], false).unwrap();
    let key = "secrets.key";
    fs::copy(directory.path().join(key), path.join(key)).unwrap();
    let restored = Stores::from(sled(path));
    assert_eq!(everything(&restored).await, before);
    assert_eq!(
        restored
            .configuration
            .reserve(Counter::Webhook, 1)
            .await
            .unwrap(),
        8
    );
    let appended = restored.log.append(events(40..41).into(), [].into()).await;
    assert_eq!(appended.unwrap(), Seq(40));
}

#[test]
fn one_daemon_for_a_directory() {
    let directory = tempfile::tempdir().unwrap();
    let _first = SledStore::open(directory.path()).unwrap();
    let second = SledStore::open(directory.path()).unwrap_err();
    assert!(matches!(second, StoreError::Locked(_)), "{second}");
}
