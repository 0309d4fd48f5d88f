//! One webhook's dispatcher: takes what the webhook is owed and sees it settled.
//!
//! It reads forward from the cursor into a bounded window, together with the retries that are
//! due, and keeps some attempts in flight, one for each station. A failed attempt goes to the
//! ledger; only when that is durable does the cursor move past the event. Nothing here is shared
//! with another webhook but the ledger's and the journal's queues. While the store can't be read,
//! what is loaded goes on.

mod attempts;
mod immediate_retry;
mod per_station_queues;
mod reading;
mod writing;

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use jiff::Timestamp;
use pipelet_domain::{
    deliveries::{Retry, RetryKey},
    events::{Event, Seq},
    webhooks::{TargetPolicy, Webhook, WebhookId},
};
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot},
    time::{self, Instant},
};

pub(super) use self::attempts::post;
pub use self::immediate_retry::RetriedNow;
use self::{immediate_retry::ImmediateRetry, per_station_queues::PerStationQueues};
use super::{
    history::History,
    http::{Attempted, ConnectionPool, Destination, PooledConnection, Sender},
    ledger::{Ledger, LedgerError},
    pace::Pace,
    policy::{RetrySchedule, Verdict},
    retry_clock::RetryClock,
    stats::{InFlight, Stats},
};
use crate::{
    journal::{AppendError, Journal, Reader},
    store::{LedgerStore, Ownership, StoreError},
    system::{
        clock::Clock,
        latencies::Latencies,
        limits::memory::{Pool, Share},
    },
};

/// Loaded jobs: waiting, ready or in flight. How many bytes of events they may be is the memory
/// budget's business.
const WINDOW: usize = 2048;
/// Events read forward at once.
const STRIDE: usize = 256;
/// Of the window, how much due retries may take: new events keep their share.
const RETRY_WINDOW: usize = 512;
/// With so many retries waiting, no new events are attempted: the backlog stays in the journal.
const MAX_RETRYING: u64 = 50_000;
/// The least time between two checkpoints of the cursor.
const CHECKPOINT_EVERY: Duration = Duration::from_millis(50);
/// How often an idle or stalled webhook looks after its cursor and its backlog's age.
const TEND_EVERY: Duration = Duration::from_secs(10);
/// How long a store that can't be read is left alone.
const STORE_REST: Duration = Duration::from_millis(250);
/// How long nothing is attempted anew once it could not be noted down that something failed.
const FULL_DISK_REST: Duration = Duration::from_secs(1);

/// How often kept connections are looked after, while there are any.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// What every dispatcher of a shard works with.
#[derive(Debug, Clone)]
pub struct DispatcherContext {
    pub journal: Journal,
    pub ledger: Ledger,
    pub store: Arc<dyn LedgerStore>,
    pub clock: Clock,
    pub retry_clock: RetryClock,
    /// What all dispatchers together may hold of events.
    pub memory: Pool,
    /// Where dispatchers and their attempts run: a runtime of their own, because in the stations'
    /// each step of an attempt would wait for every station that has something to say.
    pub runtime: Handle,
    /// How long attempts took, whosever they were.
    pub attempts: Arc<Latencies>,
    /// Nothing is sent while the shard may be another process's.
    pub ownership: Ownership,
}

/// How attempts are made. This can be changed while the daemon runs.
#[derive(Debug, Clone)]
pub struct DeliverySettings {
    pub sender: Sender,
    /// Where webhooks may lead; the sender goes by the same.
    pub targets: TargetPolicy,
    /// What a delivery that waits for a retry has waited for stays as it is; the next failure goes
    /// by this.
    pub schedule: RetrySchedule,
    /// POSTs in all, the first included; then it is dead-lettered.
    pub max_attempts: u32,
    /// Attempts in flight at once, for one webhook in one shard.
    pub concurrency: usize,
    /// What was not attempted for so long is dead-lettered instead.
    pub backlog_age: Duration,
}

/// What a dispatcher can be asked to do.
#[derive(Debug)]
pub enum Control {
    /// The webhook was changed; its next attempt goes by this.
    Configured {
        webhook: Arc<Webhook>,
        /// Notified once that holds.
        taken: oneshot::Sender<()>,
    },
    /// Notify `watch` of what follows from the next attempt at this event.
    Watch {
        seq: Seq,
        watch: oneshot::Sender<Verdict>,
    },
    /// From the next attempt on, these hold.
    Settings(Arc<DeliverySettings>),
    /// Retries became due without the dispatcher's doing.
    Replayed,
    /// What waits for its retry shall not: the receiver is mended.
    RetryNow(oneshot::Sender<RetriedNow>),
    /// Let what is in flight finish within `grace`, write the cursor down, end.
    Stop { grace: Duration },
    /// Drop everything and end: the webhook is deleted.
    Abandon,
}

