//! What a collector is sent: the messages of OTLP's traces, and where they go.
//!
//! Of `opentelemetry/proto/trace/v1/trace.proto` and what it uses, version 1, which only ever
//! grows: the fields that are filled here, with their numbers. The crate that has all of them
//! brings OpenTelemetry's SDK with it, for nothing that would be used.

use std::str::FromStr;

use prost::{Message, Oneof};
use url::Url;

use super::{Kind, Span, Value};

/// Where traces go, over OTLP/HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint(Url);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEndpoint {
    #[error("not a URL: {0}")]
    Malformed(#[from] url::ParseError),
    #[error("a collector's URL begins with http:// or https://")]
    Scheme,
    #[error("a collector's URL has no user name or password: settings are no secrets")]
    Credentials,
    #[error("a collector's URL has no query and no fragment")]
    Beyond,
}

impl FromStr for Endpoint {
    type Err = InvalidEndpoint;

    /// The base, to which the signal's path is added, as `OTEL_EXPORTER_OTLP_ENDPOINT` has it.
    fn from_str(text: &str) -> Result<Self, InvalidEndpoint> {
        let mut url = Url::parse(text)?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(InvalidEndpoint::Scheme);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(InvalidEndpoint::Credentials);
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(InvalidEndpoint::Beyond);
        }
        let base = url.path().trim_end_matches('/');
        let path = format!("{base}/v1/traces");
        url.set_path(&path);
        Ok(Self(url))
    }
}

impl Endpoint {
    pub(super) const fn traces(&self) -> &Url {
        &self.0
    }
}

/// An `ExportTraceServiceRequest` with these spans.
pub(super) fn request(spans: &[Span]) -> Vec<u8> {
    let version = env!("CARGO_PKG_VERSION");
    let scope = Scope {
        name: "pipeletd".to_owned(),
        version: version.to_owned(),
    };
    let resource = Resource {
        attributes: vec![
            KeyValue::new("service.name", &Value::Name("pipeletd")),
            KeyValue::new("service.version", &Value::Name(version)),
        ],
    };
    let request = ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(resource),
            scope_spans: vec![ScopeSpans {
                scope: Some(scope),
                spans: spans.iter().map(SpanMessage::from).collect(),
            }],
        }],
    };
    request.encode_to_vec()
}

/// How many spans an answer says were not taken, of a request that was.
pub(super) fn rejected(answer: &[u8]) -> u64 {
    // One that can't be read tells of none.
    let answer = ExportTraceServiceResponse::decode(answer).unwrap_or_default();
    let rejected = answer.partial_success.map_or(0, |told| told.rejected_spans);
    rejected.try_into().unwrap_or(0)
}

#[derive(Clone, PartialEq, Message)]
struct ExportTraceServiceRequest {
    #[prost(message, repeated, tag = "1")]
    resource_spans: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct ExportTraceServiceResponse {
    #[prost(message, optional, tag = "1")]
    partial_success: Option<PartialSuccess>,
}

#[derive(Clone, PartialEq, Message)]
struct PartialSuccess {
    #[prost(int64, tag = "1")]
    rejected_spans: i64,
}

#[derive(Clone, PartialEq, Message)]
struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scope_spans: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct ScopeSpans {
    #[prost(message, optional, tag = "1")]
    scope: Option<Scope>,
    #[prost(message, repeated, tag = "2")]
    spans: Vec<SpanMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct Scope {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    version: String,
}

#[derive(Clone, PartialEq, Message)]
struct SpanMessage {
    #[prost(bytes = "vec", tag = "1")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    span_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    parent_span_id: Vec<u8>,
    #[prost(string, tag = "5")]
    name: String,
    #[prost(int32, tag = "6")]
    kind: i32,
    #[prost(fixed64, tag = "7")]
    start_time_unix_nano: u64,
    #[prost(fixed64, tag = "8")]
    end_time_unix_nano: u64,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<KeyValue>,
    #[prost(message, optional, tag = "15")]
    status: Option<Status>,
    #[prost(fixed32, tag = "16")]
    flags: u32,
}

#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(int32, tag = "3")]
    code: i32,
}

impl Status {
    const ERROR: i32 = 2;
}

#[derive(Clone, PartialEq, Message)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct AnyValue {
    #[prost(oneof = "Any", tags = "1, 3")]
    value: Option<Any>,
}

#[derive(Clone, PartialEq, Oneof)]
enum Any {
    #[prost(string, tag = "1")]
    Text(String),
    #[prost(int64, tag = "3")]
    Number(i64),
}

/// W3C's flag, which the `traceparent` of the same span has.
const SAMPLED: u32 = 1;

impl From<&Span> for SpanMessage {
    fn from(span: &Span) -> Self {
        let began = u64::try_from(span.began.as_nanosecond()).unwrap_or(0);
        let took = u64::try_from(span.took.as_nanos()).unwrap_or(u64::MAX);
        let parent = span.parent.map(|id| id.to_be_bytes().to_vec());
        let attributes = span.attributes.iter();
        Self {
            trace_id: span.trace.to_vec(),
            span_id: span.id.to_be_bytes().to_vec(),
            parent_span_id: parent.unwrap_or_default(),
            name: span.name.to_owned(),
            kind: match span.kind {
                Kind::Internal => 1,
                Kind::Server => 2,
                Kind::Client => 3,
            },
            start_time_unix_nano: began,
            end_time_unix_nano: began.saturating_add(took),
            attributes: attributes
                .map(|(key, value)| KeyValue::new(key, value))
                .collect(),
            status: span.failed.then_some(Status {
                code: Status::ERROR,
            }),
            flags: SAMPLED,
        }
    }
}

impl KeyValue {
    fn new(key: &str, value: &Value) -> Self {
        let value = match value {
            Value::Number(number) => Any::Number(*number),
            Value::Name(text) => Any::Text((*text).to_owned()),
            Value::Text(text) => Any::Text(text.as_ref().to_owned()),
        };
        Self {
            key: key.to_owned(),
            value: Some(AnyValue { value: Some(value) }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traces_have_their_path_under_the_endpoint() {
        let check = |text: &str, expected: &str| {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!(endpoint.traces().as_str(), expected);
        };
        check("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces");
        check("http://127.0.0.1:4318/", "http://127.0.0.1:4318/v1/traces");
        check("https://host/otlp", "https://host/otlp/v1/traces");
        check("https://host/otlp/", "https://host/otlp/v1/traces");
    }

    #[test]
    fn an_endpoint_holds_no_secret() {
        let check = |text: &str, expected: InvalidEndpoint| {
            assert_eq!(text.parse::<Endpoint>(), Err(expected), "{text}");
        };
        check("grpc://host:4317", InvalidEndpoint::Scheme);
        check("http://me@host", InvalidEndpoint::Credentials);
        check("http://:key@host", InvalidEndpoint::Credentials);
        check("http://host?key=1", InvalidEndpoint::Beyond);
        check("http://host#1", InvalidEndpoint::Beyond);
        assert!("host:".parse::<Endpoint>().is_err());
        assert!("".parse::<Endpoint>().is_err());
    }

    #[test]
    fn a_collector_may_take_only_some() {
        assert_eq!(rejected(&[]), 0);
        assert_eq!(rejected(&[0x0a, 0x02, 0x08, 0x07]), 7);
        assert_eq!(rejected(b"<html>"), 0);
    }
}
