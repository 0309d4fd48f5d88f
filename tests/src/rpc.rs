//! gRPC one level below a client: any method by its name, with an empty request.
//!
//! For who is let in and how a call is refused; what calls mean is held through `pipeletctl`.

use std::net::SocketAddr;

use http::header::CONTENT_TYPE;
use http_body_util::BodyExt as _;

use crate::deadline::within;

/// An empty message: no compression, and a length of zero.
const EMPTY: [u8; 5] = [0; 5];

#[derive(Debug, Clone)]
pub struct Rpc {
    client: reqwest::Client,
    base: String,
}

impl Rpc {
    pub fn new(grpc: SocketAddr) -> Self {
        // One provider for the whole process; another test may have installed it already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only([])
            .http2_prior_knowledge()
            .build()
            .expect("an HTTP client");
        Self {
            client,
            base: format!("http://{grpc}/pipelet.v1."),
        }
    }

    /// The status that `Service/Method` was refused with; none where an answer began.
    pub async fn call(&self, method: &str, key: Option<&str>) -> Option<u16> {
        self.send(method, key, EMPTY.to_vec()).await
    }

    /// The same with any bytes instead of a message.
    pub async fn send(&self, method: &str, key: Option<&str>, body: Vec<u8>) -> Option<u16> {
        self.begin(method, key, body).await.err()
    }

    /// An answer that has begun, and goes on until it is dropped; or the status of the refusal.
    pub async fn open(&self, method: &str, key: Option<&str>) -> Result<reqwest::Response, u16> {
        self.begin(method, key, EMPTY.to_vec()).await
    }

    /// Reads an answer that has begun to its end: the status that it ends with, and its message.
    pub async fn end(answer: reqwest::Response) -> (u16, String) {
        let mut body = http::Response::<reqwest::Body>::from(answer).into_body();
        loop {
            let frame = within("the end of a stream", body.frame()).await;
            let frame = frame.expect("trailers").expect("an unbroken stream");
            if let Ok(trailers) = frame.into_trailers() {
                let text = |name| {
                    let value = trailers.get(name).and_then(|value| value.to_str().ok());
                    value.unwrap_or_default().to_owned()
                };
                return (
                    text("grpc-status").parse().expect("a status"),
                    text("grpc-message"),
                );
            }
        }
    }

    async fn begin(
        &self,
        method: &str,
        key: Option<&str>,
        body: Vec<u8>,
    ) -> Result<reqwest::Response, u16> {
        let mut request = self
            .client
            .post(format!("{}{method}", self.base))
            .header(CONTENT_TYPE, "application/grpc")
            .header("te", "trailers")
            .body(body);
        if let Some(key) = key {
            request = request.header("x-api-key", key);
        }
        let answer = within(method, request.send()).await.expect("an answer");
        let status = answer.headers().get("grpc-status");
        let code = status.and_then(|status| status.to_str().ok()?.parse().ok());
        code.filter(|code| *code != 0).map_or(Ok(answer), Err)
    }
}
