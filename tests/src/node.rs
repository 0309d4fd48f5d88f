//! npm's `ocpp-rpc`, beside the scripts that use it.

use std::path::{Path, PathBuf};

use crate::{packages, skip};

const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/node");
const SCRIPTS: [&str; 2] = ["station.js", "answering.js"];

/// A directory with the scripts and what they import, or none where Node.js or the network is
/// missing.
pub async fn scripts() -> Option<PathBuf> {
    let installed = packages::npm("node", Path::new(SOURCES), &SCRIPTS).await;
    installed.map_err(|why| skip("Node.js", why)).ok()
}
