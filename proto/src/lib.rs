//! Pipelet's gRPC interface: the generated messages, clients and servers of `pipelet.v1`.
//!
//! The `.proto` files beside this crate are the source; nothing here is written by hand.

// Generated code follows its generator's taste.
#![allow(clippy::pedantic, unreachable_pub)]

/// The package `pipelet.v1`.
pub mod v1 {
    tonic::include_proto!("pipelet.v1");
}

/// The compiled descriptors of every file, for server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
