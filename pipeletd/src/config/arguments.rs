//! What may be said: every setting once, with its flag, its variable, its default and what of it
//! can be read. The configuration file has them under the flags' names, by the same rules.

use std::{net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

use clap::{ArgAction, Parser};
use pipelet_domain::webhooks::{AllowedTarget, InvalidAllowedTarget};

use super::{
    Authorize, ByteSize, InvalidByteSize, StationsPolicy, Task, store_choice::StoreChoice,
};
use crate::{
    delivery::policy::RetrySchedule,
    system::limits::{Rate, memory::MemoryBudget},
    telemetry::{self, Endpoint, InvalidLevel, LogFormat},
};

/// Tells applications, reliably and at once, what happens on EV chargers.
///
/// Chargers connect over OCPP 1.6J WebSockets; each event is on disk before it is acknowledged,
/// and reaches every webhook that wants it at least once. A flag goes before its PIPELETD_*
/// variable, which goes before the configuration file.
#[derive(Debug, Parser)]
#[command(name = "pipeletd", version, max_term_width = 100)]
pub(super) struct Arguments {
    #[command(subcommand)]
    pub(super) task: Option<Task>,

    /// A TOML file with any of these settings, under the flags' names
    #[arg(long, env = "PIPELETD_CONFIG", value_name = "FILE", global = true)]
    pub(super) config: Option<PathBuf>,

    /// Reads everything that a start reads, says all that is wrong with it, and ends
    #[arg(long)]
    pub(super) check: bool,

    /// Where everything is kept [default: the XDG data directory + pipelet]
    #[arg(long, env = "PIPELETD_DATA_DIR", value_name = "DIR", global = true)]
    pub(super) data_dir: Option<PathBuf>,

    /// The key that the webhooks' secrets are sealed with [default: secrets.key in the data
    /// directory, made at the first start]
    #[arg(
        long,
        env = "PIPELETD_SECRETS_KEY_FILE",
        value_name = "FILE",
        global = true
    )]
    pub(super) secrets_key_file: Option<PathBuf>,

    /// What everything is kept in: sled, in the data directory, or the NATS servers of a cluster
    /// (`nats://HOST[:PORT][,HOST…]`)
    #[arg(
        long,
        env = "PIPELETD_STORE",
        value_name = "STORE",
        default_value = "sled"
    )]
    pub(super) store: StoreChoice,

    /// The cluster's name, which its streams and subjects begin with
    #[arg(
        long,
        env = "PIPELETD_CLUSTER",
        value_name = "NAME",
        value_parser = cluster_name,
        default_value = "pipelet"
    )]
    pub(super) cluster: String,

    /// This node's name in the cluster [default: the host's name]
    #[arg(long, env = "PIPELETD_NODE", value_name = "NAME", value_parser = cluster_name)]
    pub(super) node: Option<String>,

    /// The credentials that NATS has given this node [default: none]
    #[arg(long, env = "PIPELETD_NATS_CREDS", value_name = "FILE")]
    pub(super) nats_creds: Option<PathBuf>,

    /// Authorities (PEM) that vouch for the NATS servers, beside the system's [default: none]
    #[arg(long, env = "PIPELETD_NATS_CA_FILE", value_name = "FILE")]
    pub(super) nats_ca_file: Option<PathBuf>,

    /// How many shards a cluster has, which is said when it is made [default: 16, or what the
    /// cluster has]
    #[arg(
        long,
        env = "PIPELETD_SHARDS",
        value_name = "N",
        value_parser = clap::value_parser!(u16).range(1..=1024)
    )]
    pub(super) shards: Option<u16>,

    /// How many NATS servers have each message, which is said when a cluster is made [default: 3,
    /// or 1 on a single server]
    #[arg(
        long,
        env = "PIPELETD_REPLICAS",
        value_name = "N",
        value_parser = clap::value_parser!(u8).range(1..=5)
    )]
    pub(super) replicas: Option<u8>,

    /// REST and health checks; port 0 takes a free one
    #[arg(
        long,
        env = "PIPELETD_HTTP_LISTEN",
        value_name = "ADDRESS",
        value_parser = address,
        default_value = "127.0.0.1:8080"
    )]
    pub(super) http_listen: SocketAddr,

    /// gRPC, with health and reflection
    #[arg(
        long,
        env = "PIPELETD_GRPC_LISTEN",
        value_name = "ADDRESS",
        value_parser = address,
        default_value = "127.0.0.1:50051"
    )]
    pub(super) grpc_listen: SocketAddr,

    /// The certificate chain (PEM) that callers of REST and gRPC see; read again at SIGHUP
    #[arg(long, env = "PIPELETD_API_TLS_CERT", value_name = "FILE")]
    pub(super) api_tls_cert: Option<PathBuf>,

    /// The certificate's key (PEM); read again at SIGHUP
    #[arg(long, env = "PIPELETD_API_TLS_KEY", value_name = "FILE")]
    pub(super) api_tls_key: Option<PathBuf>,

    /// How often one API key may call; faster ones are told to wait
    #[arg(
        long,
        env = "PIPELETD_API_RATE",
        value_name = "RATE",
        default_value = "200/s"
    )]
    pub(super) api_rate: Rate,

    /// Connections at once to REST, and as many to gRPC
    #[arg(long, env = "PIPELETD_API_MAX_CONNECTIONS", value_name = "N", value_parser = at_least_one::<usize>, default_value = "256")]
    pub(super) api_max_connections: usize,

    /// Chargers, at `ws://ADDRESS/ocpp/{station_id}`
    #[arg(
        long,
        env = "PIPELETD_OCPP_LISTEN",
        value_name = "ADDRESS",
        value_parser = address,
        default_value = "127.0.0.1:9000"
    )]
    pub(super) ocpp_listen: SocketAddr,

    /// Chargers over TLS, at `wss://ADDRESS/ocpp/{station_id}` [default: none]
    #[arg(long, env = "PIPELETD_OCPP_TLS_LISTEN", value_name = "ADDRESS", value_parser = address)]
    pub(super) ocpp_tls_listen: Option<SocketAddr>,

    /// The certificate chain (PEM) that chargers see; read again at SIGHUP
    #[arg(long, env = "PIPELETD_OCPP_TLS_CERT", value_name = "FILE")]
    pub(super) ocpp_tls_cert: Option<PathBuf>,

    /// The certificate's key (PEM); read again at SIGHUP
    #[arg(long, env = "PIPELETD_OCPP_TLS_KEY", value_name = "FILE")]
    pub(super) ocpp_tls_key: Option<PathBuf>,

    /// The authorities (PEM) whose client certificates chargers may show; read again at SIGHUP
    #[arg(long, env = "PIPELETD_OCPP_CLIENT_CA", value_name = "FILE")]
    pub(super) ocpp_client_ca: Option<PathBuf>,

    /// How fast one charger is read; faster ones have to wait
    #[arg(
        long,
        env = "PIPELETD_OCPP_RATE",
        value_name = "RATE",
        default_value = "1000/s"
    )]
    pub(super) ocpp_rate: Rate,

    /// The most that a charger's handshake may take, TLS included
    #[arg(long, env = "PIPELETD_OCPP_HANDSHAKE_TIMEOUT", value_name = "TIME", value_parser = short_time, default_value = "3s")]
    pub(super) ocpp_handshake_timeout: Duration,

    /// What chargers' messages may take whose end has not come, all together; beyond it, the
    /// charger with the largest has to come again
    #[arg(long, env = "PIPELETD_OCPP_MAX_UNFINISHED", value_name = "SIZE", value_parser = room_for_a_message, default_value = "32MiB")]
    pub(super) ocpp_max_unfinished: ByteSize,

    /// Who may connect: every charger, or those that were registered
    #[arg(long, env = "PIPELETD_STATIONS", value_enum, default_value = "open")]
    pub(super) stations: StationsPolicy,

    /// The wait after the n-th failed attempt; the last repeats
    #[arg(long, env = "PIPELETD_RETRY_SCHEDULE", value_name = "WAITS", default_value = RetrySchedule::DEFAULT)]
    pub(super) retry_schedule: RetrySchedule,

    /// POSTs of a delivery in all; then it is dead-lettered
    #[arg(long, env = "PIPELETD_MAX_ATTEMPTS", value_name = "N", value_parser = at_least_one::<u32>, default_value = "7")]
    pub(super) max_attempts: u32,

    /// The most that one POST may take, from connecting to the end of the answer
    #[arg(long, env = "PIPELETD_DELIVERY_TIMEOUT", value_name = "TIME", value_parser = short_time, default_value = "10s")]
    pub(super) delivery_timeout: Duration,

    /// POSTs in flight at once, for each webhook
    #[arg(long, env = "PIPELETD_WEBHOOK_CONCURRENCY", value_name = "N", value_parser = at_least_one::<usize>, default_value = "64")]
    pub(super) webhook_concurrency: usize,

    /// An event that could not be attempted for so long is dead-lettered
    #[arg(long, env = "PIPELETD_BACKLOG_AGE", value_name = "TIME", value_parser = any_time, default_value = "7d")]
    pub(super) backlog_age: Duration,

    /// Certificates (PEM) to trust for https receivers, beside the system's
    #[arg(long, env = "PIPELETD_CA_FILE", value_name = "FILE")]
    pub(super) ca_file: Option<PathBuf>,

    /// Allows webhooks to loopback, private and link-local addresses
    #[arg(long, env = "PIPELETD_ALLOW_PRIVATE_TARGETS", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", action = ArgAction::Set)]
    pub(super) allow_private_targets: Option<bool>,

    /// Allows webhooks to this network (CIDR) or address, whatever it is; may be repeated
    #[arg(
        long,
        env = "PIPELETD_ALLOW_TARGET",
        value_name = "CIDR",
        value_delimiter = ',', value_parser = allowed_target)]
    pub(super) allow_target: Vec<AllowedTarget>,

    /// How much of events may be in memory at once: those on their way into the journal and to
    /// webhooks, and those that API callers read
    #[arg(long, env = "PIPELETD_MEMORY_BUDGET", value_name = "SIZE", value_parser = memory_budget, default_value = "64MiB")]
    pub(super) memory_budget: ByteSize,

    /// How long settled events are kept
    #[arg(long, env = "PIPELETD_RETENTION", value_name = "TIME", value_parser = any_time, default_value = "24h")]
    pub(super) retention: Duration,

    /// How much of settled events is kept
    #[arg(
        long,
        env = "PIPELETD_RETENTION_SIZE",
        value_name = "SIZE",
        default_value = "4GiB"
    )]
    pub(super) retention_size: ByteSize,

    /// How long transactions that have ended are kept
    #[arg(long, env = "PIPELETD_TRANSACTION_RETENTION", value_name = "TIME", value_parser = any_time, default_value = "400d")]
    pub(super) transaction_retention: Duration,

    /// An open transaction of which nothing is heard for so long ends as abandoned
    #[arg(long, env = "PIPELETD_TRANSACTION_ABANDON_AFTER", value_name = "TIME", value_parser = any_time, default_value = "30d")]
    pub(super) transaction_abandon_after: Duration,

    /// For a first try on your own machine: allows private targets, logs for people
    #[arg(long, env = "PIPELETD_DEV", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", action = ArgAction::Set, default_value = "false")]
    pub(super) dev: bool,

    /// The heartbeat interval that a `BootNotification` is answered with
    #[arg(long, env = "PIPELETD_HEARTBEAT_INTERVAL", value_name = "TIME", value_parser = long_time, default_value = "300s")]
    pub(super) heartbeat_interval: Duration,

    /// How often a quiet charger is pinged
    #[arg(long, env = "PIPELETD_PING_INTERVAL", value_name = "TIME", value_parser = short_time, default_value = "60s")]
    pub(super) ping_interval: Duration,

    /// Answers messages that violate OCPP's schemas with CALLERRORs instead of tolerating them
    #[arg(long, env = "PIPELETD_OCPP_STRICT", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", action = ArgAction::Set, default_value = "false")]
    pub(super) ocpp_strict: bool,

    /// Whose id tags may charge
    #[arg(
        long,
        env = "PIPELETD_AUTHORIZE",
        value_enum,
        default_value = "accept-all"
    )]
    pub(super) authorize: Authorize,

    /// Chargers that may be connected at once
    #[arg(long, env = "PIPELETD_MAX_CONNECTIONS", value_name = "N", value_parser = at_least_one::<usize>, default_value = "50000")]
    pub(super) max_connections: usize,

    /// Chargers that are known at once, connected or not; for one more, the one that is gone longest
    /// of those that are not registered is forgotten, those first that never booted
    #[arg(long, env = "PIPELETD_MAX_STATIONS", value_name = "N", value_parser = at_least_one::<usize>, default_value = "200000")]
    pub(super) max_stations: usize,

    /// How long attempts in flight may take to finish at shutdown
    #[arg(long, env = "PIPELETD_SHUTDOWN_GRACE", value_name = "TIME", value_parser = any_time, default_value = "10s")]
    pub(super) shutdown_grace: Duration,

    /// error, warn, info, debug or trace
    #[arg(long, env = "PIPELETD_LOG_LEVEL", value_name = "LEVEL", value_parser = log_level, default_value = "info")]
    pub(super) log_level: String,

    /// [default: text on a terminal and with --dev, else json]
    #[arg(long, env = "PIPELETD_LOG_FORMAT", value_enum)]
    pub(super) log_format: Option<LogFormat>,

    /// An OpenTelemetry collector (OTLP/HTTP) that gets each event and each attempt as a span
    /// [default: none]
    #[arg(long, env = "PIPELETD_OTLP_ENDPOINT", value_name = "URL")]
    pub(super) otlp_endpoint: Option<Endpoint>,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum InvalidTime {
    #[error("it is no time such as \"10s\" or \"1h 30m\"")]
    NoTime,
    #[error("it is not between {} and {}", humantime::format_duration(*.least), humantime::format_duration(*.most))]
    OutOfRange { least: Duration, most: Duration },
}

