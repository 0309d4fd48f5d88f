//! How stations and the daemon show each other who they are: security profiles 1 to 3.

use std::{fs, path::Path, time::Duration};

use pipelet_tests::{Authority, Builder, Dial, Identity, deadline::eventually};
use serde_json::json;
use tempfile::TempDir;
use tokio::time::Instant;

use crate::scene::{Scene, daemon};

const PASSWORD: &str = "correct horse battery";

/// The files of a daemon that speaks TLS, and who vouches for it and for stations.
pub(crate) struct Tls {
    directory: TempDir,
    pub(crate) authority: Authority,
}

impl Tls {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let authority = Authority::new();
        let tls = Self {
            directory,
            authority,
        };
        tls.write(&tls.authority.server());
        fs::write(tls.path("clients.pem"), tls.authority.pem()).expect("a writable file");
        tls
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, server: &Identity) {
        fs::write(self.path("key.pem"), &server.key_pem).expect("a writable file");
        fs::write(self.path("cert.pem"), &server.certificate_pem).expect("a writable file");
    }

    pub(crate) fn daemon(&self) -> Builder {
        let text = |path: &Path| path.to_str().expect("UTF-8").to_owned();
        daemon()
            .flag("--ocpp-tls-listen", "127.0.0.1:0")
            .flag("--ocpp-tls-cert", &text(&self.path("cert.pem")))
            .flag("--ocpp-tls-key", &text(&self.path("key.pem")))
            .flag("--ocpp-client-ca", &text(&self.path("clients.pem")))
    }
}

async fn register(scene: &Scene, id: &str, body: serde_json::Value) {
    scene
        .api
        .put(&format!("/stations/{id}"), &body)
        .await
        .expect(201);
}

#[tokio::test]
async fn a_password_is_asked_for_before_the_upgrade() {
    let scene = Scene::new(&["StationConnected"]).await;
    let ocpp = scene.daemon.ocpp();
    let raw: Vec<u8> = (0xec..=0xff).collect();
    let digits = "ecedeeeff0f1f2f3f4f5f6f7f8f9fafbfcfdfeff";
    register(
        &scene,
        "TEXT",
        json!({"password": PASSWORD, "security_profile": 1}),
    )
    .await;
    register(&scene, "KEY", json!({"password": digits})).await;

    let text = Dial::new(ocpp, "TEXT");
    for wrong in [
        text.clone(),
        text.clone().basic("TEXT", "correct horse batterx"),
        text.clone().basic("TEXT", ""),
        text.clone().basic("KEY", PASSWORD),
        text.clone().basic("KEY", digits),
    ] {
        assert_eq!(wrong.refused().await, 401);
    }
    let mut station = text
        .basic("TEXT", PASSWORD)
        .connect()
        .await
        .expect("a handshake");
    station.ok("Heartbeat", "{}").await;
    for password in [
        raw.as_slice(),
        digits.as_bytes(),
        digits.to_uppercase().as_bytes(),
    ] {
        let dial = Dial::new(ocpp, "KEY").basic("KEY", password);
        dial.connect()
            .await
            .expect("a handshake")
            .ok("Heartbeat", "{}")
            .await;
    }
    // Nothing is asked of a station that nothing was agreed on with.
    scene.station("OTHER").await.ok("Heartbeat", "{}").await;

    let status = scene.ctl().json("status").await;
    assert_eq!(status["handshakes_refused"], 5);
    let event = scene.receiver.await_requests(1).await[0].json();
    let payload = &event["payload"];
    assert_eq!(
        (&payload["subprotocol"], &payload["securityProfile"]),
        (&json!("ocpp1.6"), &json!(1)),
        "{event}"
    );
    assert!(payload["remoteAddress"].is_string(), "{event}");
    let log = scene.daemon.log();
    let named =
        |line: &&str| line.contains("handshake failed") && line.contains("\"station\":\"TEXT\"");
    // Once for each reason, and not again within a minute.
    assert_eq!(log.lines().filter(named).count(), 2, "{log}");
    assert!(!log.contains(PASSWORD) && !log.contains(digits), "{log}");
}

