//! Tags that may charge at one place at a time, wherever that is.

use std::{sync::Mutex, time::Duration};

use axum::{
    body::{Body, BodyDataStream},
    http::Method,
};
use futures_util::StreamExt as _;
use pipelet_domain::{
    events::{IdTagKey, StationId},
    projection::Digest,
};

use super::{AllShards, Shard, internal};
use crate::ocpp::{Claim, OtherShards};

/// How long a start waits for a shard that no node owns: its say is done without.
const PATIENCE: Duration = Duration::from_secs(2);

#[tonic::async_trait]
impl OtherShards for AllShards {
    /// One shard has the claims to a tag; each knows its own transactions.
    async fn claim(&self, tag: &IdTagKey, station: &StationId, connector_id: Option<u32>) -> Claim {
        let (mut taken, held) = claimed(&self.of_tag(tag).within(PATIENCE), tag).await;
        let path = internal::charges_of(tag, station, connector_id);
        let told = self.each(|shard| {
            let (channel, path) = (shard.within(PATIENCE).channel, path.clone());
            async move { Ok::<_, ()>(channel.fetch(Method::GET, &path).await) }
        });
        for told in told.await.unwrap_or_default() {
            match told {
                Ok(charges) => taken |= charges == "true",
                Err(error) => {
                    let why = error.message();
                    tracing::warn!(%station, why, "whether the tag charges elsewhere is not known");
                }
            }
        }
        // Nobody looks at it again.
        let held = Box::new(Mutex::new(held));
        Claim { taken, held }
    }
}

impl AllShards {
    fn of_tag(&self, tag: &IdTagKey) -> &Shard {
        let digest = Digest::of(tag.as_str().as_bytes()).to_bytes();
        let shards = self.0.as_slice();
        &shards[usize::from(u16::from_be_bytes([digest[0], digest[1]])) % shards.len()]
    }
}

/// Whether somebody else has claimed it; the claim lasts as long as the answer.
async fn claimed(shard: &Shard, tag: &IdTagKey) -> (bool, Option<BodyDataStream>) {
    let path = internal::claim_of(tag);
    let answer = shard.channel.open(Method::POST, &path).await;
    let Ok(answer) = answer else {
        return (false, None);
    };
    let mut told = Body::new(answer.into_body()).into_data_stream();
    let first = told.next().await.and_then(Result::ok);
    let taken = first.is_some_and(|first| first == "true");
    (taken, Some(told))
}
