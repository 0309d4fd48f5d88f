//! `ClusterService`.

use pipelet_proto::v1::{self, cluster_service_server::ClusterService};
use tonic::{Request, Response, Status};

use super::{super::cluster::Cluster, access::Needs};
use crate::{auth::Role, cluster::drain::DrainRequest};

pub(super) struct ClusterRpc {
    pub(super) cluster: Cluster,
}

/// What the caller of each method needs.
pub(super) const NEEDS: Needs = &[
    ("GetCluster", Role::ReadOnly),
    ("DrainNode", Role::Admin),
    ("UndrainNode", Role::Admin),
];

#[tonic::async_trait]
impl ClusterService for ClusterRpc {
    async fn get_cluster(
        &self,
        _: Request<v1::GetClusterRequest>,
    ) -> Result<Response<v1::GetClusterResponse>, Status> {
        Ok(Response::new(self.cluster.get().await?))
    }

    async fn drain_node(
        &self,
        request: Request<v1::DrainNodeRequest>,
    ) -> Result<Response<v1::DrainNodeResponse>, Status> {
        let name = request.into_inner().node;
        let node = Some(self.cluster.drain(&name, DrainRequest::Drain).await?);
        Ok(Response::new(v1::DrainNodeResponse { node }))
    }

    async fn undrain_node(
        &self,
        request: Request<v1::UndrainNodeRequest>,
    ) -> Result<Response<v1::UndrainNodeResponse>, Status> {
        let name = request.into_inner().node;
        let node = Some(self.cluster.drain(&name, DrainRequest::Undrain).await?);
        Ok(Response::new(v1::UndrainNodeResponse { node }))
    }
}