#[tokio::test]
async fn whoever_guesses_is_held_back_and_nobody_beside_it_is() {
    let scene = Scene::new(&["Heartbeat"]).await;
    for id in ["S1", "S2", "S3"] {
        register(&scene, id, json!({"password": PASSWORD})).await;
    }
    let dial = |id: &str, password| Dial::new(scene.daemon.ocpp(), id).basic(id, password);
    // Right ones cost nothing.
    for _ in 0..30 {
        dial("S1", PASSWORD).connect().await.expect("a handshake");
    }
    let guess = || dial("S1", "a wild guess, a wrong one").refused();
    eventually("a 429", guess, |status| *status == 429).await;
    // Behind the same address, others come in, as does one without a password.
    for _ in 0..30 {
        assert_eq!(guess().await, 429);
        dial("S2", PASSWORD).connect().await.expect("a handshake");
    }
    scene.station("OPEN").await.ok("Heartbeat", "{}").await;
    // However many stations are guessed at.
    for number in 0..20 {
        let id = format!("GUESSED{number}");
        register(&scene, &id, json!({"password": PASSWORD})).await;
        while dial(&id, "a wild guess, a wrong one").refused().await != 429 {}
    }
    let mut station = dial("S3", PASSWORD).connect().await.expect("a handshake");
    station.ok("Heartbeat", "{}").await;
}

#[tokio::test]
async fn tls_with_a_password_is_profile_two() {
    let tls = Tls::new();
    let scene = Scene::with(tls.daemon(), &["StationConnected"]).await;
    register(
        &scene,
        "S2",
        json!({"password": PASSWORD, "security_profile": 2}),
    )
    .await;
    register(
        &scene,
        "S1",
        json!({"password": PASSWORD, "security_profile": 1}),
    )
    .await;
    let (plain, secure) = (scene.daemon.ocpp(), scene.daemon.ocpps());
    let trusting = || tls.authority.trusting(None);

    let dial = Dial::new(secure, "S2").tls(trusting());
    assert_eq!(dial.clone().refused().await, 401);
    assert_eq!(
        Dial::new(plain, "S2").basic("S2", PASSWORD).refused().await,
        403
    );
    let elsewhere = Dial::new(secure, "S1")
        .basic("S1", PASSWORD)
        .tls(trusting());
    assert_eq!(elsewhere.refused().await, 403);
    // No TLS on the one, and no TLS on the other.
    assert!(Dial::new(secure, "S2").connect().await.is_err());
    assert!(
        Dial::new(plain, "S2")
            .tls(trusting())
            .connect()
            .await
            .is_err()
    );

    let mut station = dial
        .basic("S2", PASSWORD)
        .connect()
        .await
        .expect("a handshake");
    station.boot().await;
    let event = scene.receiver.await_requests(1).await[0].json();
    assert_eq!(event["payload"]["securityProfile"], 2, "{event}");
    let status = scene.ctl().json("status").await;
    assert_eq!(status["ocpps_address"], json!(secure.to_string()));
}

#[tokio::test]
async fn a_client_certificate_speaks_for_its_station_only() {
    let tls = Tls::new();
    let scene = Scene::with(tls.daemon(), &["StationConnected"]).await;
    let secure = scene.daemon.ocpps();
    for id in ["CP_1", "cp2.example.com"] {
        register(&scene, id, json!({"security_profile": 3})).await;
    }
    let common = tls.authority.client("CP_1", &[]);
    let alternative = tls.authority.client("", &["cp2.example.com"]);
    let dial = |id: &str, identity| Dial::new(secure, id).tls(tls.authority.trusting(identity));
    for (id, identity) in [("CP_1", &common), ("cp2.example.com", &alternative)] {
        let dialled = dial(id, Some(identity)).connect().await;
        dialled.expect("a handshake").boot().await;
        assert_eq!(dial(id, None).refused().await, 403);
    }
    // Another station's, where one is asked for and where none is.
    assert_eq!(dial("CP_1", Some(&alternative)).refused().await, 403);
    assert_eq!(dial("CP_3", Some(&common)).refused().await, 403);
    assert_eq!(Dial::new(scene.daemon.ocpp(), "CP_1").refused().await, 403);
    // The same name, vouched for by somebody else: that ends within TLS.
    let forged = Authority::new().client("CP_1", &[]);
    assert!(dial("CP_1", Some(&forged)).connect().await.is_err());

    let event = scene.receiver.await_requests(2).await[0].json();
    assert_eq!(event["payload"]["securityProfile"], 3, "{event}");
}

