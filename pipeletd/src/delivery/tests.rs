//! What is left after a crash in the middle of something, and what a start makes of it.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use pipelet_domain::{
    deliveries::{
        Attempt, Cursor, DeliveryCounts, LedgerCounts, Phases, Retry, RetryKey, Stage,
        StoredWebhook, Subscription, SubscriptionVersion,
    },
    events::{Event, EventId, EventType, Payload, Seq, StationId},
    shards::{FailedNumbers, Shards},
    webhooks::{Field, TargetPolicy, Webhook, WebhookDraft, WebhookId, WebhookUrl},
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;

use super::{
    AuditState, Delivery, DeliverySettings, DispatcherContext,
    deleted::KEPT,
    http::{HttpOptions, Resources, Sender},
    ledger::{Entry, Ledger},
    subscriptions,
};
use crate::{
    journal::{Journal, Opened},
    registries::{Registry, Webhooks},
    store::{
        Checkpoint, ConfigurationStore as _, Entry as Configured, LedgerChange, LedgerStore as _,
        LogStore as _, Ownership, ReadLimit, memory::MemoryStore,
    },
    system::{clock::Clock, limits::memory::MemoryBudget},
    telemetry::Spans,
};

const W: WebhookId = WebhookId(1);
/// Where nobody listens: every attempt is refused.
const NOWHERE: &str = "http://127.0.0.1:1/";
const ANYWHERE: TargetPolicy = TargetPolicy {
    allow_private: true,
    allowed: Vec::new(),
};

fn webhook(enabled: bool) -> Webhook {
    let draft = WebhookDraft {
        name: Field::Value("w".to_owned()),
        url: Field::Value(NOWHERE.to_owned()),
        enabled: Field::Value(enabled),
        events: Field::Value(vec!["*".to_owned()]),
        ..WebhookDraft::default()
    };
    let webhook = draft.create(&ANYWHERE).unwrap();
    Webhook {
        revision: if enabled { 1 } else { 2 },
        ..webhook.into_webhook(W, Timestamp::UNIX_EPOCH)
    }
}

fn stored(stage: Stage, enabled: bool) -> StoredWebhook {
    let webhook = webhook(enabled);
    StoredWebhook { webhook, stage }
}

/// It wants everything from the journal's beginning on.
fn subscribed() -> Checkpoint {
    let version = SubscriptionVersion {
        from: Seq(0),
        subscription: Subscription::of(&webhook(true)),
    };
    Checkpoint::Subscription(W, [version].into())
}

fn event(number: u8) -> Arc<Event> {
    event_of(&format!("S{number}"), number)
}

fn event_of(station: &str, number: u8) -> Arc<Event> {
    let station = StationId::new(station).unwrap();
    let id = EventId::from_bytes([number; 16]);
    let now = Clock::system().now();
    Arc::new(Event::new(
        id,
        EventType::Heartbeat,
        station,
        now,
        None,
        Payload::empty(),
    ))
}

fn retry(seq: u64, due_ms: i64) -> Retry {
    let attempt = Attempt {
        number: 1,
        at: Timestamp::UNIX_EPOCH,
        status: Some(500),
        error: None,
        code: None,
        duration: Duration::ZERO,
        phases: Phases::default(),
    };
    Retry {
        key: RetryKey {
            webhook: W,
            due_ms,
            seq: Seq(seq),
        },
        event: event(u8::try_from(seq).unwrap()),
        attempts: vec![attempt],
        round: 1,
        last_response: None,
    }
}

/// Far enough away that no test sees it fall due.
fn far() -> i64 {
    Clock::system().now().as_millisecond() + 3_600_000
}

async fn put(store: &MemoryStore, webhook: StoredWebhook) {
    let put = store.put_if(Configured::Webhook(webhook), None).await;
    put.unwrap();
}

async fn commit(store: &MemoryStore, changes: impl Into<Arc<[LedgerChange]>>) {
    store.commit(changes.into()).await.unwrap();
}

