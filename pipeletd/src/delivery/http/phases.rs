//! What of an attempt's time went where.
//!
//! Names are looked up where a library calls us back, within the attempt's own task. So it is noted
//! beside that task, and read at the attempt's end.

use std::{cell::Cell, pin::pin, time::Duration};

use pipelet_domain::deliveries::Phases;
use tokio::time::{Instant, timeout_at};

tokio::task_local! {
    static NOTED: Cell<Noted>;
}

/// What has been begun, and how long it took.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Noted {
    lookup: Part,
    /// The lookup and the handshake included.
    connect: Part,
    handshake: Part,
}

#[derive(Debug, Clone, Copy, Default)]
enum Part {
    #[default]
    Spared,
    Since(Instant),
    Took(Duration),
}

impl Part {
    fn until(self, end: Instant) -> Option<Duration> {
        match self {
            Self::Spared => None,
            Self::Since(begun) => Some(end - begun),
            Self::Took(time) => Some(time),
        }
    }
}

impl Noted {
    /// The parts of an attempt, by when it was begun, when its answer began, if it did, and when it
    /// ended.
    pub(super) fn phases(
        self,
        begun: Instant,
        answered: Option<Instant>,
        ended: Instant,
    ) -> Phases {
        let parts = [self.lookup, self.connect, self.handshake];
        let [lookup, connect, handshake] = parts.map(|part| part.until(ended));
        let before = connect.or(lookup).unwrap_or_default();
        Phases {
            lookup,
            connect: connect.map(|connect| {
                let others = lookup.unwrap_or_default() + handshake.unwrap_or_default();
                connect.saturating_sub(others)
            }),
            handshake,
            first_byte: answered.map(|answered| (answered - begun).saturating_sub(before)),
        }
    }
}

/// Runs an attempt up to its deadline, and tells what was noted of it; `None` where it did not end.
pub(super) async fn noting<T>(
    deadline: Instant,
    attempt: impl Future<Output = T>,
) -> (Option<T>, Noted) {
    let mut attempt = pin!(NOTED.scope(Cell::default(), attempt));
    let ended = timeout_at(deadline, attempt.as_mut()).await;
    let noted = attempt.take_value().unwrap_or_default();
    (ended.ok(), noted.get())
}

/// Notes how long a lookup takes.
pub(super) async fn lookup<T>(looking: impl Future<Output = T>) -> T {
    note(|noted, part| noted.lookup = part, looking).await
}

/// Notes how long connecting takes, to the end of the handshake where there is one.
pub(super) async fn connect<T>(connecting: impl Future<Output = T>) -> T {
    let connected = note(|noted, part| noted.connect = part, connecting).await;
    set(|noted| {
        if let Part::Since(begun) = noted.handshake {
            noted.handshake = Part::Took(begun.elapsed());
        }
    });
    connected
}

/// The connection is there, and TLS begins.
pub(super) fn handshake_begins() {
    set(|noted| noted.handshake = Part::Since(Instant::now()));
}

async fn note<T>(put: impl Fn(&mut Noted, Part), running: impl Future<Output = T>) -> T {
    let begun = Instant::now();
    set(|noted| put(noted, Part::Since(begun)));
    let output = running.await;
    set(|noted| put(noted, Part::Took(begun.elapsed())));
    output
}

fn set(change: impl FnOnce(&mut Noted)) {
    // Outside of an attempt there is nothing to note it in.
    let _ = NOTED.try_with(|cell| {
        let mut noted = cell.get();
        change(&mut noted);
        cell.set(noted);
    });
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn phases(parts: [Option<u32>; 4]) -> Phases {
        let [lookup, connect, handshake, first_byte] = parts;
        let time = |ms: Option<u32>| ms.map(|ms| MS * ms);
        Phases {
            lookup: time(lookup),
            connect: time(connect),
            handshake: time(handshake),
            first_byte: time(first_byte),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_parts_add_up() {
        let begun = Instant::now();
        let attempt = async {
            connect(async {
                lookup(sleep(3 * MS)).await;
                sleep(5 * MS).await;
                handshake_begins();
                sleep(2 * MS).await;
            })
            .await;
            sleep(7 * MS).await;
            let answered = Instant::now();
            sleep(11 * MS).await;
            answered
        };
        let (answered, noted) = noting(begun + 100 * MS, attempt).await;
        let found = noted.phases(begun, answered, Instant::now());
        assert_eq!(found, phases([Some(3), Some(5), Some(2), Some(7)]));
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_deadline_cut_is_told() {
        let begun = Instant::now();
        let hanging = connect(async {
            lookup(sleep(3 * MS)).await;
            sleep(2 * MS).await;
            handshake_begins();
            sleep(1000 * MS).await;
        });
        let (ended, noted) = noting(begun + 10 * MS, hanging).await;
        assert!(ended.is_none());
        let found = noted.phases(begun, None, Instant::now());
        assert_eq!(found, phases([Some(3), Some(2), Some(5), None]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_kept_connection_spares_the_rest() {
        let begun = Instant::now();
        let answered = Some(begun + 2 * MS);
        let found = Noted::default().phases(begun, answered, begun + 2 * MS);
        assert_eq!(found, phases([None, None, None, Some(2)]));
    }
}
