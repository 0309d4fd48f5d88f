//! Stations whose connection is at another node than their shard.
//!
//! Their gateway has the WebSocket, and forwards each message to the shard's owner ([`forward`]),
//! which has the session ([`sessions`]). Both sides ask, and are answered:
//!
//! | who asks | what | the answer |
//! |---|---|---|
//! | gateway | `Open`: a station is here | whether the owner takes it |
//! | gateway | `Text`: what the station said | what it is answered, once that is durable |
//! | gateway | `Ended`: the station is gone | |
//! | owner | `Send`: a CALL of ours | once it is written |
//! | owner | `Reopen`: it has lost the connection, and the station may be there still | |
//! | owner | `Close` | |
//!
//! A message has a number in its connection. Whoever is not answered sends the same once more; it is
//! not taken in twice. An owner that doesn't know a connection says so, and the gateway opens it
//! anew: to an owner that has taken over, it is the connection that the station has had all along.

mod forward;
mod sessions;

use bytes::Bytes;
use pipelet_domain::shards::ShardId;
use prost::Message;

pub(super) use self::{
    forward::{Forward, Inboxes},
    sessions::RemoteSessions,
};
use crate::cluster::Incarnation;

/// Of these messages: one that is of another is refused.
const VERSION: u32 = 1;
/// What gateways are asked about.
const GATEWAY: &str = "sockets";

/// A connection of a station, at whichever gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct ConnectionId {
    gateway: Incarnation,
    /// Among all that the gateway has ever had.
    number: u64,
}

#[derive(Clone, PartialEq, Message)]
struct ToOwner {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(fixed64, tag = "2")]
    gateway: u64,
    #[prost(uint64, tag = "3")]
    connection: u64,
    #[prost(oneof = "Said", tags = "4, 5, 6")]
    said: Option<Said>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Said {
    #[prost(message, tag = "4")]
    Open(Open),
    #[prost(message, tag = "5")]
    Text(Numbered),
    #[prost(message, tag = "6")]
    Ended(EndedAt),
}

#[derive(Clone, PartialEq, Message)]
struct Open {
    #[prost(string, tag = "1")]
    station: String,
    #[prost(string, tag = "2")]
    peer: String,
    #[prost(string, optional, tag = "3")]
    subprotocol: Option<String>,
    #[prost(uint32, tag = "4")]
    security_profile: u32,
    /// An owner has had it before.
    #[prost(bool, tag = "5")]
    resumed: bool,
}

#[derive(Clone, PartialEq, Message)]
struct Numbered {
    #[prost(uint64, tag = "1")]
    number: u64,
    /// In UTF-8.
    #[prost(bytes = "bytes", tag = "2")]
    text: Bytes,
    /// It was sent before, and maybe to another owner.
    #[prost(bool, tag = "3")]
    again: bool,
}

#[derive(Clone, PartialEq, Message)]
struct EndedAt {
    #[prost(string, tag = "1")]
    reason: String,
    #[prost(string, tag = "2")]
    detail: String,
}

#[derive(Clone, PartialEq, Message)]
struct FromOwner {
    #[prost(oneof = "Answer", tags = "1, 2, 3")]
    answer: Option<Answer>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Answer {
    /// It is done.
    #[prost(message, tag = "1")]
    Done(Done),
    /// The connection is to be opened, if need be at another node.
    #[prost(message, tag = "2")]
    NotOpen(NotOpen),
    /// The station is not taken.
    #[prost(message, tag = "3")]
    Full(Full),
}

#[derive(Clone, PartialEq, Message)]
struct Done {
    /// For the station, in UTF-8.
    #[prost(bytes = "bytes", optional, tag = "1")]
    text: Option<Bytes>,
}

#[derive(Clone, PartialEq, Message)]
struct NotOpen {}

#[derive(Clone, PartialEq, Message)]
struct Full {}

#[derive(Clone, PartialEq, Message)]
struct ToGateway {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(uint64, tag = "2")]
    connection: u64,
    #[prost(oneof = "Wanted", tags = "3, 4, 5")]
    wanted: Option<Wanted>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Wanted {
    #[prost(string, tag = "3")]
    Send(String),
    /// By its reason.
    #[prost(string, tag = "4")]
    Close(String),
    #[prost(message, tag = "5")]
    Reopen(Reopen),
}

#[derive(Clone, PartialEq, Message)]
struct Reopen {}

#[derive(Clone, PartialEq, Message)]
struct FromGateway {
    /// Otherwise the connection isn't there any more.
    #[prost(bool, tag = "1")]
    done: bool,
}

/// What the owner of a shard is asked about.
fn owner_of(shard: ShardId) -> String {
    format!("stations.{}", shard.0)
}

fn encoded(message: &impl Message) -> Bytes {
    message.encode_to_vec().into()
}
