//! Several daemons from one desk: `pipeletctl context`.

use std::fs;

use pipelet_tests::{Ctl, Daemon};
use serde_json::json;

use crate::scene::{ctl, daemon};

/// A desk without a word in the environment about where a daemon is, or with which key.
fn desk(daemon: &Daemon) -> Ctl {
    ctl(daemon)
        .without_variable("PIPELET_SERVER")
        .without_variable("PIPELET_API_KEY")
}

#[tokio::test]
async fn daemons_are_known_by_their_names() {
    let (north, south) = (daemon().start().await, daemon().start().await);
    let desk = desk(&north);
    let home = tempfile::tempdir().expect("a temporary directory");
    for (name, daemon) in [("north", &north), ("south", &south)] {
        let key = home.path().join(name);
        fs::write(&key, daemon.key()).expect("a key file");
        let (server, key) = (daemon.grpc(), key.display());
        let add = format!("context add {name} --server http://{server} --api-key-file {key}");
        desk.line(&add).await.ok();
    }
    let asked = async |line: &str| desk.json(line).await["grpc_address"].clone();
    let address = |daemon: &Daemon| json!(daemon.grpc().to_string());

    // The first is used until another one is, and a command may mean any.
    assert_eq!(asked("status").await, address(&north));
    assert_eq!(asked("status --context south").await, address(&south));
    desk.line("context use south").await.ok();
    assert_eq!(asked("status").await, address(&south));
    let by_variable = desk.clone().variable("PIPELET_CONTEXT", "north");
    let status = by_variable.json("status").await;
    assert_eq!(status["grpc_address"], address(&north));

    // A server that is named gets no other one's key.
    let stranger = format!("status --server http://{}", north.grpc());
    let refused = desk.line(&stranger).await;
    assert_eq!(refused.code, 4, "{refused:?}");

    let list = desk.json("context list").await;
    assert_eq!(list[0]["name"], "north");
    assert_eq!(list[1]["current"], true);
    let shown = desk.json("context show").await;
    assert_eq!(
        (&shown["context"], &shown["chosen_by"]),
        (&json!("south"), &json!("current context"))
    );

    // A variable is for the daemon that nobody names; a context that is named has its own key.
    let keyed = desk
        .clone()
        .variable("PIPELET_API_KEY", "hcpms_live_of_another");
    assert_eq!(keyed.line("status").await.code, 4);
    let status = keyed.json("status --context north").await;
    assert_eq!(status["grpc_address"], address(&north));
    let shown = keyed.json("context show --context north").await;
    assert_eq!(shown["chosen_by"], "--context");

    // One whose key file is not there yet can be added, and looked at.
    let server = format!("http://{}", north.grpc());
    let line = format!("context add later --server {server} --api-key-file /there/is/none");
    let added = desk.line(&line).await;
    assert_eq!(added.code, 0, "{added:?}");
    assert!(added.stderr.contains("can't be read"), "{added:?}");
    let shown = desk.json("context show --context later").await;
    let from = shown["api_key_from"].as_str().expect("text");
    assert!(from.contains("/there/is/none"), "{shown}");
    desk.line("context remove later").await.ok();

    // What goes wrong names the context; nothing but names and files is kept.
    drop(south);
    let gone = desk.line("status").await;
    assert_eq!(gone.code, 69);
    assert!(gone.stderr.contains("(context south)"), "{gone:?}");
    let kept = north.home().join(".config/pipelet/config.toml");
    let kept = fs::read_to_string(kept).expect("the contexts");
    assert!(!kept.contains(&north.key()), "{kept}");

    for (line, code) in [
        ("context use east", 3),
        ("context remove east", 3),
        ("status --context east", 2),
        ("context add north --server http://h:1", 5),
        ("context add east", 2),
        ("context add east --server nonsense", 2),
        ("context remove south", 0),
    ] {
        let output = desk.line(line).await;
        assert_eq!(output.code, code, "{line}: {output:?}");
    }
    assert_eq!(
        desk.json("context list").await.as_array().map(Vec::len),
        Some(1)
    );
}
