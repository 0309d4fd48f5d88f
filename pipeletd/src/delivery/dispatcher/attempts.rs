//! Attempts: started while there is room, and what follows from how they end.

use std::{
    mem,
    sync::{Arc, atomic::Ordering},
};

use futures_util::{FutureExt, StreamExt};
use jiff::Timestamp;
use pipelet_domain::{
    deliveries::{Attempt, DeadReason, FailedDelivery, FailedId, Retry, RetryKey},
    events::Event,
    webhooks::WebhookId,
};
use tokio::time::Instant;

use super::{DeliverySettings, DispatchError, Dispatcher, Durable, Finished, Job, Origin};
use crate::{
    delivery::{
        http::{Attempted, Destination, PooledConnection, Post},
        ledger::Entry,
        policy::{Verdict, decide},
        stats::InFlight,
    },
    system::clock::Clock,
};

impl Dispatcher {
    /// Starts attempts while there is room. They run within the dispatcher's own task: nothing is
    /// woken on another thread, and a batch of answers is settled together. The price is that they
    /// wait while the dispatcher does, for a read of the store or for room in the ledger's queue.
    pub(super) fn launch(&mut self) {
        let now = Instant::now();
        self.lacks_sockets = false;
        // While it may be another's, it is looked at again with each sweep.
        while self.webhook.enabled
            && self.context.ownership.is_held()
            && self.queues.is_ready()
            && self.attempts.len() < self.settings.concurrency
            && self.pace.rest(now).is_none()
        {
            let Some(connection) = self.awaited_connection.take().or_else(|| self.pool.take())
            else {
                self.lacks_sockets = true;
                break;
            };
            let Some(job) = self.queues.take() else {
                break;
            };
            self.pace.started(now);
            let to = Arc::clone(&self.destination);
            let settings = Arc::clone(&self.settings);
            let (clock, ownership) = (self.context.clock, self.context.ownership.clone());
            let attempt = attempt(settings, to, self.id(), clock, job, connection);
            let attempt = async move { ownership.while_held(attempt).await };
            self.attempts.push(Box::pin(attempt));
        }
        // Others may need what turned out not to be needed.
        self.awaited_connection = None;
        let stats = &self.progress.stats;
        let now = InFlight {
            attempts: self.attempts.len(),
            lacks_sockets: self.lacks_sockets,
        };
        stats.now_in_flight(mem::replace(&mut self.in_flight, now), now);
    }

    /// When attempts may start again that only wait for that.
    pub(super) fn resting(&self) -> Option<Instant> {
        let waiting = self.webhook.enabled && self.queues.is_ready();
        let rest = self.pace.rest(Instant::now());
        rest.filter(|_| waiting)
    }

    /// Settles an attempt, and with it all that have ended meanwhile.
    pub(super) async fn settle_all(&mut self, first: Finished) -> Result<(), DispatchError> {
        let mut next = Some(first);
        while let Some(finished) = next {
            self.settle(finished).await?;
            next = self.attempts.next().now_or_never().flatten();
        }
        Ok(())
    }

    pub(super) async fn settle(&mut self, finished: Finished) -> Result<(), DispatchError> {
        let Finished {
            job,
            at,
            attempted,
            connection,
        } = finished;
        self.pool.put(connection);
        let delivered = attempted.outcome.is_delivered();
        self.pace.ended(delivered, Instant::now());
        if let Origin::Retry(retry) = &job.origin {
            self.settle_immediate_retry(retry.key, delivered);
        }
        self.queues.done(&job.event.station);
        let bytes = job.memory_size();
        let made = match &job.origin {
            Origin::Live(_) => 1,
            Origin::Retry(retry) => retry.round + 1,
        };
        let attempt = Attempt {
            number: job.next_attempt(),
            at,
            status: attempted.outcome.status(),
            error: attempted.outcome.error().map(ToString::to_string),
            code: attempted.code(),
            duration: attempted.duration,
            phases: attempted.phases,
        };
        let DeliverySettings {
            schedule,
            max_attempts,
            ..
        } = &*self.settings;
        let now = self.context.retry_clock.now();
        let verdict = decide(&attempted.outcome, made, *max_attempts, schedule, now);
        let stats = &self.progress.stats;
        stats.attempted(&attempted, attempt.number, self.context.clock.now());
        self.context.attempts.record(attempted.duration);
        self.report(&job, &attempt, &attempted, verdict);
        match verdict {
            Verdict::Delivered => self.delivered(job, attempt, bytes).await,
            Verdict::RetryAt(due) => {
                self.retry_at(due, made, job, attempt, attempted, bytes)
                    .await
            }
            Verdict::Dead => self.dead(job, attempt, attempted, bytes).await,
        }
    }

    pub(super) fn report(
        &mut self,
        job: &Job,
        attempt: &Attempt,
        attempted: &Attempted,
        verdict: Verdict,
    ) {
        if let Some(watch) = self.watches.remove(&job.seq()) {
            // Nobody may be waiting any more.
            let _ = watch.send(verdict);
        }
        let (webhook, event) = (self.id().0, &job.event);
        let (event_id, station, status) = (event.id, &event.station, attempt.status);
        let attempt_number = attempt.number;
        let duration_ms = attempt.duration_ms();
        match verdict {
            Verdict::Delivered => tracing::debug!(
                webhook, %event_id, event = %event.kind, %station, attempt = attempt_number, status,
                duration_ms, "delivered"
            ),
            Verdict::RetryAt(due) => tracing::info!(
                webhook, %event_id, event = %event.kind, %station, attempt = attempt_number, status,
                duration_ms, error = attempted.outcome.failure(), retry_at = %due, "attempt failed"
            ),
            // Reported once it is durable.
            Verdict::Dead => {}
        }
    }

