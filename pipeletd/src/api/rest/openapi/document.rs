//! Makes `openapi.json`: the messages as utoipa tells them, and around them what `frame.yaml` says.
//!
//! It runs in a test, which holds the committed document to what it makes. The order of keys is kept
//! all the way, for people read the document, too.

use std::collections::{BTreeMap, BTreeSet};

use axum::http::StatusCode;
use pipelet_domain::events::{Direction, EventType, Group};
use pipelet_proto::v1;
use serde_yaml_ng::{Mapping, Value};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{RefOr, Schema},
};

const FRAME: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/src/api/rest/openapi/frame.yaml"
);
const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");
/// Set, it is written anew.
const UPDATE: &str = "UPDATE_OPENAPI";

macro_rules! object {
    ($($key:expr => $value:expr),* $(,)?) => {
        Mapping::from_iter([$((Value::from($key), Value::from($value))),*])
    };
}

/// The schemas of these messages and of those in them, by name.
macro_rules! schemas {
    ($($message:ty),* $(,)?) => {{
        let mut schemas: Vec<(String, RefOr<Schema>)> = Vec::new();
        $(
            schemas.push((<$message>::name().into_owned(), <$message>::schema()));
            <$message>::schemas(&mut schemas);
        )*
        schemas
    }};
}

#[test]
fn the_document_is_what_is_made_of_the_code() {
    let document = serde_json::to_string_pretty(&document()).unwrap() + "\n";
    if std::env::var_os(UPDATE).is_some() {
        std::fs::write(DOCUMENT, &document).unwrap();
    }
    let committed = std::fs::read_to_string(DOCUMENT).unwrap();
    let mut lines = document.lines().zip(committed.lines()).enumerate();
    let differs = lines.find(|(_, (made, committed))| made != committed);
    assert_eq!(differs, None, "{UPDATE}=1 writes it anew");
    assert_eq!(document.len(), committed.len(), "{UPDATE}=1 writes it anew");
}

fn document() -> Mapping {
    let frame = std::fs::read_to_string(FRAME).unwrap();
    let frame: Value = serde_yaml_ng::from_str(&frame).unwrap();
    let part = |name: &str| frame[name].clone();
    let key = object! {
        "type" => "apiKey",
        "in" => "header",
        "name" => "X-API-Key",
        "description" => "`pipeletctl keys create` makes one; the first is in `admin.key` in the data \
                          directory.",
    };
    let components = object! {
        "securitySchemes" => object! { "ApiKey" => key },
        "headers" => part("headers"),
        "parameters" => part("parameters"),
        "responses" => problems(&frame),
        "schemas" => schemas(&frame),
    };
    object! {
        "openapi" => "3.1.0",
        "info" => part("info"),
        "servers" => vec![object! { "url" => "/" }],
        "security" => vec![object! { "ApiKey" => Vec::<Value>::new() }],
        "tags" => part("tags"),
        "paths" => paths(&frame),
        "components" => components,
    }
}

fn reference(kind: &str, name: &str) -> Mapping {
    object! { "$ref" => format!("#/components/{kind}/{name}") }
}

fn references(kind: &str, names: &Value) -> Vec<Value> {
    let names = texts(names).into_iter();
    names.map(|name| reference(kind, name).into()).collect()
}

fn texts(list: &Value) -> Vec<&str> {
    let list = list.as_sequence().into_iter().flatten();
    list.map(|text| text.as_str().expect("text")).collect()
}

fn entries(map: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let entries = map.as_mapping().into_iter().flatten();
    entries.map(|(key, value)| (key.as_str().expect("text"), value))
}

fn paths(frame: &Value) -> Mapping {
    let mut paths = Mapping::new();
    for (place, said) in entries(&frame["operations"]) {
        let (method, path) = place.split_once(' ').expect("a method and a path");
        let methods = paths
            .entry(format!("/api/v1{path}").into())
            .or_insert_with(|| Mapping::new().into());
        let operation = Operation {
            method,
            path,
            said,
            frame,
        };
        let method = method.to_lowercase();
        let methods = methods.as_mapping_mut().expect("it is one");
        methods.insert(method.into(), operation.made().into());
    }
    paths
}

