//! The composition root: a configuration becomes bound sockets and running parts, and they end
//! in the order in which they depend on each other.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use pipelet_domain::{id_tags::Policy, registration::Admission};
use tokio::{net::TcpListener, runtime::Handle, sync::watch, task::JoinSet, time};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    runtime_settings::RuntimeSettings,
    shard::{Common, RunningShards},
};
use crate::{
    api::{
        Addresses, ApiKeys, Authenticator, Daemon, EventStreams, Listener, Readers, Readiness,
        StationDirectory, Trigger, grpc,
        metrics::{self, Metrics},
        rest,
    },
    auth::{self, ApiKey},
    config::{Authorize, Config, StationsPolicy},
    delivery::{
        Delivery, DeliveryError,
        http::{Resources, SenderError},
    },
    journal::{Journals, retention::Retention},
    ocpp::{self, Ocpp, Stations},
    registries::{Keyring, Registrations, Registry},
    store::{Backup, Engine, Ownership, StoreError},
    system::{
        clock::Clock,
        descriptors,
        limits::memory::MemoryBudget,
        tls::{Certificates, Shown, TlsError},
    },
    telemetry::{DroppedLines, Exporter, ExporterError, Spans},
};

pub mod check;
pub mod reload;
pub mod runtime_settings;
pub mod service_manager;
mod shard;

/// How long the writers may take to find out that they write no more.
const OVERTAKEN_GRACE: Duration = Duration::from_secs(5);
/// How long API calls may take to finish at shutdown.
const API_GRACE: Duration = Duration::from_secs(5);