/// Counts that others may read at any time.
#[derive(Debug)]
pub struct Progress {
    /// Delivered at the first attempt.
    pub delivered: AtomicU64,
    pub stats: Arc<Stats>,
    /// The oldest event's position whose first attempt is still to be made or to be noted down;
    /// where none is loaded, it is where reading goes on.
    oldest: AtomicU64,
}

impl Progress {
    pub fn starting_at(delivered: u64, stats: Arc<Stats>) -> Self {
        Self {
            delivered: AtomicU64::new(delivered),
            stats,
            oldest: AtomicU64::new(0),
        }
    }

    /// Where the backlog begins, if there is one. While the webhook lags and has nothing loaded,
    /// this may be an event that it does not want, before the first one that it does.
    pub fn oldest(&self) -> Seq {
        Seq(self.oldest.load(Ordering::Relaxed))
    }
}

#[derive(Debug, thiserror::Error)]
pub enum DispatchError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Journal(#[from] AppendError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// One delivery that is loaded.
#[derive(Debug)]
struct Job {
    event: Arc<Event>,
    origin: Origin,
}

#[derive(Debug)]
enum Origin {
    Live(Seq),
    Retry(Box<Retry>),
}

impl Job {
    fn seq(&self) -> Seq {
        match &self.origin {
            Origin::Live(seq) => *seq,
            Origin::Retry(retry) => retry.key.seq,
        }
    }

    /// About how many bytes of memory it takes.
    fn memory_size(&self) -> usize {
        match &self.origin {
            Origin::Live(_) => self.event.memory_size(),
            Origin::Retry(retry) => retry.memory_size(),
        }
    }

    /// The number of its next attempt.
    fn next_attempt(&self) -> u32 {
        match &self.origin {
            Origin::Live(_) => 1,
            Origin::Retry(retry) => retry.attempts.last().map_or(1, |last| last.number + 1),
        }
    }
}

/// An attempt that has ended.
struct Finished {
    job: Job,
    at: Timestamp,
    attempted: Attempted,
    connection: PooledConnection,
}

/// What has become durable.
#[derive(Debug)]
enum Durable {
    /// The delivery is on record outside the happy path, its next attempt due then; its memory is
    /// free.
    OffCursor {
        seq: Seq,
        due: Option<Timestamp>,
        bytes: usize,
    },
    /// The retry at this key is no longer there; the one that replaces it is due then, and its
    /// memory is free.
    Replaced {
        was: RetryKey,
        due: Option<Timestamp>,
        bytes: usize,
    },
    /// A cursor that no longer lists these.
    Checkpoint { off_cursor: Vec<Seq> },
    /// Something that only had to be written.
    Written,
    /// It was not written, because the disk has no room for it: everything is as it was.
    Refused(Box<Durable>),
    /// Whoever writes has ended; the daemon is about to.
    Lost,
}

pub struct Dispatcher {
    context: DispatcherContext,
    settings: Arc<DeliverySettings>,
    webhook: Arc<Webhook>,
    destination: Arc<Destination>,
    reader: Reader,
    control: mpsc::Receiver<Control>,
    progress: Arc<Progress>,
    history: Arc<History>,

    queues: PerStationQueues<Job>,
    /// What events that were read forward take, up to their being settled or on record elsewhere.
    memory: Share,
    /// What retries take. A share of their own, so that new events keep theirs.
    retry_memory: Share,
    attempts: FuturesUnordered<BoxFuture<'static, Finished>>,
    pool: ConnectionPool,
    /// Attempts wait until other webhooks have given some back.
    lacks_sockets: bool,
    /// As the webhook's figures have it.
    in_flight: InFlight,
    /// What came of that, for the next launch.
    awaited_connection: Option<PooledConnection>,
    pace: Pace,
    /// There may be more to read forward.
    may_read: bool,
    /// The store could not be read, and is left alone until then.
    store_rests: Option<Instant>,

    /// Read forward and not settled.
    owed: BTreeSet<Seq>,
    /// Of them, those that are not loaded.
    unloaded: BTreeSet<Seq>,
    /// Ahead of the cursor, but already on record outside the happy path, from before a crash.
    off_cursor_ahead: HashSet<Seq>,
    /// Off the cursor's list, which no durable cursor knows yet.
    off_cursor: Vec<Seq>,
    /// Where the last cursor that was written stands.
    written_to: Seq,
    dirty: bool,
    checkpointing: bool,
    next_checkpoint: Instant,

    /// Retries that are loaded, or whose record is still to be replaced.
    loaded_retries: HashSet<RetryKey>,
    next_due: Option<Timestamp>,
    immediate_retry: Option<ImmediateRetry>,
    watches: HashMap<Seq, oneshot::Sender<Verdict>>,

    durable: FuturesUnordered<BoxFuture<'static, Durable>>,
}

impl std::fmt::Debug for Dispatcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dispatcher")
            .field("webhook", &self.webhook.id)
            .finish_non_exhaustive()
    }
}

