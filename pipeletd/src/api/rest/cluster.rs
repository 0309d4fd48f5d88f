//! `/cluster`: the nodes, and which of them owns which shard.

use axum::{
    Json,
    extract::State,
    routing::{get, post},
};
use pipelet_proto::v1;

use super::{
    super::cluster::Cluster,
    access::{Routes, administers, reads},
    page::Query,
    path::Path,
    problem::Problem,
};
use crate::cluster::drain::DrainRequest;

pub(super) fn routes(cluster: Cluster) -> Routes {
    Routes::new()
        .route("/cluster", [reads(get(show))])
        .route(
            "/cluster/nodes/{node}/drain",
            [administers(post(drain).delete(undrain))],
        )
        .with_state(cluster)
}

async fn show(
    State(cluster): State<Cluster>,
    query: Query,
) -> Result<Json<v1::GetClusterResponse>, Problem> {
    query.finish()?;
    Ok(Json(cluster.get().await?))
}

async fn drain(
    State(cluster): State<Cluster>,
    Path(node): Path<String>,
) -> Result<Json<v1::ClusterNode>, Problem> {
    Ok(Json(cluster.drain(&node, DrainRequest::Drain).await?))
}

async fn undrain(
    State(cluster): State<Cluster>,
    Path(node): Path<String>,
) -> Result<Json<v1::ClusterNode>, Problem> {
    Ok(Json(cluster.drain(&node, DrainRequest::Undrain).await?))
}
