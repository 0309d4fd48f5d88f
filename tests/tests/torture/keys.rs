//! The API keys that come and go: who holds one is let in until it is revoked or expires, and a tail
//! ends with the key that has opened it.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use fastrand::Rng;
use futures_util::future::BoxFuture;
use http::Method;
use pipelet_proto::v1::{
    ApiKey, CreateApiKeyRequest, CreateApiKeyResponse, RevokeApiKeyRequest, TailEventsRequest,
    api_key_service_client::ApiKeyServiceClient, event_service_client::EventServiceClient,
};
use pipelet_tests::{Api, oracle::CreatedKey};
use tokio::time::{sleep, timeout};
use tonic::{
    Code, Request, Response, Status,
    transport::{Channel, Endpoint},
};

use crate::run::{Endpoints, Run};

/// So many at a time that are not revoked.
const KEPT: usize = 4;
/// In milliseconds; how long those live that don't live for ever.
const LIFE_MS: u64 = 400;
/// In milliseconds; the longest that a tail goes on before its key is revoked.
const TAIL_MS: u64 = 60;
/// After the end of its key a tail is over by then.
const ENDS_WITHIN: Duration = Duration::from_secs(2);
/// In milliseconds; the longest that the holder rests.
const REST_MS: u64 = 60;

/// How a tail has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Revoked,
    Expired,
    /// Without a word about the key.
    Other,
}

struct Holder {
    run: Arc<Run>,
    random: Rng,
}

/// Makes, uses and revokes keys until the run is over. `admin` makes the others.
pub(crate) async fn live(run: Arc<Run>, admin: String) {
    let random = run.choices("the holder of keys");
    let mut holder = Holder { run, random };
    while let Some(endpoints) = holder.run.endpoints().await {
        let in_flight = holder.run.begin().await;
        let kept = holder.run.keys().kept();
        match holder.random.choice(&kept).filter(|_| kept.len() >= KEPT) {
            Some(key) => holder.see_its_end(&endpoints, &admin, key).await,
            None => holder.make(&endpoints, &admin).await,
        }
        drop(in_flight);
        sleep(Duration::from_millis(holder.random.u64(..REST_MS))).await;
    }
}

/// Calls with each key that is known, and judges whether that is let in.
pub(crate) async fn check(run: &Run, api: &Api) {
    let keys = run.keys().all();
    for key in keys {
        let from = Instant::now();
        let reply = api.with_key(Some(&key.key)).get("/webhooks?limit=1").await;
        judge_reply(run, &key, reply.status, from);
    }
}

/// Of a status of REST. Guesses are held back, and what is wrong is one.
fn lets_in(status: u16) -> bool {
    !matches!(status, 401 | 429)
}

fn judge_reply(run: &Run, key: &CreatedKey, status: u16, from: Instant) {
    // A node that finds no owner has let the caller in by what it knows itself, and done nothing.
    if status != 503 {
        judge(run, key, lets_in(status), from);
    }
}

fn judge(run: &Run, key: &CreatedKey, let_in: bool, from: Instant) {
    let faults = run.keys().called(key.id, let_in, from, Instant::now());
    run.oracle().find(faults);
}

impl Holder {
    async fn make(&mut self, endpoints: &Endpoints, admin: &str) {
        let life =
            (self.random.u32(..3) == 0).then(|| Duration::from_millis(self.random.u64(1..LIFE_MS)));
        let asked = Instant::now();
        let request = CreateApiKeyRequest {
            name: "theirs".to_owned(),
            role: Some("read-only".to_owned()),
            expires_in: life.map(|life| life.try_into().expect("a short time")),
        };
        let Some(mut service) = self.admins(endpoints).await else {
            return;
        };
        let made = service.create_api_key(shown(admin, request)).await;
        let Some(CreateApiKeyResponse {
            api_key: Some(ApiKey { id, .. }),
            key,
        }) = self.answered(endpoints, made)
        else {
            return;
        };
        let answered = Instant::now();
        self.run.keys().made(CreatedKey {
            id,
            key,
            life,
            asked,
            answered,
        });
    }