async fn append<const N: usize>(
    store: &MemoryStore,
    events: impl Into<Arc<[Arc<Event>]>>,
    checkpoints: [Checkpoint; N],
) {
    let appended = store.append(events.into(), checkpoints.into()).await;
    appended.unwrap();
}

async fn stored_cursor(store: &MemoryStore) -> Option<Cursor> {
    store.progress().await.unwrap().remove(&W)?.cursor
}

async fn start(store: &Arc<MemoryStore>) -> (Delivery, Ledger) {
    let webhooks = Registry::open(store.clone()).await.unwrap();
    let opened = Journal::open(
        store.clone(),
        subscriptions(&webhooks),
        &MemoryBudget::of(MemoryBudget::SMALLEST),
        Clock::system(),
        CancellationToken::new(),
    )
    .await;
    let Opened {
        journal,
        subscribers,
        ..
    } = opened.unwrap();
    let (clock, ending) = (Clock::system(), CancellationToken::new());
    let (ledger, _) = Ledger::open(store.clone(), FailedNumbers::ONE_SHARD, clock, ending)
        .await
        .unwrap();
    // Whichever test comes first installs it; they all want the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let sender = Sender::new(&HttpOptions {
        timeout: Duration::from_secs(10),
        targets: ANYWHERE,
        extra_roots: None,
        resources: Resources::new(16, 1024),
        spans: Spans::default(),
    });
    let context = DispatcherContext {
        memory: MemoryBudget::of(MemoryBudget::SMALLEST).deliveries,
        journal,
        ledger: ledger.clone(),
        store: store.clone(),
        clock,
        retry_clock: ledger.clock(),
        runtime: tokio::runtime::Handle::current(),
        attempts: Arc::default(),
        ownership: Ownership::exclusive(),
    };
    let settings = DeliverySettings {
        sender: sender.unwrap(),
        targets: ANYWHERE,
        schedule: "1h".parse().unwrap(),
        max_attempts: 7,
        concurrency: 4,
        backlog_age: Duration::from_hours(1),
    };
    let failed = CancellationToken::new();
    (
        Delivery::start(
            Shards::new([context]),
            vec![subscribers],
            settings,
            webhooks,
            clock,
            Arc::default(),
            failed,
        )
        .await
        .unwrap(),
        ledger,
    )
}

#[tokio::test]
async fn a_deletion_that_was_broken_off_is_finished_at_the_start() {
    let store = Arc::new(MemoryStore::default());
    put(&store, stored(Stage::Deleting, false)).await;
    let counts = LedgerCounts {
        off_cursor: 2,
        backfilled: 0,
        retrying: 2,
        ..LedgerCounts::default()
    };
    let retries = [retry(0, far()), retry(1, far())].map(LedgerChange::Retry);
    let changes = [
        LedgerChange::Counts(W, counts),
        LedgerChange::OffCursorMarker(W, Seq(1)),
    ];
    commit(&store, [retries, changes].concat()).await;
    // Five received: two on record outside the happy path, one delivered, two never attempted.
    let cursor = Cursor {
        read_to: Seq(3),
        owed: vec![Seq(1)],
        delivered: 1,
    };
    let events: Vec<_> = (0..5).map(event).collect();
    append(
        &store,
        events,
        [subscribed(), Checkpoint::Cursor(W, cursor)],
    )
    .await;

    let (delivery, _) = start(&store).await;
    assert!(delivery.get(W).await.is_err());
    let books = store.state().await.unwrap().closed[&W];
    assert_eq!(
        (books.received, books.delivered, books.cancelled),
        (5, 1, 4)
    );
    assert!(books.balance());
    assert_eq!(store.retry_keys(W, None, 9).await.unwrap(), []);
    assert_eq!(store.off_cursor_markers(W).await.unwrap(), []);
    // Once that is so in all shards, the rest goes.
    let webhooks = Webhooks::open(store.clone(), Clock::system()).await;
    webhooks.unwrap().end_deletion(W).await.unwrap();
    delivery.take_up(W).await.unwrap();
    assert_eq!(stored_cursor(&store).await, None);
}

