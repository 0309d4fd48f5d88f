//! The store on NATS JetStream, which a cluster of daemons shares.
//!
//! | stream | |
//! |---|---|
//! | `CLUSTER_config` | the configuration: webhooks, API keys, id tags, registrations, numbers |
//! | `CLUSTER_leases` | who owns which shard |
//! | `CLUSTER_log_N` | the log of shard N, a record for each batch |
//! | `CLUSTER_table_N` | its ledger and its projections, as a table |
//!
//! They are made on first use, and looked at with every start. What is acknowledged is on as many
//! servers as a stream has replicas, and on their disks where they are told to sync always.

mod backup;
mod configuration;
mod connection;
mod health;
mod lease;
mod log;
mod record_stream;
mod streams;
mod table;
mod values;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_nats::{Client, ServerAddr, jetstream::Context};
use pipelet_domain::{
    events::Seq,
    shards::{ShardId, Shards},
};
use tokio::{runtime::Handle, time::sleep};
use tokio_util::sync::DropGuard;

pub use self::health::ServerHealth;
use self::{
    backup::OwnersBackup,
    configuration::{SECRETS_KEY, StreamConfiguration},
    connection::connect,
    lease::Leases,
    log::StreamLog,
    record_stream::RecordStream,
    streams::{config_of, have},
    table::StreamTable,
    values::Values,
};
use super::{
    ConfigurationStore, Engine, ShardStores, StoreError,
    key_file::KeyFile,
    sealing::{KeyId, SecretKeys},
};
use crate::system::private_file;

/// Of the streams' messages and subjects together.
const FORMAT: u64 = 1;
/// What the format is of a cluster that is not restored yet.
const UNFINISHED: u64 = 0;
const FORMAT_NAME: &str = "format";
const SHARDS_NAME: &str = "shards";
/// Of a cluster that is made, where nothing else is said.
const SHARDS: u16 = 16;
/// How often servers that are not ready are asked again.
const TRY_EVERY: Duration = Duration::from_millis(500);

/// How to get into a cluster.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    pub servers: Vec<ServerAddr>,
    /// What streams and subjects begin with.
    pub cluster: String,
    pub node: String,
    pub credentials: Option<PathBuf>,
    /// In PEM.
    pub authorities: Option<PathBuf>,
    /// When the cluster is made, and checked later.
    pub shards: Option<u16>,
    pub replicas: Option<usize>,
}

/// Why a cluster can't be had: what an operator has to change.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    #[error("the NATS credentials in {} can't be read", path.display())]
    Credentials {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("can't connect to NATS at {servers}")]
    Unreachable {
        servers: String,
        #[source]
        source: async_nats::ConnectError,
    },
    #[error("NATS at {servers} doesn't let this node in; give it credentials with --nats-creds")]
    NotLetIn { servers: String },
    #[error("the NATS server {server} is {version}, and 2.12 or newer is needed")]
    ServerTooOld { server: String, version: String },
    #[error(
        "the NATS servers have no JetStream for this account: switch it on (`jetstream {{ … }}` in \
         the server's configuration)"
    )]
    NoJetStream,
    #[error(
        "this account may not use JetStream: let it publish to $JS.API.>, {cluster}.> and \
         _INBOX.>, and subscribe to {cluster}.> and _INBOX.>"
    )]
    NotPermitted { cluster: String },
    #[error(
        "{replicas} replicas want as many NATS servers, and there are fewer; start them, or give --replicas"
    )]
    TooFewServers { replicas: usize },
    #[error(
        "the stream {stream} is not as the cluster made it: {wrong}; set it back (`nats stream edit {stream}`)"
    )]
    StreamChanged { stream: String, wrong: String },
    #[error(
        "the cluster {cluster} has {there} {what}, and --{what} says {said}: leave that out, or take another --cluster"
    )]
    Other {
        cluster: String,
        what: &'static str,
        there: u64,
        said: u64,
    },
    #[error(
        "a restore into the cluster {cluster} was interrupted, or is not done: run it again, or take \
         another --cluster"
    )]
    Unfinished { cluster: String },
    #[error(
        "the cluster {cluster} has format {found}, and this version reads format {FORMAT} only"
    )]
    Format { cluster: String, found: u64 },
}

/// A connection to the servers of a cluster.
#[derive(Debug, Clone)]
pub struct Connection {
    pub client: Client,
    /// Its name, which subjects begin with.
    pub cluster: String,
}

