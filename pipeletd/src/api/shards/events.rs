//! `EventService` of all shards.

use std::cmp::Reverse;

use futures_util::{StreamExt as _, future::try_join_all, stream};
use jiff::Timestamp;
use pipelet_domain::events::EventType;
use pipelet_proto::v1::{self, event_service_server::EventService};
use tonic::{Request, Response, Status, codegen::BoxStream};

use super::{
    super::{
        cursor,
        error::ApiError,
        grpc::{readers, request, statuses, validity},
        wire::{self, time},
    },
    First, Front, Shard, asking,
    merging::{self, Merging, Tail},
    paging::Page,
};

#[tonic::async_trait]
impl EventService for Front {
    type TailEventsStream = BoxStream<v1::TailEventsResponse>;

    async fn list_event_types(
        &self,
        _: Request<v1::ListEventTypesRequest>,
    ) -> Result<Response<v1::ListEventTypesResponse>, Status> {
        let event_types = EventType::ALL.iter().map(|kind| wire::event_type(*kind));
        let event_types = event_types.collect();
        Ok(Response::new(v1::ListEventTypesResponse { event_types }))
    }

    /// The latest first.
    async fn list_events(
        &self,
        request: Request<v1::ListEventsRequest>,
    ) -> Result<Response<v1::ListEventsResponse>, Status> {
        let reader = readers::of(&request)?;
        let v1::ListEventsRequest {
            filter,
            page_size,
            page_token,
        } = request.into_inner();
        let room = reader.page().await?;
        let fetch = |shard: Shard, page_size, page_token| {
            let asked = self.all.part_of(
                &reader,
                v1::ListEventsRequest {
                    filter: filter.clone(),
                    page_size,
                    page_token,
                },
            );
            async move {
                let page = shard.events().list_events(asked).await?.into_inner();
                Ok(Page {
                    items: page.events,
                    next: page.next_page_token,
                })
            }
        };
        let key = |event: &v1::Event| Reverse(merging::at(event));
        let page = self
            .all
            .page(page_size, &page_token, First::Latest, fetch, key);
        let (events, next_page_token) = page.await?;
        let answer = v1::ListEventsResponse {
            events,
            next_page_token,
        };
        Ok(room.held().within(Response::new(answer)))
    }

    async fn get_event(
        &self,
        request: Request<v1::GetEventRequest>,
    ) -> Result<Response<v1::GetEventResponse>, Status> {
        let reader = readers::of(&request)?;
        let room = reader.event().await?;
        let asked = request.into_inner();
        let found = self.all.find(|shard| {
            let asked = asking(Some(&reader), asked.clone());
            async move { shard.events().get_event(asked).await }
        });
        Ok(room.held().within(found.await?))
    }

    async fn trace_event(
        &self,
        request: Request<v1::TraceEventRequest>,
    ) -> Result<Response<v1::TraceEventResponse>, Status> {
        let reader = readers::of(&request)?;
        let room = reader.page().await?;
        let asked = request.into_inner();
        let found = self.all.find(|shard| {
            let asked = asking(Some(&reader), asked.clone());
            async move { shard.events().trace_event(asked).await }
        });
        Ok(room.held().within(found.await?))
    }

    /// One shard after the other. What is left is what of this one is, and until when it is meant.
    async fn backfill(
        &self,
        request: Request<v1::BackfillRequest>,
    ) -> Result<Response<v1::BackfillResponse>, Status> {
        let reader = readers::of(&request)?;
        let mut asked = request.into_inner();
        let mut filter = asked.filter.take().unwrap_or_default();
        let (number, until, left) = match asked.left.as_str() {
            "" => (0, self.daemon.clock.now(), String::new()),
            left => left_of(left)?,
        };
        // What happens from the beginning of the backfill on is delivered anyway.
        let begun = time(until);
        let is_later =
            |it: &prost_types::Timestamp| (it.seconds, it.nanos) > (begun.seconds, begun.nanos);
        if filter.until.as_ref().is_none_or(is_later) {
            filter.until = Some(begun);
        }
        asked.filter = Some(filter);
        let (shards, limit) = (self.all.0.as_slice(), request::page_size(asked.limit));
        let mut done = v1::BackfillResponse::default();
        let (mut number, mut left) = (number, left);
        loop {
            let shard = shards.get(number).ok_or_else(no_left)?;
            let room = limit.saturating_sub(usize::try_from(done.matched).unwrap_or(usize::MAX));
            asked.left = left;
            asked.limit = u32::try_from(room).unwrap_or(u32::MAX);
            let part = asking(Some(&reader), asked.clone());
            let part = shard.events().backfill(part).await?.into_inner();
            done.matched += part.matched;
            done.retrying += part.retrying;
            done.reached = part.reached.or(done.reached);
            left = part.left;
            if !left.is_empty() {
                break;
            }
            number += 1;
            if number == shards.len() || done.matched >= limit as u64 {
                break;
            }
        }
        if number < shards.len() {
            let until = cursor::of_number(u64::try_from(until.as_nanosecond()).unwrap_or(0));
            done.left = format!("{number:x}.{until}.{left}");
        }
        Ok(Response::new(done))
    }

    async fn trigger_event(
        &self,
        request: Request<v1::TriggerEventRequest>,
    ) -> Result<Response<v1::TriggerEventResponse>, Status> {
        let reader = readers::of(&request)?;
        let asked = request.into_inner();
        let shard = self.all.of(&asked.station_id);
        let asked = asking(Some(&reader), asked);
        shard.events().trigger_event(asked).await
    }

    async fn tail_events(
        &self,
        request: Request<v1::TailEventsRequest>,
    ) -> Result<Response<Self::TailEventsStream>, Status> {
        let reader = readers::of(&request)?;
        let validity = validity(&request)?;
        let asked = request.into_inner();
        let announce = asked.announce;
        let cursors = match asked.after.as_str() {
            "" => vec![String::new(); self.all.0.count()],
            after => after.split('.').map(str::to_owned).collect(),
        };
        if cursors.len() != self.all.0.count() {
            let message = "this is no place in the events of this cluster";
            return Err(ApiError::fault("/after", "invalid_parameter", message).into());
        }
        let place = self.place_of_a_tail()?;
        let opening = self.all.iter().zip(cursors).map(|(shard, after)| {
            let asked = v1::TailEventsRequest {
                after,
                ..asked.clone()
            };
            Tail::open(shard.clone(), reader.clone(), asked)
        });
        let tails = try_join_all(opening).await?;
        let merging = Merging::new(tails, self.shutdown.clone());
        let announced = announce.then(|| {
            Ok(v1::TailEventsResponse {
                cursor: merging.cursor(),
                ..v1::TailEventsResponse::default()
            })
        });
        let told = merging.into_stream(place);
        let told = validity.stream(told.map(|next| next.map_err(ApiError::of_status)));
        let told = statuses(told);
        Ok(Response::new(Box::pin(stream::iter(announced).chain(told))))
    }
}

fn left_of(left: &str) -> Result<(usize, Timestamp, String), ApiError> {
    let mut parts = left.splitn(3, '.');
    let mut next = || parts.next().ok_or_else(no_left);
    let (number, until, left) = (next()?, next()?, next()?);
    let number = usize::from_str_radix(number, 16).map_err(|_| no_left())?;
    let until = cursor::to_number(until).map_err(|_| no_left())?;
    let until = Timestamp::from_nanosecond(until.into()).map_err(|_| no_left())?;
    Ok((number, until, left.to_owned()))
}

fn no_left() -> ApiError {
    let message = "this is not what an answer said is left";
    ApiError::fault("/left", "invalid_value", message)
}
