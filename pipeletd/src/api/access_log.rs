//! One line for each call of the API: who asked for what, and what came of it.
//!
//! What changes something is told at `info`, and what only reads at `debug`; so is what was refused
//! for want of a key, of which anybody could make any number.

use tokio::time::Instant;

use super::request_id::RequestId;
use crate::registries::Caller;

/// A call that has begun.
#[derive(Debug)]
pub(super) struct Call {
    api: &'static str,
    method: String,
    id: RequestId,
    began: Instant,
}

impl Call {
    pub(super) fn begin(api: &'static str, method: &str, id: &RequestId) -> Self {
        Self {
            api,
            method: method.to_owned(),
            id: id.clone(),
            began: Instant::now(),
        }
    }

    /// `route` is a template, so that lines can be counted by it; `None` where there is none.
    /// `status` is HTTP's or gRPC's.
    pub(super) fn end(
        self,
        route: Option<&str>,
        status: u16,
        caller: Option<&Caller>,
        changes: bool,
    ) {
        let Self {
            api,
            method,
            id,
            began,
        } = self;
        let key = caller.map(|caller| caller.name.as_str());
        let duration_ms = millis(began);
        if changes && caller.is_some() {
            tracing::info!(
                api, request_id = %id, method, route, status, duration_ms, key, "API call"
            );
        } else {
            tracing::debug!(
                api, request_id = %id, method, route, status, duration_ms, key, "API call"
            );
        }
    }
}

fn millis(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX)
}
