//! Secrets: nothing that the daemon leaves behind has them in the clear, and what opens them is
//! a key that an operator keeps, moves and rotates.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::Stdio,
};

use pipelet_tests::{
    Api, Authority, Daemon, Dial, Ended, Receiver, Scripted, Station, Step, Tls, deadline::within,
};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::json;
use tokio::process::Command;

use crate::{scene::daemon, traces::holds};

const BOOTSTRAP: &str = "hcpms_live_planted-bootstrap-key";
const PASSWORD: &str = "planted station password";

/// HTTP knows no case in names, but receivers do that were told to compare it.
#[tokio::test]
async fn the_secrets_header_goes_out_as_it_was_written() {
    let authority = Authority::new();
    let trusted = tempfile::NamedTempFile::new().expect("a temporary file");
    fs::write(trusted.path(), authority.pem()).expect("a writable file");
    let path = trusted.path().to_str().expect("UTF-8");
    let daemon = daemon().flag("--ca-file", path).start().await;
    let api = daemon.api();
    let mut station = Station::connect(daemon.ocpp(), "S1").await;
    let server = authority.server().server_config(&["http/1.1"]);
    let ok = Step::write("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    for tls in [Tls::None, Tls::Server(server)] {
        let script = vec![Step::Read, ok.clone(), Step::Read, ok.clone()];
        let receiver = Scripted::always(tls, script).await;
        let webhook = json!({
            "name": "N", "url": receiver.url(), "events": ["Heartbeat"],
            "secret_header": "X-WebHook-SECRET", "secret_value": "one",
        });
        let created = api.post("/webhooks", &webhook).await.expect(201);
        station.ok("Heartbeat", "{}").await;
        receiver.await_requests(1).await;
        let change = json!({"secret_header": "x-Other", "secret_value": "two"});
        let path = format!("/webhooks/{}", created["id"]);
        api.put(&path, &change).await.expect(200);
        station.ok("Heartbeat", "{}").await;
        let requests = receiver.await_requests(2).await;
        assert_eq!(requests[0].header("X-WebHook-SECRET"), Some("one"));
        assert_eq!(requests[1].header("x-Other"), Some("two"));
        // The others are as they are documented.
        assert!(requests[1].header("webhook-id").is_some(), "{requests:?}");
        api.delete(&path).await;
    }
}

