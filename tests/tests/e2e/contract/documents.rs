//! The documents do what they say: their blocks of commands run, and every command that they name
//! exists.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    net::SocketAddr,
    os::unix::fs::symlink,
    path::PathBuf,
    process::Stdio,
    sync::Arc,
};

use pipelet_tests::{
    Answer, Daemon, Receiver,
    deadline::{eventually, within},
    documents::{Page, blocks, first_cells},
};
use tokio::process::Command;

use crate::{
    api::openapi::accept_all,
    python,
    scene::{Scene, daemon},
};

/// A shell with the documents' tools, whose addresses are those of a test.
pub(crate) struct Shell {
    pub(crate) daemon: Daemon,
    pub(crate) receiver: SocketAddr,
    venv: PathBuf,
}

impl Shell {
    pub(crate) fn new(daemon: Daemon, receiver: SocketAddr, venv: PathBuf) -> Self {
        let tools = daemon.home().join("bin");
        fs::create_dir(&tools).expect("a directory");
        for (name, binary) in [
            ("pipeletctl", env!("CARGO_BIN_EXE_e2e-pipeletctl")),
            ("pipeletd", env!("CARGO_BIN_EXE_e2e-pipeletd")),
        ] {
            symlink(binary, tools.join(name)).expect("a link");
        }
        Self {
            daemon,
            receiver,
            venv,
        }
    }

