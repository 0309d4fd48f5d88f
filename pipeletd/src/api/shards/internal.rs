//! What a shard's owner answers to the nodes: the services of that shard alone, and what only nodes
//! ask for.

use std::{convert::Infallible, future::pending};

use axum::{
    Router,
    body::Body,
    extract::{RawQuery, Request, State},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use futures_util::{StreamExt as _, stream};
use http::{HeaderMap, StatusCode};
use pipelet_domain::{
    events::{IdTagKey, StationId},
    webhooks::WebhookId,
};
use tonic::{Status, service::Routes};

use super::{
    super::{
        cursor,
        error::ApiError,
        grpc::ShardServices,
        readers::{self, Readers},
        request_id::RequestId,
        validity::Validity,
    },
    KEY, PART_OF,
    channel::SameNode,
};
use crate::{
    delivery::Delivery,
    journal::Journals,
    ocpp::Stations,
    registries::{IdTags, Webhooks},
    system::clock::Clock,
};

/// Behind which position a shard has no event yet.
pub(super) const END: &str = "/end";

const TAKE_UP: &str = "/take-up";
const CLAIM: &str = "/claim";
const CHARGES: &str = "/charges";

/// Where what is set up of a webhook is taken up. Answers how many deliveries were cancelled.
pub(super) fn take_up(id: WebhookId) -> String {
    format!("{TAKE_UP}?{}", cursor::of_number(id.0))
}

/// Where it is claimed that a transaction with this tag starts. What is answered says whether it was
/// claimed before, and goes on until the claim is given up.
pub(super) fn claim_of(tag: &IdTagKey) -> String {
    format!("{CLAIM}?{}", cursor::of_id_tag(tag))
}

/// Where it is told whether a tag charges at another place than this connector.
pub(super) fn charges_of(tag: &IdTagKey, station: &StationId, connector_id: Option<u32>) -> String {
    let connector = connector_id.map(|id| id.to_string()).unwrap_or_default();
    let (tag, station) = (cursor::of_id_tag(tag), cursor::of_station(station));
    format!("{CHARGES}?{tag}.{station}.{connector}")
}

/// What a shard's answers are made of, besides its services.
#[derive(Debug, Clone)]
pub struct NodeHandles {
    pub delivery: Delivery,
    pub journals: Journals,
    pub stations: Stations,
    pub webhooks: Webhooks,
    pub id_tags: IdTags,
}

/// For whom things are kept in memory.
#[derive(Debug, Clone)]
struct Asking {
    readers: Readers,
    unbounded: Readers,
    clock: Clock,
}

/// What a shard answers.
pub fn router(
    services: &ShardServices,
    handles: NodeHandles,
    readers: Readers,
    clock: Clock,
) -> Router {
    let own = Router::new()
        .route(END, get(end))
        .route(TAKE_UP, post(taken_up))
        .route(CLAIM, post(claim))
        .route(CHARGES, get(charges))
        .with_state(handles);
    let asking = Asking {
        readers,
        unbounded: Readers::unbounded(),
        clock,
    };
    services
        .beside(Routes::default())
        .into_axum_router()
        .merge(own)
        .layer(middleware::from_fn_with_state(asking, admit))
}

async fn admit(State(asking): State<Asking>, mut request: Request, next: Next) -> Response {
    let id = RequestId::of(request.headers());
    let key = number(request.headers(), KEY).unwrap_or_default();
    let part_of = number(request.headers(), PART_OF);
    let part_of = part_of.and_then(|count| usize::try_from(count).ok());
    let readers = match request.extensions().get::<SameNode>() {
        // It has room for the answer already.
        Some(SameNode) => &asking.unbounded,
        None => &asking.readers,
    };
    let reader = readers.reader(key).part_of(part_of.unwrap_or(1));
    let extensions = request.extensions_mut();
    extensions.insert(reader);
    extensions.insert(Validity::of_node(asking.clock));
    id.answer(async { readers::keep(next.run(request).await) })
        .await
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}

async fn end(State(NodeHandles { journals, .. }): State<NodeHandles>) -> String {
    let ends = journals.ends();
    let end = ends.iter().next().map_or(0, |end| end.0);
    cursor::of_number(end)
}

async fn taken_up(State(handles): State<NodeHandles>, RawQuery(id): RawQuery) -> Response {
    let taken_up = async {
        let id = WebhookId(cursor::to_number(&id.unwrap_or_default())?);
        handles.webhooks.registry.store().catch_up().await?;
        let cancelled = handles.delivery.take_up(id).await?;
        Ok::<_, ApiError>(cancelled.to_string())
    };
    match taken_up.await {
        Ok(cancelled) => cancelled.into_response(),
        Err(error) => Status::from(error).into_http(),
    }
}

async fn claim(
    State(NodeHandles { id_tags, .. }): State<NodeHandles>,
    RawQuery(tag): RawQuery,
) -> Result<Body, StatusCode> {
    let tag = cursor::to_id_tag(&tag.unwrap_or_default());
    let claimed = id_tags.starting_with(tag.map_err(|_| StatusCode::BAD_REQUEST)?);
    let told = Ok::<_, Infallible>(claimed.taken.to_string());
    // It is dropped with the answer.
    let held = stream::once(async move {
        let _claimed = claimed;
        pending().await
    });
    Ok(Body::from_stream(stream::iter([told]).chain(held)))
}

async fn charges(
    State(NodeHandles { stations, .. }): State<NodeHandles>,
    RawQuery(asked): RawQuery,
) -> Result<String, StatusCode> {
    let asked = asked.unwrap_or_default();
    let mut parts = asked.split('.');
    let mut next = || parts.next().unwrap_or_default();
    let (tag, station, connector) = (next(), next(), next());
    let bad = |_| StatusCode::BAD_REQUEST;
    let tag = cursor::to_id_tag(tag).map_err(bad)?;
    let station = cursor::to_station(station).map_err(bad)?;
    let charges = stations.charges_beside(&tag, &station, connector.parse().ok());
    Ok(charges.to_string())
}
