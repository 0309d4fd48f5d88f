//! Delivery: webhooks, what they are owed, and how it gets there.
//!
//! [`Delivery`] is the handle, [`Dispatcher`](dispatcher::Dispatcher) the worker of each webhook,
//! [`Ledger`](ledger::Ledger) the record of what left the happy path. The policy and the records
//! are pure; HTTP stands behind `http` alone.
//!
//! Knows the journal and the store, and nothing of OCPP or of the API.

mod all_shards;
mod audit;
mod backfill;
pub mod dead_letters;
mod deleted;
pub mod dispatcher;
pub mod health;
pub mod history;
pub mod http;
pub mod ledger;
mod listing;
mod observation;
mod pace;
pub mod policy;
pub mod retry_clock;
pub mod stats;
mod test_event;
mod trace;
pub mod webhooks;
mod window;

pub use self::{
    audit::{Audit, AuditState, Audited},
    backfill::{Backfill, Backfilled},
    dead_letters::{ReplayProgress, Selection},
    dispatcher::{DeliverySettings, DispatcherContext, RetriedNow},
    listing::{Listed, Place, Status},
    observation::{Observation, Observations},
    test_event::{TestResult, send as test},
    trace::{Fate, NotWanted, Trace},
    webhooks::{Delivery, DeliveryError, WebhookView, subscriptions},
    window::Lately,
};

#[cfg(test)]
mod tests;
