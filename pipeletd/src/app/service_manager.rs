//! What a service manager (systemd) is told of the daemon, as `sd_notify(3)` has it: that it
//! listens, that it reads its settings again, that it ends, and that it is alive.
//!
//! Without a manager nobody is told. Where to is in variables that only the manager sets, for its
//! library to read.

use std::time::Duration;

use futures_util::future::join_all;
use sd_notify::NotifyState;
use tokio::{runtime::Handle, time};
use tokio_util::sync::CancellationToken;

use crate::journal::{AppendError, Journal, Journals};

/// It listens; `status` is a line for people.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// It reads its settings again. The manager waits for [`reloaded`].
pub fn reloading() {
    let reloading = NotifyState::Reloading;
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[reloading, now]),
        Err(_) => tell(&[reloading]),
    }
}

pub fn reloaded() {
    tell(&[NotifyState::Ready]);
}

/// Says that the daemon is alive for as long as it is, and at the shutdown that it ends.
///
/// It is alive while both runtimes turn and the journals' committers answer. A store that has an
/// outage does not count against it: a restart would not mend the disk.
pub async fn attend(
    journals: impl Fn() -> Vec<Journals>,
    delivering: Handle,
    shutdown: CancellationToken,
) {
    let alive = async {
        match sd_notify::watchdog_enabled() {
            Some(limit) => prove_life(limit, &journals, &delivering).await,
            None => std::future::pending().await,
        }
    };
    shutdown.run_until_cancelled(alive).await;
    shutdown.cancelled().await;
    let status = NotifyState::Status("ending: attempts in flight may still finish");
    tell(&[NotifyState::Stopping, status]);
}

/// Twice in the time that the manager waits, as `sd_watchdog_enabled(3)` recommends.
async fn prove_life(limit: Duration, journals: &impl Fn() -> Vec<Journals>, delivering: &Handle) {
    let mut ticks = time::interval((limit / 2).max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let turned = delivering.spawn(async {}).await.is_ok();
        let journals = journals();
        let journals = journals.iter().flat_map(Journals::iter);
        let floors = join_all(journals.map(Journal::floor)).await;
        let stopped = |floor: &Result<_, _>| matches!(floor, Err(AppendError::Stopped));
        let answered = !floors.iter().any(stopped);
        if turned && answered {
            tell(&[NotifyState::Watchdog]);
        }
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager could not be told");
    }
}
