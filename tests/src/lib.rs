//! The harness of the end-to-end suites: real binaries, real sockets, nothing of ours faked.
//!
//! - [`Daemon`]: a `pipeletd` with a data directory of its own, which can be killed and
//!   started again.
//! - [`Receiver`]: an HTTP server as an integrator would run it, with scripted answers.
//! - [`Scripted`]: one below HTTP, which says what no server would.
//! - [`Http2`]: one that speaks HTTP/2, and does to streams and connections what a script says.
//! - [`Blackhole`]: an address where connections are neither accepted nor refused.
//! - [`Station`]: a bare OCPP-J client that can also say what no library would; [`Dial`] is how it
//!   connects, with a password or over TLS, and [`Authority`] vouches for both ends.
//! - [`RawSocket`]: the same one level below, for what is not even a WebSocket's frame.
//! - [`Faults`]: a daemon's disk, clock and resolver, which fail as they are told to.
//! - [`SmallDisk`]: a disk that a test can fill.
//! - [`Network`]: namespaces with a router between daemon and test, which drops what it is told to.
//! - [`Nats`]: a server of NATS, which can be killed and started again; [`NatsCluster`]: three.
//! - [`Scrape`]: what `/metrics` said.
//! - [`process`]: what `/proc` says of a daemon or of who loads it.
//! - [`packages`], with [`node`] and [`python`]: what is taken from npm and PyPI; [`browser`] and
//!   [`promtool`] are there or not. [`skip`] is for what is not.
//! - [`traces`]: whether something is found that should not be there.
//! - [`oracle`]: the judge of what was seen of a daemon that is killed again and again.
//! - [`Api`] and [`Ctl`]: the two ways in, REST and `pipeletctl`; [`Rpc`] is gRPC below the latter.
//! - [`Terminal`]: a screen and a keyboard, for what draws.
//! - [`EventStream`]: what a browser's `EventSource` would see.
//! - [`documents`]: what the README and its like say.
//! - [`deadline`]: how a test waits. Nothing here sleeps for a time that was guessed.
//!
//! The harness panics where it can't go on: a test has no better use for an error. It knows
//! the outside of Pipelet only (flags, HTTP, WebSocket frames), never its modules.

mod api;
mod authority;
mod blackhole;
pub mod browser;
mod ctl;
mod daemon;
pub mod deadline;
mod dial;
pub mod documents;
mod event_stream;
mod faults;
mod flood;
mod http2;
pub mod nats;
pub mod network;
pub mod node;
pub mod oracle;
pub mod packages;
pub mod process;
pub mod promtool;
pub mod python;
pub mod raw;
mod receiver;
mod rpc;
mod scrape;
mod scripted;
mod server;
mod skip;
mod small_disk;
mod station;
mod terminal;
mod tls;
pub mod traces;

pub use api::{Api, Reply};
pub use authority::{Authority, Identity};
pub use blackhole::Blackhole;
pub use ctl::{Ctl, Output};
pub use daemon::{Builder, Daemon, Ended};
pub use dial::Dial;
pub use event_stream::{EventStream, Sent};
pub use faults::{DiskError, Faults};
pub use http2::{Http2, SeenStream, Stream};
pub use nats::{Nats, NatsCluster};
pub use network::Network;
pub use raw::{RawFrame, RawSocket};
pub use receiver::{Answer, Receiver, Request};
pub use rpc::Rpc;
pub use scrape::Scrape;
pub use scripted::{RawRequest, Scripted, Step, Tls};
pub use skip::skip;
pub use small_disk::SmallDisk;
pub use station::{Asked, Called, Frame, Handshake, Station};
pub use terminal::Terminal;
