//! Settings: flag, then `PIPELETD_*` variable, then configuration file, then default.
//!
//! [`Arguments`] is what may be said, the same for flags and file; [`Config`] is what holds. The
//! process environment is read here and nowhere else.

mod byte_size;
pub(crate) mod fuzzing;

use std::{
    ffi::OsString,
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{ArgAction, Parser, Subcommand, ValueEnum};
use serde::Deserialize;

pub use self::byte_size::{ByteSize, InvalidByteSize};
use crate::{
    auth::{ApiKey, InvalidApiKey},
    delivery::policy::{InvalidSchedule, RetrySchedule},
    limits::Rate,
    ocpp::TlsOptions,
    tls::TlsFiles,
    webhooks::{AllowedTarget, InvalidAllowedTarget},
};

/// What holds.
#[derive(Debug, Clone)]
pub struct Config {
    pub task: Task,
    pub data_dir: PathBuf,
    pub secrets_key_file: Option<PathBuf>,
    pub http_listen: SocketAddr,
    pub grpc_listen: SocketAddr,
    pub api_tls: Option<TlsFiles>,
    pub api_rate: Rate,
    pub api_max_connections: usize,
    pub ocpp_listen: SocketAddr,
    pub ocpp_tls: Option<TlsOptions>,
    pub ocpp_rate: Rate,
    pub stations: StationsPolicy,
    pub retry_schedule: RetrySchedule,
    pub max_attempts: u32,
    pub delivery_timeout: Duration,
    pub webhook_concurrency: usize,
    pub backlog_age: Duration,
    pub ca_file: Option<PathBuf>,
    pub allow_private_targets: bool,
    pub allow_targets: Vec<AllowedTarget>,
    pub retention: Duration,
    pub retention_size: ByteSize,
    pub heartbeat_interval: Duration,
    pub ping_interval: Duration,
    pub ocpp_strict: bool,
    pub authorize: Authorize,
    pub max_connections: usize,
    pub shutdown_grace: Duration,
    pub log_level: String,
    pub log_format: LogFormat,
    pub bootstrap_key: Option<ApiKey>,
}

/// What to do, where it is not to run as the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Default, Subcommand)]
pub enum Task {
    #[default]
    #[command(skip)]
    Run,
    /// Seals the webhooks' secrets with a new key, and forgets the one before
    ///
    /// For a daemon that does not run. Interrupted, it is finished by the next call or start.
    RotateSecretsKey,
    /// Makes a store of a backup, in a data directory that has none
    ///
    /// The key that the secrets were sealed with (secrets.key) is no part of a backup, and has to
    /// be put into the data directory, too, before the daemon starts.
    Restore {
        /// What `pipeletctl backup` has written
        file: PathBuf,
        /// Renames a store that is there, as a damaged one, instead of refusing
        #[arg(long)]
        set_aside: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Text,
    Json,
}

/// Whose id tags may charge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Authorize {
    /// Everybody's
    AcceptAll,
    /// Those that are registered, as their entries say
    Registered,
}

/// Which stations may connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StationsPolicy {
    Open,
    Registered,
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A flag or variable can't be read, or help was asked for.
    #[error(transparent)]
    Arguments(#[from] clap::Error),
    #[error("can't read the configuration file {path}: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("the configuration file {path} is wrong: {source}")]
    Parse {
        path: PathBuf,
        source: Box<toml::de::Error>,
    },
    #[error("retry-schedule: {0}; write waits such as \"30s,1m,5m\"")]
    Schedule(#[from] InvalidSchedule),
    #[error("{name}: {why}")]
    Value { name: &'static str, why: String },
    #[error("PIPELETD_BOOTSTRAP_KEY is not usable: {0}")]
    BootstrapKey(#[from] InvalidApiKey),
    #[error("there is no home directory to keep data in; name one with --data-dir")]
    NoDataDir,
}

impl ConfigError {
    /// Whether the configuration file is what is wrong, rather than the command line.
    pub const fn is_of_file(&self) -> bool {
        matches!(self, Self::Read { .. } | Self::Parse { .. })
    }
}

/// Tells applications, reliably and at once, what happens on EV chargers.
///
/// Chargers connect over OCPP 1.6J WebSockets; each event is on disk before it is acknowledged,
/// and reaches every webhook that wants it at least once. A flag goes before its PIPELETD_*
/// variable, which goes before the configuration file.
#[derive(Debug, Default, Parser, Deserialize)]
#[command(name = "pipeletd", version, max_term_width = 100)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Arguments {
    #[command(subcommand)]
    #[serde(skip)]
    task: Option<Task>,

    /// A TOML file with any of these settings, under the flags' names
    #[arg(long, env = "PIPELETD_CONFIG", value_name = "FILE", global = true)]
    #[serde(skip)]
    config: Option<PathBuf>,

    /// Where everything is kept [default: the XDG data directory + pipelet]
    #[arg(long, env = "PIPELETD_DATA_DIR", value_name = "DIR", global = true)]
    data_dir: Option<PathBuf>,

    /// The key that the webhooks' secrets are sealed with [default: secrets.key in the data
    /// directory, made at the first start]
    #[arg(
        long,
        env = "PIPELETD_SECRETS_KEY_FILE",
        value_name = "FILE",
        global = true
    )]
    secrets_key_file: Option<PathBuf>,

    /// REST and health checks; port 0 takes a free one [default: 127.0.0.1:8080]
    #[arg(long, env = "PIPELETD_HTTP_LISTEN", value_name = "ADDRESS")]
    http_listen: Option<SocketAddr>,

    /// gRPC, with health and reflection [default: 127.0.0.1:50051]
    #[arg(long, env = "PIPELETD_GRPC_LISTEN", value_name = "ADDRESS")]
    grpc_listen: Option<SocketAddr>,

    /// The certificate chain (PEM) that callers of REST and gRPC see; read again at SIGHUP
    #[arg(long, env = "PIPELETD_API_TLS_CERT", value_name = "FILE")]
    api_tls_cert: Option<PathBuf>,

    /// The certificate's key (PEM); read again at SIGHUP
    #[arg(long, env = "PIPELETD_API_TLS_KEY", value_name = "FILE")]
    api_tls_key: Option<PathBuf>,

    /// How often one API key may call; faster ones are told to wait [default: 200/s]
    #[arg(long, env = "PIPELETD_API_RATE", value_name = "RATE")]
    api_rate: Option<String>,

    /// Connections at once to REST, and as many to gRPC [default: 256]
    #[arg(long, env = "PIPELETD_API_MAX_CONNECTIONS", value_name = "N")]
    api_max_connections: Option<usize>,

    /// Chargers, at `ws://ADDRESS/ocpp/{station_id}` [default: 127.0.0.1:9000]
    #[arg(long, env = "PIPELETD_OCPP_LISTEN", value_name = "ADDRESS")]
    ocpp_listen: Option<SocketAddr>,

    /// Chargers over TLS, at `wss://ADDRESS/ocpp/{station_id}` [default: none]
    #[arg(long, env = "PIPELETD_OCPP_TLS_LISTEN", value_name = "ADDRESS")]
    ocpp_tls_listen: Option<SocketAddr>,

    /// The certificate chain (PEM) that chargers see; read again at SIGHUP
    #[arg(long, env = "PIPELETD_OCPP_TLS_CERT", value_name = "FILE")]
    ocpp_tls_cert: Option<PathBuf>,

    /// The certificate's key (PEM); read again at SIGHUP
    #[arg(long, env = "PIPELETD_OCPP_TLS_KEY", value_name = "FILE")]
    ocpp_tls_key: Option<PathBuf>,

    /// The authorities (PEM) whose client certificates chargers may show; read again at SIGHUP
    #[arg(long, env = "PIPELETD_OCPP_CLIENT_CA", value_name = "FILE")]
    ocpp_client_ca: Option<PathBuf>,

    /// How fast one charger is read; faster ones have to wait [default: 1000/s]
    #[arg(long, env = "PIPELETD_OCPP_RATE", value_name = "RATE")]
    ocpp_rate: Option<String>,

    /// Who may connect: every charger, or those that were registered [default: open]
    #[arg(long, env = "PIPELETD_STATIONS", value_enum)]
    stations: Option<StationsPolicy>,

    /// The wait after the n-th failed attempt; the last repeats [default: 30s,1m,5m,30m,2h,6h,24h]
    #[arg(long, env = "PIPELETD_RETRY_SCHEDULE", value_name = "WAITS")]
    retry_schedule: Option<String>,

    /// POSTs of a delivery in all; then it is dead-lettered [default: 7]
    #[arg(long, env = "PIPELETD_MAX_ATTEMPTS", value_name = "N")]
    max_attempts: Option<u32>,

    /// The most that one POST may take, from connecting to the end of the answer [default: 10s]
    #[arg(long, env = "PIPELETD_DELIVERY_TIMEOUT", value_name = "TIME")]
    delivery_timeout: Option<String>,

    /// POSTs in flight at once, for each webhook [default: 64]
    #[arg(long, env = "PIPELETD_WEBHOOK_CONCURRENCY", value_name = "N")]
    webhook_concurrency: Option<usize>,

    /// An event that could not be attempted for so long is dead-lettered [default: 7d]
    #[arg(long, env = "PIPELETD_BACKLOG_AGE", value_name = "TIME")]
    backlog_age: Option<String>,

    /// Certificates (PEM) to trust for https receivers, beside the system's
    #[arg(long, env = "PIPELETD_CA_FILE", value_name = "FILE")]
    ca_file: Option<PathBuf>,

    /// Allows webhooks to loopback, private and link-local addresses
    #[arg(long, env = "PIPELETD_ALLOW_PRIVATE_TARGETS", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", action = ArgAction::Set)]
    allow_private_targets: Option<bool>,

    /// Allows webhooks to this network (CIDR) or address, whatever it is; may be repeated
    #[arg(
        long,
        env = "PIPELETD_ALLOW_TARGET",
        value_name = "CIDR",
        value_delimiter = ','
    )]
    allow_target: Vec<String>,

    /// How long settled events are kept [default: 24h]
    #[arg(long, env = "PIPELETD_RETENTION", value_name = "TIME")]
    retention: Option<String>,

    /// How much of settled events is kept [default: 4GiB]
    #[arg(long, env = "PIPELETD_RETENTION_SIZE", value_name = "SIZE")]
    retention_size: Option<ByteSize>,

    /// For a first try on your own machine: allows private targets, logs for people
    #[arg(long, env = "PIPELETD_DEV", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", action = ArgAction::Set)]
    dev: Option<bool>,

    /// The heartbeat interval that a `BootNotification` is answered with [default: 300s]
    #[arg(long, env = "PIPELETD_HEARTBEAT_INTERVAL", value_name = "TIME")]
    heartbeat_interval: Option<String>,

    /// How often a quiet charger is pinged [default: 60s]
    #[arg(long, env = "PIPELETD_PING_INTERVAL", value_name = "TIME")]
    ping_interval: Option<String>,

    /// Answers messages that violate OCPP's schemas with CALLERRORs instead of tolerating them
    #[arg(long, env = "PIPELETD_OCPP_STRICT", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", action = ArgAction::Set)]
    ocpp_strict: Option<bool>,

    /// Whose id tags may charge [default: accept-all]
    #[arg(long, env = "PIPELETD_AUTHORIZE", value_enum)]
    authorize: Option<Authorize>,

    /// Chargers that may be connected at once [default: 50000]
    #[arg(long, env = "PIPELETD_MAX_CONNECTIONS", value_name = "N")]
    max_connections: Option<usize>,

    /// How long attempts in flight may take to finish at shutdown [default: 10s]
    #[arg(long, env = "PIPELETD_SHUTDOWN_GRACE", value_name = "TIME")]
    shutdown_grace: Option<String>,

    /// error, warn, info, debug or trace [default: info]
    #[arg(long, env = "PIPELETD_LOG_LEVEL", value_name = "LEVEL")]
    log_level: Option<String>,

    /// [default: text on a terminal and with --dev, else json]
    #[arg(long, env = "PIPELETD_LOG_FORMAT", value_enum)]
    log_format: Option<LogFormat>,
}