    /// Opens a tail, and waits for it to end with the key: when that expires, else when it is
    /// revoked. One that has expired is revoked the next time.
    async fn see_its_end(&mut self, endpoints: &Endpoints, admin: &str, key: &CreatedKey) {
        let from = Instant::now();
        let opened = if self.random.bool() {
            tail_by_sse(&endpoints.api, &key.key).await
        } else {
            tail_by_grpc(endpoints.grpc, &key.key).await
        };
        let Some(opened) = opened else {
            return self.unanswered(endpoints, "a tail");
        };
        judge(&self.run, key, opened.is_ok(), from);
        let Ok(mut tail) = opened else {
            self.revoke(endpoints, admin, key).await;
            return;
        };
        let time = match key.life {
            Some(life) => life + ENDS_WITHIN,
            None => Duration::from_millis(self.random.u64(..TAIL_MS)),
        };
        let mut ended = timeout(time, &mut tail).await.ok();
        let mut expected = End::Expired;
        if key.life.is_none() && ended.is_none() {
            if !self.revoke(endpoints, admin, key).await {
                return;
            }
            ended = timeout(ENDS_WITHIN, tail).await.ok();
            expected = End::Revoked;
        }
        if !self.run.is_up_at(endpoints) {
            return;
        }
        if ended != Some(expected) {
            let what = format!("the tail of key {} has ended as {ended:?}", key.id);
            self.run.oracle().fault(what);
        }
        self.call(endpoints, key).await;
    }

    /// Whether that was done.
    async fn revoke(&self, endpoints: &Endpoints, admin: &str, key: &CreatedKey) -> bool {
        let Some(mut service) = self.admins(endpoints).await else {
            return false;
        };
        self.run.keys().revokes(key.id);
        let request = shown(admin, RevokeApiKeyRequest { id: key.id });
        let revoked = service.revoke_api_key(request).await;
        let is_done = self.answered(endpoints, revoked).is_some();
        if is_done {
            self.run.keys().revoked(key.id);
        }
        is_done
    }

    async fn call(&self, endpoints: &Endpoints, key: &CreatedKey) {
        let from = Instant::now();
        let api = endpoints.api.with_key(Some(&key.key));
        let reply = api.ask(Method::GET, "/webhooks?limit=1", None).await;
        if let Some(reply) = reply {
            judge_reply(&self.run, key, reply.status, from);
        }
    }

    async fn admins(&self, endpoints: &Endpoints) -> Option<ApiKeyServiceClient<Channel>> {
        let channel = channel(endpoints.grpc).await;
        if channel.is_none() {
            self.unanswered(endpoints, "a connection");
        }
        channel.map(ApiKeyServiceClient::new)
    }

    fn answered<T>(&self, endpoints: &Endpoints, answer: Result<Response<T>, Status>) -> Option<T> {
        match answer {
            Ok(answer) => Some(answer.into_inner()),
            Err(status) => {
                self.unanswered(endpoints, &status.to_string());
                None
            }
        }
    }

    fn unanswered(&self, endpoints: &Endpoints, what: &str) {
        if self.run.is_up_at(endpoints) {
            self.run.oracle().fault(format!("refused: {what}"));
        }
    }
}

type Tail = BoxFuture<'static, End>;

/// None where there was no whole answer, and an error where the key was refused.
async fn tail_by_sse(api: &Api, key: &str) -> Option<Result<Tail, ()>> {
    let opened = api.with_key(Some(key)).ask_stream("/events/stream").await?;
    let mut events = match opened {
        Ok(events) => events,
        Err(refusal) => return (!lets_in(refusal.status)).then_some(Err(())),
    };
    Some(Ok(Box::pin(async move {
        while let Some(sent) = events.next().await {
            if sent.event == "error" {
                return match sent.json()["code"].as_str() {
                    Some("key_revoked") => End::Revoked,
                    Some("key_expired") => End::Expired,
                    _ => End::Other,
                };
            }
        }
        End::Other
    })))
}

async fn tail_by_grpc(grpc: SocketAddr, key: &str) -> Option<Result<Tail, ()>> {
    let mut service = EventServiceClient::new(channel(grpc).await?);
    let tail = service.tail_events(shown(key, TailEventsRequest::default()));
    let mut events = match tail.await {
        Ok(events) => events.into_inner(),
        Err(status) => {
            let is_refused = [Code::Unauthenticated, Code::ResourceExhausted];
            return is_refused.contains(&status.code()).then_some(Err(()));
        }
    };
    Some(Ok(Box::pin(async move {
        loop {
            match events.message().await {
                Ok(Some(_)) => {}
                Ok(None) => return End::Other,
                Err(status) if status.code() != Code::Unauthenticated => return End::Other,
                Err(status) if status.message().contains("revoked") => return End::Revoked,
                Err(_) => return End::Expired,
            }
        }
    })))
}

/// None where nobody answers.
async fn channel(grpc: SocketAddr) -> Option<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{grpc}")).expect("a URL");
    endpoint.connect().await.ok()
}

fn shown<T>(key: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let key = key.parse().expect("an ASCII key");
    request.metadata_mut().insert("x-api-key", key);
    request
}
