//! For how long a caller is let in: until its key is revoked or expires.
//!
//! A call is checked when it comes; what lives on after that, a stream or a call that waits for
//! somebody else, ends with the key, and says why. A key's role never changes, so there is no other
//! end. This knows neither REST nor gRPC.

use std::time::Duration;

use futures_util::{Stream, StreamExt as _, stream};
use jiff::Timestamp;
use tokio::{
    sync::{mpsc, oneshot},
    time::{sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;

use super::error::ApiError;
use crate::{registries::Caller, system::clock::Clock};

/// How long after the key's end an answer may come that was on its way.
const ANSWER_GRACE: Duration = Duration::from_millis(500);

/// Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Validity {
    /// None where it has no end, or somebody else looks at it.
    caller: Option<Caller>,
    clock: Clock,
}

impl Validity {
    pub(super) fn new(caller: Caller, clock: Clock) -> Self {
        let caller = Some(caller);
        Self { caller, clock }
    }

    /// Of another node, which looks at its callers' itself.
    pub(super) const fn of_node(clock: Clock) -> Self {
        let caller = None;
        Self { caller, clock }
    }

    /// What comes of some work, unless the key ends before. Work that is done with the key's end, as
    /// when a key revokes itself, still has its answer.
    pub(super) async fn run<F: Future>(&self, work: F) -> Result<F::Output, ApiError> {
        let mut work = std::pin::pin!(work);
        let ended = tokio::select! {
            biased;
            output = &mut work => return Ok(output),
            ended = self.end() => ended,
        };
        timeout(ANSWER_GRACE, work).await.map_err(|_| ended)
    }

    /// Passes a stream on until the key ends, which is then the last item.
    ///
    /// In a task of its own: a reader that takes nothing is asked for nothing, and still holds none
    /// of the stream's events and places once its key has ended.
    pub(super) fn stream<T: Send + 'static>(
        self,
        source: impl Stream<Item = Result<T, ApiError>> + Send + 'static,
    ) -> impl Stream<Item = Result<T, ApiError>> + Send + 'static {
        let (items, taken) = mpsc::channel(1);
        let (why, over) = oneshot::channel();
        tokio::spawn(async move {
            let passed = tokio::select! {
                biased;
                ended = self.end() => Err(ended),
                passed = self.pass(source, items) => passed,
            };
            if let Err(ended) = passed {
                tracing::info!(
                    key = self.caller.as_ref().map(|caller| &*caller.name),
                    reason = ended.code(),
                    "an API caller's stream was ended"
                );
                // A reader that has gone away needs no reason.
                let _ = why.send(ended);
            }
        });
        let reason = stream::once(over).filter_map(async |over| over.ok().map(Err));
        ReceiverStream::new(taken).chain(reason)
    }

    async fn pass<T>(
        &self,
        source: impl Stream<Item = Result<T, ApiError>>,
        items: mpsc::Sender<Result<T, ApiError>>,
    ) -> Result<(), ApiError> {
        let mut source = std::pin::pin!(source);
        while let Ok(room) = items.reserve().await {
            let next = tokio::select! {
                next = source.next() => next,
                () = items.closed() => None,
            };
            let Some(item) = next else {
                break;
            };
            // A wall clock that was set forward is ahead of the timer.
            if self.is_expired() {
                return Err(ApiError::KeyExpired);
            }
            room.send(item);
        }
        Ok(())
    }

    /// Returns when the key lets nobody in any more, and why.
    async fn end(&self) -> ApiError {
        let Some(caller) = &self.caller else {
            return std::future::pending().await;
        };
        tokio::select! {
            () = caller.revoked() => ApiError::KeyRevoked,
            () = self.expiry(caller.expires_at) => ApiError::KeyExpired,
        }
    }

    fn is_expired(&self) -> bool {
        let caller = self.caller.as_ref();
        caller.is_some_and(|caller| caller.is_expired(self.clock.now()))
    }

    async fn expiry(&self, end: Option<Timestamp>) {
        let Some(end) = end else {
            return std::future::pending().await;
        };
        loop {
            let now = self.clock.now();
            match end.duration_since(now).try_into() {
                // A timer may be early: by less than the millisecond it counts in, or by the years
                // that are too many for it.
                Ok(left) if end > now => sleep(left).await,
                Ok(_) | Err(_) => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::stream;
    use jiff::Timestamp;
    use tokio::time::{Instant, timeout};

    use super::*;
    use crate::{
        auth::{ApiKey, ApiKeyInfo, Role},
        registries::Keyring,
        store::memory::MemoryStore,
        system::limits::Rate,
    };

    const START: Timestamp = Timestamp::UNIX_EPOCH;

    /// A key that was let in, and the keyring that it is in as number 1.
    async fn let_in(life: Option<Duration>) -> (Validity, Keyring) {
        let clock = Clock::following_tokio(START);
        let store = Arc::new(MemoryStore::default());
        let keyring = Keyring::open(store, Rate::new(10.0, 10.0)).await.unwrap();
        let key = ApiKey::generate().unwrap();
        let info = ApiKeyInfo {
            id: 1,
            name: "N".to_owned(),
            created_at: START,
            hash: key.hash(),
            role: Role::ReadOnly,
            expires_at: life.map(|life| START + life),
            last_used_at: None,
        };
        keyring.keys().put(info).await.unwrap();
        let caller = keyring.check(key.expose(), clock.now(), Instant::now());
        (Validity::new(caller.unwrap(), clock), keyring)
    }

    #[tokio::test(start_paused = true)]
    async fn work_ends_with_the_key() {
        let forever = std::future::pending::<()>;
        let (validity, keyring) = let_in(None).await;
        let (ended, ()) = tokio::join!(validity.run(forever()), async {
            keyring.keys().remove(&1).await.unwrap();
        });
        assert!(matches!(ended, Err(ApiError::KeyRevoked)), "{ended:?}");
        // Also where it was revoked before.
        let ended = validity.run(forever()).await;
        assert!(matches!(ended, Err(ApiError::KeyRevoked)), "{ended:?}");
        assert!(validity.run(async {}).await.is_ok());

        for life in [Duration::from_secs(5), Duration::from_hours(24 * 365 * 9)] {
            let (validity, _keyring) = let_in(Some(life)).await;
            let began = Instant::now();
            let ended = validity.run(forever()).await;
            assert!(matches!(ended, Err(ApiError::KeyExpired)), "{ended:?}");
            let late = began.elapsed().checked_sub(life).unwrap();
            assert!(late < Duration::from_secs(1), "{late:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_says_why_it_ends() {
        let (validity, keyring) = let_in(None).await;
        let mut passed = Box::pin(validity.stream(stream::repeat_with(|| Ok(7))));
        assert_eq!(passed.next().await.unwrap().unwrap(), 7);
        keyring.keys().remove(&1).await.unwrap();
        let mut left = 0;
        let ended = loop {
            match passed.next().await.unwrap() {
                Ok(_) => left += 1,
                Err(ended) => break ended,
            }
        };
        assert!(matches!(ended, ApiError::KeyRevoked), "{ended:?}");
        assert!(left < 3, "{left} came after the end");
        assert!(passed.next().await.is_none());

        // One that ends by itself needs no reason.
        let (validity, _keyring) = let_in(None).await;
        let passed = validity.stream(stream::iter([Ok(1), Err(ApiError::MethodNotAllowed)]));
        assert_eq!(passed.count().await, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_is_let_go_though_nobody_takes_what_came() {
        let held = |place: &Arc<()>| {
            let place = Arc::clone(place);
            stream::repeat_with(move || Ok(Arc::clone(&place)))
        };
        let gone = async |place: &Arc<()>, but: usize| {
            while Arc::strong_count(place) > 1 + but {
                tokio::task::yield_now().await;
            }
        };
        let (place, (validity, keyring)) = (Arc::new(()), let_in(None).await);
        let passed = validity.clone().stream(held(&place));
        keyring.keys().remove(&1).await.unwrap();
        // But for what is on its way.
        let deadline = Duration::from_secs(1);
        timeout(deadline, gone(&place, 1)).await.unwrap();
        drop(passed);

        // A reader that goes away lets go of one that is silent.
        let (place, (validity, _keyring)) = (Arc::new(()), let_in(None).await);
        let kept = Arc::clone(&place);
        let silent = stream::pending().inspect(move |_: &Result<(), ApiError>| {
            let _ = &kept;
        });
        drop(validity.stream(silent));
        timeout(deadline, gone(&place, 0)).await.unwrap();
    }
}
