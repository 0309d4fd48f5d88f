//! Prometheus's own judge of metrics and rules. `.ci/run` has it where the system doesn't.

use std::{path::Path, process::Stdio};

use tokio::{io::AsyncWriteExt as _, process::Command};

use crate::skip;

/// Fails the test where promtool, so called, finds anything.
pub async fn finds_nothing(directory: &Path, args: &[&str], stdin: &str) {
    let promtool = Command::new("promtool")
        .args(args)
        .current_dir(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    let mut promtool = match promtool {
        Ok(promtool) => promtool,
        Err(why) => return skip("promtool", why),
    };
    let mut input = promtool.stdin.take().expect("stdin is piped");
    // What judges files reads nothing.
    let _ = input.write_all(stdin.as_bytes()).await;
    drop(input);
    let output = promtool.wait_with_output().await.expect("promtool");
    let told = [output.stdout, output.stderr].concat();
    let told = String::from_utf8_lossy(&told);
    assert!(output.status.success(), "promtool {args:?}: {told}");
}
