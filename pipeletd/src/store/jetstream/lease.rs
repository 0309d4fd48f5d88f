//! Leases: each the right of one node at a time.
//!
//! Its holder renews it every second. Others see that, each by its own clock: where no renewal has
//! come for [`LEASE`], they may take it. The holder counts from before it sent the last renewal that
//! came through, and takes itself for no owner any more sooner than anyone may take it. So clocks
//! may show what they like, as long as none runs much faster than another; and should one do,
//! streams refuse what the former owner still writes.
//!
//! A holder that comes through again later, and finds that nobody has taken it, goes on as if
//! nothing had been: so it is where the servers themselves were silent.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    record_stream::failed,
    values::{PublishFailed, Values},
};
use crate::store::{Ownership, StoreError, codec::record_error, ownership::Lent};

/// Without a renewal for so long, it may be taken.
const LEASE: Duration = Duration::from_secs(5);
const RENEW_EVERY: Duration = Duration::from_secs(1);
/// So long after a renewal its holder may rely on it.
const HELD: Duration = Duration::from_secs(4);
/// Before a renewal that failed is tried again.
const TRY_AGAIN: Duration = Duration::from_millis(250);

/// What a lease says of its holder.
struct Claim {
    node: Arc<str>,
    /// Different with each start of a node.
    incarnation: [u8; 8],
    renewals: u64,
}

impl Claim {
    fn new(node: &str) -> Result<Self, StoreError> {
        let mut incarnation = [0; 8];
        getrandom::fill(&mut incarnation).map_err(|error| record_error("lease", error))?;
        Ok(Self {
            node: node.into(),
            incarnation,
            renewals: 0,
        })
    }

    fn is_ours(&self, message: &[u8]) -> bool {
        message.starts_with(&self.incarnation)
    }

    /// The next message, unlike all before.
    fn next(&mut self) -> Bytes {
        self.renewals += 1;
        let renewals = self.renewals.to_be_bytes();
        let node = self.node.as_bytes();
        [&self.incarnation[..], &renewals, node].concat().into()
    }
}

/// Who a message says holds the lease; nobody, where it was given up.
fn holder(message: &[u8]) -> Option<String> {
    let node = message.get(16..)?;
    Some(String::from_utf8_lossy(node).into_owned())
}

/// The leases of a cluster, as this node hears of them. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Leases {
    values: Values,
    heard: watch::Sender<BTreeMap<String, Heard>>,
    _following: Arc<DropGuard>,
}

/// The last that was heard of a lease.
#[derive(Debug, Clone)]
struct Heard {
    at: Instant,
    sequence: u64,
    message: Bytes,
}

impl Leases {
    /// Listens to what becomes of them, until the last clone is dropped.
    pub(super) fn follow(values: Values) -> Self {
        let heard = watch::Sender::default();
        let end = CancellationToken::new();
        let following = listen(values.clone(), heard.clone());
        tokio::spawn(end.clone().run_until_cancelled_owned(following));
        Self {
            values,
            heard,
            _following: Arc::new(end.drop_guard()),
        }
    }

    /// Waits until this node has the lease. `waiting` is told who has it meanwhile.
    pub(super) async fn acquire(
        &self,
        name: &str,
        node: &str,
        waiting: impl Fn(&str),
    ) -> Result<Ownership, StoreError> {
        let mut claim = Claim::new(node)?;
        let mut told = String::new();
        loop {
            let expected = match self.until_free(name, &claim, &waiting, &mut told).await {
                Ok(expected) => expected,
                Err(error) => {
                    not_now(name, &error).await;
                    continue;
                }
            };
            let began = Instant::now();
            match self.values.replace(name, claim.next(), expected).await {
                Ok(sequence) => {
                    tracing::info!(lease = name, node, "this node has the lease");
                    let (ownership, lent) = Ownership::lent(sequence, began + HELD);
                    let (values, name) = (self.values.clone(), name.to_owned());
                    let renewing = renew(values, name, claim, sequence, Arc::clone(&lent));
                    lent.renewing.spawn(renewing);
                    return Ok(ownership);
                }
                // Another one was quicker.
                Err(PublishFailed::Overtaken) => {
                    if let Err(error) = self.ask(name).await {
                        not_now(name, &error).await;
                    }
                }
                Err(PublishFailed::Store(error)) => not_now(name, &error).await,
            }
        }
    }

