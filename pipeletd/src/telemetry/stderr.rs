//! Standard error, which whoever reads it may stop to.
//!
//! A line is written before anything that follows it, so that after a death the last ones are
//! there, which a thread of its own would still have had to write. But a pipe that is full makes
//! its writers wait, and those are all threads of the daemon. So they have little patience, all
//! together: beyond it a line that would have to wait is dropped and counted.

use std::{
    io::{self, Write as _},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// At most, from a time without waiting on.
const PATIENCE: Duration = Duration::from_millis(100);
/// It comes back at one part in so many of the time.
const RECOVERY: u32 = 100;
/// What a pipe takes at once when it takes anything, in bytes (`PIPE_BUF`, pipe(7)).
const PIECE: usize = 4096;

/// Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Stderr {
    state: Arc<Mutex<State>>,
    dropped: DroppedLines,
}

/// How many lines were dropped because they were not taken. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct DroppedLines(Arc<AtomicU64>);

#[derive(Debug)]
struct State {
    patience: Duration,
    /// When that was.
    at: Instant,
    /// A line was dropped after its beginning had been written.
    is_cut: bool,
}

impl DroppedLines {
    pub fn count(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

impl Stderr {
    pub(super) fn dropped(&self) -> DroppedLines {
        self.dropped.clone()
    }

    pub(super) fn write_line(&self, line: &[u8]) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.write(line) {
            self.dropped.0.fetch_add(1, Relaxed);
        }
    }
}

impl State {
    /// Whether all of it was written.
    fn write(&mut self, line: &[u8]) -> bool {
        let mut out = io::stderr().lock();
        for (index, piece) in line.chunks(PIECE).enumerate() {
            if self.is_cut {
                if !(self.may_write(&out) && out.write_all(b"\n").is_ok()) {
                    return false;
                }
                self.is_cut = false;
            }
            if !(self.may_write(&out) && out.write_all(piece).is_ok()) {
                self.is_cut = index > 0;
                return false;
            }
        }
        true
    }

    /// Waits, as long as there is patience, until a piece would be taken at once.
    fn may_write(&mut self, out: &io::StderrLock<'_>) -> bool {
        if takes(out, Duration::ZERO) {
            return true;
        }
        let now = Instant::now();
        let recovered = now.duration_since(self.at) / RECOVERY;
        let patience = (self.patience + recovered).min(PATIENCE);
        let taken = takes(out, patience);
        self.at = Instant::now();
        self.patience = patience.saturating_sub(self.at - now);
        taken
    }
}

impl Default for State {
    fn default() -> Self {
        Self {
            patience: PATIENCE,
            at: Instant::now(),
            is_cut: false,
        }
    }
}

/// Whether a write would not wait, now or within that time.
fn takes(out: &io::StderrLock<'_>, within: Duration) -> bool {
    let mut waiting = [PollFd::new(out, PollFlags::OUT)];
    // It is less than a second.
    let within = Timespec {
        tv_sec: 0,
        tv_nsec: within.subsec_nanos().into(),
    };
    // An error of the other end is told by the write itself, and not waited for.
    poll(&mut waiting, Some(&within)).is_ok_and(|ready| ready > 0)
}
