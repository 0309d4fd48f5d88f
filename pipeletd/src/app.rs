//! The composition root: a configuration becomes bound sockets and running parts, and they end
//! in the order in which they depend on each other.
//!
//! A daemon has sockets, registries and settings for as long as it runs (`Base`), and is the owner
//! of the shards (`owner`) either all the time, or, in a cluster, for as long as it has the lease.

use std::{collections::BTreeMap, io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use axum::Router;
use jiff::Timestamp;
use pipelet_domain::{id_tags::Policy, registration::Admission};
use tokio::{runtime::Handle, sync::watch, task::JoinSet, time};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    listeners::ApiListeners,
    owner::{Owner, Owners},
    runtime_settings::RuntimeSettings,
};
use crate::{
    api::{
        self, Addresses, AllShards, ApiKeys, Authenticator, Daemon, Deliverers, Front,
        FrontServices, IdempotencyHome, Listener, Local, Readers, Readiness, ShardState, grpc,
        metrics::{self, Metrics},
        nodes, rest,
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
    registries::{IdTags, Keyring, Registrations, Webhooks},
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
    /// The owners that there are here.
    current: watch::Sender<Owners>,
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
    readers: Readers,
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
    webhooks: Webhooks,
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
    #[error("another node has taken a shard over")]
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
        let shard_count = match &store {
            Store::Own(engine) => engine.shard_count,
            Store::Shared(cluster) => cluster.shards(),
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
            shard_count,
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
                let owner = Owner::open(engine, &base, &gateway.handle(), None, &shutdown).await?;
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

    /// Resolves once calls and stations are answered, here or at other nodes: as soon as it runs, where
    /// the shards are its own.
    pub fn ready(&self) -> impl Future<Output = ()> + use<> {
        let seen = match &self.role {
            Role::Owner(_) => None,
            Role::Node(cluster, peers) => Some((peers.seen(), usize::from(cluster.shards()))),
        };
        async move {
            if let Some((mut seen, count)) = seen {
                // It is dropped with the daemon.
                let _ = seen.wait_for(|seen| seen.owners.len() == count).await;
            }
        }
    }

    /// The journals that are here at the moment.
    pub fn journals(&self) -> impl Fn() -> Vec<Journals> + Send + Sync + use<> {
        let current = self.current.subscribe();
        move || {
            current
                .borrow()
                .values()
                .map(|it| it.journals.clone())
                .collect()
        }
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
            owners: self.current.subscribe(),
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
        let stations = gateway.handle();
        // Cancelled when all sockets are closed.
        let closed = CancellationToken::new();
        let node = node::Node {
            base: &base,
            gateway: &stations,
            current: &current,
            shutdown: &shutdown,
            closed: &closed,
        };
        let serving = async |routers: Routers| {
            let served = serve(http, grpc, gateway, &base.keys, routers, &shutdown).await;
            closed.cancel();
            served
        };
        // The owner first: whoever is served finds it.
        let (ended, served) = match role {
            Role::Owner(owner) => {
                let routers = base.routers_of(&owner, &current, &shutdown)?;
                let owning = async {
                    let ended = node.own(*owner).await;
                    shutdown.cancel();
                    ended
                };
                tokio::join!(owning, serving(routers))
            }
            Role::Node(cluster, peers) => {
                let local = local(&current);
                let all = AllShards::new(cluster.shards(), &local, &peers);
                let api = base.cluster(Some((Arc::clone(&cluster), peers.clone())));
                let of_cluster = (peers.clone(), cluster.shards());
                let routers = base.routers_of_node(&all, &api, of_cluster, &current, &shutdown)?;
                let answering = nodes::Answering {
                    shards: Arc::clone(&local),
                    node: routers.rest.clone(),
                };
                let (rest, authenticator) = (routers.rest, base.authenticator.clone());
                let home = IdempotencyHome::new(rest, authenticator, local, peers.clone());
                let routers = Routers {
                    rest: home.router(),
                    grpc: routers.grpc,
                };
                let others = node::Others {
                    cluster: &cluster,
                    peers: &peers,
                    api: &api,
                    all: &all,
                    answering: &answering,
                };
                let owning = async {
                    let ended = node.run(others).await;
                    shutdown.cancel();
                    ended
                };
                tokio::join!(owning, serving(routers))
            }
        };
        last_spans(exporter).await;
        ended.and(served)
    }
}

/// What is answered to callers.
struct Routers {
    rest: Router,
    grpc: Router,
}

/// Serves callers and stations until the shutdown, and then lets them finish.
async fn serve(
    http: Listener,
    grpc: Listener,
    gateway: Gateway,
    keys: &ApiKeys,
    routers: Routers,
    shutdown: &CancellationToken,
) -> Result<(), RunError> {
    let mut api = JoinSet::new();
    // After the last call, so that it is written down too.
    let finish_usage = CancellationToken::new();
    let usage = tokio::spawn(keys.clone().save_usage(finish_usage.clone()));
    let serving = rest::serve(http, routers.rest, shutdown.clone());
    api.spawn(async move {
        serving.await;
        Ok(())
    });
    let serving = grpc::serve(grpc, routers.grpc, shutdown.clone());
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

/// What shards answer that are this node's: those whose lease it has.
fn local(current: &watch::Sender<Owners>) -> Local {
    let current = current.subscribe();
    Arc::new(move |shard| {
        let current = current.borrow();
        let owner = current.get(&shard)?;
        owner.ownership.is_held().then(|| owner.router.clone())
    })
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
        let readers = Readers::new(memory.readers.clone());
        let key_file = config.data_dir.join("admin.key");
        let (keyring, clock) = (&registries.keyring, process.clock);
        Self {
            addresses,
            keys: ApiKeys::new(keyring.clone(), clock),
            authenticator: Authenticator::new(keyring.clone(), readers.clone(), &key_file, clock),
            readers,
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
    /// What a daemon answers whose shards are all its own.
    fn routers_of(
        &self,
        owner: &Owner,
        current: &watch::Sender<Owners>,
        shutdown: &CancellationToken,
    ) -> Result<Routers, RunError> {
        let webhooks = self.webhooks(Arc::new(owner.delivery().clone()));
        let tending = webhooks.clone().tend_deletions();
        tokio::spawn(owner.serving().clone().run_until_cancelled_owned(tending));
        let readiness = readiness(current, None, shutdown);
        let cluster = self.cluster(None);
        let metrics = self.metrics(current, &cluster, readiness.clone());
        let daemon = self.daemon(readiness.clone());
        let services = owner.services(self, webhooks.clone(), Some(daemon));
        let grpc = grpc::router(&services, self.grpc(&cluster));
        Ok(Routers {
            grpc: grpc.map_err(no_grpc)?,
            rest: self.rest(services.shared(), webhooks, readiness, metrics, cluster),
        })
    }

    /// What a node of a cluster answers.
    fn routers_of_node(
        &self,
        all: &AllShards,
        cluster: &api::Cluster,
        of_cluster: (Peers, u16),
        current: &watch::Sender<Owners>,
        shutdown: &CancellationToken,
    ) -> Result<Routers, RunError> {
        let webhooks = self.webhooks(Arc::new(all.clone()));
        let readiness = readiness(current, Some(of_cluster), shutdown);
        let metrics = self.metrics(current, cluster, readiness.clone());
        let daemon = self.daemon(readiness.clone());
        let front = Front::new(all.clone(), daemon, shutdown.clone());
        let services = FrontServices::of(front, webhooks.clone());
        let grpc = grpc::router(&services, self.grpc(cluster));
        Ok(Routers {
            grpc: grpc.map_err(no_grpc)?,
            rest: self.rest(
                services.shared(),
                webhooks,
                readiness,
                metrics,
                cluster.clone(),
            ),
        })
    }

    fn grpc(&self, cluster: &api::Cluster) -> grpc::Handles {
        grpc::Handles {
            id_tags: self.registries.id_tags.clone(),
            keys: self.keys.clone(),
            authenticator: self.authenticator.clone(),
            clock: self.process.clock,
            cluster: cluster.clone(),
        }
    }

    fn rest(
        &self,
        services: grpc::Services,
        webhooks: api::Webhooks,
        readiness: Readiness,
        metrics: Metrics,
        cluster: api::Cluster,
    ) -> Router {
        rest::router(rest::Handles {
            services,
            webhooks,
            registrations: self.registries.registrations.clone(),
            id_tags: self.registries.id_tags.clone(),
            authenticator: self.authenticator.clone(),
            readiness,
            metrics,
            keys: self.keys.clone(),
            clock: self.process.clock,
            cluster,
        })
    }

    fn webhooks(&self, deliverers: Arc<dyn Deliverers>) -> api::Webhooks {
        let settings = self.registries.webhooks.clone();
        let delivery = self.settings.delivery.subscribe();
        api::Webhooks::new(settings, delivery, self.process.clock, deliverers)
    }

    fn daemon(&self, readiness: Readiness) -> Daemon {
        Daemon {
            connections: self.connections.clone(),
            readiness,
            addresses: self.addresses,
            started_at: self.process.started,
            clock: self.process.clock,
            data_dir: self.data_dir.clone(),
            certificates: self.certificates.clone(),
        }
    }

    fn metrics(
        &self,
        current: &watch::Sender<Owners>,
        cluster: &api::Cluster,
        readiness: Readiness,
    ) -> Metrics {
        let process = &self.process;
        let current = current.subscribe();
        let owners = move || {
            let owners = current.borrow();
            let owners = owners.values().map(|owner| metrics::Owner {
                delivery: owner.delivery.clone(),
                stations: owner.stations.clone(),
                journals: owner.journals.clone(),
            });
            owners.collect()
        };
        Metrics::new(metrics::Sources {
            owners: Arc::new(owners),
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

    fn cluster(&self, node: Option<(Arc<Cluster>, Peers)>) -> api::Cluster {
        api::Cluster::new(node, self.process.clock)
    }
}

fn readiness(
    current: &watch::Sender<Owners>,
    cluster: Option<(Peers, u16)>,
    shutdown: &CancellationToken,
) -> Readiness {
    let current = current.subscribe();
    let shards = move || {
        let owners = current.borrow();
        let owners = owners.values().map(|owner| ShardState {
            ownership: owner.ownership.clone(),
            journals: owner.journals.clone(),
            delivery: owner.delivery.clone(),
        });
        owners.collect()
    };
    Readiness {
        shards: Arc::new(shards),
        cluster,
        shutdown: shutdown.clone(),
    }
}

const fn no_grpc(source: anyhow::Error) -> RunError {
    let what = "gRPC server";
    RunError::Server { what, source }
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
        owned: BTreeMap::new(),
        drained: false,
        load: Load::default(),
    }
}

/// How much it has to do.
fn load(
    connections: ConnectionStats,
    owners: watch::Receiver<Owners>,
) -> impl Fn() -> Load + Send + Sync {
    move || {
        let owners: Vec<_> = owners.borrow().values().cloned().collect();
        let pending = owners.iter().map(|it| it.delivery.totals().pending).sum();
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
            webhooks: Webhooks::open(Arc::clone(&store), clock).await?,
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
