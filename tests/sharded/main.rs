//! The daemon in four shards, all of them in memory: nothing outlives it.

use std::{fs, process::ExitCode};

use pipeletd::store::{StoreError, memory::MemoryStore};

const SHARDS: u16 = 4;

fn main() -> ExitCode {
    pipeletd::main_on(async |config| {
        // For the first API key.
        fs::create_dir_all(&config.data_dir).map_err(StoreError::Sync)?;
        Ok(MemoryStore::engine(SHARDS).into())
    })
}
