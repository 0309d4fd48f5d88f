//! Values on a stream: each is the last message of its subject, and is replaced as the one that it is.
//!
//! A message whose acknowledgement is lost is sent again until the server says what became of it;
//! a number's has a few random bytes in it, so that nobody else sends the same.

use std::time::Duration;

use async_nats::jetstream::{
    Context,
    consumer::{
        DeliverPolicy,
        push::{Ordered, OrderedConfig},
    },
    context::PublishErrorKind,
    message::PublishMessage,
    stream::Stream,
};
use bytes::Bytes;
use tokio::time::Instant;

use super::record_stream::{failed, find, in_time, is_overtaken};
use crate::store::{
    StoreError,
    codec::{record_error, split_version},
};

const VERSION: u8 = 1;
/// In bytes, before a number.
const NONCE: usize = 8;
/// How long a message without an acknowledgement is sent again.
const PATIENCE: Duration = Duration::from_secs(10);

/// Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Values {
    jetstream: Context,
    stream: Stream<()>,
    /// What subjects begin with.
    prefix: String,
}

pub(super) enum PublishFailed {
    Overtaken,
    Store(StoreError),
}

impl Values {
    pub(super) fn new(jetstream: &Context, stream: Stream<()>, prefix: &str) -> Self {
        Self {
            jetstream: jetstream.clone(),
            stream,
            prefix: prefix.to_owned(),
        }
    }

    /// Of the last message that is there, as the stream's leader knows it; 0 where there is none.
    pub(super) async fn last_sequence(&self) -> Result<u64, StoreError> {
        let state = in_time(self.stream.get_info()).await?.state;
        Ok(if state.messages == 0 {
            0
        } else {
            state.last_sequence
        })
    }

    /// The last message of each value, and then each further one.
    pub(super) async fn follow(&self) -> Result<Ordered, StoreError> {
        let consumer = OrderedConfig {
            deliver_subject: self.jetstream.client().new_inbox(),
            filter_subject: format!("{}.>", self.prefix),
            deliver_policy: DeliverPolicy::LastPerSubject,
            ..OrderedConfig::default()
        };
        let consumer = self.stream.create_consumer(consumer);
        let consumer = in_time(consumer).await?;
        in_time(consumer.messages()).await
    }

    /// Which value a subject is of.
    pub(super) fn name_in<'a>(&self, subject: &'a str) -> Option<&'a str> {
        subject.strip_prefix(&self.prefix)?.strip_prefix('.')
    }

    fn subject(&self, name: &str) -> String {
        format!("{}.{name}", self.prefix)
    }

    /// Publishes a message in the place of this one, 0 for none, and returns its sequence.
    pub(super) async fn replace(
        &self,
        name: &str,
        message: Bytes,
        expected: u64,
    ) -> Result<u64, PublishFailed> {
        let begun = Instant::now();
        let subject = self.subject(name);
        let mut is_sent_again = false;
        loop {
            let publish = PublishMessage::build()
                .payload(message.clone())
                .expected_last_subject_sequence(expected);
            let sent = self.jetstream.send_publish(subject.clone(), publish);
            let acknowledged = match sent.await {
                Ok(acknowledged) => acknowledged.await,
                Err(error) => Err(error),
            };
            let error = match acknowledged {
                Ok(acknowledged) => return Ok(acknowledged.sequence),
                Err(error) => error,
            };
            if is_overtaken(&error) {
                if !is_sent_again {
                    return Err(PublishFailed::Overtaken);
                }
                // By itself, where an acknowledgement was lost.
                let last = self.last(name).await.map_err(PublishFailed::Store)?;
                return match last {
                    Some((sequence, last)) if last == message && sequence > expected => {
                        Ok(sequence)
                    }
                    _ => Err(PublishFailed::Overtaken),
                };
            }
            let is_known = !matches!(
                error.kind(),
                PublishErrorKind::TimedOut | PublishErrorKind::BrokenPipe
            );
            if is_known || begun.elapsed() >= PATIENCE {
                return Err(PublishFailed::Store(failed(error)));
            }
            is_sent_again = true;
        }
    }

    /// The last message of a value, as the stream's leader knows it.
    pub(super) async fn last(&self, name: &str) -> Result<Option<(u64, Bytes)>, StoreError> {
        let subject = self.subject(name);
        let last = find(self.stream.get_last_raw_message_by_subject(&subject)).await?;
        Ok(last.map(|last| (last.sequence, last.payload)))
    }

    /// A number or the like, where it is there.
    pub(super) async fn get(&self, name: &str) -> Result<Option<Bytes>, StoreError> {
        let last = self.last(&format!("meta.{name}")).await?;
        last.map(|(_, message)| number_in(&message)).transpose()
    }

    /// Makes of a number or the like what `change` does, where that is anything, and returns what
    /// it is.
    pub(super) async fn change(
        &self,
        name: &str,
        change: impl Fn(Option<&[u8]>) -> Result<Option<Vec<u8>>, StoreError>,
    ) -> Result<Bytes, StoreError> {
        let name = format!("meta.{name}");
        loop {
            let last = self.last(&name).await?;
            let value = last.as_ref().map(|(_, message)| number_in(message));
            let value = value.transpose()?;
            let Some(changed) = change(value.as_deref())? else {
                return Ok(value.unwrap_or_default());
            };
            let changed = Bytes::from(changed);
            let mut nonce = [0; NONCE];
            getrandom::fill(&mut nonce).map_err(|error| record_error("value", error))?;
            let message = [&[VERSION][..], &nonce, &changed].concat().into();
            let expected = last.map_or(0, |(sequence, _)| sequence);
            match self.replace(&name, message, expected).await {
                Ok(_) => return Ok(changed),
                Err(PublishFailed::Overtaken) => {}
                Err(PublishFailed::Store(error)) => return Err(error),
            }
        }
    }
}

/// Of a number or the like, as [`Values::change`] makes them.
fn number_in(message: &Bytes) -> Result<Bytes, StoreError> {
    let value = value_in(message)?;
    if value.len() < NONCE {
        return Err(record_error("value", "it is cut short"));
    }
    Ok(value.slice(NONCE..))
}

pub(super) fn value_in(message: &Bytes) -> Result<Bytes, StoreError> {
    split_version(message, VERSION, "value").map(|value| message.slice_ref(value))
}

pub(super) fn number(value: &[u8]) -> Result<u64, StoreError> {
    let bytes = value.try_into().map(u64::from_be_bytes);
    bytes.map_err(|_| record_error("number", "it has not 8 bytes"))
}
