//! A network that can be cut: the daemon in one network namespace, the test in another, a router
//! between them that forwards or drops without a word.
//!
//! The namespaces have no names: each lives as long as a process that the test holds, so nothing
//! is left behind however the test ends. The test itself is started again within a namespace of
//! its own, as root of a user namespace, which most machines allow to everybody.
//!
//! ```text
//! test 10.1.0.1 --- router --- 10.2.0.2 daemon      what can be cut
//! test 10.9.0.1 -------------- 10.9.0.2 daemon      what stays
//! ```

use std::{
    env,
    net::{Ipv4Addr, SocketAddr},
    process::Stdio,
};

use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, ChildStdin, Command},
};

use crate::{Builder, deadline::within};

/// Set where the test runs within its namespace.
const WITHIN: &str = "PIPELET_TESTS_NETWORK";

/// Two ways between the test and its daemon, of which one can be cut.
#[derive(Debug)]
pub struct Network {
    router: Namespace,
    daemon: Namespace,
}

/// A namespace, which lasts as long as its process: until its standard input is closed.
#[derive(Debug)]
struct Namespace {
    process: Child,
    _stdin: ChildStdin,
}

/// Whether this process is the test started again; else it is started, and has passed.
///
/// The error says why this machine has no namespaces.
pub async fn is_within(test: &str) -> Result<bool, String> {
    if env::var_os(WITHIN).is_some() {
        return Ok(true);
    }
    let unshare = || {
        let mut command = Command::new("unshare");
        command
            .args(["--map-root-user", "--net"])
            .kill_on_drop(true);
        command
    };
    let tried = unshare().args(["nsenter", "--version"]).output().await;
    let tried = tried.map_err(|error| format!("unshare: {error}"))?;
    if !tried.status.success() {
        return Err(String::from_utf8_lossy(&tried.stderr).into_owned());
    }
    let ip = Command::new("ip").arg("-V").output().await;
    ip.map_err(|error| format!("ip: {error}"))?;
    let this = env::current_exe().expect("the path of this program");
    let mut again = unshare();
    again.arg(this).args(["--exact", test, "--nocapture"]);
    let output = again.env(WITHIN, "1").output().await.expect("unshare");
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{errors}");
    assert!(said.contains("1 passed"), "there is no test {test}: {said}");
    Ok(false)
}

impl Network {
    /// The test's address that can be cut off.
    pub const BEYOND: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
    /// The test's address that always reaches the daemon, and is reached by it.
    pub const BESIDE: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);

    /// Lays the network out around the namespace that the test runs in.
    pub async fn new() -> Self {
        let network = Self {
            router: Namespace::new().await,
            daemon: Namespace::new().await,
        };
        let (router, daemon) = (network.router.pid(), network.daemon.pid());
        let here = [
            "link set lo up".to_owned(),
            format!("link add beyond type veth peer name test netns {router}"),
            format!("link add beside type veth peer name test netns {daemon}"),
            "addr add 10.1.0.1/24 dev beyond".to_owned(),
            "addr add 10.9.0.1/24 dev beside".to_owned(),
            "link set beyond up".to_owned(),
            "link set beside up".to_owned(),
            "route add 10.2.0.0/24 via 10.1.0.254".to_owned(),
        ];
        for command in here {
            run("ip", &command).await;
        }
        network
            .daemon
            .ip(&[
                "link set lo up",
                &format!("link add router type veth peer name daemon netns {router}"),
                "addr add 10.9.0.2/24 dev test",
                "addr add 10.2.0.2/24 dev router",
                "link set test up",
                "link set router up",
                "route add 10.1.0.0/24 via 10.2.0.254",
            ])
            .await;
        network
            .router
            .ip(&[
                "addr add 10.1.0.254/24 dev test",
                "addr add 10.2.0.254/24 dev daemon",
                "link set test up",
                "link set daemon up",
            ])
            .await;
        network.heal().await;
        network
    }

    /// A daemon on the other side. Its API is reached beside the router.
    pub fn daemon(&self, builder: Builder) -> Builder {
        let target = format!("--target={}", self.daemon.pid());
        builder
            .under(&["nsenter", &target, "--net"])
            .flag("--http-listen", "10.9.0.2:0")
            .flag("--grpc-listen", "10.9.0.2:0")
            .flag("--ocpp-listen", "0.0.0.0:0")
    }

    /// The daemon's address by the way that can be cut.
    pub fn through(address: SocketAddr) -> SocketAddr {
        ([10, 2, 0, 2], address.port()).into()
    }

    /// The daemon's address by the way that stays.
    pub fn beside(address: SocketAddr) -> SocketAddr {
        ([10, 9, 0, 2], address.port()).into()
    }

    /// From now on the router drops everything, in both directions, and tells nobody.
    pub async fn cut(&self) {
        self.forward('0').await;
    }

    pub async fn heal(&self) {
        self.forward('1').await;
    }

    async fn forward(&self, whether: char) {
        let write = format!("echo {whether} > /proc/sys/net/ipv4/ip_forward");
        self.router.run(&["sh", "-c", &write]).await;
    }
}

impl Namespace {
    async fn new() -> Self {
        let mut process = Command::new("unshare")
            .args(["--net", "sh", "-c", "echo; exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("unshare");
        let stdin = process.stdin.take().expect("stdin is piped");
        let stdout = process.stdout.take().expect("stdout is piped");
        let mut line = String::new();
        let mut stdout = BufReader::new(stdout);
        let said = within("a namespace", stdout.read_line(&mut line)).await;
        assert_eq!(said.expect("stdout"), 1, "no namespace");
        Self {
            process,
            _stdin: stdin,
        }
    }

    fn pid(&self) -> u32 {
        self.process.id().expect("it runs")
    }

    async fn ip(&self, commands: &[&str]) {
        for command in commands {
            let words: Vec<_> = ["ip"].into_iter().chain(command.split(' ')).collect();
            self.run(&words).await;
        }
    }

    async fn run(&self, words: &[&str]) {
        let target = format!("--target={}", self.pid());
        let enter = [&target, "--net"].into_iter().chain(words.iter().copied());
        run_words("nsenter", &enter.collect::<Vec<_>>()).await;
    }
}

async fn run(program: &str, words: &str) {
    run_words(program, &words.split(' ').collect::<Vec<_>>()).await;
}

async fn run_words(program: &str, words: &[&str]) {
    let status = Command::new(program).args(words).status().await;
    assert!(status.expect(program).success(), "{program} {words:?}");
}
