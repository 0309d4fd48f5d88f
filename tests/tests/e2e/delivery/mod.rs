//! Deliveries: attempts, retries, dead letters, replay, and an account of each.

mod audit;
mod backfill;
mod backlog;
mod clocks;
mod cut;
mod deliveries;
mod event_traces;
mod receivers;
mod replay_pace;
mod retries;
mod trigger;
