//! A terminal and whoever sits at it: what a program draws, and keys for it.

use std::{fmt, process::Stdio};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::timeout,
};

use crate::deadline::{DEADLINE, within};

const COLUMNS: u16 = 80;
const ROWS: u16 = 24;

/// Where programs are looked for, unless the environment says otherwise.
const SEARCH_PATH: &str = "/usr/bin:/bin";

/// A program on a terminal of 80 × 24, by way of util-linux's `script`; it ends with the value.
pub struct Terminal {
    script: Child,
    keyboard: ChildStdin,
    output: ChildStdout,
    screen: vt100::Parser,
}

impl fmt::Debug for Terminal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Terminal:\n{}", self.contents())
    }
}

impl Terminal {
    /// Runs a line of the shell in this environment.
    pub fn open<'a>(line: &str, variables: impl Iterator<Item = (&'a str, &'a str)>) -> Self {
        let line = format!("stty rows {ROWS} cols {COLUMNS}; exec {line}");
        let mut script = Command::new("script")
            .args(["--quiet", "--flush", "--return", "--command", &line])
            .arg("/dev/null")
            .env_clear()
            .env("PATH", SEARCH_PATH)
            .env("SHELL", "/bin/sh")
            .env("TERM", "xterm")
            .envs(variables)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("script, of util-linux");
        Self {
            keyboard: script.stdin.take().expect("stdin is piped"),
            output: script.stdout.take().expect("stdout is piped"),
            screen: vt100::Parser::new(ROWS, COLUMNS, 0),
            script,
        }
    }

    /// Awaits that this text is on the screen.
    pub async fn shows(&mut self, text: &str) {
        let seen = async { while !self.contents().contains(text) && self.read().await {} };
        let in_time = timeout(DEADLINE, seen).await.is_ok();
        let contents = self.contents();
        assert!(
            contents.contains(text),
            "no {text:?} on the screen (in time: {in_time}):\n{contents}"
        );
    }

    /// Types these characters.
    pub async fn types(&mut self, keys: &str) {
        let typed = self.keyboard.write_all(keys.as_bytes()).await;
        typed.expect("the program listens");
    }

    /// Awaits the program's end, and returns its exit code.
    pub async fn end(mut self) -> i32 {
        while within("the program's end", self.read()).await {}
        let status = within("script", self.script.wait()).await;
        status.expect("it ran").code().expect("an exit code")
    }

    pub fn contents(&self) -> String {
        self.screen.screen().contents()
    }

    /// Takes in what the program wrote; false at its end.
    async fn read(&mut self) -> bool {
        let mut bytes = [0; 4096];
        let read = self.output.read(&mut bytes).await.expect("a pipe");
        self.screen.process(&bytes[..read]);
        read > 0
    }
}
