//! What the daemon's messages look like to people; and what the tool itself tells.
//!
//! Programs get the messages as they are: their JSON is that of REST. Secrets are not in them; the
//! exceptions are a new API key and a new signing secret, which have no `Debug`.

mod advice;
mod api_key;
mod attempt;
mod audit;
mod cluster;
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
    advice::advice,
    audit::Audit,
    cluster::without_owner,
    command::{answered, refused},
    context::{Context, RemovedContext, Target},
    daemon::DaemonStatus,
    delivery::ListedDelivery,
    event::line as event_line,
    figures::WebhookFigures,
    forwarded::Forwarded,
    payload::OneLine,
    retried::Retried,
    simulation::Simulation,
    time::Time,
    trace::drawn as drawn_trace,
    webhook::tested,
};