#[tokio::test]
async fn what_the_ledger_knows_and_the_cursor_does_not_is_not_owed_twice() {
    let store = Arc::new(MemoryStore::default());
    put(&store, stored(Stage::Active, true)).await;
    // The crash came after the ledger's write and before the cursor's: 1 is owed by the cursor,
    // 3 is not even read yet, and both have their retries.
    let counts = LedgerCounts {
        off_cursor: 2,
        backfilled: 0,
        retrying: 2,
        ..LedgerCounts::default()
    };
    let changes = [
        LedgerChange::Counts(W, counts),
        LedgerChange::OffCursorMarker(W, Seq(1)),
        LedgerChange::OffCursorMarker(W, Seq(3)),
        LedgerChange::Retry(retry(1, far())),
        LedgerChange::Retry(retry(3, far())),
    ];
    commit(&store, changes).await;
    let cursor = Cursor {
        read_to: Seq(3),
        owed: vec![Seq(1)],
        delivered: 2,
    };
    let events: Vec<_> = (0..4).map(event).collect();
    append(
        &store,
        events,
        [subscribed(), Checkpoint::Cursor(W, cursor)],
    )
    .await;

    let (delivery, ledger) = start(&store).await;
    let books = delivery.get(W).await.unwrap().books;
    assert_eq!((books.received, books.delivered, books.retrying), (4, 2, 2));
    delivery.stop(Duration::ZERO).await;
    ledger.stop().await;
    let settled = Cursor {
        read_to: Seq(4),
        owed: vec![],
        delivered: 2,
    };
    assert_eq!(stored_cursor(&store).await, Some(settled));
    assert_eq!(
        store.retry_keys(W, None, 9).await.unwrap().len(),
        2,
        "no third one was made"
    );
    assert_eq!(
        store.off_cursor_markers(W).await.unwrap(),
        [],
        "the cursor knows now"
    );
    assert_eq!(store.state().await.unwrap().counts, [(W, counts)].into());
}

#[tokio::test]
async fn a_failed_attempt_is_on_record_before_the_cursor_moves() {
    let receiver = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut stored = stored(Stage::Active, true);
    let url = format!("http://{}/", receiver.local_addr().unwrap());
    stored.webhook.url = WebhookUrl::parse(&url).unwrap();
    let store = Arc::new(MemoryStore::default());
    put(&store, stored).await;
    let events = [event_of("S", 0), event_of("S", 1)];
    append(&store, events, [subscribed()]).await;

    let (delivery, _) = start(&store).await;
    let held = store.hold_commits().await;
    let (connection, _) = receiver.accept().await.unwrap();
    drop(connection);
    // The station's next event is sent only once the ledger was asked to record this failure.
    let (mut connection, _) = receiver.accept().await.unwrap();
    connection.read_exact(&mut [0; 64]).await.unwrap();
    let ok = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
    connection.write_all(ok).await.unwrap();
    let settled_but = |owed: &[Seq]| Cursor {
        read_to: Seq(2),
        owed: owed.to_vec(),
        delivered: 1,
    };
    let moved = async {
        loop {
            match stored_cursor(&store).await {
                Some(moved) if moved.delivered == 1 => return moved,
                _ => tokio::task::yield_now().await,
            }
        }
    };
    let moved = tokio::time::timeout(Duration::from_secs(30), moved).await;
    assert_eq!(moved, Ok(settled_but(&[Seq(0)])), "not on record yet");

    drop(held);
    delivery.stop(Duration::from_secs(10)).await;
    let keys = store.retry_keys(W, None, 9).await.unwrap();
    let (retries, _) = store.retries(&keys, ReadLimit::part(9)).await.unwrap();
    assert_eq!(retries[0].key.seq, Seq(0));
    assert_eq!(retries[0].attempts.len(), 1);
    assert_eq!(retries[0].attempts[0].status, None);
    assert_eq!(stored_cursor(&store).await, Some(settled_but(&[])));
}

/// Stores a webhook that is deleted, with one event received and cancelled.
async fn put_deleted(store: &MemoryStore, webhook: WebhookId) {
    let books = DeliveryCounts {
        received: 1,
        cancelled: 1,
        ..DeliveryCounts::default()
    };
    let mut deleted = stored(Stage::Deleted, false);
    deleted.webhook.id = webhook;
    put(store, deleted).await;
    commit(store, [LedgerChange::Closed(webhook, books)]).await;
}

