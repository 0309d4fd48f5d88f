//! What Pipelet speaks of, as plain values and their rules.
//!
//! | module | |
//! |---|---|
//! | [`events`] | what happens: the catalogue, the event, its payload |
//! | [`webhooks`] | who wants to be told, and where |
//! | [`deliveries`] | what is remembered of deliveries: cursors, retries, dead letters, counts |
//! | [`projection`] | what is known of stations and transactions, as a fold over events |
//! | [`id_tags`] | who may charge: an entry, and the verdict on it |
//! | [`registration`] | which stations are expected, and what is asked of each |
//! | [`shards`] | parts of all stations, and which one something belongs to |
//!
//! It also finds [`repeated_keys`], wherever JSON comes from.
//!
//! Nothing here waits, reads a clock, or knows where it is kept and over what it travels.

pub mod deliveries;
pub mod events;
pub mod id_tags;
pub mod projection;
pub mod registration;
mod repeated_keys;
pub mod shards;
pub mod webhooks;

pub use repeated_keys::repeated_keys;
