//! What packages are made of is there, and true.

use std::{collections::BTreeSet, fs, path::Path};

use pipelet_tests::deadline::within;
use tokio::process::Command;

use crate::scene::daemon;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the workspace")
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Everything that the package names is in the tree, or what its script makes.
#[test]
fn the_debian_package_names_what_there_is() {
    let manifest = read("pipeletd/Cargo.toml");
    let (_, deb) = manifest
        .split_once("[package.metadata.deb]")
        .expect("metadata");
    let assets = deb
        .lines()
        .filter(|line| line.trim_start().starts_with("[\""));
    let sources: Vec<_> = assets.filter_map(|line| line.split('"').nth(1)).collect();
    assert!(sources.len() > 5, "{sources:?}");
    let script = read("pipeletd/packaging/deb");
    for source in sources {
        let made = source.strip_prefix("target/release/packaging/");
        match (made, source.strip_prefix("target/release/")) {
            (Some(made), _) => {
                let first = made.split('/').next().expect("a component");
                assert!(script.contains(&format!("$made/{first}")), "{source}");
            }
            (None, Some(binary)) => assert!(script.contains(&format!("--bin {binary}"))),
            (None, None) => {
                let place = source.trim_end_matches("*.md");
                let path = root().join("pipeletd").join(place);
                assert!(path.exists(), "{source}");
            }
        }
    }
    for script in ["postinst", "postrm"] {
        let text = read(&format!("pipeletd/packaging/debian/{script}"));
        assert!(text.contains("\n#DEBHELPER#"), "{script}");
    }
}

/// The example is right as it is, and with everything in it said.
#[tokio::test]
async fn the_example_of_a_configuration_is_one() {
    let example = read("pipeletd/packaging/pipeletd.toml");
    let said = |line: &str| {
        line.strip_prefix("# ")
            .filter(|line| line.contains(" = "))
            .map(str::to_owned)
    };
    let all: Vec<_> = example.lines().filter_map(said).collect();
    assert!(all.len() > 5, "{example}");
    for text in [example, all.join("\n")] {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        fs::write(file.path(), &text).expect("a writable file");
        let path = file.path().to_str().expect("UTF-8");
        let ended = daemon()
            .flag("--config", path)
            .switch("--check")
            .run_to_end()
            .await;
        assert_eq!(ended.code, Some(0), "{ended:?}: {text}");
    }
}

#[tokio::test]
async fn the_manual_has_every_flag() {
    let pages = tempfile::tempdir().expect("a temporary directory");
    let path = pages.path().to_str().expect("UTF-8");
    let ended = daemon().switch("manual").switch(path).run_to_end().await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let page = fs::read_to_string(pages.path().join("pipeletd.1")).expect("a page");
    let page = page.replace("\\-", "-");
    let help = daemon().switch("--help").run_to_end().await.stdout;
    let flags = help
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("--"));
    let flags: BTreeSet<_> = flags
        .filter_map(|flag| flag.split([' ', '[']).next())
        .collect();
    assert!(flags.len() > 30, "{help}");
    for flag in flags {
        assert!(page.contains(&format!("--{flag}")), "{flag}");
    }
    assert!(pages.path().join("pipeletd-restore.1").exists());
}

/// systemd itself reads the unit, where there is one.
#[tokio::test]
async fn the_unit_is_one_that_systemd_takes() {
    let unit = read("pipeletd/packaging/pipeletd.service");
    let directory = tempfile::tempdir().expect("a temporary directory");
    let here = env!("CARGO_BIN_EXE_e2e-pipeletd");
    let copy = directory.path().join("pipeletd.service");
    fs::write(&copy, unit.replace("/usr/bin/pipeletd", here)).expect("a writable file");
    let verify = Command::new("systemd-analyze")
        .args(["verify", "--man=no"])
        .arg(&copy)
        .output();
    let Ok(verified) = within("systemd-analyze", verify).await else {
        // Without systemd on the machine, the words that the daemon relies on are still there.
        for line in ["Type=notify", "WatchdogSec=", "ExecReload=/bin/kill -HUP"] {
            assert!(unit.contains(line), "{line}");
        }
        return;
    };
    let said = String::from_utf8_lossy(&verified.stderr);
    assert!(
        verified.status.success() && !said.contains("pipeletd.service"),
        "{said}"
    );
}
