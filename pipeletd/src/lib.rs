//! `pipeletd`: chargers connect over OCPP 1.6J, and applications are told what happens on them,
//! at least once and at once.
//!
//! What all of it speaks of is below, in [`pipelet_domain`].
//!
//! | module | what it is about |
//! |---|---|
//! | [`journal`] | every event once, on disk before anyone is told; forward reading |
//! | [`delivery`] | a dispatcher for each webhook, retries, dead letters, replay, HTTP |
//! | [`registries`] | webhooks, API keys, id tags and registrations, in step with the configuration |
//! | [`store`] | what must survive: four traits, sled, JetStream, memory |
//! | [`cluster`] | what nodes say to each other, over NATS |
//! | [`ocpp`] | stations: handshake, frames, answers, sessions |
//! | [`api`] | REST and gRPC over the handles of all these |
//! | [`auth`] | API keys and their roles |
//! | [`telemetry`] | the log, and spans for a collector |
//! | [`config`] | flags, variables and the file become one configuration |
//! | [`system`] | small matters of the process: clock, limits, TLS, descriptors |
//! | [`app`] | puts it together, reloads it, and tells the service manager |
//!
//! The way of an event: `ocpp` answers a station once `journal` has its event on disk; `journal`
//! hands its position to the queues of the webhooks that want it; each webhook's dispatcher in
//! `delivery` POSTs it and settles it.

pub mod api;
pub mod app;
pub mod auth;
pub mod cluster;
pub mod config;
pub mod delivery;
#[doc(hidden)]
pub mod fuzzing;
pub mod journal;
pub mod ocpp;
pub mod registries;
pub mod store;
pub mod system;
pub mod telemetry;

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
    app::{
        App, OpenError, Store, check,
        reload::{Reload, Reloadable},
        service_manager,
    },
    config::{Config, ConfigError, Fault, Loaded, ShowConfig, ShownAs, Sources, Task},
    store::{
        StoreError,
        jetstream::Cluster,
        sled::{Compacted, SledStore},
    },
    system::{clock::Clock, core_dumps, shutdown::Signals, tls},
};

/// `EX_CONFIG` of sysexits.h.
const EXIT_CONFIG: u8 = 78;
const EXIT_USAGE: u8 = 2;
/// Who reads the store. More would read no faster, and each keeps memory of what it has read.
const BLOCKING_THREADS: usize = 8;
/// How long threads that nobody can call back, such as in the system's resolver, hold up the end.
const THREADS_GRACE: Duration = Duration::from_millis(500);

/// Configuration, telemetry, runtime; then the daemon until it is told to end. It keeps everything in
/// its data directory, or on the NATS servers that it is given.
pub fn main() -> ExitCode {
    main_on(async |config| {
        let key_file = config.secrets_key_file.as_deref();
        let Some(options) = &config.cluster else {
            let store = SledStore::open_with_key(&config.data_dir, key_file)?;
            return Ok(store.engine().into());
        };
        let cluster = Cluster::join(options, &config.data_dir, key_file).await?;
        Ok(Store::Shared(Box::new(cluster)))
    })
}

/// The same, on any engine.
pub fn main_on(store: impl AsyncFnOnce(&Config) -> Result<Store, StoreError>) -> ExitCode {
    let sources = match Sources::of_process() {
        Ok(sources) => sources,
        Err(error) => return refuse(&error),
    };
    let loaded = match (sources.load(), sources.task()) {
        (loaded, Task::Check) => return say_what_is_wrong(loaded),
        (Ok(loaded), _) => loaded,
        (Err(error), _) => return refuse(&error),
    };
    let config = &loaded.config;
    let is_of_data_dir = matches!(
        sources.task(),
        Task::RotateSecretsKey
            | Task::Compact
            | Task::Restore {
                set_aside: true,
                ..
            }
    );
    if is_of_data_dir && config.cluster.is_some() {
        tell(format_args!(
            "error: this is for a store in the data directory, and --store names a cluster"
        ));
        return ExitCode::from(EXIT_USAGE);
    }
    let done = match sources.task() {
        Task::Run => run(sources, loaded, store),
        // It has ended by now.
        Task::Check => Ok(()),
        Task::Config(ShowConfig::Show { origin, output }) => show(&loaded, *output, *origin),
        Task::Manual { directory } => config::write_manual(directory)
            .with_context(|| format!("can't write to {}", directory.display())),
        Task::RotateSecretsKey => rotate_secrets_key(config),
        Task::Restore { file, set_aside } => restore(config, file, *set_aside),
        Task::Compact => compact(config),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell(format_args!("error: {error:#}"));
            if is_of_configuration(&error) {
                return ExitCode::from(EXIT_CONFIG);
            }
            ExitCode::FAILURE
        }
    }
}

