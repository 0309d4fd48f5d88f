//! The OCPP 1.6J side: stations connect, are answered, and what they say is journaled.
//!
//! | module | |
//! |---|---|
//! | `wire`, `v16`, `handler`, `handshake` | pure: frames, the standard's tables, answers, the upgrade |
//! | `admission`, `credentials`, `client_names` | who may speak for a station, and how it is shown |
//! | `call_handler` | what is said on one connection: repeats, events, answers |
//! | `journaling`, `deferred_events` | how an event gets into the journal, and what waits for that |
//! | `commands`, `command_queue`, `outbox` | what is asked of stations: checked, queued, sent singly |
//! | `command_stats`, `connection_stats` | how that ended, and how connections do, in figures |
//! | `refusals` | handshakes that were refused: counted, logged, and the latest kept |
//! | `session`, `gateway`, `accept` | one task for each station, and how it is let in |
//! | `link`, `frame_scanner`, `unfinished` | the WebSocket, and the bytes below: RSV1 cleared, and unfinished messages bounded |
//! | `remote` | stations whose connection is at another node than their shard |
//! | `ended` | why a connection ended |
//! | `authorize` | which tag a message is about, and the verdict on it |
//! | `stations`, `projector` | what is known of stations, in memory and in the store |
//! | `transactions`, `history` | what they charge: what is open, and all that ever was |
//! | `transaction_ids` | numbers that are never given twice |
//!
//! The invariant: a station gets its CALLRESULT only once its event is durable. Nothing here knows
//! who the events are delivered to.

use std::{future::pending, io, net::SocketAddr, sync::Arc, time::Duration};

use futures_util::future::{join_all, try_join_all};
use pipelet_domain::{events::StationId, registration::Admission, shards::Shards};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::{
    all_stations::Stations,
    authorize::{Claim, OtherShards},
    command_stats::{CommandCounts, CommandOutcome},
    commands::{Answer, CommandError, DEFAULT_TIMEOUT, MAX_TIMEOUT},
    connection_stats::ConnectionStats,
    gateway::{Gateway, GatewayHandle},
    history::Transactions,
    refusals::RefusedHandshake,
    stations::{StationCounts, StationView, UnstableStation},
};
use self::{
    command_queue::End,
    deferred_events::DeferredEvents,
    gateway::Context,
    projector::{KeptTransactions, Projector},
    stations::{At, ConnectionLease, ShardStations, StationHandle, TooManyStations},
    transaction_ids::TransactionIds,
};
use crate::{
    cluster::JoinError,
    journal::{Journal, Journals},
    registries::IdTags,
    registries::Registrations,
    store::{ConfigurationStore, ProjectionStore, StoreError},
    system::{
        clock::Clock,
        limits::Rate,
        tls::{TlsError, TlsFiles},
    },
    telemetry::Spans,
};

mod accept;
mod admission;
mod all_stations;
mod authorize;
mod call_handler;
mod client_names;
mod command_queue;
mod command_stats;
mod commands;
mod connection_stats;
mod credentials;
mod deferred_events;
mod ended;
mod frame_scanner;
pub(crate) mod fuzzing;
mod gateway;
mod handler;
mod handshake;
mod history;
mod journaling;
mod link;
mod outbox;
mod projector;
mod refusals;
mod remote;
mod session;
mod stations;
mod transaction_ids;
mod transactions;
mod unfinished;
pub mod v16;
pub mod wire;

/// So long after a node has taken shards over, the gateways of their stations have said which of these
/// are connected.
const RESUMED_WITHIN: Duration = Duration::from_secs(8);

/// Where stations connect over TLS, and with what: profiles 2 and 3 of the security whitepaper.
///
/// The whitepaper's two suites with static RSA are not offered, because they keep nothing secret
/// once the key is lost (rustls#209): a station that has no others needs a proxy that ends its TLS.
#[derive(Debug, Clone)]
pub struct TlsOptions {
    /// Port 0 takes a free one.
    pub listen: SocketAddr,
    pub files: TlsFiles,
}

#[derive(Debug, Clone)]
pub struct Config {
    /// Port 0 takes a free one.
    pub listen: SocketAddr,
    pub tls: Option<TlsOptions>,
    pub timing: TimingConfig,
    /// Violations of the standard get its CALLERRORs instead of an answer.
    pub strict: bool,
    /// The largest message and the largest WebSocket frame, in bytes.
    pub max_frame: usize,
    /// Messages whose end has not come, over all connections, in bytes: beyond it, the connection
    /// goes that has the largest.
    pub max_unfinished: u64,
    /// Connections at once, unfinished handshakes included; more wait to be accepted.
    pub max_connections: usize,
    /// Handshakes at once: when everybody comes back together, the rest wait for their turn, and
    /// where one address has more of them than others, its oldest make room.
    pub max_handshakes: usize,
    /// Stations that are remembered, connected or not. For more, those are forgotten that are neither
    /// connected nor registered, or there is no room.
    pub max_stations: usize,
    /// To the first byte of a connection, and from its turn to the finished handshake, that of TLS
    /// included.
    pub handshake_timeout: Duration,
    /// Where each event leaves the span of its arrival.
    pub spans: Spans,
}

