//! What every fuzzing binary does with an input: runs its target, and holds it to its memory.

use peak_alloc::PeakAlloc;
use pipeletd::fuzzing::Target;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

pub fn run(name: &str, input: &[u8]) {
    let target = Target::find(name).expect("a binary is named like its target");
    MEMORY.reset_peak_usage();
    let before = MEMORY.current_usage();
    (target.run)(input);
    let taken = MEMORY.peak_usage().saturating_sub(before);
    let most = target.memory(input);
    assert!(taken <= most, "{taken} bytes of memory for {} of input", input.len());
}
