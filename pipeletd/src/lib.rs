//! `pipeletd`: chargers connect over OCPP 1.6J, and applications are told what happens on them,
//! at least once and at once.
//!
//! | module | what it is about |
//! |---|---|
//! | [`events`] | what happens, as a value: the catalogue, the event, its payload |
//! | [`webhooks`] | who wants to be told, and where: pure values and their rules |
//! | [`journal`] | every event once, on disk before anyone is told; forward reading |
//! | [`delivery`] | a dispatcher for each webhook, retries, dead letters, replay, HTTP |
//! | [`store`] | what must survive: the trait, sled, memory, the conformance suite |
//! | [`ocpp`] | stations: handshake, frames, answers, sessions |
//! | [`projection`] | what is known of stations, as a fold over the journal |
//! | [`id_tags`] | who may charge: the registered tags and the verdict on each |
//! | [`registration`] | which stations are expected, and what is asked of each |
//! | [`api`] | REST and gRPC over the handles of all these |
//! | [`limits`], [`tls`], [`latencies`] | how often something may happen; certificates and streams; how long something takes |
//! | [`app`] | puts it together; [`config`], [`telemetry`], [`shutdown`], [`reload`], [`auth`], [`clock`], [`core_dumps`], [`descriptors`], [`private_file`] |
//!
//! The way of an event: `ocpp` answers a station once `journal` has its event on disk; `journal`
//! hands its position to the feeds of the webhooks that want it; each webhook's dispatcher in
//! `delivery` POSTs it and settles it.

pub mod api;
pub mod app;
pub mod auth;
pub mod clock;
pub mod config;
pub mod core_dumps;
pub mod delivery;
pub mod descriptors;
pub mod events;
#[doc(hidden)]
pub mod fuzzing;
pub mod id_tags;
pub mod journal;
pub mod latencies;
pub mod limits;
pub mod ocpp;
pub mod private_file;
pub mod projection;
pub mod registration;
pub mod reload;
pub mod shutdown;
pub mod store;
pub mod telemetry;
pub mod tls;
pub mod webhooks;

use std::{
    fs::File,
    io::{self, BufReader, Write as _},
    path::Path,
    process::ExitCode,
    time::Duration,
};

use anyhow::Context as _;
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;

use self::{
    app::App,
    clock::Clock,
    config::{Config, ConfigError, Task},
    reload::Reload,
    shutdown::Signals,
    store::sled::SledStore,
};

/// `EX_CONFIG` of sysexits.h.
const EXIT_CONFIG: u8 = 78;
const EXIT_USAGE: u8 = 2;
/// How long threads that nobody can call back, such as in the system's resolver, hold up the end.
const THREADS_GRACE: Duration = Duration::from_millis(500);

/// Configuration, telemetry, runtime; then the daemon until it is told to end.
pub fn main() -> ExitCode {
    let config = match Config::load() {
        Ok(config) => config,
        Err(error) => return refuse(&error),
    };
    let done = match &config.task {
        Task::Run => run(&config),
        Task::RotateSecretsKey => rotate_secrets_key(&config),
        Task::Restore { file, set_aside } => restore(&config, file, *set_aside),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell(format_args!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(config: &Config) -> anyhow::Result<()> {
    telemetry::start(&config.log_level, config.log_format).context("--log-level")?;
    core_dumps::leave_memory_out();
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("another TLS provider is installed already"))?;
    let (main, delivering) = (runtime("pipeletd")?, runtime("delivery")?);
    let ended = main.block_on(async {
        let shutdown = CancellationToken::new();
        let signals = Signals::listen()?;
        tokio::spawn(signals.run(shutdown.clone()));
        let reload = Reload::listen()?;
        let app = App::open(config, Clock::system(), delivering.handle().clone()).await?;
        tokio::spawn(reload.run(app.certificates(), shutdown.clone()));
        announce(&app)?;
        app.run(shutdown).await?;
        tracing::info!("ended");
        Ok(())
    });
    delivering.shutdown_timeout(THREADS_GRACE);
    main.shutdown_timeout(THREADS_GRACE);
    ended
}

fn rotate_secrets_key(config: &Config) -> anyhow::Result<()> {
    telemetry::start(&config.log_level, config.log_format).context("--log-level")?;
    core_dumps::leave_memory_out();
    SledStore::rotate_key(&config.data_dir, config.secrets_key_file.as_deref())?;
    tracing::info!("the secrets are sealed with a new key; keep a copy of it");
    Ok(())
}

fn restore(config: &Config, file: &Path, set_aside: bool) -> anyhow::Result<()> {
    telemetry::start(&config.log_level, config.log_format).context("--log-level")?;
    let backup = File::open(file).with_context(|| format!("can't read {}", file.display()))?;
    SledStore::restore(&config.data_dir, &mut BufReader::new(backup), set_aside)?;
    let data_dir = config.data_dir.display();
    tracing::info!(%data_dir, "restored; the daemon needs the secrets.key of then to start");
    Ok(())
}

/// A runtime with a thread for each core; its threads bear the name.
fn runtime(name: &str) -> io::Result<Runtime> {
    Builder::new_multi_thread()
        .enable_all()
        .thread_name(name)
        .build()
}

/// The one line on stdout: whoever started the daemon learns the real ports from it.
fn announce(app: &App) -> io::Result<()> {
    let addresses = app.addresses();
    let (http, grpc, ocpp) = (addresses.http, addresses.grpc, addresses.ocpp);
    tracing::info!(version = env!("CARGO_PKG_VERSION"), %http, %grpc, %ocpp, "listening");
    let mut stdout = io::stdout().lock();
    write!(stdout, "listening http={http} grpc={grpc} ocpp={ocpp}")?;
    if let Some(ocpps) = addresses.ocpps {
        write!(stdout, " ocpps={ocpps}")?;
    }
    writeln!(stdout)?;
    stdout.flush()
}

fn refuse(error: &ConfigError) -> ExitCode {
    match error {
        ConfigError::Arguments(error) => {
            // Help goes to stdout and is no failure; that a pipe is closed doesn't matter here.
            let _ = error.print();
            ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(EXIT_USAGE))
        }
        error => {
            tell(format_args!("error: {error}"));
            ExitCode::from(if error.is_of_file() {
                EXIT_CONFIG
            } else {
                EXIT_USAGE
            })
        }
    }
}

/// Tells the person who started the daemon, before there is a log or after it.
fn tell(message: std::fmt::Arguments<'_>) {
    // With stderr closed there is nobody to tell.
    let _ = writeln!(io::stderr(), "{message}");
}
