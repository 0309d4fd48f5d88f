//! A backup of a cluster: each shard's, which its owner makes, all of them together, and a cluster
//! made of that.

use std::{
    io::{Read, Write},
    mem,
    sync::Arc,
};

use async_nats::jetstream::{Context, ErrorCode, context::DeleteStreamErrorKind};
use futures_util::TryStreamExt as _;
use pipelet_domain::{
    events::{Event, Seq},
    shards::ShardId,
};
use tokio::runtime::Handle;

use super::{
    Cluster, ClusterOptions, FORMAT, FORMAT_NAME, OpenShard, SHARDS_NAME, Streams, UNFINISHED,
    configuration::{StreamConfiguration, VALUES, message_of, name_of},
    connection::connect,
    log::{self, StreamLog, checkpoint_of},
    record_stream::{RecordStream, failed, in_time},
    table::{self, StreamTable},
    until_it_works,
    values::{self, PublishFailed, Values},
};
use crate::store::{
    Backup, BackupError, Checkpoint, LogStore as _, Ownership, RestoreError, StoreError,
    backup::{FORMAT_VERSION, Reader, Record, Writer},
    block::Block,
    keys::{self, Kind, Meta},
    table::{Records as _, backup::Filling},
};

/// In bytes; events that are restored together.
const EVENTS_AT_ONCE: usize = 256 * 1024;

/// What the owner of a shard has: its backup is of that one, and of what is set up.
#[derive(Debug)]
pub(super) struct OwnersBackup {
    pub(super) id: ShardId,
    /// How many there are.
    pub(super) count: u16,
    pub(super) shard: OpenShard,
    pub(super) configuration: Arc<StreamConfiguration>,
    pub(super) values: Values,
    pub(super) ownership: Ownership,
    pub(super) runtime: Handle,
}

impl Backup for OwnersBackup {
    fn back_up(&self, out: &mut dyn Write) -> Result<(), BackupError> {
        let runtime = &self.runtime;
        let mut writer = Writer::begin_of(self.count, out)?;
        let (entries, log, table) = runtime.block_on(self.freeze())?;
        writer.record(
            &keys::meta(Meta::FormatVersion),
            &FORMAT_VERSION.to_be_bytes(),
        )?;
        for Record { key, value } in entries {
            writer.record(&key, &value)?;
        }
        // Numbers that were given out meanwhile are so here as well.
        for (name, meta) in VALUES {
            if let Some(value) = runtime.block_on(self.values.get(name))? {
                writer.record(&keys::meta(meta), &value)?;
            }
        }
        writer.shard(self.id, self.count)?;
        self.shard.table.back_up(&table, &mut writer, runtime)?;
        self.shard.log.back_up(&log, &mut writer, runtime)?;
        // Another owner has trimmed what was still to be read.
        if !self.ownership.is_held() {
            return Err(StoreError::Fenced.into());
        }
        writer.end()
    }
}

impl OwnersBackup {
    /// What has to be of one moment: nobody writes meanwhile.
    async fn freeze(&self) -> Result<(Vec<Record>, log::Moment, table::Moment), StoreError> {
        let (kept_log, log) = self.shard.log.quiet().await;
        let (kept_table, table) = self.shard.table.quiet().await;
        let entries = self.configuration.records()?;
        Ok((entries, log.moment(kept_log), table.moment(kept_table)))
    }
}

impl Cluster {
    /// Makes a cluster of a backup, whole or not at all, with as many shards as that has. One that is
    /// there is refused.
    pub async fn restore(
        options: &ClusterOptions,
        input: &mut dyn Read,
    ) -> Result<(), RestoreError> {
        let jetstream = until_it_works(|| connect(options)).await?;
        let cluster = &options.cluster;
        let mut streams = Streams::of(&jetstream, options).await?;
        if streams.number(FORMAT_NAME).await? == Some(UNFINISHED) {
            // A restore was interrupted.
            delete_streams(&jetstream, cluster).await?;
            streams = Streams::of(&jetstream, options).await?;
        }
        if streams.agreed(FORMAT_NAME, UNFINISHED).await? != UNFINISHED {
            return Err(RestoreError::ClusterExists(cluster.clone()));
        }
        let mut restoring = Restoring {
            streams: &streams,
            wanted: options.shards,
            opened: 0,
            count: None,
            format: None,
            shard: None,
        };
        let restored = restoring.fill(input).await;
        if restored.is_err() {
            // What can't be deleted now is with the next restore.
            let _ = delete_streams(&jetstream, cluster).await;
        }
        let shards = restored?;
        streams.set(SHARDS_NAME, shards.into()).await?;
        Ok(streams.set(FORMAT_NAME, FORMAT).await?)
    }
}

