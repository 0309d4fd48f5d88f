//! Who comes in: the key that a caller shows, and what the caller may then do.
//!
//! A key that is right is never held back for what others guess, so nobody behind the same proxy
//! can lock it out; guessing is hopeless anyway, and is slowed down for the log's sake. This knows
//! neither REST's routes nor gRPC's methods: each names the role that it needs.

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use http::{HeaderMap, HeaderName};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout},
};

use super::{
    error::ApiError,
    key_places::{KeyPlace, KeyPlaces},
    readers::{Reader, Readers},
    validity::Validity,
};
use crate::{
    auth::Role,
    registries::{Caller, Keyring, Refused},
    system::{
        clock::Clock,
        limits::{Guesses, Pending},
    },
};

/// Calls at once on one connection that need no key. Their answers wait in memory until they are
/// taken, so they are few.
const OPEN_CALLS: usize = 4;

const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// How long a caller with a key that is not known waits for what other nodes know.
const CATCHING_UP: Duration = Duration::from_secs(1);

/// Cheap to clone; REST and gRPC have the same one, so that guesses count for both.
#[derive(Debug, Clone)]
pub struct Authenticator {
    keyring: Keyring,
    guesses: Arc<Guesses>,
    readers: Readers,
    /// Where the daemon writes its first key.
    first_key: Arc<Path>,
    catching_up: Arc<tokio::sync::Mutex<()>>,
    clock: Clock,
}

/// Where a connection comes from.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    /// While no key was shown on it, others may take its turn.
    pending: Weak<Pending>,
    open_calls: Arc<Semaphore>,
    places: KeyPlaces,
    /// The one of the key that was shown last.
    place: Arc<Mutex<Option<KeyPlace>>>,
}

impl Peer {
    /// Of a new connection.
    pub(super) fn new(address: SocketAddr, pending: &Arc<Pending>, places: KeyPlaces) -> Self {
        Self {
            address,
            pending: Arc::downgrade(pending),
            open_calls: Arc::new(Semaphore::new(OPEN_CALLS)),
            places,
            place: Arc::default(),
        }
    }

    /// Of another node's caller, whose connection is that node's business.
    pub(super) fn of_node(address: SocketAddr, places: KeyPlaces) -> Self {
        Self {
            address,
            pending: Weak::new(),
            open_calls: Arc::new(Semaphore::new(OPEN_CALLS)),
            places,
            place: Arc::default(),
        }
    }

    /// The place of one more call that needs no key, until its answer was sent.
    pub(super) fn open_call(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.open_calls).try_acquire_owned().ok()
    }

    /// A key was shown.
    fn settle(&self, key_id: u64) -> Result<(), ApiError> {
        let mut place = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.places.take(key_id, &mut place) {
            return Err(ApiError::TooMany {
                code: "too_many_connections",
                message: "this API key has as many connections as one key may".to_owned(),
            });
        }
        drop(place);
        if let Some(pending) = self.pending.upgrade() {
            pending.settle();
        }
        Ok(())
    }
}

impl Authenticator {
    pub fn new(keyring: Keyring, readers: Readers, first_key: &Path, clock: Clock) -> Self {
        Self {
            keyring,
            guesses: Arc::default(),
            readers,
            first_key: first_key.into(),
            catching_up: Arc::default(),
            clock,
        }
    }

    /// Who calls.
    pub(super) async fn admit(&self, headers: &HeaderMap, peer: &Peer) -> Result<Caller, ApiError> {
        let instant = Instant::now();
        let checked = match shown(headers) {
            Some(key) => self.check(key, instant).await,
            None => Err(Refused::Unknown),
        };
        match checked {
            Ok(caller) => {
                peer.settle(caller.key_id)?;
                Ok(caller)
            }
            Err(Refused::TooFast { retry_after }) => Err(ApiError::Throttled {
                code: "too_many_requests",
                message: "this API key is used too often".to_owned(),
                retry_after,
            }),
            Err(Refused::Unknown) => {
                // Strangers needn't know how the machine is laid out, nor those behind a proxy on it.
                let forwarded = ["forwarded", "x-forwarded-for"];
                let is_near = peer.address.ip().to_canonical().is_loopback()
                    && !forwarded.iter().any(|name| headers.contains_key(*name));
                let told = is_near && self.first_key.exists();
                let first_key = told.then(|| Arc::clone(&self.first_key));
                let error = ApiError::Unauthenticated { first_key };
                Err(self.refused(error, peer, instant))
            }
            // Only who has the key learns that it was one.
            Err(Refused::Expired) => Err(self.refused(ApiError::KeyExpired, peer, instant)),
        }
    }

