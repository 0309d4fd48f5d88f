//! Completions: what a shell offers, live ids included.

use std::{os::unix::fs::symlink, path::Path};

use pipelet_tests::{Ctl, Daemon, Receiver, Terminal, deadline::within, skip};
use tempfile::TempDir;
use tokio::process::Command;

use crate::scene::{ctl, daemon};

/// Sources the script and completes a line's last word, as bash does.
const BASH: &str = r#"
source <(pipeletctl completions bash)
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_TYPE=9
COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
$(complete -p pipeletctl | sed 's/.*-F \([^ ]*\) .*/\1/') pipeletctl "${@: -1}" ""
printf '%s\n' "${COMPREPLY[@]}"
"#;

/// Completes a line, as fish does.
const FISH: &str = r#"pipeletctl completions fish | source; complete --do-complete "$argv""#;

/// A search path with the tool in it.
struct SearchPath {
    _tools: TempDir,
    text: String,
}

impl SearchPath {
    fn new(ctl: &Ctl) -> Self {
        let tools = tempfile::tempdir().expect("a temporary directory");
        symlink(ctl.binary(), tools.path().join("pipeletctl")).expect("a link");
        let text = format!("{}:/usr/bin:/bin", tools.path().display());
        Self {
            _tools: tools,
            text,
        }
    }
}

/// What a shell offers for the last of these words, by its script.
async fn offered(shell: &[&str], ctl: &Ctl, words: &[&str]) -> Vec<String> {
    let path = SearchPath::new(ctl);
    let completing = Command::new(shell[0])
        .args(&shell[1..])
        .args(words)
        .env_clear()
        .envs(ctl.variables())
        .env("PATH", &path.text)
        .output();
    let output = within(shell[0], completing).await.expect("a shell");
    assert!(
        output.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let offered = String::from_utf8(output.stdout).expect("UTF-8");
    offered
        .lines()
        .map(str::to_owned)
        .filter(|word| !word.is_empty())
        .collect()
}

async fn bash(ctl: &Ctl, words: &[&str]) -> Vec<String> {
    offered(&["bash", "--norc", "-c", BASH, "bash"], ctl, words).await
}

/// Whether a shell is here.
fn has(shell: &str) -> bool {
    let is_here = Path::new("/usr/bin").join(shell).exists();
    if !is_here {
        skip(shell, "not in /usr/bin");
    }
    is_here
}

#[tokio::test]
async fn shells_offer_what_the_daemon_knows() {
    let receiver = Receiver::start().await;
    let daemon = stations().await;
    let api = daemon.api();
    for _ in 0..12 {
        api.subscribe(&receiver.url(), &["Heartbeat"]).await;
    }
    let ctl = ctl(&daemon);
    let offered = async |words: &[&str]| {
        let words: Vec<_> = ["pipeletctl"].iter().chain(words).copied().collect();
        bash(&ctl, &words).await
    };
    assert_eq!(offered(&["dl"]).await, ["dlq"]);
    assert_eq!(
        offered(&["webhooks", "get", "1"]).await,
        ["1", "10", "11", "12"]
    );
    let stations = offered(&["stations", "show", "WALL"]).await;
    assert_eq!(stations, ["WALLBOX_1", "WALLBOX_2"]);
    let types = offered(&["events", "tail", "--event", "Start"]).await;
    assert_eq!(types, ["StartTransaction"]);
    let actions = offered(&["stations", "call", "WALLBOX_1", "Re"]).await;
    let sent = [
        "RemoteStartTransaction",
        "RemoteStopTransaction",
        "Reset",
        "ReserveNow",
    ];
    assert_eq!(actions, sent);
    ctl.line("trigger Heartbeat --station WALLBOX_1").await.ok();
    assert_eq!(offered(&["trace", "evt_"]).await.len(), 1);
    let formats = offered(&["-o", "j"]).await;
    assert_eq!(formats, ["json", "jsonl"]);

    // The daemon that the line is meant for is asked; one that isn't there says nothing.
    let server = format!("http://{}", daemon.grpc());
    let lost = ctl.clone().variable("PIPELET_SERVER", "http://127.0.0.1:1");
    let words = ["pipeletctl", "webhooks", "get", ""];
    assert!(
        bash(&lost, &words)
            .await
            .iter()
            .all(|word| word.starts_with('-'))
    );
    let words = ["pipeletctl", "--server", &server, "webhooks", "get", "12"];
    assert_eq!(bash(&lost, &words).await, ["12"]);
}

/// A daemon that knows three stations.
async fn stations() -> Daemon {
    let daemon = daemon().start().await;
    for station in ["WALLBOX_1", "WALLBOX_2", "OTHER"] {
        let path = format!("/stations/{station}");
        daemon.api().put(&path, &serde_json::json!({})).await;
    }
    daemon
}

#[tokio::test]
async fn fish_offers_the_same() {
    if !has("fish") {
        return;
    }
    let daemon = stations().await;
    let words = ["pipeletctl stations show WALL"];
    let fish = ["fish", "--no-config", "-c", FISH];
    let stations = offered(&fish, &ctl(&daemon), &words).await;
    assert_eq!(stations, ["WALLBOX_1", "WALLBOX_2"]);
}

#[tokio::test]
async fn zsh_offers_the_same() {
    if !has("zsh") {
        return;
    }
    let daemon = stations().await;
    let ctl = ctl(&daemon);
    let path = SearchPath::new(&ctl);
    let variables = ctl.variables().chain([("PATH", path.text.as_str())]);
    let mut zsh = Terminal::open("zsh -f", variables);
    zsh.types("autoload -U compinit; compinit -u; source <(pipeletctl completions zsh)\r")
        .await;
    zsh.types("pipeletctl stations show WALL\t").await;
    zsh.shows("stations show WALLBOX_").await;
    zsh.types("\t").await;
    zsh.shows("\nWALLBOX_1  WALLBOX_2").await;
}

#[tokio::test]
async fn every_command_has_a_page_in_the_manual() {
    let daemon = daemon().start().await;
    let pages = tempfile::tempdir().expect("a temporary directory");
    let directory = pages.path().to_str().expect("UTF-8");
    ctl(&daemon).line(&format!("manual {directory}")).await.ok();
    for page in [
        "pipeletctl",
        "pipeletctl-webhooks",
        "pipeletctl-webhooks-create",
    ] {
        let path = Path::new(directory).join(format!("{page}.1"));
        let text = std::fs::read_to_string(&path).unwrap_or_else(|_| panic!("no page {page}"));
        assert!(text.contains(".SH SYNOPSIS"), "{page}: {text}");
    }
}
