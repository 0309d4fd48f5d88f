//! What the daemon is told by flags, variables and its file: checked, shown, and read again.

use std::{fs, path::PathBuf};

use pipelet_tests::{
    Answer, Authority, Builder, Daemon, Faults, Receiver, Station,
    deadline::{eventually, within},
    documents::Page,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::scene::{ctl, daemon};

/// A configuration file that a daemon reads.
struct File {
    directory: TempDir,
}

impl File {
    fn new(text: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = Self { directory };
        file.write(text);
        file
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("pipeletd.toml")
    }

    fn write(&self, text: &str) {
        fs::write(self.path(), text).expect("a writable file");
    }

    fn builder(&self) -> Builder {
        daemon().flag("--config", self.path().to_str().expect("UTF-8"))
    }

    /// Puts other settings into the file, and waits until the daemon says what it made of them.
    async fn change(&self, daemon: &Daemon, text: &str, said: &str) {
        self.write(text);
        let before = daemon.log().matches(said).count();
        daemon.signal("HUP").await;
        let log = || async { daemon.log() };
        let told = |log: &String| log.matches(said).count() > before;
        eventually(said, log, told).await;
    }
}

/// A daemon whose file had the first settings and now has the second.
async fn reloaded(builder: impl Fn(Builder) -> Builder, old: &str, new: &str) -> (Daemon, File) {
    let file = File::new(old);
    let daemon = builder(file.builder()).start().await;
    file.change(&daemon, new, "took settings over").await;
    (daemon, file)
}

fn plain(builder: Builder) -> Builder {
    builder
}

#[tokio::test]
async fn a_check_says_everything_that_is_wrong_and_touches_nothing() {
    let other = Authority::new();
    let files = tempfile::tempdir().expect("a temporary directory");
    let path = |name: &str| files.path().join(name).to_str().expect("UTF-8").to_owned();
    fs::write(path("cert.pem"), Authority::new().server().certificate_pem)
        .expect("a writable file");
    fs::write(path("key.pem"), other.server().key_pem).expect("a writable file");
    fs::write(path("empty.pem"), "").expect("a writable file");
    let (cert, key, empty) = (path("cert.pem"), path("key.pem"), path("empty.pem"));
    let cases: [(&str, String, i32, &[&str]); 5] = [
        (
            "nothing to be said",
            "retention = \"1h\"".to_owned(),
            0,
            &[],
        ),
        (
            "values and names",
            "max-attempts = 0\nretry-shedule = \"1s\"\nallow-target = [\"home\"]".to_owned(),
            78,
            &[
                "pipeletd.toml:1:16: max-attempts: \"0\": it is at least 1",
                "pipeletd.toml:2:1: there is no setting \"retry-shedule\"; did you mean",
                "pipeletd.toml:3:16: allow-target: \"home\"",
            ],
        ),
        (
            "no TOML",
            "retention = \"1h\"\nmax-attempts =".to_owned(),
            78,
            &["pipeletd.toml:2:"],
        ),
        (
            "files",
            format!(
                "api-tls-cert = {cert:?}\napi-tls-key = {key:?}\nca-file = {empty:?}\n\
                 secrets-key-file = \"/there/is/none\""
            ),
            78,
            &[
                "pipeletd.toml:1:16: api-tls-cert: the certificate in",
                "pipeletd.toml:3:11: ca-file: the CA file holds no certificate",
                "pipeletd.toml:4:20: secrets-key-file: there is no key file /there/is/none",
            ],
        ),
        (
            "half of a pair",
            "ocpp-tls-key = \"k.pem\"".to_owned(),
            78,
            &["pipeletd.toml:1:16: ocpp-tls-key goes together with ocpp-tls-listen and"],
        ),
    ];
    for (what, text, code, expected) in cases {
        let builder = File::new(&text);
        let check = builder.builder().switch("--check");
        let data_dir = check.data_dir().to_owned();
        let ended = check.run_to_end().await;
        assert_eq!(ended.code, Some(code), "{what}: {ended:?}");
        assert_eq!(ended.stdout, if code == 0 { "ok\n" } else { "" }, "{what}");
        assert_eq!(
            ended.stderr.lines().count(),
            expected.len(),
            "{what}: {ended:?}"
        );
        for words in expected {
            assert!(ended.stderr.contains(words), "{what}: {words}: {ended:?}");
        }
        assert!(!data_dir.exists(), "{what}");
    }
    let usage = daemon().flag("--max-attempts", "0").switch("--check");
    assert_eq!(usage.run_to_end().await.code, Some(2));
    let variable = daemon().variable("PIPELETD_PING_INTERVAL", "soon");
    let usage = variable.switch("--check").run_to_end().await;
    assert_eq!(usage.code, Some(2), "{usage:?}");
    let named = "it is the value of the variable PIPELETD_PING_INTERVAL";
    assert!(usage.stderr.contains(named), "{usage:?}");
}

#[tokio::test]
async fn a_file_that_is_wrong_is_refused_at_the_start_with_all_of_it() {
    let file = File::new("max-attempts = 0\nstations = \"some\"");
    let ended = file.builder().run_to_end().await;
    assert_eq!(ended.code, Some(78), "{ended:?}");
    assert!(ended.stderr.contains(":1:16: max-attempts"), "{ended:?}");
    assert!(ended.stderr.contains(":2:12: stations"), "{ended:?}");
}

#[tokio::test]
async fn settings_are_shown_with_where_they_come_from() {
    const KEY: &str = "hcpms_live_0123456789abcdef";
    let file = File::new("max-attempts = 3\nretention = \"1h\"\nbacklog-age = \"2d\"\n");
    let builder = || {
        file.builder()
            .variable("PIPELETD_RETENTION", "2h")
            .variable("PIPELETD_BOOTSTRAP_KEY", KEY)
            .switch("config")
            .switch("show")
    };
    let shown = builder().switch("--origin").run_to_end().await;
    assert_eq!(shown.code, Some(0), "{shown:?}");
    assert!(!shown.stdout.contains(KEY), "{shown:?}");
    let path = file.path().display().to_string();
    for (setting, origin) in [
        ("max-attempts = 3", format!("# {path}:1")),
        (
            "retention = \"2h\"",
            "# variable PIPELETD_RETENTION".to_owned(),
        ),
        ("backlog-age = \"2d\"", format!("# {path}:3")),
        (
            "http-listen = \"127.0.0.1:0\"",
            "# flag --http-listen".to_owned(),
        ),
        ("ping-interval = \"60s\"", "# default".to_owned()),
    ] {
        let line = shown.stdout.lines().find(|line| line.starts_with(setting));
        assert!(
            line.is_some_and(|line| line.ends_with(&origin)),
            "{setting}: {shown:?}"
        );
    }

    let bare = builder().run_to_end().await.stdout;
    let again = File::new(&bare);
    let same = again
        .builder()
        .switch("config")
        .switch("show")
        .run_to_end()
        .await;
    let settings = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        // Each daemon of a test has a directory of its own.
        let lines = lines.filter(|line| !line.starts_with("data-dir"));
        lines.map(str::to_owned).collect()
    };
    assert_eq!(settings(&same.stdout), settings(&bare));

    let json = builder().switch("--origin").switch("-o").switch("json");
    let json: Value = serde_json::from_str(&json.run_to_end().await.stdout).expect("JSON");
    assert_eq!(json["max-attempts"]["value"], 3);
    assert_eq!(json["max-attempts"]["origin"]["line"], 1);
    assert_eq!(json["ca-file"]["value"], Value::Null);
    assert!(!json.to_string().contains(KEY), "{json}");
}

