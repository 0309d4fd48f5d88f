//! The REST API as an integration would use it.
//!
//! Answers are plain JSON on purpose: the suites hold the text of the contract, and a typed
//! client would hide a key that is missing or misspelt.

use std::net::SocketAddr;

use http::{HeaderMap, Method, header::CONTENT_TYPE};
use serde_json::{Value, json};

use crate::{
    Authority, EventStream,
    deadline::{eventually, within},
};

/// A REST client with one API key, or none.
#[derive(Debug, Clone)]
pub struct Api {
    client: reqwest::Client,
    base: String,
    key: Option<String>,
    headers: Vec<(&'static str, String)>,
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .get(name)
            .map(|value| value.to_str().expect("an ASCII header"))
    }

    /// The body, where the status is the expected one.
    pub fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        if self.text.is_empty() {
            Value::Null
        } else {
            self.json()
        }
    }
}

impl Api {
    pub fn new(http: SocketAddr, key: Option<String>) -> Self {
        Self::with_base(format!("http://{http}"), key, Vec::new())
    }

    /// Over TLS, for a daemon that this authority vouches for.
    pub fn over_tls(http: SocketAddr, key: Option<String>, authority: &Authority) -> Self {
        let certificate = reqwest::Certificate::from_pem(authority.pem().as_bytes());
        let certificate = certificate.expect("an authority's certificate");
        Self::with_base(format!("https://{http}"), key, vec![certificate])
    }

    fn with_base(base: String, key: Option<String>, trusted: Vec<reqwest::Certificate>) -> Self {
        // One provider for the whole process; another test may have installed it already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only(trusted)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .expect("an HTTP client");
        let headers = Vec::new();
        Self {
            client,
            base,
            key,
            headers,
        }
    }

    /// Whether anything answers a GET at all, as it doesn't where TLS is not agreed on.
    pub async fn answers(&self, path: &str) -> bool {
        let request = self.client.get(format!("{}/api/v1{path}", self.base));
        within(path, request.send()).await.is_ok()
    }

    /// The same API for somebody else.
    #[must_use]
    pub fn with_key(&self, key: Option<&str>) -> Self {
        Self {
            key: key.map(str::to_owned),
            ..self.clone()
        }
    }

    /// The same API with a further header on each request.
    #[must_use]
    pub fn with_header(&self, name: &'static str, value: &str) -> Self {
        let mut api = self.clone();
        api.headers.push((name, value.to_owned()));
        api
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.send(Method::GET, path, None, String::new()).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Reply {
        self.send(
            Method::POST,
            path,
            Some("application/json"),
            body.to_string(),
        )
        .await
    }

    /// A POST without a body, as in the contract's `curl -X POST …/test`.
    pub async fn post_empty(&self, path: &str) -> Reply {
        self.send(Method::POST, path, None, String::new()).await
    }

    pub async fn put(&self, path: &str, body: &Value) -> Reply {
        self.send(
            Method::PUT,
            path,
            Some("application/json"),
            body.to_string(),
        )
        .await
    }

    pub async fn delete(&self, path: &str) -> Reply {
        self.send(Method::DELETE, path, None, String::new()).await
    }

    /// Any request. The path starts at the root, as in `/healthz`, or under `/api/v1` without it.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        content_type: Option<&str>,
        body: String,
    ) -> Reply {
        self.exchange(method, path, content_type, body)
            .await
            .expect("an HTTP answer")
    }

    /// The same, with or without a JSON body, to a daemon that may die at any moment: none where
    /// no whole answer came, and then nobody knows whether it did what it was asked.
    pub async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Option<Reply> {
        let content_type = body.map(|_| "application/json");
        let body = body.map(ToString::to_string).unwrap_or_default();
        self.exchange(method, path, content_type, body).await.ok()
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        content_type: Option<&str>,
        body: String,
    ) -> reqwest::Result<Reply> {
        let path = match path {
            "/healthz" | "/readyz" | "/metrics" => path.to_owned(),
            _ => format!("/api/v1{path}"),
        };
        let mut request = self
            .client
            .request(method, format!("{}{path}", self.base))
            .body(body);
        if let Some(key) = &self.key {
            request = request.header("X-API-Key", key);
        }
        if let Some(content_type) = content_type {
            request = request.header(CONTENT_TYPE, content_type);
        }
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        let answer = within(&path, request.send()).await?;
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let text = within(&path, answer.text()).await?;
        Ok(Reply {
            status,
            headers,
            text,
        })
    }

    /// Opens a stream of server-sent events, behind the event with this id where one is given.
    pub async fn stream(&self, path: &str, last_id: Option<&str>) -> Result<EventStream, Reply> {
        let begun = self.begin_stream(path, last_id).await;
        begun.expect("an HTTP answer")
    }

    /// The same to a daemon that may die at any moment: none where no whole answer came.
    pub async fn ask_stream(&self, path: &str) -> Option<Result<EventStream, Reply>> {
        self.begin_stream(path, None).await.ok()
    }

    async fn begin_stream(
        &self,
        path: &str,
        last_id: Option<&str>,
    ) -> reqwest::Result<Result<EventStream, Reply>> {
        let mut request = self.client.get(format!("{}/api/v1{path}", self.base));
        if let Some(key) = &self.key {
            request = request.header("X-API-Key", key);
        }
        if let Some(id) = last_id {
            request = request.header("Last-Event-ID", id);
        }
        let answer = within(path, request.send()).await?;
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        if status == 200 {
            return Ok(Ok(EventStream::new(answer)));
        }
        let text = within(path, answer.text()).await?;
        Ok(Err(Reply {
            status,
            headers,
            text,
        }))
    }

    /// Subscribes a URL to events, and returns the webhook's id.
    pub async fn subscribe(&self, url: &str, events: &[&str]) -> u64 {
        let webhook = json!({"name": "My Integration", "url": url, "events": events});
        let created = self.post("/webhooks", &webhook).await.expect(201);
        created["id"].as_u64().expect("a numeric id")
    }

    /// The books of a webhook.
    pub async fn stats(&self, webhook: u64) -> Value {
        self.get(&format!("/webhooks/{webhook}")).await.expect(200)["stats"].clone()
    }

    /// Waits until the books of a webhook show these numbers, and checks that they balance.
    pub async fn await_stats(&self, webhook: u64, expected: Value) -> Value {
        let what = format!("stats {expected} of webhook {webhook}");
        let stats = eventually(
            &what,
            || self.stats(webhook),
            |stats| includes(stats, &expected),
        )
        .await;
        let number = |key: &str| {
            stats[key]
                .as_u64()
                .unwrap_or_else(|| panic!("{key}: {stats}"))
        };
        assert_eq!(
            number("received"),
            number("delivered") + number("pending") + number("dead") + number("cancelled"),
            "the books don't balance: {stats}"
        );
        stats
    }

    /// Waits until there are `count` failed deliveries, and returns them.
    pub async fn await_failed(&self, query: &str, count: usize) -> Vec<Value> {
        let list = || async {
            let page = self
                .get(&format!("/failed-deliveries{query}"))
                .await
                .expect(200);
            page["data"].as_array().expect("data").clone()
        };
        eventually(&format!("{count} failed deliveries"), list, |list| {
            list.len() == count
        })
        .await
    }
}

/// Whether an object has at least these keys with these values.
fn includes(object: &Value, part: &Value) -> bool {
    part.as_object()
        .expect("an object")
        .iter()
        .all(|(key, value)| &object[key] == value)
}