    pub(super) async fn delivered(
        &mut self,
        job: Job,
        attempt: Attempt,
        bytes: usize,
    ) -> Result<(), DispatchError> {
        match job.origin {
            Origin::Live(seq) => {
                self.memory.give_back(bytes);
                self.owed.remove(&seq);
                self.progress.delivered.fetch_add(1, Ordering::Relaxed);
                self.dirty = true;
                self.history.delivered(&job.event, vec![attempt]);
                Ok(())
            }
            Origin::Retry(mut retry) => {
                retry.attempts.push(attempt);
                self.history.delivered(&job.event, retry.attempts);
                // The next large one is not to wait for the ledger.
                self.retry_memory.give_back(bytes);
                let was = retry.key;
                let then = Durable::Replaced {
                    was,
                    due: None,
                    bytes: 0,
                };
                let size = job.event.size();
                self.record(Entry::Delivered { was, size }, then).await
            }
        }
    }

    pub(super) async fn retry_at(
        &mut self,
        due: Timestamp,
        round: u32,
        job: Job,
        attempt: Attempt,
        attempted: Attempted,
        bytes: usize,
    ) -> Result<(), DispatchError> {
        let key = |seq| RetryKey {
            webhook: self.webhook.id,
            due_ms: due.as_millisecond(),
            seq,
        };
        match job.origin {
            Origin::Live(seq) => {
                let retry = Retry {
                    key: key(seq),
                    event: job.event,
                    attempts: vec![attempt],
                    round,
                    last_response: answer(&attempted),
                };
                let due = Some(due);
                let then = Durable::OffCursor { seq, due, bytes };
                self.record(Entry::OffCursor { retry }, then).await
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
                let then = Durable::Replaced {
                    was: was.key,
                    due: Some(due),
                    bytes,
                };
                self.record(entry, then).await
            }
        }
    }

    pub(super) async fn dead(
        &mut self,
        job: Job,
        attempt: Attempt,
        attempted: Attempted,
        bytes: usize,
    ) -> Result<(), DispatchError> {
        let seq = job.seq();
        let (was, mut attempts) = match job.origin {
            Origin::Live(_) => (None, Vec::new()),
            Origin::Retry(retry) => (Some(retry.key), retry.attempts),
        };
        attempts.push(attempt.clone());
        let notify = self.on_dead_letter(&job.event, attempt, &attempted, attempts.clone());
        let failed = FailedDelivery {
            // The ledger gives it its number.
            id: FailedId(0),
            webhook: self.id(),
            seq,
            event: job.event,
            attempts,
            reason: DeadReason::AttemptsExhausted,
            failed_at: self.context.clock.now(),
            last_response: answer(&attempted),
        };
        let due = None;
        let (entry, then) = match was {
            None => (
                Entry::OffCursorDead { failed },
                Durable::OffCursor { seq, due, bytes },
            ),
            Some(was) => (
                Entry::Dead { was, failed },
                Durable::Replaced { was, due, bytes },
            ),
        };
        self.record_and_notify(entry, then, notify).await
    }

    /// What reports a dead letter.
    fn on_dead_letter(
        &self,
        event: &Arc<Event>,
        last: Attempt,
        attempted: &Attempted,
        attempts: Vec<Attempt>,
    ) -> impl FnOnce() + Send + use<> {
        let (progress, history) = (Arc::clone(&self.progress), Arc::clone(&self.history));
        let (webhook, event) = (self.id().0, Arc::clone(event));
        let failure = attempted.outcome.failure();
        move || {
            progress.stats.gave_up();
            let (event_id, station, status) = (event.id, &event.station, last.status);
            tracing::warn!(
                webhook, %event_id, event = %event.kind, %station, attempt = last.number, status,
                duration_ms = last.duration_ms(), error = failure, "dead-lettered"
            );
            history.dead(&event, attempts);
        }
    }
}

async fn attempt(
    settings: Arc<DeliverySettings>,
    to: Arc<Destination>,
    webhook: WebhookId,
    clock: Clock,
    job: Job,
    mut connection: PooledConnection,
) -> Finished {
    let at = clock.now();
    let post = post(&to, webhook, &job.event, job.next_attempt(), at);
    let attempted = settings.sender.post(post, &mut connection).await;
    Finished {
        job,
        at,
        attempted,
        connection,
    }
}

/// One attempt at an event.
pub(in crate::delivery) fn post<'a>(
    to: &'a Destination,
    webhook: WebhookId,
    event: &'a Event,
    attempt: u32,
    now: Timestamp,
) -> Post<'a> {
    Post {
        to,
        event_id: event.id,
        event: event.kind,
        is_synthetic: event.synthetic.is_some(),
        station: &event.station,
        webhook,
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
