//! REST and gRPC, for callers who mean well and for others.

mod access;
mod bad_input;
mod docs;
mod events;
mod generated_clients;
mod hostile;
mod key_ends;
pub(crate) mod openapi;
mod preconditions;
mod rest_parity;
mod tls;
