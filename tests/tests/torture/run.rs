//! What all actors of a run share: where the daemon is, what was seen of it, and their choices.
//!
//! Invariant: while [`Run::quiesce`] is held, no request of any actor is unanswered.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use fastrand::Rng;
use pipelet_tests::{
    Api, Daemon,
    deadline::within,
    oracle::{Key, Keys, Oracle, Registrations, Rotation},
};
use tokio::sync::{OwnedRwLockReadGuard, RwLock, RwLockWriteGuard, watch};

/// A daemon that listens.
#[derive(Debug, Clone)]
pub(crate) struct Endpoints {
    pub(crate) ocpp: SocketAddr,
    pub(crate) grpc: SocketAddr,
    pub(crate) api: Api,
}

impl Endpoints {
    pub(crate) fn of(daemon: &Daemon) -> Self {
        Self {
            ocpp: daemon.ocpp(),
            grpc: daemon.grpc(),
            api: daemon.api(),
        }
    }
}

#[derive(Debug, Clone)]
enum State {
    Down,
    /// Where it is as good as anywhere.
    Up(Vec<Endpoints>),
    Over,
}

/// Held from a request to its answer.
pub(crate) type InFlight = OwnedRwLockReadGuard<()>;

#[derive(Debug)]
pub(crate) struct Run {
    seed: u64,
    /// Whether stations charge.
    pub(crate) transactions: bool,
    /// Whether the store may fail for a while though the daemon is up: who is told so comes again.
    pub(crate) has_outages: bool,
    oracle: Mutex<Oracle>,
    webhooks: Mutex<Webhooks>,
    keys: Mutex<Keys>,
    state: watch::Sender<State>,
    requests: Arc<RwLock<()>>,
}

/// The webhooks as they are asked for, and the ids that the daemon gave them.
#[derive(Debug, Default)]
pub(crate) struct Webhooks {
    pub(crate) registrations: Registrations,
    pub(crate) ids: BTreeMap<u64, Key>,
    /// The signing secret of the one webhook whose secret is rotated.
    pub(crate) rotation: Rotation,
}

impl Webhooks {
    pub(crate) fn path(&self, key: Key) -> Option<String> {
        let known = self.ids.iter().find(|(_, known)| **known == key);
        known.map(|(id, _)| format!("/webhooks/{id}"))
    }
}

impl Run {
    pub(crate) fn new(
        seed: u64,
        transactions: bool,
        has_outages: bool,
        oracle: Oracle,
    ) -> Arc<Self> {
        Arc::new(Self {
            seed,
            transactions,
            has_outages,
            oracle: Mutex::new(oracle),
            webhooks: Mutex::default(),
            keys: Mutex::default(),
            state: watch::Sender::new(State::Down),
            requests: Arc::default(),
        })
    }

    /// The choices of one actor, which are the same for the same seed.
    pub(crate) fn choices(&self, actor: &str) -> Rng {
        let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        Rng::with_seed(actor.bytes().fold(self.seed ^ 0xcbf2_9ce4_8422_2325, mix))
    }

    pub(crate) fn oracle(&self) -> MutexGuard<'_, Oracle> {
        self.oracle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn webhooks(&self) -> MutexGuard<'_, Webhooks> {
        self.webhooks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn keys(&self) -> MutexGuard<'_, Keys> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// At each of these, of which there is at least one.
    pub(crate) fn up(&self, endpoints: Vec<Endpoints>) {
        self.state.send_replace(State::Up(endpoints));
    }

    /// To be said before the daemon is ended: what fails afterwards is no fault.
    pub(crate) fn down(&self) {
        self.state.send_replace(State::Down);
    }

    pub(crate) fn over(&self) {
        self.state.send_replace(State::Over);
    }

    pub(crate) fn is_up(&self) -> bool {
        matches!(*self.state.borrow(), State::Up(_))
    }

    /// Whether it is the same daemon still, and up: what was seen of it so far counts.
    pub(crate) fn is_up_at(&self, endpoints: &Endpoints) -> bool {
        let same = |now: &Endpoints| (now.ocpp, now.grpc) == (endpoints.ocpp, endpoints.grpc);
        matches!(&*self.state.borrow(), State::Up(now) if now.iter().any(same))
    }

    /// Waits for a daemon that listens; none when the run is over.
    pub(crate) async fn endpoints(&self) -> Option<Endpoints> {
        let mut state = self.state.subscribe();
        let known = state.wait_for(|state| !matches!(state, State::Down)).await;
        match &*known.ok()? {
            State::Up(endpoints) => fastrand::choice(endpoints).cloned(),
            State::Down | State::Over => None,
        }
    }

    pub(crate) async fn begin(&self) -> InFlight {
        Arc::clone(&self.requests).read_owned().await
    }

    /// Waits until everything has been answered, and lets no actor begin anew while it is held.
    pub(crate) async fn quiesce(&self) -> RwLockWriteGuard<'_, ()> {
        within("every answer", self.requests.write()).await
    }
}
