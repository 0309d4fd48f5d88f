//! Names, and the addresses that they were found to have.
//!
//! The system's resolver holds a thread for as long as it takes, and nobody can call it back: an
//! attempt that gives up leaves its lookup behind. So that one webhook's name costs no other
//! webhook anything:
//!
//! - However many attempts wait for a name, they wait for the same lookup, and another is begun
//!   only beside one that seems to hang.
//! - Names that are known to hang have half of the threads at most, so that the others are still
//!   looked up. Very many that hang for the first time, all at once, may take them all until the
//!   resolver gives up; names that were found before go on meanwhile. The threads are the lookups'
//!   own: what else the daemon does never waits for one.
//! - What was found is used again for a while, and for longer where the resolver fails or hangs
//!   (RFC 8767). That no answer comes from there ends that: the receiver may have moved.
//!
//! Whoever uses an address has to check it, however it was found.

use std::{
    collections::HashMap,
    io,
    net::{SocketAddr, ToSocketAddrs as _},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use futures_util::{
    FutureExt as _,
    future::{BoxFuture, Shared},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::{Instant, timeout},
};

const THREADS_FOR_A_NAME: usize = 4;
/// A lookup that has taken so long may hang where the next one would not.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long an answer is as good as a new one. The system's resolver does not tell what the name's
/// servers say about that, so it is what is common.
const FRESH: Duration = Duration::from_secs(30);
/// How long it is better than none.
const STALE: Duration = Duration::from_mins(10);

#[derive(Debug, Clone, thiserror::Error)]
#[error("the name can't be resolved")]
pub(super) struct LookupFailed(#[source] Arc<io::Error>);

impl From<io::Error> for LookupFailed {
    fn from(error: io::Error) -> Self {
        Self(Arc::new(error))
    }
}

pub(super) type Addresses = Arc<[SocketAddr]>;

/// Cheap to clone; all clones share what is known and what is under way.
#[derive(Debug, Clone)]
pub(super) struct Lookups(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    threads: Arc<Semaphore>,
    /// Of those, the ones that names which hang may have.
    for_hanging: Arc<Semaphore>,
    names: Mutex<Names>,
}

#[derive(Debug)]
struct Names {
    known: HashMap<String, Name>,
    sweep: Instant,
}

#[derive(Debug, Default)]
struct Name {
    found: Option<Answer>,
    /// The oldest first.
    under_way: Vec<Lookup>,
    /// When a lookup ended that took longer than others have patience for, if it was the last one.
    hung: Option<Instant>,
}

#[derive(Debug, Clone)]
struct Answer {
    addresses: Addresses,
    at: Instant,
    /// It was of no use.
    distrusted: bool,
}

#[derive(Debug)]
struct Lookup {
    since: Instant,
    found: Found,
}

type Found = Shared<BoxFuture<'static, Result<Addresses, LookupFailed>>>;

/// What is held until a lookup's thread ends.
#[derive(Debug)]
struct Turn {
    _thread: OwnedSemaphorePermit,
    _for_hanging: Option<OwnedSemaphorePermit>,
}

impl Lookups {
    /// With so many threads at most.
    pub(super) fn new(threads: usize) -> Self {
        Self(Arc::new(Inner {
            threads: Arc::new(Semaphore::new(threads.max(2))),
            for_hanging: Arc::new(Semaphore::new((threads / 2).max(1))),
            names: Mutex::new(Names {
                known: HashMap::new(),
                sweep: Instant::now(),
            }),
        }))
    }

    /// The addresses of a name, with port 0; waits for so long at most.
    pub(super) async fn addresses(
        &self,
        name: &str,
        limit: Duration,
    ) -> Result<Addresses, LookupFailed> {
        let (kept, hangs) = {
            let mut names = self.names();
            let known = names.name(name);
            let kept = known.found.clone();
            (kept.filter(Answer::is_usable), known.hangs())
        };
        if let Some(kept) = &kept
            && kept.is_fresh()
        {
            return Ok(Arc::clone(&kept.addresses));
        }
        let limit = match &kept {
            // It is looked up all the same, for those who come later.
            Some(_) if hangs => Duration::ZERO,
            Some(_) => limit.min(PATIENCE),
            None => limit,
        };
        let found = timeout(limit, self.join_or_begin(name)).await;
        let found = found.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()));
        found.or_else(|failed| kept.map(|kept| kept.addresses).ok_or(failed))
    }

    /// The addresses that are known of a name led nowhere.
    pub(super) fn distrust(&self, name: &str) {
        if let Some(answer) = &mut self.names().name(name).found {
            answer.distrusted = true;
        }
    }

    async fn join_or_begin(&self, name: &str) -> Result<Addresses, LookupFailed> {
        let (joined, hangs) = {
            let mut names = self.names();
            let known = names.name(name);
            (known.joinable(), known.hangs())
        };
        if let Some(found) = joined {
            return found.await;
        }
        let turn = self.turn(hangs).await?;
        // Others may have waited for a thread, too.
        let found = {
            let mut names = self.names();
            let known = names.name(name);
            known.joinable().unwrap_or_else(|| {
                let since = Instant::now();
                let found = self.begin(name.to_owned(), turn);
                known.under_way.push(Lookup {
                    since,
                    found: found.clone(),
                });
                found
            })
        };
        found.await
    }

    async fn turn(&self, hangs: bool) -> Result<Turn, LookupFailed> {
        let Inner {
            threads,
            for_hanging,
            ..
        } = &*self.0;
        let for_hanging = if hangs {
            let permit = Arc::clone(for_hanging).acquire_owned().await;
            Some(permit.map_err(io::Error::other)?)
        } else {
            None
        };
        let thread = Arc::clone(threads).acquire_owned().await;
        Ok(Turn {
            _thread: thread.map_err(io::Error::other)?,
            _for_hanging: for_hanging,
        })
    }

    fn begin(&self, name: String, turn: Turn) -> Found {
        let (answer, answered) = oneshot::channel();
        let this = self.clone();
        let look_up = move || {
            let since = Instant::now();
            let found = (name.as_str(), 0).to_socket_addrs();
            let found = found.map(Iterator::collect::<Addresses>);
            this.names().note(&name, since, found.as_ref().ok());
            drop(turn);
            // Nobody may be waiting any more.
            let _ = answer.send(found);
        };
        // Nobody can end it, so nobody waits for its end either.
        let begun = thread::Builder::new()
            .name("lookup".to_owned())
            .spawn(look_up);
        async move {
            begun?;
            Ok(answered.await.map_err(io::Error::other)??)
        }
        .boxed()
        .shared()
    }

    fn names(&self) -> MutexGuard<'_, Names> {
        let names = self.0.names.lock();
        names.unwrap_or_else(PoisonError::into_inner)
    }
}