#[derive(Debug, thiserror::Error)]
pub(super) enum InvalidCount {
    #[error("it is no whole number, or too large")]
    NoNumber,
    #[error("it is at least 1")]
    Zero,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum InvalidMemoryBudget {
    #[error(transparent)]
    NoSize(#[from] InvalidByteSize),
    #[error("it is at least {} MiB, so that the largest events fit in", MemoryBudget::SMALLEST >> 20)]
    TooSmall,
}

#[derive(Debug, thiserror::Error)]
#[error("it is no address such as 127.0.0.1:8080 or [::1]:8080")]
pub(super) struct InvalidAddress;

fn at_least_one<T: FromStr + From<u8> + PartialOrd>(text: &str) -> Result<T, InvalidCount> {
    match text.parse() {
        Ok(number) if number < T::from(1) => Err(InvalidCount::Zero),
        parsed => parsed.map_err(|_| InvalidCount::NoNumber),
    }
}

#[derive(Debug, thiserror::Error)]
pub(super) enum InvalidRoom {
    #[error(transparent)]
    NoSize(#[from] InvalidByteSize),
    #[error("it is at least 1MiB, as one message may have")]
    TooSmall,
}

fn room_for_a_message(text: &str) -> Result<ByteSize, InvalidRoom> {
    let size: ByteSize = text.parse()?;
    if size.bytes() < 1 << 20 {
        return Err(InvalidRoom::TooSmall);
    }
    Ok(size)
}

/// Of a cluster or a node: a part of the names of streams and subjects.
fn cluster_name(text: &str) -> Result<String, &'static str> {
    let fit = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if (1..=32).contains(&text.len()) && text.chars().all(fit) {
        Ok(text.to_owned())
    } else {
        Err("write up to 32 letters, digits, - and _")
    }
}

fn address(text: &str) -> Result<SocketAddr, InvalidAddress> {
    text.parse().map_err(|_| InvalidAddress)
}

fn any_time(text: &str) -> Result<Duration, InvalidTime> {
    time(text, Duration::ZERO, Duration::MAX)
}

pub(super) fn short_time(text: &str) -> Result<Duration, InvalidTime> {
    time(text, Duration::from_millis(1), Duration::from_hours(1))
}

fn long_time(text: &str) -> Result<Duration, InvalidTime> {
    time(text, Duration::from_secs(1), Duration::from_hours(24))
}

fn time(text: &str, least: Duration, most: Duration) -> Result<Duration, InvalidTime> {
    let time = humantime::parse_duration(text).map_err(|_| InvalidTime::NoTime)?;
    if (least..=most).contains(&time) {
        Ok(time)
    } else {
        Err(InvalidTime::OutOfRange { least, most })
    }
}

fn memory_budget(text: &str) -> Result<ByteSize, InvalidMemoryBudget> {
    let size: ByteSize = text.parse()?;
    if size.bytes() < MemoryBudget::SMALLEST {
        return Err(InvalidMemoryBudget::TooSmall);
    }
    Ok(size)
}

fn allowed_target(text: &str) -> Result<AllowedTarget, InvalidAllowedTarget> {
    text.trim().parse()
}

fn log_level(text: &str) -> Result<String, InvalidLevel> {
    telemetry::filter(text).map(|_| text.to_owned())
}
