//! Attempts: started while there is room, and what follows from how they end.

use std::sync::{Arc, atomic::Ordering};

use jiff::Timestamp;

use super::{DispatchError, Dispatcher, Durable, Finished, Job, Options, Origin};
use crate::{
    delivery::{
        http::{Attempted, Post},
        ledger::Entry,
        policy::{Verdict, decide},
        record::{Attempt, DeadReason, FailedDelivery, FailedId, Retry, RetryKey},
    },
    events::Event,
    webhooks::Webhook,
};

impl Dispatcher {
    pub(super) fn launch(&mut self) {
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

    pub(super) async fn settle_all(
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

    pub(super) async fn settle(&mut self, finished: Finished) -> Result<(), DispatchError> {
        let Finished { job, at, attempted } = finished;
        self.lanes.done(&job.event.station);
        self.loaded_bytes -= job.event.size();
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

    pub(super) fn tell(&mut self, job: &Job, attempt: &Attempt, verdict: Verdict) {
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

    pub(super) async fn delivered(
        &mut self,
        job: Job,
        attempt: Attempt,
    ) -> Result<(), DispatchError> {
        match job.origin {
            Origin::Live(seq) => {
                self.owed.remove(&seq);
                self.progress.delivered.fetch_add(1, Ordering::Relaxed);
                self.dirty = true;
                self.history.delivered(&job.event, vec![attempt]);
                Ok(())
            }
            Origin::Retry(mut retry) => {
                retry.attempts.push(attempt);
                self.history.delivered(&job.event, retry.attempts);
                let entry = Entry::Delivered { was: retry.key };
                self.record(
                    entry,
                    Durable::Replaced {
                        was: retry.key,
                        due: None,
                    },
                )
                .await
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
                self.record(
                    Entry::Moved { retry },
                    Durable::Moved {
                        seq,
                        due: Some(due),
                    },
                )
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
                self.record(
                    entry,
                    Durable::Replaced {
                        was: was.key,
                        due: Some(due),
                    },
                )
                .await
            }
        }
    }

    pub(super) async fn dead(
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
                self.record(
                    Entry::MovedDead { failed },
                    Durable::Moved { seq, due: None },
                )
                .await
            }
            Some(was) => {
                self.record(
                    Entry::Dead { was, failed },
                    Durable::Replaced { was, due: None },
                )
                .await
            }
        }
    }
}

/// One attempt at an event, as the webhook wants it.
pub(in crate::delivery) fn post<'a>(
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
