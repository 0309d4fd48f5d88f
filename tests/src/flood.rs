//! What a receiver that floods does to the machine that it shares with the daemon.

use rustix::process::setpriority_process;

/// Gives this thread the lowest priority: in truth such a receiver has processors of its own, and
/// what is to be seen is how much of the daemon's it takes.
pub(crate) fn let_others_first() {
    // Of a thread, on Linux (setpriority(2), "C library/kernel differences").
    setpriority_process(None, 19).expect("lower is always allowed");
}
