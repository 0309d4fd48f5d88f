//! The peers: gateways written with the libraries that one would take otherwise, in
//! `tests/benches/peers`. They are installed under `target/`, once for each version.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
};

use pipelet_tests::{deadline::within, packages};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/peers");

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    Node,
    Python,
}

/// A peer that is ready to run: its interpreter and its program.
#[derive(Debug, Clone)]
pub(crate) struct Installed {
    pub(crate) peer: Peer,
    interpreter: PathBuf,
    program: PathBuf,
}

/// A peer's process, which ends with this value.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    /// Kept open: a process that prints must not meet a closed pipe.
    _stdout: Lines<BufReader<ChildStdout>>,
    pub(crate) ocpp: SocketAddr,
}

impl Peer {
    pub(crate) const ALL: [Self; 2] = [Self::Node, Self::Python];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Python => "python",
        }
    }

    /// The libraries, for the tables.
    pub(crate) const fn made_with(self) -> &'static str {
        match self {
            Self::Node => "npm ocpp-rpc, strict",
            Self::Python => "PyPI ocpp",
        }
    }

    /// Installs what the peer needs, where that has not been done.
    pub(crate) async fn install(self) -> Result<Installed, String> {
        let sources = Path::new(SOURCES).join(self.name());
        let name = format!("peer-{}", self.name());
        let (interpreter, program) = match self {
            Self::Node => {
                let home = packages::npm(&name, &sources, &["gateway.js"]).await?;
                (PathBuf::from("node"), home.join("gateway.js"))
            }
            Self::Python => {
                let venv = packages::pip(&name, &sources.join("requirements.txt")).await?;
                (venv.join("bin/python"), sources.join("gateway.py"))
            }
        };
        Ok(Installed {
            peer: self,
            interpreter,
            program,
        })
    }
}

impl Installed {
    /// Starts the gateway, which POSTs to this URL.
    pub(crate) async fn start(&self, url: &str) -> Running {
        let mut child = Command::new(&self.interpreter)
            .arg(&self.program)
            .arg(url)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the peer's interpreter");
        let mut lines = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
        let line = within("the peer to listen", lines.next_line()).await;
        let line = line.expect("UTF-8").expect("a line before the end");
        let address = line.strip_prefix("listening ").expect("an address");
        Running {
            ocpp: address.parse().expect("an address"),
            child,
            _stdout: lines,
        }
    }
}

impl Running {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id().expect("it runs")
    }
}
