//! The binary: the allocator that suits the daemon; everything else is in the library.

use std::{env, ffi::OsStr, os::unix::process::CommandExt as _, process::Command};

/// Events are made by one thread, committed by a second and freed by a third, a hundred thousand
/// times a second: glibc's allocator took a quarter of the daemon's time for that, this one a
/// twelfth. Huge pages would keep whole ones for every page that is in use.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// For how many milliseconds the allocator keeps what was freed, before the system has it back. Its
/// default of a second is a second's worth of large messages, which is more than all of the memory
/// budget; with none, events cost an eighth more. It reads its options from the environment alone,
/// when the process begins.
const PURGE_DELAY: (&str, &str) = ("MIMALLOC_PURGE_DELAY", "2");

fn main() -> std::process::ExitCode {
    let (name, delay) = PURGE_DELAY;
    if env::var_os(name).is_none() {
        begin_again_with(name, delay);
    }
    pipeletd::main()
}

/// Becomes the same program, in the same process, with this variable; returns where that can't be,
/// which does no harm.
fn begin_again_with(name: &str, value: &str) {
    let mut words = env::args_os();
    let name_of_ours = words.next();
    if let Ok(program) = env::current_exe() {
        let _ = Command::new(program)
            .arg0(name_of_ours.as_deref().unwrap_or(OsStr::new("pipeletd")))
            .args(words)
            .env(name, value)
            .exec();
    }
}
