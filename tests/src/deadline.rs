//! How a test waits: for an event, and never longer than [`DEADLINE`].

use std::{fmt::Debug, future::Future, time::Duration};

use tokio::time::{Instant, sleep, timeout};

/// Generous, because a machine that runs every suite at once is slow; only a fault reaches it.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// How often [`eventually`] looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Awaits `future`, and fails the test with `what` when the deadline passes first.
pub async fn within<F: Future>(what: &str, future: F) -> F::Output {
    let Ok(output) = timeout(DEADLINE, future).await else {
        panic!("waited {DEADLINE:?} in vain for {what}");
    };
    output
}

/// Looks at `state` until it `is` as wanted, and returns it.
///
/// Only for what nobody announces: a number in an answer of the API. What a receiver or a
/// station sees is awaited with [`within`].
pub async fn eventually<T, F>(
    what: &str,
    mut state: impl FnMut() -> F,
    is: impl Fn(&T) -> bool,
) -> T
where
    T: Debug,
    F: Future<Output = T>,
{
    let end = Instant::now() + DEADLINE;
    loop {
        let seen = state().await;
        if is(&seen) {
            return seen;
        }
        assert!(
            Instant::now() < end,
            "waited {DEADLINE:?} in vain for {what}; last seen: {seen:#?}"
        );
        sleep(LOOK_AGAIN).await;
    }
}
