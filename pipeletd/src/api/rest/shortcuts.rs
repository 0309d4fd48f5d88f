//! Short ways to the commands that are used most, under names of their own.
//!
//! | route | body | action |
//! |---|---|---|
//! | `POST …/reset` | `{"type": "Soft" \| "Hard"}` | `Reset` |
//! | `POST …/availability` | `{"connector_id", "type": "Operative" \| "Inoperative"}` | `ChangeAvailability` |
//! | `POST …/unlock` | `{"connector_id"}` | `UnlockConnector` |
//! | `POST …/transactions/start` | `{"id_tag", "connector_id"?}` | `RemoteStartTransaction` |
//! | `POST …/transactions/stop` | `{"transaction_id"}` | `RemoteStopTransaction` |
//! | `POST …/trigger` | `{"message", "connector_id"?}` | `TriggerMessage` |
//! | `GET …/configuration?key=A&key=B` | | `GetConfiguration` |
//! | `PUT …/configuration` | `{"key", "value"}` | `ChangeConfiguration` |
//!
//! All are under `/stations/{id}`, take `?timeout=10s`, and answer as `…/commands/{Action}` does.
//! Nothing is decided here: a body is put into OCPP's words, and what is wrong with it back.

use axum::{
    Json,
    extract::State,
    routing::{MethodRouter, get, post},
};
use pipelet_domain::{
    events::{EventType, Payload},
    webhooks::Fault,
};
use pipelet_proto::v1::call_response::Outcome;
use serde_json::{Map, Value};

use super::{
    super::{
        error::ApiError,
        fields::{refuse_repeated_keys, whole},
        grpc::Stations,
    },
    access::{Routes, operates},
    body::RawBody,
    commands::{ask, timeout},
    page::Query,
    path::Path,
    problem::Problem,
    services::Asking,
};

/// A field's name here, and OCPP's.
type Names = &'static [(&'static str, &'static str)];

const CONNECTOR: (&str, &str) = ("connector_id", "connectorId");
const TYPE: (&str, &str) = ("type", "type");

const POSTS: &[(&str, EventType, Names)] = &[
    ("reset", EventType::Reset, &[TYPE]),
    (
        "availability",
        EventType::ChangeAvailability,
        &[CONNECTOR, TYPE],
    ),
    ("unlock", EventType::UnlockConnector, &[CONNECTOR]),
    (
        "transactions/start",
        EventType::RemoteStartTransaction,
        &[CONNECTOR, ("id_tag", "idTag")],
    ),
    (
        "transactions/stop",
        EventType::RemoteStopTransaction,
        &[("transaction_id", "transactionId")],
    ),
    (
        "trigger",
        EventType::TriggerMessage,
        &[("message", "requestedMessage"), CONNECTOR],
    ),
];

const SETTING: Names = &[("key", "key"), ("value", "value")];

pub(super) fn routes(stations: Stations) -> Routes {
    // The GET asks the station too, which is more than to look at what is known of it.
    let configuration = get(read_configuration).put(
        |stations: State<Stations>,
         asking: Asking,
         id: Path<String>,
         query: Query,
         body: RawBody| {
            command(
                EventType::ChangeConfiguration,
                SETTING,
                stations,
                asking,
                id,
                query,
                body,
            )
        },
    );
    POSTS
        .iter()
        .fold(Routes::new(), |router, (path, action, names)| {
            router.route(
                &format!("/stations/{{id}}/{path}"),
                [operates(shortcut(*action, names))],
            )
        })
        .route("/stations/{id}/configuration", [operates(configuration)])
        .with_state(stations)
}

fn shortcut(action: EventType, names: Names) -> MethodRouter<Stations> {
    post(
        move |stations: State<Stations>,
              asking: Asking,
              id: Path<String>,
              query: Query,
              body: RawBody| { command(action, names, stations, asking, id, query, body) },
    )
}

