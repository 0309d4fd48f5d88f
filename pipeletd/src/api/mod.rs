//! The outside: REST under `/api/v1` and gRPC `pipelet.v1`, over the same handles.
//!
//! The domain knows neither HTTP nor gRPC; each service here gets the handles that it uses, and
//! [`error`] is the one place where a domain error becomes something that a caller sees.

mod cursor;
pub mod error;
pub mod grpc;
pub mod keys;
pub mod rest;
mod roster;
mod status;

pub use self::{
    keys::ApiKeys,
    roster::Roster,
    status::{Addresses, Readiness},
};

/// Items on a page where the caller doesn't say, and at most.
const DEFAULT_PAGE: usize = 50;
const MAX_PAGE: usize = 500;
