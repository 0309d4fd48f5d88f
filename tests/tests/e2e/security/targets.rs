//! Where webhooks may lead: what is refused when one is made or changed, what at each attempt,
//! and what an operator opens.
//!
//! The table of addresses is in the unit tests; here it is that every way leads past the check,
//! and that what is connected to is the address that was checked.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use pipelet_tests::{Answer, Api, Builder, Daemon, Faults, Receiver, Station};
use serde_json::{Value, json};
use tempfile::NamedTempFile;
use tokio::runtime::Handle;

use crate::scene::{ctl, daemon};

fn strict() -> Builder {
    daemon().without("--allow-private-targets")
}

const REFUSED: &[&str] = &[
    "http://127.0.0.1/",
    "http://2130706433/",
    "http://0177.0.0.1/",
    "http://0x7f.1/",
    "https://169.254.169.254/latest/meta-data",
    "http://localhost:8080/",
    "http://[::1]/",
    "http://[::ffff:10.0.0.1]/",
    "https://[64:ff9b::10.0.0.1]/",
    "https://[64:ff9b:1::a00:1]/",
    "https://[2002:a00:1::1]/",
    "http://[2001:0:4136:e378:8000:63bf:3fff:fdd2]/",
    "http://[fe80::1]/",
    "http://224.0.0.1/",
    "http://0.0.0.0/",
];

fn code(answer: &Value) -> &Value {
    assert_eq!(answer["errors"][0]["pointer"], "/url", "{answer}");
    &answer["errors"][0]["code"]
}

#[tokio::test]
async fn a_private_address_is_refused_by_every_way_in() {
    let daemon = strict().start().await;
    let (api, ctl) = (daemon.api(), ctl(&daemon));
    let id = api.subscribe("http://example.com/", &["Heartbeat"]).await;
    for url in REFUSED {
        let webhook = json!({"name": "N", "url": url, "events": ["Heartbeat"]});
        let created = api.post("/webhooks", &webhook).await.expect(422);
        assert_eq!(code(&created), "private_target", "{url}");
        let change = json!({"url": url});
        let updated = api.put(&format!("/webhooks/{id}"), &change).await;
        assert_eq!(code(&updated.expect(422)), "private_target", "{url}");
        for line in [
            format!("webhooks create --name N --event Heartbeat --url {url}"),
            format!("webhooks update {id} --url {url}"),
        ] {
            let told = ctl.line(&line).await;
            assert_eq!(told.code, 2, "{line}: {told:?}");
            assert!(told.stderr.contains("--allow-target"), "{told:?}");
        }
    }
    let kept = api.get(&format!("/webhooks/{id}")).await.expect(200);
    assert_eq!(kept["url"], "http://example.com/");
}

/// A webhook that was made while it was allowed is refused at each attempt, once it isn't.
#[tokio::test]
async fn a_literal_address_is_checked_at_each_attempt() {
    let mut daemon = daemon().start().await;
    let receivers = [Receiver::start().await, Receiver::start_tls().await];
    for receiver in &receivers {
        daemon
            .api()
            .subscribe(&receiver.url(), &["Heartbeat"])
            .await;
    }
    daemon.terminate().await;
    daemon.unset("--allow-private-targets");
    daemon.start_again().await;
    check_refused(&daemon, "a loopback address").await;
    assert_eq!(receivers.map(|receiver| receiver.count()), [0, 0]);
}

/// Both webhooks' tests and deliveries are refused, and say why.
async fn check_refused(daemon: &Daemon, why: &str) {
    let api = daemon.api();
    let mut station = Station::connect(daemon.ocpp(), "S1").await;
    station.ok("Heartbeat", "{}").await;
    for id in [1, 2] {
        let tested = test(&api, id).await;
        let error = tested["error"].as_str().expect("an error");
        assert!(
            error.contains(why) && error.contains("--allow-target"),
            "{tested}"
        );
        api.await_stats(id, json!({"pending": 1, "retrying": 1}))
            .await;
        let deliveries = api.get(&format!("/webhooks/{id}/deliveries")).await;
        assert!(deliveries.text.contains(why), "{}", deliveries.text);
        // A name's address is not for callers; one that the URL has is no news.
        for told in [error, &deliveries.text] {
            let named = why.contains("hooks.example");
            assert!(!named || !told.contains("127.0.0.2"), "{told}");
        }
    }
}

async fn test(api: &Api, id: u64) -> Value {
    let tested = api.post_empty(&format!("/webhooks/{id}/test")).await;
    tested.expect(200)
}

