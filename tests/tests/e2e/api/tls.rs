//! TLS for those who call the API: REST and gRPC, and certificates that change.

use std::{fs, path::PathBuf};

use pipelet_tests::{Api, Authority, Builder, Ctl, Daemon, deadline::eventually};
use tempfile::TempDir;

use crate::scene::{ctl, daemon};

/// A daemon's files, and who vouches for it.
struct Files {
    directory: TempDir,
    authority: Authority,
}

impl Files {
    fn new() -> Self {
        let files = Self {
            directory: tempfile::tempdir().expect("a temporary directory"),
            authority: Authority::new(),
        };
        files.write(&files.authority);
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A new certificate of this authority's.
    fn write(&self, authority: &Authority) {
        let server = authority.server();
        let write = |name, text: &str| fs::write(self.path(name), text).expect("a writable file");
        write("key.pem", &server.key_pem);
        write("cert.pem", &server.certificate_pem);
        write("ca.pem", &authority.pem());
    }

    fn daemon(&self) -> Builder {
        let text = |name| self.path(name).to_str().expect("UTF-8").to_owned();
        daemon()
            .flag("--api-tls-cert", &text("cert.pem"))
            .flag("--api-tls-key", &text("key.pem"))
    }

    fn ctl(&self, daemon: &Daemon) -> Ctl {
        let ca = self.path("ca.pem");
        ctl(daemon)
            .variable("PIPELET_SERVER", &format!("https://{}", daemon.grpc()))
            .variable("PIPELET_CA_FILE", ca.to_str().expect("UTF-8"))
    }
}

fn api(daemon: &Daemon, authority: &Authority) -> Api {
    Api::over_tls(daemon.http(), Some(daemon.key()), authority)
}

#[tokio::test]
async fn rest_and_grpc_speak_tls_and_nothing_else() {
    let files = Files::new();
    let daemon = files.daemon().start().await;
    api(&daemon, &files.authority)
        .get("/webhooks")
        .await
        .expect(200);
    let ctl = files.ctl(&daemon);
    ctl.line("status").await.ok();
    let flag = format!("--ca-file {}", files.path("ca.pem").display());
    let with_flag = ctl.clone().without_variable("PIPELET_CA_FILE");
    with_flag.line(&format!("{flag} status")).await.ok();

    assert!(!api(&daemon, &Authority::new()).answers("/webhooks").await);
    assert!(!daemon.api().answers("/webhooks").await);
    let plain = format!("http://{}", daemon.grpc());
    for (variable, value, code) in [
        ("PIPELET_SERVER", plain.as_str(), 69),
        ("PIPELET_CA_FILE", "/there/is/none.pem", 2),
    ] {
        let refused = ctl.clone().variable(variable, value).line("status").await;
        assert_eq!(refused.code, code, "{variable}={value}: {refused:?}");
    }
    // Another authority's word is worth nothing.
    fs::write(files.path("ca.pem"), Authority::new().pem()).expect("a writable file");
    assert_eq!(ctl.line("status").await.code, 69);
}

#[tokio::test]
async fn who_mixes_the_schemes_up_is_told_which_it_is() {
    let files = Files::new();
    let speaks_tls = files.daemon().start().await;
    let plain = daemon().start().await;
    let ctl = files.ctl(&speaks_tls);
    let http = format!("http://{}", speaks_tls.grpc());
    let https = format!("https://{}", plain.grpc());
    let rest = format!("https://{}", speaks_tls.http());
    let untrusted = format!("https://{}", speaks_tls.grpc());
    let strangers = files.path("strangers.pem");
    fs::write(&strangers, Authority::new().pem()).expect("a writable file");
    let strangers = format!(" --ca-file {}", strangers.display());
    for (server, flags, hint) in [
        (&http, "", "with https:// where it speaks TLS"),
        (&https, "", "write the server as http://"),
        (&rest, "", "not the one of REST"),
        (
            &untrusted,
            strangers.as_str(),
            "--ca-file (PIPELET_CA_FILE)",
        ),
    ] {
        let line = format!("status --server {server}{flags}");
        let refused = ctl.line(&line).await;
        assert_eq!(refused.code, 69, "{refused:?}");
        assert!(refused.stderr.contains(hint), "{hint}: {refused:?}");
    }
}

#[tokio::test]
async fn certificates_are_read_again_at_a_signal() {
    let files = Files::new();
    let daemon = files.daemon().start().await;
    let ctl = files.ctl(&daemon);
    ctl.line("status").await.ok();
    let renewed = Authority::new();
    files.write(&renewed);
    assert_eq!(ctl.line("status").await.code, 69, "too early");
    daemon.signal("HUP").await;
    let status = || async { ctl.line("status").await.code };
    eventually("the new certificate", status, |code| *code == 0).await;
    let rest = || async { api(&daemon, &renewed).answers("/webhooks").await };
    eventually("the new certificate", rest, |answers| *answers).await;

    // A key that is not the certificate's changes nothing.
    fs::write(files.path("key.pem"), Authority::new().server().key_pem).expect("a writable file");
    daemon.signal("HUP").await;
    let log = || async { daemon.log() };
    let kept = |log: &String| log.matches("the certificates stay as they were").count() == 2;
    eventually("the bad key to be noticed", log, kept).await;
    ctl.line("status").await.ok();
}

#[tokio::test]
async fn half_of_what_tls_needs_is_refused_at_the_start() {
    let lonely = daemon().flag("--api-tls-cert", "cert.pem");
    let ended = lonely.run_to_end().await;
    assert_eq!(ended.code, Some(2), "{ended:?}");
    let files = Files::new();
    fs::write(files.path("cert.pem"), "no certificate").expect("a writable file");
    let ended = files.daemon().run_to_end().await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("no certificate in"), "{ended:?}");
}

#[tokio::test]
async fn whoever_exposes_keys_is_warned() {
    const WARNING: &str = "API keys travel unencrypted here";
    let files = Files::new();
    for (flag, address, over_tls, warnings) in [
        ("--http-listen", "127.0.0.1:0", false, 0),
        ("--http-listen", "127.9.9.9:0", false, 0),
        ("--http-listen", "0.0.0.0:0", false, 1),
        ("--http-listen", "0.0.0.0:0", true, 0),
        ("--grpc-listen", "0.0.0.0:0", false, 1),
        ("--grpc-listen", "[::]:0", false, 1),
        ("--grpc-listen", "[::1]:0", false, 0),
    ] {
        let builder = if over_tls { files.daemon() } else { daemon() };
        let log = builder.flag(flag, address).start().await.log();
        let warned = log.matches(WARNING).count();
        assert_eq!(warned, warnings, "{flag} {address}: {log}");
    }
}
