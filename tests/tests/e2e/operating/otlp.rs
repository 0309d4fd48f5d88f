//! Spans, as a collector gets them: read with OpenTelemetry's own messages.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
    },
    common::v1::{KeyValue, any_value::Value},
    trace::v1::{Span, Status, span::SpanKind, status::StatusCode},
};
use pipelet_tests::{Answer, Builder, Receiver, Request, deadline::eventually};
use prost::Message as _;
use serde_json::json;

use crate::scene::{Scene, daemon};

const NONE: &str = "";

fn exporting_to(endpoint: &str) -> Builder {
    daemon()
        .flag("--otlp-endpoint", endpoint)
        .flag("--retry-schedule", "10ms")
}

fn spans(collector: &Receiver) -> Vec<Span> {
    let of = |request: &Request| {
        assert!(request.path.ends_with("/v1/traces"), "{}", request.path);
        let kind = request.header("content-type");
        assert_eq!(kind, Some("application/x-protobuf"));
        let exported = ExportTraceServiceRequest::decode(request.body.clone()).expect("OTLP");
        let [resource_spans] = exported.resource_spans.try_into().expect("one resource");
        let resource = resource_spans.resource.expect("a resource");
        assert_eq!(
            texts(&resource.attributes)["service.name"],
            "pipeletd",
            "{resource:?}"
        );
        let scopes = resource_spans.scope_spans.into_iter();
        scopes.flat_map(|scope| scope.spans).collect::<Vec<_>>()
    };
    collector.requests().iter().flat_map(of).collect()
}

/// Waits for so many spans that have this as their event's id.
async fn spans_of(collector: &Receiver, event: &str, count: usize) -> Vec<Span> {
    let of_event = || async {
        let mut spans = spans(collector);
        spans.retain(|span| texts(&span.attributes)["pipelet.event.id"] == event);
        spans
    };
    let mut found = eventually("spans", of_event, |spans| spans.len() >= count).await;
    assert_eq!(found.len(), count, "{found:#?}");
    found.sort_by_key(|span| span.start_time_unix_nano);
    found
}

fn texts(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |attribute: &KeyValue| {
        let value = attribute.value.clone().and_then(|value| value.value);
        let text = match value.expect("a value") {
            Value::StringValue(text) => text,
            Value::IntValue(number) => number.to_string(),
            other => panic!("{other:?}"),
        };
        (attribute.key.clone(), text)
    };
    attributes.iter().map(text).collect()
}

/// What a receiver is told of this span.
fn traceparent(span: &Span) -> String {
    let trace = span.trace_id.as_slice().try_into().expect("16 bytes");
    let id = span.span_id.as_slice().try_into().expect("8 bytes");
    let (trace, id) = (u128::from_be_bytes(trace), u64::from_be_bytes(id));
    format!("00-{trace:032x}-{id:016x}-01")
}

fn has(span: &Span, expected: &[(&str, &str)]) {
    let attributes = texts(&span.attributes);
    for (key, value) in expected {
        let found = attributes.get(*key).map_or(NONE, String::as_str);
        assert_eq!(found, *value, "{key} in {attributes:#?}");
    }
}

#[tokio::test]
async fn an_event_and_its_attempts_are_one_trace() {
    let collector = Receiver::start().await;
    let mut scene = Scene::with(exporting_to(&collector.url()), &["StatusNotification"]).await;
    let receiver = Receiver::start().await;
    receiver.answer_next([Answer::Status(500)]);
    let url = format!("{}?key=hunter2", receiver.url());
    let webhook = json!({
        "name": "W", "url": url, "events": ["Heartbeat"],
        "secret_header": "x-secret", "secret_value": "hunter2-in-a-header",
    });
    let created = scene.api.post("/webhooks", &webhook).await.expect(201);
    let webhook = created["id"].to_string();
    let mut station = scene.station("S1").await;
    station.ok("Heartbeat", "{}").await;
    let requests = receiver.await_requests(2).await;
    let id = requests[0].id().to_owned();

    let spans = spans_of(&collector, &id, 3).await;
    let [event, first, second] = &spans[..] else {
        panic!("{spans:#?}");
    };
    assert_eq!(event.name, "Heartbeat");
    assert_eq!(event.kind(), SpanKind::Server);
    assert_eq!(event.parent_span_id, Vec::<u8>::new());
    assert!(event.start_time_unix_nano <= event.end_time_unix_nano);
    let common = [
        ("pipelet.event.id", id.as_str()),
        ("pipelet.event.type", "Heartbeat"),
        ("pipelet.station.id", "S1"),
    ];
    has(event, &common);
    let shown = format!("{}?REDACTED", receiver.url());
    for (attempt, request) in [first, second].into_iter().zip(&requests) {
        let told = request.header("traceparent").expect("traceparent");
        assert_eq!(told, traceparent(attempt));
        assert_eq!(attempt.flags & 1, 1, "sampled, as was told");
        assert_eq!(attempt.trace_id, event.trace_id);
        assert_eq!(attempt.parent_span_id, event.span_id);
        assert_eq!(attempt.name, "POST");
        assert_eq!(attempt.kind(), SpanKind::Client);
        assert!(attempt.start_time_unix_nano < attempt.end_time_unix_nano);
        has(attempt, &common);
        let of_all = [
            ("http.request.method", "POST"),
            ("url.full", shown.as_str()),
            ("server.address", "127.0.0.1"),
            ("pipelet.webhook.id", webhook.as_str()),
        ];
        has(attempt, &of_all);
    }
    let failed = [
        ("http.response.status_code", "500"),
        ("error.type", "500"),
        ("http.request.resend_count", NONE),
    ];
    has(first, &failed);
    let code = |span: &Span| span.status.as_ref().map(Status::code);
    assert_eq!(code(first), Some(StatusCode::Error));
    let delivered = [
        ("http.response.status_code", "200"),
        ("error.type", NONE),
        ("http.request.resend_count", "1"),
    ];
    has(second, &delivered);
    assert_ne!(code(second), Some(StatusCode::Error));

    // What is queued at the end is exported too; nothing that anybody sent has a secret in it.
    let before = self::spans(&collector).len();
    station
        .ok(
            "StatusNotification",
            r#"{"connectorId":1,"errorCode":"NoError","status":"Available"}"#,
        )
        .await;
    let last = scene.receiver.await_requests(1).await[0].id().to_owned();
    scene.daemon.terminate().await;
    spans_of(&collector, &last, 2).await;
    assert!(self::spans(&collector).len() >= before + 2);
    let key = scene.daemon.key();
    for request in collector.requests() {
        let sent = String::from_utf8_lossy(&request.body).into_owned();
        for secret in ["hunter2", key.as_str()] {
            assert!(!sent.contains(secret), "{secret} in {sent}");
        }
        assert_eq!(request.header("authorization"), None);
    }
}