struct Operation<'a> {
    method: &'a str,
    path: &'a str,
    said: &'a Value,
    frame: &'a Value,
}

impl Operation<'_> {
    fn made(&self) -> Mapping {
        let said = |name: &str| self.said[name].clone();
        let mut made = object! {
            "operationId" => said("id"),
            "tags" => vec![said("tag")],
            "summary" => said("summary"),
        };
        if let Some(description) = self.said.get("description") {
            made.insert("description".into(), description.clone());
        }
        made.insert("x-required-role".into(), self.role().into());
        let mut parameters = references("parameters", &self.said["takes"]);
        if self.is_repeatable() {
            parameters.push(reference("parameters", "IdempotencyKey").into());
        }
        if !parameters.is_empty() {
            made.insert("parameters".into(), parameters.into());
        }
        if let Some(body) = self.said.get("body") {
            let required = body.get("required").is_none();
            let content = object! { "application/json" => content(body) };
            let body = object! { "required" => required, "content" => content };
            made.insert("requestBody".into(), body.into());
        }
        made.insert("responses".into(), self.responses().into());
        if let Some(callbacks) = self.said.get("callbacks") {
            made.insert("callbacks".into(), callbacks.clone());
        }
        made
    }

    fn role(&self) -> &str {
        match (self.said.get("role"), self.method) {
            (Some(role), _) => role.as_str().expect("text"),
            (None, "GET") => "read-only",
            (None, _) => "operator",
        }
    }

    /// Every POST takes an `Idempotency-Key`.
    fn is_repeatable(&self) -> bool {
        self.method == "POST"
    }

    fn responses(&self) -> Mapping {
        let mut responses: BTreeMap<u64, Value> = BTreeMap::new();
        for (status, problem) in self.problems() {
            responses.insert(status, reference("responses", problem).into());
        }
        for (status, answer) in self.said["answers"].as_mapping().into_iter().flatten() {
            let mut headers = object! { "X-Request-Id" => reference("headers", "X-Request-Id") };
            for header in texts(&answer["headers"]) {
                headers.insert(header.into(), reference("headers", header).into());
            }
            if self.is_repeatable() {
                let header = "Idempotency-Replayed";
                headers.insert(header.into(), reference("headers", header).into());
            }
            let mut response = object! {
                "description" => answer["description"].clone(),
                "headers" => headers,
            };
            if answer.get("schema").is_some() || answer.get("type").is_some() {
                let kind = answer["type"].as_str().unwrap_or("application/json");
                response.insert("content".into(), object! { kind => content(answer) }.into());
            }
            responses.insert(status.as_u64().expect("a status"), response.into());
        }
        let responses = responses.into_iter();
        responses
            .map(|(status, response)| (status.to_string().into(), response))
            .collect()
    }

    /// What may go wrong: what follows from the rest, and what is said.
    fn problems(&self) -> BTreeMap<u64, &str> {
        let takes = texts(&self.said["takes"]);
        let has_query = takes
            .iter()
            .any(|name| self.frame["parameters"][*name]["in"] == "query");
        let has_body = self.said.get("body").is_some();
        let follows = [
            (400, "Malformed", has_body || self.path.contains('{')),
            (401, "Unauthenticated", true),
            (403, "Forbidden", self.role() != "read-only"),
            (409, "InFlight", self.is_repeatable()),
            (412, "PreconditionFailed", takes.contains(&"IfMatch")),
            (413, "BodyTooLarge", has_body),
            (415, "UnsupportedMediaType", has_body),
            (
                422,
                "Invalid",
                has_body || has_query || self.is_repeatable(),
            ),
            (429, "Throttled", true),
            (500, "Internal", true),
            (503, "Unavailable", true),
        ];
        let follows = follows.into_iter().filter(|(_, _, follows)| *follows);
        let mut problems: BTreeMap<u64, &str> = follows
            .map(|(status, problem, _)| (status, problem))
            .collect();
        for (status, problem) in self.said["fails"].as_mapping().into_iter().flatten() {
            let status = status.as_u64().expect("a status");
            problems.insert(status, problem.as_str().expect("text"));
        }
        problems
    }
}

