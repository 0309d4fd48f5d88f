//! Prometheus's own judge of metrics and rules. `.ci/run` has it where the system doesn't.

use std::{
    env,
    io::{self, Write as _},
    path::Path,
    process::Stdio,
};

use tokio::{io::AsyncWriteExt as _, process::Command};

/// Whether there is one: said loudly where there is none, and never missing in CI.
async fn is_there() -> bool {
    let asked = Command::new("promtool").arg("--version").output().await;
    if asked.is_ok() {
        return true;
    }
    assert!(
        env::var_os("CI").is_none(),
        "in CI nothing is skipped: promtool is missing"
    );
    // Not by a print macro: those are captured, and this is for a test that passes.
    let _ = writeln!(io::stderr(), "\n*** SKIPPED, for want of promtool\n");
    false
}

/// Fails the test where promtool, so called, finds anything.
pub(crate) async fn finds_nothing(directory: &Path, args: &[&str], stdin: &str) {
    if !is_there().await {
        return;
    }
    let mut promtool = Command::new("promtool")
        .args(args)
        .current_dir(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("promtool");
    let mut input = promtool.stdin.take().expect("stdin is piped");
    // What judges files reads nothing.
    let _ = input.write_all(stdin.as_bytes()).await;
    drop(input);
    let output = promtool.wait_with_output().await.expect("promtool");
    let told = [output.stdout, output.stderr].concat();
    let told = String::from_utf8_lossy(&told);
    assert!(output.status.success(), "promtool {args:?}: {told}");
}