#[tokio::test]
async fn an_attempt_without_an_answer_says_why() {
    let collector = Receiver::start().await;
    let builder = exporting_to(&collector.url()).flag("--max-attempts", "1");
    let scene = Scene::with(builder, &["StatusNotification"]).await;
    let nobody = Receiver::refused_url().await;
    scene.api.subscribe(&nobody, &["Heartbeat"]).await;
    let mut station = scene.station("S1").await;
    station.ok("Heartbeat", "{}").await;
    let failed = scene.api.await_failed("", 1).await;
    let id = failed[0]["event_id"].as_str().expect("an event's id");
    let spans = spans_of(&collector, id, 2).await;
    let without_answer = [
        ("error.type", "connection_refused"),
        ("http.response.status_code", NONE),
    ];
    has(&spans[1], &without_answer);

    // The event of a test is in no journal: its attempt has nothing above it.
    let test = scene.api.post_empty("/webhooks/1/test").await;
    test.expect(200);
    let of_test = scene.receiver.await_requests(1).await[0].id().to_owned();
    let spans = spans_of(&collector, &of_test, 1).await;
    assert_eq!(spans[0].parent_span_id, Vec::<u8>::new());
}

#[tokio::test]
async fn a_collector_that_is_down_or_silent_holds_nothing_up() {
    let silent = Receiver::start().await;
    silent.answer(Answer::Hang);
    let failing = Receiver::start().await;
    failing.answer(Answer::Status(503));
    let refused = Receiver::refused_url().await;
    for endpoint in [silent.url(), failing.url(), refused] {
        let mut scene = Scene::with(exporting_to(&endpoint), &["Heartbeat"]).await;
        let mut station = scene.station("S1").await;
        for _ in 0..50 {
            station.ok("Heartbeat", "{}").await;
        }
        scene.receiver.await_requests(50).await;
        let dropped = || async {
            let text = scene.api.with_key(None).get("/metrics").await.text;
            let of = |line: &str| {
                line.strip_prefix("pipelet_spans_dropped_total ")?
                    .parse()
                    .ok()
            };
            text.lines().find_map(of).unwrap_or(0_u64)
        };
        eventually("dropped spans", dropped, |count| *count > 0).await;
        let told = || async { scene.daemon.log().matches("spans were dropped").count() };
        eventually("a line in the log", told, |lines| *lines > 0).await;
        assert_eq!(told().await, 1, "not a line for each span");
        assert!(scene.daemon.terminate().await.success());
    }
}

#[tokio::test]
async fn what_a_collector_rejects_is_dropped() {
    let collector = Receiver::start().await;
    let rejected = ExportTraceServiceResponse {
        partial_success: Some(ExportTracePartialSuccess {
            rejected_spans: 1,
            error_message: String::new(),
        }),
    };
    let body = String::from_utf8(rejected.encode_to_vec()).expect("ASCII");
    collector.answer_next([Answer::Reply {
        status: 200,
        headers: vec![],
        body,
    }]);
    let scene = Scene::with(exporting_to(&collector.url()), &["Heartbeat"]).await;
    let mut station = scene.station("S1").await;
    station.ok("Heartbeat", "{}").await;
    let dropped = || async {
        let text = scene.api.with_key(None).get("/metrics").await.text;
        text.contains("pipelet_spans_dropped_total 1\n")
    };
    eventually("a dropped span", dropped, |seen| *seen).await;
}
