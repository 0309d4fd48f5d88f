//! Names that are being looked up.
//!
//! The system's resolver holds a thread for as long as it takes, and nobody can call it back: an
//! attempt that gives up leaves its lookup behind. So however many attempts wait for a name, they
//! wait for the same lookup, and another is begun only beside one that seems to hang. What all
//! names hold together is bounded too, because the store reads with the same threads.
//!
//! Nothing is remembered: who asks gets what is found from now on.

use std::{
    collections::HashMap,
    io,
    net::{SocketAddr, ToSocketAddrs as _},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{
    FutureExt as _,
    future::{BoxFuture, Shared},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task,
    time::{Instant, timeout},
};

/// Of the 512 threads that tokio has for what blocks.
const THREADS: usize = 128;
const THREADS_FOR_A_NAME: usize = 4;
/// A lookup that has taken so long may hang where the next one would not.
const PATIENCE: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, thiserror::Error)]
#[error("the name can't be resolved")]
pub(super) struct LookupFailed(#[source] Arc<io::Error>);

impl From<io::Error> for LookupFailed {
    fn from(error: io::Error) -> Self {
        Self(Arc::new(error))
    }
}

pub(super) type Addresses = Arc<[SocketAddr]>;

/// Cheap to clone; all clones share what is under way.
#[derive(Debug, Clone)]
pub(super) struct Lookups(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limit: Duration,
    threads: Arc<Semaphore>,
    /// By name, the oldest first.
    under_way: Mutex<HashMap<String, Vec<Lookup>>>,
}

#[derive(Debug)]
struct Lookup {
    since: Instant,
    found: Found,
}

type Found = Shared<BoxFuture<'static, Result<Addresses, LookupFailed>>>;

impl Lookups {
    /// With a limit to what a lookup may take for who waits.
    pub(super) fn new(limit: Duration) -> Self {
        Self(Arc::new(Inner {
            limit,
            threads: Arc::new(Semaphore::new(THREADS)),
            under_way: Mutex::default(),
        }))
    }

    /// The addresses of a name, with port 0.
    pub(super) async fn addresses(&self, name: &str) -> Result<Addresses, LookupFailed> {
        timeout(self.0.limit, self.join_or_begin(name))
            .await
            .unwrap_or_else(|_elapsed| Err(io::Error::from(io::ErrorKind::TimedOut).into()))
    }

    async fn join_or_begin(&self, name: &str) -> Result<Addresses, LookupFailed> {
        let joined = self.with(name, |lookups| joinable(lookups));
        if let Some(found) = joined {
            return found.await;
        }
        let thread = Arc::clone(&self.0.threads).acquire_owned().await;
        let thread = thread.map_err(io::Error::other)?;
        // Others may have waited for a thread, too.
        let found = self.with(name, |lookups| {
            joinable(lookups).unwrap_or_else(|| {
                let found = begin(name.to_owned(), thread);
                let since = Instant::now();
                lookups.push(Lookup {
                    since,
                    found: found.clone(),
                });
                found
            })
        });
        found.await
    }

    /// Does something with what is under way for a name, and forgets what has ended.
    fn with<T>(&self, name: &str, act: impl FnOnce(&mut Vec<Lookup>) -> T) -> T {
        let under_way = self.0.under_way.lock();
        let mut under_way = under_way.unwrap_or_else(PoisonError::into_inner);
        under_way.retain(|_, lookups| {
            lookups.retain(|lookup| lookup.found.clone().now_or_never().is_none());
            !lookups.is_empty()
        });
        act(under_way.entry(name.to_owned()).or_default())
    }
}

fn joinable(lookups: &[Lookup]) -> Option<Found> {
    let latest = lookups.last()?;
    let full = lookups.len() >= THREADS_FOR_A_NAME;
    (full || latest.since.elapsed() < PATIENCE).then(|| latest.found.clone())
}

fn begin(name: String, thread: OwnedSemaphorePermit) -> Found {
    let lookup = task::spawn_blocking(move || {
        let found = (name.as_str(), 0).to_socket_addrs();
        drop(thread);
        found
    });
    async move {
        let found = lookup.await.map_err(io::Error::other)??;
        Ok(found.collect())
    }
    .boxed()
    .shared()
}