/// What the process environment says beside flags and their variables.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// Never a flag: others on the machine could read it.
    pub bootstrap_key: Option<String>,
    pub xdg_data_home: Option<PathBuf>,
    pub home: Option<PathBuf>,
    pub stderr_is_terminal: bool,
}

impl Surroundings {
    #[expect(clippy::disallowed_methods, reason = "this is the one place")]
    pub fn of_process() -> Self {
        let path = |name| {
            std::env::var_os(name)
                .filter(|path| !path.is_empty())
                .map(PathBuf::from)
        };
        Self {
            bootstrap_key: std::env::var("PIPELETD_BOOTSTRAP_KEY").ok(),
            xdg_data_home: path("XDG_DATA_HOME"),
            home: path("HOME"),
            stderr_is_terminal: io::IsTerminal::is_terminal(&io::stderr()),
        }
    }
}

impl Config {
    /// Reads the process's arguments, environment and configuration file.
    pub fn load() -> Result<Self, ConfigError> {
        Self::from(std::env::args_os(), &Surroundings::of_process())
    }

    pub fn from(
        arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>,
        surroundings: &Surroundings,
    ) -> Result<Self, ConfigError> {
        let said = Arguments::try_parse_from(arguments)?;
        let file = said
            .config
            .as_deref()
            .map_or_else(|| Ok(Arguments::default()), read_file)?;
        resolve(said, file, surroundings)
    }
}

