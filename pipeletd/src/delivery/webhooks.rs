//! The handle on delivery: takes up what the configuration says of webhooks, and runs their
//! dispatchers, one in each shard.
//!
//! A change takes effect at a position of each shard's journal.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::future::{join_all, try_join_all};
use jiff::Timestamp;
use pipelet_domain::{
    deliveries::{
        Cursor, DeliveryCounts, Retry, RetryKey, Stage, StoredWebhook, Subscription,
        SubscriptionVersion,
    },
    events::Seq,
    shards::{ShardId, Shards},
    webhooks::{Webhook, WebhookId},
};
use tokio::{
    runtime::Handle,
    sync::{Mutex, Semaphore, mpsc, oneshot},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument as _;

use super::{
    deleted,
    dispatcher::{Control, DeliverySettings, Dispatcher, DispatcherContext, Progress, RetriedNow},
    health::Health,
    history::History,
    ledger::{Entry, LedgerError},
    observation::OldestRetry,
    stats::{Stats, StatsSnapshot},
};
use crate::{
    journal::{AppendError, Subscriber},
    registries::Registry,
    store::{Part, ReadLimit, StoreError},
    system::{clock::Clock, latencies::Latencies},
};

/// Messages that may wait for a dispatcher.
const CONTROL_QUEUE: usize = 64;
/// Retries that are cancelled at once.
const CANCEL_STRIDE: usize = 1000;
/// How often a deletion is gone on with that an outage holds up.
const FINISH_EVERY: Duration = Duration::from_secs(1);
/// How often it is looked whether somebody else has deleted a webhook.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// How long a caller waits for a change that an outage holds up.
const OUTAGE_PATIENCE: Duration = Duration::from_secs(5);

/// The handle. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Delivery(pub(super) Arc<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) shards: Shards<DispatcherContext>,
    pub(super) clock: Clock,
    /// How long attempts took, whosever they were.
    pub(super) attempts: Arc<Latencies>,
    settings: RwLock<Arc<DeliverySettings>>,
    /// All that are stored, deleted ones included.
    pub(super) webhooks: Registry<StoredWebhook>,
    /// The ones that are not deleted.
    pub(super) running: RwLock<BTreeMap<WebhookId, Arc<Running>>>,
    /// Whose deletion is done here, and is to end everywhere.
    closed: std::sync::Mutex<BTreeSet<WebhookId>>,
    /// Deliveries that were cancelled with their webhooks, since the daemon started.
    pub(super) cancelled: AtomicU64,
    /// Held during a change: what is added to a webhook that is deleted meanwhile is cancelled, or
    /// is not added.
    pub(super) changing: Mutex<()>,
    /// When the last backfilled event was due, in milliseconds.
    pub(super) backfilled_due: AtomicI64,
    /// Held while an event is read for its time alone: of those that many callers ask for, only one
    /// is in memory.
    pub(super) looking: Arc<Semaphore>,
    pub(super) tracker: TaskTracker,
    /// Cancelled when a dispatcher fails: the daemon can't go on without it.
    failed: CancellationToken,
}

/// A webhook whose dispatchers run.
#[derive(Debug)]
pub(super) struct Running {
    stored: RwLock<Arc<StoredWebhook>>,
    pub(super) dispatchers: Shards<DispatcherHandle>,
    pub(super) history: Arc<History>,
    pub(super) stats: Arc<Stats>,
    pub(super) oldest_retry: std::sync::Mutex<OldestRetry>,
}

/// A webhook's dispatcher in one shard.
#[derive(Debug)]
pub(super) struct DispatcherHandle {
    pub(super) control: mpsc::Sender<Control>,
    pub(super) subscriber: Subscriber,
    /// What had been received when the daemon started.
    pub(super) received_before: u64,
    pub(super) progress: Arc<Progress>,
    /// Cancelled once the dispatcher has ended.
    ended: CancellationToken,
}

