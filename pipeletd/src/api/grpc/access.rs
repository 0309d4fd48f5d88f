//! What each method needs, as its service says, and who is let through to it.
//!
//! A method that no service says anything about is not there for anybody; a test holds that all of
//! `pipelet.v1` are declared.

use std::collections::HashMap;

use axum::{
    Extension,
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use pipelet_proto::v1::{
    api_key_service_server, cluster_service_server, daemon_service_server, event_service_server,
    failed_delivery_service_server, id_tag_service_server, station_service_server,
    transaction_service_server, webhook_service_server,
};
use tonic::Status;

use super::{
    super::{
        access_log::Call,
        authenticator::{Authenticator, Peer, permit},
        error::ApiError,
        readers::{self, Held},
        request_id::RequestId,
        validity::Validity,
    },
    MAX_MESSAGE, api_keys, cluster, daemon, events, failed_deliveries, id_tags, stations,
    transactions, webhooks,
};
use crate::{auth::Role, registries::Caller};

/// The names of a service's methods, and the role that each needs.
pub(super) type Needs = &'static [(&'static str, Role)];

const SERVICES: &[(&str, Needs)] = &[
    (webhook_service_server::SERVICE_NAME, webhooks::NEEDS),
    (
        failed_delivery_service_server::SERVICE_NAME,
        failed_deliveries::NEEDS,
    ),
    (event_service_server::SERVICE_NAME, events::NEEDS),
    (station_service_server::SERVICE_NAME, stations::NEEDS),
    (
        transaction_service_server::SERVICE_NAME,
        transactions::NEEDS,
    ),
    (id_tag_service_server::SERVICE_NAME, id_tags::NEEDS),
    (api_key_service_server::SERVICE_NAME, api_keys::NEEDS),
    (daemon_service_server::SERVICE_NAME, daemon::NEEDS),
    (cluster_service_server::SERVICE_NAME, cluster::NEEDS),
];

/// Services that are for everybody: they tell of the daemon only that it is one.
const OPEN: &[&str] = &[
    "/grpc.health.v1.Health/",
    "/grpc.reflection.v1.ServerReflection/",
    "/grpc.reflection.v1alpha.ServerReflection/",
];

/// Who may call what.
#[derive(Debug, Clone)]
pub(super) struct Guard {
    authenticator: Authenticator,
    /// By the whole path of the method.
    needed: HashMap<String, Role>,
}

impl Guard {
    pub(super) fn new(authenticator: Authenticator) -> Self {
        let needed = SERVICES.iter().flat_map(|(service, needs)| {
            needs
                .iter()
                .map(move |(method, role)| (format!("/{service}/{method}"), *role))
        });
        Self {
            authenticator,
            needed: needed.collect(),
        }
    }

    /// Who calls, where that matters.
    async fn admit(&self, request: &mut Request, peer: &Peer) -> Result<Option<Caller>, Status> {
        let path = request.uri().path();
        if is_open(path) {
            return Ok(None);
        }
        let caller = self.authenticator.admit(request.headers(), peer).await?;
        let needed = self.needed.get(path).copied();
        permit(
            &caller,
            needed.ok_or_else(|| Status::unimplemented("there is no such method"))?,
        )?;
        let reader = self.authenticator.reader(&caller);
        let sent = std::mem::take(request.body_mut());
        *request.body_mut() = readers::reserving(sent, reader.clone(), MAX_MESSAGE, |error| {
            Status::from(ApiError::from(error)).into()
        });
        request.extensions_mut().insert(reader);
        request.extensions_mut().insert(caller.clone());
        request
            .extensions_mut()
            .insert(self.authenticator.validity(&caller));
        Ok(Some(caller))
    }

    /// The method by its whole path, where it is one, and whether it changes anything.
    fn method(&self, path: &str) -> (Option<&str>, bool) {
        let found = self.needed.get_key_value(path);
        let changes = found.is_some_and(|(_, role)| *role != Role::ReadOnly);
        (found.map(|(path, _)| path.as_str()), changes)
    }
}

/// Whether a method is for everybody.
fn is_open(path: &str) -> bool {
    OPEN.iter().any(|service| path.starts_with(service))
}

/// For how long the caller of a stream is let in.
pub(in crate::api) fn validity<T>(request: &tonic::Request<T>) -> Result<Validity, ApiError> {
    let found = request.extensions().get::<Validity>().cloned();
    // The guard has put it there.
    found.ok_or(ApiError::Unauthenticated { first_key: None })
}

/// Lets a call through whose caller may make it, under an id that its answer and the log name.
pub(super) async fn guard(
    State(guard): State<std::sync::Arc<Guard>>,
    Extension(peer): Extension<Peer>,
    mut request: Request,
    next: Next,
) -> Response {
    let id = RequestId::of(request.headers());
    let (route, changes) = guard.method(request.uri().path());
    let call = Call::begin("grpc", request.method().as_str(), &id);
    let answer = async {
        match guard.admit(&mut request, &peer).await {
            Ok(Some(caller)) => {
                let validity = guard.authenticator.validity(&caller);
                let answer = validity.run(next.run(request)).await;
                let answer = answer.unwrap_or_else(|ended| Status::from(ended).into_http());
                let mut response = readers::keep(answer);
                // For the log.
                response.extensions_mut().insert(caller);
                response
            }
            Ok(None) => match peer.open_call() {
                Some(place) => {
                    let mut response = next.run(request).await;
                    response.extensions_mut().insert(Held::new(place));
                    readers::keep(response)
                }
                None => Status::from(ApiError::too_many_open_calls()).into_http(),
            },
            Err(status) => status.into_http(),
        }
    };
    let response = id.answer(answer).await;
    let caller = response.extensions().get::<Caller>();
    // What answers with a message tells its status at the end; it is 0 unless a stream breaks off.
    let status = response.headers().get("grpc-status");
    let status = status.and_then(|status| status.to_str().ok()?.parse().ok());
    call.end(route, status.unwrap_or(0), caller, changes);
    response
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prost::Message as _;

    use super::*;

    #[test]
    fn every_method_says_what_it_needs() {
        let files = prost_types::FileDescriptorSet::decode(pipelet_proto::FILE_DESCRIPTOR_SET);
        let files = files.unwrap().file;
        let of_ours = files.iter().filter(|file| file.package() == "pipelet.v1");
        let there: BTreeSet<String> = of_ours
            .flat_map(|file| &file.service)
            .flat_map(|service| {
                let name = service.name();
                let methods = service.method.iter();
                methods.map(move |method| format!("/pipelet.v1.{name}/{}", method.name()))
            })
            .collect();
        let declared: BTreeSet<String> = SERVICES
            .iter()
            .flat_map(|(service, needs)| {
                needs
                    .iter()
                    .map(move |(method, _)| format!("/{service}/{method}"))
            })
            .collect();
        assert!(there.len() > 20, "the methods were not found");
        assert_eq!(declared, there);
    }
}
