//! A real `pipeletd` process with a home of its own.
//!
//! Invariant: the process never outlives its [`Daemon`]; the home outlives every process, so
//! that a start after a kill finds what the kill left.

use std::{
    ffi::OsStr,
    fs::{self, File, OpenOptions},
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::Arc,
    thread,
    time::Duration,
};

use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

use crate::{Api, Ctl, authority::Identity, deadline::within, process};

/// What a daemon is started with. Ports are free ones and private targets are allowed,
/// because every receiver of a test is on the loopback interface.
#[derive(Debug)]
pub struct Builder {
    binary: PathBuf,
    args: Vec<String>,
    variables: Vec<(String, String)>,
    /// A program that executes the daemon, and its arguments.
    wrapper: Vec<String>,
    /// Nodes of a cluster share it.
    home: Arc<TempDir>,
    data_dir: PathBuf,
    log_name: String,
    /// The data directory that the first key is in, where that is another node's.
    key_of: Option<PathBuf>,
    /// So many other nodes are started before it, which own shards, too.
    others: usize,
}

impl Builder {
    pub fn new(binary: impl Into<PathBuf>) -> Self {
        Self::with_home(binary, tempfile::tempdir())
    }

    /// With its home in this directory, for who must know what disk it is on.
    pub fn new_in(binary: impl Into<PathBuf>, directory: impl AsRef<Path>) -> Self {
        Self::with_home(binary, tempfile::tempdir_in(directory))
    }

    fn with_home(binary: impl Into<PathBuf>, home: io::Result<TempDir>) -> Self {
        let home = home.expect("a temporary directory");
        let data_dir = home.path().join("data");
        let data_dir_flag = format!("--data-dir={}", data_dir.display());
        let args = [
            &data_dir_flag,
            "--http-listen=127.0.0.1:0",
            "--grpc-listen=127.0.0.1:0",
            "--ocpp-listen=127.0.0.1:0",
            "--allow-private-targets",
        ];
        Self {
            binary: binary.into(),
            args: args.map(str::to_owned).to_vec(),
            variables: Vec::new(),
            wrapper: Vec::new(),
            home: Arc::new(home),
            data_dir,
            log_name: "stderr.log".to_owned(),
            key_of: None,
            others: 0,
        }
    }

    /// Sets `--flag value`, instead of what it was before.
    #[must_use]
    pub fn flag(mut self, flag: &str, value: &str) -> Self {
        self.set_flag(flag, value);
        self
    }

    fn set_flag(&mut self, flag: &str, value: &str) {
        let prefix = format!("{flag}=");
        self.args.retain(|arg| !arg.starts_with(&prefix));
        self.args.push(format!("{prefix}{value}"));
    }

    #[must_use]
    pub fn switch(mut self, flag: &str) -> Self {
        self.args.push(flag.to_owned());
        self
    }

    #[must_use]
    pub fn without(mut self, flag: &str) -> Self {
        self.args.retain(|arg| arg != flag);
        self
    }

    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Lets stations connect over TLS, with this certificate in files in that directory.
    #[must_use]
    pub fn with_station_tls(self, identity: &Identity, directory: &Path) -> Self {
        let file = |name: &str, text: &str| {
            let path = directory.join(name);
            fs::write(&path, text).expect("a writable file");
            path.to_str().expect("UTF-8").to_owned()
        };
        self.flag("--ocpp-tls-listen", "127.0.0.1:0")
            .flag(
                "--ocpp-tls-cert",
                &file("cert.pem", &identity.certificate_pem),
            )
            .flag("--ocpp-tls-key", &file("key.pem", &identity.key_pem))
    }

    /// Lets the daemon keep its data there.
    #[must_use]
    pub fn in_data_dir(mut self, data_dir: PathBuf) -> Self {
        let path = data_dir.to_str().expect("UTF-8").to_owned();
        self.data_dir = data_dir;
        self.flag("--data-dir", &path)
    }

    /// Lets the daemon keep its data where it does by default, in its user's home.
    #[must_use]
    pub fn in_default_data_dir(mut self) -> Self {
        self.args.retain(|arg| !arg.starts_with("--data-dir="));
        self.data_dir = self.home.path().join(".local/share/pipelet");
        self
    }

    /// Runs the daemon under another program, which executes what follows its own arguments.
    #[must_use]
    pub fn under(mut self, wrapper: &[&str]) -> Self {
        self.wrapper = wrapper.iter().map(|&word| word.to_owned()).collect();
        self
    }

    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Makes it one of several nodes, which own shards as it does.
    #[must_use]
    pub const fn behind(mut self, others: usize) -> Self {
        self.others = others;
        self
    }

