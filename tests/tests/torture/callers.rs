//! The API's callers: they change webhooks, see to the dead letters and send commands.

use std::{sync::Arc, time::Duration, time::Instant};

use fastrand::Rng;
use http::Method;
use pipelet_tests::{
    Api, Reply,
    oracle::{Key, Shape},
};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    receivers::number_in,
    run::{Endpoints, Run},
    secrets::{self, ROTATED},
    stations::{BOOT, DATA, METER, START},
};

/// The one that is switched off and on.
pub(crate) const SWITCHED: Key = Key(5);
/// The keys from here on are of webhooks that come and go.
const FIRST_OF_THE_CHANGING: u32 = 100;
/// So many of them at a time.
const CHANGING: usize = 3;
/// In milliseconds; the longest that a caller rests.
const REST_MS: u64 = 60;

#[derive(Debug, Clone, Copy)]
pub(crate) enum Role {
    Changer,
    Switcher,
    Undertaker,
    Commander,
    Rotator,
}

pub(crate) const ROLES: [Role; 5] = [
    Role::Changer,
    Role::Switcher,
    Role::Undertaker,
    Role::Commander,
    Role::Rotator,
];

struct Caller {
    run: Arc<Run>,
    random: Rng,
    base: String,
    stations: u32,
    /// Of the webhooks that come and go.
    keys: Vec<Key>,
    next_key: u32,
    version: u32,
}

/// Calls until the run is over. `base` is the URL of the receivers.
pub(crate) async fn live(run: Arc<Run>, role: Role, base: String, stations: u32) {
    let random = run.choices(&format!("{role:?}"));
    let mut caller = Caller {
        run: Arc::clone(&run),
        random,
        base,
        stations,
        keys: Vec::new(),
        next_key: FIRST_OF_THE_CHANGING,
        version: 0,
    };
    while let Some(Endpoints { api, .. }) = run.endpoints().await {
        let in_flight = run.begin().await;
        match role {
            Role::Changer => caller.change(&api).await,
            Role::Switcher => caller.switch(&api).await,
            Role::Undertaker => caller.see_to_the_dead(&api).await,
            Role::Commander => caller.command(&api).await,
            Role::Rotator => caller.rotate(&api).await,
        }
        drop(in_flight);
        sleep(Duration::from_millis(caller.random.u64(..REST_MS))).await;
    }
}

/// What a webhook is asked to be.
pub(crate) fn request(shape: &Shape) -> Value {
    json!({
        "name": shape.name, "url": shape.url, "events": shape.events, "enabled": shape.enabled,
        "secret_header": secrets::HEADER, "secret_value": secrets::value(&shape.url),
        "signing_secret": secrets::signing(&shape.url, 0),
    })
}

/// Whether a change holds everywhere. Where a shard has no owner, it follows there at some later time.
fn holds(reply: &Reply) -> bool {
    matches!(reply.status, 200 | 201) && reply.json().get("absent_shards").is_none()
}