/// How long transactions stay. It can be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransactionRetention {
    /// Those that ended are kept.
    pub ended: Duration,
    /// One of which nothing is heard for so long ends as abandoned.
    pub abandoned_after: Duration,
}

/// How fast things go. It can be changed while stations are connected: they take it with their next
/// ping, and a `BootNotification` is answered by it at once.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TimingConfig {
    /// What a `BootNotification` is answered with.
    pub heartbeat_interval: Duration,
    /// How often we ping; not zero.
    pub ping_interval: Duration,
    /// How fast one station is read.
    pub station_rate: Rate,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 9000)),
            tls: None,
            timing: TimingConfig::default(),
            strict: false,
            max_frame: 1024 * 1024,
            max_unfinished: 32 * 1024 * 1024,
            max_connections: 50_000,
            max_handshakes: 512,
            max_stations: 200_000,
            handshake_timeout: Duration::from_secs(3),
            spans: Spans::default(),
        }
    }
}

impl Default for TimingConfig {
    fn default() -> Self {
        Self {
            heartbeat_interval: Duration::from_mins(5),
            ping_interval: Duration::from_mins(1),
            station_rate: Rate::new(1000.0, 4000.0),
        }
    }
}

impl TimingConfig {
    /// A station that sends nothing at all for so long is gone. It is generous, because some
    /// never answer a ping: then three heartbeats have to stay away. Of one that has answered
    /// pings, unanswered ones say it sooner. Looked at with every ping.
    fn silence_limit(&self) -> Duration {
        self.heartbeat_interval.max(self.ping_interval) * 3
    }
}

/// What sessions work with, where their stations' shards are.
#[derive(Debug)]
struct Services {
    config: Arc<Config>,
    timing: watch::Sender<TimingConfig>,
    began: Instant,
    journals: Journals,
    /// How many there are, of which these may be some.
    shard_count: u16,
    clock: Clock,
    stations: Stations,
    registry: Registrations,
    transaction_ids: TransactionIds,
    id_tags: IdTags,
    /// None where all are these.
    others: Option<Arc<dyn OtherShards>>,
    deferred_events: DeferredEvents,
    /// Those that there are.
    sessions: TaskTracker,
}

impl Services {
    /// Gives a new connection of the station the lease.
    fn acquire_lease(
        &self,
        station: &StationId,
        protocol: Option<&str>,
        at: At,
    ) -> Result<ConnectionLease, TooManyStations> {
        // Of each shard the same part.
        let max = self.config.max_stations.div_ceil(self.shard_count.into());
        let is_registered = |station: &StationId| self.registry.find(station).is_some();
        let (now, stations) = (self.clock.now(), self.stations.of(station));
        stations.acquire_lease(station, now, protocol, max, &is_registered, at)
    }

