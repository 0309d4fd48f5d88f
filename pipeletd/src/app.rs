//! The composition root: a configuration becomes bound sockets and running parts, and they end
//! in the order in which they depend on each other.
//!
//! A daemon has sockets, registries and settings for as long as it runs (`Base`), and is the owner
//! of the shards (`owner`) either all the time, or, in a cluster, for as long as it has the lease.

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use jiff::Timestamp;
use pipelet_domain::{deliveries::StoredWebhook, id_tags::Policy, registration::Admission};
use tokio::{runtime::Handle, sync::watch, task::JoinSet, time};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    listeners::ApiListeners,
    owner::{Current, Owner},
    runtime_settings::RuntimeSettings,
};
use crate::{
    api::{
        self, Addresses, ApiKeys, Authenticator, Listener, Part, Readers, Readiness, Routers,
        Standby, Switch, grpc,
        metrics::{self, Metrics},
        rest,
    },
    auth::ApiKey,
    cluster::{About, JoinError, Load, Peers},
    config::{Authorize, Config, StationsPolicy},
    delivery::{
        DeliveryError, DeliverySettings,
        http::{Resources, SenderError},
    },
    journal::{Journals, retention::Retention},
    ocpp::{self, ConnectionStats, Gateway, TransactionRetention},
    registries::{IdTags, Keyring, Registrations, Registry},
    store::{ConfigurationStore, Engine, StoreError, jetstream::Cluster},
    system::{
        clock::Clock,
        descriptors::{self, Shares},
        limits::memory::MemoryBudget,
        tls::{Certificates, Shown, TlsError},
    },
    telemetry::{DroppedLines, Exporter, ExporterError, Spans},
};

pub mod check;
mod listeners;
mod node;
mod owner;
pub mod reload;
pub mod runtime_settings;
pub mod service_manager;
mod shard;

/// How long API calls may take to finish at shutdown.
const API_GRACE: Duration = Duration::from_secs(5);

/// What a daemon keeps everything in.
#[derive(Debug)]
pub enum Store {
    /// It is the owner of all shards as long as it runs.
    Own(Engine),
    /// It shares them with others.
    Shared(Box<Cluster>),
}

impl From<Engine> for Store {
    fn from(engine: Engine) -> Self {
        Self::Own(engine)
    }
}

/// The daemon, bound and, where the shards are its own, recovered; but not yet running.
#[derive(Debug)]
pub struct App {
    http: Listener,
    grpc: Listener,
    gateway: Gateway,
    base: Base,
    role: Role,
    /// The owner, where that is this daemon.
    current: watch::Sender<Option<Current>>,
    shutdown: CancellationToken,
    /// None where there is no collector.
    exporter: Option<Exporter>,
}

#[derive(Debug)]
enum Role {
    Owner(Box<Owner>),
    /// One of several that can be it.
    Node(Arc<Cluster>, Peers),
}

/// What is still to be opened.
enum Joined {
    Alone(Engine),
    Others(Arc<Cluster>, Peers),
}

