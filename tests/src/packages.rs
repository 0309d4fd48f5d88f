//! What tests and benches take from npm and PyPI: installed under `target/`, once for each version
//! of what is pinned.

use std::{
    env,
    fs::{self, File},
    path::{Path, PathBuf},
};

use tokio::process::Command;

/// A directory of this name with what the lock file in `sources` pins, and beside it these scripts
/// of theirs, because a script finds its packages from where it is itself.
pub async fn npm(name: &str, sources: &Path, scripts: &[&str]) -> Result<PathBuf, String> {
    let copy = |file: &str, place: &Path| {
        let copied = fs::copy(sources.join(file), place.join(file));
        copied.map(drop).map_err(|error| format!("{file}: {error}"))
    };
    let (place, _lock) = installed(name, &sources.join("package-lock.json"), async |place| {
        copy("package.json", place)?;
        copy("package-lock.json", place)?;
        let mut npm = Command::new("npm");
        npm.args(["ci", "--no-audit", "--no-fund", "--ignore-scripts"]);
        run(npm.current_dir(place)).await
    })
    .await?;
    scripts.iter().try_for_each(|script| copy(script, &place))?;
    Ok(place)
}

/// A virtual environment of this name with what the file pins.
pub async fn pip(name: &str, requirements: &Path) -> Result<PathBuf, String> {
    let (place, _lock) = installed(name, requirements, async |place| {
        run(Command::new("python3").args(["-m", "venv"]).arg(place)).await?;
        let mut pip = Command::new(place.join("bin/python"));
        pip.args(["-m", "pip", "install", "--quiet"])
            .args(["--disable-pip-version-check", "-r"]);
        run(pip.arg(requirements)).await
    })
    .await?;
    Ok(place)
}

/// Has `fetch` fill the place, where it was not filled for this content of `pinned`. The lock is
/// for who goes on to change the place: tests and test processes run at once.
async fn installed(
    name: &str,
    pinned: &Path,
    fetch: impl AsyncFnOnce(&Path) -> Result<(), String>,
) -> Result<(PathBuf, File), String> {
    let text = |error: std::io::Error| error.to_string();
    let place = directory().join(name);
    let lock = File::create(place.with_extension("lock")).map_err(text)?;
    let lock = tokio::task::spawn_blocking(move || lock.lock().map(|()| lock));
    let lock = lock
        .await
        .map_err(|error| error.to_string())?
        .map_err(text)?;
    let wanted = fs::read(pinned).map_err(text)?;
    let stamp = place.join("installed");
    if fs::read(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok((place, lock));
    }
    if place.exists() {
        fs::remove_dir_all(&place).map_err(text)?;
    }
    fs::create_dir_all(&place).map_err(text)?;
    fetch(&place).await?;
    fs::write(stamp, wanted).map_err(text)?;
    Ok((place, lock))
}

/// Cargo's `CARGO_TARGET_TMPDIR`, which it names to tests and not to a library of theirs: this
/// program is in `target/PROFILE/deps`.
fn directory() -> PathBuf {
    let program = env::current_exe().expect("the path of this program");
    let target = program.ancestors().nth(3).expect("target/");
    target.join("tmp")
}

async fn run(command: &mut Command) -> Result<(), String> {
    let what = format!("{:?}", command.as_std());
    let output = command.kill_on_drop(true).output().await;
    let output = output.map_err(|error| format!("{what}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(format!("{what}: {stderr}"))
}