#[tokio::test]
async fn a_client_certificate_that_has_expired_is_named() {
    let tls = Tls::new();
    let scene = Scene::with(tls.daemon(), &["StationConnected"]).await;
    let expired = tls.authority.expired_client("CP_1");
    let dial = Dial::new(scene.daemon.ocpps(), "CP_1").tls(tls.authority.trusting(Some(&expired)));
    assert!(dial.connect().await.is_err());
    let named = |told: &String| told.contains("CN=CP_1") && told.contains("expired at 2025-01-02");
    let log = || async { scene.daemon.log() };
    eventually("the certificate in the log", log, named).await;
    let examined = scene.ctl().line("doctor").await;
    assert!(named(&examined.stdout), "{examined:?}");
}

#[tokio::test]
async fn certificates_are_read_again_at_a_signal() {
    let tls = Tls::new();
    let scene = Scene::with(tls.daemon(), &["Heartbeat"]).await;
    let old = Dial::new(scene.daemon.ocpps(), "S1").tls(tls.authority.trusting(None));
    let mut before = old.clone().connect().await.expect("a handshake");

    // A key that is not the certificate's changes nothing.
    let renewed = Authority::new();
    fs::write(tls.path("key.pem"), renewed.server().key_pem).expect("a writable file");
    scene.daemon.signal("HUP").await;
    let log = || async { scene.daemon.log() };
    let kept = |log: &String| log.contains("the certificates stay as they were");
    eventually("the bad key to be noticed", log, kept).await;
    old.clone()
        .connect()
        .await
        .expect("a handshake")
        .ok("Heartbeat", "{}")
        .await;

    tls.write(&renewed.server());
    scene.daemon.signal("HUP").await;
    let new = Dial::new(scene.daemon.ocpps(), "S2").tls(renewed.trusting(None));
    let dial = || async { new.clone().connect().await.is_ok() };
    eventually("the new certificate", dial, |connected| *connected).await;
    assert!(old.connect().await.is_err(), "the old one is shown still");
    before.closed().await;
}

#[tokio::test]
async fn a_daemon_without_its_certificate_says_so() {
    let tls = Tls::new();
    fs::write(tls.path("cert.pem"), "no certificate").expect("a writable file");
    let ended = tls.daemon().run_to_end().await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        ended.stderr.contains("there is no certificate in"),
        "{ended:?}"
    );
    let lonely = daemon()
        .flag("--ocpp-tls-cert", "cert.pem")
        .run_to_end()
        .await;
    assert_eq!(lonely.code, Some(2), "{lonely:?}");
}

#[tokio::test]
async fn a_flood_is_read_slowly_and_nothing_is_lost() {
    let builder = daemon().flag("--ocpp-rate", "20/s");
    let scene = Scene::with(builder, &["Heartbeat"]).await;
    let (mut flooding, mut calm) = (scene.station("S1").await, scene.station("S2").await);
    let begin = Instant::now();
    for number in 0..100 {
        flooding
            .send(format!(r#"[2,"{number}","Heartbeat",{{}}]"#))
            .await;
    }
    // Eighty may come at once. The others wait, and nobody else does.
    for number in 0..100 {
        if number == 80 {
            calm.ok("Heartbeat", "{}").await;
        }
        let answer = flooding.next().await;
        let pipelet_tests::Frame::Json(answer) = answer else {
            panic!("{answer:?} instead of answer {number}");
        };
        assert_eq!(answer[1], json!(number.to_string()));
    }
    assert!(
        begin.elapsed() > Duration::from_millis(800),
        "{:?}",
        begin.elapsed()
    );
    let books = json!({"received": 101, "delivered": 101});
    scene.api.await_stats(scene.webhook, books).await;
}