#[tokio::test]
async fn flags_and_variables_stay_and_a_bad_file_changes_nothing() {
    let file = File::new("max-attempts = 3");
    let builder = file.builder().flag("--retention", "1h");
    let daemon = builder.variable("PIPELETD_BACKLOG_AGE", "1h").start().await;
    let api = daemon.api();
    let nothing = "none changed that can be taken over";
    let text = "max-attempts = 3\nretention = \"2h\"\nbacklog-age = \"2h\"";
    file.change(&daemon, text, nothing).await;

    let bad = "api-rate = \"1/m\"\nmax-attempts = 0";
    let cause = "pipeletd.toml:2:16: max-attempts";
    file.change(&daemon, bad, cause).await;
    let bad = "api-rate = \"1/m\"\nca-file = \"/there/is/none.pem\"";
    file.change(&daemon, bad, "can't read the CA file").await;
    for _ in 0..3 {
        api.get("/webhooks").await.expect(200);
    }

    let restart = "max-attempts = 4\nstations = \"registered\"\nmax-connections = 7";
    file.change(&daemon, restart, "max-attempts 3 → 4").await;
    let log = daemon.log();
    assert!(log.contains("need a restart"), "{log}");
    assert!(log.contains("stations, max-connections"), "{log}");
    Station::connect(daemon.ocpp(), "S1")
        .await
        .ok("Heartbeat", "{}")
        .await;
}

