//! `EventService`.

use std::sync::Arc;

use futures_util::{StreamExt as _, stream};
use pipelet_domain::{
    events::{Event, EventType, Seq},
    shards::Shards,
    webhooks::WebhookId,
};
use pipelet_proto::v1::{self, event_service_server::EventService};
use tonic::{Request, Response, Status, codegen::BoxStream};

use super::{
    super::{
        cursor,
        error::ApiError,
        event_streams::{Begin, EventStreams, Tailed},
        readers::hold_until_next,
        trigger::{Asked, Trigger},
        wire,
    },
    access::{Needs, validity},
    readers, request,
    status::statuses,
};
use crate::{
    auth::Role,
    delivery::{Backfill, Delivery},
    journal::Journals,
};

#[derive(Debug)]
pub struct EventRpc {
    pub(super) journals: Journals,
    pub(super) delivery: Delivery,
    pub(super) streams: EventStreams,
    pub(super) trigger: Trigger,
}

/// What the caller of each method needs.
pub(super) const NEEDS: Needs = &[
    ("ListEventTypes", Role::ReadOnly),
    ("ListEvents", Role::ReadOnly),
    ("GetEvent", Role::ReadOnly),
    ("TraceEvent", Role::ReadOnly),
    ("Backfill", Role::Operator),
    ("TriggerEvent", Role::Operator),
    ("TailEvents", Role::ReadOnly),
];

#[tonic::async_trait]
impl EventService for EventRpc {
    type TailEventsStream = BoxStream<v1::TailEventsResponse>;

    async fn list_event_types(
        &self,
        _: Request<v1::ListEventTypesRequest>,
    ) -> Result<Response<v1::ListEventTypesResponse>, Status> {
        let event_types = EventType::ALL.iter().map(|kind| wire::event_type(*kind));
        let event_types = event_types.collect();
        Ok(Response::new(v1::ListEventTypesResponse { event_types }))
    }

    async fn list_events(
        &self,
        request: Request<v1::ListEventsRequest>,
    ) -> Result<Response<v1::ListEventsResponse>, Status> {
        let reader = readers::of(&request)?;
        let request = request.into_inner();
        let filter = request::event_filter(request.filter.unwrap_or_default(), "/filter")?;
        let before = request::page_token(&request.page_token, positions)?;
        let limit = reader.limit(request::page_size(request.page_size));
        let room = reader.page().await?;
        let latest = self.journals.latest(&filter, before, limit).await;
        let latest = latest.map_err(ApiError::from)?;
        let room = room.down_to(latest.sizes());
        let events = latest.events.iter();
        let next = latest.before.as_ref().map(cursor::of_positions);
        let answer = v1::ListEventsResponse {
            events: events.map(|(_, event)| wire::event(event)).collect(),
            next_page_token: next.unwrap_or_default(),
        };
        Ok(room.held().within(Response::new(answer)))
    }

    async fn get_event(
        &self,
        request: Request<v1::GetEventRequest>,
    ) -> Result<Response<v1::GetEventResponse>, Status> {
        let room = readers::of(&request)?.event().await?;
        let (_, event) = self.find(&request.into_inner().id).await?;
        let room = room.down_to([event.memory_size()].into_iter());
        let event = Some(wire::event(&event));
        let answer = v1::GetEventResponse { event };
        Ok(room.held().within(Response::new(answer)))
    }

    async fn trace_event(
        &self,
        request: Request<v1::TraceEventRequest>,
    ) -> Result<Response<v1::TraceEventResponse>, Status> {
        let room = readers::of(&request)?.page().await?;
        let (seq, event) = self.find(&request.into_inner().id).await?;
        let traces = self.delivery.trace(seq, &event).await;
        let traces = traces.map_err(ApiError::from)?;
        let answer = wire::event_trace(&event, traces, self.journals.durable_at(seq));
        Ok(room.held().within(Response::new(answer)))
    }