/// The streams of a cluster, and the values that say what it is.
#[derive(Debug)]
struct Streams {
    jetstream: Context,
    name: String,
    replicas: usize,
    values: Values,
}

/// A shard that was taken over.
#[derive(Debug, Clone)]
struct OpenShard {
    log: Arc<StreamLog>,
    table: StreamTable,
}

/// A cluster that was joined.
#[derive(Debug)]
pub struct Cluster {
    streams: Streams,
    shards: u16,
    configuration: Arc<StreamConfiguration>,
    leases: Leases,
    node: String,
}

impl Cluster {
    /// As [`Self::try_join`], as soon as the servers let it.
    pub async fn join(
        options: &ClusterOptions,
        data_dir: &Path,
        key_file: Option<&Path>,
    ) -> Result<Self, StoreError> {
        until_it_works(|| Self::try_join(options, data_dir, key_file)).await
    }

    /// Connects, and makes what isn't there yet. The key that secrets are sealed with is in this file,
    /// or else in the data directory; all nodes need the same.
    ///
    /// # Errors
    ///
    /// [`StoreError::Cluster`] where an operator has to change something.
    pub async fn try_join(
        options: &ClusterOptions,
        data_dir: &Path,
        key_file: Option<&Path>,
    ) -> Result<Self, StoreError> {
        private_file::make_directory(data_dir).map_err(|source| StoreError::Directory {
            path: data_dir.to_owned(),
            source,
        })?;
        let jetstream = connect(options).await?;
        let streams = Streams::of(&jetstream, options).await?;
        let cluster = options.cluster.clone();
        match streams.agreed(FORMAT_NAME, FORMAT).await? {
            FORMAT => {}
            UNFINISHED => return Err(refused(ClusterError::Unfinished { cluster })),
            found => return Err(refused(ClusterError::Format { cluster, found })),
        }
        let said = options.shards.unwrap_or(SHARDS);
        let there = streams.agreed(SHARDS_NAME, said.into()).await?;
        let shards = u16::try_from(there).unwrap_or(u16::MAX);
        if options.shards.is_some_and(|said| said != shards) {
            return Err(refused(ClusterError::Other {
                cluster,
                what: SHARDS_NAME,
                there,
                said: said.into(),
            }));
        }
        let secrets = common_keys(&streams.values, &KeyFile::new(data_dir, key_file)).await?;
        let configuration = StreamConfiguration::open(streams.values.clone(), secrets).await?;
        let name = format!("{}_leases", options.cluster);
        let subjects = format!("{}.leases", options.cluster);
        let config = config_of(&name, &format!("{subjects}.>"), 1);
        let (leases, _) = have(&jetstream, config, Some(streams.replicas)).await?;
        Ok(Self {
            streams,
            shards,
            configuration: Arc::new(configuration),
            leases: Leases::follow(Values::new(&jetstream, leases, &subjects)),
            node: options.node.clone(),
        })
    }

    /// What is set up, as this node sees it.
    pub fn configuration(&self) -> Arc<dyn ConfigurationStore> {
        Arc::<StreamConfiguration>::clone(&self.configuration)
    }

    pub fn name(&self) -> &str {
        &self.streams.name
    }

    pub const fn shards(&self) -> u16 {
        self.shards
    }

    /// This node's name.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// The way to the servers, and so to the other nodes.
    pub fn connection(&self) -> Connection {
        Connection {
            client: self.streams.jetstream.client(),
            cluster: self.streams.name.clone(),
        }
    }

    /// Takes a shard over.
    pub async fn open_shard(&self, shard: ShardId) -> Result<ShardStores, StoreError> {
        Ok(self.streams.open_shard(shard).await?.stores())
    }

    /// Waits until this node is the one that owns a shard, and takes it over. `waiting` is told which
    /// node does meanwhile.
    pub async fn engine(
        &self,
        shard: ShardId,
        waiting: impl Fn(&str),
    ) -> Result<Engine, StoreError> {
        let lease = format!("shard-{}", shard.0);
        let ownership = self.leases.acquire(&lease, &self.node, waiting).await?;
        let given_up = ownership.give_up_on_drop();
        let open = tokio::select! {
            open = self.take_over(shard) => open?,
            () = ownership.lost() => return Err(StoreError::Fenced),
        };
        given_up.map(DropGuard::disarm);
        Ok(Engine {
            backup: Arc::new(OwnersBackup {
                configuration: Arc::clone(&self.configuration),
                values: self.streams.values.clone(),
                ownership: ownership.clone(),
                runtime: Handle::current(),
                id: shard,
                count: self.shards,
                shard: open.clone(),
            }),
            shard_count: self.shards,
            shards: Shards::from(shard, [open.stores()]),
            configuration: self.configuration(),
            ownership,
        })
    }