#[tokio::test]
async fn old_transactions_go_by_a_retention_that_changes() {
    let file = File::new("");
    let daemon = file.builder().start().await;
    let api = daemon.api();
    let mut station = Station::connect(daemon.ocpp(), "S1").await;
    let mut start = async |connector| {
        let time = "2026-04-10T12:00:00Z";
        let request = json!({
            "connectorId": connector, "idTag": "A", "meterStart": 1, "timestamp": time,
        });
        let answer = station.ok("StartTransaction", &request.to_string()).await;
        answer["transactionId"].as_i64().expect("an id")
    };
    let (stopped, open) = (start(1).await, start(2).await);
    let stop = json!({
        "transactionId": stopped, "meterStop": 5, "timestamp": "2026-04-10T13:00:00Z",
    });
    station.ok("StopTransaction", &stop.to_string()).await;
    let ids = || async {
        let listed = api.get("/transactions").await.expect(200);
        let listed = listed["data"].as_array().expect("a list").clone();
        let ids = listed.iter().map(|of| of["transaction_id"].as_i64());
        ids.collect::<Option<Vec<_>>>().expect("ids")
    };
    assert_eq!(ids().await, [open, stopped]);
    let shorter = "transaction-retention = \"0s\"";
    file.change(&daemon, shorter, "took settings over").await;
    eventually("the old one to go", ids, |ids| *ids == [open]).await;
}

/// What the documents say that a running daemon takes over, and another value for each.
#[tokio::test]
async fn what_the_documents_name_is_taken_over() {
    const VALUES: [(&str, &str); 18] = [
        ("log-level", "\"debug\""),
        ("api-rate", "\"7/s\""),
        ("ocpp-rate", "\"7/s\""),
        ("retry-schedule", "\"7s\""),
        ("max-attempts", "8"),
        ("delivery-timeout", "\"7s\""),
        ("webhook-concurrency", "7"),
        ("backlog-age", "\"7h\""),
        ("ca-file", "\"ca.pem\""),
        ("allow-private-targets", "true"),
        ("allow-target", "[\"10.0.0.0/8\"]"),
        ("retention", "\"7h\""),
        ("retention-size", "\"7GiB\""),
        ("transaction-retention", "\"7h\""),
        ("transaction-abandon-after", "\"7h\""),
        ("heartbeat-interval", "\"7s\""),
        ("ping-interval", "\"7s\""),
        ("shutdown-grace", "\"7s\""),
    ];
    let page = Page::read("docs/settings.md");
    let (_, named) = page
        .section("Changing settings without a restart")
        .split_once("taken over while it runs: ")
        .expect("the sentence");
    let (named, _) = named.split_once(". ").expect("its end");
    let named: Vec<_> = named.split('`').skip(1).step_by(2).collect();
    assert_eq!(named, VALUES.map(|(name, _)| name));

    let file = File::new("");
    let ca = file.directory.path().join("ca.pem");
    fs::write(&ca, Authority::new().pem()).expect("a writable file");
    let ca = format!("{:?}", ca.to_str().expect("UTF-8"));
    let lines = VALUES.map(|(name, value)| {
        let value = if name == "ca-file" { &ca } else { value };
        format!("{name} = {value}\n")
    });
    let builder = file.builder().without("--allow-private-targets");
    let daemon = builder.start().await;
    file.change(&daemon, &lines.concat(), "took settings over")
        .await;
    let log = daemon.log();
    for (name, _) in VALUES {
        assert!(log.contains(&format!("{name} ")), "{name}: {log}");
    }
    assert!(!log.contains("need a restart"), "{log}");
}

#[tokio::test]
async fn the_log_level_is_taken_over() {
    let (daemon, _file) = reloaded(plain, "", "log-level = \"debug\"").await;
    let receiver = Receiver::start().await;
    daemon
        .api()
        .subscribe(&receiver.url(), &["Heartbeat"])
        .await;
    assert!(!daemon.log().contains("\"DEBUG\""));
    Station::connect(daemon.ocpp(), "S1")
        .await
        .ok("Heartbeat", "{}")
        .await;
    let log = || async { daemon.log() };
    eventually("a line of that level", log, |log| log.contains("\"DEBUG\"")).await;
}

