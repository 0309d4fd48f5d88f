//! `/events`: what happened, what happens now, and what is made up; `/event-types`: the catalogue.

use std::{convert::Infallible, time::Duration};

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
use pipelet_domain::events::EventType;
use pipelet_proto::v1;
use tonic::Status;

use super::{
    super::{
        error::ApiError,
        event_filter::Said,
        fields::Fields,
        grpc::Events,
        readers::Held,
        request_id::RequestId,
        wire::{self, time},
    },
    access::{Routes, operates, reads},
    page::{List, Query},
    path::Path,
    problem::Problem,
    services::{self, Asking, answered},
};

/// How often a stream without events says that it is there, for what stands in between.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Where a stream goes on (WHATWG HTML, section 9.2.4).
const LAST_EVENT_ID: &str = "last-event-id";

pub(super) fn routes(events: Events) -> Routes {
    Routes::new()
        .route("/event-types", [reads(get(event_types))])
        .route("/events", [reads(get(list)), operates(post(pull))])
        .route("/events/stream", [reads(get(follow))])
        .route("/events/{id}", [reads(get(show))])
        .route("/events/{id}/trace", [reads(get(trace))])
        .with_state(events)
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
    State(events): State<Events>,
    asking: Asking,
    mut query: Query,
) -> Result<(Option<Extension<Held>>, Json<List<v1::Event>>), Problem> {
    let (page_size, page_token) = query.service_page();
    let until = query.time("until");
    let filter = filter(query, until)?;
    let asked = asking.request(v1::ListEventsRequest {
        filter: Some(filter),
        page_size,
        page_token,
    });
    let (held, found) = services::page(events.list_events(asked).await)?;
    Ok((held, Json(List::part(found.events, found.next_page_token))))
}

async fn show(
    State(events): State<Events>,
    asking: Asking,
    Path(id): Path<String>,
) -> Result<(Option<Extension<Held>>, Json<v1::Event>), Problem> {
    let asked = asking.request(v1::GetEventRequest { id });
    let (held, found) = answered(events.get_event(asked).await)?;
    Ok((held, Json(found.event.unwrap_or_default())))
}

/// What became of it, webhook by webhook.
async fn trace(
    State(events): State<Events>,
    asking: Asking,
    Path(id): Path<String>,
) -> Result<(Option<Extension<Held>>, Json<v1::TraceEventResponse>), Problem> {
    let asked = asking.request(v1::TraceEventRequest { id });
    let (held, trace) = answered(events.trace_event(asked).await)?;
    Ok((held, Json(trace)))
}

async fn pull(
    State(events): State<Events>,
    asking: Asking,
    mut body: Fields,
) -> Result<Response, Problem> {
    let json = |value: Option<serde_json::Value>| value.map(|value| value.to_string());
    let asked = v1::TriggerEventRequest {
        event: body.string("event").given().unwrap_or_default(),
        station_id: body.string("station_id").given().unwrap_or_default(),
        payload: json(body.value("payload").given()),
        payload_patch: json(body.value("payload_patch").given()),
        webhook_id: body.number("webhook_id").given(),
    };
    let faults = body.finish();
    if !faults.is_empty() {
        return Err(ApiError::Invalid(faults).into());
    }
    let (_, triggered) = answered(events.trigger_event(asking.request(asked)).await)?;
    let id = triggered.event.as_ref().map(|event| event.id.as_str());
    let place = format!("/api/v1/events/{}", id.unwrap_or_default());
    Ok((
        StatusCode::CREATED,
        [(header::LOCATION, place)],
        Json(triggered),
    )
        .into_response())
}

/// Server-sent events: from now on, from `since`, or from where `Last-Event-ID` says.
///
/// Where it ends before the daemon does, the last event is an `error` that says why.
async fn follow(
    State(events): State<Events>,
    asking: Asking,
    headers: HeaderMap,
    query: Query,
) -> Result<Sse<impl Stream<Item = Result<sse::Event, Infallible>>>, Problem> {
    let v1::EventFilter {
        events: kinds,
        station_ids,
        since,
        ..
    } = filter(query, None)?;
    let after = last_event_id(&headers)?;
    let asked = asking.request(v1::TailEventsRequest {
        events: kinds,
        station_ids,
        after: after.unwrap_or_default().to_owned(),
        since,
        announce: false,
    });
    let (_, tail) = answered(events.tail_events(asked).await)
        .map_err(|problem| problem.map(of_last_event_id))?;
    let id = RequestId::current();
    let told = tail.map(move |next| next.map_or_else(|status| vec![failed(status, &id)], sent));
    let told = told.map(|events| stream::iter(events).map(Ok));
    let alive = KeepAlive::new().interval(KEEP_ALIVE);
    Ok(Sse::new(told.flatten()).keep_alive(alive))
}

fn failed(status: Status, id: &RequestId) -> sse::Event {
    let problem = Problem::new(ApiError::of_status(status), id.clone()).document();
    sse::Event::default()
        .event("error")
        .data(problem.to_string())
}

fn sent(tailed: v1::TailEventsResponse) -> Vec<sse::Event> {
    let v1::TailEventsResponse {
        event,
        missed,
        cursor,
    } = tailed;
    let gap = (missed > 0).then(|| {
        let data = format!(r#"{{"missed":{missed}}}"#);
        sse::Event::default().event("gap").data(data)
    });
    let event = event.unwrap_or_default();
    let json = serde_json::to_string(&event);
    let told = sse::Event::default()
        .id(cursor)
        .event(event.event)
        .data(json.expect("a payload is JSON, and all else is text"));
    gap.into_iter().chain([told]).collect()
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<&str>, ApiError> {
    let id = headers.get(LAST_EVENT_ID).map(|id| id.to_str());
    id.transpose().map_err(|_| no_event_id())
}

fn no_event_id() -> ApiError {
    let message = "this is no id that the stream gave";
    ApiError::fault("Last-Event-ID", "invalid_parameter", message)
}

/// What is wrong with where a tail is to go on.
fn of_last_event_id(error: ApiError) -> ApiError {
    match error {
        ApiError::Invalid(faults) if faults.iter().any(|it| it.pointer == "/after") => {
            no_event_id()
        }
        error => error,
    }
}

/// Reads the rest of the query as a filter.
fn filter(mut query: Query, until: Option<jiff::Timestamp>) -> Result<v1::EventFilter, ApiError> {
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
    let filter = v1::EventFilter {
        events: said.events.clone(),
        station_ids: said.stations.clone(),
        since: said.since.map(time),
        until: said.until.map(time),
    };
    if let Err(faults) = said.parse("?event", "?station_id") {
        query.blame(faults);
    }
    query.finish()?;
    Ok(filter)
}