    /// Waits until the lease may be taken, and returns the sequence of its last message; 0 where there
    /// is none. `waiting` is told who holds it, once.
    async fn until_free(
        &self,
        name: &str,
        claim: &Claim,
        waiting: &impl Fn(&str),
        told: &mut String,
    ) -> Result<u64, StoreError> {
        let mut heard = self.heard.subscribe();
        loop {
            let known = heard.borrow_and_update().get(name).cloned();
            let last = match known {
                Some(last) => last,
                None => match self.ask(name).await? {
                    Some(last) => last,
                    None => return Ok(0),
                },
            };
            match holder(&last.message) {
                Some(holder) if !claim.is_ours(&last.message) => {
                    if *told != holder {
                        waiting(&holder);
                        *told = holder;
                    }
                }
                Some(_) | None => return Ok(last.sequence),
            }
            let is_this = |heard: &BTreeMap<String, Heard>| {
                let now = heard.get(name);
                now.is_none_or(|now| now.sequence == last.sequence)
            };
            let renewed = heard.wait_for(|heard| !is_this(heard));
            if timeout_at(last.at + LEASE, renewed).await.is_err() {
                return Ok(last.sequence);
            }
        }
    }

    /// The last message of a lease, as the servers have it; it counts as heard just now.
    async fn ask(&self, name: &str) -> Result<Option<Heard>, StoreError> {
        let Some((sequence, message)) = self.values.last(name).await? else {
            return Ok(None);
        };
        let last = Heard {
            at: Instant::now(),
            sequence,
            message,
        };
        note(&self.heard, name, last.clone());
        Ok(Some(last))
    }
}

fn note(heard: &watch::Sender<BTreeMap<String, Heard>>, name: &str, last: Heard) {
    heard.send_if_modified(|heard| {
        let is_newer = heard
            .get(name)
            .is_none_or(|known| known.sequence < last.sequence);
        if is_newer {
            heard.insert(name.to_owned(), last);
        }
        is_newer
    });
}

async fn listen(values: Values, heard: watch::Sender<BTreeMap<String, Heard>>) {
    loop {
        let broken = hear(&values, &heard).await;
        if let Err(error) = broken {
            tracing::debug!(
                error = error.chain(),
                "the leases are not heard, trying again"
            );
        }
        sleep(TRY_AGAIN).await;
    }
}

async fn hear(
    values: &Values,
    heard: &watch::Sender<BTreeMap<String, Heard>>,
) -> Result<(), StoreError> {
    let mut messages = values.follow().await?;
    while let Some(message) = messages.next().await {
        let message = message.map_err(failed)?;
        let sequence = message.info().map_err(failed)?.stream_sequence;
        if let Some(name) = values.name_in(&message.subject) {
            let last = Heard {
                at: Instant::now(),
                sequence,
                message: message.payload.clone(),
            };
            note(heard, name, last);
        }
    }
    Ok(())
}

/// Until it is lost, or is to be given up.
async fn renew(values: Values, name: String, mut claim: Claim, mut sequence: u64, lent: Arc<Lent>) {
    let mut next = Instant::now() + RENEW_EVERY;
    let mut is_late = false;
    loop {
        tokio::select! {
            () = lent.end.cancelled() => {
                let released = values.replace(&name, Bytes::new(), sequence);
                if matches!(timeout(HELD, released).await, Ok(Ok(_))) {
                    tracing::info!(lease = name, "the lease is given up");
                }
                return;
            }
            () = sleep_until(next) => {}
        }
        let began = Instant::now();
        match values.replace(&name, claim.next(), sequence).await {
            Ok(renewed) => {
                sequence = renewed;
                lent.until.send_replace(began + HELD);
                next = began + RENEW_EVERY;
                if is_late {
                    tracing::info!(lease = name, "the lease is renewed again");
                    is_late = false;
                }
            }
            Err(PublishFailed::Store(error)) => {
                if !is_late {
                    let error = error.chain();
                    tracing::warn!(lease = name, error, "the lease can't be renewed");
                    is_late = true;
                }
                next = Instant::now() + TRY_AGAIN;
            }
            Err(PublishFailed::Overtaken) => match values.last(&name).await {
                // A renewal that was given up has come through after all.
                Ok(Some((last, message))) if claim.is_ours(&message) => sequence = last,
                Ok(_) => {
                    tracing::error!(lease = name, "another node has the lease");
                    return lent.lost.cancel();
                }
                Err(_) => next = Instant::now() + TRY_AGAIN,
            },
        }
    }
}

async fn not_now(lease: &str, error: &StoreError) {
    let error = error.chain();
    tracing::warn!(lease, error, "the lease can't be asked for, trying again");
    sleep(TRY_AGAIN).await;
}