#[tokio::test]
async fn the_schedule_and_the_attempts_are_taken_over() {
    let old = "retry-schedule = \"1h\"\nmax-attempts = 9";
    let new = "retry-schedule = \"5ms\"\nmax-attempts = 2";
    let (daemon, _file) = reloaded(plain, old, new).await;
    let (api, receiver) = (daemon.api(), Receiver::start().await);
    receiver.answer(Answer::Status(500));
    let id = api.subscribe(&receiver.url(), &["Heartbeat"]).await;
    Station::connect(daemon.ocpp(), "S1")
        .await
        .ok("Heartbeat", "{}")
        .await;
    api.await_stats(id, json!({"received": 1, "dead": 1})).await;
    assert_eq!(receiver.count(), 2);
}

/// Webhooks that run already go by the new terms, too.
#[tokio::test]
async fn the_concurrency_is_taken_over() {
    let file = File::new("webhook-concurrency = 1");
    let daemon = file
        .builder()
        .flag("--delivery-timeout", "1h")
        .start()
        .await;
    let receiver = Receiver::start().await;
    receiver.answer(Answer::Held);
    daemon
        .api()
        .subscribe(&receiver.url(), &["Heartbeat"])
        .await;
    for number in 0..3 {
        let mut station = Station::connect(daemon.ocpp(), &format!("S{number}")).await;
        station.ok("Heartbeat", "{}").await;
    }
    receiver.await_requests(1).await;
    assert_eq!(receiver.count(), 1);
    file.change(&daemon, "webhook-concurrency = 3", "took settings over")
        .await;
    receiver.await_requests(3).await;
    receiver.release();
}

#[tokio::test]
async fn the_delivery_timeout_is_taken_over() {
    let (old, new) = ("delivery-timeout = \"1h\"", "delivery-timeout = \"100ms\"");
    let (daemon, _file) = reloaded(plain, old, new).await;
    let (api, receiver) = (daemon.api(), Receiver::start().await);
    receiver.answer(Answer::Held);
    let id = api.subscribe(&receiver.url(), &["Heartbeat"]).await;
    let tested = api
        .post_empty(&format!("/webhooks/{id}/test"))
        .await
        .expect(200);
    assert!(tested["error"].to_string().contains("100ms"), "{tested}");
    receiver.release();
}

#[tokio::test]
async fn the_backlogs_age_is_taken_over() {
    let (daemon, _file) = reloaded(plain, "", "backlog-age = \"0s\"").await;
    let (api, receiver) = (daemon.api(), Receiver::start().await);
    let id = api.subscribe(&receiver.url(), &["Heartbeat"]).await;
    Station::connect(daemon.ocpp(), "S1")
        .await
        .ok("Heartbeat", "{}")
        .await;
    api.await_stats(id, json!({"received": 1, "dead": 1})).await;
    assert_eq!(receiver.count(), 0);
}

/// The authorities are read again even where the file's name stays.
#[tokio::test]
async fn the_authorities_are_taken_over() {
    let receiver = Receiver::start_tls().await;
    let pem = tempfile::NamedTempFile::new().expect("a temporary file");
    fs::write(pem.path(), Authority::new().pem()).expect("a writable file");
    let text = format!("ca-file = {:?}", pem.path());
    let file = File::new(&text);
    let daemon = file.builder().start().await;
    let api = daemon.api();
    let id = api.subscribe(&receiver.url(), &["Heartbeat"]).await;
    let path = format!("/webhooks/{id}/test");
    assert_eq!(api.post_empty(&path).await.expect(200)["ok"], false);
    fs::write(pem.path(), receiver.authority_pem()).expect("a writable file");
    file.change(&daemon, &text, "read the settings again").await;
    assert_eq!(api.post_empty(&path).await.expect(200)["ok"], true);
}

/// A name is only looked up for a new connection, so what is kept of the old ones must go.
#[tokio::test]
async fn allowed_targets_are_taken_over_and_taken_back() {
    let file = File::new("allow-private-targets = true");
    let builder = file.builder().without("--allow-private-targets");
    let (faults, builder) = Faults::of(builder.flag("--retry-schedule", "1h"));
    faults.resolve("receiver.example", &["127.0.0.1"]);
    let daemon = builder.start().await;
    let (api, receiver) = (daemon.api(), Receiver::start().await);
    let named = receiver.url().replace("127.0.0.1", "receiver.example");
    let webhooks = [
        api.subscribe(&receiver.url(), &["Heartbeat"]).await,
        api.subscribe(&named, &["Heartbeat"]).await,
    ];
    let mut station = Station::connect(daemon.ocpp(), "S1").await;
    station.ok("Heartbeat", "{}").await;
    for id in webhooks {
        api.await_stats(id, json!({"delivered": 1})).await;
    }

    file.change(&daemon, "", "allow-private-targets true → false")
        .await;
    let another = json!({"name": "n", "url": receiver.url(), "events": ["*"]});
    api.post("/webhooks", &another).await.expect(422);
    station.ok("Heartbeat", "{}").await;
    for id in webhooks {
        api.await_stats(id, json!({"delivered": 1, "retrying": 1}))
            .await;
    }

    let network = "allow-target = [\"127.0.0.0/8\", \"::1\"]";
    file.change(&daemon, network, "allow-target (none) → 127.0.0.0/8,::1")
        .await;
    station.ok("Heartbeat", "{}").await;
    for id in webhooks {
        api.await_stats(id, json!({"delivered": 2, "retrying": 1}))
            .await;
    }
}

