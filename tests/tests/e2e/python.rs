//! Virtual environments under `target/` that have what tests take from PyPI.

use std::{
    env,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use tokio::process::Command;

const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python");

/// What stations and receivers take.
pub(crate) const PEERS: &str = "requirements.txt";
/// What tries the API by its own description.
pub(crate) const SCHEMATHESIS: &str = "openapi.txt";

/// An environment of this name with what the file lists, or none where Python or the network is
/// missing: said loudly, and never in CI.
pub(crate) async fn venv(name: &str, requirements: &str) -> Option<PathBuf> {
    match make(name, &script(requirements)).await {
        Ok(venv) => Some(venv),
        Err(reason) if env::var_os("CI").is_none() => {
            // Not by a print macro: those are captured, and this is for a test that passes.
            let _ = writeln!(
                io::stderr(),
                "\n*** SKIPPED, for want of Python: {reason}\n"
            );
            None
        }
        Err(reason) => panic!("in CI nothing is skipped: {reason}"),
    }
}

/// A file that tests hand to Python.
pub(crate) fn script(name: &str) -> PathBuf {
    Path::new(SCRIPTS).join(name)
}

/// Makes the environment, once for each version of the requirements. A lock is held meanwhile,
/// because two test processes may run at once.
async fn make(name: &str, requirements: &Path) -> Result<PathBuf, String> {
    let venv = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("python-{name}"));
    let lock = File::create(venv.with_extension("lock")).map_err(|error| error.to_string())?;
    lock.lock().map_err(|error| error.to_string())?;

    let installed = venv.join("installed.txt");
    let wanted = fs::read_to_string(requirements).map_err(|error| error.to_string())?;
    if fs::read_to_string(&installed).is_ok_and(|installed| installed == wanted) {
        return Ok(venv);
    }
    run(Command::new("python3")
        .args(["-m", "venv", "--clear"])
        .arg(&venv))
    .await?;
    let pip = [
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "-r",
    ];
    run(Command::new(venv.join("bin/python"))
        .args(pip)
        .arg(requirements))
    .await?;
    fs::write(&installed, wanted).map_err(|error| error.to_string())?;
    Ok(venv)
}

async fn run(command: &mut Command) -> Result<(), String> {
    let what = format!("{:?}", command.as_std());
    let output = command.kill_on_drop(true).output().await;
    let output = output.map_err(|error| format!("{what}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "{what}: {}",
        String::from_utf8_lossy(&output.stderr)
    ))
}
