//! The demo's own daemon: on free ports, with a temporary directory for all that it writes.
//!
//! Invariant: neither the process nor the directory outlives this, whatever happens; only where
//! the daemon did not start is the directory left, for its log.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

use super::error::DemoError;
use crate::settings::{Environment, Settings, SettingsError};

/// The waits between attempts, their number, and how long each may take: short enough to watch.
const RETRY_SCHEDULE: &str = "1s,1s,2s";
const MAX_ATTEMPTS: &str = "4";
const DELIVERY_TIMEOUT: &str = "1s";

/// For the daemon to listen, and again to end.
const PATIENCE: Duration = Duration::from_secs(20);

const CALL_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Daemon {
    // Dropped first: it is killed before its directory goes.
    child: Child,
    /// Kept open: a daemon that prints must not meet a closed pipe.
    _stdout: Lines<BufReader<ChildStdout>>,
    home: TempDir,
    addresses: Addresses,
}

#[derive(Debug, PartialEq, Eq)]
struct Addresses {
    grpc: String,
    ocpp: String,
}

impl Daemon {
    pub(super) async fn start(program: &Path) -> Result<Self, DemoError> {
        let home = TempDir::with_prefix("pipelet-demo-").map_err(DemoError::Directory)?;
        let log = home.path().join("pipeletd.log");
        let stderr = File::create(&log).map_err(DemoError::Directory)?;
        let spawned = Command::new(program)
            .arg("--data-dir")
            .arg(home.path().join("data"))
            .args(["--http-listen", "127.0.0.1:0"])
            .args(["--grpc-listen", "127.0.0.1:0"])
            .args(["--ocpp-listen", "127.0.0.1:0"])
            .args(["--retry-schedule", RETRY_SCHEDULE])
            .args(["--max-attempts", MAX_ATTEMPTS])
            .args(["--delivery-timeout", DELIVERY_TIMEOUT])
            .args(["--shutdown-grace", "1s"])
            .arg("--dev")
            // What is set for another daemon is not meant for this one.
            .env_clear()
            // A Ctrl-C at the terminal is for the demo, which then ends its daemon in order.
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
        let stdout = child.stdout.take().ok_or(DemoError::NoAddress)?;
        let mut lines = BufReader::new(stdout).lines();
        let line = timeout(PATIENCE, lines.next_line()).await;
        let line = line.ok().and_then(Result::ok).flatten();
        let Some(addresses) = line.as_deref().and_then(Addresses::parse) else {
            // Only the log says why.
            let _ = home.keep();
            return Err(DemoError::NotListening { log });
        };
        Ok(Self {
            child,
            _stdout: lines,
            home,
            addresses,
        })
    }

    pub(super) fn ocpp(&self) -> &str {
        &self.addresses.ocpp
    }

    /// How it is called, with the key that it has just made.
    pub(super) fn settings(&self) -> Result<Settings, SettingsError> {
        let key = self.home.path().join("data/admin.key");
        Settings::of_own_daemon(&self.addresses.grpc, &key, CALL_TIMEOUT)
    }

    /// Waits for it to end by itself, which it should not: why it did is in its log.
    pub(super) async fn died(&mut self) -> DemoError {
        let _ = self.child.wait().await;
        self.home.disable_cleanup(true);
        let log = self.home.path().join("pipeletd.log");
        DemoError::Died { log }
    }

    /// Ends it in order, and removes what it wrote.
    pub(super) async fn stop(mut self) {
        let pid = self.child.id().and_then(|id| i32::try_from(id).ok());
        if let Some(pid) = pid.and_then(Pid::from_raw) {
            // Where it has gone already, that is what is wanted.
            let _ = kill_process(pid, Signal::TERM);
        }
        if timeout(PATIENCE, self.child.wait()).await.is_err() {
            let _ = self.child.kill().await;
        }
        // A directory below /tmp that can't be removed is no reason to fail.
        let _ = self.home.close();
    }
}

impl Addresses {
    fn parse(line: &str) -> Option<Self> {
        let rest = line.strip_prefix("listening ")?;
        let find = |name: &str| {
            let found = rest.split(' ').find_map(|part| part.strip_prefix(name));
            found.map(str::to_owned)
        };
        Some(Self {
            grpc: find("grpc=")?,
            ocpp: find("ocpp=")?,
        })
    }
}

/// The daemon that was named, or the one beside this very program, or the one on the search path.
pub(super) fn find(
    named: Option<PathBuf>,
    environment: &Environment,
) -> Result<PathBuf, DemoError> {
    if let Some(path) = named {
        return Ok(path);
    }
    let own = std::env::current_exe().and_then(std::fs::canonicalize);
    let beside = own.ok().map(|own| own.with_file_name("pipeletd"));
    let on_path = environment
        .search_path
        .iter()
        .map(|dir| dir.join("pipeletd"));
    let found = beside
        .clone()
        .into_iter()
        .chain(on_path)
        .find(|path| path.is_file());
    found.ok_or(DemoError::NoDaemon {
        looked: beside.unwrap_or_else(|| PathBuf::from("pipeletd")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_it_listens() {
        let line = "listening http=127.0.0.1:1 grpc=127.0.0.1:2 ocpp=127.0.0.1:3";
        let addresses = Addresses::parse(line).unwrap();
        assert_eq!(
            (addresses.grpc.as_str(), addresses.ocpp.as_str()),
            ("127.0.0.1:2", "127.0.0.1:3")
        );
        assert_eq!(Addresses::parse("listening http=127.0.0.1:1"), None);
        assert_eq!(Addresses::parse("error: no"), None);
    }

    #[test]
    fn where_it_is_looked_for() {
        let dir = tempfile::tempdir().unwrap();
        let environment = Environment {
            search_path: vec![dir.path().join("nothing"), dir.path().to_owned()],
            ..Environment::default()
        };
        let named = find(Some(PathBuf::from("/named")), &environment).unwrap();
        assert_eq!(named, Path::new("/named"));
        assert!(matches!(
            find(None, &environment),
            Err(DemoError::NoDaemon { .. })
        ));
        std::fs::write(dir.path().join("pipeletd"), "").unwrap();
        let found = find(None, &environment).unwrap();
        assert_eq!(found, dir.path().join("pipeletd"));
    }
}