#[tokio::test]
async fn what_a_daemon_leaves_behind_has_no_secret_in_it() {
    let cores_allowed = r#"cd "$HOME" && ulimit -S -c $(ulimit -H -c) && exec "$@""#;
    let receivers = [Receiver::start().await, Receiver::start_tls().await];
    let authority = tempfile::NamedTempFile::new().expect("a temporary file");
    fs::write(authority.path(), receivers[1].authority_pem()).expect("a writable file");
    let builder = daemon()
        .flag("--ca-file", authority.path().to_str().expect("UTF-8"))
        .under(&["sh", "-c", cores_allowed, "sh"])
        .variable("PIPELETD_BOOTSTRAP_KEY", BOOTSTRAP)
        .flag("--log-level", "trace");
    let mut daemon = builder.start().await;
    let mut planted = vec![BOOTSTRAP.to_owned(), PASSWORD.to_owned()];
    let api = Api::new(daemon.http(), Some(BOOTSTRAP.to_owned()));
    let ctl = daemon.ctl_with_key(env!("CARGO_BIN_EXE_e2e-pipeletctl"), BOOTSTRAP);
    let key = ctl.json("keys create --name planted").await["key"].clone();
    planted.push(key.as_str().expect("a key").to_owned());
    let api = api.with_key(key.as_str());

    // By both ways in, over both ways out; refused ones, too.
    for (index, receiver) in receivers.iter().enumerate() {
        let [first, second, third] =
            ["first", "second", "third"].map(|nth| format!("planted-{nth}-secret-{index}"));
        let webhook = json!({
            "name": "N", "url": receiver.url(), "events": ["Heartbeat"],
            "secret_header": "X-Secret", "secret_value": first,
        });
        let created = api.post("/webhooks", &webhook).await.expect(201);
        let path = format!("/webhooks/{}", created["id"]);
        let change = json!({"secret_value": second});
        api.put(&path, &change).await.expect(200);
        api.post_empty(&format!("{path}/test")).await.expect(200);
        let update = format!("webhooks update {} --secret-value {third}", created["id"]);
        ctl.line(&update).await.ok();
        planted.extend([first, second, third]);
    }
    for (pointer, secret) in [
        ("url", "http://user:planted-userinfo@example.com/"),
        ("secret_value", "planted-\u{7}-control"),
    ] {
        let mut webhook = json!({
            "name": "N", "url": "http://example.com", "events": ["Heartbeat"],
            "secret_header": "X-Secret", "secret_value": "planted-and-refused",
        });
        webhook[pointer] = json!(secret);
        api.post("/webhooks", &webhook).await.expect(422);
        planted.push("planted-and-refused".to_owned());
    }
    planted.push("planted-userinfo".to_owned());
    let wrong = "hcpms_live_planted-wrong-key";
    api.with_key(Some(wrong)).get("/webhooks").await.expect(401);
    planted.push(wrong.to_owned());

    let registered = json!({"password": PASSWORD, "security_profile": 1});
    api.put("/stations/S1", &registered).await.expect(201);
    let dial = Dial::new(daemon.ocpp(), "S1");
    let wrong = "planted wrong password";
    assert_eq!(dial.clone().basic("S1", wrong).refused().await, 401);
    planted.push(wrong.to_owned());
    let connected = dial.basic("S1", PASSWORD).connect().await;
    connected.expect("a handshake").ok("Heartbeat", "{}").await;
    for (index, receiver) in receivers.iter().enumerate() {
        let sent = receiver.await_requests(2).await;
        let sent = sent.iter().map(|request| request.header("X-Secret"));
        let expected = ["second", "third"].map(|nth| format!("planted-{nth}-secret-{index}"));
        let expected = expected.iter().map(|secret| Some(secret.as_str()));
        assert!(sent.eq(expected), "{:?}", receiver.requests());
    }

    daemon.signal("ABRT").await;
    daemon.ended().await;
    assert_eq!(cores(daemon.home()), [""; 0], "a core file was written");

    // Whoever raises the limit of a process gets a core file, and no memory in it.
    daemon.start_again().await;
    let filter = format!("/proc/{}/coredump_filter", daemon.pid());
    let filter = fs::read_to_string(filter).expect("/proc");
    assert_eq!(filter.trim(), "00000000");
    let api = Api::new(daemon.http(), Some(BOOTSTRAP.to_owned()));
    api.get("/webhooks").await.expect(200);
    let is_written = allow_core(&daemon) && is_beside_the_process();
    daemon.signal("ABRT").await;
    daemon.ended().await;
    let written = cores(daemon.home());
    assert_eq!(written.len(), usize::from(is_written));
    for core in written {
        leave_registers_out(&daemon.home().join(core));
    }

    for secret in planted {
        let found = holds(daemon.home(), secret.as_bytes());
        assert!(found.is_empty(), "{secret:?} is in {found:?}");
    }
}

/// Zeroes the notes of a core file (`PT_NOTE`, elf(5)), where the registers of each thread are: what
/// a thread was working on, or last worked on, may be in those.
fn leave_registers_out(core: &Path) {
    let mut elf = fs::read(core).expect("a core file");
    let number = |at: usize, len: usize| {
        let bytes = elf[at..at + len].iter().rev();
        bytes.fold(0, |number, byte| number << 8 | usize::from(*byte))
    };
    let (headers, size, count) = (number(0x20, 8), number(0x36, 2), number(0x38, 2));
    let header = (0..count).map(|index| headers + index * size);
    let notes = header.filter(|at| number(*at, 4) == 4);
    let notes: Vec<_> = notes
        .map(|at| (number(at + 8, 8), number(at + 0x20, 8)))
        .collect();
    assert_eq!(notes.len(), 1, "one segment of notes");
    for (at, len) in notes {
        elf[at..at + len].fill(0);
    }
    fs::write(core, elf).expect("a writable file");
}