/// Whether a further start would fail as this one did, until an operator changes something.
fn is_of_configuration(error: &anyhow::Error) -> bool {
    let store = match error.downcast_ref() {
        Some(OpenError::Store(error)) => Some(error),
        Some(_) | None => error.downcast_ref(),
    };
    matches!(store, Some(StoreError::KeyFile(error)) if error.lasts())
}

fn run(
    sources: Sources,
    Loaded { config, settings }: Loaded,
    store: impl AsyncFnOnce(&Config) -> Result<Store, StoreError>,
) -> anyhow::Result<()> {
    let log = telemetry::start(&config.log_level, config.log_format)?;
    core_dumps::leave_memory_out();
    tls::install_provider()?;
    let (main, delivering) = (runtime("pipeletd")?, runtime("delivery")?);
    let ended = main.block_on(async {
        let shutdown = CancellationToken::new();
        let signals = Signals::listen()?;
        tokio::spawn(signals.run(shutdown.clone()));
        let reload = Reload::listen()?;
        let (clock, deliveries) = (Clock::system(), delivering.handle().clone());
        let opening = App::open(
            &config,
            store,
            clock,
            deliveries.clone(),
            log.dropped,
            shutdown.clone(),
        );
        let Some(app) = shutdown.run_until_cancelled(opening).await else {
            return Ok(());
        };
        let app = app?;
        let reloadable = Reloadable {
            certificates: app.certificates(),
            runtime_settings: app.runtime_settings(),
            log_level: log.level,
            sources,
            settings,
        };
        tokio::spawn(reload.run(reloadable, shutdown.clone()));
        let journals = app.journals();
        let attending = service_manager::attend(journals, deliveries, shutdown.clone());
        let attending = tokio::spawn(attending);
        let (listening, ready) = (listening(&app), app.ready());
        let mut running = Box::pin(app.run());
        let ran = tokio::select! {
            ran = &mut running => ran,
            () = ready => {
                announce(&listening)?;
                service_manager::ready(&listening);
                running.await
            }
        };
        // It ends with the daemon, once it has said so.
        let _ = attending.await;
        ran?;
        tracing::info!("ended");
        Ok(())
    });
    delivering.shutdown_timeout(THREADS_GRACE);
    main.shutdown_timeout(THREADS_GRACE);
    ended
}

/// Says everything that is wrong, whichever of it is the file's.
fn say_what_is_wrong(loaded: Result<Loaded, ConfigError>) -> ExitCode {
    let faults = match loaded {
        Ok(loaded) => check::faults(&loaded),
        Err(ConfigError::Faults(faults)) => faults,
        Err(error) => return refuse(&error),
    };
    for fault in &faults {
        tell(format_args!("error: {fault}"));
    }
    if !faults.is_empty() {
        return ExitCode::from(EXIT_CONFIG);
    }
    // Whoever closed the pipe has the exit status.
    let _ = writeln!(io::stdout(), "ok");
    ExitCode::SUCCESS
}

fn show(loaded: &Loaded, output: ShownAs, origin: bool) -> anyhow::Result<()> {
    let mut text = match output {
        ShownAs::Toml => config::show::as_toml(&loaded.settings, origin),
        ShownAs::Json => config::show::as_json(&loaded.settings, origin),
    };
    if output == ShownAs::Toml && loaded.config.bootstrap_key.is_some() {
        text.push_str("# PIPELETD_BOOTSTRAP_KEY is set, and not shown\n");
    }
    io::stdout()
        .write_all(text.as_bytes())
        .context("can't write to stdout")
}

