//! Receivers behind TLS: whom the daemon trusts.

use std::fs;

use pipelet_tests::Receiver;
use serde_json::{Value, json};

use crate::scene::daemon;

#[tokio::test]
async fn an_authority_that_was_added_is_trusted() {
    let receiver = Receiver::start_tls().await;
    let authority = tempfile::NamedTempFile::new().expect("a temporary file");
    fs::write(authority.path(), receiver.authority_pem()).expect("a writable file");
    let file = authority.path().to_str().expect("UTF-8");
    let daemon = daemon().flag("--ca-file", file).start().await;
    let api = daemon.api();
    let id = api.subscribe(&receiver.url(), &["Heartbeat"]).await;

    let tested = api
        .post_empty(&format!("/webhooks/{id}/test"))
        .await
        .expect(200);
    assert_eq!(
        (&tested["ok"], &tested["status_code"]),
        (&json!(true), &json!(200)),
        "{tested}"
    );
    assert_eq!(receiver.count(), 1);
}

#[tokio::test]
async fn an_unknown_authority_is_not() {
    let receiver = Receiver::start_tls().await;
    let daemon = daemon().start().await;
    let api = daemon.api();
    let id = api.subscribe(&receiver.url(), &["Heartbeat"]).await;

    let tested = api
        .post_empty(&format!("/webhooks/{id}/test"))
        .await
        .expect(200);
    assert_eq!(
        (&tested["ok"], &tested["status_code"]),
        (&json!(false), &Value::Null)
    );
    let error = tested["error"].as_str().expect("an error");
    assert!(
        error.to_lowercase().contains("tls") || error.contains("certificate"),
        "{error}"
    );
    assert_eq!(receiver.count(), 0);
}
