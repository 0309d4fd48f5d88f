//! Completions: what a shell offers, live ids included.

use std::{os::unix::fs::symlink, path::Path};

use pipelet_tests::{Ctl, Receiver, deadline::within};
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

/// What bash offers for the last of these words.
async fn bash(ctl: &Ctl, words: &[&str]) -> Vec<String> {
    let path = tempfile::tempdir().expect("a temporary directory");
    symlink(ctl.binary(), path.path().join("pipeletctl")).expect("a link");
    let search = format!("{}:/usr/bin:/bin", path.path().display());
    let completing = Command::new("bash")
        .args(["--norc", "-c", BASH, "bash"])
        .args(words)
        .env_clear()
        .envs(ctl.variables())
        .env("PATH", search)
        .output();
    let output = within("bash", completing).await.expect("bash");
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

/// What other shells' scripts are answered.
async fn answered(ctl: &Ctl, shell: &str, words: &[&str]) -> String {
    let ctl = ctl
        .clone()
        .variable("PIPELETCTL_COMPLETE", shell)
        .variable("_CLAP_COMPLETE_INDEX", &(words.len() - 1).to_string())
        .variable("_CLAP_IFS", "\n");
    let words: Vec<_> = ["--"].iter().chain(words).copied().collect();
    ctl.run(&words).await.ok()
}

#[tokio::test]
async fn shells_offer_what_the_daemon_knows() {
    let receiver = Receiver::start().await;
    let daemon = daemon().start().await;
    let api = daemon.api();
    for _ in 0..12 {
        api.subscribe(&receiver.url(), &["Heartbeat"]).await;
    }
    for station in ["WALLBOX_1", "WALLBOX_2", "OTHER"] {
        let path = format!("/stations/{station}");
        api.put(&path, &serde_json::json!({})).await;
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
    let formats = offered(&["-o", "j"]).await;
    assert_eq!(formats, ["json", "jsonl"]);

    for shell in ["zsh", "fish"] {
        let words = ["pipeletctl", "stations", "show", "WALL"];
        let answer = answered(&ctl, shell, &words).await;
        assert!(
            answer.contains("WALLBOX_1") && answer.contains("WALLBOX_2"),
            "{shell}: {answer}"
        );
        assert!(!answer.contains("OTHER"), "{shell}: {answer}");
    }

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