/// What a webhook was owed in one shard, and what of it was delivered at the first attempt.
#[derive(Debug, Clone, Copy)]
struct Ended {
    received: u64,
    delivered: u64,
}

/// Sums over all webhooks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Totals {
    pub webhooks: u64,
    pub enabled: u64,
    pub pending: u64,
    /// In the table now; those of deleted webhooks too.
    pub failed_deliveries: u64,
}

/// A webhook as its owner sees it.
#[derive(Debug, Clone)]
pub struct WebhookView {
    pub webhook: Webhook,
    pub books: DeliveryCounts,
    pub health: Health,
}

#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    #[error("there is no webhook {}", .0.0)]
    NoSuchWebhook(WebhookId),
    #[error("there is no dead letter {}", .0.0)]
    NoSuchFailedDelivery(pipelet_domain::deliveries::FailedId),
    #[error("webhook {} of this dead letter was deleted; purge it instead", .0.0)]
    WebhookDeleted(WebhookId),
    #[error("webhook {} is disabled: what it is sent would wait", .0.0)]
    WebhookDisabled(WebhookId),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Journal(#[from] AppendError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl DeliveryError {
    /// Whether the same may work later.
    fn is_outage(&self) -> bool {
        match self {
            Self::Ledger(_) | Self::Journal(AppendError::Failing(_)) => true,
            Self::Store(error) => error.is_outage(),
            Self::NoSuchWebhook(_)
            | Self::NoSuchFailedDelivery(_)
            | Self::WebhookDeleted(_)
            | Self::WebhookDisabled(_)
            | Self::Journal(AppendError::Stopped) => false,
        }
    }
}

/// What the journal needs to know of the stored webhooks to open.
pub fn subscriptions(webhooks: &Registry<StoredWebhook>) -> Vec<(WebhookId, Subscription)> {
    let webhooks = webhooks.read();
    let stored = webhooks.values().map(|found| &found.value);
    let subscribed = stored.filter(|stored| stored.stage != Stage::Deleted);
    let subscribed = subscribed.map(|stored| &stored.webhook);
    subscribed
        .map(|webhook| (webhook.id, Subscription::of(webhook)))
        .collect()
}

impl Delivery {
    /// Starts the dispatchers of each stored webhook, and finishes deletions that a crash broke off.
    /// The webhooks' places in each shard are the same ones, in the same order.
    pub async fn start(
        shards: Shards<DispatcherContext>,
        subscribers: Vec<Vec<(Subscriber, Cursor)>>,
        settings: DeliverySettings,
        webhooks: Registry<StoredWebhook>,
        clock: Clock,
        attempts: Arc<Latencies>,
        failed: CancellationToken,
    ) -> Result<Self, DeliveryError> {
        let mut places: BTreeMap<WebhookId, Vec<(Subscriber, Cursor)>> = BTreeMap::new();
        for (subscriber, cursor) in subscribers.into_iter().flatten() {
            let of_webhook = places.entry(subscriber.webhook()).or_default();
            of_webhook.push((subscriber, cursor));
        }
        let delivery = Self(Arc::new(Inner {
            shards,
            clock,
            attempts,
            settings: RwLock::new(Arc::new(settings)),
            webhooks,
            running: RwLock::default(),
            closed: std::sync::Mutex::default(),
            cancelled: AtomicU64::new(0),
            changing: Mutex::default(),
            backfilled_due: AtomicI64::new(0),
            looking: Arc::new(Semaphore::new(1)),
            tracker: TaskTracker::new(),
            failed,
        }));
        for (id, places) in places {
            let Some(found) = delivery.0.webhooks.find(&id) else {
                continue;
            };
            let stored = found.value;
            match stored.stage {
                Stage::Active => delivery.0.run(stored, places),
                Stage::Deleting => {
                    let ended = places.iter().map(|(subscriber, cursor)| Ended {
                        received: subscriber.received(),
                        delivered: cursor.delivered,
                    });
                    let ended = delivery.0.shards.with_values(ended);
                    delivery.0.finish_deletion(id, ended).await?;
                }
                Stage::Deleted => {}
            }
        }
        deleted::archive_old(&delivery.0).await;
        Ok(delivery)
    }

