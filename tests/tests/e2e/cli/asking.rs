//! Before something is lost a command asks; where nobody can be asked, it says what would be lost.

use pipelet_tests::Answer;

use crate::scene::{Scene, daemon};

#[tokio::test]
async fn nothing_is_destroyed_where_nobody_can_say_yes() {
    let builder = daemon()
        .flag("--retry-schedule", "1ms,1h")
        .flag("--max-attempts", "2");
    let scene = Scene::with(builder, &["Heartbeat"]).await;
    scene.receiver.answer(Answer::Status(500));
    let mut station = scene.station("WALLBOX_001").await;
    station.ok("Heartbeat", "{}").await;
    let dead = scene.api.await_failed("", 1).await[0]["id"].clone();
    let ctl = scene.ctl();
    for line in [
        "stations add S1 --password correct-horse-battery",
        "id-tags add CARD",
        "keys create --name ci",
    ] {
        ctl.line(line).await.ok();
    }
    let purge = format!("dlq purge {dead}");
    let lines = [
        (purge.as_str(), "purge 1 dead letter for good?"),
        ("dlq purge --all", "purge 1 dead letter for good?"),
        ("dlq purge --webhook 1", "purge 1 dead letter for good?"),
        ("webhooks delete 1", "delete webhook 1"),
        ("stations remove S1", "its password included?"),
        ("id-tags remove CARD", "it may charge nowhere from then on"),
        ("keys revoke 2", "whoever shows it is refused from then on"),
    ];
    for (line, lost) in lines {
        let refused = ctl.line(line).await;
        assert_eq!(refused.code, 2, "{line}: {refused:?}");
        assert!(refused.stderr.contains(lost), "{line}: {refused:?}");
        assert!(refused.stderr.contains("add --yes"), "{line}: {refused:?}");
    }
    // All is still there.
    let twice = ["dlq purge --all", "dlq purge --webhook 1"];
    for (line, _) in lines.iter().filter(|(line, _)| !twice.contains(line)) {
        ctl.line(&format!("{line} --yes")).await.ok();
    }
}