    /// Starts the daemon and waits until it listens.
    pub async fn start(self) -> Daemon {
        let others = self.others;
        if others > 0 {
            return self.start_behind(others).await;
        }
        let running = Running::spawn(&self).await;
        Daemon {
            builder: self,
            running: Some(running),
            others: Vec::new(),
        }
    }

    async fn start_behind(mut self, others: usize) -> Daemon {
        self.others = 0;
        let first = Box::pin(self.flag("--node", "other-0").start()).await;
        let mut daemon = Box::pin(first.beside("this").start()).await;
        for number in 1..others {
            let other = first.beside(&format!("other-{number}"));
            daemon.others.push(Box::pin(other.start()).await);
        }
        daemon.others.push(first);
        daemon
    }

    /// Starts a daemon that may give up by itself instead of listening.
    pub async fn start_or_end(self) -> Result<Daemon, Ended> {
        let mut daemon = self.stopped();
        daemon.start_again_or_end().await?;
        Ok(daemon)
    }

    /// A daemon that was never started, for who wants to see its first start.
    pub fn stopped(self) -> Daemon {
        Daemon {
            builder: self,
            running: None,
            others: Vec::new(),
        }
    }

    /// Runs a daemon that is expected to give up by itself, and returns how it ended.
    pub async fn run_to_end(self) -> Ended {
        self.run(&[]).await
    }

    async fn run(&self, further: &[&str]) -> Ended {
        let mut child = self
            .command()
            .args(further)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("pipeletd");
        let mut stdout = child.stdout.take().expect("stdout is piped");
        let mut stderr = child.stderr.take().expect("stderr is piped");
        let (mut out, mut err) = (String::new(), String::new());
        let status = within("pipeletd to give up", async {
            let (_, _, status) = tokio::join!(
                stdout.read_to_string(&mut out),
                stderr.read_to_string(&mut err),
                child.wait()
            );
            status.expect("an exit status")
        })
        .await;
        Ended {
            code: status.code(),
            stdout: out,
            stderr: err,
        }
    }

