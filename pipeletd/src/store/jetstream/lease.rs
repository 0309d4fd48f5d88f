//! A lease: the right of one node at a time.
//!
//! Its holder renews it every second. Others see that, each by its own clock: where no renewal has
//! come for [`LEASE`], they may take it. The holder counts from before it sent the last renewal that
//! came through, and gives up sooner than anyone may take it. So clocks may show what they like, as
//! long as none runs much faster than another; and should one do, streams refuse what the former
//! owner still writes.

use std::{sync::Arc, time::Duration};

use async_nats::jetstream::consumer::push::Ordered;
use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    record_stream::failed,
    values::{PublishFailed, Values},
};
use crate::store::{StoreError, codec::record_error};

/// Without a renewal for so long, it may be taken.
const LEASE: Duration = Duration::from_secs(5);
const RENEW_EVERY: Duration = Duration::from_secs(1);
/// So much sooner the holder gives up.
const MARGIN: Duration = Duration::from_secs(1);
/// Before a renewal that failed is tried again.
const TRY_AGAIN: Duration = Duration::from_millis(250);

/// A lease that this node holds, until it is lost, given up or dropped.
#[derive(Debug)]
pub struct Lease {
    lost: CancellationToken,
    stop: DropGuard,
    renewing: JoinHandle<()>,
}

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
    let node = message.get(16..).filter(|_| !message.is_empty())?;
    Some(String::from_utf8_lossy(node).into_owned())
}

impl Lease {
    /// Waits until this node has it. `waiting` is told who has it meanwhile.
    pub(super) async fn acquire(
        values: Values,
        name: &'static str,
        node: &str,
        waiting: impl Fn(&str),
    ) -> Result<Self, StoreError> {
        let mut claim = Claim::new(node)?;
        let mut told = None;
        loop {
            let expected = match values.last(name).await {
                Ok(Some((sequence, message))) => match holder(&message) {
                    None => sequence,
                    Some(holder) => {
                        if told.as_ref() != Some(&holder) {
                            waiting(&holder);
                            told = Some(holder);
                        }
                        match free(&values, name).await {
                            Ok(sequence) => sequence,
                            Err(error) => {
                                not_now(&error).await;
                                continue;
                            }
                        }
                    }
                },
                Ok(None) => 0,
                Err(error) => {
                    not_now(&error).await;
                    continue;
                }
            };
            let began = Instant::now();
            match values.replace(name, claim.next(), expected).await {
                Ok(sequence) => {
                    tracing::info!(lease = name, node, "this node has the lease");
                    return Ok(Self::renewed(values, name, claim, sequence, began));
                }
                // Another one was quicker.
                Err(PublishFailed::Overtaken) => {}
                Err(PublishFailed::Store(error)) => not_now(&error).await,
            }
        }
    }

    fn renewed(
        values: Values,
        name: &'static str,
        mut claim: Claim,
        mut sequence: u64,
        began: Instant,
    ) -> Self {
        let (lost, stop) = (CancellationToken::new(), CancellationToken::new());
        let mut held_until = began + LEASE - MARGIN;
        let (is_lost, stopped) = (lost.clone().drop_guard(), stop.clone());
        let renewing = async move {
            let mut next = began + RENEW_EVERY;
            loop {
                tokio::select! {
                    () = stopped.cancelled() => {
                        is_lost.disarm();
                        let released = values.replace(name, Bytes::new(), sequence);
                        if timeout_at(held_until, released).await.is_ok() {
                            tracing::info!(lease = name, "the lease is given up");
                        }
                        return;
                    }
                    () = sleep_until(next) => {}
                }
                let began = Instant::now();
                match timeout_at(held_until, values.replace(name, claim.next(), sequence)).await {
                    Ok(Ok(renewed)) => {
                        sequence = renewed;
                        held_until = began + LEASE - MARGIN;
                        next = began + RENEW_EVERY;
                    }
                    Ok(Err(PublishFailed::Store(_))) => next = Instant::now() + TRY_AGAIN,
                    Ok(Err(PublishFailed::Overtaken)) | Err(_) => {
                        return tracing::error!(lease = name, "the lease is lost");
                    }
                }
            }
        };
        Self {
            lost,
            stop: stop.drop_guard(),
            renewing: tokio::spawn(renewing),
        }
    }

    /// Cancelled once it is lost.
    pub(crate) const fn lost(&self) -> &CancellationToken {
        &self.lost
    }

    /// Lets the next one have it at once.
    pub(crate) async fn give_up(self) {
        drop(self.stop);
        // One that was lost has nothing to give.
        let _ = self.renewing.await;
    }
}

async fn not_now(error: &StoreError) {
    let error = error.chain();
    tracing::warn!(error, "the lease can't be asked for, trying again");
    sleep(TRY_AGAIN).await;
}

/// Waits until the lease may be taken, and returns the sequence of its last message.
async fn free(values: &Values, name: &str) -> Result<u64, StoreError> {
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