impl Dispatcher {
    pub fn new(
        context: DispatcherContext,
        settings: Arc<DeliverySettings>,
        webhook: Arc<Webhook>,
        reader: Reader,
        control: mpsc::Receiver<Control>,
        progress: Arc<Progress>,
        history: Arc<History>,
    ) -> Self {
        let written_to = reader.start().read_to;
        let [memory, retry_memory] = [(); 2].map(|()| context.memory.share());
        Self {
            context,
            pool: settings.sender.pool(),
            lacks_sockets: false,
            in_flight: InFlight::default(),
            awaited_connection: None,
            settings,
            destination: Arc::new(destination(&webhook)),
            webhook,
            reader,
            control,
            progress,
            history,
            queues: PerStationQueues::default(),
            memory,
            retry_memory,
            attempts: FuturesUnordered::new(),
            pace: Pace::new(Instant::now()),
            may_read: true,
            store_rests: None,
            owed: BTreeSet::new(),
            unloaded: BTreeSet::new(),
            off_cursor_ahead: HashSet::new(),
            off_cursor: Vec::new(),
            written_to,
            dirty: false,
            checkpointing: false,
            next_checkpoint: Instant::now(),
            loaded_retries: HashSet::new(),
            next_due: None,
            immediate_retry: None,
            watches: HashMap::new(),
            durable: FuturesUnordered::new(),
        }
    }

    /// Runs until it is told to stop, or the journal, the ledger or the store fails.
    pub async fn run(mut self) -> Result<(), DispatchError> {
        loop {
            let recovered = self.recover().await;
            self.excuse_outage(recovered)?;
            if self.store_rests.is_none() {
                break;
            }
            until_instant(self.store_rests.take()).await;
        }
        let mut tend = time::interval(TEND_EVERY);
        tend.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        let mut sweep = time::interval(SWEEP_EVERY);
        sweep.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        loop {
            let read = self.read_forward().await;
            self.excuse_outage(read)?;
            self.launch();
            let oldest = self.owed.first().copied();
            let oldest = oldest.unwrap_or_else(|| self.reader.position());
            self.progress.oldest.store(oldest.0, Ordering::Relaxed);
            self.checkpoint_if_due().await?;
            let resting = self.resting();
            tokio::select! {
                Some(finished) = self.attempts.next() => {
                    self.settle_all(finished).await?;
                }
                Some(durable) = self.durable.next() => self.on_durable(durable).await?,
                () = self.memory.released() => {}
                () = self.retry_memory.released() => {}
                () = self.reader.woken() => self.may_read = true,
                () = time::sleep_until(self.next_checkpoint), if self.dirty && !self.checkpointing => {}
                () = until(self.context.retry_clock, self.next_due), if self.may_load_retries() => {
                    let loaded = self.load_due().await;
                    self.excuse_outage(loaded)?;
                }
                () = std::future::ready(()), if self.may_load_immediate_retry() => {
                    let loaded = self.load_immediate_retry().await;
                    self.excuse_outage(loaded)?;
                }
                () = std::future::ready(()), if self.wants_to_read() => {}
                () = until_instant(resting) => {}
                connection = self.pool.wait(), if self.lacks_sockets => {
                    self.awaited_connection = Some(connection);
                }
                () = until_instant(self.store_rests), if self.store_rests.is_some() => {
                    self.store_rests = None;
                }
                _ = sweep.tick(), if !self.pool.is_empty() => self.pool.sweep(),
                _ = tend.tick() => {
                    let tended = self.tend().await;
                    self.excuse_outage(tended)?;
                }
                control = self.control.recv() => match control {
                    Some(Control::Configured { webhook, taken }) => {
                        self.destination = Arc::new(destination(&webhook));
                        self.webhook = webhook;
                        self.may_read = true;
                        if !self.webhook.enabled {
                            self.end_immediate_retry();
                            self.unload();
                        }
                        // Who asked may have gone away.
                        let _ = taken.send(());
                    }
                    Some(Control::Watch { seq, watch }) => {
                        self.watches.insert(seq, watch);
                    }
                    Some(Control::Settings(settings)) => {
                        // Those of before lead to where one might not get any more.
                        self.pool = settings.sender.pool();
                        self.settings = settings;
                    }
                    Some(Control::Replayed) => {
                        self.next_due = Some(self.context.retry_clock.now());
                    }
                    Some(Control::RetryNow(caller)) => self.begin_immediate_retry(caller),
                    Some(Control::Abandon) => return self.abandon().await,
                    Some(Control::Stop { grace }) => return self.stop(grace).await,
                    None => return self.stop(Duration::ZERO).await,
                },
            }
        }
    }

