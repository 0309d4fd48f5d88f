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
use pipelet_domain::{id_tags::Policy, shards::Shards};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

pub use self::{
    all_stations::Stations,
    command_stats::{CommandCounts, CommandOutcome},
    commands::{Answer, CommandError, DEFAULT_TIMEOUT, MAX_TIMEOUT},
    connection_stats::ConnectionStats,
    history::Transactions,
    refusals::RefusedHandshake,
    stations::{StationCounts, StationView, UnstableStation},
};
use self::{
    deferred_events::DeferredEvents,
    gateway::Gateway,
    projector::{KeptTransactions, Projector},
    stations::ShardStations,
    transaction_ids::TransactionIds,
};
use crate::{
    journal::{Journal, Journals},
    registries::IdTags,
    registries::Registrations,
    store::{ConfigurationStore, ProjectionStore, StoreError},
    system::{
        clock::Clock,
        limits::{PasswordGuesses, Rate},
        tls::{Certificates, TlsError, TlsFiles},
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
mod session;
mod stations;
mod transaction_ids;
mod transactions;
mod unfinished;
pub mod v16;
pub mod wire;

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
    /// Whose id tags may charge.
    pub authorize: Policy,
    pub transaction_retention: TransactionRetention,
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
            authorize: Policy::AcceptAll,
            transaction_retention: TransactionRetention {
                ended: Duration::MAX,
                abandoned_after: Duration::MAX,
            },
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

/// What the connections work with.
#[derive(Debug)]
struct Services {
    config: Config,
    timing: watch::Sender<TimingConfig>,
    began: Instant,
    journals: Journals,
    clock: Clock,
    stations: Stations,
    registry: Registrations,
    guesses: PasswordGuesses,
    transaction_ids: TransactionIds,
    id_tags: IdTags,
    deferred_events: DeferredEvents,
    stats: ConnectionStats,
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
}

/// The service: bound, caught up with the journals, and ready to run.
#[derive(Debug)]
pub struct Ocpp {
    gateway: Gateway,
    services: Arc<Services>,
    projectors: Vec<Projector>,
    transaction_retention: watch::Sender<TransactionRetention>,
}

impl Ocpp {
    /// Binds the listener and catches up with the journals. Nothing is accepted before `run`.
    pub async fn open(
        config: Config,
        registry: Registrations,
        configuration: Arc<dyn ConfigurationStore>,
        shards: Shards<(Journal, Arc<dyn ProjectionStore>)>,
        clock: Clock,
    ) -> Result<Self, OpenError> {
        let gateway = Gateway::bind(config.listen, config.tls.clone()).await?;
        let restored = async {
            let id_tags = IdTags::open(config.authorize, Arc::clone(&configuration), clock);
            let transaction_ids = TransactionIds::open(configuration);
            let shards = shards.iter().map(|(journal, projections)| {
                projector::restore(projections.as_ref(), journal, &registry, shards.count())
            });
            let restored = try_join_all(shards);
            Ok((id_tags.await?, transaction_ids.await?, restored.await?))
        };
        let restored = restored.await.map_err(OpenError::Restore)?;
        let (id_tags, transaction_ids, restored) = restored;
        let transaction_retention = watch::Sender::new(config.transaction_retention);
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
        let stations = Stations::new(Shards::new(restored.into_iter().map(|(shard, _)| shard)));
        let journals = Journals::new(shards.map(|(journal, _)| journal.clone()));
        let deferred_events = DeferredEvents::new(config.spans.clone(), clock);
        let services = Arc::new(Services {
            timing: watch::Sender::new(config.timing),
            stats: ConnectionStats::new(config.max_unfinished),
            config,
            began: Instant::now(),
            journals,
            clock,
            stations,
            registry,
            guesses: PasswordGuesses::default(),
            transaction_ids,
            id_tags,
            deferred_events,
        });
        Ok(Self {
            gateway,
            services,
            projectors,
            transaction_retention,
        })
    }

    /// Where stations connect, with the real port.
    pub const fn local_addr(&self) -> SocketAddr {
        self.gateway.local_addr()
    }

    /// Changes the intervals and rates.
    pub fn timing(&self) -> watch::Sender<TimingConfig> {
        self.services.timing.clone()
    }

    /// Changes how long transactions are kept.
    pub fn transaction_retention(&self) -> watch::Sender<TransactionRetention> {
        self.transaction_retention.clone()
    }

    pub fn transactions(&self) -> Transactions {
        let shards = self.projectors.iter().map(Projector::transactions);
        Transactions::new(Shards::new(shards))
    }

    /// What becomes of connections.
    pub fn connection_stats(&self) -> ConnectionStats {
        self.services.stats.clone()
    }

    pub fn id_tags(&self) -> IdTags {
        self.services.id_tags.clone()
    }

    /// Where stations connect over TLS, where they can.
    pub fn tls_addr(&self) -> Option<SocketAddr> {
        self.gateway.tls_addr()
    }

    /// What we show to stations over TLS.
    pub fn certificates(&self) -> Option<Certificates> {
        self.gateway.certificates()
    }

    pub fn stations(&self) -> Stations {
        self.services.stations.clone()
    }

    /// Serves stations until the shutdown. When it returns, every connection has ended and what
    /// is known of stations is saved; the journal and the store must live until then.
    pub async fn run(self, shutdown: CancellationToken) {
        let finish = CancellationToken::new();
        let saving = self.projectors.into_iter();
        let saving = join_all(saving.map(|projector| projector.run(finish.clone())));
        let services = self.services;
        // Before any station can be back.
        let shards = services.stations.shards().iter();
        let cut = shards.flat_map(ShardStations::cut_connections).collect();
        let serving = async {
            let catching_up = services.deferred_events.run(&services.journals);
            let journaling_cuts = async {
                services.journal_cut_connections(cut).await;
                pending::<()>().await;
            };
            tokio::select! {
                () = journaling_cuts => {}
                () = self.gateway.run(Arc::clone(&services), shutdown) => {}
                () = catching_up => {}
            }
            services.deferred_events.finish(&services.journals).await;
            finish.cancel();
        };
        tokio::join!(serving, saving);
    }
}

#[cfg(test)]
mod tests;