impl Caller {
    async fn ask(
        &self,
        api: &Api,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Option<Reply> {
        let reply = api.ask(method.clone(), path, body).await?;
        let is_outage = reply.status == 503 && self.run.has_outages;
        if self.run.is_up() && reply.status >= 500 && reply.status != 504 && !is_outage {
            let fault = format!("{} for {method} {path}: {}", reply.status, reply.text);
            self.run.oracle().fault(fault);
        }
        Some(reply)
    }

    async fn change(&mut self, api: &Api) {
        let Some(&key) = self.random.choice(&self.keys) else {
            return self.create(api).await;
        };
        if self.run.webhooks().registrations.now(key).is_none() {
            // It was never created, or its deletion has come out since.
            self.run.oracle().gone(key);
            self.keys.retain(|known| *known != key);
            return;
        }
        match self.random.u32(..100) {
            0..40 if self.keys.len() < CHANGING => self.create(api).await,
            0..80 => self.update(api, key).await,
            _ => self.delete(api, key).await,
        }
    }

    async fn create(&mut self, api: &Api) {
        let key = Key(self.next_key);
        self.next_key += 1;
        self.keys.push(key);
        let shape = self.shape(key);
        let asked = Some(shape.clone());
        self.run.webhooks().registrations.asks(key, asked);
        let body = request(&shape);
        let reply = self.ask(api, Method::POST, "/webhooks", Some(&body)).await;
        let Some(reply) = reply.filter(|reply| reply.status == 201) else {
            return;
        };
        let id = reply.json()["id"].as_u64().expect("a numeric id");
        self.run.webhooks().ids.insert(id, key);
        if holds(&reply) {
            let now = Instant::now();
            self.run.webhooks().registrations.answered(key, now);
            self.run.oracle().wants(key, &[START, BOOT], false, now);
        }
    }

    async fn update(&mut self, api: &Api, key: Key) {
        let Some(path) = self.path(key) else { return };
        let shape = self.shape(key);
        let asked = Some(shape.clone());
        self.run.webhooks().registrations.asks(key, asked);
        let body = request(&shape);
        let reply = self.ask(api, Method::PUT, &path, Some(&body)).await;
        if reply.is_some_and(|reply| holds(&reply)) {
            self.run
                .webhooks()
                .registrations
                .answered(key, Instant::now());
        }
    }

    async fn delete(&mut self, api: &Api, key: Key) {
        let Some(path) = self.path(key) else { return };
        self.run.oracle().may_not_want(key);
        self.run.webhooks().registrations.asks(key, None);
        let reply = self.ask(api, Method::DELETE, &path, None).await;
        if reply.is_some_and(|reply| reply.status == 204) {
            self.run
                .webhooks()
                .registrations
                .answered(key, Instant::now());
            self.run.oracle().gone(key);
            self.keys.retain(|known| *known != key);
        }
    }

    /// Its name and the end of its URL are new each time; what it wants stays.
    fn shape(&mut self, key: Key) -> Shape {
        self.version += 1;
        let version = self.version;
        Shape {
            name: format!("{} in version {version}", key.0),
            url: format!("{}/{}/{version}", self.base, key.0),
            events: vec![START.to_owned(), BOOT.to_owned()],
            enabled: true,
        }
    }

    async fn switch(&mut self, api: &Api) {
        let Some(path) = self.path(SWITCHED) else {
            return;
        };
        let enabled = self.random.u32(..3) > 0;
        let mut shape = {
            let webhooks = self.run.webhooks();
            let shape = webhooks.registrations.now(SWITCHED).cloned();
            shape.expect("it is never deleted")
        };
        let was = shape.enabled;
        shape.enabled = enabled;
        if !enabled {
            self.run.oracle().may_not_want(SWITCHED);
        }
        let body = request(&shape);
        let asked = Some(shape);
        self.run.webhooks().registrations.asks(SWITCHED, asked);
        let reply = self.ask(api, Method::PUT, &path, Some(&body)).await;
        if reply.is_some_and(|reply| holds(&reply)) {
            self.run
                .webhooks()
                .registrations
                .answered(SWITCHED, Instant::now());
            if enabled && !was {
                let now = Instant::now();
                self.run.oracle().wants(SWITCHED, &[METER], false, now);
            }
        }
    }

    async fn rotate(&self, api: &Api) {
        let (path, body) = {
            let mut webhooks = self.run.webhooks();
            let Some(path) = webhooks.path(ROTATED) else {
                return;
            };
            let shape = webhooks.registrations.now(ROTATED);
            let url = shape.expect("it is never deleted").url.clone();
            let secret = secrets::signing(&url, webhooks.rotation.asks());
            (path, json!({"signing_secret": secret}))
        };
        let path = format!("{path}/rotate-secret");
        let reply = self.ask(api, Method::POST, &path, Some(&body)).await;
        if reply.is_some_and(|reply| holds(&reply)) {
            self.run.webhooks().rotation.answered(Instant::now());
        }
    }

    fn path(&self, key: Key) -> Option<String> {
        self.run.webhooks().path(key)
    }

    async fn see_to_the_dead(&mut self, api: &Api) {
        match self.random.u32(..20) {
            0 => {
                let all = json!({"all": true});
                let path = "/failed-deliveries/replay";
                self.ask(api, Method::POST, path, Some(&all)).await;
                return;
            }
            1..5 => return self.retry_now(api).await,
            _ => {}
        }
        let page = self.ask(api, Method::GET, "/failed-deliveries?limit=20", None);
        let Some(page) = page.await.filter(|page| page.status == 200) else {
            return;
        };
        let page = page.json();
        // Fewer at a time than there are would be no steady state.
        for failed in page["data"].as_array().expect("data") {
            match self.random.u32(..4) {
                0 => self.replay(api, failed).await,
                1 => self.purge(api, failed).await,
                _ => {}
            }
        }
    }

    /// What waits for a retry is sent before it is due, and disabled amid that: by the others,
    /// whose waits are judged, retries have to wait.
    async fn retry_now(&self, api: &Api) {
        let Some(path) = self.path(SWITCHED) else {
            return;
        };
        self.run.oracle().hurries(SWITCHED);
        let path = format!("{path}/retry");
        self.ask(api, Method::POST, &path, None).await;
    }

    async fn replay(&self, api: &Api, failed: &Value) {
        let path = format!("/failed-deliveries/{}/replay", failed["id"]);
        self.ask(api, Method::POST, &path, None).await;
    }

    async fn purge(&self, api: &Api, failed: &Value) {
        let webhook = failed["webhook_id"].as_u64().expect("a numeric id");
        let key = self.run.webhooks().ids.get(&webhook).copied();
        let number = number_in(&failed["payload"].to_string()).expect("its number");
        if let Some(key) = key {
            self.run.oracle().purges(key, number);
        }
        let path = format!("/failed-deliveries/{}", failed["id"]);
        let reply = self.ask(api, Method::DELETE, &path, None).await;
        if let Some(key) = key.filter(|_| reply.is_some_and(|reply| reply.status == 204)) {
            self.run.oracle().purged(key);
        }
    }

    async fn command(&mut self, api: &Api) {
        let number = self.run.oracle().sends(DATA, Instant::now());
        let body = json!({"vendorId": "Acme", "data": format!("#{number}#")});
        let station = self.random.u32(..self.stations);
        let path = format!("/stations/S{station}/commands/DataTransfer?timeout=2s");
        let reply = self.ask(api, Method::POST, &path, Some(&body)).await;
        let answered = |reply: &Reply| reply.status == 200 && reply.json()["status"] == "answered";
        if reply.as_ref().is_some_and(answered) {
            self.run.oracle().answered(number, None, Instant::now());
        }
    }
}
