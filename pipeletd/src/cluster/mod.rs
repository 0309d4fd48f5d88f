//! What the nodes of a cluster say to each other, over NATS: they have no port of their own for it.
//!
//! Each node says once a second that it is there, and which shards it owns ([`members`]).
//! Whoever has something for a node asks it ([`Peers::ask`]), and is told at once where it isn't
//! there.
//!
//! Nothing here is kept, and what is said may get lost: who asks and is not answered asks again.

pub mod byte_streams;
pub mod drain;
pub mod members;

use std::{fmt, sync::Arc, time::Duration};

use async_nats::{Client, RequestErrorKind, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::time::timeout;

pub use self::members::{About, Load, LoadNow, Member};
use self::members::{Members, Seen};
use crate::store::jetstream::Connection;

/// How long something may wait to be sent, as where NATS is not there.
const SEND_TIMEOUT: Duration = Duration::from_secs(3);

/// A node from one of its starts to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub u64);

/// The way to the other nodes. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Peers(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    client: Client,
    /// What subjects begin with.
    cluster: String,
    me: Incarnation,
    members: Members,
}

/// Where a node is asked about one matter. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Address(async_nats::Subject);

/// Why a node did not answer.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    #[error("the node isn't there")]
    NotThere,
    #[error("the node doesn't answer")]
    TooLate,
    #[error("the node can't be asked")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
}

#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    #[error("the system gives no random bytes")]
    Random(#[from] getrandom::Error),
    #[error("the other nodes can't be heard")]
    Subscribe(#[from] async_nats::SubscribeError),
}

/// What others ask this node about one matter.
#[derive(Debug)]
pub struct Requests {
    subscriber: Subscriber,
    client: Client,
}

/// What a node asks.
#[derive(Debug)]
pub struct Request {
    pub message: Bytes,
    pub respond: Respond,
}

/// The way back to who asked.
pub struct Respond {
    client: Client,
    to: Option<async_nats::Subject>,
}

impl Peers {
    /// Says that this node is there, from now on until the last clone is dropped, and listens to the
    /// others.
    pub async fn join(
        connection: Connection,
        about: About,
        load: LoadNow,
    ) -> Result<Self, JoinError> {
        let Connection { client, cluster } = connection;
        let mut incarnation = [0; 8];
        getrandom::fill(&mut incarnation)?;
        let me = Incarnation(u64::from_ne_bytes(incarnation));
        let members = Members::join(client.clone(), &cluster, me, about, load).await?;
        Ok(Self(Arc::new(Inner {
            client,
            cluster,
            me,
            members,
        })))
    }

    pub fn me(&self) -> Incarnation {
        self.0.me
    }

    pub fn members(&self) -> &Members {
        &self.0.members
    }

    /// What is known of the others; changes wake whoever waits.
    pub fn seen(&self) -> tokio::sync::watch::Receiver<Seen> {
        self.0.members.seen()
    }

    /// The largest message that a node can be sent, in bytes.
    pub fn max_message(&self) -> usize {
        self.0.client.server_info().max_payload
    }

    /// Where a node is asked about something.
    pub fn address(&self, node: Incarnation, what: &str) -> Address {
        Address(self.subject(node, what).into())
    }

    /// Asks a node about something, and waits so long for its answer.
    pub async fn ask(
        &self,
        node: &Address,
        message: Bytes,
        within: Duration,
    ) -> Result<Bytes, Unanswered> {
        let request = async_nats::Request::new()
            .payload(message)
            .timeout(Some(within));
        let asked = self.0.client.send_request(node.0.clone(), request);
        // The library's own limit is not for how long it may take to be sent.
        match timeout(within, asked).await {
            Err(_) => Err(Unanswered::TooLate),
            Ok(Ok(answer)) => Ok(answer.payload),
            Ok(Err(error)) => Err(match error.kind() {
                RequestErrorKind::NoResponders => Unanswered::NotThere,
                RequestErrorKind::TimedOut => Unanswered::TooLate,
                _ => Unanswered::Failed(error.into()),
            }),
        }
    }

    /// What others ask this node about something, from now on.
    pub async fn requests(&self, what: &str) -> Result<Requests, JoinError> {
        let client = self.0.client.clone();
        let subject = self.subject(self.0.me, what);
        let subscriber = client.subscribe(subject).await?;
        // Whoever learns of it from now on finds it at every server.
        let _ = client.flush().await;
        Ok(Requests { subscriber, client })
    }

    fn subject(&self, node: Incarnation, what: &str) -> String {
        format!("{}.node.{:016x}.{what}", self.0.cluster, node.0)
    }
}

impl Requests {
    /// The next one; none once the connection to NATS is given up.
    pub async fn next(&mut self) -> Option<Request> {
        let message = self.subscriber.next().await?;
        Some(Request {
            message: message.payload,
            respond: Respond {
                client: self.client.clone(),
                to: message.reply,
            },
        })
    }

    /// What was asked so far is all.
    pub async fn stop(&mut self) {
        let _ = timeout(SEND_TIMEOUT, self.subscriber.unsubscribe()).await;
    }
}

impl Respond {
    /// Where the answer gets lost, it is asked for again.
    pub async fn with(self, answer: impl Into<Bytes>) {
        let Some(to) = self.to else { return };
        let sent = self.client.publish(to, answer.into());
        if !matches!(timeout(SEND_TIMEOUT, sent).await, Ok(Ok(()))) {
            tracing::debug!("a node could not be answered");
        }
    }
}

impl fmt::Debug for Respond {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Respond").field(&self.to).finish()
    }
}