#[tokio::test]
async fn of_webhooks_deleted_long_ago_the_sum_of_the_books_stays() {
    let store = Arc::new(MemoryStore::default());
    let ids = 1..=u64::try_from(KEPT).unwrap() + 7;
    for id in ids.clone() {
        put_deleted(&store, WebhookId(id)).await;
    }
    // This one's name is still needed.
    let bearer = WebhookId(3);
    let counts = LedgerCounts {
        off_cursor: 1,
        dead: 1,
        ..LedgerCounts::default()
    };
    commit(&store, [LedgerChange::Counts(bearer, counts)]).await;

    for _ in 0..2 {
        let (delivery, ledger) = start(&store).await;
        // Whatever the start wrote is on disk behind this.
        let seqs = Vec::new();
        let webhook = bearer;
        let entry = Entry::MarkersCleared { webhook, seqs };
        ledger.record_durably(entry).await.unwrap();
        let audit = delivery.audit(None).await.unwrap();
        let kept: Vec<_> = audit.webhooks.iter().map(|audited| audited.id.0).collect();
        let expected = ids.clone().filter(|id| *id == bearer.0 || *id > 7);
        assert_eq!(kept, expected.collect::<Vec<_>>());
        assert_eq!(audit.archived.webhooks, 6);
        assert_eq!(audit.archived.books.received, 6);
        assert_eq!(audit.archived.books.cancelled, 6);
        let is_deleted = |state| matches!(state, AuditState::Deleted(books) if books.balance());
        assert!(audit.webhooks.iter().all(|of| is_deleted(of.state)));
        delivery.stop(Duration::ZERO).await;
        ledger.stop().await;
    }
}

#[tokio::test]
async fn a_retry_that_is_booked_and_not_kept_is_told() {
    let store = Arc::new(MemoryStore::default());
    let counts = LedgerCounts {
        off_cursor: 2,
        retrying: 2,
        ..LedgerCounts::default()
    };
    put(&store, stored(Stage::Active, true)).await;
    let due = far();
    let first = retry(0, due).key;
    let changes = [
        LedgerChange::Counts(W, counts),
        LedgerChange::OffCursorMarker(W, Seq(0)),
        LedgerChange::OffCursorMarker(W, Seq(1)),
        LedgerChange::Retry(retry(0, due)),
        LedgerChange::Retry(retry(1, due)),
    ];
    commit(&store, changes).await;
    let events: Vec<_> = (0..2).map(event).collect();
    append(&store, events, [subscribed()]).await;
    let (delivery, ledger) = start(&store).await;
    for lost in [0, 1] {
        let audit = delivery.audit(None).await.unwrap();
        let AuditState::Active(books, Some(compared)) = audit.webhooks[0].state else {
            panic!("not compared: {audit:?}");
        };
        assert!(books.balance(), "{books:?}");
        assert_eq!(compared.booked.retries, 2);
        assert_eq!(compared.stored.retries, 2 - lost);
        // Behind the ledger's back.
        commit(&store, [LedgerChange::RetryGone(first)]).await;
    }
    delivery.stop(Duration::ZERO).await;
    ledger.stop().await;
}

/// Copies of an event may be due in the same millisecond; each is a delivery of its own.
#[tokio::test]
async fn retries_of_one_event_have_a_record_each() {
    let store = Arc::new(MemoryStore::default());
    put(&store, stored(Stage::Active, true)).await;
    let (_delivery, ledger) = start(&store).await;
    let due = far();
    for _ in 0..2 {
        let again = Entry::Backfilled {
            webhook: W,
            retries: vec![retry(0, due), retry(0, due), retry(1, due)],
        };
        assert!(ledger.record_durably(again).await.unwrap());
    }
    assert_eq!(ledger.counts(W).retrying, 6);
    assert_eq!(store.count_stored(W).await.unwrap().retries, 6);
}
