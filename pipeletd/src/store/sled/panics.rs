//! What sled panics of, as values.
//!
//! It panics where it finds on disk what it would not have written. That is damage, to be told as
//! such, and no fault of the thread that happened to read it. Its own threads serve all databases
//! of the process, and there is no going on without them: their first panic is kept.
//!
//! Only the process has a panic hook, so what it notes stands in statics.

use std::{
    cell::{Cell, RefCell},
    panic::{self, AssertUnwindSafe, PanicHookInfo},
    sync::{Once, OnceLock},
    thread,
};

/// How the names of sled's own threads begin.
const OF_SLED: [&str; 2] = ["sled-io-", "log flusher"];

thread_local! {
    static IS_IN_SLED: Cell<bool> = const { Cell::new(false) };
    static LAST: RefCell<Option<String>> = const { RefCell::new(None) };
}

static OF_ITS_THREADS: OnceLock<String> = OnceLock::new();

/// Runs something of sled's; the error says what it panicked of.
pub(super) fn caught<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    take_note();
    let was = IS_IN_SLED.replace(true);
    // After a panic the database is used no more.
    let ran = panic::catch_unwind(AssertUnwindSafe(run));
    IS_IN_SLED.set(was);
    ran.map_err(|_| LAST.take().unwrap_or_default())
}

/// What one of sled's threads has panicked of.
pub(super) fn of_its_threads() -> Option<&'static str> {
    OF_ITS_THREADS.get().map(String::as_str)
}

fn take_note() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let others = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            if IS_IN_SLED.get() {
                LAST.set(Some(in_words(panic)));
            } else if is_of_sled(thread::current().name()) {
                let what = OF_ITS_THREADS.get_or_init(|| in_words(panic));
                tracing::error!(what, "the store is damaged, and can't go on");
            } else {
                others(panic);
            }
        }));
    });
}

fn is_of_sled(thread: Option<&str>) -> bool {
    thread.is_some_and(|name| OF_SLED.iter().any(|of_sled| name.starts_with(of_sled)))
}

fn in_words(panic: &PanicHookInfo<'_>) -> String {
    let what = panic.payload_as_str().unwrap_or("a panic without words");
    // An assertion shows both of its sides, each on a line of its own.
    let what = what.lines().next().unwrap_or_default();
    match panic.location() {
        Some(at) => format!(
            "{what} (sled, line {} of {})",
            at.line(),
            file_name(at.file())
        ),
        None => what.to_owned(),
    }
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_told_in_words() {
        assert_eq!(caught(|| 7), Ok(7));
        let told = caught(|| panic!("page {} is odd\nin two lines", 7)).unwrap_err();
        assert!(told.starts_with("page 7 is odd (sled, line "), "{told}");
        assert!(told.ends_with("of panics.rs)"), "{told}");
        // What is none of sled's is as it was.
        assert!(panic::catch_unwind(|| panic!("other")).is_err());
        assert_eq!(caught(|| 7), Ok(7));
    }
}
