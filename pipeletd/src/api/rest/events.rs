//! `/events`: what happened, what happens now, and what is made up; `/event-types`: the catalogue.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Extension, Json,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{
        IntoResponse as _, Response,
        sse::{self, KeepAlive, Sse},
    },
    routing::{get, post},
};
use futures_util::{Stream, StreamExt as _, stream};
use pipelet_domain::{
    events::{Event, EventFilter, EventType, Seq},
    shards::Shards,
};
use pipelet_proto::v1;

use super::{
    super::{
        cursor,
        error::ApiError,
        event_filter::Said,
        event_streams::{Begin, EventStreams, Tailed},
        fields::Fields,
        readers::{self, Held, Reader},
        request_id::RequestId,
        trigger::{Asked, Trigger},
        validity::Validity,
        wire,
    },
    access::{Routes, operates, reads},
    page::{List, Query},
    path::Path,
    problem::Problem,
};
use crate::{delivery::Delivery, journal::Journals, store::ReadLimit};

/// How often a stream without events says that it is there, for what stands in between.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Where a stream goes on (WHATWG HTML, section 9.2.4).
const LAST_EVENT_ID: &str = "last-event-id";

#[derive(Debug, Clone)]
struct Handles {
    delivery: Delivery,
    journals: Journals,
    streams: EventStreams,
    trigger: Trigger,
}

pub(super) fn routes(
    delivery: Delivery,
    journals: Journals,
    streams: EventStreams,
    trigger: Trigger,
) -> Routes {
    Routes::new()
        .route("/event-types", [reads(get(event_types))])
        .route("/events", [reads(get(list)), operates(post(pull))])
        .route("/events/stream", [reads(get(follow))])
        .route("/events/{id}", [reads(get(show))])
        .route("/events/{id}/trace", [reads(get(trace))])
        .with_state(Handles {
            delivery,
            journals,
            streams,
            trigger,
        })
}

async fn event_types() -> Json<List<v1::EventType>> {
    Json(List::whole(
        EventType::ALL
            .iter()
            .copied()
            .map(wire::event_type)
            .collect(),
    ))
}

/// The latest first. A page may be shorter than asked for where little matches.
async fn list(
    State(Handles { journals, .. }): State<Handles>,
    Extension(reader): Extension<Reader>,
    mut query: Query,
) -> Result<(Extension<Held>, Json<List<v1::Event>>), Problem> {
    let page = query.page(cursor::to_positions);
    let until = query.time("until");
    let filter = filter(query, until)?;
    let room = reader.page().await?;
    let limit = ReadLimit::page(page.limit);
    let latest = journals.latest(&filter, page.after, limit).await?;
    let room = room.down_to(latest.sizes());
    let events = latest.events.iter();
    let data = events.map(|(_, event)| wire::event(event)).collect();
    let next = latest.before.as_ref().map(cursor::of_positions);
    Ok((Extension(room.held()), Json(List::part(data, next))))
}

async fn show(
    State(Handles { journals, .. }): State<Handles>,
    Extension(reader): Extension<Reader>,
    Path(id): Path<String>,
) -> Result<(Extension<Held>, Json<v1::Event>), Problem> {
    let room = reader.event().await?;
    let (_, event) = find(&journals, &id).await?;
    let room = room.down_to([event.memory_size()].into_iter());
    Ok((Extension(room.held()), Json(wire::event(&event))))
}

async fn find(journals: &Journals, id: &str) -> Result<(Seq, Arc<Event>), ApiError> {
    let found = match id.parse() {
        Ok(id) => journals.find(id).await?,
        Err(_) => None,
    };
    found.ok_or_else(|| ApiError::no_such_event(id))
}

/// What became of it, webhook by webhook.
async fn trace(
    State(Handles {
        delivery, journals, ..
    }): State<Handles>,
    Extension(reader): Extension<Reader>,
    Path(id): Path<String>,
) -> Result<(Extension<Held>, Json<v1::TraceEventResponse>), Problem> {
    let room = reader.page().await?;
    let (seq, event) = find(&journals, &id).await?;
    let traces = delivery.trace(seq, &event).await?;
    let trace = wire::event_trace(&event, traces, journals.durable_at(seq));
    Ok((Extension(room.held()), Json(trace)))
}

