//! The screens of `pipeletctl`, as snapshots: stdout, stderr and exit code.

use pipelet_tests::{Answer, Ctl, Output, Receiver};

use crate::scene::{Scene, ctl, daemon};

/// What differs from run to run, and what stands for it in a snapshot. In a table that is as wide
/// as what it stands for, so that columns which don't line up are seen.
const VARYING: &[(&str, &str)] = &[
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", "<time>"),
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "YYYY-MM-DDThh:mm:ssZ"),
    (r"127\.0\.0\.1:\d+", "<address>"),
    (r"evt_[0-9a-f]{32}", "<event id>"),
    (r"req_[0-9a-f]{16}", "<request id>"),
    (r"hcpms_live_[0-9A-Za-z_-]+", "<key>"),
    // The cells of a column, by their widths.
    (r"\b\d ms {6}", "N ms      "),
    (r"\b\d\d ms {5}", "N ms      "),
    (r"\b\d{3} ms {4}", "N ms      "),
    (r"\b\d{4} ms {3}", "N ms      "),
    (r"\b\d+(\.\d+)? ?(ms|s)\b", "<duration>"),
    (r"(duration_ms\W+)\d+", "${1}<n>"),
    // Whether a connection was kept may differ.
    (r"(_us\W+)(\d+|null)", "${1}<n>"),
    (r"/tmp/[^/ ]+", "<home>"),
];

async fn hold(ctl: &Ctl, name: &str, line: &str) {
    hold_but(VARYING, ctl, name, line).await;
}

/// Runs a command and compares what it did with the snapshot, but for what varies.
async fn hold_but(varying: &[(&str, &str)], ctl: &Ctl, name: &str, line: &str) {
    let Output {
        code,
        stdout,
        stderr,
    } = ctl.line(line).await;
    let screen =
        format!("$ pipeletctl {line}\n{stdout}--- stderr ---\n{stderr}--- exit code {code} ---\n");
    let mut settings = insta::Settings::clone_current();
    settings.set_omit_expression(true);
    for (pattern, replacement) in varying {
        settings.add_filter(pattern, *replacement);
    }
    settings.bind(|| insta::assert_snapshot!(name, screen));
}

#[tokio::test]
async fn webhooks() {
    let receiver = Receiver::start().await;
    let daemon = daemon().start().await;
    let ctl = ctl(&daemon);
    hold(&ctl, "webhooks_list_empty", "webhooks list").await;
    let create = format!(
        "webhooks create --name Mine --url {} --event StartTransaction,StopTransaction \
         --secret-header X-Webhook-Secret --secret-value hidden",
        receiver.url()
    );
    hold(&ctl, "webhooks_create", &create).await;
    for format in ["table", "json", "jsonl", "yaml"] {
        hold(
            &ctl,
            &format!("webhooks_list_{format}"),
            &format!("-o {format} webhooks list"),
        )
        .await;
    }
    hold(&ctl, "webhooks_get", "webhooks get 1").await;
    hold(&ctl, "webhooks_test", "webhooks test 1").await;
    receiver.answer(Answer::Status(401));
    hold(&ctl, "webhooks_test_failed", "webhooks test 1").await;
    hold(&ctl, "webhooks_disable", "webhooks disable 1").await;
    hold(&ctl, "webhooks_update", "webhooks update 1 --name Other").await;
    hold(&ctl, "webhooks_delete", "webhooks delete 1 --yes").await;
}