    fn command(&self) -> Command {
        let wrapper = self.wrapper.iter().map(OsStr::new);
        let daemon = self.args.iter().map(OsStr::new);
        let mut words = wrapper.chain([self.binary.as_os_str()]).chain(daemon);
        let mut command = Command::new(words.next().expect("a program"));
        command
            .args(words)
            .env_clear()
            .env("HOME", self.home.path())
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    fn spawn(&self, further: &[&str]) -> Child {
        self.command()
            .args(further)
            .stdout(Stdio::piped())
            .stderr(append_to(&self.log_file()))
            .spawn()
            .expect("pipeletd")
    }

    fn log_file(&self) -> PathBuf {
        self.home.path().join(&self.log_name)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    fn ended(&self, status: ExitStatus) -> Ended {
        Ended {
            code: status.code(),
            stdout: String::new(),
            stderr: self.log(),
        }
    }
}

/// How a daemon ended that gave up by itself.
#[derive(Debug)]
pub struct Ended {
    /// None where a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// A daemon. Dropping it kills the process and, in a test that fails, shows its log.
#[derive(Debug)]
pub struct Daemon {
    builder: Builder,
    /// None between an end and the next start.
    running: Option<Running>,
    /// Those of its cluster that go on as long as this is there.
    others: Vec<Daemon>,
}

#[derive(Debug)]
struct Running {
    child: Child,
    /// Kept open: a daemon that prints must not meet a closed pipe.
    _stdout: Lines<BufReader<ChildStdout>>,
    http: SocketAddr,
    grpc: SocketAddr,
    ocpp: SocketAddr,
    ocpps: Option<SocketAddr>,
}

impl Daemon {
    pub fn builder(binary: impl Into<PathBuf>) -> Builder {
        Builder::new(binary)
    }

    /// The same, with its home in this directory.
    pub fn builder_in(binary: impl Into<PathBuf>, directory: impl AsRef<Path>) -> Builder {
        Builder::new_in(binary, directory)
    }

    /// The process, for `/proc`.
    pub fn pid(&self) -> u32 {
        self.running().child.id().expect("it runs")
    }

    /// What the process has in memory, in bytes.
    pub fn memory(&self) -> u64 {
        process::rss(self.pid())
    }

    /// The most that the process ever had in memory, in bytes.
    pub fn peak_memory(&self) -> u64 {
        process::peak_rss(self.pid())
    }

    pub fn http(&self) -> SocketAddr {
        self.running().http
    }

    pub fn grpc(&self) -> SocketAddr {
        self.running().grpc
    }

    pub fn ocpp(&self) -> SocketAddr {
        self.running().ocpp
    }

    /// Where stations connect over TLS.
    pub fn ocpps(&self) -> SocketAddr {
        self.running().ocpps.expect("a daemon that speaks TLS")
    }

    /// The other nodes that were started with it.
    pub fn others(&self) -> &[Self] {
        &self.others
    }

    pub fn data_dir(&self) -> &Path {
        &self.builder.data_dir
    }

    pub fn home(&self) -> &Path {
        self.builder.home.path()
    }

    /// The key that the daemon wrote at its first start.
    pub fn key(&self) -> String {
        let key_file = self
            .builder
            .key_of
            .as_ref()
            .unwrap_or(&self.builder.data_dir);
        let key = fs::read_to_string(key_file.join("admin.key")).expect("admin.key");
        key.trim_end().to_owned()
    }

    /// The REST API, with the daemon's own key.
    pub fn api(&self) -> Api {
        Api::new(self.http(), Some(self.key()))
    }

    pub fn ctl(&self, binary: impl Into<PathBuf>) -> Ctl {
        self.ctl_with_key(binary, &self.key())
    }

    /// The same with another key, for a daemon that was given its first one.
    pub fn ctl_with_key(&self, binary: impl Into<PathBuf>, key: &str) -> Ctl {
        let server = format!("http://{}", self.grpc());
        Ctl::new(binary, self.home(), &server, key)
    }

    /// What the daemon wrote to stderr, over all of its starts.
    pub fn log(&self) -> String {
        self.builder.log()
    }

    /// SIGKILL: nothing of the process runs after this.
    pub async fn kill9(&mut self) {
        let mut running = self.running.take().expect("a running daemon");
        let ended = running.child.try_wait().expect("a child");
        assert!(ended.is_none(), "pipeletd ended by itself: {ended:?}");
        running.child.kill().await.expect("SIGKILL");
    }

    /// SIGTERM, and the exit status that it led to.
    pub async fn terminate(&mut self) -> ExitStatus {
        self.signal("TERM").await;
        self.ended().await
    }

    /// Sends a signal by its name, as in `TERM`.
    pub async fn signal(&self, name: &str) {
        let pid = self.running().child.id().expect("a running daemon");
        let status = Command::new("sh")
            .args(["-c", &format!("kill -{name} {pid}")])
            .status()
            .await;
        assert!(status.expect("sh").success(), "kill -{name} {pid}");
    }

    /// Whether it was started, and neither killed nor seen to end since.
    pub const fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Whether the process has ended by itself; the daemon can be started again then.
    pub fn has_ended(&mut self) -> bool {
        let running = self.running.as_mut().expect("a running daemon");
        let has_ended = running.child.try_wait().expect("a child").is_some();
        if has_ended {
            self.running = None;
        }
        has_ended
    }

    /// Waits for the process to end.
    pub async fn ended(&mut self) -> ExitStatus {
        let mut running = self.running.take().expect("a running daemon");
        within("pipeletd to end", running.child.wait())
            .await
            .expect("an exit status")
    }

    /// Sets `--flag value` for the next start.
    pub fn set_flag(&mut self, flag: &str, value: &str) {
        self.builder.set_flag(flag, value);
    }

    /// Leaves a switch out at the next start.
    pub fn unset(&mut self, flag: &str) {
        self.builder.args.retain(|arg| arg != flag);
    }

    /// Starts the daemon again on the same data, after an end of whatever kind. Its ports are
    /// other ones.
    pub async fn start_again(&mut self) {
        assert!(self.running.is_none(), "the daemon still runs");
        self.running = Some(Running::spawn(&self.builder).await);
    }

    /// The same of a daemon that may give up by itself instead of listening.
    pub async fn start_again_or_end(&mut self) -> Result<(), Ended> {
        assert!(self.running.is_none(), "the daemon still runs");
        let running = Running::try_spawn(&self.builder).await;
        self.running = Some(running.map_err(|status| self.builder.ended(status))?);
        Ok(())
    }

    /// A further node of its cluster, with a data directory of its own.
    pub fn beside(&self, node: &str) -> Builder {
        let Builder {
            binary,
            args,
            variables,
            wrapper,
            home,
            ..
        } = &self.builder;
        let data_dir = home.path().join(node);
        let key_file = self.data_dir().join("secrets.key");
        Builder {
            binary: binary.clone(),
            args: args.clone(),
            variables: variables.clone(),
            wrapper: wrapper.clone(),
            home: Arc::clone(home),
            data_dir: data_dir.clone(),
            log_name: format!("{node}.log"),
            key_of: Some(self.data_dir().to_owned()),
            others: 0,
        }
        .flag("--node", node)
        .flag("--data-dir", data_dir.to_str().expect("UTF-8"))
        .flag("--secrets-key-file", key_file.to_str().expect("UTF-8"))
    }

    /// Its name, where it was given one.
    pub fn node(&self) -> &str {
        let mut args = self.builder.args.iter();
        let name = args.find_map(|arg| arg.strip_prefix("--node="));
        name.expect("a node with a name")
    }

    /// Has it stand still (`SIGSTOP`).
    pub fn pause(&self) {
        process::pause(&self.running().child);
    }

    /// Has it go on (`SIGCONT`).
    pub fn resume(&self) {
        process::resume(&self.running().child);
    }

    /// Starts the daemon on the same data and kills it so much later, wherever it has come to, if
    /// it has not given up by itself.
    pub async fn start_and_kill(&mut self, after: Duration) -> Result<(), Ended> {
        assert!(self.running.is_none(), "the daemon still runs");
        let spawned = self.builder.spawn(&[]);
        kill_after(spawned, after)
            .await
            .map_or(Ok(()), |status| Err(self.builder.ended(status)))
    }

    /// Runs one of the program's commands on the data of the daemon, running or not.
    pub async fn run(&self, command: &[&str]) -> Ended {
        self.builder.run(command).await
    }

    /// The same, killed so much later, wherever it has come to. It may fail no other way.
    pub async fn run_and_kill(&self, command: &[&str], after: Duration) -> Result<(), Ended> {
        match kill_after(self.builder.spawn(command), after).await {
            Some(status) if !status.success() => Err(self.builder.ended(status)),
            Some(_) | None => Ok(()),
        }
    }

    fn running(&self) -> &Running {
        self.running.as_ref().expect("a running daemon")
    }
}

impl Drop for Daemon {
    #[expect(
        clippy::print_stderr,
        reason = "the one place that shows why a test failed"
    )]
    fn drop(&mut self) {
        let log = self.log();
        if thread::panicking() {
            eprintln!("--- stderr of pipeletd ---\n{log}--- end ---");
        } else {
            // A part of the daemon may panic without a test noticing it from outside.
            assert!(!log.contains("panicked at"), "pipeletd panicked:\n{log}");
        }
    }
}

impl Running {
    async fn spawn(builder: &Builder) -> Self {
        let Ok(running) = Self::try_spawn(builder).await else {
            let log = builder.log();
            panic!("pipeletd ended instead of listening:\n{log}");
        };
        running
    }