/// The daemon, bound and recovered, but not yet running.
#[derive(Debug)]
pub struct App {
    addresses: Addresses,
    http: Listener,
    grpc: Listener,
    ocpp: Ocpp,
    registry: Registrations,
    delivery: Delivery,
    shards: RunningShards,
    memory: MemoryBudget,
    keys: ApiKeys,
    authenticator: Authenticator,
    keyring: Keyring,
    backup: Arc<dyn Backup>,
    ownership: Ownership,
    retention: watch::Sender<Retention>,
    clock: Clock,
    started: Timestamp,
    data_dir: PathBuf,
    shutdown_grace: watch::Sender<Duration>,
    /// Cancelled when the daemon ends: whoever sits an outage of the store out gives up.
    ending: CancellationToken,
    /// Cancelled when a part fails that the daemon can't go on without.
    failed: CancellationToken,
    resources: Resources,
    spans: Spans,
    dropped_lines: DroppedLines,
    /// None where there is no collector.
    exporter: Option<Exporter>,
}

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("can't listen on {address}; another address can be given with {flag}")]
    Listen {
        flag: &'static str,
        address: SocketAddr,
        source: io::Error,
    },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Ocpp(#[from] ocpp::OpenError),
    #[error(transparent)]
    Http(#[from] SenderError),
    #[error(transparent)]
    Delivery(#[from] DeliveryError),
    #[error(transparent)]
    Exporter(#[from] ExporterError),
    #[error("can't speak TLS to API callers")]
    ApiTls(#[source] TlsError),
    #[error("can't read the CA file {path}")]
    CaFile { path: PathBuf, source: io::Error },
    #[error("can't make the first API key")]
    Random(#[from] getrandom::Error),
    #[error("can't write the first API key to {path}")]
    AdminKey { path: PathBuf, source: io::Error },
}

#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("the {0} ended unexpectedly")]
    Ended(&'static str),
    #[error("the journal failed")]
    Journal(#[source] StoreError),
    #[error("the ledger of retries failed")]
    Ledger(#[source] StoreError),
    #[error("another node has taken the shards over; this one stands by once it is started again")]
    Overtaken,
    #[error("a dispatcher failed; the log says why")]
    Dispatcher,
    #[error("the {what} failed")]
    Server {
        what: &'static str,
        source: anyhow::Error,
    },
}

impl App {
    /// Binds every socket, and recovers from what the engine keeps. Nothing is accepted before
    /// [`Self::run`].
    ///
    /// Deliveries run on `delivering`, a runtime that must outlive the app.
    pub async fn open(
        config: &Config,
        engine: impl AsyncFnOnce(&Config) -> Result<Engine, StoreError>,
        clock: Clock,
        delivering: Handle,
        dropped_lines: DroppedLines,
    ) -> Result<Self, OpenError> {
        // A node that stands by until it is the owner is to be reached by nobody.
        let engine = engine(config).await?;
        let started = clock.now();
        let shares = descriptors::shares(
            config.max_connections,
            config.api_max_connections,
            descriptors::raise(),
        );
        let listen = async |flag, address, protocols| {
            self::listen(flag, address, protocols, config, shares.api).await
        };
        let http = listen("--http-listen", config.http_listen, &[b"http/1.1"]).await?;
        let grpc = listen("--grpc-listen", config.grpc_listen, &[b"h2"]).await?;
        let (spans, exporter) = exporter(config)?;
        let resources = Resources::new(shares.lookups, shares.receivers);
        let settings = runtime_settings::delivery_settings(config, &resources, &spans)?;

        let Engine {
            configuration,
            shards: stores,
            backup,
            ownership,
        } = engine;
        let webhooks = Registry::open(Arc::clone(&configuration)).await?;
        let memory = MemoryBudget::of(config.memory_budget.bytes());
        let ending = CancellationToken::new();
        let common = Common {
            memory: &memory,
            clock,
            ending: &ending,
            ownership: &ownership,
        };
        let opened = RunningShards::open(stores, &webhooks, common);
        let (running, places) = opened.await?;
        let keyring = Keyring::open(Arc::clone(&configuration), config.api_rate).await?;
        let keys = ApiKeys::new(keyring.clone(), clock);
        let answers = Readers::new(memory.readers.clone());
        let key_file = config.data_dir.join("admin.key");
        first_key(&keys, config, &key_file).await?;
        let authenticator = Authenticator::new(keyring.clone(), answers, &key_file, clock);

        let registry = Registrations::open(Arc::clone(&configuration), admission(config), clock);
        let registry = registry.await?;
        let ocpp = Ocpp::open(
            ocpp_config(config, shares.stations, spans.clone()),
            registry.clone(),
            configuration,
            running.projected(),
            clock,
        )
        .await?;
        let failed = CancellationToken::new();
        let attempts = Arc::default();
        let contexts = running.dispatched(&delivering, &attempts, common);
        let dispatched = contexts.into_iter().zip(places).collect();
        let delivery = Delivery::start(
            dispatched,
            settings,
            webhooks,
            clock,
            attempts,
            failed.clone(),
        );
        let delivery = delivery.await?;
        let addresses = Addresses {
            http: local_addr(&http, "--http-listen", config.http_listen)?,
            grpc: local_addr(&grpc, "--grpc-listen", config.grpc_listen)?,
            ocpp: ocpp.local_addr(),
            ocpps: ocpp.tls_addr(),
        };
        Ok(Self {
            addresses,
            http,
            grpc,
            ocpp,
            registry,
            delivery,
            shards: running,
            memory,
            keys,
            authenticator,
            keyring,
            backup,
            ownership,
            retention: watch::Sender::new(runtime_settings::retention(config)),
            clock,
            started,
            data_dir: config.data_dir.clone(),
            shutdown_grace: watch::Sender::new(config.shutdown_grace),
            ending,
            failed,
            resources,
            spans,
            dropped_lines,
            exporter,
        })
    }

    pub const fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// What is shown over TLS, to be read again when it has changed.
    pub fn certificates(&self) -> Vec<Shown> {
        let all = [
            ("stations", self.ocpp.certificates()),
            ("REST's callers", self.http.certificates.clone()),
            ("gRPC's callers", self.grpc.certificates.clone()),
        ];
        let shown = |(to, certificates): (_, Option<_>)| {
            certificates.map(|certificates| Shown { to, certificates })
        };
        all.into_iter().filter_map(shown).collect()
    }

    fn readiness(&self, shutdown: CancellationToken) -> Readiness {
        Readiness {
            ownership: self.ownership.clone(),
            journals: self.journals(),
            delivery: self.delivery.clone(),
            shutdown,
        }
    }

    fn metrics(&self, readiness: Readiness) -> Metrics {
        Metrics::new(metrics::Sources {
            delivery: self.delivery.clone(),
            stations: self.ocpp.stations(),
            connections: self.ocpp.connection_stats(),
            readiness,
            data_dir: self.data_dir.clone(),
            callers: [
                ("rest", self.http.connections.clone()),
                ("grpc", self.grpc.connections.clone()),
            ],
            certificates: self.certificates(),
            spans: self.spans.clone(),
            dropped_lines: self.dropped_lines.clone(),
            memory: self.memory.clone(),
            clock: self.clock,
            started: self.started,
        })
    }

    fn daemon(&self, readiness: Readiness) -> Daemon {
        Daemon {
            delivery: self.delivery.clone(),
            stations: self.ocpp.stations(),
            connections: self.ocpp.connection_stats(),
            journals: self.journals(),
            readiness,
            addresses: self.addresses,
            started_at: self.clock.now(),
            clock: self.clock,
            data_dir: self.data_dir.clone(),
            certificates: self.certificates(),
        }
    }

    pub fn journals(&self) -> Journals {
        self.shards.journals()
    }

    /// What can be changed while it runs.
    pub fn runtime_settings(&self) -> RuntimeSettings {
        RuntimeSettings {
            delivery: self.delivery.clone(),
            timing: self.ocpp.timing(),
            keyring: self.keyring.clone(),
            retention: self.retention.clone(),
            transaction_retention: self.ocpp.transaction_retention(),
            shutdown_grace: self.shutdown_grace.clone(),
            resources: self.resources.clone(),
            spans: self.spans.clone(),
        }
    }

    /// Runs until the shutdown, or until a part fails that the daemon can't go on without.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), RunError> {
        let readiness = self.readiness(shutdown.clone());
        let metrics = self.metrics(readiness.clone());
        let daemon = self.daemon(readiness.clone());
        let (stations, journals) = (self.ocpp.stations(), self.journals());
        let directory = StationDirectory::new(stations.clone(), self.registry);
        let streams = EventStreams::new(journals.clone(), shutdown.clone());
        let trigger = Trigger::new(journals.clone(), self.delivery.clone(), self.clock);
        let mut api = JoinSet::new();
        // After the last call, so that it is written down too.
        let finish_usage = CancellationToken::new();
        let handles = rest::Handles {
            delivery: self.delivery.clone(),
            directory: directory.clone(),
            transactions: self.ocpp.transactions(),
            id_tags: self.ocpp.id_tags(),
            journals: journals.clone(),
            streams: streams.clone(),
            trigger: trigger.clone(),
            authenticator: self.authenticator.clone(),
            readiness,
            metrics,
            keys: self.keys.clone(),
            daemon: daemon.clone(),
        };
        let serving = rest::serve(self.http, handles, shutdown.clone());
        api.spawn(async move {
            serving.await;
            Ok(())
        });
        let usage = tokio::spawn(self.keys.clone().save_usage(finish_usage.clone()));
        let handles = grpc::Handles {
            delivery: self.delivery.clone(),
            directory,
            transactions: self.ocpp.transactions(),
            id_tags: self.ocpp.id_tags(),
            journals: journals.clone(),
            keys: self.keys,
            authenticator: self.authenticator,
            clock: self.clock,
            daemon,
            backup: self.backup,
            streams,
            trigger,
        };
        let serving = grpc::serve(self.grpc, handles, shutdown.clone());
        api.spawn(async move {
            let served = serving.await;
            served.map_err(|source| RunError::Server {
                what: "gRPC server",
                source,
            })
        });
        let ocpp = tokio::spawn(self.ocpp.run(shutdown.clone()));
        let mut retention = retain(&self.retention, &journals, &stations, self.clock, &shutdown);

        let mut shards = self.shards;
        let result = tokio::select! {
            // First, because the servers end by themselves at a shutdown.
            biased;
            () = shutdown.cancelled() => Ok(()),
            () = self.ownership.lost() => Err(RunError::Overtaken),
            failure = shards.failed() => Err(failure),
            () = self.failed.cancelled() => Err(RunError::Dispatcher),
            Some(ended) = api.join_next() => Err(server_failure(ended)),
        };

        // Who takes events in goes first, who hands them out next, who keeps them last.
        shutdown.cancel();
        self.ending.cancel();
        if matches!(result, Err(RunError::Overtaken)) {
            // Another node goes on: nothing that is in memory here counts any more, and whoever
            // would write it finds out.
            let _ = time::timeout(OVERTAKEN_GRACE, shards.stop()).await;
            return result;
        }
        finished("OCPP side", ocpp.await);
        if time::timeout(API_GRACE, async {
            while api.join_next().await.is_some() {}
        })
        .await
        .is_err()
        {
            tracing::warn!("some API calls did not finish in time");
            api.shutdown().await;
        }
        finish_usage.cancel();
        finished("saving of API keys' usage", usage.await);
        let grace = *self.shutdown_grace.borrow();
        self.delivery.stop(grace).await;
        while let Some(ended) = retention.join_next().await {
            finished("retention", ended);
        }
        shards.stop().await;
        self.ownership.give_up().await;
        last_spans(self.exporter).await;
        result
    }
}

/// Forgets what need not be kept of each journal.
fn retain(
    kept: &watch::Sender<Retention>,
    journals: &Journals,
    stations: &Stations,
    clock: Clock,
    shutdown: &CancellationToken,
) -> JoinSet<Result<(), StoreError>> {
    let mut retention = JoinSet::new();
    for (index, journal) in journals.iter().enumerate() {
        let stations = stations.clone();
        let saved_to = move || stations.saved_to(index);
        let (kept, journal) = (kept.subscribe(), journal.clone());
        retention.spawn(Retention::run(
            kept,
            journal,
            saved_to,
            clock,
            shutdown.clone(),
        ));
    }
    retention
}

/// What the others left, once they have ended.
async fn last_spans(exporter: Option<Exporter>) {
    if let Some(exporter) = exporter {
        exporter.stop().await;
    }
}

fn exporter(config: &Config) -> Result<(Spans, Option<Exporter>), ExporterError> {
    let Some(endpoint) = config.otlp_endpoint.clone() else {
        return Ok((Spans::default(), None));
    };
    let (spans, exporter) = Exporter::start(endpoint)?;
    Ok((spans, Some(exporter)))
}

const fn admission(config: &Config) -> Admission {
    match config.stations {
        StationsPolicy::Open => Admission::Open,
        StationsPolicy::Registered => Admission::Registered,
    }
}

fn ocpp_config(config: &Config, max_connections: usize, spans: Spans) -> ocpp::Config {
    ocpp::Config {
        listen: config.ocpp_listen,
        tls: config.ocpp_tls.clone(),
        timing: runtime_settings::timing(config),
        strict: config.ocpp_strict,
        authorize: match config.authorize {
            Authorize::AcceptAll => Policy::AcceptAll,
            Authorize::Registered => Policy::Registered,
        },
        transaction_retention: runtime_settings::transaction_retention(config),
        max_connections,
        max_stations: config.max_stations,
        handshake_timeout: config.ocpp_handshake_timeout,
        max_unfinished: config.ocpp_max_unfinished.bytes(),
        spans,
        ..ocpp::Config::default()
    }
}

/// Listens for callers, who agree on one of these protocols within TLS.
async fn listen(
    flag: &'static str,
    address: SocketAddr,
    protocols: &'static [&'static [u8]],
    config: &Config,
    max_connections: usize,
) -> Result<Listener, OpenError> {
    let socket = bind(flag, address).await?;
    let certificates = match &config.api_tls {
        Some(files) => {
            let loaded = Certificates::load(files.clone(), protocols).await;
            Some(loaded.map_err(OpenError::ApiTls)?)
        }
        None => None,
    };
    if certificates.is_none() && is_exposed(address) {
        tracing::warn!(
            flag,
            %address,
            "API keys travel unencrypted here: give --api-tls-cert and --api-tls-key, or listen on \
             a loopback address behind a proxy that speaks TLS"
        );
    }
    Ok(Listener {
        socket,
        certificates,
        max_connections,
        connections: TaskTracker::new(),
    })
}

/// Whether others than this machine can get there.
fn is_exposed(address: SocketAddr) -> bool {
    !address.ip().to_canonical().is_loopback()
}

/// Where it is bound, with the real port.
fn local_addr(
    listener: &Listener,
    flag: &'static str,
    asked: SocketAddr,
) -> Result<SocketAddr, OpenError> {
    let bound = listener.socket.local_addr();
    bound.map_err(|source| OpenError::Listen {
        flag,
        address: asked,
        source,
    })
}

async fn bind(flag: &'static str, address: SocketAddr) -> Result<TcpListener, OpenError> {
    let listener = TcpListener::bind(address).await;
    listener.map_err(|source| OpenError::Listen {
        flag,
        address,
        source,
    })
}

/// A fresh store gets a key: the given one, or one that is made and written down.
async fn first_key(keys: &ApiKeys, config: &Config, path: &Path) -> Result<(), OpenError> {
    if !keys.list().is_empty() {
        return Ok(());
    }
    if let Some(key) = &config.bootstrap_key {
        keys.add_admin("admin", key).await?;
        return Ok(());
    }
    let key = ApiKey::generate()?;
    // Written before it is stored: a crash in between leaves a key that the next start replaces.
    auth::write_admin_key(path, &key).map_err(|source| OpenError::AdminKey {
        path: path.to_owned(),
        source,
    })?;
    keys.add_admin("admin", &key).await?;
    tracing::info!(path = %path.display(), "wrote the first API key");
    Ok(())
}

fn server_failure(ended: Result<Result<(), RunError>, tokio::task::JoinError>) -> RunError {
    match ended {
        Ok(Err(error)) => error,
        Ok(Ok(())) | Err(_) => RunError::Ended("API server"),
    }
}

/// Tells the log of a part that did not end well; the shutdown goes on.
fn finished<T: Outcome>(what: &str, ended: Result<T, tokio::task::JoinError>) {
    let failure = match ended {
        Ok(outcome) => outcome.failure(),
        Err(error) => Some(error.to_string()),
    };
    if let Some(failure) = failure {
        tracing::error!(what, failure, "did not end well");
    }
}

/// How a part ended.
trait Outcome {
    fn failure(self) -> Option<String>;
}

impl Outcome for () {
    fn failure(self) -> Option<String> {
        None
    }
}

impl Outcome for Result<(), StoreError> {
    fn failure(self) -> Option<String> {
        self.err().map(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_gets_to_the_loopback_interface() {
        for (address, exposed) in [
            ("127.0.0.1:1", false),
            ("127.1.2.3:1", false),
            ("[::1]:1", false),
            ("[::ffff:127.0.0.1]:1", false),
            ("0.0.0.0:1", true),
            ("[::]:1", true),
            ("10.0.0.1:1", true),
        ] {
            assert_eq!(is_exposed(address.parse().unwrap()), exposed, "{address}");
        }
    }
}
