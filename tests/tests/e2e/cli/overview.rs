//! `webhooks stats` and `top`: how webhooks fare.

use pipelet_tests::{Answer, Receiver};
use serde_json::json;

use crate::scene::{Scene, daemon};

#[tokio::test]
async fn figures_tell_who_fails() {
    let scene = Scene::with(daemon().flag("--retry-schedule", "1h"), &["Heartbeat"]).await;
    let failing = Receiver::start().await;
    failing.answer(Answer::Status(500));
    scene.api.subscribe(&failing.url(), &["Heartbeat"]).await;
    let mut station = scene.station("S1").await;
    for _ in 0..4 {
        station.ok("Heartbeat", "{}").await;
    }
    scene.api.await_stats(1, json!({"delivered": 4})).await;
    scene.api.await_stats(2, json!({"retrying": 4})).await;
    let figures = scene.ctl().json("webhooks stats").await;
    let figure = |at: usize, name: &str| figures[at][name].clone();
    assert_eq!(figure(0, "success_rate"), 1.0, "{figures}");
    assert_eq!(figure(1, "success_rate"), 0.0, "{figures}");
    assert_eq!(
        (figure(0, "attempts"), figure(1, "attempts")),
        (json!(4), json!(4))
    );
    assert!(
        figure(0, "latency_p99_ms")
            .as_f64()
            .is_some_and(|ms| ms > 0.0)
    );
    assert!(figure(1, "next_retry_at").is_string());
    // Nothing happens in the next moment.
    let lately = scene.ctl().json("webhooks stats 1 --over 50ms").await;
    assert_eq!(lately[0]["attempts"], 0, "{lately}");
    let nobody = scene.ctl().line("webhooks stats 99").await;
    assert_eq!(nobody.code, 3, "{nobody:?}");
    // There is no terminal here.
    let top = scene.ctl().line("top").await;
    assert_eq!(top.code, 2, "{top:?}");
}
