//! What the process leaves behind when it crashes: nothing of its memory.
//!
//! Secrets and keys are in memory in the clear. A core file is not written, and whoever asks for
//! one nevertheless (`prlimit`, or a `core_pattern` that is a program, which no limit holds back)
//! gets the registers of each thread and no memory. The process stays visible in `/proc`.

use std::fs;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Which mappings a core file has; none (`core(5)`).
const FILTER: &str = "/proc/self/coredump_filter";
const NO_MAPPING: &str = "0";

/// Holds for the whole process from here on.
pub fn leave_memory_out() {
    let none = Rlimit {
        current: Some(0),
        maximum: getrlimit(Resource::Core).maximum,
    };
    if let Err(error) = setrlimit(Resource::Core, none) {
        tracing::warn!(%error, "a crash may write a core file");
    }
    if let Err(error) = fs::write(FILTER, NO_MAPPING) {
        tracing::warn!(%error, "a core file would have the memory in it, and secrets with it");
    }
}
