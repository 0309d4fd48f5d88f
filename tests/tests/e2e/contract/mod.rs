//! What a webhook is promised: its life, what it asks for, and what it gets.

mod documents;
mod lifecycle;
mod payload;
mod readme;
mod signatures;
mod subscriptions;
