//! The outside: REST under `/api/v1` and gRPC `pipelet.v1`, over the same handles.
//!
//! The domain knows neither HTTP nor gRPC; each service here gets the handles that it uses, and
//! [`error`] is the one place where a domain error becomes something that a caller sees.

use std::time::Duration;

mod access_log;
mod authenticator;
mod cluster;
mod cursor;
mod daemon;
pub mod error;
mod event_filter;
mod event_streams;
mod fields;
pub mod grpc;
mod idempotency_home;
mod key_places;
mod keys;
pub mod metrics;
mod readers;
mod request_id;
pub mod rest;
mod server;
mod shards;
mod signing_secret;
mod station_directory;
mod status;

mod trigger;
mod validity;
mod webhooks;
mod wire;

pub use self::{
    authenticator::Authenticator,
    cluster::Cluster,
    daemon::{Daemon, ShardFigures},
    event_streams::EventStreams,
    idempotency_home::IdempotencyHome,
    keys::ApiKeys,
    readers::Readers,
    server::{Listener, nodes},
    shards::{AllShards, Front, FrontServices, Local, NodeHandles, router as shard_router},
    station_directory::StationDirectory,
    status::{Addresses, Readiness, ShardState},
    trigger::Trigger,
    webhooks::{Change, Deliverers, Figures, TakenUp, Webhooks},
};

/// How long a request may take in all, its answer's way out aside: a station that is asked has ten
/// minutes of it, and nothing else comes near.
const REQUEST_TIMEOUT: Duration = Duration::from_mins(11);

/// Items on a page where the caller doesn't say, and at most.
const DEFAULT_PAGE: usize = 50;
const MAX_PAGE: usize = 500;

/// Rounded to the nearest.
fn millis(duration: Duration) -> u64 {
    let rounded = duration.saturating_add(Duration::from_micros(500));
    u64::try_from(rounded.as_millis()).unwrap_or(u64::MAX)
}