    async fn check(&self, key: &str, instant: Instant) -> Result<Caller, Refused> {
        let checked = self.keyring.check(key, self.clock.now(), instant);
        if !matches!(checked, Err(Refused::Unknown)) {
            return checked;
        }
        // It may be younger than what has come to this node. One after the other looks, so that
        // guesses don't make much work elsewhere.
        let catching_up = async {
            let _turn = self.catching_up.lock().await;
            self.keyring.catch_up().await
        };
        if !matches!(timeout(CATCHING_UP, catching_up).await, Ok(Ok(()))) {
            return checked;
        }
        self.keyring.check(key, self.clock.now(), instant)
    }

    /// The caller's access to the memory for answers.
    pub(super) fn reader(&self, caller: &Caller) -> Reader {
        self.readers.reader(caller.key_id)
    }

    /// For how long the caller stays let in.
    pub(super) fn validity(&self, caller: &Caller) -> Validity {
        Validity::new(caller.clone(), self.clock)
    }

    fn refused(&self, error: ApiError, peer: &Peer, now: Instant) -> ApiError {
        let from = peer.address.ip();
        match self.guesses.spend(from, now) {
            Ok(()) => {
                log_refusal(from, &error);
                error
            }
            Err(too_many) => ApiError::Throttled {
                code: "too_many_guesses",
                message: "this address has sent too many wrong API keys".to_owned(),
                retry_after: too_many.retry_after,
            },
        }
    }
}

/// Whether the caller may do what needs this role.
pub(super) fn permit(caller: &Caller, needed: Role) -> Result<(), ApiError> {
    if caller.role.allows(needed) {
        return Ok(());
    }
    Err(ApiError::Forbidden {
        has: caller.role,
        needed,
    })
}

/// The key, where exactly one is shown: of two, somebody on the way might have checked the other.
fn shown(headers: &HeaderMap) -> Option<&str> {
    let mut keys = headers.get_all(API_KEY).iter();
    let key = keys.next()?;
    keys.next().is_none().then_some(key)?.to_str().ok()
}

fn log_refusal(from: IpAddr, error: &ApiError) {
    tracing::info!(%from, reason = error.code(), "an API caller was refused");
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::{
        auth::{ApiKey, ApiKeyInfo},
        store::memory::MemoryStore,
        system::limits::{Rate, memory::FifoPool},
    };

    fn headers(keys: &[&str]) -> HeaderMap {
        let keys = keys.iter().map(|key| HeaderValue::from_str(key).unwrap());
        keys.map(|key| (API_KEY, key)).collect()
    }

    #[test]
    fn one_key_is_shown_or_none() {
        let check = |keys: &[&str], expected| assert_eq!(shown(&headers(keys)), expected);
        check(&["a"], Some("a"));
        check(&[], None);
        check(&["a", "a"], None);
        check(&["ä"], None);
    }

    #[tokio::test]
    async fn guesses_hold_back_guesses_and_nobody_else() {
        let (store, clock) = (Arc::new(MemoryStore::default()), Clock::system());
        let keyring = Keyring::open(store, Rate::new(1000.0, 1000.0))
            .await
            .unwrap();
        let key = ApiKey::generate().unwrap();
        let info = ApiKeyInfo {
            id: 1,
            name: "N".to_owned(),
            created_at: clock.now(),
            hash: key.hash(),
            role: Role::ReadOnly,
            expires_at: None,
            last_used_at: None,
        };
        keyring.keys().put(info).await.unwrap();
        let authenticator = Authenticator::new(
            keyring,
            Readers::new(FifoPool::of(1 << 20)),
            Path::new("admin.key"),
            clock,
        );
        let code = async |key: &str, from: &str| {
            let peer = Peer {
                address: SocketAddr::new(from.parse().unwrap(), 1),
                pending: Weak::new(),
                open_calls: Arc::new(Semaphore::new(OPEN_CALLS)),
                places: KeyPlaces::new(1),
                place: Arc::default(),
            };
            let headers = headers(&[key]);
            let admitted = authenticator.admit(&headers, &peer).await;
            admitted.map_err(|error| error.code())
        };
        let mut codes = Vec::new();
        for _ in 0..40 {
            codes.push(code("wrong", "10.0.0.1").await.unwrap_err());
        }
        assert_eq!(codes.first(), Some(&"unauthenticated"));
        assert_eq!(codes.last(), Some(&"too_many_guesses"));
        assert!(code(key.expose(), "10.0.0.1").await.is_ok());
        assert_eq!(
            code("wrong", "10.0.0.2").await.err(),
            Some("unauthenticated")
        );
    }
}
