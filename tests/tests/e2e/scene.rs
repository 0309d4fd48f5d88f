//! What most tests begin with.

use std::{
    env,
    sync::atomic::{AtomicU64, Ordering},
};

use pipelet_tests::{Api, Builder, Ctl, Daemon, Receiver, Reply, Station, deadline::eventually};

/// With this variable, the daemon runs in several shards, which are gone with it.
pub(crate) const IN_SHARDS: &str = "PIPELET_E2E_IN_SHARDS";

/// With this variable, the daemon is the one node of a cluster, in two shards, on this NATS server.
pub(crate) const ON_NATS: &str = "PIPELET_E2E_ON_NATS";

/// With this one, too, it is one of three nodes, and the shards are at any of these.
pub(crate) const AT_A_GATEWAY: &str = "PIPELET_E2E_AT_A_GATEWAY";

/// Clusters of this process's.
static CLUSTERS: AtomicU64 = AtomicU64::new(1);

/// A daemon of this package's own build of the real thing.
pub(crate) fn daemon() -> Builder {
    if env::var_os(IN_SHARDS).is_some() {
        return sharded();
    }
    if let Some(nats) = env::var_os(ON_NATS) {
        let number = CLUSTERS.fetch_add(1, Ordering::Relaxed);
        return Daemon::builder(env!("CARGO_BIN_EXE_e2e-pipeletd"))
            .flag("--store", nats.to_str().expect("UTF-8"))
            .flag("--cluster", &format!("test-{number}"))
            .flag("--shards", "2")
            .behind(if env::var_os(AT_A_GATEWAY).is_some() {
                2
            } else {
                0
            });
    }
    Daemon::builder(env!("CARGO_BIN_EXE_e2e-pipeletd"))
}

/// The same in four shards, which are gone with it.
pub(crate) fn sharded() -> Builder {
    Daemon::builder(env!("CARGO_BIN_EXE_e2e-sharded-pipeletd"))
}

pub(crate) fn ctl(daemon: &Daemon) -> Ctl {
    daemon.ctl(env!("CARGO_BIN_EXE_e2e-pipeletctl"))
}

/// A daemon with one webhook, and the receiver behind it.
pub(crate) struct Scene {
    pub(crate) daemon: Daemon,
    pub(crate) api: Api,
    pub(crate) receiver: Receiver,
    pub(crate) webhook: u64,
}

impl Scene {
    pub(crate) async fn new(events: &[&str]) -> Self {
        Self::with(daemon(), events).await
    }

    pub(crate) async fn with(builder: Builder, events: &[&str]) -> Self {
        let receiver = Receiver::start().await;
        let daemon = builder.start().await;
        let api = daemon.api();
        let webhook = api.subscribe(&receiver.url(), events).await;
        Self {
            daemon,
            api,
            receiver,
            webhook,
        }
    }

    pub(crate) async fn station(&self, id: &str) -> Station {
        let station = Station::connect(self.daemon.ocpp(), id).await;
        if env::var_os(AT_A_GATEWAY).is_some() {
            // The owner learns of it a moment after the handshake.
            let path = format!("/stations/{id}");
            let show = || self.api.get(&path);
            let is_known = |reply: &Reply| reply.status == 200 && reply.json()["connected"] == true;
            eventually("the station to be known", show, is_known).await;
        }
        station
    }

    pub(crate) fn ctl(&self) -> Ctl {
        ctl(&self.daemon)
    }

    /// Kills the daemon and starts it again on the same data.
    pub(crate) async fn crash(&mut self) {
        self.daemon.kill9().await;
        self.start_again().await;
    }

    pub(crate) async fn start_again(&mut self) {
        self.daemon.start_again().await;
        self.api = self.daemon.api();
    }
}
