//! The binary: the allocator that suits the daemon; everything else is in the library.

use std::{
    env, ffi::OsStr, hint, os::unix::process::CommandExt as _, process::Command, thread,
    time::Duration,
};

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

/// How often the allocator is made to look for what it may give back.
const PURGE_INTERVAL: Duration = Duration::from_millis(100);

fn main() -> std::process::ExitCode {
    let (name, delay) = PURGE_DELAY;
    if env::var_os(name).is_none() {
        begin_again_with(name, delay);
    }
    // Without, the daemon is only larger.
    let _ = thread::Builder::new()
        .name("allocator".into())
        .spawn(give_back);
    pipeletd::main()
}

/// Has the allocator give back what was freed longer ago than the delay. It does so by itself as
/// memory is freed, but two threads that free at once can make it forget that there is something to
/// give back (mimalloc 3: `mi_arenas_try_purge` takes back what `mi_arena_schedule_purge` has noted),
/// and then nothing is until a thread ends: that is when it looks at everything.
fn give_back() {
    loop {
        thread::park_timeout(PURGE_INTERVAL);
        // Only a thread that has allocated something is one to the allocator.
        let ended = thread::Builder::new().spawn(|| drop(hint::black_box(Box::new(0))));
        let _ = ended.map(thread::JoinHandle::join);
    }
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