    /// Does what the configuration says of a webhook by now. Returns, where it is deleted, how many
    /// deliveries were cancelled with it.
    pub async fn take_up(&self, id: WebhookId) -> Result<u64, DeliveryError> {
        self.detached(move |inner| async move { inner.take_up(id).await })
            .await
    }

    /// Takes up what is changed elsewhere, for as long as it is polled.
    pub async fn follow(self) {
        let mut changes = self.0.webhooks.changes();
        loop {
            changes.mark_unchanged();
            let mut is_late = false;
            for id in self.0.behind() {
                if let Err(error) = self.take_up(id).await {
                    tracing::debug!(webhook = id.0, %error, "a change is taken up later");
                    is_late = true;
                }
            }
            if is_late {
                let _ = timeout(FINISH_EVERY, changes.changed()).await;
            } else if changes.changed().await.is_err() {
                return;
            }
        }
    }

    pub fn shard_ids(&self) -> impl Iterator<Item = ShardId> {
        self.0.shards.ids()
    }

    /// Whether events can be taken down.
    pub fn check_journals(&self) -> Result<(), DeliveryError> {
        Ok(self.0.check_journals()?)
    }

    /// Whether what becomes of them can be.
    pub fn check_ledgers(&self) -> Result<(), DeliveryError> {
        Ok(self.0.check_ledgers()?)
    }

    pub async fn get(&self, id: WebhookId) -> Result<WebhookView, DeliveryError> {
        Ok(self.0.view(&self.0.running(id)?).await)
    }

    /// Sums over all webhooks.
    pub fn totals(&self) -> Totals {
        let webhooks = self
            .0
            .running
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let mut totals = Totals {
            webhooks: webhooks.len() as u64,
            enabled: 0,
            pending: 0,
            failed_deliveries: self.0.dead(),
        };
        for (id, running) in webhooks.iter() {
            totals.enabled += u64::from(running.stored().webhook.enabled);
            totals.pending += self.0.books(running, *id).pending;
        }
        totals
    }

    /// The wall time of a retry, as far as the wall clock can be trusted now.
    pub fn due_at(&self, retry: RetryKey) -> Option<Timestamp> {
        let due = Timestamp::from_millisecond(retry.due_ms).ok()?;
        let shard = self.0.shards.at(retry.seq)?;
        Some(shard.retry_clock.as_wall(due, self.0.clock.now()))
    }

    /// Sends what waits for a retry before it is due: one first, then more as long as none fails.
    /// Returns how many wait, and what ends when that does, with how it went: none
    /// where the webhook was disabled or deleted meanwhile.
    pub async fn retry_now(
        &self,
        id: WebhookId,
    ) -> Result<(u64, impl Future<Output = Option<RetriedNow>> + use<>), DeliveryError> {
        let running = self.0.running(id)?;
        if !running.stored().webhook.enabled {
            return Err(DeliveryError::WebhookDisabled(id));
        }
        let waiting = self.0.sum_of(|shard| shard.ledger.counts(id).retrying);
        let mut outcomes = Vec::new();
        for dispatcher in &running.dispatchers {
            // One that has ended is deleted, or the daemon is.
            let (caller, outcome) = oneshot::channel();
            let _ = dispatcher.control.send(Control::RetryNow(caller)).await;
            outcomes.push(outcome);
        }
        let outcome = async {
            let ended = try_join_all(outcomes).await.ok()?;
            Some(
                ended
                    .into_iter()
                    .fold(RetriedNow::default(), RetriedNow::plus),
            )
        };
        Ok((waiting, outcome))
    }

    /// When the next retry is due, if one waits.
    pub async fn next_retry(&self, id: WebhookId) -> Result<Option<Timestamp>, DeliveryError> {
        let keys = self.0.retry_keys(id, None, 1).await?;
        Ok(keys.first().and_then(|key| self.due_at(*key)))
    }