    fn id(&self) -> WebhookId {
        self.webhook.id
    }

    /// An outage of the store is no failure: what needs the store is tried again after a rest.
    fn excuse_outage(&mut self, done: Result<(), DispatchError>) -> Result<(), DispatchError> {
        match done {
            Err(DispatchError::Store(error)) if error.is_outage() => {
                self.store_rests = Some(Instant::now() + STORE_REST);
                Ok(())
            }
            done => done,
        }
    }

    /// Loads what the cursor says is owed, and what is known of it from elsewhere.
    async fn recover(&mut self) -> Result<(), DispatchError> {
        let id = self.id();
        let off_cursor = self.context.store.off_cursor_markers(id).await?;
        let due = self.context.store.retry_keys(id, None, 1).await?;
        self.next_due = due.first().copied().and_then(due_time);

        let cursor = self.reader.start().clone();
        let off_cursor: HashSet<_> = off_cursor.into_iter().collect();
        self.unloaded = cursor
            .owed
            .iter()
            .copied()
            .filter(|seq| !off_cursor.contains(seq))
            .collect();
        self.owed.clone_from(&self.unloaded);
        self.dirty = !off_cursor.is_empty();
        self.off_cursor = off_cursor
            .iter()
            .copied()
            .filter(|seq| *seq < cursor.read_to)
            .collect();
        self.off_cursor_ahead = off_cursor
            .into_iter()
            .filter(|seq| *seq >= cursor.read_to)
            .collect();
        Ok(())
    }

    async fn stop(mut self, grace: Duration) -> Result<(), DispatchError> {
        let deadline = Instant::now() + grace;
        while !self.attempts.is_empty() {
            match time::timeout_at(deadline, self.attempts.next()).await {
                Ok(Some(finished)) => self.settle_all(finished).await?,
                Ok(None) => break,
                Err(_) => {
                    // They stay owed, and are sent again after the next start.
                    self.attempts.clear();
                    break;
                }
            }
        }
        while let Some(durable) = self.durable.next().await {
            self.on_durable(durable).await?;
        }
        self.checkpoint().await?;
        while let Some(durable) = self.durable.next().await {
            self.on_durable(durable).await?;
        }
        Ok(())
    }

    async fn abandon(mut self) -> Result<(), DispatchError> {
        self.attempts.clear();
        while self.durable.next().await.is_some() {}
        Ok(())
    }
}

pub(super) fn destination(webhook: &Webhook) -> Destination {
    let Webhook {
        url,
        secret,
        signing,
        ..
    } = webhook;
    Destination::new(url.clone(), secret.as_ref(), signing.as_ref())
}

fn due_time(key: RetryKey) -> Option<Timestamp> {
    Timestamp::from_millisecond(key.due_ms).ok()
}

/// Sleeps until then; for ever where there is no such time.
async fn until_instant(time: Option<Instant>) {
    match time {
        Some(time) => time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// Sleeps until a retry is due; for ever where there is none.
async fn until(clock: RetryClock, due: Option<Timestamp>) {
    let Some(due) = due else {
        return std::future::pending().await;
    };
    let wait = Duration::try_from(due.duration_since(clock.now())).unwrap_or(Duration::ZERO);
    time::sleep(wait).await;
}
