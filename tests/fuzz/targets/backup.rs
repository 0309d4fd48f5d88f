#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| pipelet_fuzz::run("backup", input));