    async fn try_spawn(builder: &Builder) -> Result<Self, ExitStatus> {
        Self::listening(builder.spawn(&[])).await
    }

    /// Waits until a process listens.
    async fn listening(mut child: Child) -> Result<Self, ExitStatus> {
        let mut lines = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
        let line = within("pipeletd to listen", lines.next_line())
            .await
            .expect("stdout is UTF-8");
        let Some(line) = line else {
            let ended = within("pipeletd to give up", child.wait()).await;
            return Err(ended.expect("an exit status"));
        };
        let find = |name: &str| -> Option<SocketAddr> {
            let rest = line.strip_prefix("listening ")?;
            let address = rest.split(' ').find_map(|part| part.strip_prefix(name))?;
            address.parse().ok()
        };
        let address =
            |name| find(name).unwrap_or_else(|| panic!("no address for {name} in {line:?}"));
        Ok(Self {
            http: address("http="),
            grpc: address("grpc="),
            ocpp: address("ocpp="),
            ocpps: find("ocpps="),
            child,
            _stdout: lines,
        })
    }
}

/// None where it was killed, and how it ended where that was before.
async fn kill_after(mut child: Child, after: Duration) -> Option<ExitStatus> {
    if let Ok(status) = timeout(after, child.wait()).await {
        return Some(status.expect("an exit status"));
    }
    child.kill().await.expect("SIGKILL");
    None
}

fn append_to(path: &Path) -> File {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .expect("the log file")
}
