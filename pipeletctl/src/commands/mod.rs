//! What each command does, one file per noun.
//!
//! Invariant: a command makes its calls, prints through the printer, and returns how the process
//! ends; it never exits by itself, and never reads the environment, but where a shell asks for
//! `completions`.

pub(crate) mod audit;
pub(crate) mod backfill;
pub(crate) mod backup;
pub(crate) mod call;
pub(crate) mod cluster;
pub(crate) mod completions;
pub(crate) mod contexts;
pub(crate) mod deliveries;
pub(crate) mod demo;
pub(crate) mod dlq;
pub(crate) mod doctor;
pub(crate) mod events;
pub(crate) mod id_tags;
pub(crate) mod keys;
pub(crate) mod listen;
pub(crate) mod manual;
pub(crate) mod simulate;
pub(crate) mod stations;
pub(crate) mod stats;
pub(crate) mod status;
pub(crate) mod top;
pub(crate) mod trace;
pub(crate) mod transactions;
pub(crate) mod trigger;
pub(crate) mod webhooks;