impl Names {
    fn name(&mut self, name: &str) -> &mut Name {
        if self.sweep.elapsed() > FRESH {
            self.sweep = Instant::now();
            self.known.retain(|_, name| {
                name.forget_ended();
                !name.under_way.is_empty()
                    || name.found.as_ref().is_some_and(Answer::is_usable)
                    || name.hung.is_some_and(|hung| hung.elapsed() < STALE)
            });
        }
        let known = self.known.entry(name.to_owned()).or_default();
        known.forget_ended();
        known
    }

    fn note(&mut self, name: &str, since: Instant, found: Option<&Addresses>) {
        let known = self.known.entry(name.to_owned()).or_default();
        known.hung = (since.elapsed() >= PATIENCE).then(Instant::now);
        if let Some(addresses) = found {
            known.found = Some(Answer {
                addresses: Arc::clone(addresses),
                at: Instant::now(),
                distrusted: false,
            });
        }
    }
}

impl Name {
    fn forget_ended(&mut self) {
        let ended = |lookup: &Lookup| lookup.found.clone().now_or_never().is_some();
        self.under_way.retain(|lookup| !ended(lookup));
    }

    fn hangs(&self) -> bool {
        let hangs = |lookup: &Lookup| lookup.since.elapsed() >= PATIENCE;
        self.hung.is_some() || self.under_way.iter().any(hangs)
    }

    fn joinable(&self) -> Option<Found> {
        let latest = self.under_way.last()?;
        let full = self.under_way.len() >= THREADS_FOR_A_NAME;
        (full || latest.since.elapsed() < PATIENCE).then(|| latest.found.clone())
    }
}

impl Answer {
    fn is_fresh(&self) -> bool {
        !self.distrusted && self.at.elapsed() < FRESH
    }

    fn is_usable(&self) -> bool {
        self.at.elapsed() < STALE
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    /// Reserved never to exist (RFC 6761, section 6.4): here, the resolver fails.
    const NAME: &str = "pipelet.invalid";

    fn knowing(addresses: &Addresses) -> Lookups {
        let lookups = Lookups::new(2);
        lookups.names().note(NAME, Instant::now(), Some(addresses));
        lookups
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_found_is_used_for_longer_where_the_resolver_fails() {
        let there: Addresses = Arc::new(["1.1.1.1:0".parse().unwrap()]);
        let lookups = knowing(&there);
        let look_up = || lookups.addresses(NAME, PATIENCE);
        advance(FRESH / 2).await;
        assert_eq!(look_up().await.unwrap(), there);
        assert!(lookups.names().name(NAME).under_way.is_empty());
        lookups.distrust(NAME);
        assert_eq!(look_up().await.unwrap(), there);
        advance(STALE / 2).await;
        assert_eq!(look_up().await.unwrap(), there);
        advance(STALE).await;
        look_up().await.unwrap_err();
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_that_hangs_has_few_threads_and_all_that_do_have_half() {
        let lookups = Lookups::new(4);
        for number in 0..3 {
            let name = format!("{number}.example");
            lookups.names().name(&name).hung = Some(Instant::now());
            let turn = lookups.turn(true).now_or_never();
            assert_eq!(turn.is_some(), number < 2, "{name}");
            // Until its thread ends.
            std::mem::forget(turn);
        }
        assert!(lookups.turn(false).now_or_never().is_some());
        let mut names = lookups.names();
        let name = names.name("x.example");
        for begun in 0..=THREADS_FOR_A_NAME {
            assert_eq!(name.joinable().is_some(), begun >= THREADS_FOR_A_NAME);
            let found = std::future::pending().boxed().shared();
            let since = Instant::now().checked_sub(PATIENCE).unwrap();
            name.under_way.push(Lookup { since, found });
            assert!(name.hangs());
        }
    }
}
