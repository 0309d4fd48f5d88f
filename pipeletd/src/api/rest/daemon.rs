//! `/status` and `/overview`: how the daemon is doing.

use axum::{Json, extract::State, routing::get};
use pipelet_proto::v1;

use super::{
    super::grpc::Daemons,
    access::{Routes, reads},
    page::Query,
    problem::Problem,
    services::{Asking, answered},
};

pub(super) fn routes(daemon: Daemons) -> Routes {
    Routes::new()
        .route("/status", [reads(get(status))])
        .route("/overview", [reads(get(overview))])
        .with_state(daemon)
}

async fn status(
    State(daemon): State<Daemons>,
    asking: Asking,
    query: Query,
) -> Result<Json<v1::GetStatusResponse>, Problem> {
    query.finish()?;
    let asked = asking.request(v1::GetStatusRequest {});
    let (_, status) = answered(daemon.get_status(asked).await)?;
    Ok(Json(status))
}

async fn overview(
    State(daemon): State<Daemons>,
    asking: Asking,
    query: Query,
) -> Result<Json<v1::GetOverviewResponse>, Problem> {
    query.finish()?;
    let asked = asking.request(v1::GetOverviewRequest {});
    let (_, overview) = answered(daemon.get_overview(asked).await)?;
    Ok(Json(overview))
}