    /// As [`Self::open_shard`], as soon as the servers let it.
    async fn take_over(&self, shard: ShardId) -> Result<OpenShard, StoreError> {
        // What was changed before may not have come here yet.
        until_it_works(|| self.configuration.catch_up()).await?;
        until_it_works(|| self.streams.open_shard(shard)).await
    }
}

impl Streams {
    async fn of(jetstream: &Context, options: &ClusterOptions) -> Result<Self, StoreError> {
        let name = options.cluster.clone();
        let subjects = format!("{name}.config.>");
        let config = config_of(&format!("{name}_config"), &subjects, 1);
        let (stream, replicas) = have(jetstream, config, options.replicas).await?;
        Ok(Self {
            values: Values::new(jetstream, stream, &format!("{name}.config")),
            jetstream: jetstream.clone(),
            name,
            replicas,
        })
    }

    async fn number(&self, name: &str) -> Result<Option<u64>, StoreError> {
        let value = self.values.get(name).await?;
        value.as_deref().map(values::number).transpose()
    }

    async fn set(&self, name: &str, number: u64) -> Result<(), StoreError> {
        let number = number.to_be_bytes().to_vec();
        let set = self.values.change(name, |_| Ok(Some(number.clone())));
        set.await.map(drop)
    }

    /// A number that whoever came first has said.
    async fn agreed(&self, name: &str, said: u64) -> Result<u64, StoreError> {
        let value = self.values.change(name, |known| {
            Ok(known.is_none().then(|| said.to_be_bytes().to_vec()))
        });
        values::number(&value.await?)
    }

    async fn open_shard(&self, shard: ShardId) -> Result<OpenShard, StoreError> {
        let log = StreamLog::open(self.stream("log", shard).await?, Seq::first_of(shard));
        Ok(OpenShard {
            log: Arc::new(log.await?),
            table: StreamTable::open(self.stream("table", shard).await?).await?,
        })
    }

    async fn stream(&self, what: &str, shard: ShardId) -> Result<RecordStream, StoreError> {
        let name = stream_of_shard(&self.name, what, shard);
        let subject = format!("{}.{what}.{}", self.name, shard.0);
        let config = config_of(&name, &subject, -1);
        let (stream, _) = have(&self.jetstream, config, Some(self.replicas)).await?;
        Ok(RecordStream::new(&self.jetstream, stream, &name, &subject))
    }
}

impl OpenShard {
    fn stores(self) -> ShardStores {
        ShardStores {
            log: self.log,
            ledger: Arc::new(self.table.clone()),
            projections: Arc::new(self.table),
        }
    }
}

fn stream_of_shard(cluster: &str, what: &str, shard: ShardId) -> String {
    format!("{cluster}_{what}_{}", shard.0)
}

/// The keys that all nodes seal with: those of the first one.
async fn common_keys(values: &Values, key_file: &KeyFile) -> Result<SecretKeys, StoreError> {
    let known = values
        .get(SECRETS_KEY)
        .await?
        .as_deref()
        .and_then(KeyId::parse);
    let keys = key_file.keys_for(known).map_err(StoreError::KeyFile)?;
    let ours = keys.newest().id();
    let agreed = values.change(SECRETS_KEY, |known| {
        Ok(known.is_none().then(|| ours.as_bytes().to_vec()))
    });
    match KeyId::parse(&agreed.await?) {
        Some(first) if first != ours => key_file.keys_for(Some(first)).map_err(StoreError::KeyFile),
        _ => Ok(keys),
    }
}

/// Tries until it is not the servers any more that stand in the way.
async fn until_it_works<T>(work: impl AsyncFn() -> Result<T, StoreError>) -> Result<T, StoreError> {
    loop {
        match work().await {
            Err(error) if may_pass(&error) => {
                let error = error.chain();
                tracing::warn!(error, "the NATS servers are not ready, trying again");
                sleep(TRY_EVERY).await;
            }
            done => return done,
        }
    }
}

/// Whether servers that start, or come back, change it.
fn may_pass(error: &StoreError) -> bool {
    match error {
        StoreError::Cluster(why) => matches!(**why, ClusterError::Unreachable { .. }),
        error => error.is_outage(),
    }
}

fn refused(error: ClusterError) -> StoreError {
    StoreError::Cluster(Box::new(error))
}
