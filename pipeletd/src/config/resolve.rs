//! From what was said to what holds: what settings mean together, and defaults that depend on
//! where the daemon runs.

use std::{ffi::OsString, path::PathBuf};

use super::{
    Config, Fault, Origin, Setting, Surroundings, arguments::Arguments, store_choice::StoreChoice,
};
use crate::{
    auth::ApiKey, ocpp::TlsOptions, store::jetstream::ClusterOptions, system::tls::TlsFiles,
    telemetry::LogFormat,
};

/// Completes `settings` with the defaults that are found only here.
pub(super) fn resolve(
    said: Arguments,
    surroundings: &Surroundings,
    settings: &mut [Setting],
) -> Result<Config, Vec<Fault>> {
    let mut faults = Vec::new();
    let cluster = cluster(&said, settings);
    let data_dir = said.data_dir.or_else(|| default_data_dir(surroundings));
    if data_dir.is_none() {
        faults.push(Fault::NoDataDir);
    }
    let key = surroundings.bootstrap_key.as_deref().map(ApiKey::parse);
    let bootstrap_key = key.transpose().unwrap_or_else(|error| {
        faults.push(Fault::BootstrapKey(error));
        None
    });
    let api_tls = api_tls(said.api_tls_cert, said.api_tls_key).unwrap_or_else(|needed| {
        faults.push(incomplete(settings, &needed, &[]));
        None
    });
    let ocpp_tls = match (said.ocpp_tls_listen, said.ocpp_tls_cert, said.ocpp_tls_key) {
        (Some(listen), Some(certificate), Some(key)) => Some(TlsOptions {
            listen,
            files: TlsFiles {
                certificate,
                key,
                client_ca: said.ocpp_client_ca,
            },
        }),
        (None, None, None) if said.ocpp_client_ca.is_none() => None,
        // Whoever names a certificate believes to have TLS.
        _ => {
            let needed = ["ocpp-tls-listen", "ocpp-tls-cert", "ocpp-tls-key"];
            faults.push(incomplete(settings, &needed, &["ocpp-client-ca"]));
            None
        }
    };
    let default_format = if surroundings.stderr_is_terminal || said.dev {
        LogFormat::Text
    } else {
        LogFormat::Json
    };
    let log_format = said.log_format.unwrap_or(default_format);
    let allow_private_targets = said.allow_private_targets.unwrap_or(said.dev);
    let dev = if said.dev {
        Origin::Dev
    } else {
        Origin::Default
    };
    complete(settings, "log-format", log_format.name(), &dev);
    complete(
        settings,
        "allow-private-targets",
        allow_private_targets.to_string(),
        &dev,
    );
    if let Some(data_dir) = &data_dir {
        complete(settings, "data-dir", data_dir, &Origin::Default);
    }
    let Some(data_dir) = data_dir.filter(|_| faults.is_empty()) else {
        return Err(faults);
    };
    Ok(Config {
        data_dir,
        secrets_key_file: said.secrets_key_file,
        cluster,
        http_listen: said.http_listen,
        grpc_listen: said.grpc_listen,
        api_tls,
        api_rate: said.api_rate,
        api_max_connections: said.api_max_connections,
        ocpp_listen: said.ocpp_listen,
        ocpp_tls,
        ocpp_rate: said.ocpp_rate,
        ocpp_handshake_timeout: said.ocpp_handshake_timeout,
        ocpp_max_unfinished: said.ocpp_max_unfinished,
        stations: said.stations,
        retry_schedule: said.retry_schedule,
        max_attempts: said.max_attempts,
        delivery_timeout: said.delivery_timeout,
        webhook_concurrency: said.webhook_concurrency,
        backlog_age: said.backlog_age,
        ca_file: said.ca_file,
        allow_private_targets,
        allow_targets: said.allow_target,
        memory_budget: said.memory_budget,
        retention: said.retention,
        retention_size: said.retention_size,
        transaction_retention: said.transaction_retention,
        transaction_abandon_after: said.transaction_abandon_after,
        heartbeat_interval: said.heartbeat_interval,
        ping_interval: said.ping_interval,
        ocpp_strict: said.ocpp_strict,
        authorize: said.authorize,
        max_connections: said.max_connections,
        max_stations: said.max_stations,
        shutdown_grace: said.shutdown_grace,
        log_level: said.log_level,
        log_format,
        otlp_endpoint: said.otlp_endpoint,
        bootstrap_key,
    })
}

/// Fails with what goes together.
fn api_tls(
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
) -> Result<Option<TlsFiles>, [&'static str; 2]> {
    match (certificate, key) {
        (Some(certificate), Some(key)) => Ok(Some(TlsFiles {
            certificate,
            key,
            client_ca: None,
        })),
        (None, None) => Ok(None),
        (Some(_), None) | (None, Some(_)) => Err(["api-tls-cert", "api-tls-key"]),
    }
}

/// Gives a setting its default, where nothing was said of it.
fn complete(settings: &mut [Setting], name: &str, default: impl Into<OsString>, origin: &Origin) {
    let setting = settings.iter_mut().find(|setting| setting.name == name);
    if let Some(setting) = setting.filter(|setting| setting.values.is_empty()) {
        setting.values = vec![default.into()];
        setting.origin = origin.clone();
    }
}

/// Something that needs `needed` has only some of it; it is told of the first that was given.
fn incomplete(settings: &[Setting], needed: &[&'static str], beside: &[&str]) -> Fault {
    let of = |name: &&str| {
        let known = |setting: &&Setting| setting.name == **name && !setting.values.is_empty();
        settings.iter().find(known)
    };
    let given = needed.iter().chain(beside).find_map(&of);
    let missing = needed.iter().filter(|name| of(name).is_none());
    Fault::Incomplete {
        name: given.map_or_else(String::new, |setting| setting.name.clone()),
        origin: given.map_or(Origin::Default, |setting| setting.origin.clone()),
        missing: missing.copied().collect(),
    }
}

/// XDG Base Directory Specification, section 3.
fn default_data_dir(surroundings: &Surroundings) -> Option<PathBuf> {
    let home = surroundings.home.as_ref();
    let home = || home.map(|home| home.join(".local/share"));
    let base = surroundings.xdg_data_home.clone().or_else(home)?;
    Some(base.join("pipelet"))
}

/// The cluster that is to be joined, if any.
fn cluster(said: &Arguments, settings: &mut [Setting]) -> Option<ClusterOptions> {
    let node = said.node.clone().unwrap_or_else(host_name);
    complete(settings, "node", &node, &Origin::Default);
    let StoreChoice::Nats(servers) = &said.store else {
        return None;
    };
    Some(ClusterOptions {
        servers: servers.clone(),
        cluster: said.cluster.clone(),
        node,
        credentials: said.nats_creds.clone(),
        authorities: said.nats_ca_file.clone(),
        shards: said.shards,
        replicas: said.replicas.map(usize::from),
    })
}

/// What of the host's name can stand in a node's.
fn host_name() -> String {
    let system = rustix::system::uname();
    let name = system.nodename().to_string_lossy();
    let name = name.split('.').next().unwrap_or_default();
    let fit = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let name: String = name.chars().filter(fit).collect();
    if name.is_empty() {
        "node".to_owned()
    } else {
        name
    }
}
