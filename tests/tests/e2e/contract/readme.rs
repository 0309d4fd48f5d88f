//! The README does what it says: its first webhook is made by its own commands.

use std::{fs, process::Stdio};

use pipelet_tests::{
    deadline::{eventually, within},
    documents::{Page, root},
};
use serde_json::{Deserializer, Value};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::{TcpListener, TcpStream},
};

use super::documents::Shell;
use crate::{python, scene::daemon};

#[tokio::test]
async fn the_first_webhook_takes_the_commands_that_are_written() {
    let Some(venv) = python::venv("readme", python::PEERS).await else {
        return;
    };
    let free = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = free.local_addr().expect("an address");
    drop(free);
    let builder = daemon().in_default_data_dir();
    let builder = builder.without("--allow-private-targets").switch("--dev");
    let shell = Shell::new(builder.start().await, address, venv);
    let readme = Page::read("README.md");
    let steps = readme.blocks();
    let mut steps = steps.iter().filter(|it| it.language.starts_with("sh"));
    let mut step = |language: &str| {
        let step = steps.next().expect("another step");
        assert_eq!(step.language, language, "{step:?}");
        step.text
    };

    let mut receiver = shell
        .command(step("sh background"))
        .stdout(Stdio::piped())
        .spawn()
        .expect("bash");
    let mut printed = BufReader::new(receiver.stdout.take().expect("it is piped")).lines();
    let connect = || async { TcpStream::connect(address).await.is_ok() };
    eventually("the receiver to listen", connect, |listens| *listens).await;

    let answers = shell.run(step("sh")).await;
    let answers = Deserializer::from_str(&answers).into_iter::<Value>();
    let answers: Vec<_> = answers.collect::<Result<_, _>>().expect("JSON");
    assert_eq!(answers[0]["id"], 1, "{answers:?}");
    assert_eq!(answers[1]["status_code"], 204, "{answers:?}");
    let listed = shell.run(step("sh")).await;
    assert!(listed.contains("WALLBOX_001"), "{listed}");
    let receivers = Page::read("docs/receivers.md");
    let charger = receivers.section("A charger in Python").split("```sh\n");
    let charger = charger.skip(1).filter_map(|rest| rest.split("```").next());
    let session = shell.run(charger.last().expect("a charger")).await;
    assert!(session.starts_with("transaction "), "{session}");

    // The test, the triggered event, and both events of the charger.
    let mut events = Vec::new();
    for _ in 0..4 {
        let line = within("a line of the receiver", printed.next_line()).await;
        let line = line.expect("UTF-8").expect("the receiver runs");
        let body = line
            .strip_prefix("my-secret-value-here ")
            .expect("the secret, then the body");
        let body: Value = serde_json::from_str(body).expect("JSON");
        events.push(body["event"].as_str().expect("an event").to_owned());
    }
    let started = "StartTransaction";
    assert_eq!(events, [started, started, started, "StopTransaction"]);
}

#[test]
fn the_readme_is_short() {
    assert!(Page::read("README.md").text.lines().count() <= 200);
}

#[test]
fn the_first_command_is_the_demo() {
    let readme = Page::read("README.md");
    let first = readme.text.split("```console\n$ ").nth(1);
    let command = first.expect("a command").lines().next().expect("a line");
    let demo = "cargo build --release && target/release/pipeletctl demo";
    assert_eq!(command, demo);
}

#[test]
fn the_two_commands_are_the_ones_that_ci_runs() {
    let readme = Page::read("README.md");
    let commands = readme.section("Two commands");
    assert!(
        commands.contains("cargo run --release --bin pipeletd -- --dev"),
        "{commands}"
    );
    assert!(commands.contains("cargo test --workspace"), "{commands}");
    let ci = fs::read_to_string(root().join(".ci/run")).expect(".ci/run");
    assert!(
        ci.contains("cargo test --workspace"),
        "CI runs something else"
    );
}