fn content(said: &Value) -> Mapping {
    let schema = match said["schema"].as_str() {
        Some(name) => reference("schemas", name),
        None => object! { "type" => "string" },
    };
    let mut content = object! { "schema" => schema };
    if let Some(example) = said.get("example") {
        content.insert("example".into(), example.clone());
    }
    content
}

fn problems(frame: &Value) -> Mapping {
    let problems = entries(&frame["problems"]);
    problems
        .map(|(name, said)| (name.into(), problem(said).into()))
        .collect()
}

fn problem(said: &Value) -> Mapping {
    let mut description = said["description"].as_str().expect("text").to_owned();
    let Some(status) = said["status"].as_u64() else {
        return object! { "description" => description };
    };
    let detail = said["detail"].as_str();
    let detail = detail
        .unwrap_or(description.trim_end_matches('.'))
        .to_owned();
    let mut codes = texts(&said["codes"]);
    if said.get("in_flight").is_some() {
        description += " Or a request with this `Idempotency-Key` is still under way.";
        codes.push("idempotency_in_flight");
    }
    let number = u16::try_from(status).expect("a status");
    let title = StatusCode::from_u16(number).expect("a status");
    let mut example = object! {
        "type" => "about:blank",
        "title" => title.canonical_reason().expect("a known one"),
        "status" => status,
        "code" => codes[0],
        "detail" => detail,
        "request_id" => "req_0123456789abcdef",
    };
    example.extend(said["with"].as_mapping().cloned().unwrap_or_default());
    let mut headers = object! { "X-Request-Id" => reference("headers", "X-Request-Id") };
    for header in texts(&said["headers"]) {
        headers.insert(header.into(), reference("headers", header).into());
    }
    let content = object! { "schema" => reference("schemas", "Problem"), "example" => example };
    object! {
        "description" => description,
        "x-codes" => codes,
        "headers" => headers,
        "content" => object! { "application/problem+json" => content },
    }
}

fn schemas(frame: &Value) -> Mapping {
    let mut schemas = frame["schemas"].as_mapping().expect("schemas").clone();
    let codes = entries(&frame["problems"]).flat_map(|(_, said)| texts(&said["codes"]));
    let codes: BTreeSet<_> = codes.chain(texts(&frame["other_codes"])).collect();
    let code = &mut schemas["Problem"]["properties"]["code"];
    let code = code.as_mapping_mut().expect("a schema");
    code.insert("enum".into(), Vec::from_iter(codes).into());

    let messages = schemas![
        v1::Webhook,
        v1::CreateWebhookResponse,
        v1::TestWebhookResponse,
        v1::Delivery,
        v1::FailedDelivery,
        v1::Event,
        v1::TriggerEventResponse,
        v1::EventType,
        v1::Station,
        v1::Transaction,
        v1::IdTag,
        v1::CallError,
        v1::TraceEventResponse,
        v1::BackfillResponse,
        v1::AuditWebhooksResponse,
        v1::GetStatusResponse,
        v1::GetOverviewResponse,
        v1::GetClusterResponse,
        v1::ApiKey,
        v1::CreateApiKeyResponse,
    ];
    for (name, schema) in messages {
        schemas.insert(name.into(), plain(schema));
    }
    let sent = schemas![
        v1::WebhookSpec,
        v1::RotateSigningSecretRequest,
        v1::TestWebhookRequest,
        v1::FailedDeliveryFilter,
        v1::EventFilter,
        v1::TriggerEventRequest,
        v1::RegistrationSpec,
        v1::IdTagSpec,
    ];
    let mut sent: Mapping = sent
        .into_iter()
        .map(|(name, schema)| (name.into(), plain(schema)))
        .collect();
    limit(&mut sent, &frame["limits"]);
    for (name, said) in entries(&frame["requests"]) {
        let of = said["of"].as_str().expect("a message's name");
        schemas.insert(name.into(), request(&sent[of], said).into());
    }
    for (_, operation) in entries(&frame["operations"]) {
        for (_, answer) in operation["answers"].as_mapping().into_iter().flatten() {
            let name = answer["schema"].as_str().unwrap_or_default();
            if let Some(item) = name.strip_suffix("List") {
                schemas.insert(name.into(), list(item).into());
            }
        }
    }
    schemas.extend(catalogue());
    limit(&mut schemas, &frame["limits"]);
    schemas
}

