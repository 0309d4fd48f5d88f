//! `pipeletctl` as an operator would run it, without a terminal.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use serde_json::Value;
use tokio::{io::AsyncWriteExt, process::Command};

use crate::{deadline::within, terminal::Terminal};

/// A `pipeletctl` that knows its server and its key from the environment.
#[derive(Debug, Clone)]
pub struct Ctl {
    binary: PathBuf,
    variables: Vec<(String, String)>,
}

/// How a command ended.
#[derive(Debug, Clone)]
pub struct Output {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// Its stdout, where it succeeded.
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:#?}");
        self.stdout
    }
}

impl Ctl {
    pub fn new(binary: impl Into<PathBuf>, home: &Path, server: &str, key: &str) -> Self {
        let home = home.to_str().expect("a UTF-8 path");
        let variables = [
            ("HOME", home),
            ("PIPELET_SERVER", server),
            ("PIPELET_API_KEY", key),
            ("NO_COLOR", "1"),
        ];
        Self {
            binary: binary.into(),
            variables: variables
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .to_vec(),
        }
    }

    /// Sets a variable of the environment.
    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self = self.without_variable(name);
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    #[must_use]
    pub fn without_variable(mut self, name: &str) -> Self {
        self.variables.retain(|(known, _)| known != name);
        self
    }

    pub fn binary(&self) -> &Path {
        &self.binary
    }

    /// All that the environment has.
    pub fn variables(&self) -> impl Iterator<Item = (&str, &str)> {
        let variables = self.variables.iter();
        variables.map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Runs a command line on a terminal.
    pub fn on_terminal(&self, line: &str) -> Terminal {
        let binary = self.binary.to_str().expect("a UTF-8 path");
        Terminal::open(&format!("'{binary}' {line}"), self.variables())
    }

    pub async fn run<S: AsRef<str>>(&self, args: &[S]) -> Output {
        self.run_with_input(args, "").await
    }

    /// Runs a command line as a person would type it; arguments have no spaces.
    pub async fn line(&self, line: &str) -> Output {
        self.run(&line.split(' ').collect::<Vec<_>>()).await
    }

    /// Runs a command that must succeed with `-o json`, and returns what it printed.
    pub async fn json(&self, line: &str) -> Value {
        let text = self.line(&format!("-o json {line}")).await.ok();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{line}: {error}: {text}"))
    }

    pub async fn run_with_input<S: AsRef<str>>(&self, args: &[S], input: &str) -> Output {
        let mut child = Command::new(&self.binary)
            .args(args.iter().map(AsRef::as_ref))
            .env_clear()
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("pipeletctl");
        let mut stdin = child.stdin.take().expect("stdin is piped");
        // A command that does not read may have ended before this is written.
        let _ = stdin.write_all(input.as_bytes()).await;
        drop(stdin);
        let output = within("pipeletctl", child.wait_with_output())
            .await
            .expect("its output");
        Output {
            code: output.status.code().expect("an exit code"),
            stdout: String::from_utf8(output.stdout).expect("UTF-8"),
            stderr: String::from_utf8(output.stderr).expect("UTF-8"),
        }
    }
}
