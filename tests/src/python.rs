//! Virtual environments that have what tests take from PyPI.

use std::path::{Path, PathBuf};

use crate::{packages, skip};

const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python");

/// What stations take.
pub const PEERS: &str = "requirements.txt";
/// What tries the API by its own description.
pub const SCHEMATHESIS: &str = "openapi.txt";
/// What makes a client of that description.
pub const GENERATOR: &str = "generated.txt";

/// A server of NATS.
pub const NATS: &str = "nats.txt";

/// An environment of this name with what the file lists, one of these or another's, or none where Python or the network is
/// missing.
pub async fn venv(name: &str, requirements: impl AsRef<Path>) -> Option<PathBuf> {
    // A path that stands alone stays what it is.
    let requirements = Path::new(SCRIPTS).join(requirements);
    let installed = packages::pip(&format!("python-{name}"), &requirements).await;
    installed.map_err(|why| skip("Python", why)).ok()
}

/// A file that tests hand to Python.
pub fn script(name: &str) -> PathBuf {
    Path::new(SCRIPTS).join(name)
}
