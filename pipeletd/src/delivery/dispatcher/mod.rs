//! One webhook's dispatcher: takes what the webhook is owed and sees it settled.
//!
//! It reads forward from the cursor into a bounded window, together with the retries that are
//! due, and keeps some attempts in flight, one for each station. A failed attempt goes to the
//! ledger; only when that is durable does the cursor move past the event. Nothing here is shared
//! with another webhook but the ledger's and the journal's queues.

mod lanes;

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
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::{self, Instant},
};

use self::lanes::Lanes;
use super::{
    history::History,
    http::{Attempted, Post, Sender},
    ledger::{Entry, Ledger, LedgerError},
    policy::{RetrySchedule, Verdict, decide},
    record::{Attempt, Cursor, DeadReason, FailedDelivery, FailedId, Retry, RetryKey},
};
use crate::{
    clock::Clock,
    events::{Event, Seq},
    journal::{AppendError, Journal, Reader},
    store::{Store, StoreError, blocking},
    webhooks::{Webhook, WebhookId},
};

/// Loaded jobs: waiting, ready or in flight. Bounds the memory of a webhook.
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

/// What every dispatcher works with.
#[derive(Debug, Clone)]
pub struct Means {
    pub journal: Journal,
    pub ledger: Ledger,
    pub store: Arc<dyn Store>,
    pub sender: Sender,
    pub clock: Clock,
    pub options: Options,
}

#[derive(Debug, Clone)]
pub struct Options {
    pub schedule: RetrySchedule,
    /// POSTs in all, the first included; then it is dead-lettered.
    pub max_attempts: u32,
    /// Attempts in flight at once, for one webhook.
    pub concurrency: usize,
    /// What was not attempted for so long is dead-lettered instead.
    pub backlog_age: Duration,
}

/// What a dispatcher can be told.
#[derive(Debug)]
pub enum Control {
    /// The webhook was changed; its next attempt goes by this.
    Configured(Arc<Webhook>),
    /// Tell `watch` whether the next attempt at this event delivers it.
    Watch {
        seq: Seq,
        watch: oneshot::Sender<bool>,
    },
    /// So many retries became due without the dispatcher's doing.
    Replayed { count: u64 },
    /// Let what is in flight finish within `grace`, write the cursor down, end.
    Stop { grace: Duration },
    /// Drop everything and end: the webhook is deleted.
    Abandon,
}

/// Counts that others may read at any time.
#[derive(Debug, Default)]
pub struct Progress {
    /// Delivered at the first attempt.
    pub delivered: AtomicU64,
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
}

/// What has become durable.
#[derive(Debug)]
enum Durable {
    /// The delivery is on record outside the happy path.
    Moved(Seq),
    /// The retry at this key is no longer there.
    Replaced(RetryKey),
    /// A cursor that knows these moves.
    Checkpoint { moved: Vec<Seq> },
    /// Something that only had to be written.
    Written,
    /// Whoever writes has ended; the daemon is about to.
    Lost,
}

pub struct Dispatcher {
    means: Means,
    webhook: Arc<Webhook>,
    reader: Reader,
    control: mpsc::Receiver<Control>,
    progress: Arc<Progress>,
    history: Arc<History>,

    lanes: Lanes<Job>,
    attempts: JoinSet<Finished>,
    /// There may be more to read forward.
    may_read: bool,

    /// Read forward and not settled.
    owed: BTreeSet<Seq>,
    /// Ahead of the cursor, but already on record outside the happy path, from before a crash.
    moved_ahead: HashSet<Seq>,
    /// Moves that no durable cursor knows yet.
    moved: Vec<Seq>,
    dirty: bool,
    checkpointing: bool,
    next_checkpoint: Instant,