    /// Deliveries that wait for a retry, by due time.
    pub(super) async fn retries(
        &self,
        id: WebhookId,
        after: Option<RetryKey>,
        limit: ReadLimit,
    ) -> Result<Part<Retry>, DeliveryError> {
        self.0.running(id)?;
        let keys = self.0.retry_keys(id, after, limit.count).await?;
        let (items, looked_at) = self.0.retries(&keys, limit).await?;
        // There may be more in the place of one that is settled meanwhile, which is left out.
        let has_gap = keys.len() == limit.count && items.len() < keys.len();
        let is_cut = looked_at < keys.len() || has_gap;
        Ok(Part { items, is_cut })
    }

    /// What the webhook's attempts came to since the daemon started.
    pub fn stats(&self, id: WebhookId) -> Result<StatsSnapshot, DeliveryError> {
        Ok(self.0.running(id)?.stats.snapshot())
    }

    /// These settings hold from the next attempt of each webhook on.
    pub async fn change_settings(&self, settings: DeliverySettings) {
        let settings = Arc::new(settings);
        // Whoever is not yet among the webhooks after this begins with the new ones.
        *self
            .0
            .settings
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Arc::clone(&settings);
        for control in self.0.controls() {
            // One that has ended needs none.
            let _ = control.send(Control::Settings(Arc::clone(&settings))).await;
        }
    }

    /// Lets what is in flight finish within `grace`, and writes every cursor down.
    pub async fn stop(&self, grace: Duration) {
        // A webhook that is being made is stopped with the others, and no further one is made.
        let changing = self.0.changing.lock().await;
        self.0.tracker.close();
        drop(changing);
        let webhooks = self.0.running.read();
        let webhooks = webhooks.unwrap_or_else(PoisonError::into_inner).clone();
        for dispatcher in webhooks.values().flat_map(|running| &running.dispatchers) {
            // One that has ended already needs no message.
            let _ = dispatcher.control.send(Control::Stop { grace }).await;
        }
        self.0.tracker.wait().await;
    }

    /// Ends in the middle of whatever is done: somebody else delivers.
    pub async fn abandon(&self) {
        let changing = self.0.changing.lock().await;
        self.0.tracker.close();
        drop(changing);
        for control in self.0.controls() {
            // One that has ended already needs no message.
            let _ = control.send(Control::Abandon).await;
        }
        self.0.tracker.wait().await;
    }

    /// Runs a change to its end, also when its caller goes away meanwhile.
    pub(super) async fn detached<T, F, R>(&self, run: R) -> Result<T, DeliveryError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, DeliveryError>> + Send,
        R: FnOnce(Arc<Inner>) -> F + Send + 'static,
    {
        let inner = Arc::clone(&self.0);
        let running = async move { run(inner).await };
        // Under the id of the request that asks for it.
        let mut task = self.0.tracker.spawn(running.in_current_span());
        let ended = loop {
            if let Ok(ended) = timeout(OUTAGE_PATIENCE, &mut task).await {
                break ended;
            }
            // It goes on when the outage is over; its caller is told why not now.
            self.0.check_journals()?;
            self.0.check_ledgers()?;
        };
        match ended {
            Ok(result) => result,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(AppendError::Stopped.into()),
            },
        }
    }
}

impl Inner {
    pub(super) fn running(&self, id: WebhookId) -> Result<Arc<Running>, DeliveryError> {
        let webhooks = self.running.read().unwrap_or_else(PoisonError::into_inner);
        webhooks
            .get(&id)
            .cloned()
            .ok_or(DeliveryError::NoSuchWebhook(id))
    }