#[tokio::test]
async fn dead_letters() {
    let builder = daemon()
        .flag("--retry-schedule", "1ms")
        .flag("--max-attempts", "2");
    let scene = Scene::with(builder, &["Heartbeat"]).await;
    let ctl = scene.ctl();
    hold(&ctl, "dlq_list_empty", "dlq list").await;
    scene.receiver.answer(Answer::Reply {
        status: 500,
        headers: vec![],
        body: "boom".to_owned(),
    });
    let mut station = scene.station("WALLBOX_001").await;
    for _ in 0..3 {
        station.ok("Heartbeat", "{}").await;
    }
    let failed = scene.api.await_failed("", 3).await;
    let id = failed[0]["id"].clone();
    hold(&ctl, "dlq_list", "dlq list").await;
    hold(&ctl, "dlq_list_json", "-o json dlq list --limit 1").await;
    hold(&ctl, "dlq_show", &format!("dlq show {id}")).await;
    hold(&ctl, "dlq_show_yaml", &format!("-o yaml dlq show {id}")).await;
    hold(&ctl, "dlq_replay_nothing_said", "dlq replay").await;
    hold(&ctl, "dlq_purge_without_yes", "dlq purge --all").await;
    hold(&ctl, "dlq_replay_fails_again", &format!("dlq replay {id}")).await;
    scene.api.await_failed("", 3).await;
    scene.receiver.answer(Answer::Status(200));
    hold(&ctl, "dlq_replay_all", "dlq replay --all").await;
    scene.api.await_failed("", 0).await;
    hold(&ctl, "dlq_purge_nothing", "dlq purge --all --yes").await;
}

#[tokio::test]
async fn stations_events_keys_and_status() {
    let scene = Scene::new(&["Heartbeat"]).await;
    let ctl = scene.ctl();
    hold(&ctl, "stations_list_empty", "stations list").await;
    let mut station = scene.station("WALLBOX_001").await;
    station.boot().await;
    hold(&ctl, "stations_list", "stations list").await;
    hold(&ctl, "stations_show", "stations show WALLBOX_001").await;
    hold(&ctl, "stations_show_unknown", "stations show nobody").await;
    hold(&ctl, "events_types", "events types").await;
    hold(&ctl, "keys_create", "keys create --name ci").await;
    hold(&ctl, "keys_list", "keys list").await;
    hold(&ctl, "status", "status").await;
}

#[tokio::test]
async fn errors_say_what_to_do_next() {
    let scene = Scene::new(&["Heartbeat"]).await;
    let ctl = scene.ctl();
    let url = scene.receiver.url();
    let create = format!("webhooks create --name N --url {url} --event");
    hold(
        &ctl,
        "error_unknown_event",
        &format!("{create} StartTransactoin"),
    )
    .await;
    let all = "webhooks create --name N --url nonsense --event Nothing --secret-header host --secret-value v";
    hold(&ctl, "error_all_faults", all).await;
    hold(&ctl, "error_not_found", "webhooks get 999").await;
    hold(&ctl, "error_not_found_dlq", "dlq show 999").await;
    hold(&ctl, "error_usage", "webhooks create --name N").await;
    hold(&ctl, "error_not_a_number", "webhooks get one").await;
    let stranger = ctl.clone().variable("PIPELET_API_KEY", "hcpms_live_wrong");
    hold(&stranger, "error_wrong_key", "webhooks list").await;
    let keyless = ctl.clone().without_variable("PIPELET_API_KEY");
    hold(&keyless, "error_no_key", "webhooks list").await;
    let nobody = Receiver::refused_url().await.replace("/webhooks/ocpp", "");
    let lost = ctl.clone().variable("PIPELET_SERVER", &nobody);
    hold(&lost, "error_unreachable", "webhooks list").await;
}

#[tokio::test]
async fn help() {
    let daemon = daemon().start().await;
    let ctl = ctl(&daemon);
    for line in [
        "--help",
        "webhooks --help",
        "webhooks create --help",
        "dlq --help",
        "dlq replay --help",
    ] {
        let name = format!(
            "help_{}",
            line.replace(" --help", "")
                .replace("--help", "main")
                .replace(' ', "_")
        );
        hold_but(&[], &ctl, &name, line).await;
    }
    assert!(
        ctl.line("completions bash")
            .await
            .ok()
            .contains("pipeletctl")
    );
}