/// Adds what is known of values to those schemas that there are.
fn limit(schemas: &mut Mapping, limits: &Value) {
    for (place, limit) in entries(limits) {
        let (schema, property) = place.split_once('.').expect("a schema's property");
        let Some(schema) = schemas.get_mut(schema) else {
            continue;
        };
        let property = schema["properties"][property].as_mapping_mut();
        let property = property.expect("the message has it");
        // What has its own schema has no type here.
        for (key, other) in [("$ref", "type"), ("type", "$ref")] {
            if limit.get(key).is_some() {
                property.remove(other);
            }
        }
        property.extend(limit.as_mapping().expect("limits").clone());
    }
}

/// A schema as generators of clients like it best: `null` as one of the types rather than one of the
/// schemas, where that goes, and a text on one line.
fn plain(schema: RefOr<Schema>) -> Value {
    fn simplify(value: &mut Value) {
        match value {
            Value::Mapping(map) => {
                map.values_mut().for_each(simplify);
                if let Some(either) = map.get("oneOf").and_then(Value::as_sequence)
                    && let [null, other] = either.as_slice()
                    && null["type"] == "null"
                    && let Some(kind) = other.get("type")
                {
                    let kinds = vec![kind.clone(), "null".into()];
                    let mut other = other.as_mapping().cloned().unwrap_or_default();
                    other.insert("type".into(), kinds.into());
                    map.remove("oneOf");
                    map.extend(other);
                }
            }
            Value::Sequence(list) => list.iter_mut().for_each(simplify),
            Value::String(text) => *text = text.replace('\n', " "),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Tagged(_) => {}
        }
    }
    let mut plain = serde_yaml_ng::to_value(schema).unwrap();
    simplify(&mut plain);
    plain
}

/// What a caller sends: a message's fields, of which only few have to be there.
fn request(message: &Value, said: &Value) -> Mapping {
    let without = texts(&said["without"]);
    let mut properties = said["adds"].as_mapping().cloned().unwrap_or_default();
    for (name, property) in entries(&message["properties"]) {
        if !without.contains(&name) {
            properties.insert(name.into(), property.clone());
        }
    }
    let mut made = object! {
        "type" => "object",
        "description" => said["description"].clone(),
        "properties" => properties,
    };
    if let Some(required) = said.get("required") {
        made.insert("required".into(), required.clone());
    }
    made.insert("additionalProperties".into(), false.into());
    made
}

fn list(item: &str) -> Mapping {
    let items = object! { "type" => "array", "items" => reference("schemas", item) };
    let next = object! {
        "type" => vec!["string", "null"],
        "description" => "Where the next page begins; `null` on the last.",
    };
    object! {
        "type" => "object",
        "description" => "A page.",
        "properties" => object! { "data" => items, "next_cursor" => next },
        "required" => vec!["data", "next_cursor"],
    }
}

/// The catalogue's names.
fn catalogue() -> Mapping {
    let names = |wanted: &dyn Fn(EventType) -> bool| -> Vec<String> {
        let kinds = EventType::ALL.iter().filter(|kind| wanted(**kind));
        kinds.map(|kind| kind.name().to_owned()).collect()
    };
    let schema = |names: Vec<String>, description: &str| {
        object! { "type" => "string", "enum" => names, "description" => description }
    };
    let all = names(&|_| true);
    let mut selectors = all.clone();
    let groups = Group::ALL.iter();
    selectors.extend(groups.map(|group| format!("group:{}", group.name())));
    selectors.push("*".to_owned());
    let commands =
        |kind: EventType| matches!(kind.direction(), Direction::CsmsToStation | Direction::Both);
    object! {
        "EventName" => schema(
            all,
            "An event type. OCPP's action, or a change of the station's connection.",
        ),
        "EventSelector" => schema(
            selectors,
            "An event type, a group of them, or `*` for all, future ones included.",
        ),
        "CommandName" => schema(names(&commands), "An OCPP action that stations are asked."),
    }
}