fn cores(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("a directory");
    let names = entries.map(|entry| entry.expect("an entry").file_name());
    let names = names.map(|name| name.into_string().expect("UTF-8"));
    names.filter(|name| name.starts_with("core")).collect()
}

/// Whether the process may have one now.
fn allow_core(daemon: &Daemon) -> bool {
    let pid = i32::try_from(daemon.pid()).ok().and_then(Pid::from_raw);
    let current = prlimit(
        pid,
        Resource::Core,
        Rlimit {
            current: None,
            maximum: None,
        },
    );
    current.is_ok()
}

/// Elsewhere than in the process's directory, or handed to a program, it is out of reach here.
fn is_beside_the_process() -> bool {
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").expect("/proc");
    pattern.starts_with("core")
}

/// A stopped daemon that has a webhook with a secret, and the receiver behind it.
async fn stopped_with_a_secret() -> (Daemon, Receiver) {
    let receiver = Receiver::start().await;
    let mut daemon = daemon().start().await;
    create_webhook(&daemon, &receiver).await;
    daemon.terminate().await;
    (daemon, receiver)
}

async fn create_webhook(daemon: &Daemon, receiver: &Receiver) {
    let webhook = json!({
        "name": "N", "url": receiver.url(), "events": ["Heartbeat"],
        "secret_header": "X-Secret", "secret_value": "hunter2",
    });
    daemon.api().post("/webhooks", &webhook).await.expect(201);
}

async fn check_secret(daemon: &Daemon, receiver: &Receiver) {
    let before = receiver.count();
    let tested = daemon
        .api()
        .post_empty("/webhooks/1/test")
        .await
        .expect(200);
    assert_eq!(tested["ok"], true, "{tested}");
    let request = &receiver.requests()[before];
    assert_eq!(request.header("X-Secret"), Some("hunter2"));
}

/// Runs the daemon's program on a stopped daemon's data; it ends by itself.
async fn pipeletd(daemon: &Daemon, arguments: &[&str]) -> Ended {
    let mut command = Command::new(env!("CARGO_BIN_EXE_e2e-pipeletd"));
    command
        .args(arguments)
        .arg("--data-dir")
        .arg(daemon.data_dir());
    for listen in ["--http-listen", "--grpc-listen", "--ocpp-listen"] {
        if arguments != ["rotate-secrets-key"] {
            command.args([listen, "127.0.0.1:0"]);
        }
    }
    command.env_clear().stdin(Stdio::null()).kill_on_drop(true);
    let ended = within("pipeletd to end", command.output()).await;
    let ended = ended.expect("its output");
    Ended {
        code: ended.status.code(),
        stdout: String::from_utf8(ended.stdout).expect("UTF-8"),
        stderr: String::from_utf8(ended.stderr).expect("UTF-8"),
    }
}

#[tokio::test]
async fn the_key_is_rotated() {
    let (mut daemon, receiver) = stopped_with_a_secret().await;
    let file = daemon.data_dir().join("secrets.key");
    let key = || fs::read_to_string(&file).expect("a key file");
    let first = key();
    let ended = pipeletd(&daemon, &["rotate-secrets-key"]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_ne!(key(), first);
    assert_eq!(key().lines().count(), first.lines().count());
    daemon.start_again().await;
    check_secret(&daemon, &receiver).await;

    let ended = pipeletd(&daemon, &["rotate-secrets-key"]).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("another process uses"), "{ended:?}");

    // The old key opens nothing any more.
    daemon.terminate().await;
    let rotated = key();
    fs::write(&file, first).expect("a writable file");
    let ended = pipeletd(&daemon, &[]).await;
    assert_eq!(ended.code, Some(78), "{ended:?}");
    assert!(
        ended.stderr.contains("sealed with another key"),
        "{ended:?}"
    );
    fs::write(&file, rotated).expect("a writable file");
    daemon.start_again().await;
    check_secret(&daemon, &receiver).await;
}