#[tokio::test]
async fn a_name_that_leads_to_a_private_address_is_refused_at_each_attempt() {
    let (faults, builder) = Faults::of(strict());
    let daemon = builder.start().await;
    let inside = Inside::new();
    faults.resolve("hooks.example", &["127.0.0.2", "::ffff:127.0.0.2"]);
    for scheme in ["http", "https"] {
        let url = inside.url(scheme);
        daemon.api().subscribe(&url, &["Heartbeat"]).await;
    }
    check_refused(&daemon, "where hooks.example leads to is").await;
    inside.assert_untouched();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_connected_to_where_it_was_checked() {
    let (faults, builder) = Faults::of(strict());
    let daemon = builder.flag("--allow-target", "127.0.0.1").start().await;
    let api = daemon.api();
    let inside = Inside::new();
    faults.resolve("hooks.example", &["127.0.0.2"]);
    for scheme in ["http", "https"] {
        let id = api.subscribe(&inside.url(scheme), &["Heartbeat"]).await;
        let tested = test(&api, id).await;
        let error = tested["error"].as_str().expect("an error");
        assert!(error.contains("where hooks.example leads to"), "{tested}");
        assert!(!error.contains("127.0.0.2"), "{tested}");
    }

    // Nobody listens there at the address that is allowed: refused connections are what is to be
    // seen, and none at the other one, however the answers fall.
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for address in ["127.0.0.1", "127.0.0.2"].iter().cycle() {
                faults.resolve("hooks.example", &[address]);
                if ended.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        let attempts = async {
            for _ in 0..100 {
                assert_eq!(test(&api, 1).await["ok"], false);
                assert_eq!(test(&api, 2).await["ok"], false);
            }
        };
        tokio::task::block_in_place(|| Handle::current().block_on(attempts));
        ended.store(true, Ordering::Relaxed);
    });
    // Of several, those that are allowed.
    faults.resolve("hooks.example", &["127.0.0.2", "127.0.0.1"]);
    assert_eq!(test(&api, 1).await["error"], "connection refused");
    inside.assert_untouched();
}

#[tokio::test]
async fn what_an_operator_names_is_open_and_nothing_beside() {
    let (receivers, authority) = receivers().await;
    let daemon = trusting(strict(), &authority)
        .variable("PIPELETD_ALLOW_TARGET", "10.0.0.0/8,127.0.0.1/32")
        .start()
        .await;
    let api = daemon.api();
    for receiver in &receivers {
        let id = api.subscribe(&receiver.url(), &["Heartbeat"]).await;
        assert_eq!(test(&api, id).await["ok"], true);
        assert_eq!(receiver.count(), 1);
    }
    let mapped = receivers[0]
        .url()
        .replace("127.0.0.1", "[::ffff:127.0.0.1]");
    let id = api.subscribe(&mapped, &["Heartbeat"]).await;
    assert_eq!(test(&api, id).await["ok"], true);
    let beside = json!({"name": "N", "url": "http://127.0.0.2/", "events": ["Heartbeat"]});
    api.post("/webhooks", &beside).await.expect(422);
}

/// Neither a proxy of the environment nor a redirect leads around the check.
#[tokio::test]
async fn no_proxy_and_no_redirect_leads_elsewhere() {
    let inside = Inside::new();
    let proxy = format!("http://{}", inside.address());
    let (receivers, authority) = receivers().await;
    let mut builder = trusting(strict(), &authority).flag("--allow-target", "127.0.0.1");
    for name in ["http_proxy", "https_proxy", "all_proxy"] {
        builder = builder.variable(name, &proxy);
        builder = builder.variable(&name.to_uppercase(), &proxy);
    }
    let daemon = builder.start().await;
    let api = daemon.api();
    for receiver in &receivers {
        receiver.answer(Answer::Reply {
            status: 307,
            headers: vec![(
                "location",
                inside.url("http").replace("hooks.example", "127.0.0.2"),
            )],
            body: String::new(),
        });
        let id = api.subscribe(&receiver.url(), &["Heartbeat"]).await;
        assert_eq!(test(&api, id).await["status_code"], 307);
    }
    inside.assert_untouched();
}

/// One without TLS and one with, and the certificate behind that.
async fn receivers() -> ([Receiver; 2], NamedTempFile) {
    let receivers = [Receiver::start().await, Receiver::start_tls().await];
    let authority = NamedTempFile::new().expect("a temporary file");
    fs::write(authority.path(), receivers[1].authority_pem()).expect("a writable file");
    (receivers, authority)
}

fn trusting(builder: Builder, authority: &NamedTempFile) -> Builder {
    builder.flag("--ca-file", authority.path().to_str().expect("UTF-8"))
}

/// A service that nobody may reach from outside.
struct Inside(TcpListener);

impl Inside {
    fn new() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::new(127, 0, 0, 2), 0)).expect("a port");
        listener.set_nonblocking(true).expect("a listener");
        Self(listener)
    }

    fn address(&self) -> String {
        self.0.local_addr().expect("an address").to_string()
    }

    fn url(&self, scheme: &str) -> String {
        let port = self.0.local_addr().expect("an address").port();
        format!("{scheme}://hooks.example:{port}/")
    }

    /// A connection would wait to be accepted by now.
    fn assert_untouched(&self) {
        let connection = self.0.accept();
        assert!(connection.is_err(), "{connection:?}");
    }
}
