//! The fuzzer's kept inputs, run again: all that a target has found, and what led it there.
//!
//! See `docs/developing/testing.md` for how to find more.

use std::{
    fs,
    panic::catch_unwind,
    path::{Path, PathBuf},
};

use peak_alloc::PeakAlloc;
use pipeletd::fuzzing::{TARGETS, Target};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// One test, because the memory is that of the whole process.
#[test]
fn what_was_found_stays_mended() {
    let mut broken = Vec::new();
    for target in TARGETS {
        let inputs = inputs(target);
        assert!(!inputs.is_empty(), "{} has no inputs", target.name);
        for path in inputs {
            let input = fs::read(&path).expect("an input");
            // The panic itself says more, before this.
            if catch_unwind(|| hold(target, &input)).is_err() {
                broken.push(path);
            }
        }
        // The shortest inputs, and claims that nothing stands behind.
        for input in [&[][..], &[0], &[0xff; 64], &[1; 64], b"{}", b"\0{}"] {
            hold(target, input);
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
    assert_eq!(
        directories(),
        TARGETS.len(),
        "each target has its inputs, and nobody else"
    );
}

fn hold(target: &Target, input: &[u8]) {
    MEMORY.reset_peak_usage();
    let before = MEMORY.current_usage();
    (target.run)(input);
    let taken = MEMORY.peak_usage().saturating_sub(before);
    let most = target.memory(input);
    assert!(taken <= most, "{taken} bytes of memory, not {most}");
}

fn inputs(target: &Target) -> Vec<PathBuf> {
    let directory = root().join("corpus").join(target.name);
    let entries = fs::read_dir(directory).expect("the target's inputs");
    entries
        .map(|entry| entry.expect("an input").path())
        .collect()
}

fn directories() -> usize {
    let corpus = fs::read_dir(root().join("corpus"));
    corpus.expect("the corpus").count()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}
