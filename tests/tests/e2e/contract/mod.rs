//! What a webhook is promised: its life, what it asks for, and what it gets.

mod lifecycle;
mod payload;
pub(crate) mod readme;
mod signatures;
mod subscriptions;