#[tokio::test]
async fn without_its_key_a_store_is_refused() {
    let (mut daemon, receiver) = stopped_with_a_secret().await;
    let file = daemon.data_dir().join("secrets.key");
    let kept = daemon.home().join("kept.key");
    fs::rename(&file, &kept).expect("a movable file");
    for (arguments, code) in [
        (&[][..], 1),
        (&["--check"], 78),
        (&["rotate-secrets-key"], 1),
    ] {
        let ended = pipeletd(&daemon, arguments).await;
        assert_eq!(ended.code, Some(code), "{ended:?}");
        let advice = "is missing; put it back from your copy, or say where it is with";
        assert!(ended.stderr.contains(advice), "{ended:?}");
        assert!(!file.exists(), "a new key was made");
    }

    fs::rename(&kept, &file).expect("a movable file");
    fs::set_permissions(&file, Permissions::from_mode(0o644)).expect("a file of ours");
    let ended = pipeletd(&daemon, &[]).await;
    assert_eq!(ended.code, Some(78), "{ended:?}");
    let advice = "is open to others (mode 0644); chmod 600 it";
    assert!(ended.stderr.contains(advice), "{ended:?}");
    fs::set_permissions(&file, Permissions::from_mode(0o600)).expect("a file of ours");
    daemon.start_again().await;
    check_secret(&daemon, &receiver).await;
}

#[tokio::test]
async fn nobody_else_may_read_the_store() {
    let mut daemon = daemon().start().await;
    let store = ["hot", "cold"].map(|name| daemon.data_dir().join(name));
    let mode = |path: &Path| {
        let known = fs::metadata(path).expect("a directory");
        known.permissions().mode() & 0o777
    };
    assert_eq!(mode(daemon.data_dir()), 0o700);
    for directory in &store {
        assert_eq!(mode(directory), 0o700, "{directory:?}");
        // As a daemon of before had left it.
        fs::set_permissions(directory, Permissions::from_mode(0o755)).expect("a file of ours");
    }
    daemon.terminate().await;
    daemon.start_again().await;
    for directory in &store {
        assert_eq!(mode(directory), 0o700, "{directory:?}");
    }
}

#[tokio::test]
async fn a_key_may_be_kept_elsewhere() {
    let elsewhere = tempfile::tempdir().expect("a directory");
    let file = elsewhere.path().join("given.key");
    let given = file.to_str().expect("UTF-8");
    let builder = || daemon().flag("--secrets-key-file", given);
    let ended = builder().run_to_end().await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let advice = format!("make one with: (umask 077; openssl rand -base64 32 > {given})");
    assert!(ended.stderr.contains(&advice), "{ended:?}");

    // As openssl writes one.
    fs::write(&file, "bm90IHZlcnkgcmFuZG9tLCBidXQgMzIgYnl0ZXMhISE=\n").expect("a file");
    fs::set_permissions(&file, Permissions::from_mode(0o600)).expect("a file of ours");
    let receiver = Receiver::start().await;
    let mut daemon = builder().start().await;
    create_webhook(&daemon, &receiver).await;
    daemon.terminate().await;
    assert!(!daemon.data_dir().join("secrets.key").exists());
    let ended = pipeletd(&daemon, &[]).await;
    assert!(ended.stderr.contains("--secrets-key-file"), "{ended:?}");
    daemon.start_again().await;
    check_secret(&daemon, &receiver).await;
}
