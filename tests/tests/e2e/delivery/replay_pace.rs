//! `pipeletctl dlq replay --rate … --canary`: carefully, and no further than the receiver lets it.

use pipelet_tests::{Answer, Output, Receiver};
use serde_json::json;

use crate::scene::{Scene, daemon};

const REPLAY: &str = "-o json dlq replay --all --rate 1000/s --canary";

/// A receiver that has left so many dead letters.
async fn scene(dead: usize) -> Scene {
    let scene = Scene::with(daemon().flag("--max-attempts", "1"), &["Heartbeat"]).await;
    scene.receiver.answer(Answer::Status(500));
    for number in 0..dead {
        let mut station = scene.station(&format!("S{number}")).await;
        station.ok("Heartbeat", "{}").await;
    }
    scene.api.await_failed("?limit=100", dead).await;
    scene
}

fn outcome(output: &Output) -> serde_json::Value {
    serde_json::from_str(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

#[tokio::test]
async fn it_goes_on_until_nothing_is_left() {
    let scene = scene(12).await;
    scene.receiver.answer(Answer::Status(200));
    let output = scene.ctl().line(REPLAY).await;
    assert_eq!(output.code, 0, "{output:?}");
    let done = outcome(&output);
    assert_eq!(
        (&done["total"], &done["delivered"], &done["left"]),
        (&json!(12), &json!(12), &json!(0)),
        "{done}"
    );
    scene.api.await_failed("", 0).await;
    let again = scene.ctl().line(REPLAY).await;
    assert_eq!(
        (again.code, outcome(&again)["total"].clone()),
        (0, json!(0))
    );
}

/// It is not said that they will be retried: there is no second attempt.
#[tokio::test]
async fn what_fails_for_good_is_called_a_dead_letter() {
    let scene = scene(2).await;
    for line in ["dlq replay 1", "dlq replay --all --rate 1000/s"] {
        let replayed = scene.ctl().line(line).await;
        assert_eq!(replayed.code, 1, "{replayed:?}");
        let told = &replayed.stderr;
        assert!(told.contains("dead letters as before"), "{told}");
        assert!(!told.contains("will be retried"), "{told}");
        scene.api.await_failed("", 2).await;
    }
}

#[tokio::test]
async fn a_canary_that_fails_stops_it_and_the_other_webhook_gets_its_own() {
    let scene = scene(5).await;
    let other = Receiver::start().await;
    other.answer(Answer::Status(500));
    let theirs = scene.api.subscribe(&other.url(), &["Authorize"]).await;
    let mut station = scene.station("T1").await;
    station.ok("Authorize", json!({"idTag": "T"})).await;
    scene.api.await_failed("", 6).await;
    other.answer(Answer::Status(200));

    let output = scene.ctl().line(REPLAY).await;
    assert_eq!(output.code, 6, "{output:?}");
    let done = outcome(&output);
    assert_eq!(done["stopped"], json!([scene.webhook]), "{done}");
    assert_eq!(
        (&done["replayed"], &done["delivered"], &done["left"]),
        (&json!(2), &json!(1), &json!(4)),
        "{done}"
    );
    let books = scene.api.await_stats(theirs, json!({"delivered": 1})).await;
    assert_eq!(books["dead"], 0);
}

#[tokio::test]
async fn it_stops_when_failures_return_and_the_same_command_goes_on() {
    let scene = scene(20).await;
    // 1 and 2 go well, and of the 4 that follow none.
    scene
        .receiver
        .answer_next([200, 200, 200].map(Answer::Status));
    let output = scene.ctl().line(REPLAY).await;
    assert_eq!(output.code, 6, "{output:?}");
    let done = outcome(&output);
    assert_eq!(
        (&done["delivered"], &done["failed"], &done["left"]),
        (&json!(3), &json!(4), &json!(13)),
        "{done}"
    );

    // What failed again is a dead letter anew, by itself.
    scene.api.await_failed("", 17).await;
    scene.receiver.answer(Answer::Status(200));
    let screen = scene.ctl().line("dlq replay --all --canary").await;
    assert_eq!(screen.code, 0, "{screen:?}");
    assert!(screen.stderr.contains("17 delivered"), "{screen:?}");
    scene.api.await_failed("", 0).await;
}

/// A canary is one letter, and the daemon says why one alone can't be replayed.
#[tokio::test]
async fn a_disabled_webhook_and_one_that_is_gone_are_left_and_the_others_get_their_own() {
    let scene = scene(3).await;
    let other = Receiver::start().await;
    other.answer(Answer::Status(500));
    let gone = scene.api.subscribe(&other.url(), &["Authorize"]).await;
    scene.api.subscribe(&other.url(), &["Authorize"]).await;
    let mut station = scene.station("T1").await;
    station.ok("Authorize", json!({"idTag": "T"})).await;
    scene.api.await_failed("", 5).await;
    let ctl = scene.ctl();
    let disable = format!("webhooks disable {}", scene.webhook);
    ctl.line(&disable).await.ok();
    ctl.line(&format!("webhooks delete {gone} --yes"))
        .await
        .ok();
    other.answer(Answer::Status(200));

    for pace in ["--canary", "--rate 1/s"] {
        let line = format!("-o json dlq replay --all {pace}");
        let output = ctl.line(&line).await;
        let done = outcome(&output);
        let delivered = u64::from(pace == "--canary");
        assert_eq!(done["delivered"], delivered, "{pace}: {output:?}");
    }
}
