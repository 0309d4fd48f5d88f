//! Projects in Node.js with what npm installs for them.

use std::path::{Path, PathBuf};

use crate::{packages, skip};

const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/node");
const SCRIPTS: [&str; 3] = ["station.js", "answering.js", "generated.ts"];

/// A directory with the scripts of stations and what they import, as [`project`] has it.
pub async fn scripts() -> Option<PathBuf> {
    project("station", Path::new(SOURCES), &SCRIPTS).await
}

/// A directory with these scripts of a project and what they import, or none where Node.js or the
/// network is missing.
pub async fn project(name: &str, sources: &Path, scripts: &[&str]) -> Option<PathBuf> {
    let installed = packages::npm(&format!("node-{name}"), sources, scripts).await;
    installed.map_err(|why| skip("Node.js", why)).ok()
}