async fn command(
    action: EventType,
    names: Names,
    State(stations): State<Stations>,
    asking: Asking,
    Path(id): Path<String>,
    mut query: Query,
    RawBody(body): RawBody,
) -> Result<Json<Outcome>, Problem> {
    let wait = timeout(&mut query);
    query.finish()?;
    refuse_repeated_keys(body.as_bytes())?;
    let payload = in_ocpp(names, &body);
    let answer = ask(&stations, asking, id, action, &payload, wait).await;
    answer.map_err(|problem| problem.map(|error| in_our_words(names, error)))
}

async fn read_configuration(
    State(stations): State<Stations>,
    asking: Asking,
    Path(id): Path<String>,
    mut query: Query,
) -> Result<Json<Outcome>, Problem> {
    let wait = timeout(&mut query);
    let mut keys = Vec::new();
    while let Some(key) = query.take("key", "a key", |text| Some(Value::from(text))) {
        keys.push(key);
    }
    query.finish()?;
    let mut payload = Map::new();
    if !keys.is_empty() {
        payload.insert("key".to_owned(), keys.into());
    }
    let action = EventType::GetConfiguration;
    ask(&stations, asking, id, action, &object(payload), wait).await
}

/// The body with OCPP's names. A field that is not known gets a name that OCPP doesn't know
/// either, so that its own name does not slip through as one of OCPP's.
fn in_ocpp(names: Names, body: &Payload) -> Payload {
    let fields: Map<String, Value> = serde_json::from_slice(body.as_bytes()).unwrap_or_default();
    let renamed = fields.into_iter().map(|(key, value)| {
        let known = names.iter().find(|(ours, _)| *ours == key);
        let key = known.map_or_else(|| format!("{UNKNOWN}{key}"), |(_, theirs)| (*theirs).into());
        (key, whole(value))
    });
    object(renamed.collect())
}

/// Begins the names of fields that are not known.
const UNKNOWN: char = '?';

fn object(fields: Map<String, Value>) -> Payload {
    Payload::parse(Value::Object(fields).to_string().as_bytes())
        .unwrap_or_else(|_| Payload::empty())
}

fn in_our_words(names: Names, error: ApiError) -> ApiError {
    let ApiError::Invalid(faults) = error else {
        return error;
    };
    let renamed = faults.into_iter().map(|fault| Fault {
        pointer: our_pointer(names, &fault.pointer),
        ..fault
    });
    ApiError::Invalid(renamed.collect())
}

fn our_pointer(names: Names, pointer: &str) -> String {
    let field = pointer.strip_prefix('/').unwrap_or(pointer);
    match names.iter().find(|(_, theirs)| *theirs == field) {
        Some((ours, _)) => format!("/{ours}"),
        None => format!("/{}", field.strip_prefix(UNKNOWN).unwrap_or(field)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: Names = &[CONNECTOR, TYPE];

    #[test]
    fn bodies_are_put_into_ocpps_words() {
        let check = |ours: &str, theirs: &str| {
            let payload = |text: &str| Payload::parse(text.as_bytes()).unwrap();
            assert_eq!(in_ocpp(NAMES, &payload(ours)), payload(theirs));
        };
        check(
            r#"{"type":"Operative","connector_id":1}"#,
            r#"{"connectorId":1,"type":"Operative"}"#,
        );
        // Stations in strict mode take no 1.0 for an integer.
        check(r#"{"connector_id":1.0}"#, r#"{"connectorId":1}"#);
        check(r#"{"connectorId":1}"#, r#"{"?connectorId":1}"#);
        check("{}", "{}");
    }

    #[test]
    fn faults_point_at_the_callers_fields() {
        let check = |theirs: &str, ours: &str| assert_eq!(our_pointer(NAMES, theirs), ours);
        check("/connectorId", "/connector_id");
        check("/type", "/type");
        check("/?connectorId", "/connectorId");
    }
}
