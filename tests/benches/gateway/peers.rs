//! The peers: gateways written with the libraries that one would take otherwise, in
//! `tests/benches/peers`. They are installed under `target/`, once for each version.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
};

use pipelet_tests::deadline::within;
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
        let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("peer-{}", self.name()));
        let (listed, program) = match self {
            Self::Node => ("package-lock.json", "gateway.js"),
            Self::Python => ("requirements.txt", "gateway.py"),
        };
        let wanted = read(&sources.join(listed))?;
        let stamp = home.join("installed");
        if fs::read_to_string(&stamp).ok().as_ref() != Some(&wanted) {
            fs::create_dir_all(&home).map_err(|error| error.to_string())?;
            self.fetch(&sources, &home).await?;
            fs::write(&stamp, &wanted).map_err(|error| error.to_string())?;
        }
        fs::copy(sources.join(program), home.join(program)).map_err(|error| error.to_string())?;
        Ok(Installed {
            peer: self,
            interpreter: match self {
                Self::Node => PathBuf::from("node"),
                Self::Python => home.join("venv/bin/python"),
            },
            program: home.join(program),
        })
    }

    async fn fetch(self, sources: &Path, home: &Path) -> Result<(), String> {
        match self {
            Self::Node => {
                for file in ["package.json", "package-lock.json"] {
                    fs::write(home.join(file), read(&sources.join(file))?)
                        .map_err(|error| error.to_string())?;
                }
                let npm = ["ci", "--no-audit", "--no-fund", "--loglevel=error"];
                run(Command::new("npm").args(npm).current_dir(home)).await
            }
            Self::Python => {
                let venv = home.join("venv");
                run(Command::new("python3")
                    .args(["-m", "venv", "--clear"])
                    .arg(&venv))
                .await?;
                run(Command::new(venv.join("bin/pip"))
                    .args(["install", "--quiet", "--disable-pip-version-check", "-r"])
                    .arg(sources.join("requirements.txt")))
                .await
            }
        }
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

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

async fn run(command: &mut Command) -> Result<(), String> {
    let what = format!("{:?}", command.as_std());
    let output = command.kill_on_drop(true).output().await;
    let output = output.map_err(|error| format!("{what}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(format!("{what}: {stderr}"))
}