fn rotate_secrets_key(config: &Config) -> anyhow::Result<()> {
    telemetry::start(&config.log_level, config.log_format)?;
    core_dumps::leave_memory_out();
    SledStore::rotate_key(&config.data_dir, config.secrets_key_file.as_deref())?;
    tracing::info!("the secrets are sealed with a new key; keep a copy of it");
    Ok(())
}

fn restore(config: &Config, file: &Path, set_aside: bool) -> anyhow::Result<()> {
    telemetry::start(&config.log_level, config.log_format)?;
    let backup = File::open(file).with_context(|| format!("can't read {}", file.display()))?;
    let mut backup = BufReader::new(backup);
    let place = if let Some(options) = &config.cluster {
        tls::install_provider()?;
        let restoring = Cluster::restore(options, &mut backup);
        runtime("restore")?.block_on(restoring)?;
        format!("the cluster {}", options.cluster)
    } else {
        SledStore::restore(&config.data_dir, &mut backup, set_aside)?;
        config.data_dir.display().to_string()
    };
    tracing::info!(
        place,
        "restored; the daemon needs the secrets.key of then to start"
    );
    Ok(())
}

/// Says of each database how long its file was and is.
fn compact(config: &Config) -> anyhow::Result<()> {
    telemetry::start(&config.log_level, config.log_format)?;
    core_dumps::leave_memory_out();
    let data_dir = &config.data_dir;
    let shown = data_dir.display();
    anyhow::ensure!(SledStore::is_in(data_dir), "there is no store in {shown}");
    let mut without_room = Vec::new();
    for compacted in SledStore::compact(data_dir)? {
        let Compacted {
            name, was_bytes, ..
        } = compacted;
        let bytes = compacted.bytes.unwrap_or(was_bytes);
        let (was, is) = (mebibytes(was_bytes), mebibytes(bytes));
        writeln!(io::stdout(), "{name}: {was} before, {is} now")
            .context("can't write to stdout")?;
        if compacted.bytes.is_none() {
            without_room.push(name);
        }
    }
    anyhow::ensure!(
        without_room.is_empty(),
        "the disk has no room for a copy of {}; make room, and run it again",
        without_room.join(" and ")
    );
    Ok(())
}

fn mebibytes(bytes: u64) -> String {
    let tenths = (bytes * 10) >> 20;
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}

/// A runtime with a thread for each core; its threads bear the name.
fn runtime(name: &str) -> io::Result<Runtime> {
    Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_name(name)
        .build()
}

/// Where it can be reached, in a line.
fn listening(app: &App) -> String {
    let addresses = app.addresses();
    let (http, grpc, ocpp) = (addresses.http, addresses.grpc, addresses.ocpp);
    let version = env!("CARGO_PKG_VERSION");
    let ocpps = addresses.ocpps.map(tracing::field::display);
    tracing::info!(version, %http, %grpc, %ocpp, ocpps, "listening");
    let ocpps = addresses.ocpps.map(|ocpps| format!(" ocpps={ocpps}"));
    let ocpps = ocpps.unwrap_or_default();
    format!("listening http={http} grpc={grpc} ocpp={ocpp}{ocpps}")
}

/// The one line on stdout: whoever started the daemon learns the real ports from it.
fn announce(listening: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{listening}")?;
    stdout.flush()
}

fn refuse(error: &ConfigError) -> ExitCode {
    match error {
        ConfigError::Arguments(error) => {
            // Help goes to stdout and is no failure; that a pipe is closed doesn't matter here.
            let _ = error.print();
            if let Some(variable) = config::variable_at_fault(error) {
                tell(format_args!("it is the value of the variable {variable}"));
            }
            ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(EXIT_USAGE))
        }
        ConfigError::Faults(faults) => {
            for fault in faults {
                tell(format_args!("error: {fault}"));
            }
            let of_file = faults.iter().any(Fault::is_of_file);
            ExitCode::from(if of_file { EXIT_CONFIG } else { EXIT_USAGE })
        }
    }
}

/// Tells the person who started the daemon, before there is a log or after it.
fn tell(message: std::fmt::Arguments<'_>) {
    // With stderr closed there is nobody to tell.
    let _ = writeln!(io::stderr(), "{message}");
}
