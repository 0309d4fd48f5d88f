//! The README does what it says: its first webhook is made by its own commands.

use std::{
    collections::BTreeSet,
    env, fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Stdio,
};

use pipelet_tests::{
    Daemon,
    deadline::{eventually, within},
};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::{TcpListener, TcpStream},
    process::Command,
};

use crate::{python, scene::daemon};

const README: &str = include_str!("../../../../README.md");

/// The text under a heading, up to the next one.
pub(crate) fn section(heading: &str) -> &'static str {
    let (_, rest) = README
        .split_once(&format!("\n## {heading}\n"))
        .expect(heading);
    rest.split("\n## ").next().unwrap_or(rest)
}

/// The fenced blocks of shell commands.
fn commands(section: &str) -> Vec<&str> {
    let blocks = section.split("```sh\n").skip(1);
    blocks
        .map(|block| block.split("```").next().unwrap_or(block))
        .collect()
}

/// A shell with the README's tools, whose addresses are those of a test.
struct Shell {
    daemon: Daemon,
    receiver: String,
    venv: PathBuf,
}

impl Shell {
    async fn new(venv: PathBuf) -> Self {
        let builder = daemon()
            .in_default_data_dir()
            .without("--allow-private-targets");
        let daemon = builder.switch("--dev").start().await;
        let tools = daemon.home().join("bin");
        fs::create_dir(&tools).expect("a directory");
        symlink(
            env!("CARGO_BIN_EXE_e2e-pipeletctl"),
            tools.join("pipeletctl"),
        )
        .expect("a link");
        let free = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let receiver = free.local_addr().expect("an address").to_string();
        Self {
            daemon,
            receiver,
            venv,
        }
    }

    /// A block of commands, with this test's addresses in the place of the usual ones.
    fn command(&self, block: &str) -> Command {
        let port = self.receiver.rsplit(':').next().expect("a port");
        let replaced = [
            ("127.0.0.1:3000", self.receiver.as_str()),
            ("\"127.0.0.1\", 3000", &format!("\"127.0.0.1\", {port}")),
            ("localhost:8080", &self.daemon.http().to_string()),
            ("127.0.0.1:9000", &self.daemon.ocpp().to_string()),
            ("/tmp/charger", self.venv.to_str().expect("UTF-8")),
        ];
        let mut block = block.to_owned();
        for (usual, ours) in replaced {
            block = block.replace(usual, ours);
        }
        let home = self.daemon.home();
        let path = env::var_os("PATH").unwrap_or_default();
        let tools = [home.join("bin")]
            .into_iter()
            .chain(env::split_paths(&path));
        let mut command = Command::new("bash");
        command
            .args(["-euo", "pipefail", "-c", &block])
            .env_clear()
            .env("HOME", home)
            .env("PATH", env::join_paths(tools).expect("a search path"))
            .env("PIPELET_SERVER", format!("http://{}", self.daemon.grpc()))
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Runs a block to its end, and returns what it printed.
    async fn run(&self, block: &str) -> String {
        let output = within(block, self.command(block).output())
            .await
            .expect("bash");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{block}\n{stderr}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }
}

#[tokio::test]
async fn the_first_webhook_takes_the_commands_that_are_written() {
    let Some(venv) = python::venv("readme", python::PEERS).await else {
        return;
    };
    let shell = Shell::new(venv).await;
    let blocks = commands(section("A first webhook in five minutes"));
    let [receiver, pipeletctl, charger] = blocks[..] else {
        panic!("the README has other steps than this test: {blocks:#?}");
    };
    let curl = commands(section("REST"))[0];

    let mut receiver = shell
        .command(receiver)
        .stdout(Stdio::piped())
        .spawn()
        .expect("bash");
    let mut printed = BufReader::new(receiver.stdout.take().expect("it is piped")).lines();
    let connect = || async { TcpStream::connect(&shell.receiver).await.is_ok() };
    eventually("the receiver to listen", connect, |listens| *listens).await;

    let tested = shell.run(pipeletctl).await;
    assert!(tested.contains("the receiver answered 204"), "{tested}");
    let created: Value = serde_json::from_str(&shell.run(curl).await).expect("JSON");
    assert_eq!(created["id"], 2, "{created}");
    let session = shell.run(charger).await;
    assert!(session.starts_with("transaction "), "{session}");

    // The test event, and both events of the charger for each of the two webhooks.
    let mut events = Vec::new();
    for _ in 0..5 {
        let line = within("a line of the receiver", printed.next_line()).await;
        let line = line.expect("UTF-8").expect("the receiver runs");
        let body = line
            .strip_prefix("my-secret-value-here ")
            .expect("the secret, then the body");
        let body: Value = serde_json::from_str(body).expect("JSON");
        events.push(body["event"].as_str().expect("an event").to_owned());
    }
    events.sort();
    let (start, stop) = ("StartTransaction", "StopTransaction");
    assert_eq!(events, [start, start, start, stop, stop]);
}

#[tokio::test]
async fn the_settings_are_those_of_the_daemon() {
    let help = daemon().switch("--help").run_to_end().await.stdout;
    let offered: BTreeSet<_> = help
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("--"))
        .filter_map(|flag| flag.split([' ', '[']).next())
        .filter(|flag| !["help", "version"].contains(flag))
        .collect();
    let written: BTreeSet<_> = section("Settings")
        .lines()
        .filter_map(|line| line.strip_prefix("| `--"))
        .filter_map(|line| line.split(" | ").next())
        .flat_map(|flags| flags.trim_end_matches('`').split("`, `--"))
        .collect();
    assert_eq!(written, offered);
}

/// As GitHub makes a heading's anchor.
fn anchor(heading: &str) -> String {
    let kept = |it: &char| it.is_alphanumeric() || matches!(it, ' ' | '-' | '_');
    let kept = heading.chars().filter(kept).collect::<String>();
    kept.to_lowercase().replace(' ', "-")
}

#[test]
fn links_lead_somewhere_and_every_section_is_in_the_table() {
    let headings = README.lines().filter_map(|line| line.strip_prefix("## "));
    let anchors: BTreeSet<_> = headings.map(anchor).collect();
    let links = README.split("](").skip(1);
    let links = links.filter_map(|rest| rest.split(')').next());
    let (inside, outside): (BTreeSet<_>, BTreeSet<_>) =
        links.partition(|link| link.starts_with('#'));
    let inside = inside.iter().map(|link| link[1..].to_owned());
    assert_eq!(inside.collect::<BTreeSet<_>>(), anchors);
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for link in outside.iter().filter(|link| !link.starts_with("http")) {
        assert!(root.join(link).exists(), "{link}");
    }
}

#[test]
fn the_first_command_is_the_demo() {
    let first = README.split("```console\n$ ").nth(1).expect("a command");
    let command = first.lines().next().expect("a line");
    let demo = "cargo build --release && target/release/pipeletctl demo";
    assert_eq!(command, demo);
}

#[test]
fn the_two_commands_are_the_ones_that_ci_runs() {
    let commands = section("Two commands");
    assert!(
        commands.contains("cargo run --release --bin pipeletd -- --dev"),
        "{commands}"
    );
    assert!(commands.contains("cargo test --workspace"), "{commands}");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the workspace");
    let ci = fs::read_to_string(root.join(".ci/run")).expect(".ci/run");
    assert!(
        ci.contains("cargo test --workspace"),
        "CI runs something else"
    );
}