    async fn backfill(
        &self,
        request: Request<v1::BackfillRequest>,
    ) -> Result<Response<v1::BackfillResponse>, Status> {
        let request = request.into_inner();
        let filter = request::event_filter(request.filter.unwrap_or_default(), "/filter")?;
        let left = request::page_token(&request.left, cursor::to_ranges);
        let asked = Backfill {
            filter,
            left: left.map_err(|_| {
                let message = "this is not what an answer said is left";
                ApiError::fault("/left", "invalid_value", message)
            })?,
            limit: request::page_size(request.limit),
            dry_run: request.dry_run,
        };
        let id = WebhookId(request.webhook_id);
        let done = self.delivery.backfill(id, asked).await;
        let done = done.map_err(ApiError::from)?;
        Ok(Response::new(wire::backfilled(&done)))
    }

    async fn trigger_event(
        &self,
        request: Request<v1::TriggerEventRequest>,
    ) -> Result<Response<v1::TriggerEventResponse>, Status> {
        let request = request.into_inner();
        let json = |pointer: &str, text: Option<String>| {
            let value = text.map(|text| serde_json::from_str(&text));
            let value = value.transpose();
            value.map_err(|error| ApiError::fault(pointer, "malformed", error.to_string()))
        };
        let text = |text: String| (!text.is_empty()).then_some(text);
        let asked = Asked {
            event: text(request.event),
            station: text(request.station_id),
            payload: json("/payload", request.payload)?,
            patch: json("/payload_patch", request.payload_patch)?,
            webhook: request.webhook_id,
        };
        let triggered = self.trigger.pull(asked).await?;
        Ok(Response::new(wire::triggered(&triggered)))
    }

    async fn tail_events(
        &self,
        request: Request<v1::TailEventsRequest>,
    ) -> Result<Response<Self::TailEventsStream>, Status> {
        let (validity, reader) = (validity(&request)?, readers::of(&request)?);
        let v1::TailEventsRequest {
            events,
            station_ids,
            after,
            since,
            announce,
        } = request.into_inner();
        let filter = v1::EventFilter {
            events,
            station_ids,
            ..v1::EventFilter::default()
        };
        let filter = request::event_filter(filter, "")?;
        let after = request::page_token(&after, cursor::to_positions);
        let after = after.map_err(|_| {
            let message = "this is no cursor that a tail gave";
            ApiError::fault("/after", "invalid_parameter", message)
        })?;
        let begin = match (after, since) {
            (Some(positions), _) => Begin::From(positions),
            (None, Some(time)) => Begin::At(request::from_time(time, "/since")?),
            (None, None) => Begin::Now,
        };
        let tail = self.streams.open(filter, begin, reader).await?;
        let announced = announce.then(|| {
            Ok(v1::TailEventsResponse {
                cursor: cursor::of_positions(&tail.positions()),
                ..v1::TailEventsResponse::default()
            })
        });
        let told = validity.stream(tail.into_stream()).map(|next| match next {
            Ok(next) => (Ok(tailed(&next)), next.held),
            Err(error) => (Err(error), None),
        });
        let told = statuses(hold_until_next(told));
        Ok(Response::new(Box::pin(stream::iter(announced).chain(told))))
    }
}

impl EventRpc {
    async fn find(&self, id: &str) -> Result<(Seq, Arc<Event>), ApiError> {
        let found = match id.parse() {
            Ok(id) => self.journals.find(id).await?,
            Err(_) => None,
        };
        found.ok_or_else(|| ApiError::no_such_event(id))
    }
}

fn positions(token: &str) -> Result<Shards<Seq>, ApiError> {
    Ok(cursor::to_positions(token)?)
}

fn tailed(tailed: &Tailed) -> v1::TailEventsResponse {
    v1::TailEventsResponse {
        event: Some(wire::event(&tailed.event)),
        missed: tailed.missed,
        cursor: cursor::of_positions(&tailed.then),
    }
}