    /// Cancelled when the station may no longer be here; `None` where that can't be.
    fn revoked(&self, station: &StationId) -> Option<CancellationToken> {
        match (self.registry.admission(), self.registry.find(station)) {
            (Admission::Registered, Some(entry)) => Some(entry.removed),
            // Without its entry, the station could come back as it is.
            (Admission::Open | Admission::Registered, _) => None,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("can't listen on {address}; another address can be given with {flag}")]
    Listen {
        flag: &'static str,
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("can't speak TLS to stations")]
    Tls(#[from] TlsError),
    #[error("can't read what is known of stations")]
    Restore(#[source] StoreError),
    #[error(transparent)]
    Join(#[from] JoinError),
}

/// What the owner of shards does for their stations: caught up with the journals, and ready to run.
#[derive(Debug)]
pub struct Ocpp {
    gateway: Arc<Context>,
    services: Arc<Services>,
    projectors: Vec<Projector>,
    /// None where there are no other gateways.
    served: Option<remote::RemoteSessions>,
}

impl Ocpp {
    /// Catches up with the journals. Nothing is taken from a station before `run`.
    pub async fn open(
        gateway: &GatewayHandle,
        configuration: Arc<dyn ConfigurationStore>,
        id_tags: IdTags,
        shards: Shards<(Journal, Arc<dyn ProjectionStore>)>,
        shard_count: u16,
        others: Option<Arc<dyn OtherShards>>,
        transaction_retention: &watch::Sender<TransactionRetention>,
    ) -> Result<Self, OpenError> {
        let gateway = Arc::clone(&gateway.0);
        let (config, clock) = (Arc::clone(&gateway.config), gateway.clock);
        let registry = gateway.registry.clone();
        let transaction_ids = TransactionIds::open(configuration);
        let transaction_ids = transaction_ids.await.map_err(OpenError::Restore)?;
        let restored = shards.iter().map(|(journal, projections)| {
            projector::restore(projections.as_ref(), journal, &registry, shard_count.into())
        });
        let restored = try_join_all(restored).await.map_err(OpenError::Restore)?;
        let projectors = shards.iter().zip(&restored);
        let projectors = projectors.map(|((journal, projections), (stations, projected_to))| {
            Projector::new(
                stations.clone(),
                Arc::clone(projections),
                journal.clone(),
                *projected_to,
                KeptTransactions {
                    kept: transaction_retention.clone(),
                    clock,
                },
            )
        });
        let projectors = projectors.collect();
        let stations = restored.into_iter().map(|(shard, _)| shard);
        let stations = Stations::new(shards.with_values(stations));
        let journals = Journals::new(shards.map(|(journal, _)| journal.clone()));
        let deferred_events = DeferredEvents::new(config.spans.clone(), clock);
        let services = Arc::new(Services {
            timing: gateway.timing.clone(),
            config,
            began: Instant::now(),
            journals,
            shard_count,
            clock,
            stations,
            registry,
            transaction_ids,
            id_tags,
            others,
            deferred_events,
            sessions: TaskTracker::new(),
        });
        // What is forwarded from now on waits until this runs.
        let served = match gateway.peers.clone() {
            Some(peers) => {
                Some(remote::RemoteSessions::listen(Arc::clone(&services), peers).await?)
            }
            None => None,
        };
        Ok(Self {
            gateway,
            services,
            projectors,
            served,
        })
    }

    pub fn transactions(&self) -> Transactions {
        let shards = self.projectors.iter().map(Projector::transactions);
        Transactions::new(self.services.stations.shards().with_values(shards))
    }

    pub fn id_tags(&self) -> IdTags {
        self.services.id_tags.clone()
    }

    pub fn stations(&self) -> Stations {
        self.services.stations.clone()
    }

    /// Serves the shards' stations from now on, until `finish` or until `hand_over`: then connections
    /// go on elsewhere, and they have done so when it returns. Either way what is known of stations is
    /// saved by then; the journal and the store must live until then.
    pub fn run(
        self,
        finish: CancellationToken,
        hand_over: CancellationToken,
    ) -> impl Future<Output = ()> {
        // Before any station can be back.
        let shards = self.services.stations.shards().iter();
        let cut: Vec<_> = shards.flat_map(ShardStations::cut_connections).collect();
        for owner in self.owners() {
            owner.send_replace(Some(Arc::clone(&self.services)));
        }
        async move {
            let stop = async {
                tokio::select! {
                    () = finish.cancelled() => {}
                    () = hand_over.cancelled() => {}
                }
            };
            self.serve(cut, stop).await;
        }
    }

    /// Where connections find it.
    fn owners(&self) -> impl Iterator<Item = &watch::Sender<gateway::Local>> {
        let shards = self.services.stations.shards().ids();
        shards.filter_map(|shard| self.gateway.owners.get(shard))
    }

    async fn serve(self, cut: Vec<StationHandle>, stop: impl Future<Output = ()>) {
        let owners: Vec<_> = self.owners().cloned().collect();
        let Self {
            gateway,
            services,
            projectors,
            served,
        } = self;
        let (closing, saved) = (CancellationToken::new(), CancellationToken::new());
        let saving = projectors.into_iter();
        let saving = join_all(saving.map(|projector| projector.run(saved.clone())));
        let forwarded = async {
            if let Some(served) = served {
                served.run(&closing).await;
            }
        };
        let serving = async {
            let catching_up = services.deferred_events.run(&services.journals);
            let journaling_cuts = async {
                if gateway.peers.is_some() {
                    // Gateways that have them still say so.
                    sleep(RESUMED_WITHIN).await;
                }
                services.journal_cut_connections(cut).await;
                pending::<()>().await;
            };
            tokio::select! {
                () = journaling_cuts => {}
                () = catching_up => {}
                () = stop => {}
            }
            // No session begins here any more, and those that there are go on elsewhere.
            for owner in owners {
                owner.send_if_modified(|owner| {
                    let is_this = |it: &mut Arc<Services>| Arc::ptr_eq(it, &services);
                    owner.take_if(is_this).is_some()
                });
            }
            closing.cancel();
            services
                .stations
                .end_all(&[At::ThisNode, At::Another], End::HandedOver);
            services.sessions.close();
            services.sessions.wait().await;
            services.deferred_events.finish(&services.journals).await;
            saved.cancel();
        };
        tokio::join!(forwarded, serving, saving);
    }
}

#[cfg(test)]
mod tests;
