//! npm's `ocpp-rpc` in a directory under `target/`, beside the scripts that use it.

use std::{
    env,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use tokio::process::Command;

const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/node");
/// What the installation depends on, and all that it needs.
const PINNED: [&str; 2] = ["package.json", "package-lock.json"];
const SCRIPTS: [&str; 2] = ["station.js", "answering.js"];

/// A directory with the scripts and what they import, or none where Node.js or the network is
/// missing: said loudly, and never in CI.
pub(crate) async fn scripts() -> Option<PathBuf> {
    match install().await {
        Ok(scripts) => Some(scripts),
        Err(reason) if env::var_os("CI").is_none() => {
            // Not by a print macro: those are captured, and this is for a test that passes.
            let _ = writeln!(
                io::stderr(),
                "\n*** SKIPPED, for want of Node.js: {reason}\n"
            );
            None
        }
        Err(reason) => panic!("in CI nothing is skipped: {reason}"),
    }
}

/// Installs what is pinned, once for each version of it. A lock is held meanwhile, because
/// tests and test processes run at once.
async fn install() -> Result<PathBuf, String> {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("node");
    fs::create_dir_all(&place).map_err(|error| error.to_string())?;
    let lock = File::create(place.with_extension("lock")).map_err(|error| error.to_string())?;
    let lock = tokio::task::spawn_blocking(move || lock.lock().map(|()| lock));
    let _held = lock
        .await
        .map_err(|error| error.to_string())?
        .map_err(|error| error.to_string())?;

    copy(&SCRIPTS, &place)?;
    let installed = place.join("installed.json");
    let wanted = fs::read(Path::new(SOURCES).join(PINNED[1])).map_err(|error| error.to_string())?;
    if fs::read(&installed).is_ok_and(|installed| installed == wanted) {
        return Ok(place);
    }
    copy(&PINNED, &place)?;
    let mut npm = Command::new("npm");
    npm.args(["ci", "--no-audit", "--no-fund", "--ignore-scripts"])
        .current_dir(&place);
    run(&mut npm).await?;
    fs::write(&installed, wanted).map_err(|error| error.to_string())?;
    Ok(place)
}

/// Scripts find their packages from where they are themselves.
fn copy(names: &[&str], place: &Path) -> Result<(), String> {
    names.iter().try_for_each(|name| {
        fs::copy(Path::new(SOURCES).join(name), place.join(name))
            .map(drop)
            .map_err(|error| format!("{name}: {error}"))
    })
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
