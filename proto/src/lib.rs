//! Pipelet's interface: the generated messages, clients and servers of `pipelet.v1`, and how the
//! messages look in JSON, which is what REST and `pipeletctl` show.
//!
//! The `.proto` files beside this crate are the source: what there is of an object is said there, and
//! nowhere else.

// Generated code follows its generator's taste.
#![allow(clippy::pedantic, unreachable_pub)]

pub mod json;
#[cfg(feature = "openapi")]
pub mod schema;

/// The package `pipelet.v1`.
pub mod v1 {
    tonic::include_proto!("pipelet.v1");
}

/// The compiled descriptors of every file, for server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
