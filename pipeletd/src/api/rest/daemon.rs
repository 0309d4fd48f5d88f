//! `/status` and `/overview`: how the daemon is doing.

use axum::{Extension, Json, extract::State, routing::get};
use pipelet_proto::v1;

use super::{
    super::daemon::Daemon,
    access::{Routes, reads},
    page::Query,
    problem::Problem,
};
use crate::registries::Caller;

pub(super) fn routes(daemon: Daemon) -> Routes {
    Routes::new()
        .route("/status", [reads(get(status))])
        .route("/overview", [reads(get(overview))])
        .with_state(daemon)
}

async fn status(
    State(daemon): State<Daemon>,
    Extension(caller): Extension<Caller>,
    query: Query,
) -> Result<Json<v1::GetStatusResponse>, Problem> {
    query.finish()?;
    Ok(Json(daemon.status(Some(&caller)).await?))
}

async fn overview(
    State(daemon): State<Daemon>,
    query: Query,
) -> Result<Json<v1::GetOverviewResponse>, Problem> {
    query.finish()?;
    Ok(Json(daemon.overview().await?))
}
