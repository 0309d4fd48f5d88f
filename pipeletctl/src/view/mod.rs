//! What the daemon's messages look like to people and programs.
//!
//! Invariant: in JSON every object has the keys of the REST interface, in snake case, with times
//! in RFC 3339 UTC to the millisecond. Secrets are not in the messages, so not in the views;
//! the one exception is a new API key, which has no `Debug`.

mod api_key;
mod audit;
mod command;
mod context;
mod daemon;
mod delivery;
pub(crate) mod doctor;
mod event;
mod failed_delivery;
mod figures;
mod forwarded;
mod id_tag;
mod payload;
mod retried;
mod simulation;
mod station;
mod time;
mod trace;
mod transaction;
mod webhook;

pub(crate) use self::{
    api_key::{ApiKey, NewApiKey},
    audit::Audit,
    command::CommandAnswer,
    context::{Context, RemovedContext, Target},
    daemon::DaemonStatus,
    delivery::ListedDelivery,
    event::{Event, EventType},
    failed_delivery::FailedDelivery,
    figures::WebhookFigures,
    forwarded::Forwarded,
    id_tag::IdTag,
    retried::Retried,
    simulation::Simulation,
    station::Station,
    trace::EventTrace,
    transaction::Transaction,
    webhook::{Delivery, TestOutcome, Webhook, WebhookAndSecret},
};

/// Stands in a table for what isn't there.
fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

const fn yes_no(value: bool) -> &'static str {
    if value { "yes" } else { "no" }
}