/// What a daemon has as long as it runs.
#[derive(Debug)]
struct Base {
    addresses: Addresses,
    registries: Registries,
    keys: ApiKeys,
    authenticator: Authenticator,
    bootstrap_key: Option<ApiKey>,
    /// Where the first API key is written.
    key_file: PathBuf,
    memory: MemoryBudget,
    settings: Settings,
    connections: ConnectionStats,
    callers: [(&'static str, TaskTracker); 2],
    certificates: Vec<Shown>,
    data_dir: PathBuf,
    process: Process,
}

/// What is set up, as it is in this daemon's memory.
#[derive(Debug)]
struct Registries {
    webhooks: Registry<StoredWebhook>,
    registrations: Registrations,
    id_tags: IdTags,
    keyring: Keyring,
}

/// What can be changed while it runs.
#[derive(Debug)]
struct Settings {
    delivery: watch::Sender<DeliverySettings>,
    retention: watch::Sender<Retention>,
    transaction_retention: watch::Sender<TransactionRetention>,
    shutdown_grace: watch::Sender<Duration>,
    resources: Resources,
}

/// What the process gives it.
#[derive(Debug)]
struct Process {
    clock: Clock,
    started: Timestamp,
    /// The runtime that deliveries run on.
    delivering: Handle,
    spans: Spans,
    dropped_lines: DroppedLines,
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
    #[error("can't speak to the other nodes")]
    Join(#[from] JoinError),
    #[error("can't make the first API key")]
    Random(#[from] getrandom::Error),
    #[error("can't write the first API key to {path}")]
    AdminKey { path: PathBuf, source: io::Error },
}

impl OpenError {
    /// Whether the same may work later.
    fn is_outage(&self) -> bool {
        match self {
            Self::Store(error)
            | Self::Ocpp(ocpp::OpenError::Restore(error))
            | Self::Delivery(DeliveryError::Store(error)) => error.is_outage(),
            _ => false,
        }
    }
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
    #[error("can't speak to the other nodes")]
    Join(#[source] JoinError),
    #[error("the shards can't be taken over")]
    TakeOver(#[source] Box<OpenError>),
    #[error("a dispatcher failed; the log says why")]
    Dispatcher,
    #[error("the {what} failed")]
    Server {
        what: &'static str,
        source: anyhow::Error,
    },
}

impl App {
    /// Binds every socket, and recovers what is this daemon's own. Nothing is accepted before
    /// [`Self::run`], and it ends with the shutdown.
    ///
    /// Deliveries run on `delivering`, a runtime that must outlive the app.
    pub async fn open(
        config: &Config,
        store: impl AsyncFnOnce(&Config) -> Result<Store, StoreError>,
        clock: Clock,
        delivering: Handle,
        dropped_lines: DroppedLines,
        shutdown: CancellationToken,
    ) -> Result<Self, OpenError> {
        let started = clock.now();
        let shares = descriptors::shares(
            config.max_connections,
            config.api_max_connections,
            descriptors::raise(),
        );
        let api = ApiListeners::bind(config, shares.api).await?;
        let (spans, exporter) = exporter(config)?;
        let store = store(config).await?;
        let configuration = match &store {
            Store::Own(engine) => Arc::clone(&engine.configuration),
            Store::Shared(cluster) => cluster.configuration(),
        };
        let registries = Registries::open(configuration, config, clock).await?;
        let ocpp = ocpp_config(config, shares.stations, spans.clone());
        let connections = ConnectionStats::new(ocpp.max_unfinished);
        let current = watch::Sender::default();
        let joined = match store {
            Store::Own(engine) => Joined::Alone(engine),
            Store::Shared(cluster) => {
                let about = about(cluster.node(), started, &api);
                let load = load(connections.clone(), current.subscribe());
                let peers = Peers::join(cluster.connection(), about, Box::new(load)).await?;
                Joined::Others(Arc::from(cluster), peers)
            }
        };
        let peers = match &joined {
            Joined::Alone(_) => None,
            Joined::Others(_, peers) => Some(peers.clone()),
        };
        let gateway = Gateway::bind(
            ocpp,
            registries.registrations.clone(),
            clock,
            peers,
            connections.clone(),
        );
        let gateway = gateway.await?;
        let settings = Settings::of(config, shares, &spans)?;
        let process = Process {
            clock,
            started,
            delivering,
            spans,
            dropped_lines,
        };
        let base = Base::new(
            config,
            registries,
            settings,
            process,
            &api,
            &gateway,
            connections,
        );
        let role = match joined {
            Joined::Alone(engine) => {
                let owner = Owner::open(engine, &base, &gateway.handle(), &shutdown).await?;
                Role::Owner(Box::new(owner))
            }
            Joined::Others(cluster, peers) => {
                let ocpp = base.addresses.ocpp.to_string();
                peers.members().announce(|about| about.ocpp = ocpp);
                Role::Node(cluster, peers)
            }
        };
        let ApiListeners { http, grpc, .. } = api;
        Ok(Self {
            http,
            grpc,
            gateway,
            base,
            role,
            current,
            shutdown,
            exporter,
        })
    }

    pub const fn addresses(&self) -> Addresses {
        self.base.addresses
    }

    /// What is shown over TLS, to be read again when it has changed.
    pub fn certificates(&self) -> Vec<Shown> {
        self.base.certificates.clone()
    }

    /// Resolves once calls and stations are answered, here or at another node: as soon as it runs, where
    /// the shards are its own.
    pub fn ready(&self) -> impl Future<Output = ()> + use<> {
        let seen = match &self.role {
            Role::Owner(_) => None,
            Role::Node(_, peers) => Some(peers.seen()),
        };
        async move {
            if let Some(mut seen) = seen {
                // It is dropped with the daemon.
                let _ = seen.wait_for(|seen| seen.owner.is_some()).await;
            }
        }
    }

    /// The journals that are here at the moment.
    pub fn journals(&self) -> impl Fn() -> Option<Journals> + Send + Sync + use<> {
        let current = self.current.subscribe();
        move || current.borrow().as_ref().map(|it| it.journals.clone())
    }

    /// What can be changed while it runs.
    pub fn runtime_settings(&self) -> RuntimeSettings {
        let Base {
            settings,
            registries,
            process,
            ..
        } = &self.base;
        RuntimeSettings {
            owner: self.current.subscribe(),
            delivery: settings.delivery.clone(),
            timing: self.gateway.timing(),
            keyring: registries.keyring.clone(),
            retention: settings.retention.clone(),
            transaction_retention: settings.transaction_retention.clone(),
            shutdown_grace: settings.shutdown_grace.clone(),
            resources: settings.resources.clone(),
            spans: process.spans.clone(),
        }
    }

    /// Runs until the shutdown, or until a part fails that the daemon can't go on without.
    pub async fn run(self) -> Result<(), RunError> {
        let Self {
            http,
            grpc,
            gateway,
            base,
            role,
            current,
            shutdown,
            exporter,
        } = self;
        let (stations, cluster) = (gateway.handle(), base.cluster(&role));
        let switch = switch(&base, &current, &role, &cluster, &shutdown);
        // Cancelled when all sockets are closed.
        let closed = CancellationToken::new();
        let owning = async {
            let node = node::Node {
                base: &base,
                cluster: &cluster,
                gateway: &stations,
                switch: &switch,
                current: &current,
                shutdown: &shutdown,
                closed: &closed,
            };
            let ended = match role {
                Role::Owner(owner) => node.own(*owner).await,
                Role::Node(cluster, peers) => node.run(&cluster, &peers).await,
            };
            shutdown.cancel();
            ended
        };
        let serving = async {
            let served = serve(http, grpc, gateway, &base.keys, &switch, &shutdown).await;
            closed.cancel();
            served
        };
        // The owner first: whoever is served finds it.
        let (ended, served) = tokio::join!(owning, serving);
        last_spans(exporter).await;
        ended.and(served)
    }
}

/// Serves callers and stations until the shutdown, and then lets them finish.
async fn serve(
    http: Listener,
    grpc: Listener,
    gateway: Gateway,
    keys: &ApiKeys,
    switch: &Switch,
    shutdown: &CancellationToken,
) -> Result<(), RunError> {
    let mut api = JoinSet::new();
    // After the last call, so that it is written down too.
    let finish_usage = CancellationToken::new();
    let usage = tokio::spawn(keys.clone().save_usage(finish_usage.clone()));
    let serving = rest::serve(http, switch.rest(), shutdown.clone());
    api.spawn(async move {
        serving.await;
        Ok(())
    });
    let serving = grpc::serve(grpc, switch.grpc(), shutdown.clone());
    api.spawn(async move {
        let served = serving.await;
        served.map_err(|source| RunError::Server {
            what: "gRPC server",
            source,
        })
    });
    let stations = tokio::spawn(gateway.run(shutdown.clone()));
    let result = tokio::select! {
        // First, because the servers end by themselves at a shutdown.
        biased;
        () = shutdown.cancelled() => Ok(()),
        Some(ended) = api.join_next() => Err(server_failure(ended)),
    };
    shutdown.cancel();
    finished("gateway", stations.await);
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
    result
}

/// Where calls are answered: by the owner, where that is this daemon.
fn switch(
    base: &Base,
    current: &watch::Sender<Option<Current>>,
    role: &Role,
    cluster: &api::Cluster,
    shutdown: &CancellationToken,
) -> Switch {
    let current = current.subscribe();
    let current = move || {
        let current = current.borrow();
        let current = current.as_ref()?;
        Some((current.ownership.clone(), current.routers.clone()))
    };
    let standby = match role {
        Role::Owner(_) => None,
        Role::Node(_, peers) => Some(base.standby(cluster, peers, shutdown)),
    };
    Switch::new(current, standby)
}

impl Base {
    fn new(
        config: &Config,
        registries: Registries,
        settings: Settings,
        process: Process,
        api: &ApiListeners,
        gateway: &Gateway,
        connections: ConnectionStats,
    ) -> Self {
        let addresses = Addresses {
            http: api.http_address,
            grpc: api.grpc_address,
            ocpp: gateway.local_addr(),
            ocpps: gateway.tls_addr(),
        };
        let certificates = [
            ("stations", gateway.certificates()),
            ("REST's callers", api.http.certificates.clone()),
            ("gRPC's callers", api.grpc.certificates.clone()),
        ];
        let shown = |(to, certificates): (_, Option<Certificates>)| {
            certificates.map(|certificates| Shown { to, certificates })
        };
        let memory = MemoryBudget::of(config.memory_budget.bytes());
        let answers = Readers::new(memory.readers.clone());
        let key_file = config.data_dir.join("admin.key");
        let (keyring, clock) = (&registries.keyring, process.clock);
        Self {
            addresses,
            keys: ApiKeys::new(keyring.clone(), clock),
            authenticator: Authenticator::new(keyring.clone(), answers, &key_file, clock),
            registries,
            bootstrap_key: config.bootstrap_key.clone(),
            key_file,
            memory,
            settings,
            connections,
            callers: [
                ("rest", api.http.connections.clone()),
                ("grpc", api.grpc.connections.clone()),
            ],
            certificates: certificates.into_iter().filter_map(shown).collect(),
            data_dir: config.data_dir.clone(),
            process,
        }
    }
}

impl Base {
    fn metrics(
        &self,
        owner: Option<metrics::Owner>,
        cluster: &api::Cluster,
        readiness: Readiness,
    ) -> Metrics {
        let process = &self.process;
        Metrics::new(metrics::Sources {
            owner,
            cluster: cluster.clone(),
            connections: self.connections.clone(),
            readiness,
            data_dir: self.data_dir.clone(),
            callers: self.callers.clone(),
            certificates: self.certificates.clone(),
            spans: process.spans.clone(),
            dropped_lines: process.dropped_lines.clone(),
            memory: self.memory.clone(),
            clock: process.clock,
            started: process.started,
        })
    }

    fn cluster(&self, role: &Role) -> api::Cluster {
        let node = match role {
            Role::Owner(_) => None,
            Role::Node(cluster, peers) => Some((Arc::clone(cluster), peers.clone())),
        };
        api::Cluster::new(node, self.process.clock)
    }

    /// What a node answers that owns no shard.
    fn standby(
        &self,
        cluster: &api::Cluster,
        peers: &Peers,
        shutdown: &CancellationToken,
    ) -> Standby {
        let readiness = Readiness {
            part: Part::Standby(peers.clone()),
            shutdown: shutdown.clone(),
        };
        let metrics = self.metrics(None, cluster, readiness.clone());
        let authenticator = &self.authenticator;
        Standby {
            peers: peers.clone(),
            authenticator: authenticator.clone(),
            own: Routers {
                rest: rest::own_router(authenticator.clone(), cluster.clone(), readiness, metrics),
                grpc: grpc::own_router(authenticator.clone(), cluster.clone()),
            },
        }
    }
}

impl Settings {
    fn of(config: &Config, shares: Shares, spans: &Spans) -> Result<Self, OpenError> {
        let resources = Resources::new(shares.lookups, shares.receivers);
        let delivery = runtime_settings::delivery_settings(config, &resources, spans)?;
        let transactions = runtime_settings::transaction_retention(config);
        Ok(Self {
            delivery: watch::Sender::new(delivery),
            retention: watch::Sender::new(runtime_settings::retention(config)),
            transaction_retention: watch::Sender::new(transactions),
            shutdown_grace: watch::Sender::new(config.shutdown_grace),
            resources,
        })
    }
}

/// What a node tells the others of itself.
fn about(node: &str, started: Timestamp, api: &ApiListeners) -> About {
    About {
        node: node.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started_ms: started.as_millisecond(),
        http: api.http_address.to_string(),
        grpc: api.grpc_address.to_string(),
        ocpp: String::new(),
        term: None,
        drained: false,
        load: Load::default(),
    }
}

/// How much it has to do.
fn load(
    connections: ConnectionStats,
    owner: watch::Receiver<Option<Current>>,
) -> impl Fn() -> Load + Send + Sync {
    move || {
        let owner = owner.borrow().clone();
        let pending = owner.map_or(0, |owner| owner.delivery.totals().pending);
        Load {
            stations: connections.open(),
            pending,
        }
    }
}

impl Registries {
    async fn open(
        store: Arc<dyn ConfigurationStore>,
        config: &Config,
        clock: Clock,
    ) -> Result<Self, StoreError> {
        let (admission, policy) = (admission(config), policy(config));
        Ok(Self {
            webhooks: Registry::open(Arc::clone(&store)).await?,
            registrations: Registrations::open(Arc::clone(&store), admission, clock).await?,
            id_tags: IdTags::open(policy, Arc::clone(&store), clock).await?,
            keyring: Keyring::open(store, config.api_rate).await?,
        })
    }
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

const fn policy(config: &Config) -> Policy {
    match config.authorize {
        Authorize::AcceptAll => Policy::AcceptAll,
        Authorize::Registered => Policy::Registered,
    }
}

fn ocpp_config(config: &Config, max_connections: usize, spans: Spans) -> ocpp::Config {
    ocpp::Config {
        listen: config.ocpp_listen,
        tls: config.ocpp_tls.clone(),
        timing: runtime_settings::timing(config),
        strict: config.ocpp_strict,
        max_connections,
        max_stations: config.max_stations,
        handshake_timeout: config.ocpp_handshake_timeout,
        max_unfinished: config.ocpp_max_unfinished.bytes(),
        spans,
        ..ocpp::Config::default()
    }
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
