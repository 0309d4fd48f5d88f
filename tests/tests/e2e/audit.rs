//! `pipeletctl audit`: every delivery is accounted for, whatever became of it.

use pipelet_tests::Answer;
use serde_json::json;

use crate::scene::{Scene, daemon};

#[tokio::test]
async fn the_books_of_all_webhooks_are_added_up() {
    let builder = daemon()
        .flag("--retry-schedule", "1h")
        .flag("--max-attempts", "2");
    let scene = Scene::with(builder, &["Heartbeat"]).await;
    let ctl = scene.ctl();
    let mut station = scene.station("WALLBOX_001").await;
    station.ok("Heartbeat", "{}").await;
    scene.receiver.await_requests(1).await;
    // The other one fails, so what it is owed is pending until it is deleted.
    scene.receiver.answer(Answer::Status(500));
    let url = scene.receiver.url();
    let other = scene.api.subscribe(&url, &["Heartbeat"]).await;
    station.ok("Heartbeat", "{}").await;

    let audit = ctl.json("audit").await;
    assert_eq!(audit["balanced"], true, "{audit}");
    assert_eq!(audit["total"]["received"], 3, "{audit}");

    let one = ctl.json(&format!("audit --webhook {other}")).await;
    assert_eq!(one["total"]["received"], 1, "{one}");
    assert_eq!(one["total"]["pending"], 1, "{one}");

    ctl.line(&format!("webhooks delete {other}")).await.ok();
    let closed = ctl.json(&format!("audit --webhook {other}")).await;
    let books = json!({
        "received": 1, "delivered": 0, "pending": 0, "dead": 0, "cancelled": 1, "gap": 0
    });
    assert_eq!(closed["webhooks"][0]["state"], "deleted", "{closed}");
    assert_eq!(closed["webhooks"][0]["books"], books, "{closed}");
    let text = ctl.line("audit").await.ok();
    assert!(text.contains("3 received = "), "{text}");
    assert_eq!(ctl.line("audit --webhook 999").await.code, 3);
}