async fn pull(
    State(Handles { trigger, .. }): State<Handles>,
    mut body: Fields,
) -> Result<Response, Problem> {
    let asked = Asked {
        event: body.string("event").given(),
        station: body.string("station_id").given(),
        payload: body.value("payload").given(),
        patch: body.value("payload_patch").given(),
        webhook: body.number("webhook_id").given(),
    };
    let faults = body.finish();
    if !faults.is_empty() {
        return Err(ApiError::Invalid(faults).into());
    }
    let triggered = trigger.pull(asked).await?;
    let place = format!("/api/v1/events/{}", triggered.event.id);
    let json = Json(wire::triggered(&triggered));
    Ok((StatusCode::CREATED, [(header::LOCATION, place)], json).into_response())
}

/// Server-sent events: from now on, from `since`, or from where `Last-Event-ID` says.
///
/// Where it ends before the daemon does, the last event is an `error` that says why.
async fn follow(
    State(Handles { streams, .. }): State<Handles>,
    Extension(validity): Extension<Validity>,
    Extension(reader): Extension<Reader>,
    headers: HeaderMap,
    query: Query,
) -> Result<Sse<impl Stream<Item = Result<sse::Event, Infallible>>>, Problem> {
    let mut filter = filter(query, None)?;
    let begin = match (last_event_id(&headers)?, filter.since.take()) {
        (Some(positions), _) => Begin::From(positions),
        (None, Some(time)) => Begin::At(time),
        (None, None) => Begin::Now,
    };
    let tail = streams.open(filter, begin, reader).await?;
    let id = RequestId::current();
    let told = validity
        .stream(tail.into_stream())
        .map(move |next| next.map_or_else(|error| (vec![failed(error, &id)], None), sent));
    let told = readers::hold_until_next(told).map(|events| stream::iter(events).map(Ok));
    let alive = KeepAlive::new().interval(KEEP_ALIVE);
    Ok(Sse::new(told.flatten()).keep_alive(alive))
}

fn failed(error: ApiError, id: &RequestId) -> sse::Event {
    error.log(id.as_str());
    let problem = Problem::new(error, id.clone()).document();
    sse::Event::default()
        .event("error")
        .data(problem.to_string())
}

fn sent(tailed: Tailed) -> (Vec<sse::Event>, Option<Held>) {
    let Tailed {
        then,
        event,
        missed,
        held,
    } = tailed;
    let gap = (missed > 0).then(|| {
        let data = format!(r#"{{"missed":{missed}}}"#);
        sse::Event::default().event("gap").data(data)
    });
    let json = serde_json::to_string(&wire::event(&event));
    let event = sse::Event::default()
        .id(cursor::of_positions(&then))
        .event(event.kind.name())
        .data(json.expect("a payload is JSON, and all else is text"));
    (gap.into_iter().chain([event]).collect(), held)
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<Shards<Seq>>, ApiError> {
    let Some(id) = headers.get(LAST_EVENT_ID) else {
        return Ok(None);
    };
    let id = id.to_str().ok();
    let positions = id.and_then(|id| cursor::to_positions(id).ok());
    positions.map(Some).ok_or_else(|| {
        let message = "this is no id that the stream gave";
        ApiError::fault("Last-Event-ID", "invalid_parameter", message)
    })
}

/// Reads the rest of the query as a filter.
fn filter(mut query: Query, until: Option<jiff::Timestamp>) -> Result<EventFilter, ApiError> {
    let names = query.all("event");
    let said = Said {
        events: names
            .iter()
            .flat_map(|names| names.split(','))
            .map(str::to_owned)
            .collect(),
        stations: query.all("station_id"),
        since: query.time("since"),
        until,
    };
    let parsed = said.parse("?event", "?station_id");
    let filter = parsed.unwrap_or_else(|faults| {
        query.blame(faults);
        EventFilter::default()
    });
    query.finish()?;
    Ok(filter)
}