    /// A block of commands, with this test's addresses in the place of the usual ones.
    pub(crate) fn command(&self, block: &str) -> Command {
        let venv = self.venv.to_str().expect("UTF-8");
        let replaced = [
            ("127.0.0.1:3000", self.receiver.to_string()),
            (
                "\"127.0.0.1\", 3000",
                format!("\"127.0.0.1\", {}", self.receiver.port()),
            ),
            ("127.0.0.1:8080", self.daemon.http().to_string()),
            ("127.0.0.1:9000", self.daemon.ocpp().to_string()),
            ("/tmp/charger", venv.to_owned()),
        ];
        let mut block = block.to_owned();
        for (usual, ours) in replaced {
            block = block.replace(usual, &ours);
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
            .current_dir(home)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Runs a block to its end, and returns what it printed.
    pub(crate) async fn run(&self, block: &str) -> String {
        let output = within(block, self.command(block).output())
            .await
            .expect("bash");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{block}\n{stderr}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }
}

/// The README is a story of its own: see `readme`.
#[tokio::test]
async fn every_block_of_commands_runs() {
    let Some(venv) = python::venv("documents", python::PEERS).await else {
        return;
    };
    for page in Page::all() {
        let blocks = page.blocks();
        let commands: Vec<_> = blocks.iter().filter(|it| it.language == "sh").collect();
        if commands.is_empty() || page.path == "README.md" {
            continue;
        }
        let builder = daemon().in_default_data_dir();
        let builder = builder.without("--allow-private-targets").switch("--dev");
        let scene = Scene::with(builder.flag("--max-attempts", "1"), &["Heartbeat"]).await;
        let (api, receiver) = (scene.daemon.api(), &scene.receiver);
        receiver.answer_next([Answer::Status(500)]);
        let mut station = scene.station("WALLBOX_009").await;
        station.ok("Heartbeat", "{}").await;
        api.await_failed("", 1).await;
        let ocpp = scene.daemon.ocpp();
        let accepting = tokio::spawn(accept_all(ocpp, Arc::default()));
        let wallbox = || async { api.get("/stations/WALLBOX_001").await };
        let is_connected = |reply: &pipelet_tests::Reply| reply.text.contains("\"connected\":true");
        eventually("a station", wallbox, is_connected).await;

        let address = address_of(receiver);
        let shell = Shell::new(scene.daemon, address, venv.clone());
        for block in commands {
            shell.run(block.text).await;
        }
        accepting.abort();
    }
}

fn address_of(receiver: &Receiver) -> SocketAddr {
    let url = receiver.url();
    let address = url.trim_start_matches("http://").split('/').next();
    address.expect("an address").parse().expect("an address")
}

/// Commands that are shown and not run: both programs know them, with all of their flags.
#[tokio::test]
async fn every_command_that_is_named_exists() {
    let mut checked = BTreeSet::new();
    for page in Page::all() {
        let shown = page.blocks();
        let shown = shown.iter().filter(|block| block.language == "console");
        let shown = shown.flat_map(|block| commands(block.text));
        let named = page.code().into_iter().map(|code| filled(&code));
        for command in shown.chain(named) {
            if is_ours(&command) && checked.insert(command.clone()) {
                exists(&page.path, &command).await;
            }
        }
    }
    assert!(checked.len() > 40, "{checked:?}");
}

fn is_ours(command: &str) -> bool {
    ["pipeletctl ", "pipeletd "]
        .iter()
        .any(|program| command.starts_with(program))
}

/// The commands of a block, each on one line. What runs in a container is the same program.
fn commands(block: &str) -> Vec<String> {
    let joined = block.replace("\\\n", " ");
    let lines = joined.lines().filter_map(|line| line.strip_prefix("$ "));
    let lines = lines.map(|line| line.trim_start_matches("docker compose run --rm "));
    lines.map(str::to_owned).collect()
}

/// A command in a sentence, with something in the place of what it leaves open.
fn filled(code: &str) -> String {
    let filled = |word: &str| {
        match word {
            "ID" => "1",
            "COMMAND" => "webhooks",
            "SHELL" => "bash",
            other => other,
        }
        .to_owned()
    };
    code.split_whitespace()
        .map(filled)
        .collect::<Vec<_>>()
        .join(" ")
}

async fn exists(page: &str, command: &str) {
    let (program, rest) = command.split_once(' ').expect("a program");
    let binary = match program {
        "pipeletctl" => env!("CARGO_BIN_EXE_e2e-pipeletctl"),
        _ => env!("CARGO_BIN_EXE_e2e-pipeletd"),
    };
    let script = format!("exec {binary} {rest} --help");
    let asked = Command::new("bash").args(["-c", &script]).output();
    let output = within(command, asked).await.expect("bash");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{page}: {command}\n{stderr}");
}

#[tokio::test]
async fn configurations_are_ones() {
    for page in Page::all() {
        for block in page.blocks() {
            if block.language != "toml" {
                continue;
            }
            let file = tempfile::NamedTempFile::new().expect("a temporary file");
            fs::write(file.path(), block.text).expect("a writable file");
            let path = file.path().to_str().expect("UTF-8");
            let builder = daemon().flag("--config", path).switch("--check");
            let ended = builder.run_to_end().await;
            assert_eq!(ended.code, Some(0), "{}: {ended:?}", page.path);
        }
    }
}

/// The commands below this one that do something themselves, as `--help` lists them.
async fn leaves(words: &[&str]) -> Vec<String> {
    let mut ask = Command::new(env!("CARGO_BIN_EXE_e2e-pipeletctl"));
    let output = ask.args(words).arg("--help").output();
    let help = within("the help", output).await.expect("pipeletctl").stdout;
    let help = String::from_utf8(help).expect("UTF-8");
    let Some((_, listed)) = help.split_once("\nCommands:\n") else {
        return vec![words.join(" ")];
    };
    let listed = listed.lines().take_while(|line| !line.is_empty());
    // Behind a deeper indentation a description goes on.
    let names = listed.filter_map(|line| line.strip_prefix("  "));
    let names = names.filter(|line| !line.starts_with(' '));
    let names = names.filter_map(|line| line.split(' ').next());
    let mut found = Vec::new();
    for name in names.filter(|name| *name != "help") {
        found.extend(Box::pin(leaves(&[words, &[name]].concat())).await);
    }
    found
}

#[tokio::test]
async fn the_commands_are_those_of_the_tool() {
    let page = Page::read("docs/cli.md");
    let written: BTreeSet<_> = first_cells(page.section("Commands")).collect();
    let there_are = leaves(&[]).await;
    assert_eq!(written, there_are.iter().map(String::as_str).collect());
}

/// The flags, and the defaults that `--help` names.
#[tokio::test]
async fn the_settings_are_those_of_the_daemon() {
    let help = daemon().switch("--help").run_to_end().await.stdout;
    let entries = help.split("\n      --").skip(1);
    let offered: BTreeMap<_, _> = entries
        .filter_map(|entry| {
            let flag = entry.split([' ', '[', '\n']).next()?;
            let default = entry.split("\n          [default: ").nth(1);
            Some((flag, default.and_then(|rest| rest.split(']').next())))
        })
        .collect();
    let page = Page::read("docs/settings.md");
    let section = page.section("All settings");
    let written: BTreeSet<_> = first_cells(section)
        .map(|flag| flag.trim_start_matches("--"))
        .collect();
    assert_eq!(written, offered.keys().copied().collect());
    for (flag, default) in offered {
        let mut rows = section.lines().map(|row| row.split(" | "));
        let cell = rows.find_map(|mut cells| {
            let first = cells.next()?;
            let is_its = first.contains(&format!("`--{flag}`"));
            cells.next().filter(|_| is_its)
        });
        let cell = cell.expect(flag);
        let is_written = default.is_none_or(|default| match default {
            "false" => cell == "off",
            default => cell.replace('`', "") == default,
        });
        assert!(is_written, "--{flag}: {cell}, not {default:?}");
    }
}

/// The test that `docs/developing/testing.md` shows.
#[tokio::test]
async fn a_heartbeat_is_delivered() {
    let scene = Scene::new(&["Heartbeat"]).await;
    let mut station = scene.station("S1").await;
    station.ok("Heartbeat", "{}").await;
    let request = scene.receiver.await_requests(1).await.remove(0);
    assert_eq!(request.json()["event"], "Heartbeat");
}

#[test]
fn blocks_are_told_apart() {
    let text = "a\n```sh\nb\n```\nc\n```sh background\nd\n```\n";
    let found: Vec<_> = blocks(text)
        .iter()
        .map(|it| (it.language, it.text))
        .collect();
    assert_eq!(found, [("sh", "b"), ("sh background", "d")]);
}