    /// Retries that are loaded, or whose record is still to be replaced.
    loaded_retries: HashSet<RetryKey>,
    retrying: u64,
    next_due: Option<Timestamp>,
    watches: HashMap<Seq, oneshot::Sender<bool>>,

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
        means: Means,
        webhook: Arc<Webhook>,
        reader: Reader,
        control: mpsc::Receiver<Control>,
        progress: Arc<Progress>,
        history: Arc<History>,
    ) -> Self {
        Self {
            means,
            webhook,
            reader,
            control,
            progress,
            history,
            lanes: Lanes::default(),
            attempts: JoinSet::new(),
            may_read: true,
            owed: BTreeSet::new(),
            moved_ahead: HashSet::new(),
            moved: Vec::new(),
            dirty: false,
            checkpointing: false,
            next_checkpoint: Instant::now(),
            loaded_retries: HashSet::new(),
            retrying: 0,
            next_due: None,
            watches: HashMap::new(),
            durable: FuturesUnordered::new(),
        }
    }

    /// Runs until it is told to stop, or the journal, the ledger or the store fails.
    pub async fn run(mut self) -> Result<(), DispatchError> {
        self.recover().await?;
        let mut tend = time::interval(TEND_EVERY);
        tend.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        loop {
            self.read_forward().await?;
            self.launch();
            self.checkpoint_if_due().await?;
            tokio::select! {
                Some(finished) = self.attempts.join_next() => {
                    self.settle_all(finished).await?;
                }
                Some(durable) = self.durable.next() => self.on_durable(durable).await?,
                () = self.reader.woken() => self.may_read = true,
                () = time::sleep_until(self.next_checkpoint), if self.dirty && !self.checkpointing => {}
                () = until(&self.means.clock, self.next_due), if self.may_load_retries() => {
                    self.load_due().await?;
                }
                () = std::future::ready(()), if self.wants_to_read() => {}
                _ = tend.tick() => self.tend().await?,
                told = self.control.recv() => match told {
                    Some(Control::Configured(webhook)) => {
                        self.webhook = webhook;
                        self.may_read = true;
                    }
                    Some(Control::Watch { seq, watch }) => {
                        self.watches.insert(seq, watch);
                    }
                    Some(Control::Replayed { count }) => {
                        self.retrying += count;
                        self.next_due = Some(self.means.clock.now());
                    }
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

    /// Loads what the cursor says is owed, and what is known of it from elsewhere.
    async fn recover(&mut self) -> Result<(), DispatchError> {
        let id = self.id();
        let store = Arc::clone(&self.means.store);
        let (moved, due) = blocking(move || {
            let first = store.retries(id, None, 1)?;
            Ok::<_, StoreError>((store.moved(id)?, first.first().map(|retry| retry.key)))
        })
        .await?;
        self.next_due = due.and_then(due_time);
        self.retrying = self.means.ledger.account(id).retrying;

        let cursor = self.reader.start().clone();
        self.progress
            .delivered
            .store(cursor.delivered, Ordering::Relaxed);
        let moved: HashSet<_> = moved.into_iter().collect();
        let owed: Vec<_> = cursor
            .owed
            .iter()
            .copied()
            .filter(|seq| !moved.contains(seq))
            .collect();
        for (seq, event) in self.reader.fetch(&owed).await? {
            self.load(seq, event);
        }
        self.dirty = !moved.is_empty();
        self.moved = moved
            .iter()
            .copied()
            .filter(|seq| *seq < cursor.read_to)
            .collect();
        self.moved_ahead = moved
            .into_iter()
            .filter(|seq| *seq >= cursor.read_to)
            .collect();
        Ok(())
    }

    // Reading.

    fn wants_to_read(&self) -> bool {
        self.may_read
            && self.webhook.enabled
            && self.lanes.len() < WINDOW
            && self.retrying < MAX_RETRYING
    }

    async fn read_forward(&mut self) -> Result<(), DispatchError> {
        if self.wants_to_read() {
            self.read_stride().await?;
        }
        Ok(())
    }

    async fn read_stride(&mut self) -> Result<(), DispatchError> {
        let room = WINDOW.saturating_sub(self.lanes.len()).min(STRIDE);
        let read = self.reader.read(room).await?;
        self.may_read = !read.caught_up;
        let oldest = self.means.clock.now() - self.means.options.backlog_age;
        for (seq, event) in read.events {
            if self.moved_ahead.remove(&seq) {
                self.moved.push(seq);
                self.dirty = true;
            } else if event.time < oldest {
                self.give_up_unattempted(seq, event).await?;
            } else {
                self.load(seq, event);
            }
        }
        Ok(())
    }

    fn load(&mut self, seq: Seq, event: Arc<Event>) {
        self.owed.insert(seq);
        let station = event.station.clone();
        self.lanes.push(
            &station,
            Job {
                event,
                origin: Origin::Live(seq),
            },
        );
    }

    async fn give_up_unattempted(
        &mut self,
        seq: Seq,
        event: Arc<Event>,
    ) -> Result<(), DispatchError> {
        self.owed.insert(seq);
        let failed = FailedDelivery {
            // The ledger gives it its number.
            id: FailedId(0),
            webhook: self.id(),
            seq,
            event,
            attempts: Vec::new(),
            reason: DeadReason::TooOld,
            failed_at: self.means.clock.now(),
            last_response: None,
        };
        tracing::warn!(webhook = self.id().0, event = %failed.event.id, "gave an event up: too old");
        self.record(Entry::MovedDead { failed }, Durable::Moved(seq))
            .await
    }

    // Retries.

    fn may_load_retries(&self) -> bool {
        self.webhook.enabled && self.next_due.is_some() && self.loaded_retries.len() < RETRY_WINDOW
    }

    async fn load_due(&mut self) -> Result<(), DispatchError> {
        let id = self.id();
        let store = Arc::clone(&self.means.store);
        // Those that are loaded still have their records: they come first, and are passed over.
        let limit = self.loaded_retries.len() + RETRY_WINDOW;
        let retries = blocking(move || store.retries(id, None, limit)).await?;
        let now_ms = self.means.clock.now().as_millisecond();
        let cut_off = retries.len() == limit;
        self.next_due = cut_off.then(|| self.means.clock.now());
        for retry in retries {
            if self.loaded_retries.contains(&retry.key) {
                continue;
            }
            if retry.key.due_ms > now_ms || self.loaded_retries.len() >= RETRY_WINDOW {
                self.next_due = due_time(retry.key);
                break;
            }
            self.loaded_retries.insert(retry.key);
            let event = Arc::clone(&retry.event);
            let station = event.station.clone();
            self.lanes.push(
                &station,
                Job {
                    event,
                    origin: Origin::Retry(Box::new(retry)),
                },
            );
        }
        Ok(())
    }

    // Attempts.

    fn launch(&mut self) {
        while self.webhook.enabled && self.attempts.len() < self.means.options.concurrency {
            let Some(job) = self.lanes.take() else { break };
            let webhook = Arc::clone(&self.webhook);
            let sender = self.means.sender.clone();
            let clock = self.means.clock;
            self.attempts.spawn(async move {
                let at = clock.now();
                let attempted = sender
                    .post(post(&webhook, &job.event, job.next_attempt(), at))
                    .await;
                Finished { job, at, attempted }
            });
        }
    }

    async fn settle_all(
        &mut self,
        first: Result<Finished, tokio::task::JoinError>,
    ) -> Result<(), DispatchError> {
        let mut next = Some(first);
        while let Some(joined) = next {
            match joined {
                Ok(finished) => self.settle(finished).await?,
                Err(error) => match error.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    Err(cancelled) => tracing::debug!(%cancelled, "an attempt was cancelled"),
                },
            }
            next = self.attempts.try_join_next();
        }
        Ok(())
    }

    async fn settle(&mut self, finished: Finished) -> Result<(), DispatchError> {
        let Finished { job, at, attempted } = finished;
        self.lanes.done(&job.event.station);
        let now = self.means.clock.now();
        let made = match &job.origin {
            Origin::Live(_) => 1,
            Origin::Retry(retry) => retry.round + 1,
        };
        let attempt = Attempt {
            number: job.next_attempt(),
            at,
            status: attempted.outcome.status(),
            error: attempted.outcome.error().map(ToString::to_string),
            duration: attempted.duration,
        };
        let Options {
            schedule,
            max_attempts,
            ..
        } = &self.means.options;
        let verdict = decide(&attempted.outcome, made, *max_attempts, schedule, now);
        self.tell(&job, &attempt, verdict);
        match verdict {
            Verdict::Delivered => self.delivered(job, attempt).await,
            Verdict::RetryAt(due) => self.retry_at(due, made, job, attempt, attempted).await,
            Verdict::Dead => self.dead(now, job, attempt, attempted).await,
        }
    }

    fn tell(&mut self, job: &Job, attempt: &Attempt, verdict: Verdict) {
        let delivered = verdict == Verdict::Delivered;
        if let Some(watch) = self.watches.remove(&job.seq()) {
            // Nobody may be waiting any more.
            let _ = watch.send(delivered);
        }
        if delivered {
            tracing::debug!(
                webhook = self.id().0, event = %job.event.id, attempt = attempt.number, "delivered"
            );
        } else {
            tracing::info!(
                webhook = self.id().0, event = %job.event.id, attempt = attempt.number,
                status = attempt.status, error = attempt.error, ?verdict, "attempt failed"
            );
        }
    }

    async fn delivered(&mut self, job: Job, attempt: Attempt) -> Result<(), DispatchError> {
        match job.origin {
            Origin::Live(seq) => {
                self.owed.remove(&seq);
                self.progress.delivered.fetch_add(1, Ordering::Relaxed);
                self.dirty = true;
                self.history.delivered(&job.event, vec![attempt]);
                Ok(())
            }
            Origin::Retry(mut retry) => {
                self.retrying -= 1;
                retry.attempts.push(attempt);
                self.history.delivered(&job.event, retry.attempts);
                let entry = Entry::Delivered { was: retry.key };
                self.record(entry, Durable::Replaced(retry.key)).await
            }
        }
    }

    async fn retry_at(
        &mut self,
        due: Timestamp,
        round: u32,
        job: Job,
        attempt: Attempt,
        attempted: Attempted,
    ) -> Result<(), DispatchError> {
        let key = |seq| RetryKey {
            webhook: self.webhook.id,
            due_ms: due.as_millisecond(),
            seq,
        };
        self.next_due = Some(self.next_due.map_or(due, |next| next.min(due)));
        match job.origin {
            Origin::Live(seq) => {
                self.retrying += 1;
                let retry = Retry {
                    key: key(seq),
                    event: job.event,
                    attempts: vec![attempt],
                    round,
                    last_response: answer(&attempted),
                };
                self.record(Entry::Moved { retry }, Durable::Moved(seq))
                    .await
            }
            Origin::Retry(was) => {
                let mut attempts = was.attempts;
                attempts.push(attempt);
                let last_response = answer(&attempted);
                let retry = Retry {
                    key: key(was.key.seq),
                    event: job.event,
                    attempts,
                    round,
                    last_response,
                };
                let entry = Entry::Again {
                    was: was.key,
                    retry,
                };
                self.record(entry, Durable::Replaced(was.key)).await
            }
        }
    }

    async fn dead(
        &mut self,
        now: Timestamp,
        job: Job,
        attempt: Attempt,
        attempted: Attempted,
    ) -> Result<(), DispatchError> {
        let seq = job.seq();
        let (was, mut attempts) = match job.origin {
            Origin::Live(_) => (None, Vec::new()),
            Origin::Retry(retry) => (Some(retry.key), retry.attempts),
        };
        attempts.push(attempt);
        self.history.dead(&job.event, attempts.clone());
        let failed = FailedDelivery {
            // The ledger gives it its number.
            id: FailedId(0),
            webhook: self.id(),
            seq,
            event: job.event,
            attempts,
            reason: DeadReason::AttemptsExhausted,
            failed_at: now,
            last_response: answer(&attempted),
        };
        match was {
            None => {
                self.record(Entry::MovedDead { failed }, Durable::Moved(seq))
                    .await
            }
            Some(was) => {
                self.retrying -= 1;
                self.record(Entry::Dead { was, failed }, Durable::Replaced(was))
                    .await
            }
        }
    }

    // What is written.

    async fn record(&mut self, entry: Entry, then: Durable) -> Result<(), DispatchError> {
        let durable = self.means.ledger.record(entry).await?;
        self.durable.push(Box::pin(async move {
            if durable.await.is_ok() {
                then
            } else {
                Durable::Lost
            }
        }));
        Ok(())
    }

    async fn on_durable(&mut self, durable: Durable) -> Result<(), DispatchError> {
        match durable {
            Durable::Moved(seq) => {
                self.owed.remove(&seq);
                self.moved.push(seq);
                self.dirty = true;
            }
            Durable::Replaced(key) => {
                self.loaded_retries.remove(&key);
            }
            Durable::Checkpoint { moved } => {
                self.checkpointing = false;
                if !moved.is_empty() {
                    let entry = Entry::Known {
                        webhook: self.id(),
                        seqs: moved,
                    };
                    self.record(entry, Durable::Written).await?;
                }
            }
            Durable::Written => {}
            Durable::Lost => self.checkpointing = false,
        }
        Ok(())
    }

    async fn checkpoint_if_due(&mut self) -> Result<(), DispatchError> {
        if self.dirty && !self.checkpointing && Instant::now() >= self.next_checkpoint {
            self.checkpoint().await?;
        }
        Ok(())
    }

    async fn checkpoint(&mut self) -> Result<(), DispatchError> {
        let cursor = Cursor {
            read_to: self.reader.position(),
            owed: self.owed.iter().copied().collect(),
            delivered: self.progress.delivered.load(Ordering::Relaxed),
        };
        let moved = std::mem::take(&mut self.moved);
        let durable = self.means.journal.checkpoint(self.id(), cursor).await?;
        self.dirty = false;
        self.checkpointing = true;
        self.next_checkpoint = Instant::now() + CHECKPOINT_EVERY;
        self.durable.push(Box::pin(async move {
            if durable.await.is_ok() {
                Durable::Checkpoint { moved }
            } else {
                Durable::Lost
            }
        }));
        Ok(())
    }

    /// Moves an idle webhook's cursor along, and gives up what a stalled one has owed too long.
    async fn tend(&mut self) -> Result<(), DispatchError> {
        self.may_read = true;
        self.dirty |= self.reader.position() > self.reader.start().read_to && self.owed.is_empty();
        let oldest = self.means.clock.now() - self.means.options.backlog_age;
        while !self.wants_to_read() && self.lanes.len() < WINDOW && self.may_read {
            let store = Arc::clone(&self.means.store);
            let position = self.reader.position();
            let next = blocking(move || store.event(position)).await?;
            if next.is_none_or(|event| event.time >= oldest) {
                break;
            }
            self.read_stride().await?;
        }
        Ok(())
    }

    // The end.

    async fn stop(mut self, grace: Duration) -> Result<(), DispatchError> {
        let deadline = Instant::now() + grace;
        while !self.attempts.is_empty() {
            match time::timeout_at(deadline, self.attempts.join_next()).await {
                Ok(Some(finished)) => self.settle_all(finished).await?,
                Ok(None) => break,
                Err(_) => {
                    // They stay owed, and are sent again after the next start.
                    self.attempts.abort_all();
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
        self.attempts.shutdown().await;
        while self.durable.next().await.is_some() {}
        Ok(())
    }
}

/// One attempt at an event, as the webhook wants it.
pub(super) fn post<'a>(
    webhook: &'a Webhook,
    event: &Event,
    attempt: u32,
    now: Timestamp,
) -> Post<'a> {
    Post {
        url: &webhook.url,
        secret: webhook.secret.as_ref(),
        event_id: event.id,
        event: event.kind,
        attempt,
        now,
        body: event.body(),
    }
}

/// What was kept of the answer, as text.
fn answer(attempted: &Attempted) -> Option<String> {
    let answer = &attempted.answer;
    (!answer.is_empty()).then(|| String::from_utf8_lossy(answer).into_owned())
}

fn due_time(key: RetryKey) -> Option<Timestamp> {
    Timestamp::from_millisecond(key.due_ms).ok()
}

/// Sleeps until a wall time; for ever where there is none.
async fn until(clock: &Clock, due: Option<Timestamp>) {
    let Some(due) = due else {
        return std::future::pending().await;
    };
    let wait = Duration::try_from(due.duration_since(clock.now())).unwrap_or(Duration::ZERO);
    time::sleep(wait).await;
}
