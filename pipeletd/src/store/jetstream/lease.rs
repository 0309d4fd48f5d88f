//! A lease: the right of one node at a time.
//!
//! Its holder renews it every second. Others see that, each by its own clock: where no renewal has
//! come for [`LEASE`], they may take it. The holder counts from before it sent the last renewal that
//! came through, and takes itself for no owner any more sooner than anyone may take it. So clocks
//! may show what they like, as long as none runs much faster than another; and should one do,
//! streams refuse what the former owner still writes.
//!
//! A holder that comes through again later, and finds that nobody has taken it, goes on as if
//! nothing had been: so it is where the servers themselves were silent.

use std::{sync::Arc, time::Duration};

use async_nats::jetstream::consumer::push::Ordered;
use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::time::{Instant, sleep, sleep_until, timeout};

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

/// Waits until this node has it. `waiting` is told who has it meanwhile.
pub(super) async fn acquire(
    values: Values,
    name: &'static str,
    node: &str,
    waiting: impl Fn(&str),
) -> Result<Ownership, StoreError> {
    let mut claim = Claim::new(node)?;
    let mut told = String::new();
    let mut tell = |holder: String| {
        if told != holder {
            waiting(&holder);
            told = holder;
        }
    };
    loop {
        let expected = match until_free(&values, name, &claim, &mut tell).await {
            Ok(expected) => expected,
            Err(error) => {
                not_now(&error).await;
                continue;
            }
        };
        let began = Instant::now();
        match values.replace(name, claim.next(), expected).await {
            Ok(sequence) => {
                tracing::info!(lease = name, node, "this node has the lease");
                let (ownership, lent) = Ownership::lent(sequence, began + HELD);
                let renewing = renew(values, name, claim, sequence, Arc::clone(&lent));
                lent.renewing.spawn(renewing);
                return Ok(ownership);
            }
            // Another one was quicker.
            Err(PublishFailed::Overtaken) => {}
            Err(PublishFailed::Store(error)) => not_now(&error).await,
        }
    }
}

/// Until it is lost, or is to be given up.
async fn renew(
    values: Values,
    name: &'static str,
    mut claim: Claim,
    mut sequence: u64,
    lent: Arc<Lent>,
) {
    let mut next = Instant::now() + RENEW_EVERY;
    let mut is_late = false;
    loop {
        tokio::select! {
            () = lent.end.cancelled() => {
                let released = values.replace(name, Bytes::new(), sequence);
                if matches!(timeout(HELD, released).await, Ok(Ok(_))) {
                    tracing::info!(lease = name, "the lease is given up");
                }
                return;
            }
            () = sleep_until(next) => {}
        }
        let began = Instant::now();
        match values.replace(name, claim.next(), sequence).await {
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
            Err(PublishFailed::Overtaken) => match values.last(name).await {
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

async fn not_now(error: &StoreError) {
    let error = error.chain();
    tracing::warn!(error, "the lease can't be asked for, trying again");
    sleep(TRY_AGAIN).await;
}

/// Waits until the lease may be taken, and returns the sequence of its last message; 0 where there is
/// none. `tell` is told who holds it.
async fn until_free(
    values: &Values,
    name: &str,
    claim: &Claim,
    tell: impl FnOnce(String),
) -> Result<u64, StoreError> {
    let Some((sequence, message)) = values.last(name).await? else {
        return Ok(0);
    };
    match holder(&message) {
        Some(holder) if !claim.is_ours(&message) => tell(holder),
        Some(_) | None => return Ok(sequence),
    }
    let mut messages: Ordered = values.follow().await?;
    let mut last = None;
    loop {
        match timeout(LEASE, messages.next()).await {
            Ok(Some(message)) => {
                let message = message.map_err(failed)?;
                if values.name_in(&message.subject) != Some(name) {
                    continue;
                }
                let sequence = message.info().map_err(failed)?.stream_sequence;
                if holder(&message.payload).is_none() {
                    return Ok(sequence);
                }
                last = Some(sequence);
            }
            Ok(None) => return Err(failed("the lease can't be watched")),
            // The holder is silent, or else nobody can be heard.
            Err(_) => match last {
                Some(last) => return Ok(last),
                None => return Err(failed("the lease can't be watched")),
            },
        }
    }
}