/// A cluster that is made of a backup's records.
struct Restoring<'a> {
    streams: &'a Streams,
    /// How many shards it is to have, where that was said.
    wanted: Option<u16>,
    /// Shards that were begun, and of how many.
    opened: u16,
    count: Option<u16>,
    format: Option<u64>,
    /// The one that records are of.
    shard: Option<ShardFilling>,
}

impl Restoring<'_> {
    /// Returns how many shards there are.
    async fn fill(&mut self, input: &mut dyn Read) -> Result<u16, RestoreError> {
        let mut reader = Reader::begin(input)?;
        while let Some(record) = reader.next()? {
            self.add(record).await?;
        }
        match self.format {
            Some(FORMAT_VERSION) => {}
            Some(found) => {
                let known = FORMAT_VERSION;
                return Err(RestoreError::Format { found, known });
            }
            None => return Err(RestoreError::Damaged),
        }
        // It has one at least.
        self.shard(None).await?.finish().await?;
        match self.count {
            Some(count) if count == self.opened => Ok(count),
            Some(_) | None => Err(RestoreError::Damaged),
        }
    }

    async fn add(&mut self, record: Record) -> Result<(), RestoreError> {
        let kind = record.kind()?;
        match kind {
            Kind::Shard => {
                let (shard, of) = record.shard()?;
                if let Some(filled) = &mut self.shard {
                    filled.finish().await?;
                    self.shard = None;
                }
                self.shard(Some((shard, of))).await.map(drop)
            }
            Kind::Webhook | Kind::ApiKey | Kind::IdTag | Kind::Registration => {
                let key = keys::read_entry(&record.key).ok_or(RestoreError::Damaged)?;
                let values = &self.streams.values;
                let (name, message) = (name_of(&key), message_of(&record.value));
                let put = values.replace(&name, message, 0).await;
                put.map_err(|error| match error {
                    PublishFailed::Overtaken => RestoreError::Damaged,
                    PublishFailed::Store(error) => error.into(),
                })?;
                Ok(())
            }
            Kind::Meta => self.add_meta(record).await,
            _ => self.shard(None).await?.add(&record).await,
        }
    }

    async fn add_meta(&mut self, record: Record) -> Result<(), RestoreError> {
        if record.key == keys::meta(Meta::FormatVersion) {
            self.format = Some(values::number(&record.value)?);
            return Ok(());
        }
        let known = VALUES.iter().find(|it| keys::meta(it.1) == record.key);
        let Some((name, _)) = known else {
            return self.shard(None).await?.add(&record).await;
        };
        let value = |_: Option<&[u8]>| Ok(Some(record.value.clone()));
        self.streams.values.change(name, value).await?;
        Ok(())
    }

    /// The shard that records are of: the next one where that `begins`, or the only one.
    async fn shard(
        &mut self,
        begins: Option<(ShardId, u16)>,
    ) -> Result<&mut ShardFilling, RestoreError> {
        if self.shard.is_none() {
            let (shard, of) = begins.unwrap_or((ShardId(0), 1));
            if shard.0 != self.opened || *self.count.get_or_insert(of) != of {
                return Err(RestoreError::Damaged);
            }
            if let Some(known) = self.wanted.filter(|wanted| *wanted != of) {
                return Err(RestoreError::Shards { found: of, known });
            }
            self.opened += 1;
            let filling = ShardFilling::open(self.streams, shard).await?;
            return Ok(self.shard.insert(filling));
        }
        self.shard.as_mut().ok_or(RestoreError::Damaged)
    }
}

