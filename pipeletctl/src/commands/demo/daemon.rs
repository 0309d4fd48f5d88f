//! The demo's own daemon: on free ports, with a temporary directory for all that it writes.
//!
//! Invariant: neither the process nor the directory outlives this, whatever happens; only where
//! the daemon did not start is the directory left, for its log.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use tempfile::TempDir;

use super::{error::DemoError, process::Process};
use crate::settings::{Environment, Settings, SettingsError};

/// The waits between attempts, their number, and how long each may take: short enough to watch.
const RETRY_SCHEDULE: &str = "1s,1s,2s";
const MAX_ATTEMPTS: &str = "4";
const DELIVERY_TIMEOUT: &str = "1s";

pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Daemon {
    // Dropped first: it is killed before its directory goes.
    process: Process,
    home: TempDir,
    addresses: Addresses,
}

/// Where a daemon listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Addresses {
    pub(super) grpc: String,
    pub(super) ocpp: String,
}

/// How each daemon of a demo is started.
pub(super) fn args(data_dir: &Path) -> Vec<String> {
    let data_dir = data_dir.display().to_string();
    let args = [
        ["--data-dir", &data_dir],
        ["--http-listen", "127.0.0.1:0"],
        ["--retry-schedule", RETRY_SCHEDULE],
        ["--max-attempts", MAX_ATTEMPTS],
        ["--delivery-timeout", DELIVERY_TIMEOUT],
        ["--shutdown-grace", "1s"],
    ];
    let args = args.concat().into_iter().chain(["--dev"]);
    args.map(str::to_owned).collect()
}

impl Daemon {
    pub(super) async fn start(program: &Path) -> Result<Self, DemoError> {
        let home = TempDir::with_prefix("pipelet-demo-").map_err(DemoError::Directory)?;
        let log = home.path().join("pipeletd.log");
        let mut args = args(&home.path().join("data"));
        for listen in ["--grpc-listen", "--ocpp-listen"] {
            args.extend([listen.to_owned(), "127.0.0.1:0".to_owned()]);
        }
        let mut process = Process::start(program, log.clone(), args)?;
        let Some(addresses) = Addresses::of(&mut process).await else {
            // Only the log says why.
            let _ = home.keep();
            return Err(DemoError::NotListening { log });
        };
        Ok(Self {
            process,
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
        self.process.ended().await;
        self.home.disable_cleanup(true);
        let log = self.process.log.clone();
        DemoError::Died { log }
    }

    /// Ends it in order, and removes what it wrote.
    pub(super) async fn stop(mut self) {
        self.process.stop().await;
        // A directory below /tmp that can't be removed is no reason to fail.
        let _ = self.home.close();
    }
}

impl Addresses {
    /// Once it listens.
    pub(super) async fn of(process: &mut Process) -> Option<Self> {
        Self::parse(&process.first_line().await?)
    }

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
    let is_there = |path: &PathBuf| path.is_file();
    let found = beside.clone().filter(is_there);
    let found = found.or_else(|| on_search_path("pipeletd", environment));
    found.ok_or(DemoError::NoDaemon {
        looked: beside.unwrap_or_else(|| PathBuf::from("pipeletd")),
    })
}

pub(super) fn on_search_path(program: &str, environment: &Environment) -> Option<PathBuf> {
    let mut places = environment.search_path.iter().map(|dir| dir.join(program));
    places.find(|path| path.is_file())
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