    fn settings(&self) -> Arc<DeliverySettings> {
        let settings = self.settings.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&settings)
    }

    fn controls(&self) -> Vec<mpsc::Sender<Control>> {
        let webhooks = self.running.read().unwrap_or_else(PoisonError::into_inner);
        let dispatchers = webhooks.values().flat_map(|running| &running.dispatchers);
        let controls = dispatchers.map(|dispatcher| dispatcher.control.clone());
        controls.collect()
    }

    fn forget(&self, id: WebhookId) {
        self.running
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&id);
    }

    /// Those of which the configuration says something else by now.
    fn behind(&self) -> Vec<WebhookId> {
        let stored = self.webhooks.list(None, |_| true, usize::MAX);
        let is_behind = |stored: &Arc<StoredWebhook>| {
            let (id, running) = (stored.webhook.id, self.running(stored.webhook.id).ok());
            match stored.stage {
                Stage::Active => {
                    running.is_none_or(|it| it.stored().webhook.revision < stored.webhook.revision)
                }
                Stage::Deleting => running.is_some(),
                Stage::Deleted => running.is_some() || self.closed().contains(&id),
            }
        };
        let behind = stored.iter().filter(|stored| is_behind(stored));
        behind.map(|stored| stored.webhook.id).collect()
    }

    async fn take_up(self: &Arc<Self>, id: WebhookId) -> Result<u64, DeliveryError> {
        loop {
            if let Some(cancelled) = self.try_take_up(id).await? {
                return Ok(cancelled);
            }
            if self.tracker.is_closed() {
                return Err(AppendError::Stopped.into());
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    /// None while somebody else deletes it.
    async fn try_take_up(self: &Arc<Self>, id: WebhookId) -> Result<Option<u64>, DeliveryError> {
        let changing = self.changing.lock().await;
        let Some(found) = self.webhooks.find(&id) else {
            return Ok(Some(0));
        };
        let stored = found.value;
        match (stored.stage, self.running(id)) {
            (Stage::Active, Err(_)) => {
                if self.tracker.is_closed() {
                    return Err(AppendError::Stopped.into());
                }
                let places = self.subscribe(&stored).await?;
                self.run(stored, places);
                Ok(Some(0))
            }
            (Stage::Active, Ok(running)) => {
                running.replace(Arc::clone(&stored));
                drop(changing);
                // Attempts go by it at once, also where the journal has an outage.
                running.configure().await;
                self.subscribe(&stored).await?;
                Ok(Some(0))
            }
            (Stage::Deleting | Stage::Deleted, Ok(running)) => {
                self.forget(id);
                drop(changing);
                self.subscribe(&stored).await?;
                let ended = running.abandon().await;
                let cancelled = self.cancel_the_rest(id, &ended).await?.cancelled;
                self.cancelled.fetch_add(cancelled, Ordering::Relaxed);
                Ok(Some(cancelled))
            }
            (Stage::Deleting, Err(_)) => {
                let books = self.ledger_books().closed.get(&id).copied();
                let books = books.filter(|_| self.closed().contains(&id));
                Ok(books.map(|books| books.cancelled))
            }
            (Stage::Deleted, Err(_)) => {
                drop(changing);
                let shards = self.shards.iter();
                try_join_all(shards.map(|shard| shard.journal.unsubscribe(id))).await?;
                self.closed().remove(&id);
                deleted::archive_old(self).await;
                Ok(Some(0))
            }
        }
    }

    /// Those whose deletion is done here, and is to end everywhere.
    fn closed(&self) -> MutexGuard<'_, BTreeSet<WebhookId>> {
        self.closed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the journals take up what a webhook wants, which may have to wait for an outage's end.
    /// Where a crash comes before, the next start does it. Returns the webhook's place in each.
    async fn subscribe(
        &self,
        stored: &StoredWebhook,
    ) -> Result<Vec<(Subscriber, Cursor)>, DeliveryError> {
        let (id, wanted) = (stored.webhook.id, Subscription::of(&stored.webhook));
        let shards = self.shards.iter();
        let subscribed = shards.map(|shard| shard.journal.subscribe(id, wanted.clone()));
        Ok(try_join_all(subscribed).await?)
    }

    fn run(&self, stored: Arc<StoredWebhook>, places: Vec<(Subscriber, Cursor)>) {
        let (history, stats) = (Arc::default(), Arc::default());
        let webhook = Arc::new(stored.webhook.clone());
        let id = webhook.id;
        // Held from here on, so that the settings can't change unseen.
        let mut webhooks = self.running.write().unwrap_or_else(PoisonError::into_inner);
        let dispatchers = self.shards.iter().zip(places);
        let dispatchers = dispatchers.map(|(context, (subscriber, cursor))| {
            let (control, requests) = mpsc::channel(CONTROL_QUEUE);
            let stats = Arc::clone(&stats);
            let handle = DispatcherHandle {
                control,
                received_before: subscriber.received(),
                progress: Arc::new(Progress::starting_at(cursor.delivered, stats)),
                ended: CancellationToken::new(),
                subscriber,
            };
            let dispatcher = Dispatcher::new(
                context.clone(),
                self.settings(),
                Arc::clone(&webhook),
                handle.subscriber.read_from(cursor),
                requests,
                Arc::clone(&handle.progress),
                Arc::clone(&history),
            );
            self.dispatch(id, dispatcher, &handle, &context.runtime);
            handle
        });
        let running = Running {
            stored: RwLock::new(stored),
            dispatchers: self.shards.with_values(dispatchers),
            history: Arc::clone(&history),
            stats: Arc::clone(&stats),
            oldest_retry: std::sync::Mutex::default(),
        };
        webhooks.insert(id, Arc::new(running));
    }

    fn dispatch(
        &self,
        id: WebhookId,
        dispatcher: Dispatcher,
        handle: &DispatcherHandle,
        runtime: &Handle,
    ) {
        // Both guards also act when the dispatcher panics.
        let ended = handle.ended.clone().drop_guard();
        let failed = self.failed.clone().drop_guard();
        let dispatching = async move {
            let _ended = ended;
            match dispatcher.run().await {
                Ok(()) => {
                    failed.disarm();
                }
                Err(error) => tracing::error!(webhook = id.0, %error, "a dispatcher failed"),
            }
        };
        self.tracker.spawn_on(dispatching, runtime);
    }

    async fn view(&self, running: &Arc<Running>) -> WebhookView {
        let stored = running.stored();
        WebhookView {
            webhook: stored.webhook.clone(),
            books: self.books(running, stored.webhook.id),
            health: self.health(running, true).await,
        }
    }

    pub(super) fn books(&self, running: &Running, id: WebhookId) -> DeliveryCounts {
        let shards = self.shards.iter().zip(&running.dispatchers);
        let books = shards.map(|(shard, dispatcher)| dispatcher.books(shard, id));
        books.fold(DeliveryCounts::default(), DeliveryCounts::plus)
    }

    /// Goes on with a deletion that a crash broke off. During an outage it is tried again and again
    /// beside all else: the daemon has to start on a full disk, too.
    async fn finish_deletion(
        self: &Arc<Self>,
        id: WebhookId,
        ended: Shards<Ended>,
    ) -> Result<(), DeliveryError> {
        match self.cancel_the_rest(id, &ended).await {
            Err(error) if error.is_outage() => {
                tracing::warn!(webhook = id.0, %error, "the deletion is finished later");
            }
            done => return done.map(drop),
        }
        let (inner, failed) = (Arc::clone(self), self.failed.clone());
        self.tracker.spawn(async move {
            while failed.run_until_cancelled(sleep(FINISH_EVERY)).await.is_some() {
                match inner.cancel_the_rest(id, &ended).await {
                    Err(error) if error.is_outage() && !inner.tracker.is_closed() => {}
                    Err(error) => {
                        return tracing::error!(webhook = id.0, %error, "it is deleted only in part");
                    }
                    Ok(_) => return,
                }
            }
        });
        Ok(())
    }

    /// The second half of a deletion, as far as it is these shards'; begun again after a crash, it
    /// ends the same.
    async fn cancel_the_rest(
        &self,
        id: WebhookId,
        ended: &Shards<Ended>,
    ) -> Result<DeliveryCounts, DeliveryError> {
        let mut books = DeliveryCounts::default();
        for (shard, ended) in self.shards.iter().zip(ended) {
            books = books.plus(close(shard, id, *ended).await?);
        }
        self.closed().insert(id);
        Ok(books)
    }
}

/// Cancels what a webhook is owed in a shard, and draws its final books up.
async fn close(
    DispatcherContext { ledger, store, .. }: &DispatcherContext,
    id: WebhookId,
    Ended {
        received,
        delivered,
    }: Ended,
) -> Result<DeliveryCounts, DeliveryError> {
    loop {
        let mut retries = store.retry_keys(id, None, CANCEL_STRIDE).await?;
        if retries.is_empty() {
            break;
        }
        let limit = ReadLimit::part(CANCEL_STRIDE);
        let (found, looked_at) = store.retries(&retries, limit).await?;
        retries.truncate(looked_at);
        let entry = Entry::Cancelled {
            webhook: id,
            retries,
            size: found.iter().map(Retry::size).sum(),
        };
        ledger.record_durably(entry).await?;
    }
    let seqs = store.off_cursor_markers(id).await?;
    let entry = Entry::MarkersCleared { webhook: id, seqs };
    ledger.record_durably(entry).await?;

    let books = DeliveryCounts::of(received, delivered, ledger.counts(id)).closed();
    let entry = Entry::Closed { webhook: id, books };
    ledger.record_durably(entry).await?;
    Ok(books)
}

impl DispatcherHandle {
    pub(super) fn books(&self, shard: &DispatcherContext, id: WebhookId) -> DeliveryCounts {
        // In this order, so that nothing is settled that was not yet received.
        let counts = shard.ledger.counts(id);
        let delivered = self.progress.delivered.load(Ordering::Relaxed);
        DeliveryCounts::of(self.subscriber.received(), delivered, counts)
    }
}

impl Running {
    pub(super) fn stored(&self) -> Arc<StoredWebhook> {
        Arc::clone(&self.stored.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn replace(&self, stored: Arc<StoredWebhook>) {
        *self.stored.write().unwrap_or_else(PoisonError::into_inner) = stored;
    }

    /// Tells the dispatchers of the webhook as it is now, and returns once their next attempts go
    /// by that.
    async fn configure(&self) {
        let webhook = Arc::new(self.stored().webhook.clone());
        let mut taken_up = Vec::new();
        for dispatcher in &self.dispatchers {
            let (taken, confirmed) = oneshot::channel();
            let webhook = Arc::clone(&webhook);
            let configured = Control::Configured { webhook, taken };
            // A dispatcher that has ended has no more attempts to make.
            let _ = dispatcher.control.send(configured).await;
            taken_up.push(confirmed);
        }
        join_all(taken_up).await;
    }

    /// Ends the dispatchers in the middle of whatever they do.
    async fn abandon(&self) -> Shards<Ended> {
        for dispatcher in &self.dispatchers {
            // A full or closed queue is no matter: the dispatcher ends when its handles do.
            let _ = dispatcher.control.send(Control::Abandon).await;
        }
        join_all(self.dispatchers.iter().map(|it| it.ended.cancelled())).await;
        self.dispatchers.map(|dispatcher| Ended {
            received: dispatcher.subscriber.received(),
            delivered: dispatcher.progress.delivered.load(Ordering::Relaxed),
        })
    }

    /// Where an event's delivery is, by its position. None where there is no such shard.
    pub(super) fn dispatcher_at(&self, seq: Seq) -> Option<&DispatcherHandle> {
        self.dispatchers.at(seq)
    }

    /// What the webhook wants, and wanted before, in the shard of this position.
    pub(super) fn versions_at(&self, seq: Seq) -> Arc<[SubscriptionVersion]> {
        let dispatcher = self.dispatcher_at(seq);
        dispatcher.map_or_else(Arc::default, |it| it.subscriber.versions())
    }
}
