//! A process of the demo's: its log in a file, and an end with the demo whatever happens.

use std::{
    ffi::OsStr,
    fs::File,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

use super::error::DemoError;

/// For a process to be ready, and again to end.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    /// Kept open: one that prints must not meet a closed pipe.
    stdout: Option<Lines<BufReader<ChildStdout>>>,
    pub(super) log: PathBuf,
}

impl Process {
    /// Its stdout is read, and its stderr goes to the log.
    pub(super) fn start<S: AsRef<OsStr>>(
        program: &Path,
        log: PathBuf,
        args: impl IntoIterator<Item = S>,
    ) -> Result<Self, DemoError> {
        let stderr = File::create(&log).map_err(DemoError::Directory)?;
        let spawned = Command::new(program)
            .args(args)
            // What is set for another daemon is not meant for this one.
            .env_clear()
            // A Ctrl-C at the terminal is for the demo, which then ends its processes in order.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .kill_on_drop(true)
            .spawn();
        let mut child = spawned.map_err(|source| DemoError::Spawn {
            program: program.to_owned(),
            source,
        })?;
        let stdout = child.stdout.take();
        let stdout = stdout.map(|stdout| BufReader::new(stdout).lines());
        Ok(Self { child, stdout, log })
    }

    /// The first line that it prints; none where it ends before, or takes too long.
    pub(super) async fn first_line(&mut self) -> Option<String> {
        let lines = self.stdout.as_mut()?;
        let line = timeout(PATIENCE, lines.next_line()).await;
        line.ok().and_then(Result::ok).flatten()
    }

    /// Waits for it to end by itself.
    pub(super) async fn ended(&mut self) {
        let _ = self.child.wait().await;
    }

    /// As `kill -9` does.
    pub(super) async fn kill(&mut self) {
        let _ = self.child.kill().await;
    }

    /// Ends it in order.
    pub(super) async fn stop(&mut self) {
        let pid = self.child.id().and_then(|id| i32::try_from(id).ok());
        if let Some(pid) = pid.and_then(Pid::from_raw) {
            // Where it has gone already, that is what is wanted.
            let _ = kill_process(pid, Signal::TERM);
        }
        if timeout(PATIENCE, self.child.wait()).await.is_err() {
            self.kill().await;
        }
    }
}