fn read_file(path: &Path) -> Result<Arguments, ConfigError> {
    let text = fs::read_to_string(path).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })?;
    toml::from_str(&text).map_err(|source| ConfigError::Parse {
        path: path.to_owned(),
        source: source.into(),
    })
}

#[expect(clippy::too_many_lines, reason = "one entry for each setting")]
fn resolve(
    said: Arguments,
    file: Arguments,
    surroundings: &Surroundings,
) -> Result<Config, ConfigError> {
    let dev = said.dev.or(file.dev).unwrap_or(false);
    let allow_private = said.allow_private_targets.or(file.allow_private_targets);
    let schedule = said.retry_schedule.or(file.retry_schedule);
    let schedule = schedule
        .as_deref()
        .unwrap_or(RetrySchedule::DEFAULT)
        .parse()?;
    let quiet = !surroundings.stderr_is_terminal && !dev;
    let default_format = if quiet {
        LogFormat::Json
    } else {
        LogFormat::Text
    };
    let bootstrap_key = surroundings
        .bootstrap_key
        .as_deref()
        .map(ApiKey::parse)
        .transpose()?;
    let data_dir = said.data_dir.or(file.data_dir).map_or_else(
        || default_data_dir(surroundings).ok_or(ConfigError::NoDataDir),
        Ok,
    )?;
    let any = Duration::ZERO..=Duration::MAX;
    let some = Duration::from_millis(1)..=Duration::from_hours(1);
    let seconds = Duration::from_secs(1)..=Duration::from_hours(24);
    Ok(Config {
        task: said.task.unwrap_or_default(),
        data_dir,
        secrets_key_file: said.secrets_key_file.or(file.secrets_key_file),
        http_listen: said.http_listen.or(file.http_listen).unwrap_or(local(8080)),
        grpc_listen: said
            .grpc_listen
            .or(file.grpc_listen)
            .unwrap_or(local(50051)),
        api_tls: api_tls(
            said.api_tls_cert.or(file.api_tls_cert),
            said.api_tls_key.or(file.api_tls_key),
        )?,
        api_rate: rate(
            "api-rate",
            said.api_rate.or(file.api_rate).as_deref(),
            "200/s",
        )?,
        api_max_connections: at_least_one(
            "api-max-connections",
            said.api_max_connections.or(file.api_max_connections),
            256,
        )?,
        ocpp_listen: said.ocpp_listen.or(file.ocpp_listen).unwrap_or(local(9000)),
        ocpp_tls: ocpp_tls(
            said.ocpp_tls_listen.or(file.ocpp_tls_listen),
            said.ocpp_tls_cert.or(file.ocpp_tls_cert),
            said.ocpp_tls_key.or(file.ocpp_tls_key),
            said.ocpp_client_ca.or(file.ocpp_client_ca),
        )?,
        ocpp_rate: rate(
            "ocpp-rate",
            said.ocpp_rate.or(file.ocpp_rate).as_deref(),
            "1000/s",
        )?,
        stations: said
            .stations
            .or(file.stations)
            .unwrap_or(StationsPolicy::Open),
        retry_schedule: schedule,
        max_attempts: at_least_one("max-attempts", said.max_attempts.or(file.max_attempts), 7)?,
        delivery_timeout: time(
            "delivery-timeout",
            said.delivery_timeout.or(file.delivery_timeout).as_deref(),
            "10s",
            &some,
        )?,
        webhook_concurrency: at_least_one(
            "webhook-concurrency",
            said.webhook_concurrency.or(file.webhook_concurrency),
            64,
        )?,
        backlog_age: time(
            "backlog-age",
            said.backlog_age.or(file.backlog_age).as_deref(),
            "7d",
            &any,
        )?,
        ca_file: said.ca_file.or(file.ca_file),
        allow_private_targets: allow_private.unwrap_or(dev),
        allow_targets: allow_targets(said.allow_target, file.allow_target)?,
        retention: time(
            "retention",
            said.retention.or(file.retention).as_deref(),
            "24h",
            &any,
        )?,
        retention_size: said
            .retention_size
            .or(file.retention_size)
            .unwrap_or(ByteSize::gib(4)),
        heartbeat_interval: time(
            "heartbeat-interval",
            said.heartbeat_interval
                .or(file.heartbeat_interval)
                .as_deref(),
            "300s",
            &seconds,
        )?,
        ping_interval: time(
            "ping-interval",
            said.ping_interval.or(file.ping_interval).as_deref(),
            "60s",
            &some,
        )?,
        authorize: said
            .authorize
            .or(file.authorize)
            .unwrap_or(Authorize::AcceptAll),
        ocpp_strict: said.ocpp_strict.or(file.ocpp_strict).unwrap_or(false),
        max_connections: at_least_one(
            "max-connections",
            said.max_connections.or(file.max_connections),
            50_000,
        )?,
        shutdown_grace: time(
            "shutdown-grace",
            said.shutdown_grace.or(file.shutdown_grace).as_deref(),
            "10s",
            &any,
        )?,
        log_level: said
            .log_level
            .or(file.log_level)
            .unwrap_or_else(|| "info".to_owned()),
        log_format: said
            .log_format
            .or(file.log_format)
            .unwrap_or(default_format),
        bootstrap_key,
    })
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// XDG Base Directory Specification, section 3.
fn default_data_dir(surroundings: &Surroundings) -> Option<PathBuf> {
    let home = || {
        surroundings
            .home
            .as_ref()
            .map(|home| home.join(".local/share"))
    };
    let base = surroundings.xdg_data_home.clone().or_else(home)?;
    Some(base.join("pipelet"))
}

fn at_least_one<T: From<u8> + PartialOrd>(
    name: &'static str,
    given: Option<T>,
    default: T,
) -> Result<T, ConfigError> {
    match given {
        Some(number) if number < T::from(1) => Err(ConfigError::Value {
            name,
            why: "it is at least 1".to_owned(),
        }),
        Some(number) => Ok(number),
        None => Ok(default),
    }
}

/// An address and its files, all of them or none.
fn ocpp_tls(
    listen: Option<SocketAddr>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    client_ca: Option<PathBuf>,
) -> Result<Option<TlsOptions>, ConfigError> {
    match (listen, certificate, key) {
        (Some(listen), Some(certificate), Some(key)) => Ok(Some(TlsOptions {
            listen,
            files: TlsFiles {
                certificate,
                key,
                client_ca,
            },
        })),
        (None, None, None) if client_ca.is_none() => Ok(None),
        // Whoever names a certificate believes to have TLS.
        _ => Err(ConfigError::Value {
            name: "ocpp-tls-listen",
            why: "it goes together with ocpp-tls-cert and ocpp-tls-key".to_owned(),
        }),
    }
}

fn allow_targets(said: Vec<String>, file: Vec<String>) -> Result<Vec<AllowedTarget>, ConfigError> {
    let given = if said.is_empty() { file } else { said };
    let parse = |text: &String| {
        text.trim()
            .parse()
            .map_err(|error: InvalidAllowedTarget| ConfigError::Value {
                name: "allow-target",
                why: error.to_string(),
            })
    };
    given.iter().map(parse).collect()
}

/// A certificate and its key, or neither.
fn api_tls(
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
) -> Result<Option<TlsFiles>, ConfigError> {
    match (certificate, key) {
        (Some(certificate), Some(key)) => Ok(Some(TlsFiles {
            certificate,
            key,
            client_ca: None,
        })),
        (None, None) => Ok(None),
        (Some(_), None) | (None, Some(_)) => Err(ConfigError::Value {
            name: "api-tls-cert",
            why: "it goes together with api-tls-key".to_owned(),
        }),
    }
}

fn rate(name: &'static str, given: Option<&str>, default: &str) -> Result<Rate, ConfigError> {
    let text = given.unwrap_or(default);
    text.parse().map_err(|error| ConfigError::Value {
        name,
        why: format!("{text:?}: {error}"),
    })
}

fn time(
    name: &'static str,
    given: Option<&str>,
    default: &str,
    allowed: &std::ops::RangeInclusive<Duration>,
) -> Result<Duration, ConfigError> {
    let text = given.unwrap_or(default);
    let wrong = |why: String| ConfigError::Value { name, why };
    let time = humantime::parse_duration(text)
        .map_err(|error| wrong(format!("{text:?} is no time such as \"10s\": {error}")))?;
    if allowed.contains(&time) {
        return Ok(time);
    }
    let show = humantime::format_duration;
    let (least, most) = (show(*allowed.start()), show(*allowed.end()));
    Err(wrong(format!("{text:?} is not between {least} and {most}")))
}

#[cfg(test)]
mod tests;