/// A shard that is made of a backup's records.
struct ShardFilling {
    shard: ShardId,
    stream: RecordStream,
    /// Opened at its first event.
    log: Option<StreamLog>,
    next: Seq,
    events: Vec<Arc<Event>>,
    /// In bytes.
    size: usize,
    checkpoints: Vec<Checkpoint>,
    table: StreamTable,
    filling: Filling<StreamTable>,
}

impl ShardFilling {
    async fn open(streams: &Streams, shard: ShardId) -> Result<Self, StoreError> {
        let table = StreamTable::open(streams.stream("table", shard).await?).await?;
        Ok(Self {
            shard,
            stream: streams.stream("log", shard).await?,
            log: None,
            next: Seq::first_of(shard),
            events: Vec::new(),
            size: 0,
            checkpoints: Vec::new(),
            table,
            filling: Filling::new(),
        })
    }

    async fn add(&mut self, record: &Record) -> Result<(), RestoreError> {
        match record.kind()? {
            Kind::Event => return self.add_events(record).await,
            Kind::Cursor | Kind::Received | Kind::Subscription => {
                self.checkpoints.push(checkpoint_of(record)?);
            }
            _ => self.filling.add(record)?,
        }
        if self.filling.is_full() {
            self.write_table()?;
        }
        Ok(())
    }

    async fn add_events(&mut self, record: &Record) -> Result<(), RestoreError> {
        let first = keys::last_number(&record.key).ok_or(RestoreError::Damaged)?;
        let first = Seq(first);
        if self.log.is_none() {
            self.open_log(first).await?;
        }
        if first != self.next || first.shard() != self.shard {
            return Err(RestoreError::Damaged);
        }
        let block = Block::unpack(first, &record.value.clone().into())?;
        for event in block.read_from(first) {
            let (_, event) = event?;
            self.next.0 += 1;
            self.size += event.memory_size();
            self.events.push(event);
        }
        if self.size >= EVENTS_AT_ONCE {
            self.append(Vec::new()).await?;
        }
        Ok(())
    }

    async fn open_log(&mut self, first: Seq) -> Result<(), StoreError> {
        self.log = Some(StreamLog::open(self.stream.clone(), first).await?);
        self.next = first;
        Ok(())
    }

    async fn append(&mut self, checkpoints: Vec<Checkpoint>) -> Result<(), StoreError> {
        let events = mem::take(&mut self.events);
        self.size = 0;
        if let Some(log) = &self.log {
            log.append(events.into(), checkpoints.into()).await?;
        }
        Ok(())
    }

    fn write_table(&mut self) -> Result<(), StoreError> {
        let batch = self.filling.take(&self.table)?;
        self.table.commit(batch, false)
    }

    async fn finish(&mut self) -> Result<(), RestoreError> {
        self.write_table()?;
        if self.log.is_none() {
            self.open_log(self.next).await?;
        }
        let checkpoints = mem::take(&mut self.checkpoints);
        Ok(self.append(checkpoints).await?)
    }
}

/// Deletes what there is of a cluster.
async fn delete_streams(jetstream: &Context, cluster: &str) -> Result<(), StoreError> {
    let names: Vec<String> = in_time(jetstream.stream_names().try_collect()).await?;
    for name in names {
        let part = name
            .strip_prefix(cluster)
            .and_then(|it| it.strip_prefix('_'));
        let is_ours = part.is_some_and(|part| {
            let (what, number) = part.rsplit_once('_').unwrap_or((part, "0"));
            ["config", "log", "table"].contains(&what) && number.parse::<u16>().is_ok()
        });
        if !is_ours {
            continue;
        }
        let gone = jetstream.delete_stream(&name).await;
        match gone.map_err(|error| (error.kind(), error)) {
            Ok(_) => {}
            Err((DeleteStreamErrorKind::JetStream(why), _))
                if why.error_code() == ErrorCode::STREAM_NOT_FOUND => {}
            Err((_, error)) => return Err(failed(error)),
        }
    }
    Ok(())
}