#[tokio::test]
async fn the_api_rate_is_taken_over() {
    let (daemon, _file) = reloaded(plain, "", "api-rate = \"1/m\"").await;
    let api = daemon.api();
    api.get("/webhooks").await.expect(200);
    api.get("/webhooks").await.expect(429);
}

/// By stations that are connected, too, with their next ping.
#[tokio::test]
async fn the_stations_rate_is_taken_over() {
    let file = File::new("ocpp-rate = \"1/m\"\nping-interval = \"50ms\"");
    let daemon = file.builder().start().await;
    let mut station = Station::connect(daemon.ocpp(), "S1").await;
    // The first is free; each further one would take a minute.
    station.ok("Heartbeat", "{}").await;
    file.change(&daemon, "ping-interval = \"50ms\"", "took settings over")
        .await;
    for _ in 0..3 {
        within("an answer", station.ok("Heartbeat", "{}")).await;
    }
}

#[tokio::test]
async fn the_heartbeat_interval_is_taken_over() {
    let file = File::new("heartbeat-interval = \"24h\"");
    let daemon = file.builder().start().await;
    let mut station = Station::connect(daemon.ocpp(), "S1").await;
    assert_eq!(station.boot().await["interval"], 86_400);
    let new = "heartbeat-interval = \"1s\"";
    file.change(&daemon, new, "took settings over").await;
    assert_eq!(station.boot().await["interval"], 1);
}

/// One that reads nothing answers no ping: it is given up when its heartbeats stay away.
#[tokio::test]
async fn a_station_that_is_connected_takes_over_the_heartbeat_interval() {
    let file = File::new("heartbeat-interval = \"24h\"\nping-interval = \"50ms\"");
    let daemon = file.builder().start().await;
    let _silent = Station::connect(daemon.ocpp(), "SILENT").await;
    let new = "heartbeat-interval = \"1s\"\nping-interval = \"50ms\"";
    file.change(&daemon, new, "took settings over").await;
    let log = || async { daemon.log() };
    eventually("the silent one to be given up", log, |log| {
        log.contains("\"reason\":\"silent\"")
    })
    .await;
}

#[tokio::test]
async fn the_ping_interval_is_taken_over() {
    let old = "ping-interval = \"1h\"\nheartbeat-interval = \"1s\"";
    let new = "ping-interval = \"50ms\"\nheartbeat-interval = \"1s\"";
    let (daemon, _file) = reloaded(plain, old, new).await;
    let _silent = Station::connect(daemon.ocpp(), "SILENT").await;
    let log = || async { daemon.log() };
    eventually("the silent one to be given up", log, |log| {
        log.contains("\"reason\":\"silent\"")
    })
    .await;
}

#[tokio::test]
async fn the_grace_at_shutdown_is_taken_over() {
    let slow = |builder: Builder| builder.flag("--delivery-timeout", "1h");
    let (old, new) = ("shutdown-grace = \"1h\"", "shutdown-grace = \"0s\"");
    let (mut daemon, _file) = reloaded(slow, old, new).await;
    let receiver = Receiver::start().await;
    receiver.answer(Answer::Held);
    daemon
        .api()
        .subscribe(&receiver.url(), &["Heartbeat"])
        .await;
    Station::connect(daemon.ocpp(), "S1")
        .await
        .ok("Heartbeat", "{}")
        .await;
    receiver.await_requests(1).await;
    assert!(daemon.terminate().await.success());
    receiver.release();
}

#[tokio::test]
async fn without_a_file_a_signal_changes_nothing() {
    let daemon = daemon().start().await;
    daemon.signal("HUP").await;
    let log = || async { daemon.log() };
    eventually("a word", log, |log| log.contains("none changed")).await;
    ctl(&daemon).line("status").await.ok();
}
