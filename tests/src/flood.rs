//! What a receiver that floods does to the machine that it shares with the daemon.

use std::process::Command;

use rustix::thread::gettid;

/// Has this thread run only where no other would: in truth such a receiver has processors of its
/// own, and what is to be seen is how much of the daemon's it takes.
pub(crate) fn let_others_first() {
    let thread = gettid().as_raw_nonzero().to_string();
    let idle = Command::new("chrt")
        .args(["--idle", "--pid", "0", &thread])
        .status();
    assert!(idle.expect("chrt").success());
}
