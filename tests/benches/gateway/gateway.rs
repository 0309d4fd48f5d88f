//! A gateway under load: ours or a peer's, in a process of its own.

use std::{iter, net::SocketAddr};

use pipelet_tests::{Builder, Daemon, NatsCluster};

use super::peers::{Installed, Running};

/// Which gateway.
#[derive(Debug, Clone)]
pub(crate) enum Kind {
    Ours,
    /// The one node of a cluster in so many shards, on three servers of NATS.
    Cluster(u16),
    /// The same, and the stations are at another node, which forwards to it.
    Forwarding(u16),
    Peer(Installed),
}

pub(crate) enum Gateway {
    Ours(Box<Daemon>),
    Cluster {
        daemon: Box<Daemon>,
        _servers: NatsCluster,
    },
    Peer(Box<Running>),
}

impl Kind {
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Cluster(16) => "cluster16",
            Self::Cluster(_) => "cluster",
            Self::Forwarding(_) => "forwarding",
            Self::Peer(installed) => installed.peer.name(),
        }
    }

    pub(crate) const fn title(&self) -> &'static str {
        match self {
            Self::Ours => "**pipeletd**",
            Self::Cluster(16) => "pipeletd, 16 shards on 3 NATS servers",
            Self::Cluster(_) => "pipeletd, few shards on 3 NATS servers",
            Self::Forwarding(_) => "the same, stations at another node",
            Self::Peer(installed) => installed.peer.made_with(),
        }
    }

    /// Starts it with nothing stored, to tell these receivers of `MeterValues`.
    pub(crate) async fn start(&self, urls: &[String]) -> Gateway {
        match self {
            Self::Ours => {
                let daemon = daemon().start().await;
                for url in urls {
                    daemon.api().subscribe(url, &["MeterValues"]).await;
                }
                Gateway::Ours(Box::new(daemon))
            }
            Self::Cluster(shards) | Self::Forwarding(shards) => {
                let servers = NatsCluster::start().await.expect("servers of NATS");
                let daemon = daemon()
                    .flag("--store", &servers.url())
                    .flag("--shards", &shards.to_string())
                    .behind(usize::from(matches!(self, Self::Forwarding(_))))
                    .start()
                    .await;
                if matches!(self, Self::Forwarding(_)) {
                    // It owns nothing then.
                    let path = format!("/cluster/nodes/{}/drain", daemon.node());
                    daemon.api().post_empty(&path).await.expect(200);
                }
                for url in urls {
                    daemon.api().subscribe(url, &["MeterValues"]).await;
                }
                Gateway::Cluster {
                    daemon: Box::new(daemon),
                    _servers: servers,
                }
            }
            Self::Peer(installed) => Gateway::Peer(Box::new(installed.start(&urls[0]).await)),
        }
    }
}

impl Gateway {
    pub(crate) fn ocpp(&self) -> SocketAddr {
        match self {
            Self::Ours(daemon) | Self::Cluster { daemon, .. } => daemon.ocpp(),
            Self::Peer(running) => running.ocpp,
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pids()[0]
    }

    /// All that it takes, but for servers that keep its data.
    pub(crate) fn pids(&self) -> Vec<u32> {
        match self {
            Self::Ours(daemon) | Self::Cluster { daemon, .. } => {
                let others = daemon.others().iter().map(Daemon::pid);
                iter::once(daemon.pid()).chain(others).collect()
            }
            Self::Peer(running) => vec![running.pid()],
        }
    }
}

/// A daemon as it is shipped, with its store under `target/`: a temporary directory may be
/// in memory, where nothing is ever written.
pub(crate) fn daemon() -> Builder {
    Daemon::builder_in(
        env!("CARGO_BIN_EXE_e2e-pipeletd"),
        env!("CARGO_TARGET_TMPDIR"),
    )
    .flag("--log-level", "warn")
    // What is measured is the daemon, not how it holds a station back.
    .flag("--ocpp-rate", "1000000/s")
}
