//! `pipeletctl events tail`: what happens on the stations, as it happens.

use serde_json::{Value, json};

use crate::scene::Scene;

#[tokio::test]
async fn events_can_be_watched() {
    let scene = Scene::new(&["StartTransaction"]).await;
    let ctl = scene.ctl();
    let tail = ctl.line("-o jsonl events tail --event MeterValues --station S1 --limit 3");
    let mut station = scene.station("S1").await;
    let mut other = scene.station("S2").await;
    // Nobody announces that the tail has begun, so the stations go on until it has its three.
    let talk = async {
        for number in 0.. {
            let meter = json!({"connectorId": number, "meterValue": []});
            station.ok("Heartbeat", "{}").await;
            station.ok("MeterValues", &meter).await;
            other.ok("MeterValues", &meter).await;
        }
    };
    let output = tokio::select! {
        output = tail => output.ok(),
        () = talk => unreachable!("it talks for ever"),
    };
    let events: Vec<Value> = output
        .lines()
        .map(|line| serde_json::from_str(line).expect("a JSON line"))
        .collect();
    assert_eq!(events.len(), 3);
    for pair in events.windows(2) {
        let connector = |event: &Value| event["payload"]["connectorId"].as_i64().expect("a number");
        assert_eq!(
            connector(&pair[1]),
            connector(&pair[0]) + 1,
            "nothing is left out"
        );
    }
    for event in events {
        assert_eq!(
            (&event["event"], &event["station_id"]),
            (&json!("MeterValues"), &json!("S1"))
        );
        assert!(
            event["id"].is_string() && event["timestamp"].is_string(),
            "{event}"
        );
    }
}
