//! The way to the NATS servers.

use std::{
    future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_nats::{
    Client, ConnectErrorKind, ConnectOptions, Event, ServerError,
    jetstream::{self, Context, ErrorCode, context::AccountErrorKind},
};

use super::{ClusterError, ClusterOptions, record_stream::failed, refused};
use crate::store::StoreError;

/// Of a server: batched reads, and what else is needed.
const OLDEST_SERVER: [u64; 2] = [2, 12];
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// For a server's answer.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Connects to servers that this node may use, and that can do what it needs.
pub(super) async fn connect(options: &ClusterOptions) -> Result<Context, StoreError> {
    // Becomes true where a server doesn't let us ask for something.
    let forbidden = Arc::new(AtomicBool::new(false));
    let client = connect_client(options, Arc::clone(&forbidden)).await?;
    let mut jetstream = jetstream::new(client);
    jetstream.set_timeout(TIMEOUT);
    check_account(&jetstream, &options.cluster, &forbidden).await?;
    Ok(jetstream)
}

async fn connect_client(
    options: &ClusterOptions,
    forbidden: Arc<AtomicBool>,
) -> Result<Client, StoreError> {
    let servers: Vec<_> = options
        .servers
        .iter()
        .map(|it| format!("{}:{}", it.host(), it.port()))
        .collect();
    let servers = servers.join(",");
    let mut connect = ConnectOptions::new()
        .name(format!("pipeletd {}", options.node))
        .connection_timeout(CONNECT_TIMEOUT)
        .request_timeout(Some(TIMEOUT))
        .max_reconnects(None)
        .event_callback(move |event| {
            notice(&event, &forbidden);
            future::ready(())
        });
    // The library leaves out what stands in an address.
    let mut named = options.servers.iter();
    if let Some((user, password)) = named.find_map(|it| Some((it.username()?, it.password()?))) {
        connect = connect.user_and_password(user.to_owned(), password.to_owned());
    }
    if let Some(path) = &options.credentials {
        let unreadable = |source| {
            refused(ClusterError::Credentials {
                path: path.clone(),
                source,
            })
        };
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        connect = connect.credentials(&text).map_err(unreadable)?;
    }
    if let Some(path) = &options.authorities {
        connect = connect.add_root_certificates(path.clone());
    }
    let connected = async_nats::connect_with_options(options.servers.clone(), connect).await;
    let client = connected.map_err(|source| {
        let servers = servers.clone();
        refused(match source.kind() {
            ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
                ClusterError::NotLetIn { servers }
            }
            _ => ClusterError::Unreachable { servers, source },
        })
    })?;
    let info = client.server_info();
    let numbers = info
        .version
        .split(['.', '-'])
        .map(|it| it.parse().unwrap_or(0));
    if numbers.take(2).lt(OLDEST_SERVER) {
        let (server, version) = (info.server_name, info.version);
        return Err(refused(ClusterError::ServerTooOld { server, version }));
    }
    Ok(client)
}

/// Tells the log what becomes of the connection.
fn notice(event: &Event, forbidden: &AtomicBool) {
    match event {
        Event::Connected => tracing::info!("connected to NATS"),
        Event::Disconnected => tracing::warn!("the connection to NATS is lost"),
        Event::ServerError(ServerError::Other(why)) if why.contains("Permissions Violation") => {
            forbidden.store(true, Ordering::Relaxed);
            tracing::error!(why, "NATS forbids something");
        }
        event => tracing::debug!(%event, "NATS"),
    }
}

async fn check_account(
    jetstream: &Context,
    cluster: &str,
    forbidden: &AtomicBool,
) -> Result<(), StoreError> {
    let Err(error) = jetstream.query_account().await else {
        return Ok(());
    };
    let error = match error.kind() {
        AccountErrorKind::JetStreamUnavailable => ClusterError::NoJetStream,
        AccountErrorKind::JetStream(why)
            if matches!(
                why.error_code(),
                ErrorCode::JETSTREAM_NOT_ENABLED | ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT
            ) =>
        {
            ClusterError::NoJetStream
        }
        // No server answers before they have a leader, either.
        AccountErrorKind::TimedOut if forbidden.load(Ordering::Relaxed) => {
            ClusterError::NotPermitted {
                cluster: cluster.to_owned(),
            }
        }
        _ => return Err(failed(error)),
    };
    Err(refused(error))
}
